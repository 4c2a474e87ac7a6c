"""A process whose children execute runs, one after the other, and are killed (`kill -9`) at random moments.

    python -m tests.pipelines.durable.killing FOLDER SEED

Prints a JSON object: how many runs ended well, how many with a wrong result, attempts of the one that had most, how
often something was served again that had been served, what was spent, and what of that was for answers that were kept.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from escalade import FanOut, Runs
from tests import _forks
from tests.pipelines.durable.world import World

RUNS, KILLS = 12, 8


class Written(Counter[str]):
    """A count that survives its process: a line for each, in one write."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._log = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def __setitem__(self, key: str, value: int) -> None:
        os.write(self._log, f"{json.dumps(key)}\n".encode())
        super().__setitem__(key, value)


def opened(folder: Path, world: World) -> Runs:
    agent = world.agent
    pipeline = FanOut(left=agent(2, "same"), right=agent(3, "same"), last=agent(1, "last"))
    return Runs(folder / "runs.sqlite", pipelines={"p": pipeline}, recorder=world.recorder)


def execute(folder: Path) -> None:
    """Until all runs have ended, or it is killed."""
    world = World(os.getpid())
    world.served = Written(folder / "served.txt")
    runs = opened(folder, world)
    for number in range(RUNS):
        runs.start("p", run_id=f"r{number}", budget="1", x=f"in{number}")
    while len(runs.list(status=("done", "failed"))) < RUNS:
        time.sleep(0.01)


def storm(folder: Path, seed: int) -> int:
    """Children that execute until they are killed; the last one may end. The number that were killed."""
    moments, kills = random.Random(seed), 0
    while True:
        child = _forks.begun(partial(execute, folder))
        until = time.monotonic() + 0.05 + moments.random() * 0.15
        while kills >= KILLS or time.monotonic() < until:
            if os.waitpid(child, os.WNOHANG)[0]:
                return kills
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1


def found(folder: Path, kills: int) -> dict[str, Any]:
    """How it is in the end, beside runs that nobody interrupted."""
    plain, world = World(), World()
    agent = plain.agent
    served = Counter(json.loads(line) for line in (folder / "served.txt").read_text().splitlines())
    with (
        opened(folder, world) as runs,
        Runs(pipelines={"p": FanOut(left=agent(2, "same"), right=agent(3, "same"), last=agent(1, "last"))}) as alone,
    ):
        rows = runs.list(status="done")
        expected = {row.run_id: alone.start("p", x=row.run_id.replace("r", "in")).result(30) for row in rows}
        calls = [call for row in rows for call in runs.get(row.run_id).calls()]
        return {
            "kills": kills,
            "done": len(rows),
            "wrong": sum(runs.get(run_id).result() != result for run_id, result in expected.items()),
            "attempts": max(row.attempts for row in rows),
            "again": (served - plain.served).total(),
            "missing": (plain.served - served).total(),
            "spent": sum(row.spent for row in rows),
            "kept": sum(call.cost for call in calls),
            "twice": len(calls) - len({(call.key, call.n) for call in calls}),
            "calls": len(calls) - plain.served.total(),
        }


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(json.dumps(found(place, storm(place, int(sys.argv[2])))))
