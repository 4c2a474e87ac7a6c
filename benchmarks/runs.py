"""What it costs that a run is durable: per node, and per call of a tool, beside a step of DBOS that does nothing."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import escalade
from escalade import Chain, Runs

NODES, NODE_US, CALL_US = 200, 400.0, 3_000.0

DBOS_STEP = """
import asyncio, logging, sys, time
from dbos import DBOS
from sqlalchemy import create_engine, event
engine = create_engine(f"sqlite:///{sys.argv[1]}/dbos.sqlite", connect_args={"timeout": 30})
@event.listens_for(engine, "connect")
def _(connection, record):
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
DBOS(config={"name": "bench", "system_database_url": str(engine.url), "system_database_engine": engine})
@DBOS.step()
async def step(x):
    return x + 1
@DBOS.workflow()
async def flow(n):
    x = 0
    for _ in range(n):
        x = await step(x)
    return x
DBOS.launch()
async def main():
    await flow(20)
    began = time.perf_counter()
    await flow(int(sys.argv[2]))
    print("us", (time.perf_counter() - began) / int(sys.argv[2]) * 1e6)
asyncio.run(main())
"""


async def add(x: int) -> int:
    return x + 1


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Medians of the repeats, which take turns."""
    chain = Chain(**{f"n{number}": add for number in range(NODES)})
    times: dict[str, list[float]] = {"plain": [], "memory": [], "file": [], "dbos": []}
    with tempfile.TemporaryDirectory() as folder, Runs(pipelines={"p": chain}) as memory:
        with Runs(f"{folder}/r.sqlite", pipelines={"p": chain}) as file:
            for warm in (memory, file):
                warm.start("p", x=0).result()
            for _ in range(repeats):
                times["plain"].append(_per_node(lambda: chain(x=0)))
                times["memory"].append(_per_node(lambda: memory.start("p", x=0).result()))
                times["file"].append(_per_node(lambda: file.start("p", x=0).result()))
        if importlib.util.find_spec("dbos") is not None:
            for number in range(max(1, repeats // 2)):
                times["dbos"].append(_dbos(folder, number))
        call, bare = _calls(folder, repeats)
    middle = {name: statistics.median(found) for name, found in times.items() if found}
    node = middle["file"]
    dbos = middle.get("dbos")
    told = "dbos isn't installed" if dbos is None else f"a step of DBOS that does nothing takes {dbos:,.0f} us"
    note = f"{middle['plain']:.0f} us without a run, {middle['memory']:.0f} us in memory; {told}"
    return [
        _row("a node of a durable run, in a file", node, NODE_US, note, None if dbos is None else node / dbos),
        _row("a tool's call that is kept, in a file", call, CALL_US, f"{bare:.0f} us when it is not kept", call / bare),
    ]


def _per_node(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return (time.perf_counter() - began) / NODES * 1e6


def _calls(folder: str, repeats: int) -> tuple[float, float]:
    """Microseconds of a call that waits until it is in the file, and of one that is not kept."""
    registry = escalade.Registry()
    registry.register(escalade.tool(side_effects="read")(look))
    tool = registry.resolve("look")

    async def many(n: int) -> float:
        began = time.perf_counter()
        for number in range(n):
            await tool.acall(x=number)
        return (time.perf_counter() - began) / n * 1e6

    kept, bare = [], []
    with Runs(f"{folder}/calls.sqlite", pipelines={"p": Chain(many=many)}) as runs:
        for _ in range(repeats):
            kept.append(runs.start("p", n=NODES).result().many)
            with escalade.scope():
                bare.append(Chain(many=many)(n=NODES).many)
    return statistics.median(kept), statistics.median(bare)


async def look(x: int) -> int:
    """Look."""
    return x


def _dbos(folder: str, number: int) -> float:
    """In a process of its own: it is one per process."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"dbos{number}") as place:
        command = [sys.executable, "-c", DBOS_STEP, place, str(NODES)]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return float(found.stdout.rpartition("us ")[2])


def _row(name: str, value: float, limit: float, note: str, ratio: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "unit": "us",
        "limit": f"<= {limit:g}",
        "ok": value <= limit,
        "ratio": ratio,
        "note": note,
    }
