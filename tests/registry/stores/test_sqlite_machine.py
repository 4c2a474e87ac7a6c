"""SqliteLedger means what the memory ledger means: whatever is done to both, in whatever order, they agree."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from escalade.registry.ledger import Crossing
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from tests.registry.helpers import Clock
from tests.registry.stores.machine import TwinMachine

_numbers = itertools.count()


class SqliteMachine(TwinMachine):
    """Its twin keeps everything named in a file, and now and then closes it and opens it again."""

    def other(self, now: Clock, heard: list[Crossing]) -> Any:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / f"{next(_numbers)}.db"
        return SqliteLedger(path, now=now, listen=heard.append, lease=3600.0)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.shared.close()
            self.folder.cleanup()


SqliteMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)


class TestSqliteMachine(SqliteMachine.TestCase):
    """Answers, refusals, figures and crossings are the same, for random trees, amounts, endings and clock jumps."""

    @pytest.mark.timeout(120)
    def runTest(self) -> None:
        super().runTest()
