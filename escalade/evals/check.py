"""A self-check: something that has to hold before anybody believes a figure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Check"]


@dataclass(frozen=True)
class Check:
    """A self-check: `held` is None where this data can't tell. `said`: what was seen, in one sentence with figures."""

    name: str
    held: bool | None
    said: str
