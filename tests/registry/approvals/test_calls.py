"""Calls that need a person: approved ones run once, with exactly the bytes that were approved; all others don't run."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import dspy
import pytest

import escalade
from escalade import GovernedTool, Journal, Roles
from escalade.errors import (
    ApprovalDenied,
    ApprovalRequired,
    BadInput,
    BudgetExceeded,
    DeadlineExceeded,
    EscaladeError,
    NoPolicy,
    PermissionDenied,
    RateLimited,
)
from escalade.registry.approvals import Approvals, SqliteRequests
from tests.registry.approvals.calls import ANA, BOSS, POLICY, acharge, charge, desk, governed, only, ran, scope
from tests.registry.helpers import Clock
from tests.registry.ways import Way, acall, execute, func, named, react

ARGS = {"amount": 5}

WAYS: list[Way] = [react, execute, func, acall]

# -------------------------------------------------------------------------------------------------------- situations


def approved(at: Approvals, tool: GovernedTool, args: dict[str, Any] | None = None, **said: Any) -> str:
    """Somebody asked for a call in this run, and it was approved."""
    with scope(at, **said), pytest.raises(ApprovalRequired):
        tool(**(args or ARGS))
    request = only(at)
    at.approve(request.id, BOSS)
    return request.id


def expired(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    approved(at, tool)
    clock.forward(3600)
    return {}


def changed(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    approved(at, tool, {"amount": 4})
    return {}


def denied(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    with scope(at), pytest.raises(ApprovalRequired):
        tool(**ARGS)
    at.deny(only(at).id, BOSS, "too\nmuch")
    return {}


def used(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    approved(at, tool)
    with scope(at):
        tool(**ARGS)
    ran.clear()
    return {}


def another_run(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    approved(at, tool)
    return {"run_id": "run-2"}


def another_user(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    approved(at, tool)
    return {"principal": escalade.Principal("bob", "acme", ANA.roles)}


def another_tenant(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    approved(at, tool)
    return {"principal": escalade.Principal("ana", "globex", ANA.roles)}


def another_policy(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    approved(at, tool)
    return {"access": Roles({"clerk": ["pay.charge:call", "more:call"]})}


def no_desk(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    return {"approvals": None}


def no_permission(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    return {"access": Roles({"clerk": ["mail.send:call"]})}


def denied_by_policy(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    approved(at, tool)
    return {"access": Roles({"clerk": ["*:call", {"deny": "pay.*:write"}]})}


def arguments_not_granted(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    return {"access": Roles({"clerk": [{"permit": "*:call", "when": {"amount": {"<": 5}}}]})}


def no_arguments_granted(at: Approvals, tool: GovernedTool, clock: Clock) -> dict[str, Any]:
    return {"access": Roles({"clerk": [{"permit": "*:call", "when": {"nothing": {"exists": True}}}]})}


SITUATIONS = [
    (expired, "ApprovalRequired"), (changed, "ApprovalRequired"), (denied, "ApprovalDenied"),
    (used, "ApprovalRequired"), (another_run, "ApprovalRequired"), (another_user, "ApprovalRequired"),
    (another_tenant, "ApprovalRequired"),
    (another_policy, "ApprovalRequired"), (no_desk, "ApprovalRequired"), (no_permission, "PermissionDenied"),
    (denied_by_policy, "PermissionDenied"), (arguments_not_granted, "ArgumentsDenied"),
    (no_arguments_granted, "PermissionDenied"),
]  # fmt: skip


@pytest.mark.parametrize("function", [charge, acharge], ids=["sync tool", "async tool"])
@pytest.mark.parametrize("way", WAYS, ids=named)
@pytest.mark.parametrize(("situation", "error"), SITUATIONS, ids=lambda one: getattr(one, "__name__", one))
def test_what_is_not_approved_does_not_run(situation: Any, error: str, way: Any, function: Any) -> None:
    """Whatever is wrong with the approval, by whatever way the tool is called: nothing runs, nothing is debited, the
    denial is recorded, and the model reads one line.
    """
    clock, journal = Clock(1000.0), Journal()
    at, tool = desk(clock=clock), governed(function, cost="1", limits="1/h")
    said = situation(at, tool, clock)
    tool._registered.resource.limiter = type(tool._registered.resource.limiter)()  # what `used` took
    with scope(at, **{"recorder": journal, "budget": "10", **said}) as run:
        try:
            shown = way(tool, ARGS)
        except EscaladeError as refusal:
            shown = f"{type(refusal).__name__}: {refusal}"
        except RuntimeError as wrapped:
            assert isinstance(wrapped.__cause__, EscaladeError)
            shown = f"{type(wrapped.__cause__).__name__}: {wrapped}"
        assert run.spent == run.purse.held == 0
    assert ("unknown_tool: Unknown tool: pay_charge;" if error == "PermissionDenied" else error) in shown
    assert len(shown.strip().splitlines()) <= 2
    assert "Traceback" not in shown
    assert ran == []
    assert journal.entries() == []
    assert [entry.outcome for entry in journal.denials()] == [error]
    assert "too much" in shown or situation is not denied


@pytest.mark.parametrize("way", WAYS, ids=named)
def test_no_policy_no_scope(way: Any) -> None:
    """Without a policy no scope is opened for a principal, or with one that grants nothing: nothing runs."""
    tool = governed()
    for said in ({"access": None}, {"access": Roles({})}, {"access": Roles({"clerk": [{"deny": "*"}]})}):
        with pytest.raises(NoPolicy), scope(desk(), **said):
            way(tool, ARGS)
    assert ran == []


@pytest.mark.parametrize("function", [charge, acharge], ids=["sync tool", "async tool"])
@pytest.mark.parametrize("way", WAYS, ids=named)
def test_what_is_approved_runs_once(way: Any, function: Any) -> None:
    """The approved call runs, by any way, is paid once, and the record names the approval; the next one asks again."""
    journal, at, tool = Journal(), desk(), governed(function, cost="1")
    request_id = approved(at, tool)
    with scope(at, recorder=journal, budget="10") as run:
        assert way(tool, ARGS) == "charged 5 EUR"
        with pytest.raises(ApprovalRequired):
            tool(**ARGS)
    assert ran == [(5, "EUR")]
    (entry,) = journal.entries()
    assert (entry.approval_id, entry.policy_digest, entry.side_effects) == (request_id, POLICY.digest, "write")
    assert run.spent == escalade.Money.of("1")
    assert (at.get(request_id).state, at.get(request_id).used_by) == ("used", entry.call_id)


def test_arguments_that_mean_the_same() -> None:
    """A default that is written out is the same call; another type or value is another one."""
    at, tool = desk(), governed()
    approved(at, tool)
    with scope(at):
        with pytest.raises(ApprovalRequired):
            tool(amount=5, currency="USD")
        assert tool(currency="EUR", amount=5) == "charged 5 EUR"


def test_conditions_of_tools() -> None:
    """A tool may want a person only for some arguments; what can't be ruled out needs one."""
    tool = governed(approval={"amount": {">": 100}})
    with scope(desk()):
        assert tool(amount=100) == "charged 100 EUR"
        with pytest.raises(ApprovalRequired):
            tool(amount=101)
    for bad in ({"amount": {">": None}}, {}, "sometimes"):
        with pytest.raises(BadInput, match="approval"):
            governed(approval=bad)
    assert governed(approval={"nothing": {"==": 1}}).spec.approval == {"nothing": {"==": 1}}
    with scope(desk()), pytest.raises(ApprovalRequired):
        governed(approval={"nothing": {"==": 1}})(amount=1)


