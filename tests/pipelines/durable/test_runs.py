"""Runs: by name and id, over engines and processes; what a handle says and does."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import Chain, FanOut, Inline, Map, Money, Principal, Roles, Runs, scopes
from escalade.errors import BadInput, NoPolicy, PipelineChanged, RunConflict, RunError, StoreUnavailable, UnknownName
from escalade.pipelines.durable.sqlite_store import SqliteRuns
from escalade.pipelines.durable.store import EventRow, RunRow, Superseded, Written
from escalade.pipelines.durable.writer import Writer
from escalade.registry.approvals import SqliteRequests
from tests.pipelines.durable.world import World


class Counted:
    """A chain whose nodes count how often they are run. `broken`: names of nodes that fail."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken: set[str] = set()
        self.hold = threading.Event()
        self.hold.set()

        async def first(x: int) -> int:
            return await self._work("first", x + 1)

        async def second(first: int) -> int:
            return await self._work("second", first * 10)

        async def third(second: int) -> int:
            return await self._work("third", second + 5)

        self.chain = Chain(first=first, second=second, third=third)

    async def _work(self, name: str, result: int) -> int:
        self.calls.append(name)
        while not self.hold.is_set():  # noqa: ASYNC110 - threads set it
            await asyncio.sleep(0.005)
        if name in self.broken:
            raise ValueError(f"{name} is broken")
        return result


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture(params=["memory", "file"])
def runs(request: pytest.FixtureRequest, tmp_path: Path, counted: Counted) -> Iterator[Runs]:
    url = None if request.param == "memory" else f"sqlite:///{tmp_path}/runs.sqlite"
    with Runs(url, pipelines={"sum": counted.chain}) as made:
        yield made


def until(true: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)


def test_a_run_ends_with_its_result(runs: Runs, counted: Counted) -> None:
    """Started by name or by the pipeline, followed by the handle."""
    run = runs.start("sum", run_id="one", x=1)
    assert run.result(10).third == 25
    assert run.status() == "done"
    assert [(step.path, step.result) for step in run.steps()] == [("first", 2), ("second", 20), ("third", 25)]
    assert runs.start(counted.chain, x=1).result(10).third == 25
    assert runs.get("one").result().third == 25


def test_a_run_id_stands_for_one_run(runs: Runs, counted: Counted) -> None:
    """The same id with the same inputs is the same run; with others it is refused, and nothing runs."""
    for _ in range(3):
        assert runs.start("sum", run_id="one", x=1).result(10).third == 25
    assert counted.calls == ["first", "second", "third"]
    runs.add("other", Counted().chain)
    for name, x in (("sum", 2), ("other", 1)):
        with pytest.raises(RunConflict, match="'one'"):
            runs.start(name, run_id="one", x=x)
    assert len(runs.list()) == 1


def test_a_failed_run_goes_on_where_it_failed(runs: Runs, counted: Counted) -> None:
    """What it failed with is told by class, message and path; resumed, it does only what it hadn't finished."""
    counted.broken.add("second")
    run = runs.start("sum", run_id="one", x=1)
    with pytest.raises(RunError, match="second is broken") as told:
        run.result(10)
    assert (told.value.kind, told.value.path, told.value.status) == ("ValueError", "second", "failed")
    counted.broken.clear()
    assert run.resume().result(10).third == 25
    assert counted.calls == ["first", "second", "second", "third"]
    with pytest.raises(RunConflict, match="done"):
        run.resume()


def test_a_fork_does_a_step_anew(runs: Runs, counted: Counted) -> None:
    """With what was finished before it; and, with other inputs, what depends on them."""
    run = runs.start("sum", run_id="one", x=1)
    run.result(10)
    counted.calls.clear()
    forked = run.fork("second", new_id="two")
    assert forked.result(10).third == 25
    assert counted.calls == ["second", "third"]
    assert forked.row().forked_from == "one"
    assert run.fork(inputs={"x": 2}).result(10).third == 35
    assert counted.calls == ["second", "third", "first", "second", "third"]
    with pytest.raises(UnknownName, match="secnd"):
        run.fork("secnd")


