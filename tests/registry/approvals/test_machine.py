"""A tool's function runs at most once per approval and only with the bytes that were approved, whatever happens in
whatever order: a stateful hypothesis test against a plain model.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import dspy
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import escalade
from escalade import Journal, Principal, Registry, Roles, tool
from escalade.errors import ApprovalDenied, ApprovalRequired, BadInput, EscaladeError, ToolError
from escalade.registry.approvals import Approvals, MemoryRequests, PostgresRequests, SqliteRequests
from escalade.registry.approvals.requests import Requests
from escalade.registry.canonical import canonical
from escalade.registry.idempotency import step_path
from escalade.registry.stores.claims import SqliteClaims
from escalade.scopes import require
from tests.registry.helpers import Clock

POLICY = Roles(
    {
        "root": ["pay.*:call"],
        "clerk": [{"permit": "pay.*:call", "needs": "approval"}],
        "boss": ["pay.*:approve"],
    }
)
ROOT, BOSS = Principal("root", "acme", frozenset({"root"})), Principal("bea", "acme", frozenset({"boss"}))
EXPIRES = 100.0
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cached": {"cache": 1e6, "side_effects": "read"},
    "once": {"once": True},
}

Call = tuple[str, str, int, str, str]
"""What an approval is for: kind of tool, user, amount, currency; the step, for the one that is made once in each."""

calls: st.SearchStrategy[Call] = st.tuples(
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(["ana", "ana", "bob"]),
    st.sampled_from([1, 1, 2]),
    st.sampled_from(["EUR", "EUR", "EUR", "USD"]),
    st.sampled_from(["first", "second"]),
).map(lambda call: call if call[0] == "once" else (*call[:4], ""))


class ApprovalsMachine(RuleBasedStateMachine):
    """Ana and Bob call three tools: one that runs each time, one with a cache, one that is made `once` per step.

    The model: for each call the one request that is alive, and the answers that are kept. `shared`: whether requests
    and calls are in files, which a restart leaves as they are.
    """

    shared = False

    @initialize()
    def open_world(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock, self.journal, self.memory = Clock(1000.0), Journal(), MemoryRequests()
        self.ran: list[Call] = []
        self.fails = False
        self.alive: dict[Call, tuple[str, str, float]] = {}
        self.approved: dict[str, Call] = {}
        self.cached: dict[tuple[int, str], str] = {}
        self.made: dict[Call, tuple[str, str]] = {}
        self.process: Any = None
        self.start()

    def start(self) -> None:
        """A process begins."""
        self.desk = Approvals(self.requests(), access=POLICY, expires=EXPIRES, clock=self.clock)
        claims = SqliteClaims(self.folder / "calls.db") if self.shared else None
        made = [tool(name=f"pay.{kind}", **said)(self.function(kind)) for kind, said in KINDS.items()]
        registry = Registry(made, name="machine", claims=claims)
        self.tools = {kind: registry.get_tool(f"pay.{kind}") for kind in KINDS}
        self.process = escalade.scope(
            principal=ROOT, access=POLICY, approvals=self.desk, recorder=self.journal, run_id="run"
        )
        self.run_ = self.process.__enter__()

    def requests(self) -> Requests:
        """Where they are kept."""
        return SqliteRequests(self.folder / "approvals.db") if self.shared else self.memory

    def function(self, kind: str) -> Any:
        """What is guarded. No two answers are the same."""

        def pay(amount: int, currency: str = "EUR") -> str:
            step = step_path()[-1] if kind == "once" else ""
            self.ran.append((kind, require().principal.user, amount, currency, str(step)))
            if self.fails:
                raise ToolError("no money")  # of the caller: the breaker stays out of it
            return f"{amount} {currency}, number {len(self.ran)}"

        return pay

    def answer(self, call: Call, *, by_task: bool = False) -> str | EscaladeError:
        """Make the call: its answer, or the refusal."""
        kind, user, amount, currency, step = call
        args: dict[str, Any] = {"amount": amount} if currency == "EUR" else {"currency": currency, "amount": amount}
        used, who = self.tools[kind], Principal(user, "acme", frozenset({"clerk"}))
        with dspy.context(escalade=self.run_), escalade.step(step or "any"), escalade.scope(principal=who):
            try:
                return str(asyncio.run(used.acall(**args)) if by_task else used(**args))
            except EscaladeError as error:
                return error

    def state(self, call: Call) -> str:
        """Of the request that is alive, "none" without one."""
        _, state, until = self.alive.get(call, ("", "none", 0.0))
        return state if self.clock.now < until else "none"

    def asked(self, call: Call, refusal: object) -> None:
        """The call was refused: a request is open now, the same as before if there was one."""
        assert isinstance(refusal, ApprovalRequired)
        before, self_state = self.alive.get(call), self.state(call)
        assert (self_state == "pending") == (before is not None and before[0] == refusal.request_id)
        if self_state != "pending":
            self.alive[call] = (refusal.request_id, "pending", self.clock.now + EXPIRES)

    def spent(self, call: Call, got: str, ran: int, answers: int) -> None:
        """One answer was had for the approval: where from, and what is kept of it."""
        approval = self.alive.pop(call)[0]
        place = call[2:4]
        source = "cache" if call[0] == "cached" and place in self.cached else ""
        mine = [entry for entry in self.journal.entries()[answers:] if entry.source != "once"]
        assert [(entry.approval_id, entry.source) for entry in mine] == [(approval, source)]
        assert self.ran[ran:] == ([] if source else [call])
        assert got == self.cached.get(place, got) or not source
        if self.fails and not source:
            return
        if call[0] == "cached":
            self.cached[place] = got
        if call[0] == "once":
            self.made[call] = (approval, got)

    # ---------------------------------------------------------------------------------------------------- what happens

    @rule(call=calls, by_task=st.booleans(), fails=st.sampled_from([False, False, True]))
    def make(self, call: Call, by_task: bool, fails: bool) -> None:
        """A call, perhaps one whose tool fails."""
        self.fails = fails
        ran, answers, kept = len(self.ran), len(self.journal.entries()), self.made.get(call)
        got = self.answer(call, by_task=by_task)
        if kept is not None:
            (entry,) = self.journal.entries()[answers:]
            assert (entry.source, entry.approval_id, got) == ("once", *kept)
            assert len(self.ran) == ran
        elif self.state(call) == "approved":
            self.spent(call, str(got), ran, answers)
            assert isinstance(got, str) or "no money" in str(got)
        elif self.state(call) == "denied":
            assert isinstance(got, ApprovalDenied)
        else:
            self.asked(call, got)

    @rule(call=calls)
    def make_at_once(self, call: Call) -> None:
        """Three threads make the same call."""
        self.fails = False
        ran, answers, kept = len(self.ran), len(self.journal.entries()), self.made.get(call)
        good = self.state(call) == "approved"
        with ThreadPoolExecutor(3) as pool:
            got = list(pool.map(lambda _: self.answer(call), range(3)))
        said = [one for one in got if isinstance(one, str)]
        if kept is not None:
            assert got == [kept[1]] * 3
            assert len(self.ran) == ran
        elif good:
            assert len(set(said)) == 1
            assert len(said) == (3 if call[0] == "once" else 1)
            self.spent(call, said[0], ran, answers)
        else:
            assert said == []
        for refusal in got:
            if isinstance(refusal, ApprovalRequired):
                self.asked(call, refusal)

    @rule(call=calls, state=st.sampled_from(["approved", "approved", "approved", "denied"]))
    def decide(self, call: Call, state: str) -> None:
        """Somebody decides; what is decided, or expired, he can't decide again."""
        if call not in self.alive:
            return
        number, _, until = self.alive[call]
        decide = self.desk.approve if state == "approved" else self.desk.deny
        if self.state(call) != "pending":
            with pytest.raises(BadInput, match="can't be"):
                decide(number, BOSS)
            return
        decide(number, BOSS)
        self.alive[call] = (number, state, until)
        if state == "approved":
            self.approved[number] = call

    @rule(call=calls, state=st.sampled_from(["approved", "approved", "denied"]), fails=st.booleans())
    def ask_decide_and_make(self, call: Call, state: str, fails: bool) -> None:
        """The way it is meant, so that there is something to be had."""
        if self.state(call) == "none" and call not in self.made:
            self.make(call, by_task=False, fails=False)
        self.decide(call, state)
        self.make(call, by_task=True, fails=fails)

    @rule(call=calls)
    def ask_approve_and_make_at_once(self, call: Call) -> None:
        """And by three threads."""
        if self.state(call) == "none" and call not in self.made:
            self.make(call, by_task=False, fails=False)
        self.decide(call, "approved")
        self.make_at_once(call)

    @rule(seconds=st.sampled_from([1.0, EXPIRES / 2, EXPIRES]))
    def wait(self, seconds: float) -> None:
        """Requests expire, and so do approvals."""
        self.clock.forward(seconds)

    @rule()
    def restart(self) -> None:
        """The run goes on in another process: what is in no file is gone."""
        self.process.__exit__(None, None, None)
        self.cached.clear()
        if not self.shared:
            self.made.clear()
        self.start()

    # ---------------------------------------------------------------------------------------------------- what holds

    @invariant()
    def runs_are_approved(self) -> None:
        """No call ran more often than it was approved, with these very arguments."""
        if self.process is not None:
            assert Counter(self.ran) <= Counter(self.approved.values())

    @invariant()
    def approvals_are_spent_once(self) -> None:
        """Each answer names an approval of these very bytes that no other has; the same `once` call again, its own."""
        if self.process is None:
            return
        first = [entry for entry in self.journal.entries() if entry.source != "once"]
        assert not [one for one, count in Counter(entry.approval_id for entry in first).items() if count > 1]
        kept = {request.id: request for request in self.desk.requests()}
        for entry in self.journal.entries():
            _, user, amount, currency, _ = self.approved[entry.approval_id]
            request = kept[entry.approval_id]
            assert request.arguments == canonical({"amount": amount, "currency": currency}).decode()
            assert (request.state, request.label) == ("used", f"{entry.resource}@{entry.version}")
            assert (request.user, entry.principal.user) == (user, user)

    def teardown(self) -> None:
        """Leave nothing behind."""
        if getattr(self, "process", None) is not None:
            self.process.__exit__(None, None, None)
            shutil.rmtree(self.folder)


