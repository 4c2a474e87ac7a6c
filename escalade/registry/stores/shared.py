"""A ledger whose named accounts (users, tenants, everything) live in a store that processes share.

Accounts of scopes come and go within one process and stay in memory. Where a path leads to a named account, the store
decides first, for all of its accounts at once or for none; then the memory ledger goes over the same figures and does
the rest, so that both ledgers mean the same. A path without named accounts never asks the store.

What is held in the store belongs to a process. When one dies, another one books what it held: in full
(`on_death="settle"`, the default: the money may be gone) or not at all ("release"); exactly once, since the entry
of the store goes with it. A settlement that the store can't take now is taken later; until then, and should this
process die before, the full reservation counts.

The store knows accounts by their names, which are those of users and tenants: call people by ids that say nothing of
them where that must not be kept. Ids of runs are kept as aliases, arguments and results not at all.

A store that failed is left alone for `rest` seconds: everybody is refused at once instead of waiting in turn.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

from escalade.errors import BudgetExceeded, StoreUnavailable, one_of
from escalade.money import Money
from escalade.registry.budgets import REQUEST, Budget, Period, is_pattern, is_run, limit_of, patterns_of
from escalade.registry.ledger import Account, Crossing, Ledger, Level, Reservation, _withdraw
from escalade.registry.privacy.names import alias
from escalade.registry.stores.crossings import Claims, Teller
from escalade.registry.stores.owners import after_fork

logger = logging.getLogger(__name__)

OnDeath = Literal["settle", "release"]


@dataclass(frozen=True, slots=True)
class Row:
    """A named account in the store. Nano-dollars; `ends`: when its period does, seconds since the epoch."""

    name: str
    limit: int
    period: Period
    warn: float
    brake: float
    ends: float
    settled: int
    held: int
    overrun: int


@dataclass(frozen=True, slots=True)
class Held:
    """Money of named accounts that a process holds. `at`: since when, seconds since the epoch."""

    key: str
    owner: str
    run: str
    what: str
    amount: int
    accounts: tuple[str, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Change:
    """A budget that was set. `at`: when, seconds since the epoch. `was`: None for a new one. `by`: who did it, "" for a
    program that named it as it began.
    """

    at: float
    was: Budget | None
    now: Budget
    by: str


class Store(Claims, Protocol):
    """Named accounts and what is held of them. Every method is one transaction, and raises StoreUnavailable."""

    def now(self) -> float:
        """Seconds since the epoch, by the clock that the processes share."""
        ...

    def set_budget(self, budget: Budget, now: float, *, replace: bool = True, by: str = "") -> None:
        """Set the limit of an account, or a pattern of accounts, and note what changed and who did it; not `replace`:
        only if it has none, and not noted.
        """
        ...

    def changes(self) -> list[Change]:
        """What was changed, the latest first."""
        ...

    def read(self, names: Sequence[str] | None, now: float) -> list[Row]:
        """The accounts of these names that exist (None: all), as of now."""
        ...

    def reserve(
        self, key: str, names: Sequence[str], amount: int, now: float, run: str, what: str
    ) -> tuple[bool, list[Row]]:
        """Hold `amount` on all these accounts or on none: whether it did, and the accounts as they were before.

        An account that isn't there is no account without a limit: nothing is held.
        """
        ...

    def settle(self, key: str, actual: int, now: float) -> list[Row] | None:
        """End what is held under that key: the accounts as they were before; None when nothing is (any more)."""
        ...

    def forget(self, name: str) -> None:
        """Forget an account, unless something is held on it."""
        ...

    def beat(self) -> None:
        """Say that this process is alive."""
        ...

    def sweep(self, now: float, lease: float, on_death: OnDeath) -> list[Held]:
        """End what dead processes held, and say what that was."""
        ...

    def held(self) -> list[Held]:
        """All that is held, by anybody."""
        ...

    def close(self) -> None: ...


class SharedLedger(Ledger):
    """A `Ledger` over a `Store`. `now`: wall clock in seconds, for periods; None: the clock of the store.

    `lease`: seconds without a heartbeat after which a process of another host counts as dead (one of this host counts
    when it is). `on_death`: see the module. Raises StoreUnavailable.
    """

    remote = True

    def __init__(
        self,
        store: Store,
        budgets: Iterable[Budget] = (),
        *,
        listen: Callable[[Crossing], object] | None = None,
        now: Callable[[], float] | None = None,
        lease: float = 60.0,
        on_death: OnDeath = "settle",
        rest: float = 1.0,
    ) -> None:
        one_of("on_death", on_death, get_args(OnDeath))
        self.store, self._lease, self._on_death, self._rest = store, lease, on_death, rest
        self._unsettled: deque[tuple[str, int]] = deque()
        self._talking = False
        self._down_until = -1.0
        self._keeper: threading.Thread | None = None
        self._keys = _keys()
        self._known: set[str] = set()
        self._teller = Teller(store, self._asked, super()._announce)
        super().__init__(tuple(budgets), listen=listen, now=store.now if now is None else now)
        self.sweep()
        after_fork(self)

    def _forked(self) -> None:
        """A child is a process of its own: what the parent has still to settle is the parent's."""
        self._lock, self._keys = threading.RLock(), _keys()
        self._unsettled, self._keeper, self._talking = deque(), None, False
        self._teller.forked()

    def set_budget(self, budget: Budget, *, by: str = "") -> None:
        """Add or change the limit of a named account, for all processes; what is spent of it stays. The store notes
        the change, and `by` whom; a durable run sets its own once, which is no change.
        """
        with self._lock, self._talk():
            noted = bool(by) or not is_run(budget.account)
            self.store.set_budget(budget, self._now(), replace=noted, by=by)
            self._known.add(budget.account)
            if not budget.is_pattern:
                self._mirrored(self.store.read([budget.account], self._now()))

    def account(self, name: str) -> Account | None:
        """The named account as of now, None if it has no budget."""
        with self._lock:
            return next(iter(self._budgeted(name)), None)

    def accounts(self) -> list[Account]:
        """All named accounts as of now, by name; those of durable runs are not listed."""
        with self._lock:
            with self._talk():
                rows = self.store.read(None, self._now())
            own = [row for row in rows if not is_pattern(row.name) and not is_run(row.name)]
            return sorted(self._mirrored(own), key=lambda account: account.name)

    def forget(self, name: str) -> None:
        """Forget a named account, unless something is held on it. Raises StoreUnavailable."""
        with self._lock, self._talk():
            self.store.forget(name)
            self._known.discard(name)
            self._named.pop(name, None)

    def per_request(self) -> Budget | None:
        """The budget of each run, if there is one."""
        with self._lock:
            with self._talk():
                rows = self.store.read([REQUEST], self._now())
            self._check_kept([REQUEST], [row.name for row in rows])
            self._known.update(row.name for row in rows)
            return next((budget_of(row) for row in rows), None)

    @property
    def unsettled(self) -> int:
        """Settlements that the store has not taken yet; their full reservations count until it does."""
        return len(self._unsettled)

    def sweep(self) -> list[Held]:
        """End what dead processes held, as `on_death` says. Done by itself, now and then. Raises StoreUnavailable."""
        with self._lock, self._talk():
            ended = self.store.sweep(self._now(), self._lease, self._on_death)
        for owner in dict.fromkeys(held.owner for held in ended):
            amounts = [held.amount for held in ended if held.owner == owner]
            logger.warning(
                "process %s died with %d reservations of %s together: %s",
                owner, len(amounts), Money(sum(amounts)), "booked" if self._on_death == "settle" else "released",
            )  # fmt: skip
        if self._listen is not None:
            self._teller.catch_up(self._now())
        return ended

    def keep(self) -> None:
        """Say that this process is alive, settle and tell what had to wait, and look for the dead."""
        with self._lock, self._talk():
            self.store.beat()
        self.sweep()

    def close(self) -> None:
        """Settle what can be settled, and close the store."""
        with self._lock:
            self._flush()
            self.store.close()

    def _announce(self, crossing: Crossing) -> object:
        """Named accounts are everybody's: one process tells."""
        if not crossing.named:
            return super()._announce(crossing)
        self._teller.tell(crossing)
        return None

    def _asked(self, what: Callable[[], Any]) -> Any:
        with self._lock, self._talk():
            return what()

    # -- under the lock, as in Ledger

    def _budgeted(self, *names: str) -> tuple[Account, ...]:
        patterns = {name: list(patterns_of(name)) for name in names}
        wanted = [*names, *dict.fromkeys(pattern for each in patterns.values() for pattern in each)]
        with self._lock:
            with self._talk():
                rows = {row.name: row for row in self.store.read(wanted, self._now())}
                new = [name for name in names if name not in rows and any(p in rows for p in patterns[name])]
                for name in new:
                    pattern = next(rows[p] for p in patterns[name] if p in rows)
                    self.store.set_budget(replace(budget_of(pattern), account=name), self._now(), replace=False)
                rows |= {row.name: row for row in self.store.read(new, self._now())} if new else {}
            # That of a run may be gone: the run has ended in another process.
            self._check_kept([name for name in wanted if not is_run(name)], rows)
            return tuple(self._mirrored([rows[name] for name in names if name in rows]))

    def _hold(
        self, path: tuple[Account, ...], reservation: Reservation
    ) -> tuple[BudgetExceeded | None, list[Crossing] | None]:
        names = [account.name for account in path if not account.sticky]
        if not names:
            return super()._hold(path, reservation)
        if self._keeper is None:
            self._start_keeper()
        while True:
            held = False
            if all(_fits(account, reservation.amount) for account in path if account.sticky):
                held = self._hold_shared(names, reservation)
            else:  # an account of the scope refuses, unless a named one below it does so first
                self._refresh(path)
            refusal, crossed = super()._hold(path, reservation)
            if held == (refusal is None):
                return refusal, crossed
            if held:  # a finalizer has taken the scope's money meanwhile
                self._end(reservation.key, 0)
                return refusal, crossed
            _withdraw(reservation)  # or freed some
            reservation._path.clear()
            reservation._open = True

    def _hold_shared(self, names: Sequence[str], reservation: Reservation) -> bool:
        key = reservation.key = next(self._keys)
        try:
            with self._talk():
                held, rows = self.store.reserve(
                    key, names, reservation.amount, self._now(), alias(reservation.run), reservation.what
                )
        except BaseException:
            reservation._open = False
            self._unsettled.append((key, 0))  # nobody knows whether the store has done it
            raise
        reservation._open = held
        self._check_kept(names, [row.name for row in rows])
        reservation._open = True
        self._mirrored(rows)
        return held

    def _book(self, reservation: Reservation, actual: int) -> list[Crossing] | None:
        if reservation.key is not None:
            rows = self._end(reservation.key, actual)
            if rows is None:  # the store's part is done later, or was done by others
                reservation._path = [account for account in reservation._path if account.sticky]
            else:
                self._mirrored(rows)
        return super()._book(reservation, actual)

    def _end(self, key: str | None, actual: int) -> list[Row] | None:
        """Settle in the store, now or later."""
        if key is None:
            return None
        if self._talking:  # a finalizer, in the middle of another transaction of this thread
            self._unsettled.append((key, actual))
            return None
        try:
            with self._talk():
                return self.store.settle(key, actual, self._now())
        except StoreUnavailable as error:
            self._unsettled.append((key, actual))
            logger.warning("a settlement has to wait, and its full reservation counts meanwhile: %s", error)
            return None
        except BaseException:
            self._unsettled.append((key, actual))
            raise

    def _flush(self) -> None:
        """Settle what had to wait, as long as the store takes it. Within `_talk`, or under the lock."""
        while self._unsettled:
            key, actual = self._unsettled[0]
            try:
                self.store.settle(key, actual, self._now())
            except StoreUnavailable:
                return
            self._unsettled.popleft()

    def _refresh(self, path: tuple[Account, ...]) -> None:
        names = [account.name for account in path if not account.sticky]
        if names:
            with self._talk():
                rows = self.store.read(names, self._now())
            self._check_kept(names, [row.name for row in rows])
            self._mirrored(rows)

    def _check_kept(self, names: Iterable[str], found: Container[str]) -> None:
        """A store that has forgotten a budget must not turn it into no budget."""
        lost = [name for name in names if name not in found and name in self._known]
        if lost:
            raise StoreUnavailable(f"the store has lost budget {lost[0]!r}; set it again, with what is left of it")

    def _roll(self, account: Account) -> None:
        """Nothing: accounts of scopes have no period, and those of the store are rolled there."""

    def _mirrored(self, rows: Iterable[Row]) -> list[Account]:
        """Our picture of these accounts, now as in the store."""
        found = []
        for row in rows:
            account = self._named.get(row.name)
            if account is None:
                account = self._named[row.name] = Account(row.name, None, sticky=False)
            limit = limit_of(row.name, row.limit)
            if (account.limit, account.warn, account.brake) != (limit, row.warn, row.brake):
                account.set_marks(limit, row.warn, row.brake)
            if account.ends != row.ends or account.period != row.period:
                account.period, account.ends = row.period, row.ends
                account.marks.clear()
            self._known.add(row.name)
            account.settled, account.held, account.overrun = row.settled, row.held, row.overrun
            found.append(account)
        return found

    @contextmanager
    def _talk(self) -> Iterator[None]:
        """Around each use of the store, under the lock: whoever settles meanwhile, in this thread, has to wait."""
        if time.monotonic() < self._down_until:
            raise StoreUnavailable("the store of budgets failed a moment ago", self._rest)
        self._talking = True
        try:
            yield
            if self._unsettled:
                self._flush()
        except StoreUnavailable:
            self._down_until = time.monotonic() + self._rest
            raise
        finally:
            self._talking = False

    def _start_keeper(self) -> None:
        target, every = weakref.ref(self), self._lease / 4
        self._keeper = threading.Thread(target=_keep, args=(target, every), name="escalade-ledger", daemon=True)
        self._keeper.start()


