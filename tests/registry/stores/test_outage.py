"""Stores that are down, alone and together: nothing runs unchecked that was not told to, nothing is debited, all of it
is counted and recorded, and when they are back everything goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade.errors import ApprovalRequired, Refused, StoreUnavailable
from escalade.registry.approvals import Approvals, PostgresRequests, SqliteRequests
from escalade.registry.audit import AuditLog, AuditUnavailable, reading
from escalade.registry.budgets import Budget
from escalade.registry.catalogue import Registry
from escalade.registry.limits import RateLimit, Taken
from escalade.registry.metrics import usage_metrics
from escalade.registry.tools import tool
from tests.registry.stores.crowd import open_ledger
from tests.registry.stores.limited import open_limiter
from tests.registry.stores.writers import open_claims
from tests.servers.redis_server import RedisServer

PARTS = ("budgets", "limits", "claims", "approvals", "audit")
SHARED = PARTS[:3]
CLERKS = escalade.Roles({"clerk": ["pay.*:call"], "boss": ["pay.*:approve"]})
CARL = escalade.Principal("carl", "acme", frozenset({"clerk"}))
MIA = escalade.Principal("mia", "acme", frozenset({"boss"}))
PRICE = 100_000_000
QUICK: dict[str, dict[str, float]] = {
    "sqlite": {"patience": 0.05},
    "redis": {"timeout": 0.1},
    "postgres": {"timeout": 0.25},
}
TABLES = {
    "budgets": "accounts",
    "limits": "uses",
    "claims": "calls",
    "approvals": "approvals",
    "audit": "audit_entries",
}


class World:
    """A tool with everything: a price, limits, made once, approved each time, recorded. Each store is a file, a server,
    or a table of the database at `url`, of its own.
    """

    def __init__(self, kind: str, folder: Path, servers: dict[str, RedisServer], when_down: Any, url: str = "") -> None:
        self.folder, self.servers, self.ran, self.url = folder, servers, list[int](), url
        self.blockers: dict[str, Any] = {}
        where = {part: servers[part].url if part in servers else str(folder / f"{part}.db") for part in PARTS}
        where |= dict.fromkeys(PARTS, url) if url else {}
        self.record = where["audit"]
        quick: dict[str, Any] = {"rest": 0.01, **QUICK[kind]}
        self.ledger = open_ledger(kind, where["budgets"], budgets=[Budget("tenant:acme", "90")], **quick)
        self.limiter = open_limiter(kind, where["limits"], **quick)
        claims = open_claims(kind, where["claims"])
        if kind == "postgres":
            claims.server._timeout = QUICK[kind]["timeout"]
            claims.close()
        elif kind == "redis":
            claims.server._client.connection_pool.connection_kwargs["socket_timeout"] = 0.1
        else:
            claims.database._patience = 0.05
            claims.database.close()
        self.claims = claims
        self.meanwhile: Callable[[], None] = lambda: None
        requests = PostgresRequests(url, timeout=0.25) if url else SqliteRequests(where["approvals"], wait=0.05)
        self.desk = Approvals(requests, access=CLERKS)
        self.log = AuditLog(where["audit"], patience=0.2)

        @tool(name="pay.out", once=True, approval="always", limits="9000/h", cost="0.10", when_store_is_down=when_down)
        def pay(number: int) -> str:
            """Pay."""
            self.ran.append(number)
            self.meanwhile()
            return f"paid {number}"

        self.registry = Registry([pay], limiter=self.limiter, claims=claims, name="outage")
        self.tool = self.registry.get_tool("pay.out")

    def scope(self, run: str, **options: Any) -> Any:
        shared = {"ledger": self.ledger, "approvals": self.desk, "recorder": self.log}
        return escalade.scope(principal=CARL, access=CLERKS, run_id=run, **shared, **options)

    def approved(self, number: int) -> None:
        with pytest.raises(ApprovalRequired) as asked:
            self.tool(number=number)
        assert asked.value.request_id
        self.desk.approve(asked.value.request_id, by=MIA)

    def fail(self, part: str) -> None:
        """From now on it doesn't answer: a server that hangs, a file or table that somebody else writes and writes."""
        if part in self.servers:
            self.servers[part].pause()
            return
        if self.url:
            import psycopg

            self.blockers[part] = psycopg.connect(self.url)
            self.blockers[part].execute(f"LOCK TABLE escalade.{TABLES[part]}")
            return
        blocker = self.blockers[part] = sqlite3.connect(self.folder / f"{part}.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")

    def mend(self, part: str) -> None:
        if part in self.servers:
            self.servers[part].go_on()
            return
        blocker = self.blockers.pop(part)
        blocker.rollback()  # a server lets go some time after its client has left
        blocker.close()

    def settle_down(self) -> None:
        """All that waited for a store has been done, and no store is left alone any more."""
        time.sleep(0.02)
        until(lambda: _quiet(self.log.flush))  # one that is well may be about to find out that it isn't
        until(lambda: self.log.health().ok)
        until(lambda: _quiet(self.ledger.keep))

    def books(self) -> tuple[int, int, int, int]:
        """Settled, held, uses in the windows, refusals that were counted."""
        account = self.ledger.account("tenant:acme")
        (usage,) = self.registry.usage()
        return account.settled, account.held, self.uses(), usage.denied

    def uses(self) -> int:
        if self.url:
            return int(self.limiter.server.ask("SELECT count(*) FROM uses")[0][0])
        if "limits" not in self.servers:
            return int(self.limiter.database.read("SELECT count(*) FROM uses")[0][0])
        keys = self.limiter.server.command("KEYS", "*:uses:*")
        return sum(self.limiter.server.command("ZCARD", key) for key in keys)


