"""Equal calls that run at once: one call in a process, one call among processes, and nobody waits for the dead."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy import lm15

from escalade.agents.cache.response import ResponseCache
from escalade.errors import BudgetExceeded, DeadlineExceeded
from tests._house import ROOT
from tests._virtual import virtually
from tests.agents.cache.worlds import ANA, BOB, COST, EVE, World, answering, scope_of
from tests.agents.scripted import Scripted

SLOW = 0.15


async def together(world: World, askers: int, **settings: Any) -> list[Any]:
    """So many equal questions at once, in one scope."""
    lm = world.lm(**settings)
    with scope_of(ANA, budget="1.00"), dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        return await asyncio.gather(*(world.predict.acall(question="q") for _ in range(askers)), return_exceptions=True)


@virtually
async def test_equal_misses_at_once_are_one_call() -> None:
    """Twenty coroutines that ask the same of temperature 0 make one call; the others have its answer for nothing."""
    world = World([SLOW])
    answers = await together(world, 20)
    assert {answer.answer for answer in answers} == {"42"}
    assert world.calls == 1
    assert world.row().hits == {"joined": 19}
    assert world.row().saved == 19 * COST


@virtually
async def test_samples_at_once_are_calls_of_their_own() -> None:
    """Above temperature 0 each makes its own call, unless the cache is told to join all."""
    world = World([SLOW, SLOW, SLOW])
    await together(world, 3, temperature=0.7)
    assert world.calls == 3
    world = World([SLOW], joins="all")
    await together(world, 3, temperature=0.7)
    assert world.calls == 1
    world = World([SLOW, SLOW, SLOW], joins="none")
    await together(world, 3)
    assert world.calls == 3


def test_threads_and_loops_share_one_call() -> None:
    """Sync callers in threads, and coroutines on several loops, wait for one call."""
    world = World([0.4])
    barrier = threading.Barrier(12)

    def ask(number: int) -> Any:
        barrier.wait()
        return world.ask(mode=("sync", "async")[number % 2], who=(ANA, BOB)[number % 3 == 0]).answer

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(ask, range(12))) == {"42"}
    assert world.calls == 1


@virtually
async def test_cancelled_leader_promotes_a_follower() -> None:
    """Whoever makes the call is cancelled: the next one makes it, and nobody else hears of it."""
    world = World([5.0, 0.05])
    lm = world.lm()
    with scope_of(ANA, budget="1.00") as run, dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        tasks = [asyncio.create_task(world.predict.acall(question="q")) for _ in range(5)]
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert [answer.answer for answer in answers[1:]] == ["42"] * 4
        assert world.calls == 2
        assert run.purse.held == 0


@virtually
async def test_failure_is_shared_with_those_who_waited_only() -> None:
    """A failure of the model is that of all who waited for it; who asks later makes a call."""

    class FailsLate(Scripted):
        async def acomplete(self, request: Any) -> Any:
            if not self.requests:
                self.requests.append(request)
                await asyncio.sleep(SLOW)
                raise lm15.AuthError("no")
            return await super().acomplete(request)

    world = World(transport=FailsLate())
    answers = await together(world, 5)
    assert {type(answer).__name__ for answer in answers} == {"LMAuthError"}
    assert world.calls == 1
    assert (await together(world, 1))[0].answer == "42"


@virtually
async def test_refusal_is_the_leaders_own() -> None:
    """One whose budget doesn't do is refused; those who waited for him make the call with theirs."""
    world = World([SLOW, SLOW])
    lm = world.lm()

    async def ask(budget: str) -> Any:
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            try:
                async with scope_of(ANA, budget=budget):
                    return (await world.predict.acall(question="q")).answer
            except BudgetExceeded:
                return "poor"

    answers = await asyncio.gather(ask("0.000000001"), ask("1.00"), ask("1.00"))
    assert answers == ["poor", "42", "42"]
    assert world.calls == 1


@virtually
async def test_tenants_wait_for_nobody_elses_call() -> None:
    """Equal questions of two tenants at once are two calls."""
    world = World([SLOW, SLOW])
    lm = world.lm()

    async def ask(who: Any) -> None:
        with scope_of(who, budget="1.00"), dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            await world.predict.acall(question="q")

    await asyncio.gather(ask(ANA), ask(EVE), ask(BOB))
    assert world.calls == 2


@virtually
async def test_truncated_answer_is_shared_and_not_kept() -> None:
    """What isn't kept is still the answer of those who asked at the time."""

    class Truncating(Scripted):
        def _response(self, request: Any, text: str, finish: str = "stop") -> Any:
            return super()._response(request, text, "length")

    world = World(transport=Truncating([SLOW]))
    assert {answer.answer for answer in await together(world, 4)} == {"42"}
    assert (world.calls, world.cache.stats().entries) == (1, 0)


