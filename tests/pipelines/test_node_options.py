"""What one node can be told: retries, hedges, fallbacks, priorities, tags; and what is refused where it is written."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import pytest

import escalade
from escalade import (
    BadInput,
    BudgetExceeded,
    Chain,
    DeadlineExceeded,
    FanOut,
    Map,
    NodeCache,
    NodeError,
    NodeTimeout,
    Principal,
    events,
    node,
)
from escalade.agents.lanes.priority import current_priority
from escalade.errors import (
    ApprovalRequired,
    CircuitOpen,
    InvalidArguments,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    ScopeClosed,
    StoreUnavailable,
    ToolFailed,
    ToolTimeout,
    UnknownName,
)
from escalade.pipelines.options._last import Last
from escalade.pipelines.options.hedge import Hedge
from escalade.pipelines.options.retry import NodeRetry, may_pass
from escalade.registry.idempotency import step_path
from tests._virtual import virtually
from tests.pipelines.offline import Gauge, no_task_left, offline_lm

QUICK = NodeRetry(2, base=0.001)


class Flaky:
    """Fails with these, one after the other, then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors, self.calls = list(errors), 0

    async def __call__(self, x: int) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return x + 1


class Says(Exception):
    """An error of some client, with what it says."""

    def __init__(self, **facts: Any) -> None:
        super().__init__("a client's error")
        vars(self).update(facts)


def told(heard: list[events.Event], kind: type[Any]) -> list[Any]:
    return [event for event in heard if isinstance(event, kind)]


# -- retry


async def test_a_node_is_retried_after_what_may_pass() -> None:
    """Two lost connections, then the answer; each retry is told, with why and after which pause."""
    heard: list[events.Event] = []
    flaky = Flaky(ConnectionResetError("gone"), TimeoutError("late"))
    pipeline = Chain(a=node(flaky, retry=QUICK))
    with escalade.scope(listen=heard.append):
        assert (await pipeline.acall(x=1)).a == 2
    retried = told(heard, events.NodeRetried)
    assert [(event.path, event.attempt, event.error) for event in retried] == [
        ("a", 2, "ConnectionResetError: gone"),
        ("a", 3, "TimeoutError: late"),
    ]
    assert all(0 < event.pause <= 0.002 for event in retried)
    assert len(told(heard, events.NodeStarted)) == len(told(heard, events.NodeFinished)) == 1


async def test_retries_end() -> None:
    """After the last attempt its error is raised, with the node's path."""
    flaky = Flaky(*(ConnectionError(str(number)) for number in range(9)))
    with pytest.raises(ConnectionError, match="node 'a': ConnectionError: 2") as caught:
        await Chain(a=node(flaky, retry=QUICK)).acall(x=1)
    assert isinstance(caught.value, NodeError)
    assert flaky.calls == 3


MAY: list[tuple[BaseException, bool]] = [
    (TimeoutError(), True),
    (ConnectionRefusedError(), True),
    (NodeTimeout("a", "late"), True),
    (ToolTimeout("late"), True),
    (RateLimited("full", 1.0), True),
    (RateLimited("full"), True),
    (CircuitOpen("open", 1.0), True),
    (StoreUnavailable("down", 1.0), True),
    (StoreUnavailable("down"), False),
    (dspy.lm15.RateLimitError("full"), True),
    (dspy.lm15.ServerError("broken"), True),
    (dspy.lm15.TransportError("lost"), True),
    (dspy.lm15.InvalidRequestError("wrong"), False),
    (Says(status_code=503), True),
    (Says(status=429), True),
    (Says(status_code=404), False),
    (Says(response=Says(status_code=502)), True),
    (ValueError(), False),
    (BadInput("wrong"), False),
    (InvalidArguments("wrong"), False),
    (OutcomeUnknown("who knows"), False),
    (PermissionDenied("no"), False),
    (ApprovalRequired("ask"), False),
    (BudgetExceeded("no money"), False),
    (DeadlineExceeded("no time"), False),
    (ScopeClosed("over"), False),
    (ToolFailed("broken"), False),
    (asyncio.CancelledError(), False),
]


