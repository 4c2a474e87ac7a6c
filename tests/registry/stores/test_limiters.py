"""Limiters over stores mean what the one in memory means; several windows at once, several processes, and outages."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

import escalade
from escalade.errors import RateLimited, StoreUnavailable
from escalade.registry.guard import Resource, use
from escalade.registry.journal import Journal
from escalade.registry.limits import Limiter, RateLimit, Taken, parse_limits
from escalade.registry.stores.postgres_limits import PostgresLimiter
from escalade.registry.stores.sqlite_limits import SqliteLimiter
from tests.registry.helpers import Clock
from tests.registry.stores.killing import limits_under_kills
from tests.registry.stores.limited import IN_ALL
from tests.servers.redis_server import RedisServer

KINDS = ["sqlite", "redis", "postgres"]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A real server for all of these tests."""
    with RedisServer() as running:
        yield running


class Fresh:
    """Limiters of a kind, on stores that are empty when they are first used."""

    def __init__(self, kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self.kind, self.folder, self.number = kind, folder, 0
        servers = {"redis": "server", "postgres": "postgres"}
        self.server: Any = request.getfixturevalue(servers[kind]) if kind in servers else None
        self._url = request.getfixturevalue("postgres_url") if kind == "postgres" else ""

    def where(self) -> str:
        self.number += 1
        if self.kind == "redis":
            _flush(self.server)
            return str(self.server.url)
        if self.kind == "postgres":
            self.server.ask("DROP SCHEMA IF EXISTS escalade CASCADE", self._url)
            return self._url
        return str(self.folder / f"{self.number}.db")

    def limiter(self, **options: Any) -> Any:
        return _open(self.kind, self.where(), **options)


def _flush(server: RedisServer) -> None:
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.flushall()


def _open(kind: str, where: str, **options: Any) -> Any:
    if kind == "sqlite":
        return SqliteLimiter(where, **options)
    if kind == "postgres":
        return PostgresLimiter(where, **{"timeout": 10.0, "connections": 8, **options})
    from escalade.registry.stores.redis_limits import RedisLimiter

    return RedisLimiter(where, **options)


@pytest.fixture(params=KINDS)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Fresh:
    """All kinds."""
    return Fresh(request.param, tmp_path, request)


rate_limits = st.builds(RateLimit, st.integers(1, 4), st.sampled_from([1.0, 2.0, 5.0]))
windows = st.lists(st.tuples(st.sampled_from(["a", "b"]), rate_limits), min_size=1, max_size=3, unique=True)
steps = st.lists(
    st.tuples(windows, st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0]), st.sampled_from(["keep", "keep", "give back"])),
    max_size=25,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=st.lists(windows, min_size=1, max_size=2), steps=steps)
def test_they_mean_what_memory_means(fresh: Fresh, shapes: Any, steps: Any) -> None:
    """Whatever is taken and given back at whatever times: the answers are those of the limiter in memory."""
    clock = Clock(1_000.0)
    ours, memory = fresh.limiter(now=clock), Limiter(clock)
    wanted = tuple(shapes[0])  # one set of windows for all: a log of a key keeps what its longest window needs
    for _, seconds, then in steps:
        clock.forward(seconds)
        assert ours.wait(wanted) == pytest.approx(memory.wait(wanted))
        first, second = ours.take_all(wanted), memory.take_all(wanted)
        if isinstance(second, Taken):
            assert isinstance(first, Taken)
            if then == "give back":
                ours.give_back(first)
                memory.give_back(second)
        else:
            assert first == pytest.approx(second)


def test_all_windows_or_none(fresh: Fresh) -> None:
    """A use that one window refuses debits none of the others, of other keys either."""
    limiter = fresh.limiter()
    user, tenant = ("user", RateLimit(2, 60.0)), ("tenant", RateLimit(3, 60.0))
    assert isinstance(limiter.take_all((tenant,)), Taken)
    assert [type(limiter.take_all((user, tenant))) for _ in range(3)] == [Taken, Taken, float]
    assert limiter.wait((("user", RateLimit(3, 60.0)),)) == 0.0
    assert 59 < limiter.wait((user,)) <= 60
    assert limiter.wait(()) == 0.0


def test_no_names_are_kept(fresh: Fresh) -> None:
    """A store has digests of keys, in which users and tenants are named; who is limited is told apart all the same."""
    limiter = fresh.limiter()
    one, two = (((f"mail.send|'acme'|'{name}@example.com'", RateLimit(1, 60.0)),) for name in ("ana", "bo"))
    assert [type(limiter.take_all(windows)) for windows in (one, two, one)] == [Taken, Taken, float]
    if fresh.kind == "redis":
        assert "ana" not in str(limiter.server.command("KEYS", "*"))
    elif fresh.kind == "postgres":
        assert "ana" not in str(limiter.server.ask("SELECT key, id FROM uses"))
    else:
        limiter.database.close()
        assert not [path for path in fresh.folder.iterdir() if b"example" in path.read_bytes()]


