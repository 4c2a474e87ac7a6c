"""What a call costs: per call, by its arguments, or as the tool says while it runs.

    @tool(cost="0.002")                                              each call
    @tool(cost=lambda args: Decimal("0.001") * args["pages"])        by the validated arguments
    @tool(max_cost="0.05", metered=True)                             as the tool says: escalade.charge("0.003")

What a call may cost at most is reserved before it; a tool can't charge more than that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from typing import Any

from escalade.errors import BudgetExceeded, ToolError
from escalade.money import Money, money_or_none

CostOf = Callable[[Mapping[str, Any]], "str | Decimal | Money | None"]
"""Dollars that a call with these (validated) arguments costs; None for unknown."""


class Tab:
    """What one metered call has charged so far. `most`: nano-dollars that are reserved for it, None for no limit."""

    def __init__(self, label: str, most: int | None) -> None:
        self._label, self._most = label, most
        self._lock = threading.Lock()
        self._sum, self._open = 0, True

    def charge(self, amount: int) -> None:
        """Add to it. Raises BudgetExceeded, before anything is added, for more than was reserved; ToolError when the
        call has ended.
        """
        with self._lock:
            if not self._open:
                raise ToolError(f"{self._label} has ended and been settled; it can't charge any more")
            left = None if self._most is None else self._most - self._sum
            if left is not None and amount > left:
                raise BudgetExceeded(
                    f"{self._label} may charge {Money(self._most or 0)} per call and has {Money(left)} left; "
                    f"{Money(amount)} more is refused",
                    account=self._label, limit=self._most, left=left, asked=amount,
                )  # fmt: skip
            self._sum += amount

    def close(self) -> int:
        """End it, and say what was charged."""
        with self._lock:
            self._open = False
            return self._sum


_tab: ContextVar[Tab | None] = ContextVar("escalade_tab", default=None)


def charge(dollars: str | Decimal | Money) -> None:
    """Say, in the body of a metered tool, that it has spent so much (or is about to).

    Raises BudgetExceeded when that is more than the tool's `max_cost` leaves: say it before you spend it. Raises
    ToolError outside of a metered tool, and BadInput for what is no amount.
    """
    tab, amount = _tab.get(), Money.of(dollars)
    if tab is None:
        raise ToolError("escalade.charge(...) is for the body of a tool that was declared with metered=True")
    if amount < 0:
        raise ToolError(f"a tool can't charge a negative amount: {amount}")
    tab.charge(int(amount))


@contextmanager
def metered(tab: Tab | None) -> Iterator[None]:
    """What is charged in this context goes onto this tab; None for a tool that isn't metered."""
    token = _tab.set(tab)
    try:
        yield
    finally:
        _tab.reset(token)


def ceiling_of(label: str, cost_of: CostOf, values: Mapping[str, Any], most: Money | None) -> int | None:
    """Nano-dollars that a call with these arguments costs. Raises ToolError when the function can't say, or says more
    than `most`.
    """
    try:
        cost = money_or_none(cost_of(dict(values)))
    except Exception as error:
        raise ToolError(f"{label}: its cost can't be told from the arguments: {type(error).__name__}") from error
    if cost is not None and (cost < 0 or (most is not None and cost > most)):
        raise ToolError(f"{label}: a cost of {cost} is not between 0 and its max_cost of {most}")
    return None if cost is None else int(cost)
