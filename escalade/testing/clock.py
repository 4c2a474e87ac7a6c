"""Virtual time: pipelines that take hours run in milliseconds, in the order in which they really would.

    with virtual_time() as clock:
        pipeline(question="?")              # or clock.run(pipeline.acall(question="?"))
        assert clock.elapsed == 36_000

Inside, `time.monotonic`, `time.time`, `time.perf_counter` and `time.sleep` are the clock's, for the whole process, and
new event loops go by it: when nothing is left to do but to wait, the time jumps to the next timer. So deadlines of
scopes, timeouts, pauses of retries, hedges, rate limits, lanes and the latencies of fake models all go by it, and every
run is the same. Afterwards all is as it was.

The clock stands still while a thread works for a pipeline or a tool, however long that really takes; one that sleeps by
`time.sleep` sleeps in virtual time, or until the block ends. Threads that were there before and do nothing for what
runs inside, such as the heartbeat of a ledger that somebody else has, sleep really: their naps are not the test's time.
What it can't: an event loop that was running before (write such tests as plain functions, and use `clock.run`), more
than one event loop at once, real sockets, other processes, and modules that have imported `sleep` or `monotonic` from
`time` by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
import selectors
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar
from unittest import mock

from escalade.agents.lanes._clock import RealClock
from escalade.pipelines import _bridge
from escalade.registry import workers

T = TypeVar("T")

GLANCE = 0.005
"""Real seconds between two looks at threads that are at work."""


class _Work:
    """What a thread does for somebody who waits for it. Nobody does any more when it `ended`; its thread may go on."""

    ended = False


class VirtualClock:
    """The time. `start`: seconds since 1970 when it begins (None: as it is now)."""

    def __init__(self, start: float | None = None) -> None:
        self._began = self._now = time.monotonic()
        self._ahead = (time.time() if start is None else start) - self._now
        self._lock = threading.RLock()
        self._loops = 0
        self._here = threading.local()
        self._at_work: set[_Work] = set()
        self._asleep: set[threading.Event] | None = set()
        self._home = threading.current_thread()
        self._before, self._really = set(threading.enumerate()), time.sleep
        self._numbers = itertools.count()
        self._alarms: list[tuple[float, int, Callable[[], object]]] = []

    @property
    def elapsed(self) -> float:
        """Virtual seconds since it began."""
        return self._now - self._began

    def monotonic(self) -> float:
        """What `time.monotonic` says."""
        return self._now

    def time(self) -> float:
        """What `time.time` says."""
        return self._now + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass, as if by hand: between two calls, to have a window of a limit or a cache go by."""
        with self._lock:
            self._move(self._now + seconds)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine, on an event loop of its own that goes by this clock."""
        with asyncio.Runner(loop_factory=lambda: _Loop(self)) as runner:
            return runner.run(work)

    def call_at(self, when: float, do: Callable[[], object]) -> None:
        """Call it at that moment, in `time.monotonic()` seconds. It must neither block nor raise."""
        with self._lock:
            heapq.heappush(self._alarms, (when, next(self._numbers), do))

    def sleep(self, seconds: float) -> None:
        """What `time.sleep` does. Where nobody else could move the time, it moves it."""
        if self._is_stranger():
            self._really(seconds)
        elif (work := self._mine()) is None:
            self.advance(max(0.0, seconds))
        else:
            self._sleep(work, max(0.0, seconds))

    def _sleep(self, work: _Work, seconds: float) -> None:
        woken = threading.Event()

        def wake() -> None:
            self._resume(work)
            woken.set()

        with self._lock:
            if self._asleep is None:
                return
            self._asleep.add(woken)
            self.call_at(self._now + seconds, wake)
            self._pause(work)
            self._settle()
        woken.wait()

    def close(self) -> None:
        """Its time is over: who still sleeps wakes, since nobody would ever move the time for him."""
        with self._lock:
            asleep, self._asleep = self._asleep or set(), None
        for woken in asleep:
            woken.set()

    # -- threads at work

    def _mine(self) -> _Work | None:
        """What this thread does."""
        return getattr(self._here, "work", None)

    def _is_stranger(self) -> bool:
        """Was this thread there before, and does it nothing for what runs here?"""
        thread = threading.current_thread()
        at_home = thread is self._home or isinstance(asyncio._get_running_loop(), _Loop)
        return thread in self._before and not at_home and self._mine() is None

    def begin(self) -> _Work:
        """A thread is about to work."""
        with self._lock:
            work = _Work()
            self._at_work.add(work)
            return work

    def end(self, work: _Work) -> None:
        """It has ended, and whoever waits for it knows; or nobody waits for it any more."""
        with self._lock:
            work.ended = True
            self._at_work.discard(work)

    def _pause(self, work: _Work) -> None:
        """Its thread waits. Under the lock."""
        self._at_work.discard(work)

    def _resume(self, work: _Work) -> None:
        """It goes on, and counts unless it was left meanwhile. Under the lock."""
        if not work.ended:
            self._at_work.add(work)

    @contextlib.contextmanager
    def doing(self, work: _Work) -> Iterator[None]:
        """This thread does it."""
        before, self._here.work = self._mine(), work
        try:
            yield
        finally:
            self._here.work = before

    @contextlib.contextmanager
    def looping(self, by: int) -> Iterator[None]:
        """While an event loop runs (`by` 1), it moves the time; while its thread is held up (-1), it can't."""
        with self._lock:
            self._loops += by
            self._settle()
        try:
            yield
        finally:
            with self._lock:
                self._loops -= by

    def awaited(self, job: workers.Job, wait: Callable[[], T]) -> T:
        """`wait()` for a job: meanwhile this thread works no more."""
        if (work := self._mine()) is None:
            with self.looping(-1 if asyncio._get_running_loop() is not None else 0):
                return wait()
        back = False

        def again(*_: object) -> None:  # in the job's thread, before that one ends
            nonlocal back
            with self._lock:
                if not back:
                    self._resume(work)
                back = True

        job.add_done_callback(again)
        with self._lock:
            self._pause(work)
            self._settle()
        try:
            return wait()
        finally:
            again()

    # -- moving

    def _settle(self) -> None:
        """Where all sleep and no event loop runs, those who sleep move the time themselves."""
        if not self._at_work and self._loops <= 0 and self._alarms:
            self._move(self._alarms[0][0])

    def jump(self, until: float, ready: Callable[[], Any]) -> tuple[bool, Any]:
        """On to the next moment at which something happens, `until` at the latest, unless something is `ready` or a
        thread is at work: is it `until`, and what was ready?
        """
        with self._lock:
            if self._at_work - {self._mine()}:
                return False, None
            # Looked at once more: a thread that has just ended has left its word before.
            found = ready()
            if found:
                return False, found
            when = min(until, self._alarms[0][0] if self._alarms else math.inf)
            if when == math.inf:
                return False, None
            self._move(when)
            return when >= until, None

    def _move(self, when: float) -> None:
        while self._alarms and self._alarms[0][0] <= when:
            at, _, do = heapq.heappop(self._alarms)
            self._now = max(self._now, at)
            do()
        self._now = max(self._now, when)


