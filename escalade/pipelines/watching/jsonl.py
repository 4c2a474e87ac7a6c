"""Events as lines of JSON in a file, and back.

    with escalade.JsonlEvents("runs.jsonl") as log, escalade.scope(listen=log):
        pipeline(question="...")

    for event in escalade.read_events("runs.jsonl"):
        ...

A line is what `Event.as_dict` gives. Texts are redacted as the audit's are, values that are no JSON are shown by a
short text, and long texts are cut. A line is made (5 us) by whoever emits; a thread redacts and writes it (0.1 ms).
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import itertools
import json
import logging
import math
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import dspy

from escalade import events
from escalade.errors import DataError
from escalade.events import Event

LONGEST = 2000
"""Characters of one text in a line."""

MOST = 100
"""Items of one list in a line."""

DEEPEST = 6
"""Lists in lists in a line; what is deeper is written as text."""

WAITING = 100_000
"""Lines that may wait to be written; what comes on top is counted and left out, so that a slow disk stops no run."""

_EXACT = frozenset({"event", "run_id", "path"})

logger = logging.getLogger(__name__)


class JsonlEvents:
    """A listener that appends events to a file, as lines of JSON; also a context manager.

    `path`: made with its folders where it isn't there. `redact`: put placeholders in place of personal data and
    secrets; tokens are left out then, since a name could be in two pieces. `on`: only events of these classes.
    Several processes may append to one file. `lost`: events that could not be written, since the disk was too slow or
    full; that is logged, and disturbs no run. Raises OSError for a path that can't be opened.

    >>> import tempfile, os, escalade
    >>> from escalade.pipelines.chain import Chain
    >>> path = os.path.join(tempfile.mkdtemp(), "runs.jsonl")
    >>> with JsonlEvents(path) as log, escalade.scope(listen=log):
    ...     _ = Chain(a=lambda: 1)()
    >>> [type(event).__name__ for event in read_events(path)]
    ['RunStarted', 'NodeStarted', 'NodeFinished', 'RunFinished']
    """

    def __init__(
        self, path: str | Path, *, redact: bool = True, on: type[Event] | tuple[type[Event], ...] = ()
    ) -> None:
        self.path, self.lost = Path(path), 0
        self._redact, self._on = redact, on if isinstance(on, tuple) else (on,)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = self.path.open("ab")
        self._thread: threading.Thread | None
        self._lock, self._closed = threading.Lock(), False
        self._forked()

    def __call__(self, event: Event) -> None:
        """Take one event; returns before it is written."""
        if self._closed or (self._on and not isinstance(event, self._on)):
            return
        if self._redact and isinstance(event, events.Token):
            return
        if self._thread is None or self._pid != os.getpid():
            self._begin()
        try:
            self._lines.put_nowait(as_json(event))
        except queue.Full:
            self._lose(1, "the disk is too slow")

    def flush(self) -> None:
        """Wait until all events so far are written, and handed to the system."""
        if self._thread is not None:
            self._lines.join()

    def close(self) -> None:
        """Write what is left. Events after that are taken no more."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        if self._thread is not None:
            self._lines.put(None)
            self._thread.join()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _forked(self) -> None:
        """A process that forks has neither the thread nor what waited for it."""
        self._pid, self._thread = os.getpid(), None
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING)

    def _begin(self) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._forked()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._write, name="escalade-events", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    def _write(self) -> None:
        while True:
            rows = [self._lines.get()]
            while len(rows) < 1000 and rows[-1] is not None and not self._lines.empty():
                rows.append(self._lines.get())
            self._append([row for row in rows if row is not None])
            for _ in rows:
                self._lines.task_done()
            if rows[-1] is None:
                return

    def _append(self, rows: list[dict[str, Any]]) -> None:
        """One write for all that waited, so that lines of several processes don't mix."""
        try:
            lines = [json.dumps(_redacted(row) if self._redact else row, ensure_ascii=False) for row in rows]
            if lines:
                self._file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
                self._file.flush()
        except Exception as error:  # noqa: BLE001 - a full disk must not end the thread
            self._lose(len(rows), f"{type(error).__name__}: {error}")

    def _lose(self, count: int, why: str) -> None:
        with self._lock:
            if not self.lost:
                logger.warning("events are missing in %s: %s", self.path, why)
            self.lost += count


def as_json(event: Event) -> dict[str, Any]:
    """The event as a dict of plain JSON: what is no JSON as a short text, nan and infinities as null."""
    return {name: _plain(value, 0) for name, value in event.as_dict().items()}


def _plain(value: Any, depth: int) -> Any:
    plain: Any = None
    if isinstance(value, bool):
        plain = value
    elif isinstance(value, int | float):
        plain = (int(value) if isinstance(value, int) else value) if math.isfinite(value) else None
    elif isinstance(value, str):
        plain = _cut(value)
    elif depth < DEEPEST and isinstance(value, Mapping | dspy.Example):  # a Prediction is an Example
        plain = {_cut(str(key)): _plain(item, depth + 1) for key, item in itertools.islice(value.items(), MOST)}
    elif depth < DEEPEST and isinstance(value, list | tuple | set | frozenset):
        plain = [_plain(item, depth + 1) for item in itertools.islice(value, MOST)]
    elif value is not None:
        plain = _cut(_shown(value))
    return plain


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - somebody's __repr__
        return f"<{type(value).__name__}>"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _redacted(row: dict[str, Any]) -> dict[str, Any]:
    from escalade.registry.privacy import redactor

    hide = redactor.default().redact_value
    # Numbers at the top are counts, seconds and nano-dollars, of which some would be taken for somebody's telephone.
    texts = {name for name, value in row.items() if isinstance(value, str | list | dict)} - _EXACT
    return {name: hide(value) if name in texts else value for name, value in row.items()}


def read_events(path: str | Path) -> Iterator[Event]:
    """The events of a file that `JsonlEvents` wrote, in the order of the file; of each run that is their order.

    What was no JSON is the short text that stands for it. A last line that was cut off by a crash is left out, and so
    are events that this version doesn't know. Raises DataError for another line that is none, OSError for the file.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                event = _event(row)
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                if not line.endswith(b"\n"):
                    return
                raise DataError(f"{path}, line {number}: no event: {line[:80]!r}") from error
            if event is not None:
                yield event


def _event(row: dict[str, Any]) -> Event | None:
    kind: Any = _kinds().get(row["event"])
    if kind is None:
        return None
    given: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in row:
            value = row[field.name]
            given[field.name] = math.nan if value is None and field.type == "float" else value
    event: Event = kind(**given)
    return event


@functools.cache
def _kinds() -> dict[str, type[Event]]:
    found = {name: kind for name, kind in vars(events).items() if isinstance(kind, type) and issubclass(kind, Event)}
    return {name: kind for name, kind in found.items() if kind is not Event}