@pytest.mark.parametrize(("error", "passes"), MAY, ids=[repr(error)[:40] for error, _ in MAY])
def test_what_may_pass(error: BaseException, passes: bool) -> None:
    """Timeouts, limits, lost connections and failing servers; never mistakes and refusals."""
    assert may_pass(error) is passes


def test_what_may_pass_inside_of_tools_and_pipelines() -> None:
    """They are judged by what was raised in them."""
    failed = ToolFailed("broken")
    failed.original = ConnectionError()
    assert may_pass(failed)
    with pytest.raises(NodeError) as caught:
        Chain(a=Chain(b=Flaky(ConnectionError("gone"))))(x=1)
    assert may_pass(caught.value)
    with pytest.raises(NodeError) as caught:
        Chain(a=Chain(b=Flaky(ValueError("wrong"))))(x=1)
    assert not may_pass(caught.value)


@pytest.mark.parametrize(
    ("on", "error", "calls"),
    [
        (KeyError, KeyError("k"), 2),
        ((KeyError, OSError), KeyError("k"), 2),
        (KeyError, ConnectionError("gone"), 1),
        (lambda error: "again" in str(error), ValueError("again"), 2),
        (lambda error: "again" in str(error), ValueError("no"), 1),
        (Exception, DeadlineExceeded("time is up"), 1),
        (Exception, BudgetExceeded("no money"), 1),
    ],
)
async def test_what_is_retried_can_be_said(on: Any, error: Exception, calls: int) -> None:
    """By classes or by a function; but never a deadline, a budget or the end of a scope."""
    flaky = Flaky(error)
    with contextlib.suppress(type(error)):
        await Chain(a=node(flaky, retry=NodeRetry(3, base=0.001, on=on))).acall(x=1)
    assert flaky.calls == calls


async def test_retry_after_is_believed() -> None:
    """Where a failure says when, that is when; more than the patience is not worth it."""
    heard: list[events.Event] = []
    with escalade.scope(listen=heard.append):
        await Chain(a=node(Flaky(RateLimited("full", 0.02)), retry=NodeRetry(1, base=5.0))).acall(x=1)
        assert told(heard, events.NodeRetried)[0].pause == 0.02
        with pytest.raises(RateLimited):
            await Chain(a=node(Flaky(RateLimited("full", 50.0)), retry=1)).acall(x=1)


@virtually
async def test_no_pause_outlasts_the_deadline() -> None:
    """With 0.2 s left and a pause of 5 s, the failure is raised at once."""
    flaky = Flaky(ConnectionError("gone"))
    began = time.perf_counter()
    with escalade.scope(deadline=0.2), pytest.raises(ConnectionError):
        await Chain(a=node(flaky, retry=NodeRetry(3, base=10.0, cap=10.0))).acall(x=1)
    assert flaky.calls == 1
    assert time.perf_counter() - began < 0.15


@virtually
async def test_no_attempt_begins_after_within() -> None:
    """`within`: seconds from the first attempt's start."""
    flaky = Flaky(*(ConnectionError(str(number)) for number in range(99)))
    with pytest.raises(ConnectionError):
        await Chain(a=node(flaky, retry=NodeRetry(90, base=0.02, cap=0.02, within=0.08))).acall(x=1)
    assert 2 <= flaky.calls <= 9


@virtually
async def test_attempts_are_of_one_step_and_each_has_the_timeout() -> None:
    """The steps of all attempts are the same, so what is used once is not used by the next one again."""
    paths: list[list[str | int]] = []

    async def slow(x: int) -> int:
        paths.append(step_path())
        if len(paths) < 3:
            await asyncio.sleep(9)
        return x

    assert (await Chain(a=node(slow, timeout=0.02, retry=QUICK)).acall(x=1)).a == 1
    assert paths == [["a"]] * 3


@virtually
async def test_what_is_used_once_is_used_once_by_all_attempts() -> None:
    """A retry gets the result that the attempt before got; a hedge waits for the use that the first has begun."""
    sent: list[str] = []

    @escalade.tool(once=True)
    async def send(text: str) -> int:
        """Send."""
        sent.append(text)
        await asyncio.sleep(0.05)
        return len(sent)

    tool = escalade.Registry([send], name="outbox").get_tool("send")
    calls: list[str] = []

    async def notify(text: str) -> int:
        calls.append(text)
        number: int = await tool.acall(text=text)
        if text == "retried" and calls.count(text) == 1:
            raise ConnectionError("gone")
        return number

    with escalade.scope():
        assert (await Chain(a=node(notify, retry=QUICK)).acall(text="retried")).a == 1
        assert (await Chain(a=node(notify, hedge=0.01)).acall(text="hedged")).a == 2
    assert calls == ["retried"] * 2 + ["hedged"] * 2
    assert sent == ["retried", "hedged"]


