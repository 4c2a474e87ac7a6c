"""A governed call with everything on, against a plain typed `dspy.Tool` around the same function.

Everything: a role of 200 rules, three rate-limit windows, a tree of five budgets, the breaker, the audit on SQLite
(rows of a tool that reads: nobody waits for the disk), tokens for personal data in arguments and results, usage. Ours
still has to be faster: it checks arguments with a validator that was compiled once, where DSPy builds one at each call.

Each repeat measures ours and the plain tool in turn, in short blocks. Time in which the calling thread could have run,
and another process ran instead, is not counted for either (where the system tells it: Linux).
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dspy

from escalade.registry import privacy
from escalade.registry.access import Roles
from escalade.registry.audit import AuditLog
from escalade.registry.catalogue import Registry
from escalade.registry.ledger import Budget, Ledger
from escalade.registry.opening import scope
from escalade.registry.tools import tool
from escalade.scopes import Principal

P50_MS, P99_MS, GAP_MS = 0.3, 1.5, 25.0
CALLS, BLOCK, CALLERS, EACH = 400, 50, 64, 10
FOUND = "Ana Souza, ana.souza@example.com, +55 11 98765-4321: 3 open orders, the last one of 2026-03-01 over 312.40 EUR"


def find(query: str, limit: int = 10, tags: list[str] | None = None) -> str:  # noqa: ARG001 - arguments to check
    """Finds nothing new."""
    return FOUND


async def afind(query: str, limit: int = 10, tags: list[str] | None = None) -> str:  # noqa: ARG001 - as above
    """Finds nothing new."""
    return FOUND


async def note(text: str) -> str:
    """Writes."""
    return text


ARGUMENTS: dict[str, Any] = {"query": "open orders of ana.souza@example.com", "limit": 3, "tags": ["a", "b"]}
SAID: dict[str, Any] = {
    "cost": "0.000001",
    "limits": {"tool": "1000000/s", "tenant": "100000000/min", "user": "1000000000/day"},
    "side_effects": "read",
}


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Medians over all calls of the interleaved repeats; ratios are medians of the repeats."""
    writes = tool(**SAID | {"side_effects": "write"})(note)
    registry = Registry([tool(**SAID)(find), tool(**SAID)(afind), writes], name="benchmark")
    (ours, aours), plain, aplain = registry.tools(["find", "afind"]), dspy.Tool(find), dspy.Tool(afind)
    sync, lone, crowd = _Pairs(), _Pairs(), _Pairs()
    written: list[tuple[float, float]] = []
    with _everything_on() as log:
        assert "ana.souza@example.com" not in ours(**ARGUMENTS)
        for _ in range(repeats):
            for _ in range(CALLS // BLOCK):
                sync.add(_calls(ours), _calls(plain))
                lone.add(asyncio.run(_acalls(aours)), asyncio.run(_acalls(aplain)))
            log.flush()
            crowd.add(asyncio.run(_at_once(aours)), asyncio.run(_at_once(aplain)))
            log.flush()
            written.append(asyncio.run(_written(registry.get_tool("note"))))
            for pairs in (sync, lone, crowd):
                pairs.end_repeat()
    return [
        *sync.figures("everything on: call of a sync tool"),
        *lone.figures("everything on: acall of an async tool"),
        *crowd.figures(f"everything on: acall, {CALLERS} callers at once, per call", waits=False),
        _figure(f"{CALLERS} callers that write at once: longest gap of the loop", _median(written, 0), GAP_MS)
        | {"note": f"each waits for the disk; {_median(written, 1):,.0f} calls/s"},
    ]


@contextmanager
def _everything_on() -> Iterator[AuditLog]:
    rules = [f"area{n}.*:{'call' if n % 2 else 'read'}" for n in range(197)]
    budgets = [Budget(name, "1000000", period="day") for name in ("user:acme/ana", "tenant:acme", "everything")]
    with ExitStack() as on:
        folder = on.enter_context(tempfile.TemporaryDirectory())
        log = on.enter_context(AuditLog(Path(folder) / "audit.sqlite", anchors=[Path(folder) / "anchor"]))
        on.enter_context(
            scope(
                budget="1000",
                principal=Principal("ana", "acme", frozenset({"caller"})),
                access=Roles({"caller": [*rules, "find:call", "afind:call", "note:call"]}),
                ledger=Ledger(budgets),
                recorder=log,
            )
        )
        on.enter_context(scope(budget="999"))
        on.enter_context(privacy.tokens())
        yield log


class _Pairs:
    """Seconds per call of ours and of the plain tool, block by block."""

    def __init__(self) -> None:
        self._ours, self._plain = list[float](), list[float]()
        self._ratios, self._from = list[float](), 0

    def add(self, ours: list[float], plain: list[float]) -> None:
        self._ours += ours
        self._plain += plain

    def end_repeat(self) -> None:
        at, self._from = self._from, len(self._ours)
        self._ratios.append(statistics.median(self._ours[at:]) / statistics.median(self._plain[at:]))

    def figures(self, name: str, *, waits: bool = True) -> list[dict[str, Any]]:
        """p50 with its ratio, p99. `waits`: is a call's time its caller's wait, so that the limits hold for it?"""
        p50, p99, ratio = statistics.median(self._ours), _p99(self._ours), statistics.median(self._ratios)
        note = f"ratio to a plain typed dspy.Tool, {statistics.median(self._plain) * 1e3:.3f} ms"
        half = _figure(f"{name}, p50", p50, P50_MS) | {"ratio": ratio, "note": note}
        half |= {"limit": f"{half['limit']}, <= 1x", "ok": half["ok"] and ratio <= 1}
        if not waits:
            return [half]
        return [half, _figure(f"{name}, p99", p99, P99_MS) | {"note": f"plain {_p99(self._plain) * 1e3:.3f} ms"}]


def _median(runs: list[tuple[float, float]], which: int) -> float:
    return statistics.median(run[which] for run in runs)


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[-1]


def _figure(name: str, seconds: float, limit: float) -> dict[str, Any]:
    value = seconds * 1e3
    return {
        "name": name, "value": value, "unit": "ms", "limit": f"<= {limit:g} ms", "ok": value <= limit, "ratio": None,
        "note": "",
    }  # fmt: skip


def _calls(called: Any) -> list[float]:
    """Seconds of each call of a block."""
    times = []
    for _ in range(BLOCK):
        began = _Moment()
        called(**ARGUMENTS)
        times.append(began.ago())
    return times


async def _acalls(called: Any) -> list[float]:
    times = []
    for _ in range(BLOCK):
        began = _Moment()
        await called.acall(**ARGUMENTS)
        times.append(began.ago())
    return times


async def _at_once(called: Any) -> list[float]:
    """Seconds of all calls of all callers, per call."""

    async def caller() -> None:
        for _ in range(EACH):
            await called.acall(**ARGUMENTS)

    began = _Moment()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return [began.ago() / (CALLERS * EACH)]


async def _written(called: Any) -> tuple[float, float]:
    """The longest that the loop stood still while all callers wrote, seconds; calls per second."""
    gaps = [0.0]

    async def beat() -> None:
        while True:
            began = _Moment()
            await asyncio.sleep(0.001)
            gaps.append(began.ago() - 0.001)

    async def caller() -> None:
        for number in range(EACH):
            await called.acall(text=str(number))

    beating, began = asyncio.create_task(beat()), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    took = time.perf_counter() - began
    beating.cancel()
    return max(gaps), CALLERS * EACH / took


class _Moment:
    """A point in time, of this thread."""

    def __init__(self) -> None:
        self._stolen = _stolen()
        self._began = time.perf_counter()

    def ago(self) -> float:
        """Seconds since then."""
        took = time.perf_counter() - self._began
        return took - (_stolen() - self._stolen)


def _stolen() -> float:
    """Seconds that this thread was ready to run and another process ran instead; 0 where that isn't known."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as account:  # noqa: PTH123 - a third of the time of Path
            return int(account.read().split()[1]) / 1e9
    except OSError:
        return 0.0
