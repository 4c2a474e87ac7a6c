"""Joins and cancellation: no barrier, how soon a failure and a deadline are told, and what is left of cancelled runs.

What must be so whatever the machine does (no task left, no money held) has no tolerance; times are medians of the
repeats, but of the deadline's, whose worst counts.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from contextlib import nullcontext
from typing import Any

from benchmarks._storm import storm
from escalade.errors import JoinFailed
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.registry.opening import scope

DEADLINE = 0.25
CANCELLED, WIDTH = 200, 50
"""Runs that are cancelled per repeat, and branches of each."""


def nap(seconds: float) -> Any:
    async def step() -> None:
        await asyncio.sleep(seconds)

    return step


async def one() -> int:
    return 1


def _row(name: str, value: float, unit: str, limit: str, *, ok: bool, note: str, ratio: float | None = None) -> Any:
    return {"name": name, "value": value, "unit": unit, "limit": limit, "ok": ok, "ratio": ratio, "note": note}


async def unbalanced(repeats: int) -> Any:
    """Two branches of two steps, the slow one first and last: with a barrier between the steps it would take 500 ms."""
    fan = FanOut(a=Chain(x=nap(0.25), y=nap(0.05)), b=Chain(x=nap(0.05), y=nap(0.25)))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        await fan.acall()
        times.append((time.perf_counter() - began) * 1e3)
    value = statistics.median(times)
    return _row("unbalanced branches", value, "ms", "<= 304 ms", ok=value <= 304, note="ideal 300, a barrier 500")


async def failure(repeats: int) -> list[Any]:
    """Ten branches, one raises after 50 ms, nine would sleep for 10 s."""
    raised = 0.0

    async def fails() -> None:
        nonlocal raised
        await asyncio.sleep(0.05)
        raised = time.perf_counter()
        raise ValueError("boom")

    rows = []
    for name, rule in {"all": {}, "a quorum of all": {"quorum": 10}}.items():
        fan, times, left = FanOut({**{f"b{i}": nap(10) for i in range(9)}, "bad": fails}, **rule), [], 0
        for _ in range(repeats):
            before = asyncio.all_tasks()
            try:
                await fan.acall()
            except (ValueError, JoinFailed):
                times.append((time.perf_counter() - raised) * 1e3)
            left += len(asyncio.all_tasks() - before)
        value = statistics.median(times)
        note = f"{left} tasks left; 9 siblings cancelled and awaited"
        rows.append(_row(f"a failure is out, {name}", value, "ms", "<= 10 ms", ok=value <= 10 and not left, note=note))
    return rows


async def swallows() -> None:
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        await asyncio.sleep(10)


async def deadline(repeats: int) -> list[Any]:
    """A partial result of a scope of 250 ms: how long after the deadline it is there."""
    rows = []
    slow = {"that wait": nap(10), "that block threads": lambda: time.sleep(0.6), "that swallow one": swallows}
    for name, branch in slow.items():
        fan, late, missing = FanOut({"good": one, **{f"b{i}": branch for i in range(20)}}, partial=True), [], set()
        for _ in range(repeats):
            async with scope(budget="1.00", deadline=DEADLINE) as here:
                result = await fan.acall()
                late.append(-here.time_left() * 1e3)
            missing |= {status.state for status in result.missing.values()}
        value = max(late)
        ok = value <= 50 and missing == {"timeout"} and result.good == 1
        note = f"20 branches {name}; named as missing: {', '.join(sorted(missing))}; worst of {repeats}"
        rows.append(_row("partial result, after the deadline", value, "ms", "<= 50 ms", ok=ok, note=note))
    return rows


async def overhead(repeats: int) -> list[Any]:
    """What a rule costs per node, against bare asyncio."""
    rows = []
    fan = FanOut({f"b{i}": one for i in range(1000)}, quorum=1000)
    for scoped, note in ((False, "status and time of each"), (True, "the same, and a scope of its own with its cost")):
        ratios, times = [], []
        for _ in range(repeats):
            began = time.perf_counter()
            await asyncio.gather(*[one() for _ in range(1000)])
            bare = time.perf_counter() - began
            async with scope(budget="1.00") if scoped else nullcontext():
                began = time.perf_counter()
                await fan.acall()
                took = time.perf_counter() - began
            ratios.append(took / bare)
            times.append(took / 1000 * 1e6)
        ratio, value = statistics.median(ratios), statistics.median(times)
        name = f"a quorum over 1,000{' in a scope' if scoped else ''}, per node"
        rows.append(_row(name, value, "us", "", ok=True, ratio=ratio, note=note))
    return rows


def cancelled(repeats: int) -> Any:
    """Pipelines of depth 4 with all kinds of joins, cancelled at random times: see `_storm.py`."""
    report = asyncio.run(storm(CANCELLED * repeats, WIDTH))
    ends = ", ".join(f"{count:,} {end}" for end, count in report.outcomes.most_common())
    found = f"; {report.left[0]}" if report.left else ""
    note = f"depth 4, width {WIDTH}: {ends}; {report.seconds:.0f} s{found}"
    name = f"wrong in {CANCELLED * repeats:,} cancelled runs"
    return _row(name, len(report.left), "", "0", ok=not report.left, note=note)


async def _timed(repeats: int) -> list[Any]:
    return [await unbalanced(repeats), *await failure(repeats), *await deadline(repeats), *await overhead(repeats)]


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """All figures."""
    gc.collect()
    gc.freeze()
    try:
        return [*asyncio.run(_timed(repeats)), cancelled(repeats)]
    finally:
        gc.unfreeze()
