"""Event loops: each has its own connections, which end with it, and the first call stalls none."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
from dspy.lm15 import Message, Request

from escalade.agents.transports import LM15, LiteLLM
from escalade.agents.transports._loops import PerLoop
from tests._house import ROOT
from tests.servers.fault_server import FaultServer

pytestmark = [
    # litellm builds its pydantic models on the first call, and pydantic doesn't like them.
    pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict class:UserWarning"),
]

ASKED = Request(model="openai/ok", messages=(Message.user("hi"),))


@pytest.fixture(scope="module")
def server():
    LiteLLM.preload().join()
    with FaultServer() as running:
        yield running


@pytest.mark.parametrize("kind", [LM15, LiteLLM])
def test_one_transport_serves_many_loops(server, kind):
    """Loops one after the other share a transport, and each call answers."""
    transport = kind(api_key="k", api_base=server.base, timeout=5)
    assert sum(len(asyncio.run(_ask(transport, 2))) for _ in range(5)) == 10


def test_loops_side_by_side_share_a_transport(server):
    """Threads with loops of their own don't get in each other's way."""
    transport = LM15(api_key="k", api_base=server.base, timeout=5)
    answers: list[list] = []
    threads = [threading.Thread(target=lambda: answers.append(asyncio.run(_ask(transport, 3)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(found) for found in answers] == [3, 3, 3, 3]


def test_connections_end_with_their_loop(server):
    """After ten loops no loop is alive, and no more files are open than before."""
    transport = LM15(api_key="k", api_base=server.base, timeout=5)
    loops = []

    async def ask():
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await transport.acomplete(ASKED)

    asyncio.run(ask())
    before = _open_files()
    for _ in range(10):
        asyncio.run(ask())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 11
    assert len(transport._async) == 0
    assert _open_files() <= before


async def test_calls_of_a_loop_share_connections(server):
    """Calls one after the other go over one connection."""
    transport = LM15(api_key="k", api_base=server.base, timeout=5)
    await transport.acomplete(ASKED)
    before = server.connections
    for _ in range(5):
        await transport.acomplete(ASKED)
    assert server.connections == before


def test_what_is_kept_is_closed_on_its_own_loop():
    """Once, when the loop ends, and not before."""
    closed: list[tuple[object, bool]] = []

    async def close(one: object) -> None:
        closed.append((one, asyncio.get_running_loop() is loops[-1]))

    kept, loops = PerLoop(object, close), []

    async def use() -> object:
        loops.append(asyncio.get_running_loop())
        one = await kept.get()
        assert one is await kept.get()
        assert (one, True) not in closed
        return one

    made = [asyncio.run(use()) for _ in range(3)]
    assert closed == [(one, True) for one in made]
    assert len(kept) == 0


def test_loops_that_were_just_closed_are_forgotten():
    """A loop that was closed without ending what ran on it keeps nothing alive once another one asks."""
    made: list[object] = []

    async def never(one: object) -> None:
        raise AssertionError("it can't be closed any more")

    kept = PerLoop(lambda: made.append(object()) or made[-1], never)
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(kept.get()) is loop.run_until_complete(kept.get()) is made[0]
    loop.close()
    other = asyncio.new_event_loop()
    try:
        assert other.run_until_complete(kept.get()) is made[1]
        assert len(kept) == 1
    finally:
        other.close()
        kept._kept.clear()
        gc.collect()


FIRST_CALL = """
import asyncio, sys, time
from escalade import Gateway, Model, Price, scope
from escalade.agents.transports import LiteLLM
from dspy.lm15 import Message, Request

transport = LiteLLM(api_key="k", api_base={base!r}, timeout=20)
gateway = Gateway([Model("a", "openai/ok", transport, price=Price.of("1", "1"), timeout=20)])
assert "litellm" not in sys.modules or LiteLLM.preload().is_alive()
if {joined}:
    LiteLLM.preload().join()
engine, waits = gateway.lm("a")._async_engine_spec, [0.0]

async def tick():
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.01)
        waits.append(time.perf_counter() - began - 0.01)

async def main():
    ticking = asyncio.create_task(tick())
    with scope(budget="1"):
        await engine.complete(Request(model="escalade/a", messages=(Message.user("hi"),)))
    ticking.cancel()

asyncio.run(main())
print(max(waits))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("joined", "limit"), [(True, 0.25), (False, 2.0)])
def test_first_call_does_not_stall_the_loop(server, joined, limit):
    """A gateway imports litellm in a thread: the first call on a loop waits for it without holding up the loop.

    Measured: 3 to 11 ms once the import is through, and 250 to 570 ms while it runs, where single modules hold the
    interpreter's lock; 4.4 to 6.3 s without.
    """
    code, stalls = FIRST_CALL.format(base=server.base, joined=joined), [10.0]
    for _ in range(2):  # the machine may be busy: one more try
        if min(stalls) > limit:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr[-2000:]
            stalls.append(float(done.stdout))
    print(f"joined={joined}: the loop stood still for {min(stalls) * 1e3:.0f} ms")
    assert min(stalls) < limit


async def _ask(transport, times):
    return [await transport.acomplete(ASKED) for _ in range(times)]


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0
