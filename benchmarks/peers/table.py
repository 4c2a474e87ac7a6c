"""The table: every framework in fresh processes, round by round, and medians over the rounds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUIET = {
    "LANGSMITH_TRACING": "false", "HAYSTACK_TELEMETRY_ENABLED": "False", "AGNO_TELEMETRY": "false",
    "BURR_TELEMETRY_ENABLED": "false", "DO_NOT_TRACK": "1", "OTEL_SDK_DISABLED": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONWARNINGS": "ignore", "PYTHONHASHSEED": "0",
}  # fmt: skip
"""No framework calls home while it is measured."""

OURS = "escalade"
BARE = ("asyncio", "asyncio.TaskGroup")

LIMITS = {
    "fan-out 10": 3.5, "fan-out 100": 3.0, "fan-out 1,000": 3.0, "chain of 100": 2.0, "1,000 x 50 ms": 1.15,
    "3 -> join, 1,000 at once": 3.5,
}  # fmt: skip
"""What ours may cost, as a ratio to bare asyncio."""
MOST_MEGABYTES, MOST_UNBALANCED = 4.0, 0.304
MOST_LATE = 0.01
"""Seconds after a node raised until its pipeline does."""

PACKAGES = {
    "Agno": "agno", "Haystack": "haystack", "Burr": "burr", "Agent Framework": "agent_framework",
    "pydantic-graph": "pydantic_graph", "LangGraph": "langgraph",
}  # fmt: skip


def missing() -> dict[str, str]:
    """Frameworks that aren't installed, and the package that is missing."""
    return {name: package for name, package in PACKAGES.items() if find_spec(package) is None}


def asked(name: str, mode: str, most: float = 300) -> dict[str, Any]:
    """What a worker found; `{"error": ...}` where it failed."""
    command = [sys.executable, "-m", "benchmarks.peers.worker", name, mode]
    try:
        run = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=most, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {most:g} s"}
    for line in reversed(run.stdout.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    said = [line for line in run.stderr.splitlines() if line.strip()]
    return {"error": said[-1][:200] if said else "said nothing"}


def measured(names: list[str], repeats: int) -> dict[str, dict[str, Any]]:
    """Framework -> graph -> {seconds, ratio}; also "megabytes", "import" and, where one failed, "error"."""
    rounds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in range(repeats):
        for name in names:
            print(f"round {number + 1} of {repeats}: {name}", file=sys.stderr)
            found = asked(name, "time")
            rounds[name].append({**found, **({} if "error" in found else asked(name, "memory"))})
    return {name: _medians(found) for name, found in rounds.items()}


def _medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    bad = [found["error"] for found in rounds if "error" in found]
    if bad:
        return {"error": bad[0]}
    row: dict[str, Any] = {}
    for key, value in rounds[0].items():
        if isinstance(value, dict):
            row[key] = {part: statistics.median(found[key][part] for found in rounds) for part in value}
        else:
            row[key] = statistics.median(found[key] for found in rounds)
    return row


def figures(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Our figures against their limits and the best of the others, as `python -m benchmarks` has them."""
    ours, others = rows[OURS], {n: row for n, row in rows.items() if n != OURS and n not in BARE and "error" not in row}
    found = []
    for graph in (key for key, value in ours.items() if isinstance(value, dict)):
        mine = ours[graph]
        best = min(others, key=lambda name: others[name][graph]["seconds"], default=None)
        limit = LIMITS.get(graph)
        first = best is None or mine["seconds"] <= others[best][graph]["seconds"] * 1.005
        fits = mine["ratio"] <= limit if limit is not None else mine["seconds"] <= MOST_UNBALANCED
        bound = f"<= {limit:g}x" if limit is not None else f"<= {MOST_UNBALANCED * 1e3:.0f} ms"
        note = "no other is installed" if best is None else f"best of the others: {best}, {_cell(others[best][graph])}"
        found.append(_figure(graph, mine, bound, ok=fits and first, note=note))
    best = min(others, key=lambda name: others[name]["megabytes"], default=None)
    note = "" if best is None else f"best of the others: {best}, {others[best]['megabytes']:.1f} MB"
    found.append({
        "name": "memory of 1,000 sleepers", "value": ours["megabytes"], "unit": "MB", "ratio": None, "note": note,
        "limit": f"<= {MOST_MEGABYTES:g} MB", "ok": ours["megabytes"] <= MOST_MEGABYTES,
    })  # fmt: skip
    return found


def _figure(name: str, cell: dict[str, float], limit: str, *, ok: bool, note: str) -> dict[str, Any]:
    many = cell["seconds"] < 1e-3
    value, unit = (cell["seconds"] * 1e6, "us") if many else (cell["seconds"] * 1e3, "ms")
    return {"name": name, "value": value, "unit": unit, "limit": limit, "ok": ok, "ratio": cell["ratio"], "note": note}


def _cell(cell: dict[str, float]) -> str:
    many = cell["seconds"] < 1e-3
    value = f"{cell['seconds'] * 1e6:,.1f} us" if many else f"{cell['seconds'] * 1e3:,.1f} ms"
    return f"{value} ({cell['ratio']:.1f}x)"


def show(rows: dict[str, dict[str, Any]], absent: dict[str, str]) -> None:
    """Print a row per framework, us per node, step or run, and the ratio to bare asyncio."""
    from rich.console import Console
    from rich.table import Table

    graphs = [key for key, value in rows[OURS].items() if isinstance(value, dict)]
    table = Table("", *graphs, "1,000 sleepers", "import", box=None, header_style="bold")
    for name, row in rows.items():
        if "error" in row:
            table.add_row(name, f"failed: {row['error']}")
            continue
        cells = [_cell(row[graph]) for graph in graphs]
        table.add_row(name, *cells, f"{row['megabytes']:.1f} MB", f"{row['import']:.2f} s")
    console = Console(width=None if sys.stdout.isatty() else 200, markup=False)  # errors and extras have brackets
    console.print(table)
    for name, package in absent.items():
        console.print(f"skipped {name}: the package {package} isn't installed; pip install 'escalade[peers]'")


def behaviour(names: list[str]) -> tuple[list[list[str]], bool]:
    """Rows of what becomes of nine siblings, and whether ours leave none behind."""
    rows, good = [], True
    for name in names:
        found = asked(name, "behave", 60)
        for case in ("a node fails", "a timeout from outside"):
            if "error" in found:
                rows.append([name, case, f"failed: {found['error']}", "", "", ""])
                continue
            told = found[case]
            late = told["after"] - (0.05 if case == "a node fails" else 0.2)
            leaked = str(told["leaked"])
            rows.append([name, case, told["said"], f"{late * 1e3:.1f} ms", leaked, str(told["ran on"])])
            if name == OURS:
                good &= not (told["leaked"] or told["tasks"] or told["ran on"]) and late <= MOST_LATE
    return rows, good


def show_behaviour(rows: list[list[str]], absent: dict[str, str]) -> None:
    """Print them."""
    from rich.console import Console
    from rich.table import Table

    columns = ("", "when", "what it said", "later by", "alive after it", "ran to their end")
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 140, markup=False)
    console.print(table)
    for name, package in absent.items():
        console.print(f"skipped {name}: the package {package} isn't installed; pip install 'escalade[peers]'")
