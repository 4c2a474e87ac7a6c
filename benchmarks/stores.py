"""Stores that processes share: what a reservation, its settlement and a rate limit take, and who waits how long."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import escalade
from escalade.registry.cache import Cache, MemoryCache
from escalade.registry.ledger import Budget, Ledger
from escalade.registry.limits import Limiter, parse_limits
from escalade.registry.stores.disk_cache import DiskCache
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from escalade.registry.stores.sqlite_limits import SqliteLimiter
from escalade.scopes import Principal
from tests.registry.stores.crowd import open_ledger
from tests.registry.stores.limited import open_limiter
from tests.servers.postgres_server import PostgresServer, postgres_binaries

PAIR_US, CROWD_US, TAKE_US, SET_US, GET_US = 400.0, 2_000.0, 600.0, 1_000.0, 100.0
SERVER_PAIR_US, SERVER_CROWD_US, SERVER_TAKE_US = 20_000.0, 80_000.0, 20_000.0
"""Two commits of PostgreSQL wait for the disk, milliseconds each: this is to catch what is out of all proportion."""

CALLS, SERVER_CALLS, PROCESSES, LINE = 1_000, 200, 4, 16
ANA, BUDGET = Principal("ana", "acme"), Budget("tenant:acme", "1000000", "day")

NOT_SYNCHRONOUS = "options=-c%20synchronous_commit%3Doff"

WORKER = """
import sys, time
from escalade.scopes import Principal
from tests.registry.stores.crowd import open_ledger
purse = open_ledger(sys.argv[1], sys.argv[2]).purse(Principal("ana", "acme"))
print("ready", flush=True)
sys.stdin.readline()
began, worst = time.perf_counter(), 0.0
for _ in range(int(sys.argv[3])):
    start = time.perf_counter()
    purse.reserve(10).settle(7)
    worst = max(worst, time.perf_counter() - start)
print((time.perf_counter() - began) / int(sys.argv[3]) * 1e6, worst * 1e3)
"""


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Medians of the repeats; of servers only those that can be started."""
    with tempfile.TemporaryDirectory() as folder:
        alone, crowd = _ledgers(Path(folder), repeats)
        with _servers(Path(folder)) as servers:
            shared = [figure for name in servers for figure in _ledger_at(name, *servers[name], repeats)]
            figures = [alone, crowd, *shared, *_limiters(Path(folder), servers, repeats)]
        figures += _caches(Path(folder), repeats)
    return [*figures, asyncio.run(_line(repeats))]