def test_attempts_in_threads_end_with_their_scope() -> None:
    """A thread that outlives its attempt's timeout can't spend any more, and the next attempt can."""
    scopes: list[Any] = []
    gone = threading.Event()

    def slow(x: int) -> int:
        scopes.append(escalade.scopes.current())
        if len(scopes) == 1:
            gone.wait(5.0)
        return x

    with escalade.scope(budget="1.00"):
        assert Chain(a=node(slow, timeout=0.1, retry=QUICK))(x=1).a == 1
        assert len(scopes) == 2
        gone.set()
        assert all(scope.closed for scope in scopes)
        assert scopes[0] is not scopes[1]


async def test_a_budget_that_is_gone_ends_retries() -> None:
    """A node that had a refusal swallowed isn't run again: it would be refused again."""
    calls = []

    async def swallows(x: int) -> int:
        calls.append(x)
        with contextlib.suppress(BudgetExceeded):
            escalade.scopes.require().purse.reserve(10**9)
        raise ConnectionError("gone")

    with escalade.scope(budget="1.00"), pytest.raises(ConnectionError):
        await Chain(a=node(swallows, retry=QUICK, budget="0.10")).acall(x=1)
    assert len(calls) == 1


def test_retries_record_for_optimisers_only_what_counts() -> None:
    """A trace has what the attempt that answered has recorded, not the failed ones before."""
    predict = dspy.Predict("question -> answer")
    calls = []

    class Shaky(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.predict = predict

        async def aforward(self, question: str) -> Any:
            calls.append(question)
            answer = await self.predict.acall(question=question)
            if len(calls) == 1:
                raise ConnectionError("gone")
            return answer

    with dspy.context(lm=offline_lm(), trace=[]):
        FanOut(a=node(Shaky(), retry=QUICK), b=lambda question: question)(question="q")
        assert len(calls) == 2
        assert len(dspy.settings.trace) == 1


# -- fallback


async def test_a_fallback_answers_when_the_node_has_failed() -> None:
    """With the same fields, after the last attempt; told, and a node of its own for events and errors."""
    heard: list[events.Event] = []
    broken = Flaky(*(ConnectionError(str(number)) for number in range(9)))

    async def cheap(x: int) -> int:
        assert step_path() == ["a", "fallback"]
        return -x

    pipeline = Chain(a=node(broken, retry=QUICK, fallback=node(cheap, name="cheap")))
    with escalade.scope(listen=heard.append):
        assert (await pipeline.acall(x=3)).a == -3
    assert broken.calls == 3
    fell = told(heard, events.NodeFellBack)
    assert [(event.path, event.fallback, event.error) for event in fell] == [("a", "cheap", "ConnectionError: 2")]
    assert [event.path for event in told(heard, events.NodeStarted)] == ["a", "a/fallback"]
    assert [event.path for event in told(heard, events.NodeFinished)] == ["a/fallback", "a"]


async def test_fallbacks_have_fallbacks_and_failures_show_all() -> None:
    """The last error names the path, and has the failures before it as its context."""
    third = Flaky(KeyError("third"))
    second = node(Flaky(ValueError("second")), fallback=third)
    with pytest.raises(KeyError) as caught:
        await FanOut(a=node(Flaky(OSError("first")), fallback=second)).acall(x=1)
    assert isinstance(caught.value, NodeError)
    assert caught.value.path == "a/fallback/fallback"
    seen: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        seen.append(str(error))
        error = error.__cause__ or error.__context__
    assert any("second" in text for text in seen)
    assert any("first" in text for text in seen)


def test_fallbacks_are_modules_of_the_pipeline() -> None:
    """DSPy finds their predictors, saves, loads and copies them; another in its place is the one that answers."""

    def make() -> Chain:
        first, second = dspy.Predict("question -> answer"), dspy.ChainOfThought("question -> answer")
        third = dspy.Predict("question -> answer")
        return Chain(a=node(first, fallback=node(second, fallback=third)))

    pipeline = make()
    names = [name for name, _ in pipeline.named_predictors()]
    assert names == ["steps['a']", "fallbacks['a'].predict", "fallbacks['a/fallback']"]
    pipeline.named_predictors()[1][1].demos = [dspy.Example(question="q", answer="a").with_inputs("question")]
    twin = make()
    twin.load_state(pipeline.dump_state())
    assert len(twin.named_predictors()[1][1].demos) == 1
    copied = copy.deepcopy(pipeline)
    assert copied.fallbacks["a"] is not pipeline.fallbacks["a"]
    assert copied._plan()["a"].fallback.target is copied.fallbacks["a"]  # type: ignore[union-attr]
    copied.fallbacks = {**copied.fallbacks, "a": Chain(b=lambda question: question.upper())}
    with dspy.context(lm=offline_lm(lambda field, inputs: inputs["nothing"])):
        assert copied(question="loud").b == "LOUD"


async def test_a_fallback_has_money_of_its_own() -> None:
    """The node's budget is for the node; refused there, the fallback may still spend what the scope has."""

    async def spend(x: int) -> int:
        escalade.scopes.require().purse.reserve(50_000_000).settle(50_000_000)
        return x

    async def swallowed(x: int) -> int:
        with contextlib.suppress(BudgetExceeded):
            await spend(x)
        return 0

    for dear in (spend, swallowed):
        with escalade.scope(budget="1.00") as scope:
            pipeline = Chain(a=node(dear, budget="0.01", fallback=node(spend, budget="0.06")))
            assert (await pipeline.acall(x=7)).a == 7
            assert int(scope.spent) == 50_000_000
    with pytest.raises(BudgetExceeded) as caught, escalade.scope(budget="0.01"):
        await Chain(a=node(spend, fallback=spend)).acall(x=7)
    assert caught.value.path.startswith("a")


@pytest.mark.parametrize("error", [BadInput("wrong"), ScopeClosed("over")])
async def test_mistakes_are_not_papered_over(error: Exception) -> None:
    """What the caller did wrong is raised, whatever could stand in."""
    spare = Flaky()
    with pytest.raises(type(error)):
        await Chain(a=node(Flaky(error), fallback=spare)).acall(x=1)
    assert spare.calls == 0


def test_a_fallback_acts_for_the_same_principal() -> None:
    """It may do no more than the node that it stands in for."""
    seen = []

    async def who(x: int) -> int:
        seen.append([principal.user for principal in escalade.scopes.require().principals])
        if len(seen) == 1:
            raise ConnectionError("gone")
        return x

    with escalade.scope(
        principal=Principal("ada", roles=frozenset({"reader"})), access=escalade.Roles({"reader": ["notes.read:call"]})
    ):
        Chain(a=node(who, principal=Principal("agent"), fallback=who))(x=1)
    assert seen == [["ada", "agent"]] * 2


def test_shape_shows_fallbacks_and_tags() -> None:
    """A fallback has a path in its node, and nodes are found by tag at all depths."""
    inner = Chain(b=node(lambda a: a, tags=["slow", "dear"]))
    pipeline = FanOut(a=node(lambda x: x, fallback=lambda x: -x, tags="dear"), c=Chain(a=lambda x: x, d=inner))
    assert [(found.path, found.role) for found in pipeline.nodes()] == [
        ("a", "branch"),
        ("a/fallback", "fallback"),
        ("c", "branch"),
        ("c/a", "step"),
        ("c/d", "step"),
        ("c/d/b", "step"),
    ]
    assert [found.path for found in pipeline.nodes(tag="dear")] == ["a", "c/d/b"]
    assert pipeline.nodes(tag="cheap") == []


# -- hedge


def slow_once(seconds: float, gauge: Gauge) -> Callable[..., Any]:
    """The first call takes this long, the others nothing."""

    async def answer(x: int) -> int:
        with gauge.inside():
            mine = gauge.entered
            if mine == 1:
                await asyncio.sleep(seconds)
            return mine

    return answer


@virtually
async def test_a_late_node_gets_a_second_attempt() -> None:
    """The first answer counts; the loser has ended when the node returns; it is told."""
    gauge = Gauge()
    heard: list[events.Event] = []
    with escalade.scope(listen=heard.append), no_task_left():
        result = await Chain(a=node(slow_once(9.0, gauge), hedge=0.02)).acall(x=1)
        assert result.a == 2
        assert gauge.now == 0
    assert [(event.path, event.after) for event in told(heard, events.NodeHedged)] == [("a", 0.02)]
    assert told(heard, events.NodeFinished)[0].seconds < 5


@virtually
async def test_a_node_in_time_is_not_hedged() -> None:
    """No second attempt before `after`; and its failure is raised, not waited out."""
    gauge = Gauge()
    assert (await Chain(a=node(slow_once(0.0, gauge), hedge=5.0)).acall(x=1)).a == 1
    assert gauge.entered == 1
    began = time.perf_counter()
    with pytest.raises(ValueError, match="broken"):
        await Chain(a=node(Flaky(ValueError("broken")), hedge=5.0)).acall(x=1)
    assert time.perf_counter() - began < 1.0


@virtually
async def test_a_hedge_that_fails_fails_nobody() -> None:
    """The first attempt is waited for; when both fail, its error is raised."""
    calls = []

    async def first_is_good(x: int) -> int:
        calls.append(x)
        if len(calls) % 2 == 0:
            raise ValueError("second")
        await asyncio.sleep(0.06)
        if x < 0:
            raise ValueError("first")
        return x

    pipeline = Chain(a=node(first_is_good, hedge=Hedge(0.01, share=1.0)))
    assert (await pipeline.acall(x=1)).a == 1
    with pytest.raises(ValueError, match="first"):
        await pipeline.acall(x=-1)
    assert len(calls) == 4


@pytest.mark.parametrize("budget", ["0.15", "0.30"])
@virtually
async def test_hedges_need_room_in_the_budget(budget: str) -> None:
    """A second attempt begins only where what the first has set aside fits once more; what both cost is billed."""
    calls = []

    async def dear(x: int) -> int:
        hold = escalade.scopes.require().purse.reserve(100_000_000)
        calls.append(x)
        try:
            await asyncio.sleep(0.15 if len(calls) == 1 else 0.0)
        finally:
            hold.settle(100_000_000)
        return len(calls)

    with escalade.scope(budget=budget) as scope:
        await Chain(a=node(dear, hedge=0.02)).acall(x=1)
        roomy = budget == "0.30"
        assert len(calls) == (2 if roomy else 1)
        assert int(scope.spent) == (200_000_000 if roomy else 100_000_000)
        assert scope.purse.held == 0


@pytest.mark.parametrize("options", [{"retry": 3}, {"fallback": lambda x: x}])
async def test_a_failure_while_being_cancelled_is_the_end(options: dict[str, Any]) -> None:
    """A clean-up that fails with what may pass calls for no other attempt and no fallback: nobody waits for it."""
    calls, begun = [], asyncio.Event()

    async def work(x: int) -> int:
        calls.append(x)
        begun.set()
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            raise ConnectionResetError from None
        return x

    task = asyncio.create_task(Chain(a=node(work, **options)).acall(x=1))
    await begun.wait()
    task.cancel()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(task, 5)
    assert calls == [1]


@virtually
async def test_a_failure_at_the_same_time_as_the_answer_is_seen() -> None:
    """Both attempts end in one turn of the loop: nothing is logged about an error that nobody retrieved."""
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))
    for fails in (False, True):
        both, calls = asyncio.Event(), list[bool]()

        async def work(x: int, both: asyncio.Event = both, calls: list[bool] = calls, *, fails: bool = fails) -> int:
            calls.append(True)
            second = len(calls) == 2
            if second:
                both.set()
            await both.wait()
            if second is fails:
                raise ValueError("lost")
            return x

        for _ in range(10):
            both.clear()
            calls.clear()
            result = await Chain(a=node(work, hedge=0.001)).acall(x=1)
            assert result.a == 1
    gc.collect()
    assert told == []