def test_cancelling_ends_it_soon(runs: Runs, counted: Counted) -> None:
    """A running one within a moment; one that waits for its place never begins; resumed, both go on."""
    counted.hold.clear()
    run = runs.start("sum", run_id="one", x=1)
    until(lambda: counted.calls == ["first"])
    began = time.monotonic()
    run.cancel()
    with pytest.raises(RunError, match="cancelled"):
        run.result(10)
    assert time.monotonic() - began < 8.0
    assert run.status() == "cancelled"
    counted.hold.set()
    assert run.resume().result(10).third == 25


def test_it_is_followed_by_its_events(runs: Runs) -> None:
    """From the beginning, in order, over all attempts, until it has ended."""
    run = runs.start("sum", run_id="one", events=True, x=1)

    async def followed(after: int = 0) -> list[dict[str, Any]]:
        return [event async for event in run.events(after=after)]

    told = asyncio.run(followed())
    assert [event["event"] for event in told][:2] == ["RunStarted", "NodeStarted"]
    assert told[-1]["event"] == "RunFinished"
    assert [event["n"] for event in told] == sorted({event["n"] for event in told})
    assert asyncio.run(followed(told[-3]["n"])) == told[-2:]


async def test_it_is_awaited_without_blocking(runs: Runs, counted: Counted) -> None:
    """Started and awaited from a running event loop, which goes on meanwhile; a timeout leaves the run alone."""
    counted.hold.clear()
    run = await runs.astart("sum", x=1)
    with pytest.raises(TimeoutError):
        await run.aresult(0.05)
    counted.hold.set()
    assert (await run.aresult(10)).third == 25


def test_runs_are_found_and_forgotten(runs: Runs) -> None:
    """By status, pipeline and tenant; those that ended long ago are forgotten."""
    for number in range(3):
        runs.start("sum", tenant=f"t{number % 2}", x=number).result(10)
    assert len(runs.list(status="done")) == 3
    assert len(runs.list(tenant="t0", pipeline="sum")) == 2
    assert runs.list(status=("failed", "queued")) == []
    assert runs.prune(older_than=60) == 0
    assert runs.prune(older_than=0) == 3
    assert runs.list() == []
    with pytest.raises(BadInput, match="finished"):
        runs.list(status="finished")  # type: ignore[arg-type]


def test_many_at_once_keep_their_places(counted: Counted) -> None:
    """No more than `concurrency` at once; of those that wait, the larger priority is first."""
    counted.hold.clear()
    with Runs(pipelines={"sum": counted.chain}, engine=Inline(concurrency=1)) as runs:
        runs.start("sum", run_id="zero", x=0)
        until(lambda: counted.calls)
        for priority in (0, 5, 1):
            runs.start("sum", run_id=f"p{priority}", priority=priority, x=priority)
        assert runs.get("p5").status() == "queued"
        counted.hold.set()
        for priority in (0, 5, 1):
            runs.get(f"p{priority}").result(10)
        ended = sorted(runs.list(), key=lambda row: row.started)
        assert [row.run_id for row in ended] == ["zero", "p5", "p1", "p0"]


def test_bad_input_is_refused_at_once(runs: Runs) -> None:
    """By what it is, before a run is there."""
    with pytest.raises(UnknownName, match="sum"):
        runs.start("smu", x=1)
    with pytest.raises(BadInput, match="plain data"):
        runs.start("sum", x=object())
    wrong: list[dict[str, Any]] = [
        {"run_id": ""}, {"run_id": "a*"}, {"run_id": 7}, {"deadline": 0}, {"deadline": "soon"}, {"budget": "x"},
        {"budget": "-1"}, {"priority": "high"}, {"principal": "ana"},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(BadInput):
            runs.start("sum", x=1, **options)
    for age in ("30d", -5, float("nan")):
        with pytest.raises(BadInput, match=f"older_than: expected seconds, 0 or more, got {age!r}"):
            runs.prune(older_than=age)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="pipelines: expected them by name"):
        Runs(pipelines=[Chain(print)])  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="pipeline"):
        runs.add("f", print)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="name"):
        runs.start(Chain(print), x=1)
    for ask in (runs.get, runs.cancel):
        with pytest.raises(UnknownName, match=r"^unknown run 'nope'$"):
            ask("nope")
    with pytest.raises(BadInput, match="mysql"):
        Runs("mysql://x")
    with pytest.raises(BadInput, match="engine"):
        Runs(engine="celery")  # type: ignore[arg-type]
    assert runs.list() == []


