"""One framework in a process of its own: `python -m benchmarks.peers.worker NAME MODE`, one line of JSON.

Every sample of the framework stands between two of bare asyncio in the same process, and its ratio is to their mean, so
that a machine that slows down meanwhile slows both. What the imports left on the heap is frozen, for every framework:
else the garbage collector would charge each run, and bare asyncio's, for the size of what happens to be imported.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.graphs import Bare, Peer, sleep

PEERS = {
    "asyncio": ("benchmarks.peers.graphs", "Bare"),
    "asyncio.TaskGroup": ("benchmarks.peers.graphs", "TaskGroup"),
    "escalade": ("benchmarks.peers.ours", "Escalade"),
    "Agno": ("benchmarks.peers.on_agno", "Agno"),
    "Haystack": ("benchmarks.peers.on_haystack", "Haystack"),
    "Burr": ("benchmarks.peers.on_burr", "Burr"),
    "Agent Framework": ("benchmarks.peers.on_agent_framework", "AgentFramework"),
    "pydantic-graph": ("benchmarks.peers.on_pydantic_graph", "PydanticGraph"),
    "LangGraph": ("benchmarks.peers.on_langgraph", "LangGraph"),
}
"""Name -> module and class."""

MOST_SECONDS = 6.0
"""Of sampling one graph: whoever takes long is measured less often."""

Run = Callable[[], Awaitable[int]]


def graphs(peer: Peer) -> dict[str, tuple[Run, int, int, int]]:
    """Name -> (run, what it must return, nodes or runs that the time is divided by, samples)."""

    async def thousand() -> int:
        return sum(await asyncio.gather(*[peer.small(i) for i in range(1000)]))

    return {
        "fan-out 10": (lambda: peer.fan_out(10), 10, 10, 30),
        "fan-out 100": (lambda: peer.fan_out(100), 100, 100, 12),
        "fan-out 1,000": (lambda: peer.fan_out(1000), 1000, 1000, 5),
        "chain of 100": (lambda: peer.chain(100), 100, 100, 10),
        "1,000 x 50 ms": (lambda: peer.sleepers(1000, 0.05), 1000, 0, 3),
        "3 -> join, 1,000 at once": (thousand, sum(3 * i + 3 for i in range(1000)), 1000, 3),
        "unbalanced": (peer.unbalanced, 4, 0, 2),
    }


async def seconds(run: Run, expected: int, peer: Peer) -> float:
    gc.collect()
    started = time.perf_counter()
    with peer.around():
        made = await run()
    took = time.perf_counter() - started
    if made != expected:
        raise AssertionError(f"expected {expected}, got {made}")
    return took


async def timed(peer: Peer) -> dict[str, Any]:
    """Seconds (per node, step or run where there are many) and the ratio to bare asyncio, for each graph."""
    bare = Bare()
    bases, found = graphs(bare), {}
    gc.collect()
    gc.freeze()
    for name, (run, expected, share, samples) in graphs(peer).items():
        base = bases[name][0]
        await seconds(run, expected, peer)  # builds the graph
        before, until = await seconds(base, expected, bare), time.perf_counter() + MOST_SECONDS
        took, ratios = [], []
        for _ in range(samples):
            one = await seconds(run, expected, peer)
            after = await seconds(base, expected, bare)
            took.append(one)
            ratios.append(one / ((before + after) / 2))
            before = after
            if time.perf_counter() > until:
                break
        found[name] = {"seconds": statistics.median(took) / (share or 1), "ratio": statistics.median(ratios)}
    return found


def resident(key: str) -> float:
    """Megabytes, by the kernel's count; 0 where it has none."""
    try:
        with Path("/proc/self/status").open(encoding="ascii") as lines:
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))
    except OSError:
        return 0.0


async def grown(peer: Peer) -> dict[str, Any]:
    """Megabytes that 1,000 sleeping nodes add."""
    await peer.sleepers(10, 0.01)
    gc.collect()
    before = resident("VmRSS")
    await peer.sleepers(1000, 0.05)
    return {"megabytes": resident("VmHWM") - before}


async def probe(peer: Peer, *, fails: bool, limit: float) -> dict[str, Any]:
    """Ten nodes of which the first fails after 50 ms, or a timeout from outside: when it is told, and who lives on."""
    count = {"begun": 0, "cancelled": 0, "finished": 0}

    async def watched(_: float) -> None:
        count["begun"] += 1
        if fails and count["begun"] == 1:
            await asyncio.sleep(0.05)
            raise ValueError("boom")
        try:
            await asyncio.sleep(0.8)
        except asyncio.CancelledError:
            count["cancelled"] += 1
            raise
        count["finished"] += 1

    sleep[0], started = watched, time.perf_counter()
    try:
        said = f"returned {await asyncio.wait_for(peer.sleepers(10, 0.05), limit)}"
    except BaseException as error:
        said = type(error).__name__
    after = time.perf_counter() - started
    alive = count["begun"] - fails - count["cancelled"] - count["finished"]
    tasks = len(asyncio.all_tasks()) - 1
    await asyncio.sleep(1.2)
    sleep[0] = asyncio.sleep
    return {"said": said, "after": after, "leaked": max(alive, 0), "tasks": tasks, "ran on": count["finished"]}


async def behaved(peer: Peer) -> dict[str, Any]:
    await peer.sleepers(10, 0.01)
    return {
        "a node fails": await probe(peer, fails=True, limit=10),
        "a timeout from outside": await probe(peer, fails=False, limit=0.2),
    }


MODES = {"time": timed, "memory": grown, "behave": behaved}


def main() -> None:
    """The command."""
    name, mode = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    module, kind = PEERS[name]
    before = time.perf_counter()
    peer: Peer = getattr(importlib.import_module(module), kind)()
    took = time.perf_counter() - before
    found = asyncio.run(MODES[mode](peer))
    print("\n" + json.dumps({"import": took, **found}))


if __name__ == "__main__":
    main()