class _Counted(Generic[T]):
    """A call that a thread is about to do, which the clock waits for."""

    def __init__(self, clock: VirtualClock, call: Callable[..., T]) -> None:
        self.clock, self._call, self._work = clock, call, clock.begin()

    def __call__(self, *args: Any) -> T:
        with self.clock.doing(self._work):
            return self._call(*args)

    def end(self, *_: object) -> None:
        """It has ended, or nobody waits for it any more."""
        self.clock.end(self._work)


class _Selector(selectors.DefaultSelector):
    """Waits in virtual time."""

    clock: VirtualClock

    def select(self, timeout: float | None = None) -> list[Any]:
        def look() -> list[Any]:
            return super(_Selector, self).select(0)

        found = look()
        if found or (timeout is not None and timeout <= 0):
            return found
        until = math.inf if timeout is None else self.clock.monotonic() + timeout
        while True:
            there, found = self.clock.jump(until, look)
            found = found or super().select(0 if there else GLANCE if self.clock.monotonic() < until else 0)
            if there or found or self.clock.monotonic() >= until:
                return found


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that goes by the clock."""

    def __init__(self, clock: VirtualClock) -> None:
        selector = _Selector()
        selector.clock = self._clock = clock
        super().__init__(selector)

    def time(self) -> float:
        return self._clock.monotonic()

    def run_forever(self) -> None:
        with self._clock.looping(1):
            super().run_forever()

    def run_in_executor(  # type: ignore[override]  # as typeshed has it, it takes TypeVarTuples
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """A thread's work counts until this loop has its result."""
        counted = _Counted(self._clock, func)
        future = super().run_in_executor(executor, counted, *args)
        future.add_done_callback(counted.end)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """It gives its threads some time to end, which is not to jump by."""
        work = self._clock.begin()
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._clock.end(work)