def test_other_gates_hold_after_approval() -> None:
    """Limits and budgets are checked when the approved call is made; a refusal doesn't use the approval up."""
    at, tool = desk(), governed(cost="1", limits="1/h")
    request_id = approved(at, tool, budget="10")
    with pytest.raises(BudgetExceeded), scope(at, budget="0.5"):
        tool(**ARGS)
    assert at.get(request_id).state == "approved"
    resource = tool._registered.resource
    taken = resource.limiter.take("pay.charge@1.0.0", resource.limits)
    with scope(at), pytest.raises(RateLimited):
        tool(**ARGS)
    assert at.get(request_id).state == "approved"
    resource.limiter.give_back(taken)
    with scope(at):
        assert tool(**ARGS) == "charged 5 EUR"


def test_a_record_that_fails_gives_the_approval_back() -> None:
    """Where the intent can't be recorded nothing runs, and the approval is there for the next attempt."""

    class Full(Journal):
        def intent(self, entry: Any) -> None:
            raise OSError("disk full")

    at, tool = desk(), governed()
    request_id = approved(at, tool)
    with scope(at, recorder=Full()) as run:
        with pytest.raises(OSError, match="disk full"):
            tool(**ARGS)
        assert run.purse.held == 0
    assert ran == []
    assert at.get(request_id).state == "approved"


def test_two_calls_at_once_share_no_approval() -> None:
    """Of eight threads with the same approved call one runs it; the others are asked for a new approval."""
    at, tool = desk(), governed()
    approved(at, tool)
    start, outcomes = threading.Barrier(8), []
    with scope(at) as run:

        def go() -> None:
            start.wait()
            with dspy.context(escalade=run):
                try:
                    outcomes.append(tool(**ARGS))
                except ApprovalRequired:
                    outcomes.append("asked")

        threads = [threading.Thread(target=go) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcomes) == ["asked"] * 7 + ["charged 5 EUR"]
    assert ran == [(5, "EUR")]


def test_a_restart(tmp_path: Path) -> None:
    """Asked for by one process, approved in another, used after a restart in a scope of the same run."""
    path, tool = tmp_path / "approvals.db", governed()
    first = SqliteRequests(path)
    with scope(desk(first)), pytest.raises(ApprovalRequired) as caught:
        tool(**ARGS)
    first.close()
    desk(SqliteRequests(path)).approve(caught.value.request_id, BOSS)
    with scope(desk(SqliteRequests(path))):
        assert governed()(**ARGS) == "charged 5 EUR"
    with scope(desk(SqliteRequests(path))), pytest.raises(ApprovalRequired):
        tool(**ARGS)


