"""One approval, one answer, of a cache or a cassette, too; a call that is made `once` has its answer again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest

import escalade
from escalade import GovernedTool, Journal, Principal, Registry, Roles, tool
from escalade.errors import ApprovalDenied, ApprovalRequired, OutcomeUnknown, ToolTimeout
from escalade.registry.approvals import Approvals, SqliteRequests
from escalade.registry.stores.claims import SqliteClaims
from tests.registry.approvals.calls import BOSS, POLICY, acharge, charge, desk, governed, only, ran, scope
from tests.registry.helpers import Clock

ARGS = {"amount": 5}
ANSWER = "charged 5 EUR"


def call(used: GovernedTool) -> str:
    return str(used(**ARGS))


def acall(used: GovernedTool) -> str:
    return str(asyncio.run(used.acall(**ARGS)))


Use = Callable[[GovernedTool], str]
both = pytest.mark.parametrize(
    ("function", "use"), [(charge, call), (acharge, acall), (charge, acall), (acharge, call)]
)


def agreed(at: Approvals, used: GovernedTool) -> str:
    """Ask for the call in the scope that is open, and have it approved: the id of the approval."""
    with pytest.raises(ApprovalRequired) as caught:
        used(**ARGS)
    return at.approve(caught.value.request_id, BOSS).id


ASKS = Roles({"clerk": [{"permit": "pay.*:call", "needs": "approval"}], "boss": ["pay.*:approve"]})
"""It is the policy that wants a person: a tool that does can't have a cache."""


def cached(function: Any = charge) -> GovernedTool:
    return governed(function, approval=None, cache=60, side_effects="read")


def answers(journal: Journal) -> list[tuple[str, str]]:
    """Where each answer came from, and the approval that it took."""
    return [(entry.source, entry.approval_id) for entry in journal.entries()]


# ----------------------------------------------------------------------------------------------- answers that are there


@both
def test_a_cached_answer_takes_an_approval(function: Any, use: Use) -> None:
    """Each hit of a cache takes an approval of its own, which the record names; the tool itself ran once."""
    at, used, journal, taken = Approvals(access=ASKS), cached(function), Journal(), []
    with scope(at, access=ASKS, recorder=journal):
        for _ in range(3):
            taken.append(agreed(at, used))
            assert use(used) == ANSWER
            with pytest.raises(ApprovalRequired):
                use(used)
    assert ran == [(5, "EUR")]
    assert answers(journal) == [*zip(["", "cache", "cache"], taken, strict=True)]
    assert [at.get(one).state for one in taken] == ["used"] * 3


@both
def test_a_recorded_answer_takes_an_approval(function: Any, use: Use, tmp_path: Path) -> None:
    """So does each answer of a cassette; one that is refused takes no place in the order of the answers."""
    at, journal, tape = desk(), Journal(), tmp_path / "calls.jsonl"

    def numbered(amount: int) -> int:
        """Differs each time."""
        ran.append((amount, ""))
        return len(ran)

    used = governed(numbered)
    with scope(at, mode="record", cassette=tape):
        for number in (1, 2):
            agreed(at, used)
            assert use(used) == str(number)
    with scope(at, mode="replay", cassette=tape, recorder=journal):
        for number in (1, 2):
            approval = agreed(at, used)
            with pytest.raises(ApprovalRequired):
                used(amount=6)
            assert use(used) == str(number)
            with pytest.raises(ApprovalRequired):
                use(used)
            assert answers(journal)[-1] == ("replay", approval)
    assert len(ran) == 2


@both
def test_a_dry_answer_takes_an_approval(function: Any, use: Use) -> None:
    """A dry run goes the way that a call would go: it asks, and its answer spends the approval."""
    at, used = desk(), governed(function, dry="charged nothing")
    with scope(at, mode="dry-run"):
        approval = agreed(at, used)
        assert use(used) == "charged nothing"
        with pytest.raises(ApprovalRequired):
            use(used)
    assert at.get(approval).state == "used"
    assert ran == []


