"""Profiles: where time and money went, and what determined when a run ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import math
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.console import Console

import escalade
from escalade import Chain, FanOut, Gateway, Map, SimModel, World, events, node, scopes
from escalade.pipelines.events import (
    Event,
    NodeCancelled,
    NodeFinished,
    NodeQueued,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    RunCancelled,
    RunFinished,
    RunStarted,
    Settled,
)
from escalade.pipelines.watching._timeline import above, alike
from escalade.pipelines.watching.profile import Profile
from escalade.testing import virtual_time

MS = 0.001


def nap(seconds: float) -> Any:
    async def node() -> None:
        await asyncio.sleep(seconds)

    return node


def pay(amount: int) -> Any:
    """A node that pays and says so, as the guard does."""

    def node() -> None:
        here = scopes.require()
        here.purse.reserve(amount).settle(amount)
        events.emit(here, Settled, resource="m", cost=amount, kind="model", seconds=0.5)

    return node


# ------------------------------------------------------------------------------------- runs that never ran, to the ms


@dataclass
class Plan:
    """A node: `own` ms before each of its children (or at once, where `wide`), and as a leaf."""

    own: int
    wide: bool = False
    children: list[Plan] = field(default_factory=list)

    def length(self) -> int:
        """How long it takes."""
        inner = [child.length() for child in self.children]
        return self.own + (max(inner, default=0) if self.wide else sum(inner))

    def work(self) -> int:
        return sum(child.work() for child in self.children) if self.children else self.own


plans = st.recursive(
    st.builds(Plan, st.integers(1, 1000)),
    lambda inner: st.builds(Plan, st.integers(0, 50), st.booleans(), st.lists(inner, min_size=1, max_size=4)),
    max_leaves=15,
)


def told(plan: Plan, path: str, begun: int) -> Iterator[tuple[int, int, type[Event], str, dict[str, Any]]]:
    """(time, order at that time, kind, path, values) of its events."""
    yield begun, 1, NodeStarted if path else RunStarted, path, {} if path else {"pipeline": "it"}
    at = begun + plan.own
    for number, child in enumerate(plan.children):
        yield from told(child, f"{path}/n{number}" if path else f"n{number}", at)
        at += 0 if plan.wide else child.length()
    end = begun + plan.length()
    values = {"seconds": plan.length() * MS, **({} if path else {"result": None})}
    yield end, 0, NodeFinished if path else RunFinished, path, values


def heard(plan: Plan) -> list[Event]:
    """Its events, in the order in which they would be told."""
    rows = sorted(told(plan, "", 0), key=lambda row: (row[0], row[1] * (len(row[3]) + 1) - (1 - row[1]) * len(row[3])))
    return [
        kind(seq=number, time=1000 + at * MS, run_id="r", call=1, path=path, **values)
        for number, (at, _, kind, path, values) in enumerate(rows)
    ]


@settings(max_examples=80, deadline=None)
@given(plan=plans)
def test_the_critical_path_is_as_long_as_the_run(plan: Plan) -> None:
    """Its pieces follow one another without a gap from the start to the end; the leaves on it are, at each fan-out,
    those of a branch that took longest.
    """
    run = Profile.of(heard(plan))
    pieces = run.critical_path
    assert sum(piece.seconds for piece in pieces) == pytest.approx(plan.length() * MS, abs=1e-6)
    at = 1000.0
    for piece in pieces:
        assert piece.begun == pytest.approx(at, abs=1e-6)
        at = piece.begun + piece.seconds
    assert run.seconds == pytest.approx(plan.length() * MS, abs=1e-6)
    assert sum(node.critical for node in run.nodes) == pytest.approx(run.seconds, abs=1e-6)
    assert run.work == pytest.approx(plan.work() * MS, abs=1e-6)
    _follow(plan, "", {piece.path for piece in pieces})


def _follow(plan: Plan, path: str, on: set[str]) -> None:
    """Which children are on the path: all of a chain, and of a fan-out one of the longest."""
    names = [(f"{path}/n{i}" if path else f"n{i}", child) for i, child in enumerate(plan.children)]
    lasting = [(name, child) for name, child in names if child.length() > 0]
    inside = [name for name, _ in lasting if any(p == name or p.startswith(f"{name}/") for p in on)]
    if not plan.wide:
        assert inside == [name for name, _ in lasting]
    elif lasting:
        longest = max(child.length() for _, child in lasting)
        assert len(inside) == 1
        assert dict(lasting)[inside[0]].length() == longest
    for name, child in lasting:
        if name in inside:
            _follow(child, name, on)


def script(*rows: tuple[float, type[Event], str, dict[str, Any]]) -> Profile:
    """A profile of events at given times."""
    return Profile.of(
        kind(seq=n, time=at, run_id="r", call=1, path=path, **values) for n, (at, kind, path, values) in enumerate(rows)
    )


def ended(seconds: float, **values: Any) -> dict[str, Any]:
    return {"seconds": seconds, **values}


def test_losers_are_not_on_the_path_of_a_race() -> None:
    """They end a little after the winner, since they are cancelled by it."""
    run = script(
        (0, RunStarted, "", {"pipeline": "p"}),
        (0, NodeStarted, "slow", {}),
        (0, NodeStarted, "quick", {}),
        (1, NodeFinished, "quick", ended(1)),
        (1.001, NodeCancelled, "slow", ended(1.001)),
        (1.002, RunFinished, "", ended(1.002, result=1)),
    )
    assert [piece.path for piece in run.critical_path] == ["quick", ""]


def test_who_is_cut_off_at_the_deadline_is_on_the_path() -> None:
    """The run waited for it, and not for those that were there long before."""
    run = script(
        (0, RunStarted, "", {"pipeline": "p"}),
        (0, NodeStarted, "slow", {}),
        (0, NodeStarted, "quick", {}),
        (1, NodeFinished, "quick", ended(1)),
        (2, NodeCancelled, "slow", ended(2)),
        (2, RunFinished, "", ended(2, result=1)),
    )
    assert [piece.path for piece in run.critical_path] == ["slow"]


def test_queues_retries_and_uses_are_counted_where_they_were() -> None:
    """Waiting before a node began is not part of its time, waiting in it is; calls count for the node they are in."""
    run = script(
        (0, RunStarted, "", {"pipeline": "p"}),
        (2, NodeQueued, "a", {"seconds": 2.0}),
        (2, NodeStarted, "a", {}),
        (3, NodeQueued, "a", {"seconds": 1.0}),
        (4, Settled, "a", {"resource": "small", "cost": 30, "kind": "model", "seconds": 0.75}),
        (4, NodeRetried, "a", {"attempt": 2, "error": "e"}),
        (5, Settled, "a", {"resource": "crm@1", "cost": 5, "kind": "tool", "seconds": 0.25}),
        (6, NodeFinished, "a", ended(4, cost=35)),
        (6, NodeSkipped, "b", {"why": "no money"}),
        (6, RunFinished, "", ended(6, result=1, cost=35)),
    )
    node = run.node("a")
    assert node is not None
    assert (node.seconds, node.waited, node.queued, node.models, node.tools) == (4, 2, 1, 0.75, 0.25)
    assert (node.uses, node.paid, node.cost, node.counts) == (2, 35, 35, {"retried": 1})
    assert (run.queued, run.work, run.cost) == (3, 3, 35)
    skipped = run.node("b")
    assert skipped is not None
    assert (skipped.statuses, skipped.seconds) == ({"skipped": 1}, 0)
    assert math.isnan(skipped.percentile(0.5))


def test_an_optional_node_that_fails_ran_once() -> None:
    """Its one run is skipped, as its status says, with the time that it took."""

    async def late(x: int) -> int:
        await asyncio.sleep(60)
        return x

    fan = FanOut(a=lambda x: x, b=node(late, optional=True, timeout=0.02))
    with escalade.profile() as run:
        assert fan(x=1).statuses["b"].state == "skipped"
        Map(node(late, optional=True, timeout=0.02), over="xs")(xs=[1, 2])
    for path, times in (("b", 1), ("[*]", 2)):
        found = run.node(path)
        assert found is not None
        assert (found.runs, found.statuses) == (times, {"skipped": times})
        assert found.percentile(0.5) >= 0.02


def test_a_run_that_is_still_going_has_a_profile() -> None:
    """What is running counts until the last event; what was cut off, for example by a crash, too."""
    run = script((0, RunStarted, "", {"pipeline": "p"}), (1, NodeStarted, "a", {}), (3, NodeStarted, "a/b", {}))
    assert run.seconds == 3
    assert [(piece.path, piece.seconds) for piece in run.critical_path] == [("", 1), ("a", 2)]
    assert run.node("a").statuses == {"running": 1}
    assert Profile().as_dict()["seconds"] == 0
    part = script((1, NodeStarted, "a/b", {}), (2, NodeFinished, "a/b", ended(1)), (2, RunCancelled, "", ended(2)))
    assert [node.path for node in part.nodes] == ["a/b"]  # nobody heard the rest begin


@given(st.lists(st.sampled_from(["a", "b[3]", "[7]", "c[1]"]), min_size=1, max_size=4))
def test_paths_go_up_to_the_whole(segments: list[str]) -> None:
    """Going up from any path ends at the pipeline, and numbers are the only difference between alike paths."""
    path = "/".join(segments)
    seen = [path]
    while seen[-1]:
        seen.append(above(seen[-1]))
        assert len(seen[-1]) < len(seen[-2])
    assert alike(path).replace("[*]", "") == "".join(c for c in path if c not in "[]1234567890")


# ------------------------------------------------------------------------------------------------------ real runs


def test_real_runs_are_measured() -> None:
    """Branches, items and threads: their times, the time of the longest chain, how much ran at once."""
    pipeline = Chain(
        a=FanOut(quick=nap(0.01), slow=Chain(x=nap(0.03), y=lambda: time.sleep(0.03))),
        b=Map(lambda x: time.sleep(0.01), over="xs", concurrency=4),
    )
    with escalade.profile() as run:
        pipeline(xs=range(8))
    assert [n.path for n in run.nodes] == ["", "a", "a/quick", "a/slow", "a/slow/x", "a/slow/y", "b", "b[*]"]
    finished = run.node("")
    assert finished is not None
    assert sum(piece.seconds for piece in run.critical_path) == pytest.approx(run.seconds, abs=1e-5)
    assert run.seconds == pytest.approx(finished.seconds, abs=0.05)
    assert {piece.path for piece in run.critical_path} >= {"a/slow/x", "a/slow/y"}
    assert "a/quick" not in {piece.path for piece in run.critical_path}
    assert run.work >= 0.01 + 0.06 + 0.08
    items = run.node("b[*]")
    assert items is not None
    assert items.runs == 8
    assert 0.01 <= items.percentile(0.5) <= items.percentile(0.95) <= items.percentile(1)


graphs = st.recursive(
    st.integers(0, 10**9),
    lambda inner: st.tuples(st.sampled_from(["chain", "fan"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=8,
)


def _built(graph: Any) -> Any:
    if isinstance(graph, int):
        return pay(graph)
    kind, parts = graph
    nodes = {f"n{i}": _built(part) for i, part in enumerate(parts)}
    return Chain(**nodes) if kind == "chain" else FanOut(nodes)


@settings(max_examples=25, deadline=None)
@given(graph=graphs, scoped=st.booleans())
def test_costs_are_those_of_the_ledger(graph: Any, scoped: bool) -> None:
    """Node by node and in all, to the nano-dollar, for any graph; listening to a scope or to a block."""
    run = Profile()
    with escalade.scope(listen=run) if scoped else run, escalade.scope(budget="100") as inner:
        Chain(whole=_built(graph))()
        spent = int(inner.spent)
    assert run.cost == spent == sum(node.paid for node in run.nodes)
    assert run.nodes[0].cost == spent
    assert all(node.cost >= node.paid for node in run.nodes)


def test_time_in_models_is_told_from_the_rest() -> None:
    """A node that mostly thinks has less model time than time."""
    gateway = Gateway(World({"small": SimModel(skill=1.0, latency=0.05, price_in="1", price_out="1")}).as_models())
    predict = dspy.Predict("question -> answer")

    async def think(question: str) -> Any:
        await asyncio.sleep(0.05)
        return await predict.acall(question=question)

    with escalade.profile() as run, dspy.context(lm=gateway.lm("small")), escalade.scope(budget="1") as scope:
        Chain(a=think)(question="1 + 1")
        assert run.cost == scope.spent > 0
    node = run.node("a")
    assert node is not None
    assert node.models >= 0.05
    assert node.seconds >= node.models + 0.045
    assert (node.uses, node.tools) == (1, 0)


async def test_several_calls_are_added_up() -> None:
    """The rows of an Evaluate, or calls at once; the critical path is that of the longest."""

    def snooze(seconds: float) -> None:
        time.sleep(seconds)

    chain = Chain(a=snooze)
    async with escalade.profile() as run:
        await asyncio.gather(*[chain.acall(seconds=s) for s in (0.01, 0.05, 0.02)])
    assert run.calls == 3
    assert run.node("a").runs == 3
    longest = run.node("").percentile(1)
    assert sum(piece.seconds for piece in run.critical_path) == pytest.approx(longest, abs=0.05)
    assert run.work >= 0.08


def test_it_is_shown_and_exported(tmp_path: Path) -> None:
    """As a table with the nodes as a tree, as HTML, as JSON; from a file of events it is the same."""
    path = tmp_path / "e.jsonl"
    run = Profile()
    with escalade.JsonlEvents(path) as log, escalade.scope(budget="1", listen=[run, log]):
        Chain(a=FanOut(b=pay(1_230_000)), c=nap(0.01))()
    again = Profile.of(escalade.read_events(path))
    assert json.loads(json.dumps(again.as_dict())) == json.loads(json.dumps(run.as_dict()))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(run)
    lines = console.export_text().splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["(all)", "a", "b", "c"]
    assert "$0.0012" in lines[3]
    assert "(all)" in run._repr_html_()


def test_it_keeps_no_results() -> None:
    """It holds spans and no events, so what nodes return is collected."""
    kept: weakref.WeakSet[Any] = weakref.WeakSet()

    class Thing:
        pass

    async def make(x: int) -> Thing:
        thing = Thing()
        kept.add(thing)
        return thing

    with escalade.profile() as run:
        Map(make, over="xs")(xs=range(100))
    gc.collect()
    assert not kept
    assert run.node("[*]").runs == 100


def test_waiting_for_a_place_is_told_and_measured() -> None:
    """Branches that wait for their turn, and those that wait in a group, say how long; a join doesn't wait."""
    heard: list[Event] = []
    pipeline = Chain(
        limited=FanOut({f"b{i}": nap(0.02) for i in range(3)}, concurrency=1, join=lambda b0, b1, b2: 1),
        grouped=FanOut({f"g{i}": escalade.node(nap(0.02), group=escalade.Group("profiled", 1)) for i in range(2)}),
    )
    exporter = InMemorySpanExporter()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    escalade.telemetry.enable(tracing)
    try:
        with virtual_time(), escalade.profile() as run, escalade.scope(listen=heard.append):
            pipeline()
    finally:
        escalade.telemetry.disable()
    queued = {e.path: e.seconds for e in heard if isinstance(e, NodeQueued)}
    assert set(queued) == {"limited/b1", "limited/b2", max(p for p in queued if "grouped" in p)}
    assert (queued["limited/b1"], queued["limited/b2"]) == (pytest.approx(0.02), pytest.approx(0.04))
    waited = run.node("limited/b2")
    assert waited is not None
    assert (waited.waited, waited.queued) == (queued["limited/b2"], 0)
    assert run.queued == pytest.approx(sum(queued.values()))
    spans = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]
    on_spans = {one.get("escalade.node"): one.get("escalade.queue.seconds") for one in spans}
    assert {path: seconds for path, seconds in on_spans.items() if seconds} == pytest.approx(queued)
    (whole,) = (one for one in spans if one.get("gen_ai.operation.name") == "invoke_workflow")
    assert whole["escalade.queue.seconds"] == pytest.approx(sum(queued.values()))
    assert whole["escalade.work.seconds"] == pytest.approx(0.1)
    stops = [stop.split()[0] for stop in str(whole["escalade.critical_path"]).split(" > ")]
    assert [stop for stop in stops if stop.startswith("limited/b")] == ["limited/b0", "limited/b1", "limited/b2"]