@virtually
async def test_hedges_are_a_share_of_the_runs() -> None:
    """However slow they all are: one, and one in ten."""
    gauge = Gauge()

    async def slow(x: int) -> int:
        with gauge.inside():
            await asyncio.sleep(0.03)
            return x

    await Map(node(slow, hedge=0.005), over="xs").acall(xs=list(range(40)))
    assert 44 <= gauge.entered <= 45


@virtually
async def test_p95_needs_twenty_runs() -> None:
    """Before that nothing is hedged; then what is slower than 95 % of the last runs."""
    gauge = Gauge()
    slow: list[int] = [5, 25]

    async def usually_fast(x: int) -> int:
        with gauge.inside():
            if slow and slow[0] == x:
                slow.pop(0)
                await asyncio.sleep(0.2)
            return x

    heard: list[events.Event] = []
    pipeline = Chain(a=node(usually_fast, hedge="p95"))
    with escalade.scope(listen=heard.append):
        for x in range(30):
            await pipeline.acall(x=x)
    assert [event.call for event in told(heard, events.NodeHedged)] == [told(heard, events.NodeStarted)[25].call]


@virtually
async def test_cancelled_hedges_leave_nothing() -> None:
    """Cancelled from outside, both attempts end before the cancellation goes on."""
    gauge = Gauge()

    async def stubborn(x: int) -> int:
        with gauge.inside():
            try:
                await asyncio.sleep(9)
            except asyncio.CancelledError:
                await asyncio.sleep(0.02)
                raise
            return x

    with no_task_left():
        task = asyncio.ensure_future(Chain(a=node(stubborn, hedge=0.01)).acall(x=1))
        await asyncio.sleep(0.05)
        assert gauge.now == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gauge.now == 0