def test_one_of_many_gets_the_cached_answer() -> None:
    """Of eight threads with one approval between them one gets the answer out of the cache."""
    at, used, got, start = Approvals(access=ASKS), cached(), [], threading.Barrier(8)
    with scope(at, access=ASKS) as run:
        agreed(at, used)
        used(**ARGS)
        agreed(at, used)

        def go() -> None:
            start.wait()
            with dspy.context(escalade=run):
                try:
                    got.append(used(**ARGS))
                except ApprovalRequired:
                    got.append("asked")

        threads = [threading.Thread(target=go) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(got) == ["asked"] * 7 + [ANSWER]
    assert ran == [(5, "EUR")]


@both
def test_an_answer_that_can_not_be_recorded_takes_nothing(function: Any, use: Use) -> None:
    """Where the record fails nobody gets a cached answer, and the approval is there for the next attempt."""

    class Failing(Journal):
        full = False

        def intent(self, entry: Any) -> None:
            if self.full:
                raise OSError("disk full")
            super().intent(entry)

    at, used, journal = Approvals(access=ASKS), cached(function), Failing()
    with scope(at, access=ASKS, recorder=journal):
        agreed(at, used)
        use(used)
        approval = agreed(at, used)
        journal.full = True
        with pytest.raises(OSError, match="disk full"):
            use(used)
        assert at.get(approval).state == "approved"
        journal.full = False
        assert use(used) == ANSWER
    assert at.get(approval).state == "used"


# ------------------------------------------------------------------------------------------------------ calls made once


@both
def test_the_same_call_again_asks_nobody(function: Any, use: Use) -> None:
    """Made again in the same step, an approved call has its first answer; no request is opened, no approval spent, and
    the record names the one that it had, even when that would have expired by now.
    """
    clock, journal = Clock(), Journal()
    at, used = desk(clock=clock), governed(function, once=True)
    with scope(at, recorder=journal):
        approval = agreed(at, used)
        assert [use(used), use(used)] == [ANSWER] * 2
        clock.forward(4000)
        assert use(used) == ANSWER
    assert ran == [(5, "EUR")]
    assert answers(journal) == [("", approval), ("once", approval), ("once", approval)]
    assert [request.id for request in at.requests()] == [approval]


@pytest.mark.slow
@pytest.mark.parametrize("function", [charge, acharge], ids=["sync tool", "async tool"])
def test_stragglers_ask_nobody(function: Any) -> None:
    """`dspy.Parallel(timeout=...)` starts a slow item again, while the first attempt runs: it waits for that one."""

    async def aslow(amount: int) -> str:
        await asyncio.sleep(2.5)
        return str(charge(amount))

    def slow(amount: int) -> str:
        time.sleep(2.5)
        return str(charge(amount))

    at, used, got = desk(), governed(slow if function is charge else aslow, once=True), []

    class Step(dspy.Module):
        def forward(self, amount: int) -> str:
            got.append(used(amount=amount))
            return str(got[-1])

    with scope(at):
        approval = agreed(at, used)
        dspy.Parallel(num_threads=2, timeout=1, disable_progress_bar=True)([(Step(), ARGS)])
        until = time.monotonic() + 30
        while len(got) < 2 and time.monotonic() < until:
            time.sleep(0.02)
    assert len(got) >= 2, "the straggler was started again"
    assert set(got) == {ANSWER}
    assert ran == [(5, "EUR")]
    assert [(request.id, request.state) for request in at.requests()] == [(approval, "used")]


@pytest.mark.parametrize("way", ["threads", "tasks"])
def test_many_at_once_share_one_approval(way: str) -> None:
    """Of 16 equal calls at once one runs and all have its answer; one approval, asked for once, is enough."""

    async def many(used: GovernedTool) -> list[Any]:
        return await asyncio.gather(*(used.acall(**ARGS) for _ in range(16)))

    for _ in range(5):
        at, used = desk(), governed(charge if way == "threads" else acharge, once=True)
        with scope(at) as run:
            approval = agreed(at, used)
            if way == "tasks":
                got = asyncio.run(many(used))
            else:

                def use(_: int, run: Any = run, used: GovernedTool = used) -> Any:
                    with dspy.context(escalade=run):
                        return used(**ARGS)

                with ThreadPoolExecutor(16) as pool:
                    got = list(pool.map(use, range(16)))
        assert got == [ANSWER] * 16
        assert ran == [(5, "EUR")]
        assert [(request.id, request.state) for request in at.requests()] == [(approval, "used")]


async def test_all_who_wait_are_helped_by_one_approval() -> None:
    """Where calls wait for a person, two equal ones wait for the same decision, and one of them runs."""
    at, used = desk(wait=True), governed(acharge, once=True)
    async with scope(at, deadline=30):
        calls = [asyncio.create_task(used.acall(**ARGS)) for _ in range(2)]
        while not at.requests("pending"):  # noqa: ASYNC110 - a desk has no event for it
            await asyncio.sleep(0.001)
        approval = at.approve(only(at).id, BOSS).id
        assert await asyncio.gather(*calls) == [ANSWER] * 2
    assert ran == [(5, "EUR")]
    assert [(request.id, request.state) for request in at.requests()] == [(approval, "used")]


@both
def test_another_step_is_another_call(function: Any, use: Use) -> None:
    """It needs an approval of its own; that it has one takes nothing from the answer of the first step."""
    at, used = desk(), governed(function, once=True)
    with scope(at):
        with escalade.step("one"):
            first = agreed(at, used)
            use(used)
        with escalade.step("two"):
            second = agreed(at, used)
        with escalade.step("one"):
            assert use(used) == ANSWER
        assert (at.get(first).state, at.get(second).state) == ("used", "approved")
        with escalade.step("two"):
            assert use(used) == ANSWER
    assert ran == [(5, "EUR")] * 2


@both
def test_a_failure_takes_the_approval(function: Any, use: Use) -> None:
    """A call that failed may be made again, with another approval; a denial of it is a denial."""

    def fails(amount: int) -> str:
        ran.append((amount, ""))
        raise ValueError("no such customer")

    at, used = desk(), governed(fails, once=True)
    with scope(at):
        agreed(at, used)
        with pytest.raises(ValueError, match="no such customer"):
            use(used)
        with pytest.raises(ApprovalRequired) as caught:
            use(used)
        at.deny(caught.value.request_id, BOSS)
        with pytest.raises(ApprovalDenied):
            use(used)
    assert len(ran) == 1


def test_nobody_is_asked_for_what_may_have_been_done() -> None:
    """A call that was cut off isn't made again, and no person is asked about it."""

    def slow(amount: int) -> None:
        time.sleep(5.0)

    at, used = desk(), governed(slow, once=True, timeout=0.05)
    with scope(at):
        agreed(at, used)
        with pytest.raises(ToolTimeout):
            used(**ARGS)
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                used(**ARGS)
    assert [request.state for request in at.requests()] == ["used"]


# ----------------------------------------------------------------------------------------------- answers of other calls

WATCHED = Roles(
    {
        "free": ["pay.charge:call"],
        "watched": [{"permit": "pay.charge:call", "needs": "approval"}],
        "boss": ["pay.charge:approve"],
    }
)
ROOT = Principal("root", "acme", frozenset({"free"}))
FREE, UNDER_WATCH = (Principal("bob", "acme", frozenset({role})) for role in ("free", "watched"))


@both
def test_an_answer_that_somebody_else_had(function: Any, use: Use) -> None:
    """The same user in a role that needs approvals sees the answer of a call that was made without one only once a
    person has agreed to his own; it isn't made again.
    """
    at, used, journal = Approvals(access=WATCHED), governed(function, approval=None, once=True), Journal()
    with scope(at, principal=ROOT, access=WATCHED, recorder=journal):
        with escalade.scope(principal=FREE):
            use(used)
        with escalade.scope(principal=UNDER_WATCH):
            approval = agreed(at, used)
            assert [use(used), use(used)] == [ANSWER] * 2
    assert ran == [(5, "EUR")]
    assert answers(journal) == [("", ""), ("once", approval), ("once", approval)]


async def test_a_failure_that_somebody_else_had() -> None:
    """Neither does he wait for that call and read how it failed."""
    go = asyncio.Event()

    async def fails(amount: int) -> str:
        await go.wait()
        raise ValueError("the customer owes 12,000")

    at, used = Approvals(access=WATCHED), governed(fails, approval=None, once=True)
    async with scope(at, principal=ROOT, access=WATCHED):
        async with escalade.scope(principal=FREE):
            first = asyncio.create_task(used.acall(**ARGS))
            await asyncio.sleep(0.01)
        async with escalade.scope(principal=UNDER_WATCH):
            second = asyncio.create_task(used.acall(**ARGS))
            with pytest.raises(ApprovalRequired):
                await asyncio.wait_for(second, 1)
        go.set()
        with pytest.raises(ValueError, match="owes"):
            await first


# ------------------------------------------------------------------------------------------------------------- restarts


def restarted(tmp_path: Path, function: Any, *, claims: bool) -> tuple[Approvals, GovernedTool]:
    """Desk and tool, as a process has them that was started anew."""
    made = tool(name="pay.charge", approval="always", once=True)(function)
    shared = SqliteClaims(tmp_path / "calls.db") if claims else None
    registry = Registry([made], name="approvals", claims=shared)
    return desk(SqliteRequests(tmp_path / "approvals.db")), registry.get_tool("pay.charge")


@both
def test_a_restart_has_the_answer_again(function: Any, use: Use, tmp_path: Path) -> None:
    """The run goes on in another process, which shares calls and approvals: the first answer, and nobody is asked."""
    ran.clear()
    at, used = restarted(tmp_path, function, claims=True)
    with scope(at):
        approval = agreed(at, used)
    journals = []
    for _ in range(3):
        at, used = restarted(tmp_path, function, claims=True)
        journals.append(Journal())
        with scope(at, recorder=journals[-1]):
            assert use(used) == ANSWER
    assert ran == [(5, "EUR")]
    assert [answers(journal) for journal in journals] == [[("", approval)], [("once", approval)], [("once", approval)]]
    assert [request.state for request in at.requests()] == ["used"]


@both
def test_a_restart_without_claims_asks_again(function: Any, use: Use, tmp_path: Path) -> None:
    """Where the calls of a run are kept in memory, a restart has forgotten them: it runs nothing without another
    approval.
    """
    ran.clear()
    at, used = restarted(tmp_path, function, claims=False)
    with scope(at):
        agreed(at, used)
        use(used)
    at, used = restarted(tmp_path, function, claims=False)
    with scope(at), pytest.raises(ApprovalRequired):
        use(used)
    assert ran == [(5, "EUR")]


def test_another_policy_after_a_restart(tmp_path: Path) -> None:
    """An approval is bound to the policy: under another one the first answer takes a new approval, and the call is not
    made again.
    """
    ran.clear()
    at, used = restarted(tmp_path, charge, claims=True)
    with scope(at):
        agreed(at, used)
        call(used)
    at, used = restarted(tmp_path, charge, claims=True)
    changed = Roles({"clerk": ["pay.charge:call"], "more": ["*"]})
    assert changed.digest != POLICY.digest
    with scope(at, access=changed):
        agreed(at, used)
        assert call(used) == ANSWER
    assert ran == [(5, "EUR")]
    assert [request.state for request in at.requests()] == ["used"] * 2
