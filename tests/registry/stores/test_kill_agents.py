"""50 agents on one budget in SQLite, killed in the middle of their calls, and what the next process finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from escalade.registry.ledger import Budget
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from tests._house import ROOT
from tests.registry.stores.agents_at_work import AGENTS

LIMIT = 6_000_000_000
BUDGET = Budget("tenant:acme", "6.00", "month")


def started(path: Path, log: Path) -> subprocess.Popen[str]:
    """The agents, at work."""
    command = [sys.executable, "-m", "tests.registry.stores.agents_at_work", str(path), str(log)]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def figures(ledger: SqliteLedger) -> tuple[int, int, int]:
    """Settled, held, overrun."""
    account = ledger.account("tenant:acme")
    assert account is not None
    return account.settled, account.held, account.overrun


def lines_of(log: Path) -> list[str]:
    """What agents wrote, a line for each run."""
    return log.read_text("ascii").splitlines() if log.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_9_while_agents_work(tmp_path: Path) -> None:
    """At no moment is more settled and held than the limit. The agents are killed twice; what they held then counts in
    full and is held no longer; a third process uses what is left, and all that was answered was paid from the budget.
    """
    path, log = tmp_path / "budgets.db", tmp_path / "log.txt"
    SqliteLedger(path, [BUDGET]).close()
    watch = SqliteLedger(path)
    at_death, worst = [], 0
    for _ in range(2):
        process = started(path, log)
        until = time.monotonic() + 30
        while sum(held.amount for held in watch.store.held()) == 0 and time.monotonic() < until:
            time.sleep(0.005)
        for _ in range(100):
            settled, held, _ = figures(watch)
            worst = max(worst, settled + held)
            time.sleep(0.002)
        while not watch.store.held():
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        settled, held, _ = figures(watch)
        count = len(watch.store.held())
        at_death.append((count, held))
        assert settled + held <= LIMIT
        next_one = SqliteLedger(path)
        assert figures(next_one) == (settled + held, 0, 0), "what the dead held is booked, once"
        assert next_one.store.held() == []
        next_one.close()
    before = len(lines_of(log))
    process = started(path, log)
    while process.poll() is None:
        settled, held, _ = figures(watch)
        worst = max(worst, settled + held)
        time.sleep(0.01)
    assert process.returncode == 0
    process.communicate()
    settled, held, overrun = figures(watch)
    lines = lines_of(log)
    paid = sum(int(line.split()[0]) for line in lines)
    assert worst <= LIMIT
    assert (held, overrun) == (0, 0)
    assert sum("refused" in line for line in lines[before:]) == AGENTS, (
        "each agent of the last process stopped at the limit"
    )
    assert paid <= settled <= LIMIT
    assert any(count for count, _ in at_death), "somebody was in the middle of a call"
    print({"at death": at_death, "worst": worst, "settled": settled, "paid": paid, "runs": len(lines)})
