"""The ledger: budgets as a tree of accounts, in integer nano-dollars.

    reserve(amount)     holds on every level or on none, atomically
    settle(actual)      books what it really cost and frees the difference, exactly once
    release()           frees all of it

Invariant, at any moment and under any concurrency: `settled + held <= limit` on every account (only lowering the limit
of a named account below what is used already leaves it above, until its period ends). A bill that is larger
than its reservation can't be avoided from here (the money is gone); the excess that no longer fits is booked as
`overrun`, so that the invariant and the truth (`spent = settled + overrun`) both stay readable, and the account is
exhausted.

Scopes own accounts that come and go; accounts of a user, a tenant or everything are named, may have a period (day,
month: UTC), and live as long as the ledger. A refusal is sticky on accounts of scopes, since DSPy swallows the
exception in BestOfN, Refine, Parallel, Evaluate and others: once refused, always refused, until the scope ends. Named
accounts refuse what doesn't fit and nothing else: one oversized call must not lock out a tenant.

One lock per ledger: a reserve/settle pair takes about 3 us uncontended. A ledger that is shared by processes implements
the same `Purse` protocol over a store.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

from escalade import events
from escalade.clock import now as wall_clock
from escalade.errors import BadInput, BudgetExceeded
from escalade.money import Money
from escalade.registry.accounts import Account, Crossing, Level
from escalade.registry.budgets import REQUEST, Budget, Period, each_once, is_run, patterns_of, period_end, user_account
from escalade.registry.privacy.names import alias
from escalade.scopes import Principal, current

__all__ = ["Account", "Budget", "Crossing", "Ledger", "LedgerPurse", "Level", "Period", "Reservation", "period_end"]

logger = logging.getLogger(__name__)


class Reservation:
    """Money set aside on a path of accounts; a `Hold`.

    One that is lost before it could be settled (Ctrl-C between reserving and using) frees itself when it is collected.
    """

    __slots__ = ("_ledger", "_open", "_path", "amount", "key", "run", "what")

    def __init__(self, ledger: Ledger, amount: int, what: str, run: str = "") -> None:
        self._ledger, self.amount, self.what, self.run = ledger, amount, what, run
        self.key: str | None = None
        """Its name in a store that processes share."""
        self._path: list[Account] = []
        """The accounts that hold it."""
        self._open = True

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if self._open and not ending():  # at the very end nothing is left to release it with; stores reclaim it
            self.release()

    @property
    def open(self) -> bool:
        """Not settled and not released yet."""
        return self._open

    def settle(self, actual: int) -> None:
        """Book `actual` nano-dollars (>= 0) and free the rest. A second call changes nothing."""
        self._ledger._settle(self, actual)

    def release(self) -> None:
        """Free all of it: nothing was spent."""
        self._ledger._settle(self, 0)


class LedgerPurse:
    """An account with the accounts above it; a `Purse`."""

    __slots__ = ("_has_limit", "ledger", "path", "remote", "run")

    def __init__(self, ledger: Ledger, path: tuple[Account, ...], run: str = "") -> None:
        self.ledger, self.path, self.run = ledger, path, run
        self.remote = ledger.remote and any(not account.sticky for account in path)
        self._has_limit = any(a.limit is not None for a in path)

    def reserve(self, amount: int, what: str = "") -> Reservation:
        """Set `amount` nano-dollars aside on every level or on none. Raises BudgetExceeded, BadInput if negative."""
        return self.ledger._reserve(self.path, amount, what, self.run)

    def child(
        self, name: str, limit: int | None, *, optional: bool = False, principal: Principal | None = None
    ) -> LedgerPurse:
        """A narrower purse, also under the budgets of `principal` and his tenant. Raises BadInput if the limit is
        negative.
        """
        if limit is not None and limit < 0:
            raise BadInput(f"budget of {name!r}: expected 0 or more, got {Money(limit)}")
        own = Account(name, limit, optional=optional)
        named = () if principal is None else self.ledger.named(user=principal.user, tenant=principal.tenant)
        return LedgerPurse(self.ledger, (own, *(a for a in named if a not in self.path), *self.path), self.run)

    def exhaust(self, refusal: BudgetExceeded) -> None:
        """Make a refusal stick here, as if a reservation had been refused: something gave up for want of money."""
        self.ledger._stick(self.path, refusal)

    @property
    def account(self) -> Account:
        return self.path[0]

    def left(self) -> int | None:
        """Nano-dollars that the tightest level still has, None without any limit."""
        return self.ledger._left(self.path)

    @property
    def braked(self) -> bool:
        return self.ledger._braked(self.path)

    @property
    def spent(self) -> int:
        """Nano-dollars settled here and below, overruns included."""
        return self.account.settled + self.account.overrun

    @property
    def held(self) -> int:
        return self.account.held

    @property
    def limited(self) -> bool:
        return self._has_limit

    @property
    def exhausted(self) -> BudgetExceeded | None:
        return self.account.exhausted


class Ledger:
    """Budgets and what was spent of them, in memory.

    `listen` is called with each `Crossing` after the lock is free, in the thread that crossed the mark; what it
    raises is logged and changes nothing. Each mark is told once in a period, and again when the limit was changed.
    `now`: wall clock in seconds, for periods.
    """

    remote = False
    """Is a store asked that processes share? Then coroutines ask it in a thread."""

    def __init__(
        self,
        budgets: list[Budget] | tuple[Budget, ...] = (),
        *,
        listen: Callable[[Crossing], object] | None = None,
        now: Callable[[], float] = wall_clock,
    ) -> None:
        # Re-entrant, since a generator that is collected while this thread is in a transaction settles from within it.
        self._lock = threading.RLock()
        self._named: dict[str, Account] = {}
        self.patterns: dict[str, Budget] = {}
        self._listen, self._now = listen, now
        for budget in each_once(budgets):
            self.set_budget(budget)

    def set_budget(self, budget: Budget, *, by: str = "") -> None:
        """Add or change the limit of a named account; what is spent of it stays. Scopes opened from now on are under
        it. A pattern holds for accounts that have no budget of their own when they are first used. `by`: who does it,
        for ledgers that note changes.
        """
        with self._lock:
            if budget.is_pattern:
                self.patterns[budget.account] = budget
                return
            account = self._named.get(budget.account)
            if account is None:
                account = self._named[budget.account] = Account(budget.account, None, sticky=False)
            if account.period != budget.period:
                account.period, account.ends = budget.period, period_end(budget.period, self._now())
                account.marks.clear()
            account.set_marks(budget.holds, budget.warn, budget.brake)

    def purse(
        self, principal: Principal | None = None, *, limit: int | None = None, name: str = "run", run: str = ""
    ) -> LedgerPurse:
        """A purse for a new run: its own account under those of the principal, his tenant and everything that have a
        budget. `run`: the id of the run, for those who look at what is held.
        """
        return LedgerPurse(self, self._budgeted("everything"), run).child(name, limit, principal=principal)

    def per_request(self) -> Budget | None:
        """The budget of each run, if there is one; see `opening`."""
        with self._lock:
            return self.patterns.get(REQUEST)

    def named(self, *, user: str, tenant: str) -> tuple[Account, ...]:
        """The accounts of a user and his tenant that have a budget, the narrower first."""
        return self._budgeted(user_account(tenant, user), f"tenant:{tenant}")

    def _budgeted(self, *names: str) -> tuple[Account, ...]:
        for name in names:
            if self.patterns and name not in self._named:
                budget = next((self.patterns[p] for p in patterns_of(name) if p in self.patterns), None)
                if budget is not None:
                    self.set_budget(replace(budget, account=name))
        return tuple(self._named[name] for name in names if name in self._named)

    def account(self, name: str) -> Account | None:
        """The named account as of now, None if it has no budget."""
        with self._lock:
            account = self._named.get(name)
            if account is not None:
                self._roll(account)
            return account

    def accounts(self) -> list[Account]:
        """A list of all named accounts as of now, sorted by name; those of durable runs are not listed."""
        with self._lock:
            return [self._named[name] for name in sorted(self._named) if self.account(name) and not is_run(name)]

    def forget(self, name: str) -> None:
        """Forget a named account, unless something is held on it."""
        if name in self._named and not self._named[name].held:
            del self._named[name]

    # -- the three transactions; everything else is reading

    def _reserve(self, path: tuple[Account, ...], amount: int, what: str, run: str = "") -> Reservation:
        if amount < 0:
            raise BadInput(f"can't reserve a negative amount: {amount}")
        reservation = Reservation(self, amount, what, run)
        with self._lock:
            refusal, crossed = self._hold(path, reservation)
        if crossed is not None:
            self._tell(crossed)
        if refusal is not None:
            raise refusal
        return reservation

    def _settle(self, reservation: Reservation, actual: int) -> None:
        if actual < 0:
            raise BadInput(f"can't settle a negative amount: {actual}")
        with self._lock:
            if not reservation._open:
                return
            reservation._open = False
            crossed = self._book(reservation, actual)
        if crossed is not None:
            self._tell(crossed)

    def _tell(self, crossed: list[Crossing]) -> None:
        """Tell the run that it happens in, and the listener."""
        for crossing in crossed:
            events.emit(
                current(),
                events.BudgetCrossed,
                account=alias(crossing.account),
                level=crossing.level,
                used=int(crossing.used),
                limit=None if crossing.limit is None else int(crossing.limit),
            )
            if self._listen is not None:
                self._announce(crossing)

    def _announce(self, crossing: Crossing) -> object:
        """Tell the listener: what it returned. It must not get between an amount that is held and the one who holds it:
        its errors end here.
        """
        try:
            return self._listen(crossing) if self._listen is not None else None
        except Exception:
            logger.exception("the listener %r failed on %s", self._listen, crossing)
            return None

    def _braked(self, path: tuple[Account, ...]) -> bool:
        with self._lock:
            self._refresh(path)
            return any(account.braked for account in path)

    def _stick(self, path: tuple[Account, ...], refusal: BudgetExceeded) -> None:
        with self._lock:
            refusing = next((a for a in path if alias(a.name) == refusal.account), path[0])
            self._exhaust(path, refusing, refusal)

    def _left(self, path: tuple[Account, ...]) -> int | None:
        with self._lock:
            self._refresh(path)
            if any(account.exhausted is not None for account in path):
                return 0
            lefts = [max(0, a.limit - a.settled - a.held) for a in path if a.limit is not None]
        return min(lefts) if lefts else None

    # -- helpers, all called under the lock

    def _hold(
        self, path: tuple[Account, ...], reservation: Reservation
    ) -> tuple[BudgetExceeded | None, list[Crossing] | None]:
        """Hold it on every account of the path or on none: the refusal, if any, and the marks that were crossed."""
        amount, what = reservation.amount, reservation.what
        refusal: BudgetExceeded | None = None
        crossed: list[Crossing] | None = None
        for account in path:
            if account.period != "none":
                self._roll(account)
            if account.exhausted is not None:
                refusal = account.exhausted.again()
                self._exhaust(path, account, refusal)
                break
            # Nothing may come between looking and holding, not even a finalizer that settles another use.
            if account.limit is not None and account.settled + account.held + amount > account.limit:
                refusal = _refusal(account, amount, what)
                self._exhaust(path, account, refusal)
                crossed = _mark(account, None, "exhausted")
                break
            account.held += amount
            reservation._path.append(account)
        else:
            for account in path:
                if account.limit is not None and account.level() is not None:
                    crossed = _mark(account, crossed)
        if refusal is not None:
            _withdraw(reservation)
        return refusal, crossed

    def _book(self, reservation: Reservation, actual: int) -> list[Crossing] | None:
        """Settle it on each account that holds it: the marks that were crossed."""
        crossed: list[Crossing] | None = None
        amount = reservation.amount
        for account in reservation._path:
            if account.period != "none":
                self._roll(account)
            account.held -= amount
            fits = actual
            if account.limit is not None and actual > amount:
                fits = max(min(actual, account.limit - account.settled - account.held), 0)
            account.settled += fits
            if fits < actual:
                account.overrun += actual - fits
                crossed = self._overran(account, actual, reservation.what, crossed)
            if account.limit is not None and account.level() is not None:
                crossed = _mark(account, crossed)
        return crossed

    def _refresh(self, path: tuple[Account, ...]) -> None:
        """Make the accounts what they are now."""
        for account in path:
            if account.period != "none":
                self._roll(account)

    def _roll(self, account: Account) -> None:
        """Begin a new period. What is still held counts against the new one, where it will be settled.

        Only forward: a clock that is set back must not open yesterday's budget again, and today's after it.
        """
        now = self._now()
        if now >= account.ends:
            account.ends = period_end(account.period, now)
            account.settled = account.overrun = 0
            account.marks.clear()

    @staticmethod
    def _exhaust(path: tuple[Account, ...], refusing: Account, refusal: BudgetExceeded) -> None:
        """Make the refusal stick from the leaf up to the account that refused, but not beyond an optional one."""
        for account in path:
            if account.sticky and account.exhausted is None:
                account.exhausted = (
                    refusal.again()
                )  # a copy: the raised one grows a traceback, which keeps frames alive
            if account is refusing or account.optional:
                break

    def _overran(
        self, account: Account, actual: int, what: str, crossed: list[Crossing] | None
    ) -> list[Crossing] | None:
        if account.sticky and account.exhausted is None:
            account.exhausted = BudgetExceeded(
                f"{what or 'a call'} was billed {Money(actual)}, more than was reserved for it and than budget "
                f"{alias(account.name)!r} of {Money(account.limit or 0)} had left",
                account=alias(account.name),
                limit=account.limit,
                left=0,
                asked=actual,
            )
        return _mark(account, crossed, "overrun")


def _withdraw(reservation: Reservation) -> None:
    """It was refused further up: no account holds it any more."""
    reservation._open = False
    for account in reservation._path:
        account.held -= reservation.amount


def _mark(account: Account, crossed: list[Crossing] | None, level: Level | None = None) -> list[Crossing] | None:
    level = level or account.level()
    if level is None or level in account.marks:
        return crossed
    account.marks.update(("warn", level) if level == "brake" else (level,))  # at the brake, it is late for a warning
    limit = None if account.limit is None else Money(account.limit)
    crossing = Crossing(account.name, level, Money(account.used), limit, not account.sticky, account.ends)
    return [crossing] if crossed is None else [*crossed, crossing]


def _refusal(account: Account, amount: int, what: str) -> BudgetExceeded:
    left, name = account.left or 0, alias(account.name)
    return BudgetExceeded(
        f"{what or 'a call'} may cost up to {Money(amount)}; budget {name!r} of {Money(account.limit or 0)} "
        f"has {Money(left)} left",
        account=name,
        limit=account.limit,
        left=left,
        asked=amount,
    )
