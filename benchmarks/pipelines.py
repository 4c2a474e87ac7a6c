"""What a pipeline adds to bare asyncio: ratios in one run, medians of interleaved repeats.

Nodes do nothing, so that all that is measured is the arrangement: a task per node, inputs by name, a Prediction. The
base is `asyncio.gather` over the same coroutines. The heap is frozen first: with DSPy's 300,000 objects in it, the
garbage collector would take half of both columns, and flatter the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import dspy
from rich.console import Console

from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.watching.jsonl import JsonlEvents
from escalade.pipelines.watching.live import Live
from escalade.pipelines.watching.profile import Profile
from escalade.registry.opening import scope

Work = Callable[[], Awaitable[Any]]


async def one() -> int:
    return 1


async def same(x: int) -> int:
    return x


async def plus(x: int) -> dict[str, int]:
    return {"x": x + 1}


async def nap() -> None:
    await asyncio.sleep(0.05)


class Idle(dspy.Module):
    """The smallest module."""

    async def aforward(self) -> int:
        return 1


def fan(n: int, node: Any = one, **more: Any) -> FanOut:
    return FanOut({f"b{i}": node for i in range(n)}, **more)


def gathered(n: int, node: Callable[[], Awaitable[Any]] = one) -> Work:
    async def base() -> list[Any]:
        return await asyncio.gather(*[node() for _ in range(n)])

    return base


def task_per_step(n: int) -> Work:
    async def base() -> int:
        x = 0
        for _ in range(n):
            x = (await asyncio.create_task(plus(x)))["x"]
        return x

    return base


def small(n: int) -> tuple[Work, Work]:
    """N runs at once of three branches and a join."""

    async def base_run() -> int:
        return sum(await asyncio.gather(same(1), same(2), same(3)))

    async def total(a: int, b: int, c: int) -> int:
        return a + b + c

    graph = FanOut(a=same, b=same, c=same, join=total)

    async def base() -> None:
        await asyncio.gather(*[base_run() for _ in range(n)])

    async def ours() -> None:
        await asyncio.gather(*[graph.acall(x=1) for _ in range(n)])

    return base, ours


def cases() -> list[tuple[str, Work, Work, int, float | None, str]]:
    """Name, base, ours, nodes, limit of the ratio, note."""
    fans = {n: fan(n) for n in (10, 100, 1000, 3000)}
    timed, modules = fan(1000, timeout=30.0), fan(1000, Idle())
    bounded, mapped, chained = fan(1000, concurrency=50), Map(same, over="xs"), Chain(*[plus] * 100)
    sleepers = fan(1000, nap)
    base_small, ours_small = small(1000)
    return [
        ("fan-out 10, per node", gathered(10), fans[10].acall, 10, 3.5, ""),
        ("fan-out 100, per node", gathered(100), fans[100].acall, 100, 4.0, ""),
        ("fan-out 1,000, per node", gathered(1000), fans[1000].acall, 1000, 4.0, "with a scope and a deadline"),
        ("fan-out 3,000, per node", gathered(3000), fans[3000].acall, 3000, 4.0, ""),
        ("fan-out 1,000, a timeout each", gathered(1000), timed.acall, 1000, None, "asyncio.timeout per node"),
        ("fan-out 1,000, 50 at once", gathered(1000), bounded.acall, 1000, None, ""),
        ("fan-out 1,000 dspy.Modules", gathered(1000), modules.acall, 1000, None, "Module.acall itself: 5 us"),
        ("map 1,000, per item", gathered(1000), lambda: mapped.acall(xs=range(1000)), 1000, 4.0, ""),
        ("chain of 100, per step", task_per_step(100), lambda: chained.acall(x=0), 100, 2.0, "against a task per step"),
        ("3 branches and a join, 1,000 at once", base_small, ours_small, 1000, 3.5, "per run"),
        ("1,000 nodes of 50 ms, wall", gathered(1000, nap), sleepers.acall, 1, 1.15, ""),
    ]


async def seconds(work: Work, calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        await work()
    return (time.perf_counter() - started) / calls


async def measure(repeats: int) -> list[dict[str, Any]]:
    results = []
    for name, base, ours, nodes, limit, note in cases():
        calls = 1 if nodes in {1, 1000, 3000} else 2000 // nodes
        ratios, times = [], []
        await base()
        for _ in range(repeats):
            bare = await seconds(base, calls)
            with scope(budget="1.00", deadline=600) if "scope" in note else nullcontext():
                took = await seconds(ours, calls)
            ratios.append(took / bare)
            times.append(took / nodes)
        ratio, value = statistics.median(ratios), statistics.median(times)
        value, unit = (value * 1e3, "ms") if nodes == 1 else (value * 1e6, "us")
        bound = "" if limit is None else f"<= {limit:g}x"
        ok = limit is None or ratio <= limit
        results.append(
            {
                "name": name,
                "value": value,
                "unit": unit,
                "limit": bound,
                "ok": ok,
                "ratio": ratio,
                "note": note or "over bare asyncio",
            }
        )
    return results


async def events_price(repeats: int) -> dict[str, Any]:
    """A node with a listener against one without."""
    pipeline, ratios, times = fan(1000), [], []
    for _ in range(repeats):
        with scope(budget="1.00"):
            silent = await seconds(pipeline.acall, 1)
        with scope(budget="1.00", listen=[].append):
            heard = await seconds(pipeline.acall, 1)
        ratios.append(heard / silent)
        times.append((heard - silent) / 1000)
    return {
        "name": "events, per node", "value": statistics.median(times) * 1e6, "unit": "us", "limit": "", "ok": True,
        "ratio": statistics.median(ratios), "note": "two events and a cost of its own, only while somebody listens",
    }  # fmt: skip


async def watching_price(repeats: int) -> list[dict[str, Any]]:
    """What a node costs more that a tree, a profile or a file of events is made of: its own two events included."""
    pipeline, results = fan(1000), []
    with tempfile.TemporaryDirectory() as folder:
        log = JsonlEvents(f"{folder}/events.jsonl")
        watching = {
            "a live tree": Live(console=Console(file=io.StringIO(), force_terminal=True)),
            "a profile": Profile(),
            "lines of JSON": log,
        }
        for name, listener in watching.items():
            times = []
            for _ in range(repeats):
                with scope(budget="1.00"):
                    silent = await seconds(pipeline.acall, 1)
                with scope(budget="1.00", listen=listener):
                    heard = await seconds(pipeline.acall, 1)
                times.append((heard - silent) / 1000 * 1e6)
            results.append({
                "name": f"{name}, per node", "value": statistics.median(times), "unit": "us", "limit": "", "ok": True,
                "ratio": None, "note": "only while somebody watches; see events",
            })  # fmt: skip
        log.close()
    return results


async def starvation(repeats: int) -> dict[str, Any]:
    """How late a hop through asyncio's own executor is while 12 blocking nodes run: DSPy makes two per acall."""
    late = []
    for _ in range(repeats):
        blocked = asyncio.create_task(fan(12, lambda: time.sleep(0.2)).acall())
        await asyncio.sleep(0.02)
        late.append(await seconds(lambda: asyncio.to_thread(int), 1))
        await blocked
    value = statistics.median(late) * 1e3
    note = "while 12 nodes block; in the executor of asyncio it would wait for them"
    return {
        "name": "a thread hop of DSPy's", "value": value, "unit": "ms", "limit": "<= 5 ms", "ok": value <= 5,
        "ratio": None, "note": note,
    }  # fmt: skip


