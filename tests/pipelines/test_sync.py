"""Sync callers everywhere: scripts, notebooks, DSPy's threads; no event loop is blocked."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import dspy
import pytest

from escalade.pipelines import _bridge
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from tests import _forks
from tests.pipelines.offline import no_task_left, offline_lm


async def nap(x: int) -> int:
    await asyncio.sleep(0.01)
    return x


def pipeline() -> Chain:
    return Chain(FanOut(a=nap, b=lambda x: x + 1), lambda a, b: {"sum": a + b})


async def test_called_inside_a_running_loop() -> None:
    """In a notebook or an async function a plain call works too, blocking its caller as any sync call does."""
    with no_task_left():
        assert pipeline()(x=1).sum == 3


async def test_sync_calls_nest_to_any_depth() -> None:
    """Functions that call pipelines whose functions call pipelines: no deadlock, however many at once."""

    def level(n: int) -> Any:
        if n == 0:
            return lambda x: x
        inner = FanOut({f"b{i}": level(n - 1) for i in range(3)}, join=lambda results: {"sum": sum(results.values())})
        return lambda x: inner(x=x).sum

    assert Chain(top=level(4))(x=1).top == 81

    async def calls_sync(x: int) -> int:
        return Chain(deep=Chain(deeper=nap))(x=x).deeper  # a blocking call in an async node: bad manners, no deadlock

    assert Chain(a=calls_sync)(x=5).a == 5


FORKS = """
import asyncio, gc, time
from concurrent.futures import ThreadPoolExecutor
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from tests._forks import in_child

async def nap(x):
    await asyncio.sleep(0.01)
    loops.append(asyncio.get_running_loop())
    return x

def blocks(x):
    time.sleep(0.01)
    return x + 1

run, loops = Chain(FanOut(a=nap, b=blocks), lambda a, b: {"sum": a + b}), []

def plain():
    assert run(x=1).sum == 3

async def within_a_loop():
    plain()

def everything():
    gc.collect()
    plain()
    asyncio.run(within_a_loop())

def child():
    everything()
    assert not set(loops[len(of_parent):]) & set(of_parent)

with ThreadPoolExecutor(1) as thread:
    everything()
    thread.submit(everything).result()
    of_parent = list(loops)
    in_child(child)
    everything()
    thread.submit(everything).result(timeout=20)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_that_forks_goes_on() -> None:
    """The child has threads and loops of its own, and leaves alone those of the parent: their wake-ups are shared."""
    _forks.run(FORKS)


def test_under_dspy_parallel_and_batch() -> None:
    """DSPy's threads call pipelines; each result is that of its own row."""
    rows = [dspy.Example(x=i).with_inputs("x") for i in range(40)]
    run = pipeline()
    parallel = dspy.Parallel(num_threads=8, disable_progress_bar=True)
    assert [r.sum for r in parallel([(run, row) for row in rows])] == [2 * i + 1 for i in range(40)]
    assert [r.sum for r in run.batch(rows, num_threads=4, disable_progress_bar=True)] == [2 * i + 1 for i in range(40)]


def test_under_evaluate() -> None:
    """`dspy.Evaluate` scores a pipeline of predictors, with its own context reaching them."""
    rows = [dspy.Example(question=str(i), want=f"verdict(answer({i}))").with_inputs("question") for i in range(20)]
    chain = Chain(dspy.Predict("question -> answer"), dspy.Predict("answer -> verdict"))
    with dspy.context(lm=offline_lm(delay=0.002)):
        score = dspy.Evaluate(
            devset=rows,
            metric=lambda row, made, trace=None: made.verdict == row.want,
            num_threads=8,
            display_progress=False,
        )(chain)
    assert score.score == 100.0


@pytest.mark.blocking(200)
async def test_a_blocking_node_blocks_no_loop() -> None:
    """While 12 nodes block for 0.3 s, their loop goes on."""
    await FanOut({f"b{i}": lambda: time.sleep(0.3) for i in range(12)}).acall()


