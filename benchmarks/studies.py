"""How fast a run directory of a million attempts becomes outcomes, and what memory that takes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from escalade.evals.studies.rundir import ATTEMPTS, QUESTIONS, STUDY, Line, RunDir

QUESTION, RUNGS, EPOCHS = 100_000, 5, 2
ATTEMPT = QUESTION * RUNGS * EPOCHS
SECONDS = 5.0


def written(folder: Path, questions: int = QUESTION) -> None:
    """A run directory as a study leaves it, with all fields that a line may have."""
    run, rng = RunDir(folder), np.random.default_rng(0)
    rungs = [{"name": f"Predict/model-{i}", "model": f"model-{i}", "digest": f"{i:012x}"} for i in range(RUNGS)]
    run.write(STUDY, {"name": "big", "rungs": rungs, "epochs": EPOCHS, "labels": "metric"})
    keys = [f"{i:024x}" for i in range(questions)]
    amounts = [100_000 * 5**i for i in range(RUNGS)]
    with run.file(QUESTIONS).open("w") as file:
        for key in keys:
            facts = {"prompt_chars": 280, "words": 50, "language": "en"}
            told = {"key": key, "labels": key[:12], "features": facts, "prices": amounts, "ceilings": amounts}
            file.write(json.dumps(told) + "\n")
    n = questions * EPOCHS * RUNGS
    right, sure = (rng.random(n) < 0.7).tolist(), rng.random(n).tolist()
    answers = rng.integers(0, 1 << 48, n).tolist()
    order = rng.permutation(n).tolist()
    with run.file(ATTEMPTS).open("wb") as file:
        for at in order:
            question, rest = divmod(at, EPOCHS * RUNGS)
            epoch, rung = divmod(rest, RUNGS)
            line = Line(
                key=keys[question],
                rung=rungs[rung]["name"],
                of=rungs[rung]["digest"],
                epoch=epoch,
                quality=float(right[at]),
                finish="stop",
                answer=answers[at],
                confidence=sure[at],
                cost=amounts[rung],
                spent=amounts[rung],
                latency=sure[at] * 2,
                input=257,
                output=19,
                model=f"provider/model-{rung}-2026-01-01",
                form=[3.0, 1.0, 0.0, 5.6],
                at=1795297043.503,
            )
            file.write(line.dumped())


LOADING = """
import json, resource, sys, time
from escalade.evals.loaders import load_outcomes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began, worked = time.perf_counter(), time.process_time()
outcomes = load_outcomes(f"run:{sys.argv[1]}")
took, work = time.perf_counter() - began, time.process_time() - worked
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([took, work, before, after, outcomes.n * outcomes.k]))
"""


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Median seconds of a fresh process each, without its imports; and the peak of its memory."""
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder))
        size = (Path(folder) / ATTEMPTS).stat().st_size
        took, worked, peaks = [], [], []
        for _ in range(repeats):
            said = subprocess.run(
                [sys.executable, "-c", LOADING, folder], capture_output=True, text=True, check=True
            ).stdout
            seconds, work, before, after, count = json.loads(said)
            assert count == ATTEMPT
            took.append(seconds)
            worked.append(work)
            peaks.append((after - before) / 1024)
    value, peak = statistics.median(took), statistics.median(peaks)
    told = f"{ATTEMPT:,} attempts, {size / 1e6:,.0f} MB of lines, {QUESTION:,} questions"
    note = f"{told}; {statistics.median(worked):.1f} s of a processor; {min(took):.1f} to {max(took):.1f} s"
    return [
        {
            "name": "a run directory, loaded",
            "value": value,
            "unit": "s",
            "limit": f"<= {SECONDS:g}",
            "ok": value <= SECONDS,
            "ratio": None,
            "note": note,
        },
        {
            "name": "its memory, at most",
            "value": peak,
            "unit": "MiB",
            "limit": "<= 1,000",
            "ok": peak <= 1000,
            "ratio": None,
            "note": "above that of the imported library",
        },
    ]
