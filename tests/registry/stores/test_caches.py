"""Caches in memory, on disk, in servers: what they promise alike; no row is unpickled; none breaks a call."""

from __future__ import annotations

import asyncio
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import DiskCache, Registry
from escalade.errors import BadInput, DataError, StoreUnavailable
from escalade.registry.cache import MemoryCache
from escalade.registry.journal import Journal
from escalade.registry.stores.disk_cache import MEBIBYTE
from escalade.registry.stores.postgres_cache import PostgresCache
from escalade.registry.stores.redis_cache import RedisCache
from tests import _forks
from tests._house import ROOT
from tests.servers.redis_server import RedisServer


@pytest.fixture(params=["memory", "disk", "redis", "postgres"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An empty one of each kind."""
    if request.param == "redis":
        with RedisServer() as server:
            yield RedisCache(server.url, timeout=10.0)
        return
    if request.param == "postgres":
        yield PostgresCache(request.getfixturevalue("postgres_url"), timeout=5.0)
        return
    yield MemoryCache() if request.param == "memory" else DiskCache(tmp_path / "cache")


def test_kept_until_its_time_is_up(cache: Any) -> None:
    """What was put there comes back, the newest of it, for so many seconds."""
    assert cache.get("a") is None
    cache.set("a", b"1", 60.0, "t")
    cache.set("a", '{"é":2}'.encode(), 0.6, "t")
    cache.set("b", b"", 60.0)
    assert (cache.get("a"), cache.get("b")) == ('{"é":2}'.encode(), b"")
    time.sleep(0.65)
    assert (cache.get("a"), cache.get("b")) == (None, b"")


def test_forgotten_by_tag(cache: Any) -> None:
    """A tag is forgotten and the others stay; what comes later under it is kept; without a tag all is forgotten."""
    for key, tag in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "")):
        cache.set(key, key.encode(), 60.0, tag)
    cache.clear("x")
    assert [cache.get(key) for key in "abcd"] == [None, None, b"c", b"d"]
    cache.set("a", b"again", 60.0, "x")
    assert cache.get("a") == b"again"
    cache.clear("nothing of the kind")
    cache.clear()
    assert [cache.get(key) for key in "abcd"] == [None] * 4
    cache.set("a", b"anew", 60.0, "x")
    assert cache.get("a") == b"anew"


def test_a_tool_is_forgotten(cache: Any) -> None:
    """`registry.cache.clear(tool)`: its next call runs, in all versions; other tools are still answered."""
    ran: list[str] = []

    def noting(name: str, version: str) -> Any:
        return escalade.tool(name=name, version=version, side_effects="read", cache=60)(
            lambda: ran.append(name) or name
        )

    registry = Registry(
        [noting("one", "1.0.0"), noting("one", "1.1.0"), noting("two", "1.0.0")], name="tags", cache=cache
    )
    tools = [registry.resolve("one", "1.0.0"), registry.resolve("one", "1.1.0"), registry.resolve("two")]
    with escalade.scope():
        for _ in range(2):
            assert [tool() for tool in tools] == ["one", "one", "two"]
        assert ran == ["one", "one", "two"]
        registry.cache.clear("one")
        assert [tool() for tool in tools] == ["one", "one", "two"]
    assert ran == ["one", "one", "two", "one", "one"]


PROCESS = """
import sys
import escalade
from escalade import DiskCache, Journal, Registry

@escalade.tool(side_effects="read", cache=60)
def slow(x: int) -> dict[str, int]:
    print("ran")
    return {"x": x}

tool = Registry([slow], cache=DiskCache(sys.argv[1])).get_tool("slow")
journal = Journal()
with escalade.scope(recorder=journal):
    assert tool(x=1) == {"x": 1}
print(journal.entries()[0].source or "tool")
"""


def run(code: str, *args: str) -> str:
    """What a process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_answers_outlive_processes(tmp_path: Path) -> None:
    """What one process was told, the next one finds."""
    assert run(PROCESS, str(tmp_path)) == "ran\ntool\n"
    assert run(PROCESS, str(tmp_path)) == "cache\n"


# ------------------------------------------------------------------------------------------------------------- the disk


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


PLANTED = {
    "a pickled value": (4, None, "bomb"),
    "a pickled value in a file": (4, "planted", None),
    "a file of somebody else's": (2, "../secret", None),
    "a text file of somebody else's": (3, "../secret", None),
    "bytes, and a file": (1, "../secret", b"1"),
    "a text": (1, None, "1"),
    "a number": (1, None, 1),
}
"""How diskcache marks what (mode, file, value): mode 1 is the value itself, 2 a file, 3 a text file, 4 a pickle."""


@pytest.mark.parametrize(("mode", "name", "value"), PLANTED.values(), ids=PLANTED)
def test_planted_rows_are_not_read(tmp_path: Path, mode: int, name: str | None, value: Any) -> None:
    """Whoever can write to the file can't make us execute or read anything: such a row is refused, and a miss."""
    cache, bomb = DiskCache(tmp_path / "cache"), pickle.dumps(Bomb(tmp_path / "exploded"))
    (tmp_path / "secret").write_text('"secret"')
    (tmp_path / "cache" / "planted").write_bytes(bomb)
    ran: list[int] = []
    made = escalade.tool(name="t", side_effects="read", cache=60)(lambda: ran.append(1) or 1)
    registry = Registry([made], name="planted", cache=cache)
    tool = registry.get_tool("t")
    with escalade.scope():
        tool()
        with sqlite3.connect(tmp_path / "cache" / "cache.db") as file:
            file.execute(
                "UPDATE Cache SET mode=?, filename=?, value=?", (mode, name, bomb if value == "bomb" else value)
            )
            ((key,),) = file.execute("SELECT key FROM Cache").fetchall()
        file.close()
        with pytest.raises(DataError, match="not written by us"):
            cache.get(key)
        assert tool() == 1
        assert len(ran) == 2
        assert tool() == 1, "it was written over"
    assert (len(ran), registry.usage()[0].cache_failures) == (2, 2), "both looks of the call that missed"
    cache.clear()
    assert not (tmp_path / "exploded").exists()
    assert (tmp_path / "secret").exists(), "no row can have a file removed"


def test_what_is_no_result_is_a_miss(tmp_path: Path) -> None:
    """Bytes that are no JSON, too deep, or of another type than the tool's are a miss."""
    cache, ran = DiskCache(tmp_path / "cache"), []

    def number() -> int:
        ran.append(1)
        return 7

    registry = Registry([escalade.tool(side_effects="read", cache=60)(number)], name="odd", cache=cache)
    tool = registry.get_tool("number")
    with escalade.scope():
        tool()
        for bad in (b"\xff", b"{", b'"seven"', b"[" * 100_000):
            with sqlite3.connect(tmp_path / "cache" / "cache.db") as file:
                file.execute("UPDATE Cache SET value=?", (bad,))
            file.close()
            assert tool() == 7
    assert len(ran) == 5


def test_the_size_has_a_limit(tmp_path: Path) -> None:
    """The folder does not outgrow it; the newest stay; a value that is too large for it pushes nothing out."""
    cache = DiskCache(tmp_path / "cache", size_limit=2 * MEBIBYTE)
    for number in range(600):
        cache.set(str(number), bytes(10_000), 60.0)
    assert 1 * MEBIBYTE < cache.size() < 2.1 * MEBIBYTE
    assert cache.get("599") is not None
    assert cache.get("0") is None
    cache.set("huge", bytes(MEBIBYTE), 60.0)
    assert cache.get("huge") is None
    assert cache.get("599") is not None
    with pytest.raises(BadInput, match="size_limit"):
        DiskCache(tmp_path / "other", size_limit=10)


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Results may be personal: the folder is nobody else's."""
    DiskCache(tmp_path / "a" / "cache")
    assert (tmp_path / "a" / "cache").stat().st_mode & 0o077 == 0


def test_where_there_can_be_no_folder(tmp_path: Path) -> None:
    """That is said when the cache is made, and without the path."""
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="'file' can't be one"):
        DiskCache(tmp_path / "file")


def counted(cache: Any) -> tuple[Registry, Any]:
    """A registry with that cache, and its one tool, which says what it is told."""

    def say(x: int) -> int:
        return x

    registry = Registry([escalade.tool(name="t", side_effects="read", cache=60)(say)], name="broken", cache=cache)
    return registry, registry.get_tool("t")


def test_a_writer_is_not_waited_for_long(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While another process writes, reads go on, writes are given up, opening too; calls are made all the same."""
    cache = DiskCache(tmp_path / "cache", rest=0.0)
    registry, tool = counted(cache)
    with escalade.scope():
        tool(x=1)
        other = sqlite3.connect(tmp_path / "cache" / "cache.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert [tool(x=1), tool(x=2)] == [1, 2]
        late = DiskCache(tmp_path / "cache", rest=0.0)
        with pytest.raises(StoreUnavailable):
            late.get("k")
        assert time.monotonic() - began < 5, "diskcache by itself waits 60 s"
        usage = registry.usage()[0]
        assert (usage.calls, dict(usage.answered), usage.cache_failures) == (2, {"cache": 1}, 1)
        assert "counts as a miss" in caplog.text
        other.execute("ROLLBACK")
        other.close()
        assert [tool(x=2), tool(x=2)] == [2, 2]
        assert registry.usage()[0].calls == 3, "kept, now that there is room"
        late.set("k", b"1", 60.0)
        assert late.get("k") == b"1"


def test_a_disk_that_failed_is_left_alone(tmp_path: Path) -> None:
    """A call does not pay for a broken disk each time: for a while it isn't asked."""
    cache = DiskCache(tmp_path / "cache", patience=0.2, rest=0.5)
    other = sqlite3.connect(tmp_path / "cache" / "cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    for number in range(20):
        with pytest.raises(StoreUnavailable):
            cache.set(str(number), b"1", 60.0)
    assert time.monotonic() - began < 3, "each by itself waits 0.2 s"
    other.execute("ROLLBACK")
    other.close()
    time.sleep(0.6)
    cache.set("k", b"1", 60.0)


@pytest.mark.parametrize("opened", [True, False])
def test_a_file_that_is_no_database(tmp_path: Path, opened: bool) -> None:
    """Whether it breaks before or after it was opened: calls are made, and the failures counted."""
    cache = DiskCache(tmp_path / "cache", rest=0.0) if opened else None
    for path in (tmp_path / "cache").glob("cache.db*"):
        path.unlink()
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "cache.db").write_bytes(b"no database" * 1000)
    cache = DiskCache(tmp_path / "cache", rest=0.0) if cache is None else cache
    threading.Thread(target=cache.close).start()
    cache.close()
    registry, tool = counted(cache)
    with escalade.scope():
        assert [tool(x=1), tool(x=1)] == [1, 1]
    usage = registry.usage()[0]
    assert usage.calls == 2
    assert usage.cache_failures >= 2


FULL = """
import resource, signal, sys
import escalade
from escalade import DiskCache, Registry
cache = DiskCache(sys.argv[1], rest=0.0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # from here on the disk is full

@escalade.tool(name="t", side_effects="read", cache=60)
def long(x: int) -> str:
    return "y" * 5_000 + str(x)

registry = Registry([long], cache=cache)
tool = registry.get_tool("t")
with escalade.scope():
    assert [tool(x=x)[5_000:] for x in range(100)] == [str(x) for x in range(100)]
    assert tool(x=0)[5_000:] == "0"
usage = registry.usage()[0]
assert usage.cache_failures > 10, usage
print(usage.answered)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are POSIX")
def test_a_full_disk(tmp_path: Path) -> None:
    """What can't be written is not kept; what could, is still found; all calls are made."""
    assert run(FULL, str(tmp_path / "cache")) == "{'cache': 1}\n"


CROWD = """
import sys
from escalade import DiskCache
cache, me = DiskCache(sys.argv[1], patience=5.0), sys.argv[2]
for number in range(300):
    cache.set(f"{number % 50}", f"{me}:{number % 50}".encode() * 200, 60.0, me)
    found = cache.get(f"{(number * 7) % 50}")
    if found is not None:
        one = found[: len(found) // 200]
        assert found == one * 200 and one.decode().split(":")[1] == str((number * 7) % 50), found[:20]
    if number % 100 == 99:
        cache.clear(me)
"""


def test_several_processes_at_once(tmp_path: Path) -> None:
    """Each value that is read is one that was written, whole, by whichever process."""
    crowd = [subprocess.Popen([sys.executable, "-c", CROWD, str(tmp_path), str(n)], cwd=ROOT) for n in range(4)]
    assert [process.wait(60) for process in crowd] == [0] * 4


FORKS = """
import sys, threading
from escalade import DiskCache
from tests._forks import in_child

def ask():
    while True:
        other.set("c", b"3", 60.0)
        other.get("c")

def child():
    assert cache.get("a") == b"1"
    cache.set("b", b"2", 60.0)
    assert len(cache._inherited) == 1

cache, other = DiskCache(sys.argv[1]), DiskCache(sys.argv[2])
cache.set("a", b"1", 60.0)
threading.Thread(target=ask, daemon=True).start()
in_child(child)
assert cache.get("b") == b"2"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_children_have_connections_of_their_own(tmp_path: Path) -> None:
    """A fork shares the folder and nothing else."""
    _forks.run(FORKS, tmp_path / "cache", tmp_path / "other")


# ---------------------------------------------------------------------------------------------------------------- redis


def test_a_server_that_is_gone() -> None:
    """A server that died is a miss, soon and for all; what it has lost is asked for again."""
    with RedisServer() as server:
        registry, tool = counted(RedisCache(server.url, timeout=3.0, rest=0.2))
        with escalade.scope():
            assert [tool(x=1), tool(x=1)] == [1, 1]
            assert registry.usage()[0].calls == 1
            server.kill()
            began = time.monotonic()
            assert [tool(x=x) for x in (1, 1, 2, 3, 4)] == [1, 1, 2, 3, 4]
            assert time.monotonic() - began < 10
            server.start()
            time.sleep(0.3)
            assert [tool(x=1), tool(x=1)] == [1, 1]
        usage = registry.usage()[0]
        assert usage.calls == 7
        assert usage.cache_failures >= 10


@pytest.mark.blocking(250)
async def test_a_server_that_hangs() -> None:
    """Tasks go on while a server of cached results does not answer, both to look there and to write."""
    with RedisServer() as server:
        registry, tool = counted(RedisCache(server.url, timeout=0.6, rest=0.0))
        with escalade.scope():
            assert await tool.acall(x=1) == 1
            server.pause()
            try:
                assert await asyncio.gather(*(tool.acall(x=x) for x in (1, 1, 2))) == [1, 1, 2]
            finally:
                server.go_on()
            assert registry.usage()[0].cache_failures >= 3
            assert await asyncio.gather(*(tool.acall(x=3) for _ in range(9))) == [3] * 9
            assert registry.usage()[0].answered["cache"] >= 8


@pytest.mark.blocking(250)
async def test_a_folder_that_is_written_to(tmp_path: Path) -> None:
    """Tasks go on while others write to the disk for longer than we wait."""
    cache = DiskCache(tmp_path / "cache", patience=0.6, rest=0.0)
    registry, tool = counted(cache)
    other = sqlite3.connect(tmp_path / "cache" / "cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with escalade.scope():
        assert await asyncio.gather(*(tool.acall(x=x) for x in (1, 1, 2))) == [1, 1, 2]
    other.execute("ROLLBACK")
    other.close()
    assert registry.usage()[0].cache_failures == 2


def test_a_generation_that_was_evicted() -> None:
    """What the server throws away can make values disappear, never appear again."""
    with RedisServer() as server:
        cache = RedisCache(server.url, timeout=10.0)
        cache.set("a", b"old", 60.0, "t")
        cache.clear("t")
        cache.server.command("DEL", cache._all)
        assert cache.get("a") is None
        cache.set("b", b"new", 60.0, "t")
        assert (cache.get("a"), cache.get("b")) == (None, b"new")


def test_who_is_answered_is_recorded(tmp_path: Path) -> None:
    """A hit on disk is a use like any other hit: allowed, recorded, free."""
    journal, ran = Journal(), []
    made = escalade.tool(name="t", side_effects="read", cache=60, cost="0.01")(lambda: ran.append(1))
    for _ in range(2):  # two registries, as of two processes
        tool = Registry([made], name="disk", cache=DiskCache(tmp_path / "cache")).get_tool("t")
        with escalade.scope(recorder=journal, budget="0.01"):
            tool()
    assert [(entry.source, entry.cost) for entry in journal.entries()] == [("", 10_000_000), ("cache", 0)]
    assert len(ran) == 1
