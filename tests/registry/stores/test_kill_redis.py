"""64 threads x 4 processes on one Redis server, killed at random; and the server itself killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from escalade.registry.ledger import Budget
from tests.registry.stores.crowd import open_ledger
from tests.registry.stores.killing import kill_at_random
from tests.servers.redis_server import RedisServer

LIMIT = 60_000


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_9_at_random(tmp_path: Path) -> None:
    """Processes are killed in the middle of their uses: the budget is never passed, and what they held is booked."""
    with RedisServer() as server:
        open_ledger("redis", server.url, budgets=[Budget("tenant:acme", f"0.{LIMIT:09d}")]).close()
        found = kill_at_random("redis", server.url, tmp_path / "log.txt", LIMIT)
    print(found)
    assert found["deaths"] >= 3
    assert found["settled"] > LIMIT * 0.8, "enough was used for this to mean something"
