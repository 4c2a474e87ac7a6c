"""Threads for blocking work: sync tools under an event loop, and anything that must be left when its time is up.

Our own, never asyncio's default executor: DSPy's thread hops share that one, and 12 blocking tools there delay an
unrelated `acall` by 2 s (measured). The threads are daemons, so that work which was left behind doesn't hold up the
end of the process, as it would in a `ThreadPoolExecutor`. At most `limit` jobs run at once, the others wait in order.
Two kinds don't count: jobs that were left, since they may never end, and jobs started from within a job, which would
wait for places that their own starters hold. "Within" is a key of `dspy.context`: a job may start others by way of a
pipeline or of `dspy.Parallel`, whose threads are not ours.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

import dspy

_IDLE_SECONDS = 10.0

INSIDE = "escalade_inside_job"
"""The key of `dspy.context` that says that this runs within a job."""


class Job(Future[Any]):
    """A call in a worker thread, in the caller's context."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call, self._context = call, contextvars.copy_context()
        self.counted, self.started = True, False

    def run(self) -> None:
        """Do it, in this thread."""
        if not self.set_running_or_notify_cancel():
            return
        try:
            result = self._context.run(self._inside)
        except StopIteration as error:
            self.set_exception(RuntimeError(f"it raised StopIteration({error.value!r}), which no future can carry"))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            self.set_exception(error)
        else:
            self.set_result(result)

    def _inside(self) -> Any:
        with dspy.context(**{INSIDE: True}):
            return self._call()


class Workers:
    """A pool of daemon threads that grows on demand; a thread that was idle for 10 s ends."""

    def __init__(self, limit: int = 64) -> None:
        self.limit = limit
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)  # a forked child has none of these threads

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._idle: list[SimpleQueue[Job]] = []
        self._counted = 0

    def submit(self, call: Callable[[], Any]) -> Job:
        """Run `call()` in a thread, with a copy of this context."""
        job = Job(call)
        inside = dspy.settings.get(INSIDE, False)
        with self._lock:
            if inside:
                job.counted = False
                self._start(job)
            else:
                self._jobs.append(job)
                self._advance()
        return job

    def leave(self, job: Job) -> None:
        """Nobody waits for this job any more: it never starts if it hasn't, and doesn't count if it has."""
        if job.cancel():
            return
        with self._lock:
            self._uncount(job)
            self._advance()

    def _uncount(self, job: Job) -> None:
        if job.counted and job.started:
            job.counted = False
            self._counted -= 1

    def _advance(self) -> None:
        """Start waiting jobs as far as the limit allows. Under the lock."""
        while self._jobs and self._counted < self.limit:
            self._counted += 1
            self._start(self._jobs.popleft())

    def _start(self, job: Job) -> None:
        """Give it to the thread that went idle last, or to a new one. Under the lock."""
        job.started = True
        if self._idle:
            self._idle.pop().put(job)
        else:
            threading.Thread(target=self._work, args=(job,), name="escalade-worker", daemon=True).start()

    def _work(self, first: Job) -> None:
        inbox: SimpleQueue[Job] = SimpleQueue()
        job: Job | None = first
        while job is not None:
            job.run()
            job = self._next(job, inbox)

    def _next(self, finished: Job, inbox: SimpleQueue[Job]) -> Job | None:
        with self._lock:
            self._uncount(finished)
            self._idle.append(inbox)
            self._advance()
        try:
            return inbox.get(timeout=_IDLE_SECONDS)
        except Empty:
            with self._lock:
                if inbox in self._idle:
                    self._idle.remove(inbox)
                    return None
            return inbox.get()  # taken from the idle ones just now: a job is on its way


shared = Workers()
"""The pool that tools use."""
