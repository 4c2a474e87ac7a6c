"""Processes that execute runs, and what can be done to them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from escalade.pipelines.durable.store import ENDED
from tests.pipelines.durable import app
from tests.servers.fault_server import FaultServer

ROOT = Path(__file__).parents[3]


def until(true, seconds=60.0, every=0.02):
    """Wait until it is true; what it gave."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"after {seconds} s it has not come to that"
        time.sleep(every)
    return found


class WorkerProcess:
    """`escalade worker`, in a process of its own."""

    def __init__(
        self, url, folder, *options, base="", seconds=0.2, concurrency=8, target="tests.pipelines.durable.app:runs"
    ):
        more = {
            "ESCALADE_RUNS": url,
            "FAULT_SERVER": base,
            "ESCALADE_USES": f"{folder}/uses.jsonl",
            "ESCALADE_SECONDS": str(seconds),
            "ESCALADE_CONCURRENCY": str(concurrency),
            "PYTHONPATH": str(ROOT),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "escalade", "worker", target, "--health", "0", *options],
            cwd=folder,
            env={**os.environ, **more},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def ready(self):
        """Wait until it executes."""
        until(lambda: self.said("executes") or self.process.poll() is not None)
        assert self.process.poll() is None, self.lines
        return self

    def said(self, word):
        return next((line for line in list(self.lines) if word in line), None)

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.ended()

    def ended(self, seconds=60):
        """Its exit code."""
        code = self.process.wait(seconds)
        self._reader.join(5)
        self.process.stderr.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


@dataclass
class Storm:
    """What was left of runs whose workers were killed. `asked`: when the provider was asked each question; `billed`:
    for how many of them; `kept`: when each answer was kept; `settled`, `held`: nano-dollars of all runs, by the
    ledger; `spent`: by their rows; `cost`, `reserved`: of one call.
    """

    statuses: dict[str, int] = field(default_factory=dict)
    results: dict[str, dict] = field(default_factory=dict)
    attempts: int = 0
    asked: dict[str, list[float]] = field(default_factory=dict)
    answered: int = 0
    kept: dict[str, list[float]] = field(default_factory=dict)
    kept_cost: int = 0
    settled: int = 0
    held: int = 0
    spent: int = 0
    cost: int = 0
    reserved: int = 0
    seconds: float = 0.0
    right: int = 0
    """Steps that have their own result."""

    @property
    def repeated(self):
        """Calls that were made again after their answer was kept."""
        return [
            name for name, moments in self.asked.items() if name in self.kept and max(moments) > min(self.kept[name])
        ]

    @property
    def cut_off(self):
        """Requests beyond the one whose answer was kept: a kill came between."""
        return sum(len(moments) for moments in self.asked.values()) - sum(len(kept) for kept in self.kept.values())

    def booked(self):
        """How many calls were settled at their bill, and how many at their reservation: what the ledger has is these,
        exactly, in one way only.
        """
        most = sum(len(moments) for moments in self.asked.values()) + 1000
        ways = [
            (bills, (self.settled - bills * self.cost) // self.reserved)
            for bills in range(most)
            if bills * self.cost <= self.settled and (self.settled - bills * self.cost) % self.reserved == 0
        ]
        assert len(ways) == 1, ways
        return ways[0]


class Timed(FaultServer):
    """Notes when each question came."""

    def __init__(self):
        super().__init__()
        self.moments = []

    def note_call(self, body, path, authorization):
        self.moments.append((time.time(), _question(body)))
        return super().note_call(body, path, authorization)


def _question(body):
    text = body["messages"][-1]["content"]
    text = text if isinstance(text, str) else "".join(part.get("text", "") for part in text)
    return text.split("[[ ## question ## ]]\n")[1].split("\n")[0]


def storm(url, folder, *, runs, kills, workers, seed=0, seconds=0.2, concurrency=8, within=(0.02, 0.9)):
    """Execute `runs` runs by `workers` processes, one of which is killed, and started anew, `kills` times, at random
    points of the whole, `within` these shares of it.
    """
    luck, begun = random.Random(seed), time.monotonic()
    os.environ["ESCALADE_USES"] = f"{folder}/uses.jsonl"
    with Timed() as server:
        options = {"base": server.base, "seconds": seconds, "concurrency": concurrency}
        started = app.opened(url, workers=0)
        keys = [f"{number:04d}" for number in range(runs)]
        for key in keys:
            budget = "0.50" if int(key) % 2 else None
            started.start("report", run_id=f"run-{key}", key=key, principal=app.CLERK, budget=budget)
        alive = [WorkerProcess(url, folder, **options) for _ in range(workers)]
        try:
            calls = len(keys) * len(app.STEPS)
            for point in sorted(luck.uniform(*within) * calls for _ in range(kills)):
                until(lambda point=point: len(server.answers) >= point, 120)
                time.sleep(luck.uniform(0, seconds))
                victim = luck.choice(until(lambda: _busy(started, alive), 120))
                victim.kill()
                alive.remove(victim)
                alive.append(WorkerProcess(url, folder, **options))
            until(lambda: len(started.list(status=ENDED, limit=None)) == runs, 300)
            for one in alive:
                one.ready().signal()
            for one in alive:
                assert one.ended() == 0, one.lines
        finally:
            for one in alive:
                one.__exit__()
        found = _left(started, server, keys, folder)
        found.seconds = time.monotonic() - begun
        started.close()
    return found


def _busy(started, alive):
    """The workers that execute something; the last run may have ended."""
    rows = started.list(status=("queued", "running"), limit=None)
    owners = {row.owner for row in rows if row.status == "running"}
    ready = [(one, one.said("executes")) for one in alive]
    return [one for one, line in ready if line and (line.split()[1] in owners or not rows)]


def _left(started, server, keys, folder):
    found = Storm()
    ledger = started.host.ledger
    until(lambda: (ledger.sweep(), ledger.account("everything").held == 0)[1], 30)
    account = ledger.account("everything")
    found.settled, found.held = account.settled, account.held
    for key in keys:
        row = started.get(f"run-{key}").row()
        found.statuses[row.status] = found.statuses.get(row.status, 0) + 1
        found.attempts += row.attempts
        found.spent += row.spent
        found.results[key] = dict(started.get(f"run-{key}").result(timeout=1)) if row.status == "done" else {}
        for step in started.get(f"run-{key}").steps():
            name = step.path.split("/")[-1]
            found.right += step.result == {name: f"{key}/{name}: answer value"}
        for call in started.get(f"run-{key}").calls():
            name = f"{key}/{json.loads(call.path)[-1]}"
            found.kept.setdefault(name, []).append(call.at)
            found.kept_cost += call.cost
    for moment, question in server.moments:
        found.asked.setdefault(question, []).append(moment)
    found.answered = len(server.answers)
    uses = [json.loads(line) for line in (Path(folder) / "uses.jsonl").read_text().splitlines()]
    (found.cost,) = {
        use["cost"] for use in uses if use["what"] == "outcome" and use["outcome"] == "ok" and not use["source"]
    }
    (found.reserved,) = {use["held"] for use in uses if use["what"] == "intent" and not use["source"]}
    return found
