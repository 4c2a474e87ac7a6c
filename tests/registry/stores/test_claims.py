"""Calls that several processes make once: claims, their ends, death, and 64 threads x 4 processes killed at random."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade.errors import OutcomeUnknown, StoreUnavailable, ToolTimeout
from escalade.registry.journal import Journal
from tests._house import ROOT
from tests.registry.stores.writers import open_claims
from tests.servers.redis_server import RedisServer

DIES_CLAIMING = """
import os, signal, sys
from tests.registry.stores.writers import open_claims
assert open_claims(sys.argv[1], sys.argv[2]).claim("k", again=False) == ("mine", None)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Kind and place of a store, empty."""
    if request.param == "sqlite":
        yield "sqlite", str(tmp_path / "calls.db")
        return
    if request.param == "postgres":
        yield "postgres", request.getfixturevalue("postgres_url")
        return
    with RedisServer() as server:
        yield "redis", server.url


def test_one_claims_and_the_others_know(store: tuple[str, str]) -> None:
    """A claimed call is running for the others, then done with its result; a dropped one can be claimed again, a lost
    one can't, unless it may be made again.
    """
    one, two = open_claims(*store), open_claims(*store)
    assert one.claim("k", again=False) == ("mine", None)
    assert two.claim("k", again=True) == ("running", None)
    one.done("k", b'{"a":1}')
    assert two.claim("k", again=True) == ("done", b'{"a":1}')
    assert one.claim("dropped", again=False)[0] == "mine"
    one.drop("dropped")
    assert two.claim("dropped", again=False)[0] == "mine"
    assert one.claim("lost", again=False)[0] == "mine"
    one.lose("lost")
    assert [two.claim("lost", again=again)[0] for again in (False, True)] == ["unknown", "mine"]


def test_a_claim_of_the_dead_is_unknown(store: tuple[str, str]) -> None:
    """Killed between claiming and answering: nobody knows, and nobody makes the call again who must not."""
    killed = subprocess.run([sys.executable, "-c", DIES_CLAIMING, *store], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    claims = open_claims(*store)
    assert [claims.claim("k", again=again)[0] for again in (False, False, True)] == ["unknown", "unknown", "mine"]


def registered(store: tuple[str, str], function: Any, **said: Any) -> Any:
    """A tool of a registry of its own on the store, as another process would have it."""
    made = escalade.tool(name="t", once=True, **said)(function)
    return escalade.Registry([made], claims=open_claims(*store), name="claims").get_tool("t")


def test_two_registries_make_a_call_once(store: tuple[str, str]) -> None:
    """The second one gets the first one's result, in the tool's types, and records where it came from."""
    ran: list[int] = []

    def do(x: int) -> list[int]:
        ran.append(x)
        if x == 9:
            raise ValueError("nine")
        return [x]

    journals = Journal(), Journal()
    for journal in journals:
        tool = registered(store, do)
        with escalade.scope(run_id="r", recorder=journal):
            assert tool(x=1) == [1]
            with pytest.raises(ValueError, match="nine"):
                tool(x=9)
    assert ran == [1, 9, 9], "what failed may be made again"
    assert [[entry.source for entry in journal.entries()] for journal in journals] == [["", ""], ["once", ""]]
    with escalade.scope(run_id="another"):
        registered(store, do)(x=1)
    assert ran[3:] == [1]


@pytest.mark.parametrize("result", ["cut off", "no JSON"])
def test_what_came_of_it_is_not_known(store: tuple[str, str], result: str) -> None:
    """A call that was cut off, or whose result can't be shared, isn't made again by another process."""
    ran = []

    def do() -> Any:
        ran.append(1)
        time.sleep(0.2 if result == "cut off" else 0)
        return object()

    with escalade.scope(run_id="r"):
        if result == "cut off":
            with pytest.raises(ToolTimeout):
                registered(store, do, timeout=0.05)()
        else:
            registered(store, do)()
    with escalade.scope(run_id="r"), pytest.raises(OutcomeUnknown):
        registered(store, do)()
    assert ran == [1]


def test_no_store_no_call(tmp_path: Path) -> None:
    """When it can't be found out whether a call was made, it isn't."""
    ran: list[int] = []
    with RedisServer() as server:
        tool = registered(("redis", server.url), lambda: ran.append(1))
        server.kill()
        with escalade.scope(run_id="r"), pytest.raises(StoreUnavailable):
            tool()
    assert ran == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_9_at_random(store: tuple[str, str], tmp_path: Path) -> None:
    """64 threads x 4 processes want the same 150 calls, and some are killed: no call is made twice, and each is made,
    or known to be unknown.
    """
    effects, calls, chance = tmp_path / "effects.txt", 600, random.Random(3)
    command = [sys.executable, "-m", "tests.registry.stores.writers", *store, str(effects), str(calls)]
    pipe = subprocess.PIPE

    def start(seed: int) -> Any:
        return subprocess.Popen([*command, str(seed)], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    crowd = [start(seed) for seed in range(4)]
    for process in crowd:
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        process.stdin.write("go\n")
        process.stdin.flush()
    deaths = 0
    for process in crowd[:3]:
        time.sleep(0.05 + chance.random() * 0.15)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            deaths += 1
    crowd.append(last := start(9))
    said = "".join(process.communicate("go\n" if process is last else None, timeout=60)[0] for process in crowd)
    made = Counter(int(line) for line in effects.read_text("ascii").split())
    unknown = {int(line.split()[1]) for line in said.splitlines() if line.startswith("unknown")}
    print(store[0], "deaths", deaths, "made", len(made), "unknown", len(unknown))
    assert deaths >= 1
    assert max(made.values()) == 1
    assert set(range(calls)) - set(made) <= unknown
    assert last.returncode == 0