def test_the_loser_in_a_thread_cannot_spend() -> None:
    """A thread can't be stopped: its scope closes with the attempt, and what it still tries is refused."""
    refused: list[str] = []
    go, over = threading.Event(), threading.Event()
    lock = threading.Lock()
    calls: list[int] = []

    def work(x: int) -> int:
        with lock:
            calls.append(x)
            mine = len(calls)
        if mine == 1:
            go.wait(5.0)
            try:
                escalade.scopes.require().check_open()
            except ScopeClosed as error:
                refused.append(type(error).__name__)
            over.set()
        return mine

    with escalade.scope(budget="1.00") as scope:
        assert Chain(a=node(work, hedge=0.03))(x=1).a == 2
        go.set()
        assert over.wait(5.0)
        assert refused == ["ScopeClosed"]
        assert not scope.closed


def test_what_changes_the_world_is_not_hedged() -> None:
    """A node whose tools have side effects is refused where it is written, as far as it can be known."""

    @escalade.tool(side_effects="write")
    def book(room: str) -> str:
        """Book."""
        return room

    tool = escalade.Registry([book], name="rooms").get_tool("book")
    with pytest.raises(BadInput, match="hedge of 'node': its tool 'book' has side effects"):
        node(tool, hedge=1.0)
    with pytest.raises(BadInput, match="has side effects"):
        node(Chain(a=dspy.ReAct("question -> answer", tools=[tool])), hedge="p95", name="agent")
    for code in (lambda room: tool(room=room), Chain(b=lambda room: tool(room=room))):
        with pytest.raises(BadInput, match="its tool 'book' has side effects"):
            node(code, hedge=1.0)


