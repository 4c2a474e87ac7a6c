"""What the cache of responses asks of a store, on disk and in Redis alike; and stores that go away."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from escalade.agents.cache._shelf import AnswerStore
from escalade.registry.stores.disk_cache import DiskCache
from escalade.registry.stores.redis_cache import RedisCache
from tests import _forks
from tests._house import ROOT
from tests.agents.cache.worlds import MODES, World, answering
from tests.servers.redis_server import RedisServer


@pytest.fixture(params=["disk", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnswerStore]:
    """An empty one of each kind."""
    if request.param == "redis":
        with RedisServer() as server:
            yield RedisCache(server.url, timeout=10.0)
        return
    yield DiskCache(tmp_path / "answers", patience=10.0)


def test_forgotten_by_word(store: AnswerStore) -> None:
    """What has a word in its tag is forgotten, whichever other words it has; a part of a word is not the word."""
    tags = {"a": "t1 m1 k1", "b": "t1 m2 k2", "c": "t2 m1 k1", "d": "t11 m11", "e": ""}
    for key, tag in tags.items():
        store.set(key, b"1", 60.0, tag)
    store.forget("t1")
    assert [store.get(key) is not None for key in tags] == [False, False, True, True, True]
    store.set("a", b"2", 60.0, tags["a"])
    store.forget("nothing of the kind")
    assert store.get("a") == b"2"
    store.forget("m1")
    assert [store.get(key) is not None for key in tags] == [False, False, False, True, True]
    store.delete("d")
    store.delete("d")
    assert store.get("d") is None


def test_one_claim_at_a_time(store: AnswerStore) -> None:
    """Of many who claim at once, one gets it; released, or its time up, it is free; only its holder can release it."""
    with ThreadPoolExecutor(8) as pool:
        tokens = [token for token in pool.map(lambda _: store.claim("k", 60.0), range(8)) if token]
    assert len(tokens) == 1
    store.release("k", "somebody else's")
    assert store.claim("k", 60.0) is None
    assert store.claim("another", 60.0)
    store.release("k", tokens[0])
    assert store.claim("k", 0.05)
    time.sleep(0.1)
    assert store.claim("k", 60.0)


DIES = """
import sys
from escalade.registry.stores.disk_cache import DiskCache
assert DiskCache(sys.argv[1]).claim("k", 600.0)
"""


def test_claim_of_the_dead_is_free(tmp_path: Path) -> None:
    """A process that has ended claims nothing any more."""
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path / "answers")], cwd=ROOT, check=True)
    assert DiskCache(tmp_path / "answers").claim("k", 60.0)


@pytest.mark.parametrize("mode", MODES)
def test_server_that_dies_costs_hits_only(mode: str) -> None:
    """Redis is killed: calls are answered; it comes back, empty: answers are kept again."""
    with RedisServer() as server:
        world = World(store=RedisCache(server.url, timeout=3.0, rest=0.1), memory=0)
        world.ask(mode=mode)
        assert world.ask(mode=mode).answer == "42"
        assert world.calls == 1
        server.kill()
        began = time.monotonic()
        for _ in range(3):
            assert world.ask(mode=mode).answer == "42"
        assert time.monotonic() - began < 10
        assert world.calls == 4
        assert world.cache.stats().failures > 0
        server.start()
        time.sleep(0.2)
        world.ask(mode=mode)
        world.ask(mode=mode)
        assert world.calls == 5


def test_two_hosts_share_answers_and_evictions() -> None:
    """Two caches on one server: what one has kept the other finds; what one forgets the other has for a minute."""
    with RedisServer() as server:
        one = World([answering("one")], store=RedisCache(server.url, timeout=10.0))
        other = World([answering("other")], store=RedisCache(server.url, timeout=10.0), transport=one.model)
        assert [world.ask().answer for world in (one, other)] == ["one", "one"]
        one.cache.evict(tenant="acme")
        assert other.ask().answer == "one"
        other.clock.at += 61
        assert other.ask().answer == "42"
        assert one.calls == 2


def test_full_disk_is_a_miss(tmp_path: Path) -> None:
    """Beyond its size what was kept first goes first, and calls go on."""
    world = World(
        (answering("x" * 4_000) for _ in range(1_000)), path=tmp_path / "answers", memory=0, size_limit=1 << 20
    )
    for number in range(300):
        world.ask(f"question number {number}")
    assert world.cache.stats().failures == 0
    assert isinstance(world.cache.shelf.store, DiskCache)
    assert world.cache.shelf.store.size() < 2 << 20
    before = world.calls
    world.ask("question number 299")
    assert world.calls == before
    world.ask("question number 0")
    assert world.calls == before + 1


FORKS = """
import sys, threading
from tests._forks import in_child
from tests.agents.cache.worlds import World, answering

def child():
    assert world.ask().answer == "kept"
    assert world.calls == 1
    assert world.ask("another question").answer == "new"

def asking():
    while True:
        other.ask()

world = World([answering("kept"), answering("new")], path=sys.argv[1], memory=0)
world.ask()
other = World([answering("other")], path=sys.argv[2], memory=0, name="other")
other.ask()
threading.Thread(target=asking, daemon=True).start()
in_child(child)
assert world.ask("another question").answer == "new"
assert world.calls == 1, "what the child has asked is known here, too"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_go_on(tmp_path: Path) -> None:
    """A child of a process that uses the cache uses it, too."""
    _forks.run(FORKS, tmp_path / "answers", tmp_path / "others")


def test_many_threads_on_one_folder(tmp_path: Path) -> None:
    """Threads that write and read different questions at once lose nothing and mix nothing up."""
    world = World(path=tmp_path / "answers")
    wrong: list[Any] = []

    def ask(number: int) -> None:
        answers = [world.ask(f"number {number} of {question}").answer for question in range(10)]
        wrong.extend(answer for answer in answers if answer != "42")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert world.calls == 80
