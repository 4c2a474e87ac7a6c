"""64 threads x 4 processes on one PostgreSQL server, killed at random; and the server itself stopped under them."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from escalade.registry.budgets import Budget
from tests.registry.stores.crowd import MOST, THREADS, open_ledger
from tests.registry.stores.killing import Crowd, kill_at_random
from tests.servers.postgres_server import PostgresServer

LIMIT = 60_000
BUDGET = Budget("tenant:acme", f"0.{LIMIT:09d}")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_9_at_random(postgres_url: str, tmp_path: Path) -> None:
    """Processes are killed in the middle of their uses: the budget is never passed, and what they held is booked."""
    open_ledger("postgres", postgres_url, budgets=[BUDGET]).close()
    found = kill_at_random("postgres", postgres_url, tmp_path / "log.txt", LIMIT, 3.0)
    print(found)
    assert found["deaths"] >= 3
    assert found["settled"] > LIMIT * 0.8, "enough was used for this to mean something"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_stopped_at_once(postgres: PostgresServer, postgres_url: str, tmp_path: Path) -> None:
    """The server ends in the middle of everything, and is away for two seconds: all are refused meanwhile, and go on
    without being started anew; what was settled before counts, no more than the limit is spent, and nothing is held in
    the end.
    """
    limit = 2_000_000
    open_ledger("postgres", postgres_url, budgets=[Budget("tenant:acme", f"0.{limit:09d}")]).close()
    log = tmp_path / "log.txt"
    with Crowd("crowd", "postgres", postgres_url, log) as crowd:
        for _ in range(2):
            crowd.start(6.0)
        for process in crowd.running:
            assert process.stdout is not None
            process.stdout.readline()
        time.sleep(0.3 + random.Random(5).random() / 2)
        postgres.stop()
        time.sleep(0.2)  # what was answered is written down
        before = log.read_text("ascii").split()
        time.sleep(1.8)
        during = log.read_text("ascii").split()[len(before) :]
        postgres.start()
        crowd.finish()
    after = log.read_text("ascii").split()[len(before) + len(during) :]
    assert "down" in during
    # A bill whose settlement has to wait is written down all the same; then it is refused closed.
    assert len([line for line in during if line.isdigit()]) <= 2 * THREADS
    assert len([line for line in after if line.isdigit()]) > 100, "all went on"
    ledger = open_ledger("postgres", postgres_url)
    ledger.sweep()
    account = ledger.account("tenant:acme")
    bills = [int(line) for line in before + during + after if line.isdigit()]
    print(len(before), len(during), len(after), account.settled, sum(bills))
    assert (ledger.store.held(), account.held, account.overrun) == ([], 0, 0)
    assert sum(bills) <= account.settled <= limit
    assert account.settled - sum(bills) <= 2 * THREADS * MOST, "what nobody knew the end of, and nothing else"
