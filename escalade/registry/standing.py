"""How an account stands: what is spent, held and left of it, and where that leads.

The projection is plain arithmetic, and no model of anything: what was spent in this period, over the time that it took,
over a whole month. An hour of a new period has to have passed; a budget without a period has no rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from escalade.money import Money
from escalade.registry.budgets import Period, period_end

_DAY, _HOUR = 86_400.0, 3_600.0


@dataclass(frozen=True, slots=True)
class Standing:
    """One account at one moment. `spent`: settled, with what bills ran over. `share`: of the limit that is spent or
    held. `level`: the mark that is reached, "" for none. `ends`: of the period, seconds since the epoch, None without
    one. `month`: what a whole month costs at the rate of this period; None where there is no rate yet.
    """

    account: str
    limit: Money
    period: Period
    spent: Money
    held: Money
    left: Money
    share: float
    level: str
    warn: float
    brake: float
    ends: float | None
    month: Money | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: dollars as text, times in ISO 8601."""
        said: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        for name in ("limit", "spent", "held", "left", "month"):
            said[name] = None if said[name] is None else format(said[name].dollars, "f")
        said["ends"] = None if self.ends is None else datetime.fromtimestamp(self.ends, UTC).isoformat()
        return {**said, "share": round(self.share, 6)}


def standing(account: Any, now: float) -> Standing:
    """How an account stands: an `Account` of a ledger or a `Row` of a store, which has a limit. `now`: seconds since
    the epoch, within its period.
    """
    limit, spent = int(account.limit), account.settled + account.overrun
    used = account.settled + account.held
    share = used / limit if limit else 1.0
    return Standing(
        account=account.name,
        limit=Money(limit),
        period=account.period,
        spent=Money(spent),
        held=Money(account.held),
        left=Money(max(0, limit - used)),
        share=share,
        level="brake" if share >= account.brake else "warn" if share >= account.warn else "",
        warn=account.warn,
        brake=account.brake,
        ends=None if account.period == "none" else account.ends,
        month=month_at_this_rate(spent, account.period, now),
    )


def month_at_this_rate(spent: int, period: Period, now: float) -> Money | None:
    """What a whole month costs at the rate at which `spent` nano-dollars were spent in the period that `now` is in."""
    if period == "none":
        return None
    elapsed = now - (now // _DAY * _DAY if period == "day" else _month_began(now))
    if elapsed < _HOUR:
        return None
    return Money(round(spent * (period_end("month", now) - _month_began(now)) / elapsed))


def _month_began(now: float) -> float:
    today = datetime.fromtimestamp(now, UTC)
    return datetime(today.year, today.month, 1, tzinfo=UTC).timestamp()
