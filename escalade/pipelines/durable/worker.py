"""A process that executes runs until it is told to stop: `escalade worker`.

SIGTERM, or Ctrl-C: it takes nothing more, finishes what it can within `drain` seconds, hands the rest back to others
(what these runs had finished is not done again), and ends. A second signal ends it at once, as if it had been killed:
others take over.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from escalade.errors import BadInput
from escalade.pipelines.durable.config import NAME, Config, load_config, load_target
from escalade.pipelines.durable.dbos_engine import DbosEngine
from escalade.pipelines.durable.runs import Runs

OK, LOST, KILLED = 0, 1, 130
"""Exit codes: told to stop; its slot was lost to another process; told twice."""


class Worker:
    """Executes the runs of `runs`. `drain`: seconds. `health`: seconds between two lines about how it is; 0 for none.
    `say`: where lines go.
    """

    def __init__(
        self, runs: Runs, *, drain: float = 30.0, health: float = 60.0, say: Callable[[str], object] | None = None
    ) -> None:
        self.runs, self._drain, self._health = runs, drain, health
        self._say = _to_stderr if say is None else say
        self._stop = threading.Event()

    def run(self) -> int:
        """Until it is told to stop: the exit code. Raises BadInput, StoreUnavailable."""
        with self._signals():
            taken = self.runs.recover()
            self._say(f"{self._name()} executes {self._what()}; {taken} runs taken up; SIGTERM ends it")
            code = self._wait()
            running = len(self.runs.host.live)
            self._say(f"{self._name()} takes nothing more; {running} runs have {self._drain:g} s to end")
            self.runs.close(self._drain)
        back = getattr(self.runs.engine, "handed_back", None)
        self._say(f"{self._name()} ended" + ("" if back is None else f"; {back} runs were handed back"))
        return code

    def stop(self) -> None:
        """As a signal does."""
        self._stop.set()

    def _wait(self) -> int:
        next_line = time.monotonic() + self._health
        while not self._stop.wait(0.2):
            if getattr(self.runs.engine, "lost", False):
                return LOST
            if self._health and time.monotonic() >= next_line:
                next_line = time.monotonic() + self._health
                self._say(f"{self._name()}: {self.health()}")
        return OK

    def health(self) -> str:
        """How it is, in one line."""
        live = self.runs.host.live
        oldest = min((one.run.started for one in list(live.values())), default=None)
        since = "" if oldest is None else f", the oldest began {max(0.0, time.time() - oldest):.0f} s ago"
        ended = getattr(self.runs.engine, "ended", None)
        return f"{len(live)} runs at work{since}" + ("" if ended is None else f"; {ended} have ended here")

    def _name(self) -> str:
        return f"worker {self.runs.host.owner}"

    def _what(self) -> str:
        engine = self.runs.engine
        names = ", ".join(sorted(self.runs.host.pipelines)) or "no pipeline"
        if isinstance(engine, DbosEngine):
            queues = ", ".join(f"{name} {engine.queues[name].concurrency} at once" for name in engine.serves)
            return f"{names} ({queues})"
        return names

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def told(number: int, frame: Any) -> None:  # noqa: ARG001 - as the system calls it
            if self._stop.is_set():
                os._exit(KILLED)
            self._stop.set()

        before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def leave(code: int) -> NoReturn:
    """End the process now, after what is to be done at its end: records are written, spans are sent.

    A node that blocks can't be stopped, and Python would wait for its thread, however long that takes. Nobody wants
    what it makes: its run was handed back. For what it does meanwhile it is as if the process had been killed.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # whoever read it is gone
            stream.flush()
    os._exit(code)


def opened(
    target: str | None = None,
    *,
    concurrency: int | None = None,
    queues: Sequence[str] = (),
    name: str | None = None,
) -> Runs:
    """The runs of a file like escalade.yaml (the one of this folder by default), or of `module:attribute`, for a
    process that executes them. Raises BadInput.
    """
    where = NAME if target is None else target
    if Path(where).suffix in {".yaml", ".yml", ".json", ".toml"}:
        return _of_config(load_config(where), concurrency, queues, name)
    found = load_target(where)
    if isinstance(found, Config):
        return _of_config(found, concurrency, queues, name)
    if not isinstance(found, Runs):
        raise BadInput(f"{where}: expected a Runs(...) or a Config, got {type(found).__name__}")
    if isinstance(found.engine, DbosEngine):
        found.engine.becomes_worker(name=name, concurrency=concurrency, serves=queues)
    elif concurrency is not None or queues or name is not None:
        raise BadInput(f"{where}: its engine is 'inline', which has no queues; write engine=DbosEngine(url)")
    return found


def _of_config(config: Config, concurrency: int | None, queues: Sequence[str], name: str | None) -> Runs:
    engine = config.engine()
    if isinstance(engine, DbosEngine):
        engine.becomes_worker(name=name, concurrency=concurrency, serves=queues)
    elif queues or name is not None:
        raise BadInput(f"{config.file}: engine: inline has no queues and names of workers; write `engine: dbos`")
    elif concurrency is not None:
        engine.concurrency = concurrency  # type: ignore[attr-defined]
    return config.runs(engine=engine)


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
