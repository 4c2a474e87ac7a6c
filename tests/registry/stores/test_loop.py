"""Coroutines and stores that processes share: while one hangs, the event loop goes on; what is given up meanwhile gives
everything back, exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

import escalade
from escalade.agents.gateway import Gateway
from escalade.agents.world import World
from escalade.errors import StoreUnavailable
from escalade.registry.budgets import Budget
from escalade.registry.stores.claims import SqliteClaims
from escalade.scopes import Scope
from tests._loop_watch import beat
from tests.registry.stores.crowd import open_ledger
from tests.registry.stores.limited import open_limiter
from tests.servers.postgres_server import PostgresServer
from tests.servers.redis_server import RedisServer

ANA = escalade.Principal("ana", "acme", frozenset({"user"}))
USERS = escalade.Roles({"user": ["*:call"]})
PRICE = 1_000_000
GAP = 0.3
"""Seconds that the loop may stand still: half of the shortest time that the stores hang for."""

KINDS = {RedisServer: "redis", PostgresServer: "postgres", type(None): "sqlite"}


class Stores:
    """A ledger and a limiter that processes share, of one kind, and a tool that uses them."""

    def __init__(
        self, server: RedisServer | PostgresServer | None, folder: Path, *, once: bool = True, **options: Any
    ) -> None:
        kind = KINDS[type(server)]
        self._server, self._files = server, [] if server else [folder / "budgets.db", folder / "limits.db"]
        url = server.database() if isinstance(server, PostgresServer) else server.url if server else ""
        budgets, limits = (url, url) if server else map(str, self._files)
        self.ledger = open_ledger(kind, budgets, budgets=[Budget("tenant:acme", "90")], **options)
        self.limiter = open_limiter(kind, limits, **options)
        self.ran = list[int]()

        async def write(number: int) -> int:
            self.ran.append(number)
            return number

        made = escalade.tool(name="w", limits="1000/min", cost="0.001", once=once)(write)
        self.claims = SqliteClaims(folder / "claims.db", patience=30.0)
        self._files += [] if server else [folder / "claims.db"]
        self.tool = escalade.Registry([made], name=f"loop-{kind}", limiter=self.limiter, claims=self.claims).get_tool(
            "w"
        )

    def scope(self, **options: Any) -> Any:
        return escalade.scope(principal=ANA, access=USERS, ledger=self.ledger, **options)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Nobody gets an answer."""
        strangers = [sqlite3.connect(file, isolation_level=None) for file in self._files]
        for stranger in strangers:
            stranger.execute("BEGIN IMMEDIATE")
        if self._server is not None:
            self._server.pause()
        try:
            yield
        finally:
            if self._server is not None:
                self._server.go_on()
            for stranger in strangers:
                stranger.execute("ROLLBACK")
                stranger.close()

    def counted(self) -> tuple[int, int, int]:
        """Settled, held, and uses that count against the limits: all but 1000 of them have room."""
        account = self.ledger.account("tenant:acme")
        if isinstance(self._server, PostgresServer):
            return account.settled, account.held, self.limiter.server.ask("SELECT count(*) FROM uses")[0][0]
        windows = self.tool._registered.resource.windows
        with self.scope() as scope:
            (window,) = windows(scope)
        uses = 0
        while not self.limiter.wait((window,)):
            assert self.limiter.take_all((window,))
            uses += 1
        return account.settled, account.held, 1000 - uses


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer | PostgresServer | None]:
    """A real one, where one is needed."""
    if request.param != "redis":
        yield request.getfixturevalue("postgres") if request.param == "postgres" else None
        return
    with RedisServer() as running:
        yield running


@pytest.fixture
def stores(server: RedisServer | PostgresServer | None, tmp_path: Path) -> Stores:
    """Patient ones: they wait for longer than anything hangs here."""
    patient = {"timeout": 30.0} if server else {"patience": 30.0}
    return Stores(server, tmp_path, **patient)


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[list[float]]:
    """How late each tick of the loop came, seconds."""
    gaps = list[float]()
    beating = asyncio.create_task(beat(gaps))
    await asyncio.sleep(0.02)
    yield gaps
    await asyncio.sleep(0.02)
    beating.cancel()


async def test_a_scope_is_opened(tmp_path: Path) -> None:
    """`async with`, with budgets that a server has: the loop goes on until it answers; cancelled, nothing is open."""
    opened = list[Scope]()

    async def open_one() -> None:
        async with stores.scope() as scope:
            opened.append(scope)

    with RedisServer() as server:
        stores = Stores(server, tmp_path, timeout=30.0)
        await open_one()
        async with watched() as gaps:
            with stores.hanging():
                one, other = asyncio.create_task(open_one()), asyncio.create_task(open_one())
                await asyncio.sleep(0.3)
                other.cancel()
                await asyncio.sleep(0.3)
                assert len(opened) == 1
            await asyncio.wait([one, other])
    assert other.cancelled()
    assert [scope.closed for scope in opened] == [True, True]
    assert max(gaps) < GAP