IMPORT = """
import time, dspy
started = time.perf_counter()
import escalade.pipelines.chain, escalade.pipelines.fan_out, escalade.pipelines.map
print((time.perf_counter() - started) * 1e3)
"""


def import_price(repeats: int) -> dict[str, Any]:
    """What the import of the pipelines adds to that of DSPy."""
    runs = [
        subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
        for _ in range(repeats)
    ]
    value = statistics.median(float(run.stdout) for run in runs)
    return {
        "name": "import escalade.pipelines", "value": value, "unit": "ms", "limit": "<= 50 ms", "ok": value <= 50,
        "ratio": None, "note": "on top of import dspy",
    }  # fmt: skip


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """All figures of the pipelines."""
    gc.collect()
    gc.freeze()
    try:
        results = asyncio.run(measure(repeats))
        results += [asyncio.run(events_price(repeats)), *asyncio.run(watching_price(repeats))]
        results += [asyncio.run(starvation(repeats))]
    finally:
        gc.unfreeze()
    return [*results, import_price(repeats)]


def main() -> int:
    """`python -m benchmarks.pipelines`: our row beside those of other frameworks."""
    from benchmarks.__main__ import show as show_figures
    from benchmarks.peers import table
    from benchmarks.peers.worker import PEERS

    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipelines", description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which the medians are shown")
    parser.add_argument("--behave", action="store_true", help="what becomes of the siblings of a node that fails")
    parser.add_argument("--peers", help="which, separated by commas; all that are installed by default")
    given = parser.parse_args()
    absent = table.missing()
    wanted = list(PEERS) if given.peers is None else [*table.BARE, table.OURS, *given.peers.split(",")]
    names = [name for name in dict.fromkeys(wanted) if name not in absent]
    unknown = sorted(set(names) - set(PEERS))
    if unknown:
        parser.error(f"no framework is called {unknown[0]!r}; known: {', '.join(PEERS)}")
    if given.behave:
        rows, good = table.behaviour(names)
        table.show_behaviour(rows, absent)
        return 0 if good else 1
    measured = table.measured(names, given.repeats)
    table.show(measured, absent)
    if "error" in measured[table.OURS]:
        return 1
    results = table.figures(measured)
    show_figures(results)
    return 0 if all(one["ok"] for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
