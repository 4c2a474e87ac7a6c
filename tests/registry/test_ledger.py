"""The ledger, by example. Its invariants under random and concurrent use: test_ledger_machine, test_ledger_threads."""

from __future__ import annotations

from typing import Any

import pytest

from escalade.errors import BadInput, BudgetExceeded
from escalade.money import Money
from escalade.registry.ledger import Budget, Crossing, Ledger, Reservation
from escalade.scopes import Principal
from tests.registry.helpers import Clock, purse

DAY = 86_400.0


def test_settling_frees_the_difference() -> None:
    """What was reserved is held; what it really cost is booked, and the rest is free again."""
    run = purse(100)
    hold = run.reserve(60)
    assert (run.spent, run.held, run.left()) == (0, 60, 40)
    hold.settle(25)
    assert (run.spent, run.held, run.left()) == (25, 0, 75)


def test_a_reservation_ends_once() -> None:
    """The second settle or release changes nothing, whichever came first."""
    run = purse(100)
    first, second = run.reserve(10), run.reserve(10)
    first.settle(7)
    first.settle(10)
    first.release()
    second.release()
    second.settle(10)
    assert (run.spent, run.held, first.open, second.open) == (7, 0, False, False)


def test_it_holds_on_every_level_or_on_none() -> None:
    """When a level above refuses, the levels below hold nothing either."""
    top = purse(50)
    child = top.child("child", 100)
    with pytest.raises(BudgetExceeded) as caught:
        child.reserve(60, "a call")
    assert (child.held, top.held) == (0, 0)
    error = caught.value
    assert (error.account, error.limit, error.left, error.asked) == ("run", 50, 50, 60)
    assert str(error) == "a call may cost up to $0.00000006; budget 'run' of $0.00000005 has $0.00000005 left"


def test_a_child_spends_its_parents_money() -> None:
    """Spending in a child shows in all accounts above it."""
    top = purse(100)
    top.child("a", 80).child("b", None).reserve(30).settle(20)
    assert (top.spent, top.left()) == (20, 80)


def test_left_is_the_tightest_level() -> None:
    """`left` is what the tightest level has, None without any limit, 0 when exhausted."""
    assert purse().left() is None
    top = purse(100)
    child = top.child("child", 30)
    assert child.left() == 30
    hold = top.reserve(90)
    assert (child.left(), hold.open) == (10, True)
    with pytest.raises(BudgetExceeded):
        child.reserve(11)
    assert child.left() == 0


def test_exhaustion_sticks() -> None:
    """Once refused, an account refuses whatever follows, also what would fit: DSPy swallows the first refusal."""
    run = purse(10)
    with pytest.raises(BudgetExceeded):
        run.reserve(11)
    with pytest.raises(BudgetExceeded) as again:
        run.reserve(1)
    assert again.value is not run.exhausted
    assert str(again.value) == str(run.exhausted)
    assert run.exhausted is not None
    assert run.exhausted.__traceback__ is None, "a kept exception with a traceback would keep all its frames alive"


def test_exhaustion_rises_to_the_account_that_refused() -> None:
    """A child's own small budget doesn't exhaust its parent; the parent's refusal exhausts both."""
    top = purse(100)
    small = top.child("small", 5)
    with pytest.raises(BudgetExceeded):
        small.reserve(6)
    assert top.exhausted is None
    big = top.child("big", None)
    with pytest.raises(BudgetExceeded):
        big.reserve(101)
    assert top.exhausted is not None
    assert big.exhausted is not None


def test_an_optional_child_keeps_its_refusals() -> None:
    """What is refused inside an optional child doesn't exhaust the accounts above it, whoever refused."""
    top = purse(100)
    nice = top.child("nice to have", None, optional=True)
    with pytest.raises(BudgetExceeded):
        nice.child("deeper", None).reserve(101)
    assert nice.exhausted is not None
    assert top.exhausted is None
    top.reserve(100).settle(100)


def test_named_accounts_are_not_exhausted() -> None:
    """One oversized call must not lock out a tenant: his account refuses what doesn't fit, and nothing else."""
    ledger = Ledger([Budget("tenant:acme", "0.0000001")])
    ana = Principal("ana", "acme")
    with pytest.raises(BudgetExceeded):
        ledger.purse(ana).reserve(101)
    ledger.purse(ana).reserve(100).settle(100)


