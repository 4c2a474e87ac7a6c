"""A whole comparison on a large table: 12,032 questions x 29 rungs x 20 policies, with every interval.

The recordings lie beside a checkout of the project (`../shared/data`) and don't ship; without them a table of the same
size is made at random, and the note says so. The dollars per million tokens are made up, 0.05 for the first model and
a fifth more for each next one: there have to be costs, and nothing is said about these models. Where a model has no
recorded outcome (1,706 questions lack one or more) that of the question before stands in: for the time it takes alone.

Measured in a process of its own: seconds of the comparison and all intervals and tests (curves, cost ratios, membership
of the frontier from 2,000 resamples), without the reading of the file, and the most memory that the process ever had.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.evals.outcomes import COLUMNS

if TYPE_CHECKING:
    from escalade.evals.outcomes import Outcomes

ROOT = Path(__file__).resolve().parent.parent
MMLU = ROOT.parent / "shared" / "data" / "mmlu_pro"
SECONDS, GIGABYTES = 10, 2

ROUTERS = (
    "oracle",
    "random-0.2",
    "random-0.5",
    "random@agreement-3",
    "random@agreement-4",
    "prompt-length",
    "prompt-length@agreement-3",
    "agreement-2",
    "agreement-3",
    "agreement-4",
    "agreement-5",
    "agreement-6",
    "agreement-3+budget",
    "prompt-length+budget",
)
"""With six of the rungs they are 20."""


def outcomes() -> Outcomes:
    """The recordings, or a table of their size."""
    if not MMLU.is_dir():
        from benchmarks.replay import world

        return world(12_032, 29)
    from escalade.evals.loaders import load_outcomes
    from escalade.registry.prices import Price

    names = [rung.name for rung in load_outcomes(f"mmlu_pro:{MMLU}", missing="keep", limit=100).rungs]
    prices = {name: Price.of(*[f"{0.05 * 1.2**at:.4f}"] * 2) for at, name in enumerate(names)}
    return _filled(load_outcomes(f"mmlu_pro:{MMLU}", missing="keep", prices=prices))


def _filled(data: Outcomes) -> Outcomes:
    """Holes take over what the same rung gave on the last question that it was asked."""
    at = np.where(data.asked, np.arange(data.n)[:, None], -1)
    last = np.maximum.accumulate(at, axis=0)
    last = np.where(last < 0, data.asked.argmax(axis=0), last)
    columns = {name: np.take_along_axis(getattr(data, name), last, axis=0) for name in COLUMNS}
    return replace(data, form=None, gradings={}, **columns)


def one() -> dict[str, Any]:
    """One comparison in this process."""
    import resource

    from escalade.evals.compare import compare
    from escalade.evals.inference.intervals import intervals

    data = outcomes()
    rungs = [rung.name for rung in data.rungs]
    began, busy = time.perf_counter(), time.process_time()
    comparison = compare(data, [*ROUTERS, *rungs[::5][:5], rungs[-1]], baselines=False)
    compared = time.perf_counter() - began
    assert comparison.evidence is not None
    found = intervals(comparison.evidence)
    return {
        "seconds": time.perf_counter() - began,
        "busy": time.process_time() - busy,
        "compared": compared,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "size": [data.n, data.k, len(found)],
    }


def run(repeats: int = 3) -> list[dict[str, Any]]:
    """Medians of comparisons, each in a fresh process."""
    code = "import json; from benchmarks.replay_full import one; print(json.dumps(one()))"
    found = [
        json.loads(subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True).stdout)
        for _ in range(repeats)
    ]
    seconds, memory = (statistics.median(each[name] for each in found) for name in ("seconds", "bytes"))
    n, k, policies = found[0]["size"]
    size = f"{n:,} questions x {k} rungs x {policies} policies" + ("" if MMLU.is_dir() else ", at random")
    busy, compared = (statistics.median(each[name] for each in found) for name in ("busy", "compared"))
    note = f"{size}; {compared:.1f} s of it replay and differences, {busy:.1f} s of processor time"
    return [
        _figure("comparison with all intervals", seconds, "s", SECONDS, note),
        _figure("comparison with all intervals: memory", memory / 1e9, "GB", GIGABYTES, size),
    ]


def _figure(name: str, value: float, unit: str, limit: float, note: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "limit": f"<= {limit} {unit}",
        "ok": value <= limit,
        "ratio": None,
        "note": note,
    }
