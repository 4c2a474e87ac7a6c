"""What becomes of a version after it was registered: deprecated, then past its sunset; or yanked.

A deprecated version is found as before and warns. Past its sunset date it is refused, or still only warns, as the
registry is set. A yanked version is out of all ranges; who pins it exactly gets it, with a warning.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from escalade.errors import BadInput, ToolRetired

Sunset = Literal["refuse", "warn"]


@dataclass(frozen=True, slots=True)
class Deprecated:
    """`sunset`: the last day, None while none is set. `replacement`: what to use, such as "crm.find@^2"."""

    message: str = ""
    sunset: dt.date | None = None
    replacement: str = ""

    def __str__(self) -> str:
        parts = [self.message, f"sunset on {self.sunset}" if self.sunset else ""]
        return "; ".join(part for part in (*parts, f"use {self.replacement}" if self.replacement else "") if part)


@dataclass(frozen=True, slots=True)
class Status:
    """Of one version. `yanked`: why, None for one that isn't; `rolled_back`: why a rollout of it was taken back."""

    deprecated: Deprecated | None = None
    yanked: str | None = None
    rolled_back: str | None = None

    @property
    def in_ranges(self) -> bool:
        """Is it found by who doesn't pin it?"""
        return self.yanked is None and self.rolled_back is None

    @property
    def past_sunset(self) -> bool:
        """Is its sunset over, in UTC?"""
        sunset = None if self.deprecated is None else self.deprecated.sunset
        return sunset is not None and dt.datetime.now(dt.UTC).date() > sunset

    def warning(self, label: str) -> str:
        """What to tell who uses it, "" for nothing."""
        said = [] if self.deprecated is None else [_sentence(f"tool {label} is deprecated", str(self.deprecated))]
        if self.yanked is not None:
            said.append(_sentence(f"tool {label} was yanked", self.yanked))
        if self.rolled_back is not None:
            said.append(_sentence(f"the rollout of tool {label} was taken back", self.rolled_back))
        return "; ".join(said)

    def check(self, label: str, *, refuse: bool) -> None:
        """Raises ToolRetired for one past its sunset, if such are refused."""
        if self.deprecated is not None and refuse and self.past_sunset:
            use = f"; use {self.deprecated.replacement}" if self.deprecated.replacement else ""
            raise ToolRetired(f"tool {label} was retired after {self.deprecated.sunset}{use}")


def to_date(value: str | dt.date | None) -> dt.date | None:
    """A date, or one as "2026-12-31". Raises BadInput."""
    if value is None or (isinstance(value, dt.date) and not isinstance(value, dt.datetime)):
        return value
    try:
        return dt.date.fromisoformat(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise BadInput(f"sunset: expected a date like '2026-12-31', got {value!r}") from None


def _sentence(start: str, rest: str) -> str:
    return f"{start}: {rest}" if rest else start