def test_named_budgets_apply_by_principal() -> None:
    """A run is under the budgets of its user, his tenant and everything, and under nobody else's."""
    ledger = Ledger(
        [Budget("user:acme/ana", "0.00000001"), Budget("tenant:acme", "0.00000002"), Budget("everything", "1")]
    )
    ledger.purse(Principal("ana", "acme")).reserve(10).settle(10)
    assert ledger.purse(Principal("ana", "acme")).left() == 0
    assert ledger.purse(Principal("bo", "acme")).left() == 10
    assert ledger.purse(Principal("bo", "other")).left() == 1_000_000_000 - 10
    assert [(a.name, a.settled) for a in ledger.accounts()] == [
        ("everything", 10),
        ("tenant:acme", 10),
        ("user:acme/ana", 10),
    ]


def test_users_of_two_tenants_are_two_users() -> None:
    """Ada of one tenant doesn't pay from the purse of Ada of another, nor see it."""
    ledger = Ledger([Budget("user:acme/ada", "0.00000001")])
    ledger.purse(Principal("ada", "acme")).reserve(10).settle(10)
    assert ledger.purse(Principal("ada", "zeta")).left() is None
    assert ledger.purse(Principal("ada", "acme")).left() == 0


def test_a_pattern_is_an_account_of_each() -> None:
    """`user:acme/*` limits each user of acme by himself, `user:*/*` all others; one's own budget comes first."""
    ledger = Ledger([Budget("user:acme/*", "0.00000001"), Budget("user:*/*", "0.00000002"), Budget("tenant:*", "1")])
    ledger.set_budget(Budget("user:acme/boss", "0.00000003"))
    lefts = {
        name: ledger.purse(Principal(name, tenant)).left()
        for name, tenant in (("ada", "acme"), ("bob", "acme"), ("boss", "acme"), ("ada2", "zeta"))
    }
    assert lefts == {"ada": 10, "bob": 10, "boss": 30, "ada2": 20}
    ledger.purse(Principal("ada", "acme")).reserve(10).settle(10)
    assert ledger.purse(Principal("ada", "acme")).left() == 0
    assert ledger.purse(Principal("bob", "acme")).left() == 10
    assert {a.name for a in ledger.accounts()} >= {"user:acme/ada", "user:zeta/ada2", "tenant:acme", "tenant:zeta"}


@pytest.mark.parametrize("account", ["user:ada", "user:*", "user:", "tenant:", "team:x", "user:*/ada", "tenant:a/b"])
def test_an_account_that_would_limit_nobody_is_refused(account: str) -> None:
    """A budget that no principal could ever fall under is a mistake, and is said to be one."""
    with pytest.raises(BadInput, match="unknown budget account"):
        Budget(account, "1")


def test_a_negative_budget_is_refused() -> None:
    """Less than nothing can't be a limit."""
    with pytest.raises(BadInput, match="0 or more"):
        Budget("everything", "-1")


def test_a_principal_nested_twice_is_charged_once() -> None:
    """A named account appears once in a path, however often its principal is named in it."""
    ledger = Ledger([Budget("user:default/ana", "1")])
    ana = Principal("ana")
    ledger.purse(ana).child("inner", None, principal=ana).reserve(10).settle(10)
    account = ledger.account("user:default/ana")
    assert account is not None
    assert account.settled == 10


def test_periods_begin_anew() -> None:
    """A daily budget is full again the next day (UTC), a monthly one the next month."""
    clock = Clock(0.0)
    ledger = Ledger(
        [Budget("user:default/a", "0.00000001", period="day"), Budget("user:default/b", "0.00000001", period="month")],
        now=clock,
    )
    for user in "ab":
        ledger.purse(Principal(user)).reserve(10).settle(10)
    clock.forward(DAY)
    assert (ledger.purse(Principal("a")).left(), ledger.purse(Principal("b")).left()) == (10, 0)
    clock.forward(31 * DAY)
    assert ledger.purse(Principal("b")).left() == 10
    assert [account.settled for account in ledger.accounts()] == [0, 0]


