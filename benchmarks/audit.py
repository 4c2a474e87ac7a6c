"""The audit: rows per second that are on the disk when their caller goes on, and rows per second that are verified."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from escalade.registry.audit import AuditLog
from escalade.registry.audit.verify import verify
from escalade.scopes import Entry, Principal
from tests.servers.postgres_server import PostgresServer, postgres_binaries

CALLERS, EACH, VERIFIED, READS = 64, 60, 50_000, 5_000
ROWS, SERVED, ACK_MS, CHECKED, HELD_US = 10_000, 2_000, 25.0, 200_000, 100.0
ANA = Principal("ana", "acme", frozenset({"analyst"}))


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Medians of the repeats, interleaved, on the disk that temporary files are on."""
    figures: dict[str, list[tuple[float, float]]] = {"threads": [], "tasks": [], "bare": [], "read": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with AuditLog(path / "audit.sqlite", anchors=[path / "anchor"]) as log:
            _threads(log, 10)  # the write-ahead log has its size, the threads' stacks are there
            for _ in range(repeats):
                figures["threads"].append(_threads(log, EACH))
                figures["tasks"].append(asyncio.run(_tasks(log, EACH)))
                figures["bare"].append(_bare(path / "bare.sqlite"))
                figures["read"].append(_reads(log))
        wall, cpu = _verified(path / "long.sqlite", repeats)
    medians = {name: tuple(map(statistics.median, zip(*runs, strict=True))) for name, runs in figures.items()}
    served = [_served(repeats, medians["threads"][0])] if postgres_binaries() is not None else []
    bare = medians["bare"][0]
    return [
        *_pair("threads", medians["threads"], bare),
        *_pair("tasks of one event loop", medians["tasks"], bare),
        *served,
        _figure("intent and outcome of a read, p50", medians["read"][0], "us", HELD_US, note="nobody waits"),
        _figure("verify, with an anchor", wall, "rows/s", CHECKED, least=True, note=f"{cpu:,.0f} per second of CPU"),
    ]


def _entry(number: object, side_effects: str) -> Entry:
    return Entry(
        f"bench-{number}",
        "run",
        ANA,
        "crm.search",
        "1.2.0",
        "tool",
        rule="analyst: crm.*:call",
        held=2_000_000,
        started=time.time(),
        side_effects=side_effects,
        permission="crm.search:call",
        schema_digest="sha256:" + "a" * 64,
        args_digest="sha256:" + "b" * 64,
    )


def _summary(waits: list[float], took: float) -> tuple[float, float]:
    """Rows per second, and the time in ms within which 99 % were acknowledged."""
    return len(waits) / took, statistics.quantiles(waits, n=100)[98] * 1e3


def _threads(log: AuditLog, each: int) -> tuple[float, float]:
    """Each thread records intents and outcomes of writes, and waits for each row."""

    def work(thread: int) -> list[float]:
        waits = []
        for number in range(each):
            used = _entry(f"{thread}-{number}", "write")
            for record in (log.intent, log.outcome):
                began = time.perf_counter()
                record(used)
                waits.append(time.perf_counter() - began)
                used.outcome = "ok"
        return waits

    began = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as pool:
        waits = [wait for mine in pool.map(work, range(CALLERS)) for wait in mine]
    return _summary(waits, time.perf_counter() - began)


async def _tasks(log: AuditLog, each: int) -> tuple[float, float]:
    """Each task waits for its intents."""
    waits: list[float] = []

    async def work(task: int) -> None:
        for number in range(2 * each):
            began = time.perf_counter()
            await log.aintent(_entry(f"{task}-{number}", "write"))
            waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(work(task) for task in range(CALLERS)))
    return _summary(waits, time.perf_counter() - began)


def _reads(log: AuditLog) -> tuple[float, float]:
    """Microseconds that a use which waits for nothing is held up, paced, so that the queue stays short."""
    waits = []
    for number in range(READS // 10):
        used = _entry(number, "read")
        began = time.perf_counter()
        log.intent(used)
        log.outcome(used)
        waits.append((time.perf_counter() - began) * 1e6)
        time.sleep(0.0005)
    return statistics.median(waits), statistics.quantiles(waits, n=100)[98]


def _served(repeats: int, in_file: float) -> dict[str, Any]:
    """The same threads, with the log in a server beside."""
    with PostgresServer(fsync="on", full_page_writes="on") as server, AuditLog(server.url) as log:
        _threads(log, 10)
        rate = statistics.median(_threads(log, EACH)[0] for _ in range(repeats))
    name, note = f"durable rows, {CALLERS} threads, in PostgreSQL", "ratio to those in a file"
    return _figure(name, rate, "rows/s", SERVED, least=True, ratio=rate / in_file, note=note)


def _bare(path: Path) -> tuple[float, float]:
    """The least that it could be: rows of the same size, 64 per commit to the disk, one thread, no chain."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS rows (seq INTEGER PRIMARY KEY, body BLOB)")
    rows, began = [(bytes(650),)] * CALLERS, time.perf_counter()
    for _ in range(EACH):
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO rows (body) VALUES (?)", rows)
        database.execute("COMMIT")
    took = time.perf_counter() - began
    database.close()
    return CALLERS * EACH / took, took / EACH * 1e3


def _verified(path: Path, repeats: int) -> tuple[float, float]:
    """Rows per second of verifying a log of 50,000 rows against its anchor, and rows per second of CPU time."""
    anchor = path.with_name("long.anchor")
    with AuditLog(path, anchors=[anchor]) as log:
        for number in range(VERIFIED // 2):
            used = _entry(number, "read")
            log.intent(used)
            log.outcome(used)
    rates = []
    for _ in range(repeats):
        began = time.process_time()
        found = verify(path, [anchor])
        rates.append((found.rows / found.seconds, found.rows / (time.process_time() - began)))
        assert found.ok
        assert found.unanchored == 0
        assert found.rows >= VERIFIED
    return statistics.median(wall for wall, _ in rates), statistics.median(cpu for _, cpu in rates)


def _pair(who: str, measured: tuple[float, ...], bare: float) -> list[dict[str, Any]]:
    note = f"ratio to bare commits of {CALLERS} rows ({bare:,.0f} rows/s)"
    return [
        _figure(f"durable rows, {CALLERS} {who}", measured[0], "rows/s", ROWS, least=True, ratio=measured[0] / bare)
        | {"note": note},
        _figure(f"acknowledged within (p99), {CALLERS} {who}", measured[1], "ms", ACK_MS),
    ]


def _figure(
    name: str, value: float, unit: str, limit: float, *, least: bool = False, ratio: float | None = None, note: str = ""
) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "limit": f"{'>=' if least else '<='} {limit:,.0f} {unit}",
        "ok": value >= limit if least else value <= limit,
        "ratio": ratio,
        "note": note,
    }