# -- time, money, priority


@virtually
async def test_nothing_begins_that_cannot_end_in_time() -> None:
    """When the fastest of 20 runs took longer than what is left, the node isn't begun."""
    calls = []

    async def slow(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0.05)
        return x

    pipeline = Map(node(slow, retry=1), over="xs")
    await pipeline.acall(xs=list(range(20)))
    with escalade.scope(deadline=0.03), pytest.raises(DeadlineExceeded, match=r"not begun: it takes 0\.0\d+ s or more"):
        await pipeline.acall(xs=[99])
    assert 99 not in calls


async def test_priority_reaches_lanes_and_threads() -> None:
    """A number below 0 is batch for models; the nearest node's counts."""
    seen: dict[str, str] = {}

    def look(name: str) -> Callable[..., Any]:
        def looks(x: int) -> int:
            seen[name] = current_priority()
            return x

        return looks

    inner = Chain(deep=look("deep"), lifted=node(look("lifted"), priority="interactive"))
    await FanOut(a=node(inner, priority="batch"), b=node(look("b"), priority=-3), c=look("c")).acall(x=1)
    assert seen == {"deep": "batch", "lifted": "interactive", "b": "batch", "c": "interactive"}


def test_tags_are_told() -> None:
    """When a node starts."""
    heard: list[events.Event] = []
    with escalade.scope(listen=heard.append):
        Chain(a=node(lambda x: x, tags={"slow", "dear"}), b=lambda a: a)(x=1)
    assert [event.tags for event in told(heard, events.NodeStarted)] == ["dear slow", ""]