def test_what_is_held_at_midnight_counts_in_the_new_period() -> None:
    """A reservation that crosses midnight is settled where it ends; the new day has that much less."""
    clock = Clock()
    ledger = Ledger([Budget("user:default/a", "0.0000001", period="day")], now=clock)
    run = ledger.purse(Principal("a"))
    hold = run.reserve(60)
    clock.forward(DAY)
    assert run.left() == 40
    hold.settle(50)
    account = ledger.account("user:default/a")
    assert account is not None
    assert (account.settled, account.held) == (50, 0)


def test_a_clock_set_back_opens_no_old_budget() -> None:
    """Going back a day doesn't refill a budget, and coming forward again doesn't either."""
    clock = Clock(10 * DAY)
    ledger = Ledger([Budget("user:default/a", "0.00000001", period="day")], now=clock)
    run = ledger.purse(Principal("a"))
    run.reserve(10).settle(10)
    for step in (-DAY, DAY):
        clock.forward(step)
        assert run.left() == 0


def test_an_overrun_is_the_truth_and_keeps_the_invariant() -> None:
    """A bill above its reservation is booked in full, the excess apart; the account is exhausted."""
    run = purse(100)
    run.reserve(90).settle(130)
    account = run.account
    assert (account.settled, account.overrun, run.spent) == (100, 30, 130)
    with pytest.raises(BudgetExceeded, match=r"was billed \$0.00000013, more than was reserved"):
        run.reserve(0)


def test_an_overrun_that_fits_is_no_overrun() -> None:
    """A bill above its reservation that the budget can pay is simply booked."""
    run = purse(100)
    run.reserve(10).settle(60)
    assert (run.account.settled, run.account.overrun, run.exhausted) == (60, 0, None)


def test_warn_brake_and_exhausted_are_told_once() -> None:
    """The listener hears each mark once, in order, with what was used by then; at the brake the purse says so."""
    heard: list[Crossing] = []
    ledger = Ledger(listen=heard.append)
    run = ledger.purse(limit=100)
    for _ in range(3):
        run.reserve(30).settle(30)
    assert not run.braked
    run.reserve(5).settle(5)
    assert run.braked
    with pytest.raises(BudgetExceeded):
        run.reserve(6)
    with pytest.raises(BudgetExceeded):
        run.reserve(6)
    assert [(c.level, int(c.used), c.limit) for c in heard] == [
        ("warn", 90, Money(100)),
        ("brake", 95, Money(100)),
        ("exhausted", 95, Money(100)),
    ]


def test_marks_are_settable_and_rounded_up() -> None:
    """The shares at which a budget warns and brakes can be set; a fraction of a nano-dollar counts as one."""
    heard: list[Crossing] = []
    ledger = Ledger([Budget("everything", "0.000000003", warn=0.5, brake=0.6)], listen=heard.append)
    run = ledger.purse()
    run.reserve(1).settle(1)
    assert heard == []
    run.reserve(1).settle(1)
    assert [c.level for c in heard] == ["brake"]


def test_marks_come_again_in_a_new_period() -> None:
    """Each period warns for itself, and the brake of yesterday doesn't hold today."""
    clock, heard = Clock(), []
    ledger = Ledger([Budget("everything", "0.0000001", period="day")], listen=heard.append, now=clock)
    run = ledger.purse()
    for _ in range(2):
        run.reserve(96).settle(96)
        assert run.braked
        clock.forward(DAY)
        assert not run.braked
    assert [c.level for c in heard] == ["brake", "brake"]