async def test_blocking_nodes_do_not_starve_dspys_own_hops() -> None:
    """12 nodes that block leave an unrelated `acall` alone; in asyncio's executor they cost it twice their time."""
    predict = dspy.Predict("question -> answer")
    begun, end = threading.Semaphore(0), threading.Event()

    def blocks() -> bool:
        begun.release()
        return end.wait(60)

    with dspy.context(lm=offline_lm()):
        await predict.acall(question="warm up")
        blocked = asyncio.create_task(FanOut({f"b{i}": blocks for i in range(12)}).acall())
        try:
            for _ in range(12):
                assert await asyncio.to_thread(begun.acquire, timeout=30)
            await asyncio.wait_for(predict.acall(question="why"), 30)
            assert not blocked.done()
        finally:
            end.set()
        assert all((await blocked).values())


def test_a_thread_keeps_its_loop_for_its_next_call_and_closes_it_at_its_end() -> None:
    """Connections survive from call to call; a thread that ends leaves no open loop behind."""
    loops: list[Any] = []

    async def look() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        loops[-1]().set_debug(False)

    def work() -> None:
        chain = Chain(a=look)
        chain()
        chain()
        alive.append(loops[0]() is loops[1]())
        kept.append(loops[0]())

    alive: list[bool] = []
    kept: list[Any] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()
    assert alive == [True]
    assert kept[0].is_closed()


def test_a_sync_call_leaves_the_threads_current_loop_alone() -> None:
    """Other libraries' loops in the same thread stay theirs."""
    mine = asyncio.new_event_loop()
    asyncio.set_event_loop(mine)
    try:
        pipeline()(x=1)
        assert asyncio.get_event_loop_policy().get_event_loop() is mine
        assert not mine.is_closed()
    finally:
        asyncio.set_event_loop(None)
        mine.close()


def test_stop_iteration_in_a_thread_does_not_hang() -> None:
    """A future can't carry StopIteration; it becomes a RuntimeError, as Python does for coroutines."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        Chain(a=lambda: next(iter(())))()


def test_module_without_aforward_runs_in_a_thread() -> None:
    """A sync-only module, such as BestOfN, is a node like any other, traced and with its settings."""
    best = dspy.BestOfN(dspy.Predict("question -> answer"), N=2, reward_fn=lambda _, made: 1.0, threshold=1.0)
    with dspy.context(lm=offline_lm()):
        result = Chain(best=best)(question="why")
    assert result.answer == "answer(why)"


SCRIPT = """
import asyncio, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
from escalade.pipelines.chain import Chain
from escalade.pipelines.map import Map

async def slow(x):
    try:
        print("started", flush=True)
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        print("cleaned up", flush=True)
        raise

async def main():
    Chain(a=slow)(x=1)

try:
    if sys.argv[1] == "loop":  # as in a notebook: a loop that leaves the signal alone, unlike asyncio.run
        asyncio.new_event_loop().run_until_complete(main())
    else:
        Chain(a=slow)(x=1)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("where", ["plain", "loop"])
def test_ctrl_c_cancels_the_run(where: str) -> None:
    """Ctrl-C during a sync call cancels its nodes, which clean up, and reaches the caller as KeyboardInterrupt."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, where], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        child.send_signal(signal.SIGINT)
        try:
            out, _ = child.communicate(timeout=20)
        finally:
            child.kill()
    assert out.split("\n")[:2] == ["cleaned up", "interrupted"]


def test_threads_are_reused() -> None:
    """A chain of 50 blocking steps takes one thread and not 50."""
    before = threading.active_count()
    Chain(*[lambda: None for _ in range(50)])()
    assert threading.active_count() <= before + 1


async def test_abandoned_threads_do_not_hold_the_caller() -> None:
    """A cancelled pipeline returns at once, though its threads still sleep."""
    begun, end = threading.Semaphore(0), threading.Event()

    def blocks(x: int) -> None:
        begun.release()
        end.wait(30)

    run = asyncio.create_task(Map(blocks, over="xs").acall(xs=range(4)))
    try:
        assert await asyncio.to_thread(begun.acquire, timeout=30)
        run.cancel()
        await asyncio.wait([run], timeout=20)
        assert run.cancelled()
    finally:
        end.set()


def test_run_sync_outside_of_pipelines() -> None:
    """The bridge hands over results and exceptions alike."""

    async def fails() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError):
        _bridge.run_sync(fails)