@virtually
async def test_what_is_never_kept_is_still_one_call_at_once() -> None:
    """With a time of 0 equal calls at once share one answer; the next is asked anew, and nothing is in the store."""
    world = World([SLOW, SLOW], ttl=0)
    assert len(await together(world, 5)) == 5
    assert (world.calls, world.cache.stats().entries) == (1, 0)
    await together(world, 5)
    assert world.calls == 2


@pytest.mark.blocking(3000)
@virtually
async def test_sync_call_on_the_loop_that_awaits_the_same_one() -> None:
    """A sync caller on the very loop would wait for itself: it makes the call."""
    world = World([SLOW, 0.0])
    lm = world.lm()
    with scope_of(ANA, budget="1.00"), dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        task = asyncio.create_task(world.predict.acall(question="q"))
        await asyncio.sleep(0.05)
        assert world.predict(question="q").answer == "42"
        assert (await task).answer == "42"
    assert world.calls == 2


@virtually
async def test_follower_waits_no_longer_than_his_deadline() -> None:
    """Whoever waits for somebody else's call waits within his own deadline; the call goes on."""
    world = World([1.0])
    lm = world.lm()

    async def ask(**options: Any) -> Any:
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            async with scope_of(ANA, **options):
                return (await world.predict.acall(question="q")).answer

    leader = asyncio.create_task(ask())
    await asyncio.sleep(0.05)
    with pytest.raises(DeadlineExceeded):
        await ask(deadline=0.1)
    assert not leader.done()
    assert await leader == "42"
    assert world.calls == 1


@virtually
async def test_streams_are_made_and_kept() -> None:
    """Who watches the answer come in makes the call, and it is kept; a hit comes in one piece."""
    world = World()
    stream = dspy.streamify(world.predict, stream_listeners=[dspy.streaming.StreamListener("answer")])
    with scope_of(ANA, budget="1.00"), dspy.context(lm=world.lm(), adapter=dspy.ChatAdapter()):
        for pieces in (True, False):
            seen = [piece async for piece in stream(question="q")]
            assert seen[-1].answer == "42"
            assert (len(seen) > 1) is pieces
        assert (await world.predict.acall(question="q")).answer == "42"
    assert world.calls == 1


@pytest.mark.parametrize("modes", [("sync", "async"), ("async", "sync"), ("async", "async")])
def test_caches_on_one_folder_make_one_call(tmp_path: Path, modes: tuple[str, str]) -> None:
    """Two caches that know nothing of each other but the folder: the second waits for the first one's answer."""
    worlds = [World([0.4], path=tmp_path / "answers") for _ in modes]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(worlds[0].ask, "q", modes[0])
        _until(lambda: worlds[0].calls)
        second = pool.submit(worlds[1].ask, "q", modes[1])
        assert (first.result().answer, second.result().answer) == ("42", "42")
    assert [world.calls for world in worlds] == [1, 0]
    assert worlds[1].row().hits == {"store": 1}


WORKER = """
import sys, time
from pathlib import Path
from tests.agents.cache.worlds import ANA, World
folder, seconds, begin, number = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
import time as clock
world = World([seconds], path=folder / "answers", now=clock.time)
(folder / f"ready{number}").touch()
while not (folder / "go").exists():
    time.sleep(0.002)
print(world.ask(mode=("sync", "async")[int(number) % 2]).answer, world.calls, flush=True)
"""


def _workers(folder: Path, count: int, seconds: float, start: int = 0) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WORKER, str(folder), str(seconds), "0"]
    return [
        subprocess.Popen([*command, str(number)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for number in range(start, start + count)
    ]


def _until(what: Any, limit: float = 60.0) -> None:
    end = time.monotonic() + limit
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_processes_make_one_call(tmp_path: Path) -> None:
    """Four processes that ask the same at once make one call, sync and async."""
    workers = _workers(tmp_path, 4, 1.0)
    _until(lambda: len(list(tmp_path.glob("ready*"))) == 4)
    (tmp_path / "go").touch()
    told = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert [answer for answer, _ in told] == ["42"] * 4
    assert sorted(calls for _, calls in told) == ["0", "0", "0", "1"]


@pytest.mark.slow
def test_dead_process_holds_up_nobody(tmp_path: Path) -> None:
    """The process that makes the call is killed: another makes it at once, though the claim had a minute to go."""
    (tmp_path / "go").touch()
    (victim,) = _workers(tmp_path, 1, 600.0)
    cache = ResponseCache(tmp_path / "answers")
    store: Any = cache.shelf.store

    def claimed() -> bool:
        return any(key.startswith("claim:") for key in store._opened().iterkeys())

    _until(claimed)
    victim.kill()
    victim.wait()
    assert victim.stdout is not None
    victim.stdout.close()
    world = World([answering("alive")], path=tmp_path / "answers", now=time.time)
    began = time.monotonic()
    assert world.ask().answer == "alive"
    assert time.monotonic() - began < 5.0
