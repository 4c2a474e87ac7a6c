"""A run that is interrupted anywhere ends as if it hadn't been, and nothing that was finished is done or paid again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escalade import Chain, FanOut, Map, Money, Runs, scopes
from escalade.errors import OutcomeUnknown, RunError
from tests.pipelines.durable.killing import RUNS
from tests.pipelines.durable.world import Crash, World

LEAF = st.tuples(st.just("leaf"), st.integers(1, 3))
TREES = st.recursive(
    LEAF,
    lambda inner: st.tuples(st.sampled_from(["chain", "fan", "map"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=5,
)


def glue(**results: Any) -> dict[str, str]:
    """One field of all branches."""
    return {"x": "+".join(f"{name}:{result['x']}" for name, result in sorted(results.items()))}


def split(x: str) -> dict[str, list[str]]:
    return {"items": [f"{x}{number}" for number in range(3)]}


def together(results: list[Any]) -> dict[str, str]:
    return {"x": "|".join(result["x"] for result in results)}


def built(world: World, tree: Any, name: str = "n") -> Any:
    """The pipeline of a tree."""
    kind, parts = tree
    if kind == "leaf":
        return world.agent(parts, name)
    nodes = {f"{name}{number}": built(world, part, f"{name}{number}") for number, part in enumerate(parts)}
    if kind == "chain":
        return Chain(**nodes)
    if kind == "fan":
        return FanOut(nodes, join=glue)
    worker = next(iter(nodes.values()))
    return Chain(split=split, each=Map(worker, over="items", item="x"), together=together)


def pipeline_of(world: World, tree: Any) -> Chain:
    return Chain(start=lambda x: {"x": x}, whole=built(world, tree), end=lambda x: {"x": x})


def finished(runs: Runs, attempt: int) -> Any:
    """The run "r", when its attempt of that number is over."""
    for _ in range(4000):
        row = runs.get("r").row()
        if row.status in {"done", "failed"} or (row.attempts >= attempt and not runs.engine._tasks):
            return runs.get("r").row()
        time.sleep(0.005)
    raise AssertionError("it does not end")


def uninterrupted(tree: Any) -> tuple[str, Counter[str], int]:
    world = World()
    with Runs(pipelines={"p": pipeline_of(world, tree)}, recorder=world.recorder) as runs:
        run = runs.start("p", x="in", budget="5")
        return run.result(20).x, world.served, int(run.spent)


@given(TREES, st.lists(st.integers(1, 25), min_size=1, max_size=3), st.integers(0, 1000), st.booleans())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_ends_as_if_it_had_not_been_interrupted(
    tmp_path_factory: pytest.TempPathFactory, tree: Any, fuses: list[int], seed: int, budget: bool
) -> None:
    """Any graph, interrupted any number of times after any call: the same result, each call served once, the money
    that is on the run's account is that of the record.
    """
    said, served, _ = uninterrupted(tree)
    url = f"sqlite:///{tmp_path_factory.mktemp('runs')}/runs.sqlite"
    world = World(seed)
    for number, fuse in enumerate([*fuses, None], 1):
        world.fuse, world.done = fuse, 0
        with Runs(url, pipelines={"p": pipeline_of(world, tree)}, recorder=world.recorder) as runs:
            if number == 1:
                runs.start("p", run_id="r", x="in", budget="5" if budget else None)
            else:
                runs.recover()
            row = finished(runs, number)
            if row.status == "done":
                break
    assert row.status == "done", row
    with Runs(url, pipelines={"p": pipeline_of(world, tree)}) as runs:
        run = runs.get("r")
        assert run.result().x == said
        assert world.served == served
        if budget:
            assert run.spent == world.paid
        assert sum(call.cost for call in run.calls()) <= world.paid


class Fused(World):
    """Each run has a fuse of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fuses = {f"r{number}": 1 + number % 7 for number in range(60)}

    def count(self, what: str) -> None:
        run_id = scopes.require().run_id
        self.fuses[run_id] -= 1
        if self.fuses[run_id] == 0:
            raise Crash