def test_one_thread_too_many(fresh: Fresh) -> None:
    """Of 200 threads at once, exactly as many as the tightest window allows get in."""
    limiter = fresh.limiter()
    wanted = tuple(("k", one) for one in parse_limits("100/min, 60/h"))
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda _: limiter.take_all(wanted), range(200)))
    assert sum(isinstance(one, Taken) for one in got) == 60


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_9_at_random(fresh: Fresh, tmp_path: Path) -> None:
    """64 threads x 4 processes, killed at random: no window ever has more uses than it allows, none is forgotten."""
    seconds = 3.0 if fresh.kind == "postgres" else 6.0
    found = limits_under_kills(fresh.kind, fresh.where(), tmp_path / "log.txt", seconds)
    print(fresh.kind, found)
    assert found["deaths"] >= 3
    assert found["known"] > IN_ALL * 0.8, "enough was used for this to mean something"


class Calls:
    """A resource on a limiter, used in a scope that keeps a journal and its events."""

    def __init__(self, limiter: Any, **options: Any) -> None:
        self.resource = Resource(
            "t", "1", "tool", "t:call", limits=parse_limits("2/min"), limiter=limiter, **options
        )  # fmt: skip
        self.journal, self.events = Journal(), list[Any]()

    def use(self) -> int:
        with escalade.scope(recorder=self.journal, listen=self.events.append):
            return use(self.resource, lambda: 1, ceiling=0)


def _break(fresh: Fresh, limiter: Any) -> Any:
    """Make the store fail."""
    if fresh.kind != "sqlite":
        fresh.server.kill() if fresh.kind == "redis" else fresh.server.stop()
        return None
    blocker = sqlite3.connect(limiter.database.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    return blocker


def _mend(fresh: Fresh, blocker: Any) -> None:
    if fresh.kind != "sqlite":
        fresh.server.start()
    else:
        blocker.close()


def test_a_store_that_is_down_is_closed(fresh: Fresh) -> None:
    """Nothing runs while the limits can't be checked; when they can again, all goes on."""
    limiter = _open(fresh.kind, fresh.where(), rest=0.01, **({"patience": 0.05} if fresh.kind == "sqlite" else {}))
    calls = Calls(limiter)
    assert calls.use() == 1
    broken = _break(fresh, limiter)
    try:
        with pytest.raises(StoreUnavailable):
            calls.use()
    finally:
        _mend(fresh, broken)
    assert [entry.outcome for entry in calls.journal.denials()] == ["StoreUnavailable"]
    time.sleep(0.02)
    assert calls.use() == 1


def test_open_is_a_choice_and_never_silent(fresh: Fresh, caplog: pytest.LogCaptureFixture) -> None:
    """A resource that is said to stay open runs without limits; the entry, an event and the log say so each time."""
    limiter = _open(fresh.kind, fresh.where(), rest=0.01, **({"patience": 0.05} if fresh.kind == "sqlite" else {}))
    calls = Calls(limiter, when_store_is_down="open")
    assert calls.use() == 1
    broken = _break(fresh, limiter)
    try:
        assert [calls.use() for _ in range(3)] == [1, 1, 1]
    finally:
        _mend(fresh, broken)
    assert [entry.unchecked for entry in calls.journal.entries()] == ["", "limits", "limits", "limits"]
    assert sum(type(event).__name__ == "LimitsUnchecked" for event in calls.events) == 3
    assert caplog.text.count("is used without its rate limits") == 3


def test_a_restart_of_the_host_empties_the_windows(tmp_path: Path) -> None:
    """The clock of the host begins anew: uses that seem to lie in the future don't count."""
    clock = Clock(10_000.0)
    limiter, wanted = SqliteLimiter(tmp_path / "l.db", now=clock), (("k", RateLimit(1, 60.0)),)
    assert isinstance(limiter.take_all(wanted), Taken)
    clock.now = 5.0
    assert limiter.wait(wanted) == 0.0
    assert isinstance(limiter.take_all(wanted), Taken)
    assert limiter.take_all(wanted) == 60.0


def test_old_uses_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of users who left don't pile up."""
    monkeypatch.setattr("escalade.registry.stores.sqlite_limits._SWEEP", 10)
    clock = Clock(0.0)
    limiter = SqliteLimiter(tmp_path / "l.db", now=clock)
    for number in range(100):
        clock.forward(1.0)
        limiter.take_all(((f"user {number}", RateLimit(1, 5.0)),))
    assert limiter.database.read("SELECT count(*) FROM uses")[0][0] <= 15


def test_limits_of_all_kinds_at_once() -> None:
    """Per tool, tenant, user and role, taken together: the first that is full refuses, and names who it counts."""
    limits = parse_limits({"tool": "6/h", "tenant": "4/h", "user": "3/h", "role:intern": "1/h"})
    resource = Resource("t", "1", "tool", "t:call", limits=limits)
    access = escalade.Roles({"user": ["*"], "intern": ["*"]})

    def uses(user: str, tenant: str, role: str, times: int) -> int:
        done = 0
        with escalade.scope(principal=escalade.Principal(user, tenant, frozenset({role})), access=access):
            for _ in range(times):
                try:
                    done += use(resource, lambda: 1, ceiling=0)
                except RateLimited as full:
                    assert full.retry_after is not None
                    assert full.retry_after > 3_000
                    assert "1/h per role:intern" in str(full)
        return done

    assert uses("ida", "acme", "intern", 3) == 1
    assert uses("ivo", "acme", "intern", 3) == 0, "interns of a tenant count together"
    assert uses("ida", "other", "intern", 3) == 1, "interns of another one don't"
    assert uses("ana", "acme", "user", 5) == 3, "others aren't limited as interns are"
    assert uses("bo", "acme", "user", 5) == 0, "the tenant is full"
    assert uses("cy", "other", "user", 5) == 1, "the tool is full"
