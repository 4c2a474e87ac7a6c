"""Durable runs: 50 kills of 200 of them, how soon others take over, and what runs cost over DBOS.

The provider is a server that counts. Each run has six calls of a model, four of them in two branches at once.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from escalade import Chain, DbosEngine, FanOut, Runs
from escalade.pipelines.durable.inline import Inline
from escalade.pipelines.durable.slots import GRACE
from tests.pipelines.durable import app
from tests.pipelines.durable.test_kills import check
from tests.pipelines.durable.workers import WorkerProcess, storm, until
from tests.servers.postgres_server import PostgresServer, postgres_binaries

RUNS, KILLS = 200, 50
MANY, AT_ONCE = 500, 20
FILE_SECONDS, SERVER_SECONDS = 3.0, GRACE + 4.0
"""Within which the runs of a dead process go on in another one, which polls its queue every 0.1 s."""


def run(repeats: int = 1) -> list[dict[str, Any]]:
    """Each repeat has kills at other points; the worst counts."""
    rows = []
    for where, workers in (("file", 1), ("file", 2), ("postgres", 2)):
        if where == "file" or postgres_binaries() is not None:
            rows.append(_killed(where, workers, repeats))
    for where, limit in (("file", FILE_SECONDS), ("postgres", SERVER_SECONDS)):
        if where == "file" or postgres_binaries() is not None:
            rows.append(_taken_over(where, limit))
    return [*rows, *_speed()]


@contextmanager
def _place(where: str) -> Iterator[tuple[str, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        if where == "file":
            yield f"sqlite:///{folder}/runs.sqlite", Path(folder)
            return
        with PostgresServer() as server:
            yield server.database(), Path(folder)


def _killed(where: str, workers: int, repeats: int) -> dict[str, Any]:
    """All that holds of killed workers, see `tests/pipelines/durable/test_kills.py`."""
    ended, told, holds = RUNS, [], True
    for seed in range(repeats):
        with _place(where) as (url, folder):
            found = storm(url, folder, runs=RUNS, kills=KILLS, workers=workers, seed=seed)
        ended = min(ended, found.statuses.get("done", 0))
        bills, reservations = found.booked()
        told.append(
            f"{found.attempts} attempts; {sum(map(len, found.asked.values()))} requests, {bills} booked at their bill "
            f"and {reservations}, cut off, at their reservation; {len(found.repeated)} finished calls repeated; "
            f"{found.seconds:.0f} s"
        )
        try:
            check(found, KILLS, runs=RUNS)
        except AssertionError:
            holds = False
            told.append(f"does not hold: {traceback.format_exc().splitlines()[-2].strip()}")
    name = f"runs that ended, {KILLS} kills of {workers} worker{'s' * (workers > 1)}, {where}"
    return _row(name, ended, "runs", f"= {RUNS}", ok=holds and ended == RUNS, note="; ".join(told))


def _taken_over(where: str, limit: float) -> dict[str, Any]:
    """From the kill of a worker to the next attempt at the last of its runs, by another one; the median of 3."""
    took = []
    for _ in range(3):
        with _place(where) as (url, folder):
            os.environ["ESCALADE_USES"] = f"{folder}/uses.jsonl"
            runs = app.opened(url, workers=0)
            with WorkerProcess(url, folder).ready() as first:
                naps = [runs.start("nap", seconds=60.0) for _ in range(8)]
                until(lambda naps=naps: all(nap.status() == "running" for nap in naps))
                with WorkerProcess(url, folder).ready():
                    first.kill()
                    killed = time.perf_counter()
                    until(lambda naps=naps: all(nap.row().attempts == 2 for nap in naps))
                    took.append(time.perf_counter() - killed)
            runs.close()
    value = statistics.median(took)
    return _row(f"until a dead process's runs go on, {where}", value, "s", f"<= {limit:g}", ok=value <= limit)


def _speed() -> Iterator[dict[str, Any]]:
    """500 runs of three steps of 50 ms at once: over DBOS, over a file alone, and in memory."""
    memory = _finished(lambda _: Runs(engine=Inline(concurrency=AT_ONCE), pipelines=_pipelines()))
    inline = _finished(
        lambda folder: Runs(f"{folder}/runs", engine=Inline(concurrency=AT_ONCE), pipelines=_pipelines())
    )

    def over_dbos(folder: str) -> Runs:
        url = f"sqlite:///{folder}/runs"
        return Runs(url, engine=DbosEngine(url, concurrency=AT_ONCE, poll=0.05), pipelines=_pipelines())

    dbos = _finished(over_dbos)
    note = f"{AT_ONCE} at once, {MANY * 0.05 / AT_ONCE:.2f} s if nothing cost anything"
    yield _row(f"{MANY} runs of 3 x 50 ms in memory", memory, "s", "", ok=True, note=note)
    ratio = inline / memory
    yield _row(f"{MANY} runs of 3 x 50 ms in a file", inline, "s", "<= 1.5x", ok=ratio <= 1.5, ratio=ratio)
    yield _row(f"{MANY} runs of 3 x 50 ms over DBOS", dbos, "s", "", ok=True, ratio=dbos / memory)


def _pipelines() -> dict[str, Any]:
    sides = FanOut(a=app.sleeps, b=app.sleeps, c=app.sleeps)
    return {"three": Chain(sides=sides)}


def _finished(opened: Callable[[str], Runs]) -> float:
    """Seconds from the start of the first run to the end of the last one."""
    took = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            runs = opened(folder)
            runs.start("three", seconds=0.0).result(timeout=60)
            began = time.perf_counter()
            started = [runs.start("three", seconds=0.05) for _ in range(MANY)]
            for one in started:
                one.result(timeout=120)
            took.append(time.perf_counter() - began)
            runs.close()
    return statistics.median(took)


def _row(
    name: str, value: float, unit: str, limit: str, *, ok: bool, ratio: float | None = None, note: str = ""
) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "limit": limit, "ok": ok, "ratio": ratio, "note": note}