def test_what_was_closed_writes_nothing(tmp_path: Path, counted: Counted) -> None:
    """A run that a closed Runs refused to start or to resume isn't executed by the next process either."""
    counted.broken.add("third")
    runs = Runs(f"sqlite:///{tmp_path / 'r.sqlite'}", pipelines={"sum": counted.chain})
    with pytest.raises(RunError):
        runs.start("sum", run_id="old", x=1).result(10)
    runs.close()
    for late in (lambda: runs.start("sum", run_id="new", x=1), lambda: runs.resume("old"), lambda: runs.fork("old")):
        with pytest.raises(BadInput, match="closed"):
            late()
    with Runs(f"sqlite:///{tmp_path / 'r.sqlite'}", pipelines={"sum": counted.chain}) as others:
        assert [(run.run_id, run.status) for run in others.list()] == [("old", "failed")]


def test_a_result_that_is_no_data_fails_the_run(runs: Runs) -> None:
    """A node may return what it likes; what the run returns must be kept."""
    runs.add("odd", Chain(make=lambda x: {"thing": object()}, size=lambda thing: 1))
    runs.add("bad", Chain(make=lambda x: {"thing": object()}))
    assert runs.start("odd", x=1).result(10).size == 1
    with pytest.raises(RunError, match="plain data"):
        runs.start("bad", x=1).result(10)


def test_the_deadline_holds_over_restarts(tmp_path: Path, counted: Counted) -> None:
    """It is a time, not a span: what is taken up too late is ended at once."""
    counted.hold.clear()
    with Runs(tmp_path / "r.sqlite", pipelines={"sum": counted.chain}) as runs:
        runs.start("sum", run_id="one", deadline=1.0, x=1)
        until(lambda: counted.calls)
    time.sleep(1.0)
    counted.hold.set()
    with Runs(tmp_path / "r.sqlite", pipelines={"sum": counted.chain}) as runs:
        runs.recover()
        with pytest.raises(RunError, match="deadline"):
            runs.get("one").result(10)
    assert counted.calls == ["first"]


def test_a_changed_pipeline_is_told(tmp_path: Path, counted: Counted) -> None:
    """A run that began with other nodes is not gone on with, unless somebody says so."""
    counted.broken.add("third")
    with Runs(tmp_path / "r.sqlite", pipelines={"sum": counted.chain}) as runs:
        with pytest.raises(RunError):
            runs.start("sum", run_id="one", x=1).result(10)
    longer = Chain(**counted.chain.steps, last=lambda third: third + 100)
    counted.broken.clear()
    with Runs(tmp_path / "r.sqlite", pipelines={"sum": longer}) as runs:
        with pytest.raises(RunError, match=r"last .*force=True") as told:
            runs.get("one").resume().result(10)
        assert told.value.kind == PipelineChanged.__name__
        assert runs.get("one").resume(force=True).result(10).last == 125
    assert counted.calls == ["first", "second", "third", "third"]
    with Runs(tmp_path / "r.sqlite") as runs:
        assert runs.get("one").result().last == 125  # results are there without the pipeline