async def test_an_optional_node_does_not_exhaust_the_budget_of_others() -> None:
    """What is refused in it is its own affair, and its failure, though it swallowed the refusal."""

    async def greedy(x: int) -> int:
        with contextlib.suppress(BudgetExceeded):
            escalade.scopes.require().purse.reserve(10**10)
        return x

    with escalade.scope(budget="1.00") as scope:
        assert (await Map(node(greedy, optional=True), over="xs").acall(xs=[1])).results == [None]
        assert scope.purse.exhausted is None


# -- optional


async def test_an_optional_step_that_fails_is_left_out() -> None:
    """The chain goes on with what was there before; told; the others' budgets are as they were."""
    heard: list[events.Event] = []

    async def greedy(draft: str) -> dict[str, str]:
        with contextlib.suppress(BudgetExceeded):
            escalade.scopes.require().purse.reserve(10**10)
        return {"draft": draft + "!"}

    def publish(draft: str) -> str:
        return draft.upper()

    pipeline = Chain(draft=lambda x: "a" * x, polish=node(greedy, optional=True), publish=publish)
    with escalade.scope(budget="1.00", listen=heard.append) as scope:
        assert (await pipeline.acall(x=2)).publish == "AA"
        assert scope.purse.exhausted is None
    skipped = told(heard, events.NodeSkipped)
    assert [(event.path, event.why.split(":")[0]) for event in skipped] == [("polish", "BudgetExceeded")]
    assert (await Chain(a=node(Flaky(ValueError("no")), optional=True)).acall(x=1)).toDict() == {}
    last = Chain(first=lambda x: x, last=node(Flaky(ValueError("no")), optional=True))
    assert (await last.acall(x=1)).first == 1


@virtually
async def test_optional_steps_are_not_begun_when_time_or_money_is_too_short() -> None:
    """What they usually take is known after five runs."""
    calls: list[int] = []

    async def extra(x: int) -> int:
        calls.append(x)
        escalade.scopes.require().purse.reserve(50_000_000).settle(50_000_000)
        await asyncio.sleep(0.06)
        return x

    pipeline = Chain(extra=node(extra, optional=True), y=lambda x: x)
    for _ in range(5):
        with escalade.scope(budget="1.00", deadline=9.0):
            await pipeline.acall(x=1)
    assert len(calls) == 5
    heard: list[events.Event] = []
    with escalade.scope(budget="1.00", deadline=0.05, listen=heard.append):
        assert (await pipeline.acall(x=1)).y == 1
    with escalade.scope(budget="0.04", deadline=9.0, listen=heard.append) as scope:
        assert (await pipeline.acall(x=1)).y == 1
        assert scope.purse.exhausted is None
    assert len(calls) == 5
    late, dear = told(heard, events.NodeSkipped)
    assert "not begun: it takes 0." in late.why
    assert "not begun: it takes $0.05, and $0.04 is left" in dear.why


def test_what_needs_an_optional_step_is_refused() -> None:
    """Where nobody else gives the field, the chain is not built."""

    def draft(x: int) -> str:
        return "a" * x

    with pytest.raises(BadInput, match="which is optional and may be left out"):
        Chain(draft=node(draft, optional=True), publish=lambda draft: draft)