def after(rounds: int, said: str) -> str:
    """What an agent ends with: each answer is made of the one before."""
    for number in range(rounds):
        said = hashlib.sha256(f"{number} {said}".encode()).hexdigest()[:12]
    return f"same({said})"


def test_racing_branches_are_never_swapped(tmp_path: Path) -> None:
    """Two branches that make several calls by the same function, interrupted in 60 runs: no result is the other's."""
    world = Fused()
    agent = world.agent(2, "same")
    pipeline = FanOut(
        left=Chain(name=lambda x: {"x": f"left {x}"}, act=agent),
        right=Chain(name=lambda x: {"x": f"right {x}"}, act=agent),
    )
    with Runs(tmp_path / "r.sqlite", pipelines={"p": pipeline}) as runs:
        for run_id in world.fuses:
            runs.start("p", run_id=run_id, x=run_id)
        while any(row.attempts == 0 for row in runs.list()) or runs.engine._tasks:
            time.sleep(0.01)
        interrupted = len(runs.list(status="running"))
    with Runs(tmp_path / "r.sqlite", pipelines={"p": pipeline}) as runs:
        assert runs.recover() == interrupted >= 50
        results = {run_id: runs.get(run_id).result(20) for run_id in world.fuses}
    swapped = [
        run_id
        for run_id, result in results.items()
        if (result.left.x, result.right.x) != (after(2, f"left {run_id}"), after(2, f"right {run_id}"))
    ]
    assert swapped == []


def test_a_call_that_must_not_be_repeated_is_told(tmp_path: Path) -> None:
    """A write that was cut off may have been done: it is not made again, and the run says so."""
    import escalade

    sent: list[str] = []
    gate: list[asyncio.Event] = []

    @escalade.tool(side_effects="irreversible")
    async def send(text: str) -> str:
        """Send it."""
        sent.append(text)
        gate.append(asyncio.Event())
        await gate[-1].wait()
        return "sent"

    registry = escalade.Registry()
    registry.register(send)

    async def act(x: str) -> str:
        return str(await registry.resolve("send").acall(text=x))

    pipeline = Chain(act=act)
    with Runs(tmp_path / "r.sqlite", pipelines={"p": pipeline}) as runs:
        runs.start("p", run_id="r", x="hello")
        for _ in range(400):
            if sent:
                break
            time.sleep(0.005)
    with Runs(tmp_path / "r.sqlite", pipelines={"p": pipeline}) as runs:
        runs.recover()
        with pytest.raises(RunError, match="may have been done") as told:
            runs.get("r").result(10)
    assert told.value.kind == OutcomeUnknown.__name__
    assert sent == ["hello"]


def test_the_budget_holds_over_all_attempts(tmp_path: Path) -> None:
    """What an attempt spent counts in the next one, and the run is refused where it would have been refused at once."""
    from escalade.errors import BudgetExceeded

    def pipeline(world: World) -> Chain:
        return Chain(a=world.agent(2, "a"), b=world.agent(2, "b"), c=world.agent(2, "c"))

    world = World(1, fuse=6)
    budget = Money(2_400_000 + 4_700_000)
    for attempt in (1, 2, 3):
        with Runs(tmp_path / "r.sqlite", pipelines={"p": pipeline(world)}, recorder=world.recorder) as runs:
            if attempt == 1:
                runs.start("p", run_id="r", x="in", budget=budget)
            else:
                runs.recover()
            row = finished(runs, attempt)
        if row.status == "failed":
            break
    assert row.status == "failed"
    assert BudgetExceeded.__name__ in str(row.error)
    assert 0 < row.spent <= budget
    assert row.spent == world.paid


def test_a_process_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """`kill -9` at random moments: every run ends with the result that it would have had. What was served again was in
    flight at a kill; each call of a run was kept once, and what was spent beyond is what was in flight, booked in full.
    """
    command = [sys.executable, "-m", "tests.pipelines.durable.killing", str(tmp_path), "5"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout.splitlines()[-1])
    assert (found["done"], found["wrong"], found["missing"]) == (RUNS, 0, 0)
    assert (found["calls"], found["twice"]) == (0, 0)
    assert found["again"] <= found["kills"] * RUNS * 3  # branches that were at work
    assert found["spent"] >= found["kept"] > 0