def _keep(target: weakref.ref[SharedLedger], every: float) -> None:
    """A ledger's heartbeat, until the ledger is gone."""
    while True:
        time.sleep(every)
        ledger = target()
        if ledger is None:
            return
        try:
            ledger.keep()
        except StoreUnavailable as error:
            logger.warning("the ledger's heartbeat failed: %s", error)
        del ledger


def _keys() -> Iterator[str]:
    """Names for reservations that no other process gives."""
    prefix, number = os.urandom(6).hex(), 0
    while True:
        number += 1
        yield f"{prefix}-{number}"


def budget_of(row: Row) -> Budget:
    """What the account may spend, or each that the pattern stands for."""
    return Budget(row.name, Money(row.limit), row.period, row.warn, row.brake)


def as_budget(said: str) -> Budget:
    """A budget as stores note it: JSON of account, nano-dollars, period, warn, brake."""
    account, limit, period, warn, brake = json.loads(said)
    return Budget(account, Money(limit), period, warn, brake)


def as_crossing(account: str, level: Level, used: int, limit: int | None, ends: float) -> Crossing:
    """A crossing as stores keep it."""
    return Crossing(account, level, Money(used), None if limit is None else Money(limit), named=True, ends=ends)


def _fits(account: Account, amount: int) -> bool:
    if account.exhausted is not None:
        return False
    return account.limit is None or account.settled + account.held + amount <= account.limit
