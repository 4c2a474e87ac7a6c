"""A self-check: something that has to hold before anybody believes a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Check"]


@dataclass(frozen=True)
class Check:
    """A self-check: `held` is None where this data can't tell. `said`: what was seen, in one sentence with figures.
    `about`: the policies that it speaks of, None for all.
    """

    name: str
    held: bool | None
    said: str
    about: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "held": self.held, "said": self.said, "about": self.about and [*self.about]}
