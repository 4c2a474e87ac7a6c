"""What a live run costs beyond its program: `confirm`'s harness against bare `acall`, and beside `dspy.Evaluate`.

Interleaved in one process, on the simulated world, with the same program, questions and metric for all. A model takes
50 ms. Overhead is processor time, which other work on the machine changes least; rates are by the clock, and need a
core that is free. The heap is frozen first, as for the pipelines: DSPy's 300,000 objects would be searched for garbage
by all ways alike.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import dspy

from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.policies import Threshold
from escalade.agents.world import LADDER, World
from escalade.evals.studies.asking import Asking, Question
from escalade.registry.opening import scope

LATENCY, AT_ONCE, N = 0.05, 64, 1_000
"""Seconds; questions at once; questions."""

OVERHEAD, FASTER = 0.10, 3.0
DSPY_THREADS, OURS = 16, 256
"""Threads that users of `dspy.Evaluate` run, and questions that a live run asks at once."""

Work = Callable[[], Awaitable[int]]


class Rig:
    """The program, on models that take 50 ms, and its questions."""

    def __init__(self) -> None:
        self.world = World({name: replace(sim, latency=LATENCY) for name, sim in LADDER.items()}, seed=5)
        self.program = Escalate(
            "question -> answer",
            rungs=[("Predict", "small"), ("Predict", "large")],
            policy=Threshold(0.6),
            gateway=Gateway(self.world.as_models(), name="harness"),
        )
        self.examples = self.world.task(N, seed=1)
        with scope():
            self.questions = [
                Question(self.program.view(**example.inputs()).key, example, dict(example.inputs().items()), None)
                for example in self.examples
            ]

    async def bare(self, at_once: int = AT_ONCE) -> int:
        """`acall` in an `asyncio.gather`, with a semaphore; graded, since everybody has to."""
        free = asyncio.Semaphore(at_once)

        async def one(question: Question) -> float:
            async with free:
                return self.world.metric(question.example, await self.program.acall(**question.inputs))

        return round(sum(await asyncio.gather(*[one(question) for question in self.questions])))

    async def live(self, at_once: int = AT_ONCE) -> int:
        """As a live confirmation asks."""
        answers = await Asking(self.program, self.world.metric, concurrency=at_once).all(self.questions)
        return round(sum(answer.quality for answer in answers if answer is not None))

    def evaluate(self, threads: int) -> int:
        """`dspy.Evaluate`, without its bar and tables."""
        evaluate = dspy.Evaluate(
            devset=self.examples,
            metric=self.world.metric,
            num_threads=threads,
            display_progress=False,
            display_table=False,
            provide_traceback=False,
        )
        return round(float(evaluate(self.program).score) / 100 * N)


def timed(work: Callable[[], int], right: int) -> tuple[float, float]:
    """(seconds, processor seconds); each way must find the same number of right answers."""
    gc.collect()
    began, busy = time.perf_counter(), time.process_time()
    found = work()
    took = time.perf_counter() - began, time.process_time() - busy
    if found != right:
        raise RuntimeError(f"{found} right answers in place of {right}: not the same work")
    return took


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Medians of interleaved repeats."""
    rig = Rig()

    def here(work: Work) -> int:
        async def scoped() -> int:
            async with scope():
                return await work()

        return asyncio.run(scoped())

    def threads(count: int) -> int:
        with scope():
            return rig.evaluate(count)

    right = here(rig.bare)
    ways: dict[str, Callable[[], int]] = {
        "bare": lambda: here(rig.bare),
        "live": lambda: here(rig.live),
        "ours": lambda: here(lambda: rig.live(OURS)),
        "16": lambda: threads(DSPY_THREADS),
        "256": lambda: threads(OURS),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    told = logging.getLogger("dspy.evaluate")
    level = told.level
    told.setLevel(logging.WARNING)
    gc.collect()
    gc.freeze()
    try:
        for _ in range(repeats):
            for name, way in ways.items():
                seen[name].append(timed(way, right))
    finally:
        gc.unfreeze()
        told.setLevel(level)
    return [_overhead(seen), *_rates(seen)]


def _overhead(seen: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    pairs = list(zip(seen["live"], seen["bare"], strict=True))
    busy = statistics.median(ours[1] / bare[1] for ours, bare in pairs)
    clock = statistics.median(ours[0] / bare[0] for ours, bare in pairs)
    return {
        "name": f"live harness over bare acall, {AT_ONCE} at once",
        "value": (busy - 1) * 100,
        "unit": "%",
        "limit": f"<= {OVERHEAD:.0%}",
        "ok": busy - 1 <= OVERHEAD,
        "ratio": busy,
        "note": f"processor time; by the clock {clock - 1:+.1%}, where the first question, asked alone, counts most",
    }


def _rates(seen: dict[str, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    def rate(name: str) -> float:
        return N / statistics.median(clock for clock, _ in seen[name])

    def against(name: str) -> float:
        pairs = zip(seen["ours"], seen[name], strict=True)
        return statistics.median(theirs[0] / ours[0] for ours, theirs in pairs)

    faster = against("16")
    told = f"{N:,} questions, {LATENCY * 1000:g} ms a call"
    rows = [
        ("live", f"live, {AT_ONCE} at once", None, ""),
        ("ours", f"live, {OURS} at once", faster, f"{told}; ratio to dspy.Evaluate with {DSPY_THREADS} threads"),
        ("16", f"dspy.Evaluate, {DSPY_THREADS} threads", None, "as its users run it; a thread waits for each call"),
        ("256", f"dspy.Evaluate, {OURS} threads", 1 / against("256"), "ratio to ours with as many at once"),
    ]
    return [
        {
            "name": name,
            "value": rate(key),
            "unit": "examples/s",
            "limit": f">= {FASTER:g}x" if key == "ours" else "",
            "ok": key != "ours" or faster >= FASTER,
            "ratio": ratio,
            "note": note,
        }
        for key, name, ratio, note in rows
    ]