def test_a_listener_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the listener is logged; the reservation that crossed the mark is not lost, as it was once."""

    def listen(crossing: Crossing) -> None:
        raise RuntimeError("boom")

    run = Ledger(listen=listen).purse(limit=100)
    run.reserve(100).settle(100)
    assert (run.spent, run.held) == (100, 0)
    assert "boom" in caplog.text


def test_a_listener_may_use_the_ledger() -> None:
    """The listener is called when the lock is free, so that it may read and reserve."""
    ledger = Ledger()
    lefts: list[int | None] = []
    ledger._listen = lambda crossing: lefts.append(run.left())
    run = ledger.purse(limit=100)
    run.reserve(80)
    assert lefts == [20]


def test_set_budget_changes_the_limit_and_keeps_what_was_spent() -> None:
    """A named limit can be raised and lowered; what was spent stays spent."""
    ledger = Ledger([Budget("everything", "0.0000001")])
    run = ledger.purse()
    run.reserve(80).settle(80)
    ledger.set_budget(Budget("everything", "0.0000002", period="month"))
    assert run.left() == 120
    ledger.set_budget(Budget("everything", "0.00000005", period="month"))
    assert run.left() == 0
    with pytest.raises(BudgetExceeded):
        run.reserve(1)


def test_sticking_a_refusal_from_outside() -> None:
    """Who gives up for want of money without having asked can make that stick, as a refusal would."""
    top = purse(100)
    child = top.child("child", None)
    child.exhaust(BudgetExceeded("too dear", account="run"))
    assert str(top.exhausted) == str(child.exhausted) == "too dear"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: Budget("team:x", "1"), "unknown budget account 'team:x'"),
        (lambda: Budget("everything", "1", period="week"), "unknown budget period 'week'"),
        (lambda: Budget("everything", "1", warn=0.9, brake=0.8), "expected 0 < warn <= brake <= 1"),
        (lambda: Budget("everything", 1.0), "not an amount of dollars: 1.0"),
        (lambda: purse(-1), r"expected 0 or more, got -\$0.000000001"),
        (lambda: purse().reserve(-1), "can't reserve a negative amount"),
        (lambda: purse().reserve(1).settle(-1), "can't settle a negative amount"),
    ],
)
def test_bad_amounts_and_budgets(bad, message: str) -> None:
    """What can't be a budget or an amount is refused by name."""
    with pytest.raises(BadInput, match=message):
        bad()


def test_a_lost_reservation_frees_itself() -> None:
    """Ctrl-C between reserving and using leaves a reservation that nobody can settle: collected, it frees its money."""
    top = purse(100)
    child = top.child("child", None)
    hold = child.reserve(60)
    assert top.held == 60
    del hold
    assert (child.held, top.held, top.left()) == (0, 0, 100)


def test_a_listener_that_ends_the_program_keeps_no_money() -> None:
    """What a listener raises to get out (Ctrl-C, an exit) passes; what it was told about is not held for ever."""

    def leave(crossing: Crossing) -> None:
        raise KeyboardInterrupt

    run = Ledger(listen=leave).purse(limit=100)
    with pytest.raises(KeyboardInterrupt) as caught:
        run.reserve(90)
    assert run.held == 90
    del caught
    assert run.held == 0


def test_nothing_comes_between_looking_and_holding() -> None:
    """A finalizer may settle another use in the middle of a reservation; even its overrun leaves room for none."""
    settling: list[Reservation] = []

    def now() -> float:  # called in the middle of a reservation, as a garbage collection could be
        while settling:
            settling.pop().settle(100)
        return 0.0

    run = Ledger([Budget("everything", "1", period="day")], now=now).purse(limit=100)
    settling.append(run.reserve(10))
    hold = run.reserve(90)
    assert (run.account.settled, run.held, run.account.overrun) == (10, hold.amount, 90)


def test_nothing_costs_nothing() -> None:
    """A free call fits a budget of nothing, until that is exhausted."""
    run = purse(0)
    run.reserve(0).settle(0)
    with pytest.raises(BudgetExceeded):
        run.reserve(1)
    with pytest.raises(BudgetExceeded):
        run.reserve(0)


def test_a_finalizer_may_settle_within_a_transaction() -> None:
    """A generator collected while its thread is inside the ledger settles from there: that must not lock up."""
    run = purse(100)
    hold = run.reserve(10)
    with run.ledger._lock:
        hold.settle(5)
    assert run.spent == 5


def test_reading_an_account_that_is_not_there() -> None:
    """A name without a budget has no account, and a purse without a limit says so."""
    assert Ledger().account("user:default/nobody") is None
    assert not purse().limited
    assert purse(1).limited
    assert not purse().braked


@pytest.mark.parametrize("given", [Budget("everything", "1"), "tenant:acme", ["tenant:acme"], {"tenant:acme": "1"}])
def test_a_ledger_takes_a_list_of_budgets(given: Any) -> None:
    """What is none is refused, and the error shows how it is written."""
    with pytest.raises(BadInput, match="a ledger takes a list of budgets, Ledger"):
        Ledger(given)


def test_an_account_has_one_limit() -> None:
    """Two budgets of one account are a mistake: it isn't the last one that holds."""
    with pytest.raises(BadInput, match="budget 'tenant:acme' is there twice"):
        Ledger([Budget("tenant:acme", "1"), Budget("tenant:acme", "100")])