def _ledgers(folder: Path, repeats: int) -> tuple[dict[str, Any], dict[str, Any]]:
    shared = SqliteLedger(folder / "budgets.db", [BUDGET])
    purses = {"sqlite": shared.purse(ANA), "memory": Ledger([BUDGET]).purse(ANA)}
    times: dict[str, list[float]] = {"sqlite": [], "memory": []}
    for _ in range(repeats):
        for name, purse in purses.items():
            times[name].append(_per_call(lambda purse=purse: purse.reserve(10).settle(7)))
    crowds = [_crowd("sqlite", str(folder / "budgets.db"), CALLS) for _ in range(max(1, repeats // 2))]
    account = shared.account("tenant:acme")
    assert account is not None
    assert account.held == 0
    assert account.settled == 7 * (CALLS * repeats + CALLS * PROCESSES * len(crowds))
    alone, together = statistics.median(times["sqlite"]), statistics.median(each for each, _ in crowds)
    ratio = alone / statistics.median(times["memory"])
    worst = max(worst for _, worst in crowds)
    return (
        _figure("SQLite: reserve + settle", alone, PAIR_US, ratio, "ratio to memory; blocks its thread for so long"),
        _figure(
            f"SQLite: reserve + settle, {PROCESSES} processes at once", together, CROWD_US, together / alone,
            f"ratio to one process; all sums exact; the longest {worst:.0f} ms",
        ),
    )  # fmt: skip


def _ledger_at(name: str, kind: str, url: str, repeats: int) -> list[dict[str, Any]]:
    """The same with budgets in a server, on this host."""
    ledger = open_ledger(kind, url, budgets=[BUDGET])
    before, purse = ledger.account("tenant:acme").settled, ledger.purse(ANA)
    alone = statistics.median(_per_call(lambda: purse.reserve(10).settle(7), SERVER_CALLS) for _ in range(repeats))
    crowds = [_crowd(kind, url, SERVER_CALLS) for _ in range(max(1, repeats // 2))]
    together, worst = statistics.median(each for each, _ in crowds), max(worst for _, worst in crowds)
    account = ledger.account("tenant:acme")
    assert (account.held, account.settled - before) == (0, 7 * SERVER_CALLS * (repeats + PROCESSES * len(crowds)))
    ledger.close()
    pairs = f"{1e6 / alone:,.0f} pairs a second"
    return [
        _figure(f"{name}: reserve + settle", alone, SERVER_PAIR_US, 1.0, pairs),
        _figure(
            f"{name}: reserve + settle, {PROCESSES} processes at once", together, SERVER_CROWD_US, together / alone,
            f"ratio to one process; {PROCESSES * 1e6 / together:,.0f} pairs a second; the longest {worst:.0f} ms",
        ),
    ]  # fmt: skip


def _crowd(kind: str, where: str, calls: int) -> tuple[float, float]:
    """Microseconds of a pair in each of the processes, and the longest, in milliseconds."""
    command = [sys.executable, "-c", WORKER, kind, where, str(calls)]
    pipe = subprocess.PIPE
    crowd = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(PROCESSES)]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].split() for process in crowd]
    return statistics.mean(float(each) for each, _ in said), max(float(worst) for _, worst in said)


def _limiters(folder: Path, servers: dict[str, tuple[str, str]], repeats: int) -> list[dict[str, Any]]:
    limits = parse_limits("100/s, 1000/min, 10000/h")
    keys = [tuple((f"user {n}", limit) for limit in limits) for n in range(100)]  # none of them fills up
    turns = {name: itertools.cycle(keys) for name in ("memory", "SQLite", *servers)}
    limiters: dict[str, Any] = {"memory": Limiter(), "SQLite": SqliteLimiter(folder / "limits.db")}
    limiters |= {name: open_limiter(*server) for name, server in servers.items()}
    times: dict[str, list[float]] = {name: [] for name in limiters}
    for _ in range(repeats):
        for name, limiter in limiters.items():
            calls = SERVER_CALLS if name in servers else CALLS
            take = lambda limiter=limiter, turn=turns[name]: limiter.take_all(next(turn))  # noqa: E731
            times[name].append(_per_call(take, calls))
    base = statistics.median(times.pop("memory"))
    return [
        _figure(
            f"{name}: one use in three windows", statistics.median(took),
            SERVER_TAKE_US if name in servers else TAKE_US, statistics.median(took) / base,
            f"ratio to memory; {1e6 / statistics.median(took):,.0f} a second",
        )
        for name, took in times.items()
    ]  # fmt: skip


def _caches(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """A result of 2 kB, written and read."""
    value, number = b'"' + b"x" * 1_998 + b'"', itertools.count()
    memory, disk = MemoryCache(), DiskCache(folder / "cache")
    caches: tuple[tuple[str, Cache], ...] = (("memory", memory), ("disk", disk))
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(repeats):
        for name, cache in caches:
            begin = next(number) * CALLS
            keys = {word: iter([f"{begin + n:032x}" for n in range(CALLS)]) for word in ("write", "read")}
            wrote = _per_call(lambda cache=cache, keys=keys: cache.set(next(keys["write"]), value, 60.0, "t"))
            read = _per_call(lambda cache=cache, keys=keys: cache.get(next(keys["read"])))
            times.setdefault((name, "write"), []).append(wrote)
            times.setdefault((name, "read"), []).append(read)
    median = {what: statistics.median(took) for what, took in times.items()}
    return [
        _figure(
            f"cache on disk: {word} 2 kB", median["disk", word], limit, median["disk", word] / median["memory", word],
            "ratio to memory; blocks its thread for so long",
        )
        for word, limit in (("write", SET_US), ("read", GET_US))
    ]  # fmt: skip


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[dict[str, tuple[str, str]]]:
    """Their names, with kind and URL of each. PostgreSQL waits for its disk at each commit, as it does by default."""
    with contextlib.ExitStack() as stack:
        found, redis = dict[str, tuple[str, str]](), _redis(folder)
        if redis is not None:
            stack.callback(redis[0].wait)
            stack.callback(redis[0].kill)
            found["Redis"] = "redis", f"redis://127.0.0.1:{redis[1]}/0"
        if postgres_binaries() is not None and importlib.util.find_spec("psycopg") is not None:
            server = stack.enter_context(PostgresServer(fsync="on", full_page_writes="on"))
            found["PostgreSQL"] = "postgres", server.url
            found["PostgreSQL without synchronous_commit"] = "postgres", f"{server.url}?{NOT_SYNCHRONOUS}"
        yield found


def _redis(folder: Path) -> tuple[subprocess.Popen[bytes], int] | None:
    """A server of our own on a free port, None where there is none."""
    import socket

    binary = shutil.which("redis-server")
    if binary is None or importlib.util.find_spec("redis") is None:
        return None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.02)
        else:
            return process, port
    process.kill()
    return None


async def _line(repeats: int) -> dict[str, Any]:
    """How far anybody was served out of turn, among calls that wait for a limit."""
    moved, late = 0, []
    for _ in range(repeats):
        served: list[int] = []

        async def note(number: int, served: list[int] = served) -> None:
            served.append(number)

        async def wait(number: int) -> None:
            await note(number)

        wait.__annotations__ = {"number": int, "return": type(None)}
        tool = escalade.Registry(
            [escalade.tool(name="t", limits="4/0.1s", wait=True)(wait)], name="benchmark-line"
        ).get_tool("t")
        with escalade.scope():
            began = time.perf_counter()
            await asyncio.gather(*(tool.acall(number=number) for number in range(LINE)))
            late.append(time.perf_counter() - began)
        moved = max(moved, *(abs(place - number) for place, number in enumerate(served)))
    ideal = (LINE / 4 - 1) * 0.1
    return {
        "name": f"waiting for a limit of 4/0.1s: places that anybody of {LINE} was out of turn",
        "value": float(moved),
        "unit": "",
        "limit": "<= 0",
        "ok": moved == 0,
        "ratio": statistics.median(late) / ideal,
        "note": "ratio of the time for all to the shortest possible",
    }


def _per_call(do: Any, calls: int = CALLS) -> float:
    """Microseconds of one."""
    began = time.perf_counter()
    for _ in range(calls):
        do()
    return (time.perf_counter() - began) / calls * 1e6


def _figure(name: str, microseconds: float, limit: float, ratio: float, note: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": microseconds,
        "unit": "us",
        "limit": f"<= {limit:,.0f} us",
        "ok": microseconds <= limit,
        "ratio": ratio,
        "note": note,
    }