def test_who_asks_is_kept(tmp_path: Path) -> None:
    """Each attempt is in the name of the one who started the run, with his rights; without a policy he has none."""
    seen: list[Any] = []

    def look(x: int) -> int:
        scope = scopes.require()
        seen.append((scope.principal, scope.run_id, str(scope.left)))
        return x

    ana = Principal("ana", "acme", frozenset({"analyst"}))
    policy = Roles({"analyst": ["*:call"]})
    with Runs(tmp_path / "r.sqlite", pipelines={"p": Chain(look)}, access=policy) as runs:
        row = runs.start("p", run_id="one", principal=ana, budget="0.50", x=1)
        row.result(10)
        assert (row.row().tenant, seen) == ("acme", [(ana, "one", "$0.5")])
    with Runs(tmp_path / "q.sqlite", pipelines={"p": Chain(look)}) as runs:
        with pytest.raises(RunError, match="policy") as told:
            runs.start("p", principal=ana, x=1).result(10)
    assert told.value.kind == NoPolicy.__name__


def test_a_late_attempt_changes_nothing(tmp_path: Path, counted: Counted) -> None:
    """A worker that was taken for dead and isn't: its successor's run is the one that counts."""
    counted.hold.clear()
    path = tmp_path / "r.sqlite"
    with Runs(path, pipelines={"sum": counted.chain}) as runs:
        run = runs.start("sum", run_id="one", x=1)
        until(lambda: counted.calls == ["first"])
        other = SqliteRuns(path)
        taken = other.begin("one", "successor", time.time())
        assert taken is not None
        counted.hold.set()
        until(lambda: not runs.host.live)
        assert run.row().attempts == taken.attempts == 2
        assert run.row().status == "running"
        assert other.kept("one").steps == ()
        other.close()
    assert issubclass(Superseded, escalade.EscaladeError)


def test_another_process_executes_nothing_twice(tmp_path: Path, counted: Counted) -> None:
    """Two engines at one file: the first executes, and takes up what the second starts, cancels and resumes."""
    path = tmp_path / "r.sqlite"
    counted.hold.clear()
    with Runs(path, pipelines={"sum": counted.chain}) as first, Runs(path, pipelines={"sum": counted.chain}) as second:
        one = first.start("sum", run_id="one", x=1)
        until(lambda: counted.calls == ["first"])
        assert second.recover() == 0
        assert second.start("sum", run_id="one", x=1).status() == "running"
        two = second.start("sum", run_id="two", x=2)
        second.cancel("one")
        with pytest.raises(RunError, match="cancelled"):
            one.result(10)
        counted.hold.set()
        assert two.result(10).third == 35
        assert not second.host.live
        second.resume("one")
        assert second.get("one").result(10).third == 25


def test_through_the_configured_runs(runs: Runs, counted: Counted) -> None:
    """`pipeline.start(...)` means those, and says what is missing without them."""
    escalade.configure(runs=runs)
    try:
        assert counted.chain.start(run_id="one", x=1).result(10).third == 25
    finally:
        scopes.set_default(None)
        scopes.set_runs(None)
    with pytest.raises(BadInput, match=r"configure\(runs="):
        counted.chain.start(x=1)


def test_within_the_configured_scope(tmp_path: Path) -> None:
    """Runs are recorded, allowed and limited as everything else is where nothing else is said."""
    world = World()
    with Runs(tmp_path / "r.sqlite", pipelines={"p": Chain(a=world.agent(1, "a"))}) as runs:
        escalade.configure(budget="1", recorder=world.recorder)
        try:
            run = runs.start("p", run_id="one", x="in", budget="0.5")
            run.result(10)
        finally:
            scopes.set_default(None)
    assert run.spent == world.paid > 0
    assert {entry.run_id for entry in world.recorder.entries()} == {"one"}


@pytest.mark.parametrize("given", ["ledger", "recorder", "approvals"])
def test_what_runs_are_not_told_is_configured(given: str, tmp_path: Path) -> None:
    """A ledger or a recorder of their own takes no policy away: who may do nothing elsewhere may do nothing there."""
    world = World()
    desk = escalade.Approvals(SqliteRequests(tmp_path / "a.sqlite"))
    own: dict[str, Any] = {"ledger": escalade.Ledger(), "recorder": world.recorder, "approvals": desk}
    with Runs(pipelines={"p": Chain(a=world.agent(1, "a"))}, **{given: own[given]}) as runs:
        escalade.configure(access=Roles({"analyst": ["other.*:call"]}))
        try:
            with pytest.raises(RunError):
                runs.start("p", run_id="one", x="in").result(10)
        finally:
            scopes.set_default(None)
    assert not world.served