def test_errors_cross_processes() -> None:
    """The refusals survive a pickle with the id of the request, also as models are shown them."""
    at, tool = desk(), governed()
    with scope(at), pytest.raises(ApprovalRequired) as caught:
        tool(**ARGS)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.request_id) == (str(caught.value), only(at).id)


# ----------------------------------------------------------------------------------------------------------- waiting


async def one_waits(at: Approvals) -> None:
    """Until somebody has asked."""
    while not at.requests("pending"):  # noqa: ASYNC110 - a desk has no event for it
        await asyncio.sleep(0.001)


async def decided_soon(at: Approvals, decide: str) -> None:
    await one_waits(at)
    getattr(at, decide)(only(at).id, BOSS, "well")


async def test_a_call_waits() -> None:
    """With a desk that waits the call goes on once it is approved; nothing was held while it waited."""
    at, tool, journal = desk(wait=True), governed(acharge, cost="1", limits="1/h"), Journal()
    async with scope(at, recorder=journal, budget="10", deadline=30) as run:
        call = asyncio.create_task(tool.acall(**ARGS))
        await one_waits(at)
        assert run.purse.held == 0
        assert ran == []
        at.approve(only(at).id, BOSS)
        assert await call == "charged 5 EUR"
    assert [entry.outcome for entry in journal.denials()] == ["ApprovalRequired"]
    assert [entry.outcome for entry in journal.entries()] == ["ok"]


async def test_a_call_waits_for_a_no() -> None:
    """A denial ends the wait, with its reason."""
    at, tool = desk(wait=True), governed(acharge)
    async with scope(at):
        with pytest.raises(ApprovalDenied, match="was denied by 'bea': well"):
            await asyncio.gather(tool.acall(**ARGS), decided_soon(at, "deny"))
    assert ran == []


async def test_a_call_waits_no_longer_than_its_deadline() -> None:
    """When the deadline passes first, the call is refused for that, and recorded."""
    at, tool, journal = desk(wait=True), governed(acharge), Journal()
    async with scope(at, deadline=0.05, recorder=journal):
        with pytest.raises(DeadlineExceeded):
            await tool.acall(**ARGS)
    assert [entry.outcome for entry in journal.denials()] == ["ApprovalRequired", "DeadlineExceeded"]
    assert ran == []


async def test_a_call_waits_no_longer_than_its_request() -> None:
    """A request that expires undecided ends the wait: nobody answered."""
    at, tool = desk(wait=True, expires=0.05), governed(acharge)
    async with scope(at):
        with pytest.raises(ApprovalRequired):
            await tool.acall(**ARGS)
    assert ran == []


def test_a_sync_call_waits() -> None:
    """So does a sync call, in its own thread."""
    at, tool = desk(wait=True), governed()
    approver = threading.Thread(target=lambda: asyncio.run(decided_soon(at, "approve")))
    approver.start()
    began = time.perf_counter()
    with scope(at, deadline=30):
        assert tool(**ARGS) == "charged 5 EUR"
    approver.join()
    assert time.perf_counter() - began < 10


async def test_what_changed_while_it_waited_counts() -> None:
    """A limit that filled up in the meantime refuses the approved call."""
    at, tool = desk(wait=True), governed(acharge, limits="1/h")
    resource = tool._registered.resource
    async with scope(at, deadline=30):
        call = asyncio.create_task(tool.acall(**ARGS))
        await one_waits(at)
        resource.limiter.take("pay.charge@1.0.0", resource.limits)
        at.approve(only(at).id, BOSS)
        with pytest.raises(RateLimited):
            await call
    assert ran == []


def test_arguments_that_are_changed_after_the_look() -> None:
    """Arguments that the caller changes while his call is admitted are those that were looked at, in the tool too."""
    given: dict[str, Any] = {"to": {"amount": 1}}

    class Late(Journal):
        def intent(self, entry: Any) -> None:
            given["to"]["amount"] = 1_000_000
            super().intent(entry)

    def transfer(order: dict[str, Any]) -> int:
        """Transfers money."""
        amount: int = order["to"]["amount"]
        return amount

    tool = governed(transfer, approval={"order.to.amount": {">": 10}})
    with scope(desk(), recorder=Late()):
        assert tool(order=given) == 1
        with pytest.raises(ApprovalRequired):
            tool(order=given)


def test_models_can_not_be_approved() -> None:
    """A rule that needs approval gives no model: its calls have nothing that a person could bind himself to."""
    from escalade.registry.guard import Resource, use

    policy = Roles({"clerk": [{"permit": "*", "needs": "approval"}]})
    model = Resource("big", "", "model", "model.big:call")
    with scope(desk(), access=policy), pytest.raises(PermissionDenied, match="can't be approved call by call"):
        use(model, lambda: ran.append((0, "")), ceiling=0)
    assert ran == []
