"""PostgresLedger means what the memory ledger means: whatever is done to both, in whatever order, they agree."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import settings

from escalade.registry.ledger import Crossing
from tests.registry.helpers import Clock
from tests.registry.stores.machine import TwinMachine


class PostgresMachine(TwinMachine):
    """Its twin keeps everything named in a real PostgreSQL."""

    url: ClassVar[str] = ""

    def other(self, now: Clock, heard: list[Crossing]) -> Any:
        from escalade.registry.stores.postgres_ledger import PostgresLedger, PostgresStore

        store = PostgresStore(self.url, timeout=10.0)
        store.server.ask("TRUNCATE accounts, holds, owners, crossings, changes")
        store.close()
        return PostgresLedger(self.url, now=now, listen=heard.append, lease=3600.0, timeout=10.0)

    def teardown(self) -> None:
        if hasattr(self, "shared"):
            self.shared.close()


PostgresMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40)


class TestPostgresMachine(PostgresMachine.TestCase):
    """Answers, refusals, figures and crossings are the same, for random trees, amounts, endings and clock jumps."""

    @pytest.fixture(autouse=True)
    def _server(self, postgres_url: str) -> None:
        PostgresMachine.url = postgres_url

    @pytest.mark.timeout(120)
    def runTest(self) -> None:
        super().runTest()