@virtually
async def test_an_optional_step_ends_with_the_deadline_and_the_scope() -> None:
    """Time that is up for all is up for all."""

    async def slow(x: int) -> int:
        await asyncio.sleep(9)
        return x

    with escalade.scope(deadline=0.05), pytest.raises(DeadlineExceeded):
        await Chain(a=node(slow, optional=True), b=lambda x: x).acall(x=1)
    task = asyncio.ensure_future(Chain(a=node(slow, optional=True), b=lambda x: x).acall(x=1))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- what is refused


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"retry": 0}, "retry of 'n': expected a number of further attempts"),
    ({"retry": True}, "retry of 'n'"),
    ({"retry": "3"}, "retry of 'n'"),
    ({"timeout": "5s"}, "timeout of 'n': expected more than 0 seconds, got '5s'"),
    ({"hedge": 0}, "hedge: expected seconds, or a percentile"),
    ({"hedge": "p100"}, "hedge: expected seconds, or a percentile"),
    ({"hedge": "fast"}, "hedge: expected seconds, or a percentile"),
    ({"cache": "yes"}, "cache of 'n': expected True, seconds, a store"),
    ({"cache": -1.0}, "cache: expected more than 0 seconds"),
    ({"once": "yes"}, "once of 'n': expected True or False"),
    ({"optional": 1}, "optional of 'n': expected True or False"),
    ({"group": 4}, "group: expected a Group or the name of one"),
    ({"group": "nobody's"}, "unknown group"),
    ({"priority": "high"}, "unknown priority 'high'"),
    ({"priority": 1.5}, "priority of 'n': expected a whole number"),
    ({"tags": ["two words"]}, "tags of 'n': expected words without blanks"),
    ({"fallback": node(len, optional=True)}, "a fallback can't be optional"),
    ({"budget": "-1"}, "budget of 'n': expected 0 dollars or more, got '-1'"),
    ({"timeout": True}, "timeout of 'n': expected more than 0 seconds, got True"),
]


@pytest.mark.parametrize(("told", "why"), WRONG, ids=[next(iter(told)) for told, _ in WRONG])
def test_wrong_options_are_refused_where_they_are_written(told: dict[str, Any], why: str) -> None:
    """With the option's name, what was expected and what was given."""
    with pytest.raises(BadInput, match=why):
        node(len, name="n", **told)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: NodeRetry(-1), "numbers of 0 or more"),
        (lambda: NodeRetry(1, within=0), "within= more than 0"),
        (lambda: NodeRetry(1, on=3), "on= classes of exceptions or a function"),  # type: ignore[arg-type]
        (lambda: NodeRetry(1, on=BaseException), "on= classes of exceptions"),  # type: ignore[arg-type]
        (lambda: Hedge(1.0, share=0), "a share of the runs"),
        (lambda: NodeCache(3), "a store such as DiskCache"),  # type: ignore[arg-type]
        (lambda: NodeCache(types=[int]), "a tuple of classes"),  # type: ignore[arg-type]
        (lambda: NodeCache(per="planet"), "per 'tenant' or per 'user'"),  # type: ignore[arg-type]
        (lambda: NodeCache(seconds=float("inf")), "more than 0 seconds"),
        (lambda: Chain(a=node(lambda x: x, fallback=lambda y: y)), "the fallback 'fallback1' of node 'a' needs 'y'"),
        (lambda: Chain(a=node(lambda x: x, fallback=3)), "fallback of node 'a': expected a dspy.Module or a function"),
    ],
)
def test_wrong_values_are_refused(make: Callable[[], Any], why: str) -> None:
    """One clear error, before anything runs."""
    with pytest.raises(BadInput, match=why):
        make()


def test_groups_of_unknown_names_are_told() -> None:
    """With those that are known."""
    with pytest.raises(UnknownName, match="unknown group 'nope'"):
        node(len, group="nope")


def test_durations_forget() -> None:
    """The last 128 runs count."""
    durations = Last()
    assert len(durations) == 0
    for seconds in (*[9.0] * 500, *[1.0] * 128):
        durations.add(seconds)
    assert (len(durations), durations.quantile(1.0)) == (128, 1.0)


@pytest.fixture(autouse=True)
def _no_threads_of_tests() -> Iterator[None]:
    """Threads that a test started end with it."""
    before = {thread for thread in threading.enumerate() if not thread.name.startswith("escalade")}
    yield
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = {t for t in threading.enumerate() if not t.name.startswith(("escalade", "asyncio"))} - before
        if not any(thread.is_alive() for thread in left):
            return
        time.sleep(0.01)
