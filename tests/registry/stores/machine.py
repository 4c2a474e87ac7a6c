"""A hypothesis machine that does the same to two ledgers, the memory one and one over a store, and compares."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from escalade.errors import BudgetExceeded
from escalade.registry.ledger import Budget, Crossing, Ledger
from escalade.scopes import Principal
from tests.registry.helpers import Clock

amounts = st.integers(0, 60)
limits = st.none() | st.integers(0, 150)
users = st.sampled_from(["u0", "u1"])
periods = st.sampled_from(["none", "day", "month"])
names = st.sampled_from(["user:t/u0", "user:t/*", "tenant:t", "tenant:*", "everything"])


class TwinMachine(RuleBasedStateMachine):
    """Whatever is done in whatever order: answers, refusals, figures and crossings are those of the memory ledger."""

    purses = Bundle("purses")
    holds = Bundle("holds")

    def other(self, now: Clock, heard: list[Crossing]) -> Any:
        """The ledger over a store."""
        raise NotImplementedError

    @initialize(days=st.sampled_from([26.0, 30.99, 58.5]))
    def open_ledgers(self, days: float) -> None:
        self.clock = Clock(days * 86_400)
        self.heard: tuple[list[Crossing], list[Crossing]] = ([], [])
        self.memory = Ledger(now=self.clock, listen=self.heard[0].append)
        self.shared = self.other(self.clock, self.heard[1])
        self.all: list[tuple[Any, Any]] = []

    @rule(account=names, limit=st.integers(0, 150), period=periods, brake=st.sampled_from([0.8, 0.95, 1.0]))
    def set_budget(self, account: str, limit: int, period: Any, brake: float) -> None:
        for ledger in (self.memory, self.shared):
            ledger.set_budget(Budget(account, f"0.{limit:09d}", period, 0.5, brake))

    @rule(target=purses, user=users, limit=limits)
    def open_run(self, user: str, limit: int | None) -> tuple[Any, Any]:
        pair = tuple(ledger.purse(Principal(user, "t"), limit=limit) for ledger in (self.memory, self.shared))
        self.all.append(pair)
        return pair

    @rule(target=purses, parent=purses, limit=limits, optional=st.booleans(), user=st.none() | users)
    def open_child(self, parent: Any, limit: int | None, optional: bool, user: str | None) -> tuple[Any, Any]:
        principal = None if user is None else Principal(user, "t")
        pair = tuple(purse.child("child", limit, optional=optional, principal=principal) for purse in parent)
        self.all.append(pair)
        return pair

    @rule(target=holds, purse=purses, amount=amounts)
    def reserve(self, purse: Any, amount: int) -> tuple[Any, ...] | None:
        first, second = (_reserved(one, amount) for one in purse)
        assert _said(first) == _said(second)
        return None if isinstance(first, BudgetExceeded) else (first, second)

    @rule(hold=consumes(holds), actual=amounts)
    def settle(self, hold: Any, actual: int) -> None:
        for one in hold or ():
            one.settle(actual)
            one.settle(59)
            one.release()

    @rule(hold=consumes(holds))
    def release(self, hold: Any) -> None:
        for one in hold or ():
            one.release()
            one.settle(59)

    @rule(purse=purses)
    def exhaust(self, purse: Any) -> None:
        for one in purse:
            one.exhaust(BudgetExceeded("too dear", account="tenant:t"))

    @rule(days=st.sampled_from([0.01, 0.5, 1, 3, 31, -1, -40]))
    def time_passes(self, days: float) -> None:
        self.clock.forward(days * 86_400)

    @invariant()
    def purses_agree(self) -> None:
        """Each purse of the one has the figures of its twin."""
        for first, second in getattr(self, "all", ()):
            assert _figures(first) == _figures(second)

    @invariant()
    def accounts_agree(self) -> None:
        """Each named account of the one is that of the other."""
        if hasattr(self, "all"):
            assert [_fields(a) for a in self.memory.accounts()] == [_fields(a) for a in self.shared.accounts()]

    @invariant()
    def they_tell_the_same(self) -> None:
        """The listeners heard the same crossings, in the same order."""
        if hasattr(self, "all"):
            assert self.heard[0] == self.heard[1]


def _reserved(purse: Any, amount: int) -> Any:
    try:
        return purse.reserve(amount, "a call")
    except BudgetExceeded as refusal:
        return refusal


def _said(answer: Any) -> Any:
    if isinstance(answer, BudgetExceeded):
        return str(answer), answer.account, answer.limit, answer.left, answer.asked
    return answer.amount, answer.open


def _figures(purse: Any) -> Any:
    exhausted = None if purse.exhausted is None else str(purse.exhausted)
    return purse.spent, purse.held, purse.left(), purse.braked, purse.limited, exhausted


def _fields(account: Any) -> Any:
    return (
        account.name, account.limit, account.period, account.ends, account.settled, account.held, account.overrun,
        account.warn, account.brake,
    )  # fmt: skip