@contextlib.contextmanager
def virtual_time(start: float | None = None) -> Iterator[VirtualClock]:
    """Everything in the block goes by a virtual clock. `start`: what `time.time()` says at first (None: what it says
    now). Raises RuntimeError inside of a running event loop, and inside of another such block.

    >>> import asyncio
    >>> with virtual_time() as clock:
    ...     clock.run(asyncio.sleep(36_000))
    ...     round(clock.elapsed)
    36000
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("virtual_time() in a running event loop: write the test as a plain function, with clock.run")
    if hasattr(time.monotonic, "__self__") and isinstance(time.monotonic.__self__, VirtualClock):
        raise RuntimeError("virtual_time() within virtual_time(): there is one time")
    clock = VirtualClock(start)
    with contextlib.ExitStack() as stack:
        for owner, name, new in _patches(clock):
            stack.enter_context(mock.patch.object(owner, name, new))
        stack.callback(clock.close)
        stack.enter_context(_own_loop())
        yield clock


def _patches(clock: VirtualClock) -> list[tuple[Any, str, Any]]:
    """What is another in virtual time."""
    submit, run, result = workers.Workers.submit, workers.Job.run, workers.Job.result

    def submitted(pool: workers.Workers, call: Callable[[], Any]) -> workers.Job:
        return submit(pool, _Counted(clock, call))

    def ran(job: workers.Job) -> None:
        run(job)
        if isinstance(job._call, _Counted):
            job._call.end()

    def awaited(job: workers.Job, timeout: float | None = None) -> Any:
        if not isinstance(job._call, _Counted):  # submitted before the block: it goes by real time
            return result(job, timeout)
        return clock.awaited(job, lambda: result(job, timeout))

    return [
        (time, "monotonic", clock.monotonic),
        (time, "perf_counter", clock.monotonic),
        (time, "time", clock.time),
        (time, "monotonic_ns", lambda: int(clock.monotonic() * 1e9)),
        (time, "perf_counter_ns", lambda: int(clock.monotonic() * 1e9)),
        (time, "time_ns", lambda: int(clock.time() * 1e9)),
        (time, "sleep", clock.sleep),
        (asyncio, "new_event_loop", lambda: _Loop(clock)),
        (asyncio.events, "new_event_loop", lambda: _Loop(clock)),
        (RealClock, "now", staticmethod(clock.monotonic)),
        (RealClock, "call_at", lambda _, when, do: clock.call_at(when, do)),
        (workers.Workers, "submit", submitted),
        (workers.Job, "run", ran),
        (workers.Job, "result", awaited),
    ]


@contextlib.contextmanager
def _own_loop() -> Iterator[None]:
    """Another event loop for sync calls of pipelines in this thread: the one that they have keeps real time."""
    kept = _bridge._local.__dict__.pop("loop", None)
    try:
        yield
    finally:
        mine = _bridge._local.__dict__.pop("loop", None)
        if mine is not None:
            mine.runner.close()
        if kept is not None:
            _bridge._local.loop = kept