def all_of(do: Callable[[Any], None], things: Iterable[Any]) -> None:
    """Do it to each."""
    for one in things:
        do(one)


def until(true: Callable[[], object], seconds: float = 10) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def _quiet(do: Callable[[], object]) -> bool:
    try:
        do()
    except (StoreUnavailable, AuditUnavailable):
        return False
    return True


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    """Where budgets, limits and claims are."""
    return str(request.param)


@pytest.fixture
def when_down() -> str:
    """What the tool says of limits that can't be checked."""
    return "closed"


@pytest.fixture
def world(
    kind: str, when_down: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[World]:
    """Everything works."""
    monkeypatch.setattr("escalade.registry.stores.claims.RETRY", 0.05)
    with contextlib.ExitStack() as stack:
        servers = {part: stack.enter_context(RedisServer()) for part in SHARED} if kind == "redis" else {}
        url = request.getfixturevalue("postgres_url") if kind == "postgres" else ""
        made = World(kind, tmp_path, servers, when_down, url)
        yield made
        for part in list(made.blockers):
            made.mend(part)
        until(lambda: made.log.health().ok)
        made.log.close()
        made.ledger.close()


@pytest.mark.slow
@pytest.mark.parametrize("when_down", ["closed", "open"])
def test_every_combination(world: World, when_down: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whichever of the five stores are down: the call is refused, or, if it is only the limits and the tool stays open,
    made and marked. A refusal debits nothing, is counted and recorded. When all are back, the call is made, once, with
    the approval that was given before.
    """
    parts = SHARED if world.servers else PARTS  # the others are files in any case
    sizes = (1, 2, 5) if world.url else range(1, 6)  # over a network each takes half a second
    subsets = [set(s) for n in sizes for s in itertools.combinations(parts, n)]
    for number, down in enumerate(subsets):
        events: list[Any] = []
        with world.scope(f"run-{number}", listen=events.append):
            world.approved(number)
            before = world.books()
            for part in down:
                world.fail(part)
            marked = when_down == "open" and down == {"limits"}
            if marked:
                assert world.tool(number=number) == f"paid {number}", down
            else:
                with pytest.raises(Refused) as refused:
                    world.tool(number=number)
                assert isinstance(refused.value, StoreUnavailable | AuditUnavailable), down
                assert number not in world.ran, down
            for part in down:
                world.mend(part)
            world.settle_down()
            settled, held, uses, denied = world.books()
            late = "limits" in down and "limits" in world.servers  # a server that hangs may count what it was asked
            assert (settled - before[0], held, denied - before[3]) == ((PRICE, 0, 0) if marked else (0, 0, 1)), down
            assert 0 <= uses - before[2] <= late, down
            assert world.tool(number=number) == f"paid {number}", down
        assert world.ran.count(number) == 1, down
        assert recorded(world, f"run-{number}", marked=marked) == [], down
        unchecked = when_down == "open" and "limits" in down and not down & {"claims", "approvals"}  # which come before
        assert [type(event).__name__ for event in events].count("LimitsUnchecked") == unchecked, down
    unlimited = sum("limits" in down and not down & {"claims", "approvals"} for down in subsets if when_down == "open")
    assert caplog.text.count("is used without its rate limits") == unlimited
    refusals = world.registry.usage()[0].refusals
    assert set(refusals) - {"AuditUnavailable"} == {"ApprovalRequired", "StoreUnavailable"}
    assert ("AuditUnavailable" in refusals) == ("audit" in parts)
    assert 'reason="StoreUnavailable"' in usage_metrics(world.registry)


def recorded(world: World, run: str, *, marked: bool) -> list[str]:
    """What is missing in the audit of a run."""
    world.log.flush()
    rows = [row.fields() | {"event": row.event} for row in reading.rows(world.record) if row.event in EVENTS]
    mine = [row for row in rows if row["run"] == run]
    denied = [row["outcome"] for row in mine if row["event"] == "denied" and row["outcome"] != "ApprovalRequired"]
    wanted = [] if marked else ["a denial"]
    missing = wanted if not set(denied) & {"StoreUnavailable", "AuditUnavailable"} else []
    if not any(row["event"] == "outcome" and row["outcome"] == "ok" for row in mine):
        missing.append("an outcome")
    if marked and not any(row.get("unchecked") == "limits" for row in mine):
        missing.append("the mark")
    return missing


EVENTS = ("intent", "outcome", "denied")


@pytest.mark.parametrize("down", [SHARED, ("audit",), (*SHARED, "audit")], ids=["shared", "audit", "all"])
def test_in_the_middle_of_a_call(world: World, down: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    """What has begun goes on, and its result is given. Until the stores are back the whole reservation counts, the call
    stays claimed and its outcome is kept; then all of it is booked, told and written, once.
    """
    with world.scope("run"):
        world.approved(1)
        world.meanwhile = lambda: all_of(world.fail, down)
        assert world.tool(number=1) == "paid 1"
        if "budgets" in down:
            assert (world.ledger.unsettled, world.claims.untold) == (1, 1)
            assert "its full reservation counts meanwhile" in caplog.text
            assert "could not be shared" in caplog.text
        if "audit" in down:
            until(lambda: world.log.health().kept == 1)
        for part in down:
            world.mend(part)
        world.settle_down()
        until(lambda: not world.claims.untold)
    assert world.books() == (PRICE, 0, 1, 1)
    assert recorded(world, "run", marked=True) == ["the mark"]
    world.meanwhile = lambda: None
    other = Registry([again(world)], claims=world.claims, name="other")
    with escalade.scope(principal=CARL, access=CLERKS, run_id="run"):
        assert other.get_tool("pay.out")(number=1) == "paid 1"
    assert world.ran == [1]


def again(world: World) -> Any:
    """The tool as another process has it, where nobody need be asked."""

    @tool(name="pay.out", once=True)
    def pay(number: int) -> str:
        """Pay."""
        world.ran.append(number)
        return "paid twice"

    return pay


def test_an_approval_that_can_not_be_given_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spent, then the audit refuses, and the store of approvals is down, too: the call is refused, the money is free,
    and the approval is gone, rather than good for a second call.
    """
    with world.scope("run"):
        world.approved(1)
        intent = world.log.intent

        def refuse(entry: Any) -> None:
            world.fail("approvals")
            raise AuditUnavailable("the disk is full")

        monkeypatch.setattr(world.log, "intent", refuse)
        with pytest.raises(Refused):
            world.tool(number=1)
        monkeypatch.setattr(world.log, "intent", intent)
        world.mend("approvals")
        assert world.books() == (0, 0, 0, 2)
        with pytest.raises(ApprovalRequired):
            world.tool(number=1)
    assert world.ran == []


def test_a_server_that_lost_its_data(tmp_path: Path) -> None:
    """Killed in the middle of a call, it comes back empty: budgets refuse until somebody sets them again, windows begin
    anew, and a call that was under way is told as done, so that nobody makes it again.
    """
    with contextlib.ExitStack() as stack:
        servers = {part: stack.enter_context(RedisServer()) for part in SHARED}
        world = World("redis", tmp_path, servers, "closed")
        stack.callback(world.log.close)
        world.meanwhile = lambda: all_of(RedisServer.kill, servers.values())
        with world.scope("run"):
            world.approved(1)
            assert world.tool(number=1) == "paid 1"
            for server in servers.values():
                server.start()
            until(lambda: not world.claims.untold)
            world.meanwhile = lambda: None
            time.sleep(0.05)
            world.approved(2)
            with pytest.raises(StoreUnavailable) as lost:
                world.tool(number=2)
            assert "has lost budget" in str(lost.value.__cause__)
            world.ledger.set_budget(Budget("tenant:acme", "89.90"))
            time.sleep(0.02)
            assert world.tool(number=2) == "paid 2"
        with escalade.scope(principal=CARL, access=CLERKS, run_id="run"):
            other = Registry([again(world)], claims=world.claims, name="other").get_tool("pay.out")
            assert [other(number=1), other(number=2)] == ["paid 1", "paid 2"]
    assert world.ran == [1, 2]


def test_disk_full_for_approvals(tmp_path: Path) -> None:
    """No space for requests: calls that need one are refused; with space, all goes on."""
    world = World("sqlite", tmp_path, {}, "closed")
    with world.scope("run"):
        world.approved(1)
        store: Any = world.desk.store
        full(store._connection, yes=True)
        with pytest.raises(StoreUnavailable):
            for number in range(2, 500):
                with contextlib.suppress(ApprovalRequired):
                    world.tool(number=number)
        full(store._connection, yes=False)
        assert world.tool(number=1) == "paid 1"
    assert world.ran == [1]
    world.log.close()
    world.ledger.close()


@pytest.mark.parametrize("part", ["limits", "claims"])
def test_disk_full(tmp_path: Path, part: str) -> None:
    """No space for uses or claims: refused, and none is half there; with space, all goes on."""
    limiter, claims = (
        open_limiter("sqlite", str(tmp_path / "l.db"), rest=0.01),
        open_claims("sqlite", str(tmp_path / "c.db")),
    )
    database = limiter.database if part == "limits" else claims.database
    taken = 0

    def take(number: int) -> None:
        if part == "claims":
            assert claims.claim(f"call {number}", again=False) == ("mine", None)
        else:
            assert isinstance(limiter.take_all(((f"user {number}", RateLimit(1, 60.0)),)), Taken)

    full(database._connection, yes=True)
    with pytest.raises(StoreUnavailable, match="full"):
        for taken in itertools.count():
            take(taken)
    assert taken > 5
    table = "uses" if part == "limits" else "calls"
    assert database.read(f"SELECT count(*) FROM {table}") == [(taken,)]  # noqa: S608
    full(database._connection, yes=False)
    time.sleep(0.02)
    take(taken)


def full(connection: sqlite3.Connection, *, yes: bool) -> None:
    """Let SQLite find no more space, or find it again."""
    pages = connection.execute("PRAGMA page_count").fetchone()[0] if yes else 2**30
    connection.execute(f"PRAGMA max_page_count={pages}")


def test_errors_while_nobody_knows_the_budget(world: World) -> None:
    """A model is told what happened as ever, without what is left; of the store it is told no name and no address."""
    with world.scope("run"):
        world.approved(1)
        world.fail("budgets")
        if "budgets" in world.servers:
            with pytest.raises(ApprovalRequired) as asked:
                world.tool(number=2)
            assert "budget_left" not in str(asked.value)
        with pytest.raises(StoreUnavailable) as refused:
            world.tool(number=1)
        assert "a store that this call needs can't be reached" in str(refused.value)
        assert ".db" not in str(refused.value)
        world.mend("budgets")
