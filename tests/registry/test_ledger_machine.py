"""The ledger's invariants, whatever happens in whatever order: a stateful hypothesis test against a plain model."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from escalade.errors import BudgetExceeded
from escalade.registry.ledger import Account, Budget, Ledger, LedgerPurse, Reservation
from escalade.scopes import Principal
from tests.registry.helpers import Clock

amounts = st.integers(0, 60)
limits = st.none() | st.integers(0, 150)
ENDINGS = [None, ValueError, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit]


class LedgerMachine(RuleBasedStateMachine):
    """Purses of a random tree, reservations on them, endings of every kind, and a clock that crosses days and months.

    The model is two sums per account and nothing else: what was reserved and not ended, and what was billed.
    """

    purses = Bundle("purses")
    holds = Bundle("holds")

    @initialize(user=limits, tenant=limits, everything=limits)
    def open_ledger(self, user: int | None, tenant: int | None, everything: int | None) -> None:
        self.clock = Clock(26 * 86_400.0)
        wanted = [("user:t/u0", user, "day"), ("tenant:t", tenant, "month"), ("everything", everything, "none")]
        self.heard: list[object] = []
        self.ledger = Ledger(
            [Budget(name, _dollars(limit), period=period) for name, limit, period in wanted if limit is not None],
            now=self.clock,
            listen=self.heard.append,
        )
        self.held: defaultdict[Account, int] = defaultdict(int)
        self.billed: defaultdict[Account, int] = defaultdict(int)
        self.paths: dict[int, LedgerPurse] = {}
        self.open: list[Reservation] = []
        self.ended = 0
        self.reserved = 0

    @rule(target=purses, user=st.sampled_from(["u0", "u1"]), limit=limits)
    def open_run(self, user: str, limit: int | None) -> LedgerPurse:
        return self.ledger.purse(Principal(user, "t"), limit=limit)

    @rule(target=purses, parent=purses, limit=limits, optional=st.booleans(), user=st.sampled_from([None, "u0", "u1"]))
    def open_child(self, parent: LedgerPurse, limit: int | None, optional: bool, user: str | None) -> LedgerPurse:
        principal = None if user is None else Principal(user, "t")
        return parent.child("child", limit, optional=optional, principal=principal)

    @rule(target=holds, purse=purses, amount=amounts)
    def reserve(self, purse: LedgerPurse, amount: int) -> Reservation | None:
        before = [(a.settled, a.held) for a in purse.path if a.period == "none"]
        fits = all(_fits(account, amount) for account in purse.path)
        try:
            hold = purse.reserve(amount, "a call")
        except BudgetExceeded:
            assert [(a.settled, a.held) for a in purse.path if a.period == "none"] == before, "a refusal debits nothing"
            assert purse.exhausted is not None, "a refusal sticks to the account that asked"
            return None
        assert fits or any(a.period != "none" for a in purse.path), "what doesn't fit is refused (or a new day began)"
        for account in purse.path:
            self.held[account] += amount
        self.open.append(hold)
        self.reserved += 1
        return hold

    @rule(hold=consumes(holds), actual=amounts, ending=st.sampled_from(ENDINGS), known=st.booleans())
    def use(self, hold: Reservation | None, actual: int, ending: type[BaseException] | None, known: bool) -> None:
        """As the guard does: settle on the way out, whatever ended the use; the whole reservation when nothing is
        known.
        """
        if hold is None:
            return
        bill = actual if known else hold.amount
        try:
            try:
                if ending is not None:
                    raise ending
            finally:
                hold.settle(bill)
        except BaseException as error:
            assert type(error) is ending
        self._end(hold, bill)
        hold.settle(60)
        hold.release()

    @rule(hold=consumes(holds))
    def release(self, hold: Reservation | None) -> None:
        if hold is not None:
            hold.release()
            self._end(hold, 0)
            hold.settle(1)

    @rule(days=st.sampled_from([0.01, 0.5, 1, 3, 31, -1]))
    def time_passes(self, days: float) -> None:
        before = {a: a.ends for a in self.ledger.accounts()}
        self.clock.forward(days * 86_400)
        for account in self.ledger.accounts():
            if account.ends != before[account]:
                assert account.ends > before[account]
                self.billed[account] = 0

    def _end(self, hold: Reservation, bill: int) -> None:
        self.open.remove(hold)
        self.ended += 1
        for account in hold._path:
            self.held[account] -= hold.amount
            self.billed[account] += bill

    @invariant()
    def never_above_a_limit(self) -> None:
        """Settled and held together never pass the limit of any account."""
        for account in self._accounts():
            assert min(account.settled, account.held, account.overrun) >= 0
            if account.limit is not None:
                assert account.settled + account.held <= account.limit

    @invariant()
    def as_the_model_says(self) -> None:
        """On every account: what is held is the sum of the open reservations, what was spent the sum of the bills."""
        for account in self._accounts():
            assert account.held == self.held[account]
            assert account.settled + account.overrun == self.billed[account], account.name

    @invariant()
    def every_reservation_ends_once(self) -> None:
        """Reservations are open or ended, none is both, none is lost."""
        if hasattr(self, "open"):
            assert all(hold.open for hold in self.open)
            assert self.reserved == self.ended + len(self.open)

    def _accounts(self) -> list[Account]:
        if not hasattr(self, "ledger"):
            return []
        return list({*self.held, *self.billed, *self.ledger.accounts()})

    def teardown(self) -> None:
        """Once everything has ended, nothing is held anywhere."""
        for hold in list(getattr(self, "open", ())):
            hold.release()
            self._end(hold, 0)
        assert all(account.held == 0 for account in self._accounts())


LedgerMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40)


class TestLedgerMachine(LedgerMachine.TestCase):
    """Settled + held never passes a limit; every reservation ends exactly once; parents are the sum of their
    children.
    """

    @pytest.mark.timeout(300)
    def runTest(self) -> None:
        super().runTest()


def _fits(account: Account, amount: int) -> bool:
    return account.exhausted is None and (account.limit is None or account.used + amount <= account.limit)


def _dollars(nano: int) -> str:
    return f"0.{nano:09d}"