class SharedMachine(ApprovalsMachine):
    """With everything in files."""

    shared = True


class PostgresMachine(SharedMachine):
    """With requests in PostgreSQL."""

    url: ClassVar[str] = ""

    def requests(self) -> Requests:
        if self.process is None:
            PostgresRequests(self.url).server.ask("TRUNCATE approvals")
        return PostgresRequests(self.url)


ApprovalsMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40)
SharedMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=30)
PostgresMachine.TestCase.settings = settings(max_examples=8, stateful_step_count=30)


class TestInMemory(ApprovalsMachine.TestCase):
    """Requests in memory: a restart keeps those (another process has them), and forgets what was made once."""

    @pytest.mark.timeout(300)
    def runTest(self) -> None:
        super().runTest()


class TestInFiles(SharedMachine.TestCase):
    """Requests and calls in files: a restart forgets nothing but the cache."""

    @pytest.mark.timeout(300)
    def runTest(self) -> None:
        super().runTest()


class TestInPostgres(PostgresMachine.TestCase):
    """The same, shared by many hosts."""

    @pytest.fixture(autouse=True)
    def _server(self, postgres_url: str) -> None:
        PostgresMachine.url = postgres_url

    @pytest.mark.timeout(300)
    def runTest(self) -> None:
        super().runTest()
