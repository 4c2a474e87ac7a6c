"""Limiter, claims and cache in PostgreSQL: what is forgotten, what has a limit, and how many connections that takes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import escalade
from escalade.errors import BadInput, StoreUnavailable
from escalade.registry.limits import RateLimit, Taken
from escalade.registry.stores.postgres_cache import MEBIBYTE, PostgresCache
from escalade.registry.stores.postgres_claims import PostgresClaims
from escalade.registry.stores.postgres_limits import PostgresLimiter
from tests.registry.helpers import Clock
from tests.servers.postgres_server import PostgresServer


def test_the_size_of_a_cache_has_a_limit(postgres_url: str) -> None:
    """It does not outgrow it by more than a 32nd; the newest stay; what is too large for it pushes nothing out."""
    cache = PostgresCache(postgres_url, size_limit=2 * MEBIBYTE, timeout=10.0)
    cache.set("short", b"1", 0.0)
    for number in range(600):
        cache.set(str(number), bytes(10_000), 60.0)
    assert MEBIBYTE < cache.size() < 2 * MEBIBYTE * 33 / 32 + 10_000
    assert cache.get("599") == bytes(10_000)
    assert cache.get("0") is None
    assert cache.server.ask("SELECT key FROM cached WHERE key = 'short'") == [], "its time is up"
    cache.set("huge", bytes(MEBIBYTE), 60.0)
    assert (cache.get("huge"), cache.get("599")) == (None, bytes(10_000))
    with pytest.raises(BadInput, match="size_limit"):
        PostgresCache(postgres_url, size_limit=10)


def test_words_of_tags_are_forgotten(postgres_url: str) -> None:
    """Whatever has the word in its tag goes, and nothing that only contains it."""
    cache = PostgresCache(postgres_url, timeout=10.0)
    for key, tag in (("a", "one two"), ("b", "two"), ("c", "twofold"), ("d", "")):
        cache.set(key, b"1", 60.0, tag)
    cache.forget("two")
    assert [cache.get(key) for key in "abcd"] == [None, None, b"1", b"1"]
    cache.delete("c")
    assert cache.get("c") is None


def test_one_works_a_value_out(postgres_url: str) -> None:
    """One token at a time; it ends when it is given back, by who has it, or when its time is up."""
    one, two = (PostgresCache(postgres_url, timeout=10.0) for _ in range(2))
    token = one.claim("k", 60.0)
    assert token
    assert two.claim("k", 60.0) is None
    two.release("k", "another")
    assert two.claim("k", 60.0) is None
    one.release("k", token)
    assert two.claim("k", 0.05)
    time.sleep(0.1)
    assert one.claim("k", 60.0)
    with ThreadPoolExecutor(8) as pool:
        assert len([token for token in pool.map(lambda _: one.claim("n", 60.0), range(8)) if token]) == 1


def test_a_cache_whose_server_crashed(postgres: PostgresServer, postgres_url: str) -> None:
    """While it is away every look is a miss, soon; after a crash it is empty, and then keeps values again."""

    @escalade.tool(name="t", side_effects="read", cache=60)
    def same(x: int) -> int:
        return x

    registry = escalade.Registry([same], name="crash", cache=PostgresCache(postgres_url, rest=0.05, timeout=5.0))
    tool = registry.get_tool("t")
    with escalade.scope():
        assert [tool(x=1), tool(x=1)] == [1, 1]
        assert registry.usage()[0].calls == 1
        postgres.stop()
        try:
            began = time.monotonic()
            assert [tool(x=x) for x in (1, 1, 2)] == [1, 1, 2]
            assert time.monotonic() - began < 10, "each could wait 5 s, to look and to keep"
        finally:
            postgres.start()
        time.sleep(0.1)
        assert [tool(x=1), tool(x=1)] == [1, 1]
    assert registry.usage()[0].calls == 5, "made anew once, then found"


def test_old_uses_are_forgotten(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of users who left don't pile up."""
    monkeypatch.setattr("escalade.registry.stores.postgres_limits._SWEEP", 10)
    clock = Clock(0.0)
    limiter = PostgresLimiter(postgres_url, now=clock, timeout=10.0)
    for number in range(100):
        clock.forward(1.0)
        assert isinstance(limiter.take_all(((f"user {number}", RateLimit(1, 5.0)),)), Taken)
    assert limiter.server.ask("SELECT count(*) FROM uses")[0][0] <= 15


def test_old_calls_are_forgotten(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have ended, after `keep` seconds; one that runs is remembered for as long as it runs."""
    monkeypatch.setattr("escalade.registry.stores.postgres_claims._SWEEP", 10)
    claims = PostgresClaims(postgres_url, keep=0.05, timeout=10.0)
    for number in range(30):
        assert claims.claim(str(number), again=False) == ("mine", None)
        if number:
            claims.done(str(number), b"1")
    time.sleep(0.1)
    for number in range(30, 40):
        claims.claim(str(number), again=False)
    keys = {key for (key,) in claims.server.ask("SELECT key FROM calls")}
    assert keys == {"0", *(str(number) for number in range(30, 40))}


def test_connections_are_few(postgres_url: str) -> None:
    """However many threads ask, no more sessions than were said; who waits for one too long is refused."""
    limiter = PostgresLimiter(postgres_url, connections=3, timeout=10.0)
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'escalade'"
    with ThreadPoolExecutor(16) as pool:
        uses = [pool.submit(limiter.take_all, ((f"k{n % 5}", RateLimit(9, 60.0)),)) for n in range(200)]
        sessions = max(limiter.server.ask(count)[0][0] for _ in range(10))
        assert sum(isinstance(use.result(), Taken) for use in uses) == 5 * 9
    assert 1 <= sessions <= 3
    narrow = PostgresLimiter(postgres_url, connections=1, timeout=0.3)
    narrow.wait((("k", RateLimit(1, 1.0)),))
    with ThreadPoolExecutor(1) as pool:
        asleep = pool.submit(lambda: narrow.server.ask("SELECT pg_sleep(0.25)"))
        time.sleep(0.02)
        narrow.server._timeout = 0.1
        with pytest.raises(StoreUnavailable, match="all connections are in use"):
            narrow.wait((("k", RateLimit(1, 1.0)),))
        asleep.result()
