"""The state of runs as rows: one per node, one for all items of a map or all rounds of a loop.

So 100,000 items take the memory of one, and an event costs a few microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from escalade import events
from escalade.events import Event
from escalade.pipelines.shape import Shape
from escalade.pipelines.watching._timeline import COUNTS, ENDS, above, alike

ITEMS = "[*]"
_LATELY = 1000
"""Failures that are remembered, so that one that the pipeline does without isn't counted twice."""


@dataclass(slots=True, eq=False)
class Row:
    """A node, with all its runs. `around`: the row of the node that it is in.

    `expected`: how many runs there will be, None for unknown. `since`: when its first run began,
    `time.monotonic()` seconds; `took`: seconds from then to its last end. `done`, `total`, `message`: what it said
    itself. `paid`: nano-dollars settled in it, and in nothing below. `why`: of its last failure.
    """

    path: str
    name: str
    around: Row | None = None
    started: int = 0
    running: int = 0
    ok: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0
    expected: int | None = None
    since: float = 0.0
    took: float = 0.0
    paid: int = 0
    done: float = 0.0
    total: float | None = None
    message: str = ""
    why: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    inside: dict[str, Row] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        return self.ok + self.failed + self.cancelled + self.skipped

    @property
    def state(self) -> str:
        """waiting, running, or how it ended: failed where any of its runs has."""
        if self.running:
            return "running"
        for state in ("failed", "cancelled", "ok", "skipped"):
            if getattr(self, state):
                return state
        return "waiting"

    def money(self) -> int:
        """Nano-dollars so far."""
        return self.paid + sum(row.money() for row in self.inside.values())


class Rows:
    """Follows events. `roots`: a row per pipeline, by what it is called. `shapes`: of pipelines, by what they are
    called, whose nodes are shown before they begin. Not thread-safe: hold a lock around it.
    """

    def __init__(self, shapes: Mapping[str, Shape], clock: Callable[[], float] = time.monotonic) -> None:
        self.roots: dict[str, Row] = {}
        self._clock = clock
        self._titles: dict[tuple[str, int], str] = {}
        self._known: dict[tuple[str, str], Row] = {}
        self._failed: dict[tuple[str, int, str], None] = {}  # of late: one that is optional is skipped soon after
        self._shapes = shapes
        self.uses = 0

    def hear(self, event: Event) -> Row | None:
        """Take one event; the row that it is about, None for what has none."""
        kind = type(event)
        if kind is events.RunStarted:
            self._titles[event.run_id, event.call] = event.pipeline  # type: ignore[attr-defined]
        row = self._row(event)
        if kind is events.NodeStarted or kind is events.RunStarted:
            self._begin(row, event)
        elif kind in ENDS:
            self._end(row, event)
        else:
            self._other(row, event)
        return row

    def _begin(self, row: Row, event: Any) -> None:
        if not row.started:
            row.since = self._clock()
        if not row.running:
            row.done, row.total, row.message = 0.0, None, ""
        row.started += 1
        row.running += 1
        of = getattr(event, "of", None)
        if of is not None:
            row.expected = of

    def _end(self, row: Row, event: Any) -> None:
        status = ENDS[type(event)]
        if status == "failed":
            self._failed[event.run_id, event.call, event.path] = None
            if len(self._failed) > _LATELY:
                del self._failed[next(iter(self._failed))]
        row.running = max(0, row.running - 1)
        setattr(row, status, getattr(row, status) + 1)
        row.took = self._clock() - row.since
        row.why = getattr(event, "error", "") or row.why
        if not event.path:
            self._titles.pop((event.run_id, event.call), None)

    def _other(self, row: Row, event: Event) -> None:
        if isinstance(event, events.Settled):
            row.paid += event.cost
            self.uses += 1
        elif isinstance(event, events.Progress):
            row.done, row.total, row.message = event.done, event.total, event.message
        elif isinstance(event, events.NodeSkipped):
            row.skipped += 1
            key = (event.run_id, event.call, event.path)
            if key in self._failed:
                del self._failed[key]
                row.failed -= 1  # the same run: the pipeline does without it
            row.why = event.why
        elif isinstance(event, events.RungTried):
            row.message = event.rung
        elif type(event) in COUNTS:
            what = COUNTS[type(event)]
            row.counts[what] = row.counts.get(what, 0) + 1

    def _row(self, event: Event) -> Row:
        title = self._titles.get((event.run_id, event.call), "")
        path = alike(event.path)
        row = self._known.get((title, path))
        return self._made(title, path) if row is None else row

    def _made(self, title: str, path: str) -> Row:
        """A new row, under those around it."""
        row = self._known.get((title, path))
        if row is not None:
            return row
        if not path:
            row = self.roots[title] = Row("", title)
            self._known[title, ""] = row
            if title in self._shapes:
                self._expect(title, self._shapes[title])
            return row
        around = self._made(title, above(path))
        known = self._known.get((title, path))  # the shape may have brought it
        if known is not None:
            return known
        row = around.inside[path] = Row(path, path.removeprefix(around.path).lstrip("/"), around)
        self._known[title, path] = row
        return row

    def _expect(self, title: str, shape: Shape) -> None:
        """Rows for the nodes of a pipeline that have not begun."""
        for one in shape.walk():
            if one.role != "fallback":
                self._made(title, one.path)
