"""RedisLedger means what the memory ledger means: whatever is done to both, in whatever order, they agree."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pytest
from hypothesis import settings

from escalade.registry.ledger import Crossing
from tests.registry.helpers import Clock
from tests.registry.stores.machine import TwinMachine
from tests.servers.redis_server import RedisServer

_numbers = itertools.count()


class RedisMachine(TwinMachine):
    """Its twin keeps everything named in a real Redis."""

    url: ClassVar[str] = ""

    def other(self, now: Clock, heard: list[Crossing]) -> Any:
        from escalade.registry.stores.redis_ledger import RedisLedger

        return RedisLedger(self.url, prefix=f"m{next(_numbers)}", now=now, listen=heard.append, lease=3600.0)

    def teardown(self) -> None:
        if hasattr(self, "shared"):
            self.shared.close()


RedisMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40)


class TestRedisMachine(RedisMachine.TestCase):
    """Answers, refusals, figures and crossings are the same, for random trees, amounts, endings and clock jumps."""

    @pytest.mark.timeout(120)
    def runTest(self) -> None:
        with RedisServer() as server:
            RedisMachine.url = server.url
            super().runTest()
