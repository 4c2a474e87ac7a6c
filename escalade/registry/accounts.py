"""One node of the tree of budgets, and what crossing one of its marks looks like; `ledger.py` changes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from escalade.errors import BudgetExceeded
from escalade.money import Money
from escalade.registry.budgets import Period

__all__ = ["Account", "Crossing", "Level", "brake_at"]

Level = Literal["warn", "brake", "exhausted", "overrun"]


@dataclass(frozen=True, slots=True)
class Crossing:
    """An account crossed a mark. `used`: settled and held, nano-dollars. `named`: is it a user's, a tenant's or
    everything's, and not a scope's? `ends`: when its period does, seconds since the epoch.
    """

    account: str
    level: Level
    used: Money
    limit: Money | None
    named: bool = field(default=False, compare=False)
    ends: float = field(default=math.inf, compare=False)


class Account:
    """One node of the tree. Only the ledger changes it, under the ledger's lock."""

    __slots__ = (
        "_brake_at", "_warn_at", "brake", "ends", "exhausted", "held", "limit", "marks", "name", "optional", "overrun",
        "period", "settled", "sticky", "warn",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        limit: int | None,
        *,
        period: Period = "none",
        sticky: bool = True,
        optional: bool = False,
        warn: float = 0.80,
        brake: float = 0.95,
    ) -> None:
        self.name, self.period = name, period
        self.limit, self.warn, self.brake = limit, warn, brake
        self.sticky, self.optional = sticky, optional
        self.settled = self.held = self.overrun = 0
        self.exhausted: BudgetExceeded | None = None
        self.marks: set[Level] = set()
        self.ends = math.inf
        self.set_marks(limit, warn, brake)

    def __repr__(self) -> str:
        of = "" if self.limit is None else f" of {Money(self.limit)}"
        return f"Account({self.name!r}: {Money(self.settled)} settled, {Money(self.held)} held{of})"

    def set_marks(self, limit: int | None, warn: float, brake: float) -> None:
        """Set the limit, and the amounts at which it warns and brakes. Marks of other amounts are crossed anew."""
        if self.marks and (limit, warn, brake) != (self.limit, self.warn, self.brake):
            self.marks.clear()
        self.limit, self.warn, self.brake = limit, warn, brake
        self._warn_at = None if limit is None else _share(limit, warn)
        self._brake_at = None if limit is None else _share(limit, brake)

    @property
    def used(self) -> int:
        return self.settled + self.held

    @property
    def left(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.settled - self.held)

    @property
    def braked(self) -> bool:
        return self._brake_at is not None and self.settled + self.held >= self._brake_at

    def level(self) -> Level | None:
        """The highest mark that is reached."""
        if self._brake_at is None or self._warn_at is None:
            return None
        used = self.settled + self.held
        if used >= self._brake_at:
            return "brake"
        return "warn" if used >= self._warn_at else None


def brake_at(limit: int, share: float = 0.95) -> int:
    """The amount, nano-dollars, at which an account of this limit brakes: what is left is for finishing cheaply."""
    return _share(limit, share)


def _share(limit: int, share: float) -> int:
    """`share` of `limit`, rounded up, without floats of nano-dollars."""
    return -(-limit * round(share * 1_000_000) // 1_000_000)
