"""Budgets: limits on accounts that live as long as the ledger.

everything               all there is
tenant:acme              one tenant
tenant:*                 each tenant, its own account
user:acme/ada            one user of one tenant: ada of another tenant is somebody else
user:acme/*, user:*/*    each user of a tenant, each user; their own accounts
run:NAME                 one durable run, however often it is interrupted and resumed
request                  each run that a scope opens: all models and tools that one request uses, together
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from escalade.errors import BadInput
from escalade.money import Money

Period = Literal["none", "day", "month"]

REQUEST = "request"
"""The account of each run."""

UNLIMITED = Money(2**53)
"""The limit of a run without one: its account only counts, in stores that know no account without a limit. Nine million
dollars: the most that all of them count exactly.
"""

_DAY = 86_400

_ACCOUNT = re.compile(r"everything|request|run:[^*]+|tenant:(\*|[^*/]+)|user:(\*/\*|[^*/]+/\*|[^*/]+/[^*]+)")


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on a named account, or on each account that a pattern stands for (see the module).

    `limit`: dollars, as in `Money.of`, 0 or more. `period`: calendar periods in UTC. `warn`, `brake`: shares of the
    limit at which listeners are told and escalation stops. Raises BadInput.
    """

    account: str
    limit: Money | str
    period: Period = "none"
    warn: float = 0.80
    brake: float = 0.95

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", Money.of(self.limit))
        if _ACCOUNT.fullmatch(self.account) is None:
            raise BadInput(
                f"unknown budget account {self.account!r}; write 'everything', 'tenant:NAME', 'user:TENANT/NAME', "
                f"'run:NAME', or 'tenant:*', 'user:TENANT/*', 'user:*/*' and 'request' for an account of each"
            )
        if int(Money.of(self.limit)) < 0:
            raise BadInput(f"budget {self.account!r}: expected a limit of 0 or more, got {self.limit}")
        if self.period not in ("none", "day", "month"):
            raise BadInput(f"unknown budget period {self.period!r}; write 'none', 'day' or 'month'")
        if self.account == REQUEST and self.period != "none":
            raise BadInput("budget 'request': a request has no period; leave it out")
        if not 0 < self.warn <= self.brake <= 1:
            raise BadInput(
                f"budget {self.account!r}: expected 0 < warn <= brake <= 1, got {self.warn} and {self.brake}"
            )

    @property
    def holds(self) -> int | None:
        """The limit in nano-dollars; None where it stands for none."""
        return limit_of(self.account, int(Money.of(self.limit)))

    @property
    def is_pattern(self) -> bool:
        """Does it stand for an account of each?"""
        return is_pattern(self.account)


def is_pattern(account: str) -> bool:
    """Does it stand for an account of each?"""
    return account.endswith("*") or account == REQUEST


def user_account(tenant: str, user: str) -> str:
    """The account of a user of a tenant."""
    return f"user:{tenant}/{user}"


def run_account(run_id: str) -> str:
    """The account of a durable run."""
    return f"run:{run_id}"


def is_run(account: str) -> bool:
    """Is it that of a durable run?"""
    return account.startswith("run:")


def limit_of(account: str, limit: int) -> int | None:
    """What holds of the limit that a store has; see `UNLIMITED`."""
    return None if is_run(account) and limit >= UNLIMITED else limit


def patterns_of(account: str) -> Iterator[str]:
    """The patterns that stand for this account too, the most specific first."""
    kind, _, name = account.partition(":")
    if kind == "tenant":
        yield "tenant:*"
    elif kind == "user":
        yield f"user:{name.split('/', 1)[0]}/*"
        yield "user:*/*"


def period_end(period: Period, now: float) -> float:
    """When the period that `now` is in ends (UTC), in seconds since the epoch."""
    if period == "none":
        return math.inf
    if period == "day":
        return (now // _DAY + 1) * _DAY
    today = datetime.fromtimestamp(now, UTC)
    months = today.year * 12 + today.month  # the next month, counted from 0
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC).timestamp()


class _Free:
    """Money for what costs nothing; a `Hold`."""

    amount = 0

    def settle(self, actual: int) -> None:
        """Nothing to settle."""

    def release(self) -> None:
        """Nothing to free."""


FREE = _Free()


def each_once(budgets: object) -> list[Budget] | tuple[Budget, ...]:
    """The budgets that a ledger was given. Raises BadInput for what is no list of them, and for an account with two."""
    if not isinstance(budgets, list | tuple) or not all(isinstance(one, Budget) for one in budgets):
        raise BadInput(f'a ledger takes a list of budgets, Ledger([Budget("tenant:acme", "100")]), got {budgets!r}')
    named = [budget.account for budget in budgets]
    if twice := [account for account in named if named.count(account) > 1]:
        raise BadInput(f"budget {twice[0]!r} is there twice; an account has one limit")
    return budgets
