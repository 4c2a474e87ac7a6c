"""The worker pool: reuses threads, bounds what runs at once, never waits for itself, forgets what was left."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable

import dspy
import pytest

from escalade.pipelines.chain import Chain
from escalade.registry.workers import Workers


def test_results_and_errors_come_back() -> None:
    """A job gives its result or raises its error, whatever kind of exception that is."""
    pool = Workers()
    assert pool.submit(lambda: 42).result(5) == 42
    for error in (ValueError("x"), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            pool.submit(fail).result(5)


def test_stop_iteration_can_not_hang_the_caller() -> None:
    """StopIteration can't be set on an asyncio future (its waiter would wait for ever): it becomes a RuntimeError."""
    with pytest.raises(RuntimeError, match=r"raised StopIteration\(None\)"):
        Workers().submit(lambda: next(iter(()))).result(5)


def test_jobs_run_in_the_callers_context() -> None:
    """Context variables, and DSPy's settings with them, arrive in the thread; what it changes stays there."""
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("mine")

    def look() -> str:
        found = variable.get()
        variable.set("changed")
        return found

    assert Workers().submit(look).result(5) == "mine"
    assert variable.get() == "mine"


def test_threads_are_reused_and_daemons() -> None:
    """One job after the other runs in the same thread, which doesn't hold up the end of the process."""
    pool = Workers()
    seen = set()
    for _ in range(20):
        thread = pool.submit(threading.current_thread).result(5)
        seen.add(thread.ident)
        assert thread.daemon
        deadline = time.monotonic() + 5
        while not pool._idle and time.monotonic() < deadline:
            time.sleep(0.001)
    assert len(seen) == 1


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that had nothing to do for a while is gone; the next job gets a new one."""
    monkeypatch.setattr("escalade.registry.workers._IDLE_SECONDS", 0.01)
    pool = Workers()
    thread = pool.submit(threading.current_thread).result(5)
    thread.join(5)
    assert not thread.is_alive()
    assert pool._idle == []
    assert pool.submit(lambda: 1).result(5) == 1


def test_never_more_than_the_limit_at_once() -> None:
    """Of 50 jobs under a limit of 4, at most 4 run at once; all of them run."""
    pool, lock = Workers(limit=4), threading.Lock()
    running = [0, 0]

    def work() -> None:
        with lock:
            running[0] += 1
            running[1] = max(running)
        time.sleep(0.002)
        with lock:
            running[0] -= 1

    for job in [pool.submit(work) for _ in range(50)]:
        job.result(10)
    assert running == [0, 4]


def test_a_job_may_wait_for_a_job() -> None:
    """With one place, a job that submits another one and waits for it doesn't wait for ever."""
    pool = Workers(limit=1)
    assert pool.submit(lambda: pool.submit(lambda: pool.submit(lambda: 42).result(5)).result(5)).result(5) == 42
    assert pool.submit(lambda: 1).result(5) == 1


def through_parallel(call: Callable[[], int]) -> int:
    """In a thread of `dspy.Parallel`."""

    class Module(dspy.Module):
        def forward(self) -> int:
            return call()

    results: list[int] = dspy.Parallel(num_threads=1, disable_progress_bar=True)([(Module(), {})])
    return results[0]


def through_a_pipeline(call: Callable[[], int]) -> int:
    """In a thread of a pipeline."""
    result: int = Chain(step=call)().step
    return result


@pytest.mark.parametrize("way", [through_parallel, through_a_pipeline])
def test_a_job_may_wait_for_a_job_in_a_thread_of_others(way: Callable[[Callable[[], int]], int]) -> None:
    """A tool that runs a pipeline or a `dspy.Parallel` of tools doesn't wait for the place that it holds itself."""
    pool = Workers(limit=1)
    assert pool.submit(lambda: way(lambda: pool.submit(lambda: 42).result(5))).result(10) == 42


def test_a_job_that_was_left_takes_no_place() -> None:
    """A hung job that nobody waits for any more doesn't count; one that hadn't begun never begins."""
    pool, release, began = Workers(limit=1), threading.Event(), list[int]()
    hung = pool.submit(lambda: release.wait(10))
    waiting = pool.submit(lambda: began.append(1))
    pool.leave(waiting)
    assert waiting.cancelled()
    pool.leave(hung)
    assert pool.submit(lambda: 42).result(5) == 42
    release.set()
    assert hung.result(5) is True
    assert began == []
    pool.leave(hung)
    assert pool.submit(lambda: 43).result(5) == 43


def test_a_forked_child_starts_afresh() -> None:
    """After a fork the threads are gone: the child's pool knows none of them."""
    pool = Workers()
    pool.submit(lambda: 1).result(5)
    pool._reset()
    assert pool.submit(lambda: 2).result(5) == 2