@pytest.mark.blocking(3000)  # looking at the figures in the end asks the stores
async def test_the_loop_goes_on(stores: Stores) -> None:
    """40 calls at once meet stores that hang for a while: they wait, nothing else does, and every sum is exact."""
    async with stores.scope(run_id="one"):
        await asyncio.gather(*(stores.tool.acall(number=-number) for number in range(1, 9)))  # the threads are there
        async with watched() as gaps:
            with stores.hanging():
                calls = [asyncio.create_task(stores.tool.acall(number=number)) for number in range(40)]
                await asyncio.sleep(0.6)
                assert len(stores.ran) == 8
            assert await asyncio.gather(*calls) == list(range(40))
    print(f"longest gap of the loop {max(gaps) * 1e3:.0f} ms")
    assert max(gaps) < GAP
    assert stores.counted() == (48 * PRICE, 0, 48)


@pytest.mark.blocking(3000)
async def test_given_up_while_a_store_is_asked(stores: Stores) -> None:
    """Cancelled calls end when the store has answered: nothing ran, nothing is debited, and each may be made later."""
    async with stores.scope(run_id="one"):
        async with watched() as gaps:
            with stores.hanging():
                calls = [asyncio.create_task(stores.tool.acall(number=number)) for number in range(20)]
                await asyncio.sleep(0.3)
                for call in calls:
                    call.cancel()
                await asyncio.sleep(0.3)
            await asyncio.wait(calls)
        assert all(call.cancelled() for call in calls)
        assert stores.ran == []
        assert await asyncio.gather(*(stores.tool.acall(number=number) for number in range(3))) == [0, 1, 2]
    assert max(gaps) < GAP
    assert stores.counted() == (3 * PRICE, 0, 3)


@pytest.mark.blocking(3000)
async def test_cancelled_while_it_settles(stores: Stores) -> None:
    """A call that is cancelled when all that is left is to settle has run, and is settled, once."""
    async with stores.scope(run_id="one") as scope:
        running, go_on = asyncio.Event(), asyncio.Event()

        async def write(number: int) -> int:
            running.set()
            await go_on.wait()
            return number

        made = escalade.tool(name="w", limits="1000/min", cost="0.001")(write)
        tool = escalade.Registry([made], name="loop-settles", limiter=stores.limiter).get_tool("w")
        call = asyncio.create_task(tool.acall(number=1))
        await running.wait()
        with stores.hanging():
            go_on.set()
            await asyncio.sleep(0.1)
            call.cancel()
            await asyncio.sleep(0.1)
            assert not call.done()
        await asyncio.wait([call])
        assert call.cancelled()
        assert (scope.spent, scope.purse.held) == (PRICE, 0)
    assert stores.counted() == (PRICE, 0, 1)


@pytest.mark.slow
@pytest.mark.blocking(3000)
async def test_refused_by_a_store_that_hangs(server: RedisServer | PostgresServer | None, tmp_path: Path) -> None:
    """A store that does not answer in time refuses 16 calls at once, and no one of them holds up the loop."""
    impatient = {"timeout": 1.0} if server else {"patience": 1.0}
    stores = Stores(server, tmp_path, once=False, rest=0.01, **impatient)
    async with stores.scope(run_id="one"):
        await stores.tool.acall(number=-1)
        async with watched() as gaps:
            with stores.hanging():
                calls = (stores.tool.acall(number=number) for number in range(16))
                refused = await asyncio.gather(*calls, return_exceptions=True)
    print(f"longest gap of the loop {max(gaps) * 1e3:.0f} ms")
    assert [type(one).__mro__[1] for one in refused] == [StoreUnavailable] * 16
    assert stores.ran == [-1]
    assert max(gaps) < GAP


@pytest.mark.blocking(3000)
async def test_models(stores: Stores) -> None:
    """Attempts of the gateway's async engine reserve and settle without holding up the loop, too."""
    predict = dspy.Predict("question -> answer")
    lm = Gateway(World().as_models(), name="loop-models").lm("small")
    async with stores.scope(run_id="one") as scope:
        with dspy.context(lm=lm):
            await predict.acall(question="How much is 17 + 25?")
            async with watched() as gaps:
                with stores.hanging():
                    calls = [asyncio.create_task(predict.acall(question="How much is 1 + 2?")) for _ in range(5)]
                    await asyncio.sleep(0.6)
                await asyncio.gather(*calls)
        assert stores.ledger.account("tenant:acme").settled == scope.spent > 0
        assert scope.purse.held == 0
    assert max(gaps) < GAP