@pytest.mark.parametrize("scoped", [True, False])
def test_spans_say_where_the_time_went(scoped: bool) -> None:
    """The span of a node has the time in its models, that of the pipeline the sum, for any depth; nobody else hears."""
    exporter, heard = InMemorySpanExporter(), list[Event]()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    gateway = Gateway(World({"small": SimModel(skill=1.0, latency=0.02, price_in="1", price_out="1")}).as_models())
    asks = dspy.Predict("question -> answer")
    inner = Chain(think=asks) if scoped else Chain(think=nap(0.02))
    escalade.telemetry.enable(tracing)
    try:
        with contextlib.ExitStack() as stack:
            if scoped:
                stack.enter_context(escalade.scope(listen=heard.append))
            with dspy.context(lm=gateway.lm("small")):
                FanOut(a=Chain(b=inner), c=lambda question: 1)(question="1 + 1")
    finally:
        escalade.telemetry.disable()
    finished = [span for span in exporter.get_finished_spans() if not span.name.startswith("chat")]
    spans = {
        dict(span.attributes or {}).get("escalade.node", span.name): dict(span.attributes or {}) for span in finished
    }
    whole = spans["invoke_workflow FanOut(a, c)"]
    assert str(whole["escalade.critical_path"]).split()[-3] == "a/b/think"
    if scoped:
        assert spans["a/b/think"]["escalade.models.seconds"] >= 0.02
        assert whole["escalade.models.seconds"] == pytest.approx(spans["a/b/think"]["escalade.models.seconds"])
        assert [type(e) for e in heard].count(RunFinished) == 1
    else:
        assert "escalade.models.seconds" not in whole
