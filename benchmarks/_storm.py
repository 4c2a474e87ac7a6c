"""Pipelines of depth 4 with every kind of join, cancelled at random times: what is left of them?

Leaves pay for governed tools, wait, block threads, fail, swallow their first cancellation, fail while they are being
cancelled. After each run: tasks that are alive, money that is still held, tools that ran though they were called after
its end.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import escalade
from escalade.errors import JoinFailed
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from escalade.pipelines.race import Race

SAMPLES = 5
"""Runs that are left alone first."""


class Tools:
    """Two governed tools at a cent; when a call that ran was last made, by run. A thread that is in the guard when the
    run ends may begin later: it was called before.
    """

    def __init__(self) -> None:
        self.inside = 0
        self.lock = threading.Lock()
        self.called: dict[str, float] = {}
        tools = self

        @escalade.tool(cost="0.01", side_effects="read")
        async def look(run: str, x: int, seconds: float, called: float) -> int:
            """Look."""
            tools.note(run, called)
            await asyncio.sleep(seconds)
            return x

        @escalade.tool(cost="0.01", side_effects="read")
        def read(run: str, x: int, seconds: float, called: float) -> int:
            """Read."""
            tools.note(run, called)
            time.sleep(seconds)
            return x

        registry = escalade.Registry([look, read], name="storm")
        self.look, self.read = registry.get_tool("look"), registry.get_tool("read")

    def note(self, run: str, called: float) -> None:
        with self.lock:
            self.called[run] = max(called, self.called.get(run, 0.0))


class Forest:
    """Pipelines of random shape. `trouble`: share of the leaves, below joins that can do without, that fail."""

    def __init__(
        self, rng: random.Random, tools: Tools, run: str, *, seconds: float, threads: float, trouble: float
    ) -> None:
        self.rng, self.tools, self.run = rng, tools, run
        self.seconds, self.threads, self.trouble = seconds, threads, trouble
        self.begun = self.ended = 0

    def leaf(self, *, calm: bool = True) -> Any:
        """A node that takes `x`. `calm`: none that fails by itself."""
        rng, wait = self.rng, self.rng.uniform(0, self.seconds)
        draw = rng.random()
        if draw < self.threads:
            return lambda x: [self.tools.read(**self._call(x, wait / 2)) for _ in range(3)][-1]
        if not calm and rng.random() < self.trouble:
            return self._counted(self._failing(wait))
        kinds = [self._paying, self._waiting, self._stubborn, self._sore]
        (kind,) = rng.choices(kinds, [6, 6, 1, 1])
        leaf = self._counted(kind(wait))
        return node(leaf, timeout=5.0) if rng.random() < 0.2 else leaf

    def _counted(self, work: Callable[[int], Any]) -> Any:
        async def leaf(x: int) -> int:
            self.begun += 1
            try:
                result: int = await work(x)
                return result
            finally:
                self.ended += 1

        return leaf

    def _paying(self, wait: float) -> Any:
        return lambda x: self.tools.look.acall(**self._call(x, wait))

    def _call(self, x: int, seconds: float) -> dict[str, Any]:
        return {"run": self.run, "x": x, "seconds": seconds, "called": time.monotonic()}

    def _waiting(self, wait: float) -> Any:
        async def work(x: int) -> int:
            await asyncio.sleep(wait)
            return x

        return work

    def _stubborn(self, wait: float) -> Any:
        async def work(x: int) -> int:
            try:
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                await asyncio.sleep(wait / 4)  # swallowed
            return x

        return work

    def _sore(self, wait: float) -> Any:
        async def work(x: int) -> int:
            try:
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                raise ValueError("in the cleanup") from None
            return x

        return work

    def _failing(self, wait: float) -> Any:
        async def work(x: int) -> int:
            await asyncio.sleep(wait)
            raise ValueError(f"failed on {x}")

        return work

    def bush(self) -> Any:
        """Depth 2: leaves and a join."""
        three = {name: self.leaf(calm=False) for name in "abc"}
        calm = {name: self.leaf() for name in "abc"}
        made: list[Callable[[], Any]] = [
            lambda: FanOut(calm),
            lambda: FanOut(three, quorum=1),
            lambda: FanOut(calm, first=2),
            lambda: FanOut(three, partial=True, within=self.seconds, least=0),
            lambda: FanOut(calm, until=lambda found: sum(found.values()) > 1),
            lambda: FanOut(calm, reduce=lambda total, _, x: total + x, initial=0),
            lambda: FanOut(a=calm["a"], b=node(self._counted(self._failing(self.seconds)), optional=True)),
            lambda: FanOut(three, partial=True, least=0, join=lambda **found: {"x": len(found)}),
            lambda: Race(calm),
            lambda: Race(calm, stagger=self.seconds / 4),
            lambda: Map(self.leaf(), over="xs", item="x", concurrency=2),
            lambda: Map(self.leaf(calm=False), over="xs", item="x", errors="keep"),
            lambda: Map(self.leaf(), over="xs", item="x", first=1),
        ]
        return self.rng.choice(made)()

    def tree(self, width: int) -> FanOut:
        """Depth 4: a fan-out of chains of maps, races and fan-outs of those."""
        middle: list[Callable[[], Any]] = [
            lambda: FanOut(p=self.bush(), q=self.bush()),
            lambda: FanOut(p=self.bush(), q=self.bush(), quorum=1),
            lambda: Race(p=self.bush(), q=self.bush()),
            lambda: Map(self.bush(), over="ys", item="x"),
        ]
        branches = {
            f"b{i}": Chain(first=self.leaf(), middle=self.rng.choice(middle)(), last=lambda x: x) for i in range(width)
        }
        return FanOut(branches)


@dataclass
class Report:
    """What was left after all runs; empty is good."""

    outcomes: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def look(self, run_id: str, run: asyncio.Task[Any], forest: Forest, *, cancelled: bool) -> None:
        """What is wrong with a run that has ended. `cancelled`: it was, before it had."""
        error = None if run.cancelled() else run.exception()
        self.outcomes["cancelled" if run.cancelled() else "done" if error is None else "failed"] += 1
        if cancelled and not run.cancelled():
            self.left.append(f"{run_id}: cancelled, and it {'returned' if error is None else 'failed'}")
        if error is not None and not isinstance(error, JoinFailed):
            self.left.append(f"{run_id}: {error!r}")
        if forest.begun != forest.ended:
            self.left.append(f"{run_id}: {forest.begun - forest.ended} leaves have not ended")


async def storm(
    times: int, width: int, *, seed: int = 0, seconds: float = 0.004, threads: float = 0.03, trouble: float = 0.2
) -> Report:
    """Cancel `times` pipelines of that width, each at a random moment of its life."""
    report, rng, tools = Report(), random.Random(seed), Tools()
    purses: dict[str, Any] = {}
    ends: dict[str, float] = {}
    began, lives = time.perf_counter(), [0.0]
    for number in range(times):
        run_id = f"run{number}"
        forest = Forest(rng, tools, run_id, seconds=seconds, threads=threads, trouble=trouble)
        tree = forest.tree(width)
        alone = number < SAMPLES or rng.random() < 0.02  # how long they live, now and then
        pause = math.inf if alone else rng.uniform(0, 1.2 * statistics.median(lives[-9:]))
        before = asyncio.all_tasks()
        async with escalade.scope(budget="1000") as here:
            purses[run_id] = here.purse
            run, lived, cancelled = await _cancelled(tree, pause)
        ends[run_id] = time.monotonic()
        lives += [lived] if alone else []
        report.look(run_id, run, forest, cancelled=cancelled)
        if alive := asyncio.all_tasks() - before:
            report.left.append(f"{run_id}: {len(alive)} tasks, such as {next(iter(alive))}")
    caller = asyncio.current_task()
    if caller is None or caller.cancelling():
        report.left.append("the canceller is cancelled")
    await _settled(purses)
    report.left += [f"{run_id}: {purse.held} held" for run_id, purse in purses.items() if purse.held]
    late = [run_id for run_id, last in tools.called.items() if last > ends[run_id]]
    report.left += [f"{run_id}: a tool ran though it was called after its end" for run_id in late]
    report.seconds = time.perf_counter() - began
    return report


async def _cancelled(tree: FanOut, pause: float) -> tuple[asyncio.Task[Any], float, bool]:
    """A run that is cancelled after `pause` seconds; how long it lived; did the cancellation come in time?"""
    started = time.perf_counter()
    run = asyncio.create_task(tree.acall(x=1, xs=[1, 2, 3], ys=[1, 2]))
    if pause == math.inf:
        await asyncio.wait([run])
        return run, time.perf_counter() - started, False
    await asyncio.sleep(pause)
    in_time = run.cancel()
    await asyncio.wait([run])
    return run, time.perf_counter() - started, in_time


async def _settled(purses: dict[str, Any]) -> None:
    """Wait for what blocked threads still hold; they can't be stopped."""
    for _ in range(500):
        if not any(purse.held for purse in purses.values()):
            return
        await asyncio.sleep(0.01)