def test_a_policy_of_runs_counts_alone(tmp_path: Path) -> None:
    """With a policy of their own, the configured principal is nobody there; one that grants nothing is refused."""
    world, ana = World(), Principal("ana", "acme", frozenset({"analyst"}))
    access = Roles({"analyst": ["*:call"]})
    escalade.configure(access=Roles({"clerk": ["x:call"]}), principal=Principal("bot", "acme", frozenset({"clerk"})))
    try:
        with Runs(pipelines={"p": Chain(a=world.agent(1, "a"))}, access=access) as runs:
            assert runs.start("p", principal=ana, x="in").result(10).x.startswith("a(")
            with pytest.raises(RunError):
                runs.start("p", x="in").result(10)
        with Runs(pipelines={"p": Chain(a=world.agent(1, "a"))}, access=Roles({})) as runs:
            with pytest.raises(RunError) as told:
                runs.start("p", principal=ana, x="in").result(10)
            assert told.value.kind == NoPolicy.__name__
    finally:
        scopes.set_default(None)


def test_a_run_id_is_of_one_principal(runs: Runs) -> None:
    """Somebody else doesn't get a result by naming the run and its inputs; nor does the same user with other roles."""
    ana = Principal("ana", "acme", frozenset({"analyst"}))
    runs.host.access = Roles({"analyst": ["x:call"], "boss": ["x:call"]})
    run = runs.start("sum", run_id="one", principal=ana, x=1)
    assert run.result(10).third == 25
    assert runs.start("sum", run_id="one", principal=ana, x=1).result(10).third == 25
    others = [None, Principal("bob", "globex", ana.roles), Principal("ana", "acme", frozenset({"boss"}))]
    for other in others:
        with pytest.raises(RunConflict, match="another principal"):
            runs.start("sum", run_id="one", principal=other, x=1)
    with pytest.raises(BadInput, match="tenant 'globex': a run in the name of a principal is of his tenant, 'acme'"):
        runs.start("sum", principal=ana, tenant="globex", x=1)
    assert runs.start("sum", run_id="one", principal=ana, tenant="acme", x=1).row().tenant == "acme"


def test_an_input_may_be_named_like_an_option(runs: Runs) -> None:
    """It is given in a dict; given by name it is the option, and what is missing then is said with what to do."""
    runs.add("named", Chain(lambda run_id, budget, inputs, x: f"{run_id} {budget} {inputs} {x}"))
    fields = {"run_id": "ours", "budget": 7, "inputs": "in"}
    run = runs.start("named", fields, x=1, run_id="theirs", budget="0.5")
    assert (run.run_id, run.result(10).step1) == ("theirs", "ours 7 in 1")
    assert run.row().budget == Money.of("0.5")
    with pytest.raises(BadInput, match=r"needs 'run_id'.*'run_id' is an option of start\(\), too.*'named', \{'run_id'"):
        runs.start("named", run_id="ours", budget="7", inputs="in", x=1)
    with pytest.raises(BadInput, match=r"needs 'x'; the call gave: run_id, budget, inputs, y$"):
        runs.start("named", fields, y=1)


async def _cancels(x: int) -> int:
    raise asyncio.CancelledError


def _exits(x: int) -> int:
    raise SystemExit(3)


async def _interrupts(x: int) -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize("node", [_cancels, _exits, _interrupts])
@pytest.mark.parametrize("pipeline", [Chain, FanOut])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_no_exception_handler_sees_fails_the_run(node: Any, pipeline: Any, runs: Runs) -> None:
    """A node that raises CancelledError though nobody cancelled, or wants to end the process: the run has failed. It is
    not begun again and again, and nobody waits for it for ever.
    """
    runs.add("p", pipeline(a=node))
    run = runs.start("p", run_id="one", x=1)
    with pytest.raises(RunError) as told:
        run.result(10)
    kinds = {_cancels: "CancelledError", _exits: "SystemExit", _interrupts: "KeyboardInterrupt"}
    assert told.value.kind == kinds[node]
    assert run.row().attempts == 1
    assert runs.start("sum", x=1).result(10).third == 25, "the others go on"


