"""A process whose children run one study, one after the other, and are killed (`kill -9`) at random points of it.

    python -m tests.evals.studies.killing FOLDER BASE SEED

First a child runs the whole study alone, in FOLDER/plain; then the others in FOLDER/killed, until one comes to the end.
Both leave `table.txt` and `compare.json` beside their attempts. Prints a JSON object: how many were killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import dspy
from rich.console import Console

from escalade import Escalate, Gateway, Model, Study, Threshold
from escalade.agents.transports import LM15
from escalade.registry.prices import Price
from tests import _forks

QUESTIONS, EPOCHS, KILLS, CONCURRENCY = 20, 2, 10, 8
RUNGS = [("Predict", "small"), ("ChainOfThought", "small"), ("Predict", "big")]
TOTAL = QUESTIONS * EPOCHS * len(RUNGS)


def metric(example: Any, prediction: Any) -> float:
    """Right or wrong by the question and by the fields of the answer: the server says the same to everybody."""
    told = f"{example.question} {sorted(prediction.keys())}"
    return float(hashlib.sha256(told.encode()).digest()[0] % 4 > 0)


def study(base: str) -> Study:
    """All that is random in it is the order in which calls end."""
    models = [
        Model(alias, f"openai/{name}", LM15(api_key="k", api_base=base, timeout=10), price=Price.of(*price))
        for alias, name, price in (("small", "slow:0.01", ("0.1", "0.4")), ("big", "slow:0.02", ("1", "4")))
    ]
    program = Escalate("question -> answer", rungs=RUNGS, policy=Threshold(0.8), gateway=Gateway(models, name="killed"))
    data = [dspy.Example(question=f"How much is {i}?", answer=str(i)).with_inputs("question") for i in range(QUESTIONS)]
    return Study.of(
        {
            "name": "killed",
            "data": data,
            "program": program,
            "metric": metric,
            "epochs": EPOCHS,
            "budget": "1.00",
            "concurrency": CONCURRENCY,
            "latency": "none",
            "seed": 3,
        }
    )


def run(folder: Path, base: str) -> None:
    """The study to its end, unless this is killed before."""
    done = study(base).run(folder)
    assert done.complete
    assert done.comparison is not None
    with (folder / "table.txt").open("w") as file:
        done.comparison.show(Console(file=file, width=120))
    (folder / "compare.json").write_text(json.dumps(done.comparison.to_json()))


def attempts(folder: Path) -> int:
    """Lines that are there, also while somebody writes."""
    path = folder / "attempts.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def storm(folder: Path, base: str, seed: int) -> int:
    """Children until one ends; the others are killed, each somewhere later in the study. How many were killed."""
    chance, kills = random.Random(seed), 0
    points = sorted(chance.sample(range(TOTAL - 2 * CONCURRENCY), KILLS))
    while True:
        child = _forks.begun(partial(run, folder, base))
        while kills >= KILLS or attempts(folder) < points[kills]:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                assert status == 0, "a run failed"
                return kills
            time.sleep(0.001)
        time.sleep(chance.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1


if __name__ == "__main__":
    place, server = Path(sys.argv[1]), sys.argv[2]
    _forks.in_child(partial(run, place / "plain", server))
    print(json.dumps({"kills": storm(place / "killed", server, int(sys.argv[3]))}))
