"""`python -m benchmarks [names] [--json] [--repeats N]`: runs the benchmarks, exits with 1 if one misses its limit."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import time
from typing import Any

import benchmarks


def discover() -> dict[str, Any]:
    """Name -> module, for each that has a `run`."""
    names = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_")]
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


def measured(module: Any, name: str, repeats: int | None) -> list[dict[str, Any]]:
    """Its results; one that failed instead of measuring is a result that misses its limit."""
    try:
        return list(module.run() if repeats is None else module.run(repeats=repeats))
    except Exception as error:
        note = f"{type(error).__name__}: {error}"
        failed = {"name": name, "value": None, "unit": "", "limit": "runs", "ok": False, "ratio": None, "note": note}
        return [failed]


def figure(value: float) -> str:
    """Four digits, and no powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show(results: list[dict[str, Any]]) -> None:
    """Print them as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "figure", "measured", "limit", "ratio", "note", box=None, header_style="bold")
    for column in table.columns[2:5]:
        column.justify, column.no_wrap = "right", True
    for one in results:
        value = "failed" if one["value"] is None else f"{figure(one['value'])} {one['unit']}"
        ratio = "" if one.get("ratio") is None else f"{one['ratio']:.2f}x"
        mark = "[green]ok[/]" if one["ok"] else "[red]MISS[/]"
        table.add_row(mark, one["name"], value, one["limit"], ratio, one.get("note") or "")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> int:
    """The command."""
    known = discover()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(known)}; all by default")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--repeats", type=int, help="how often each is measured")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(known):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))} (known: {', '.join(known)})")
    results = []
    for name in asked.names or known:
        began = time.perf_counter()
        print(f"{name} ...", file=sys.stderr, flush=True)
        results += measured(known[name], name, asked.repeats)
        print(f"{name}: {time.perf_counter() - began:.1f} s", file=sys.stderr)
    if asked.json:
        print(json.dumps({"results": results}, indent=2))
    else:
        show(results)
    return 0 if results and all(one["ok"] for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