def test_spent_is_there_for_runs_without_a_budget(runs: Runs) -> None:
    """Money is counted whether it is limited or not."""
    world = World()
    runs.add("p", Chain(a=world.agent(2, "a")))
    run = runs.start("p", x="in")
    run.result(10)
    assert run.spent == Money(sum(call.cost for call in run.calls())) > 0
    assert {call.kind for call in run.calls()} == {"model", "tool"}


def test_every_kind_of_pipeline_is_kept_by_path(runs: Runs) -> None:
    """Items of maps, branches and what is in them have paths of their own."""
    runs.add("p", FanOut(m=Map(Chain(a=lambda i: i + 1), over="xs", item="i"), c=lambda xs: {"size": len(xs)}))
    run = runs.start("p", xs=[1, 2])
    assert run.result(10).c == {"size": 2}
    assert {step.path for step in run.steps()} == {"m", "m[0]", "m[0]/a", "m[1]", "m[1]/a", "c"}


def test_a_fork_has_not_paid_for_what_it_was_given(runs: Runs) -> None:
    """Calls that the first run paid for are given to the fork, and are not on its account."""
    world = World()
    runs.add("p", Chain(a=world.agent(2, "a"), b=world.agent(1, "b")))
    run = runs.start("p", x="in", budget="1")
    run.result(10)
    served = world.served.total()
    fork = run.fork("b")
    fork.result(10)
    assert 0 < fork.spent < run.spent
    assert world.served.total() - served == 2
    assert sum(call.cost for call in fork.calls()) == fork.spent


def test_what_one_attempt_lost_is_no_other_s_affair(tmp_path: Path) -> None:
    """The next attempt, and other runs, can flush what they have written; the one that has lost something can't."""
    store = SqliteRuns(tmp_path / "r.sqlite", patience=0.01)
    for run_id in ("one", "two"):
        store.create(RunRow(run_id, "p", "s", b"{}", "d"))
        store.begin(run_id, "me", 0.0)
    writer = Writer(store, patience=0.01)
    other = sqlite3.connect(tmp_path / "r.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        writer.write(Written("one", 1, EventRow(1, b"{}")))
    other.execute("ROLLBACK")
    other.close()
    writer.write(("two", 1))
    writer.write(("one", 2))
    with pytest.raises(StoreUnavailable):
        writer.write(("one", 1))
    writer.close()
    store.close()


def test_a_store_that_is_away_for_a_while(tmp_path: Path, counted: Counted) -> None:
    """Nothing can be written for a moment: the attempt ends, another one goes on, and the run with it."""
    path = tmp_path / "r.sqlite"
    counted.hold.clear()
    store = SqliteRuns(path, patience=0.05)
    with Runs(store=store, pipelines={"sum": counted.chain}, patience=0.1) as runs:
        run = runs.start("sum", run_id="one", x=1)
        until(lambda: counted.calls == ["first"])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        counted.hold.set()
        until(lambda: not runs.host.live)
        with pytest.raises(StoreUnavailable, match="r.sqlite"):
            runs.start("sum", run_id="two", x=1)
        other.execute("ROLLBACK")
        other.close()
        assert run.result(20).third == 25
        assert run.row().attempts == 2
    assert len(counted.calls) == 6  # of the first attempt, nothing could be kept


def test_inputs_that_cant_do_are_told_at_once(runs: Runs, counted: Counted) -> None:
    """What is missing, and what is no plain data, is told by its name, and there is no run of it."""
    with pytest.raises(BadInput, match="needs 'x'; the call gave: y"):
        runs.start(counted.chain, y=1)
    with pytest.raises(BadInput, match="plain data; what: of class builtins:object"):
        runs.start(counted.chain, x=1, what=object())
    assert runs.list() == []
