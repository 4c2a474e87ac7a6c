"""What the events of runs say about each node: when it ran, what it cost, and which nodes it ran in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from escalade import events
from escalade.events import Event

ENDS = {
    events.NodeFinished: "ok",
    events.NodeFailed: "failed",
    events.NodeCancelled: "cancelled",
    events.RunFinished: "ok",
    events.RunFailed: "failed",
    events.RunCancelled: "cancelled",
}

COUNTS = {
    events.NodeRetried: "retried",
    events.NodeHedged: "hedged",
    events.NodeFellBack: "fell back",
    events.NodeReused: "reused",
    events.CacheHit: "cache hit",
    events.Escalated: "escalated",
    events.ToolDenied: "denied",
    events.Paused: "paused",
}

Key = tuple[str, int, str]


@dataclass(slots=True, eq=False)
class Span:
    """One run of one node, or of a whole pipeline (`path` "").

    `begun`, `ended`: wall clock, seconds; `ended` None and `seconds` 0 while it runs. `waited`: before it began, for a
    free place; `queued`: since then. `models`, `tools`: seconds inside of calls of them. `paid`: nano-dollars settled
    in it and in nothing below; `cost`: what it said that all of it cost.
    """

    path: str
    begun: float
    ended: float | None = None
    seconds: float = 0.0
    status: str = "running"
    waited: float = 0.0
    queued: float = 0.0
    models: float = 0.0
    tools: float = 0.0
    uses: int = 0
    paid: int = 0
    cost: int | None = None
    title: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    children: list[Span] = field(default_factory=list)

    def total(self) -> int:
        """Nano-dollars of it and all below."""
        return self.cost if self.cost is not None else self.paid + sum(child.total() for child in self.children)

    def walk(self) -> Iterator[Span]:
        """This and all below, each before its children."""
        waiting = [self]
        while waiting:
            span = waiting.pop()
            yield span
            waiting.extend(reversed(span.children))


def above(path: str) -> str:
    """The path of the node around the one at `path`.

    >>> above("both/draft"), above("pages[3]"), above("[3]"), above("draft")
    ('both', 'pages', '', '')
    """
    return path.rpartition("[")[0] if path.endswith("]") else path.rpartition("/")[0]


def alike(path: str) -> str:
    """The path with `[*]` for all numbers: what stands for every item of a map, every round of a loop.

    >>> alike("pages[12]/read[3]")
    'pages[*]/read[*]'
    """
    if "[" not in path:
        return path
    parts = path.split("[")
    return parts[0] + "".join(f"[*{part[part.index(']') :]}" if "]" in part else f"[{part}" for part in parts[1:])


class Timeline:
    """A listener that keeps a span per run of a node, and no events. `roots`: the calls of pipelines, as they begin."""

    def __init__(self) -> None:
        self.roots: list[Span] = []
        self.heard = 0
        self.last = 0.0
        self._open: dict[Key, list[Span]] = {}
        self._waited: dict[Key, float] = {}
        self._failed: dict[Key, Span] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        kind = type(event)
        with self._lock:
            self.heard += 1
            self.last = max(self.last, event.time)
            if kind is events.NodeStarted or kind is events.RunStarted:
                self._begin(event)
            elif kind in ENDS:
                self._end(event)
            elif isinstance(event, events.Settled):
                self._settle(event)
            elif isinstance(event, events.NodeQueued):
                self._queue(event)
            elif kind is events.NodeSkipped:
                self._skip(event)
            elif kind in COUNTS:
                span = self._near(event)
                if span is not None:
                    what = COUNTS[kind]
                    span.counts[what] = span.counts.get(what, 0) + 1

    def _begin(self, event: Event) -> None:
        key = (event.run_id, event.call, event.path)
        span = Span(event.path, event.time, waited=self._waited.pop(key, 0.0))
        if isinstance(event, events.RunStarted):
            span.title = event.pipeline
            self.roots.append(span)
        else:
            self._under(event, above(event.path)).append(span)
        self._open.setdefault(key, []).append(span)

    def _end(self, event: Event) -> None:
        key = (event.run_id, event.call, event.path)
        stack = self._open.get(key)
        if not stack:
            return  # it began before anybody listened
        span = stack.pop()
        if not stack:
            del self._open[key]
        span.ended, span.seconds = event.time, event.seconds  # type: ignore[attr-defined]
        span.status, span.cost = ENDS[type(event)], event.cost  # type: ignore[attr-defined]
        if span.status == "failed":
            self._failed[key] = span

    def _skip(self, event: Event) -> None:
        """An optional node that failed is done without: that run is the one that is skipped. Others never began."""
        span = self._failed.pop((event.run_id, event.call, event.path), None)
        if span is not None:
            span.status = "skipped"
        else:
            never = Span(event.path, event.time, event.time, status="skipped")
            self._under(event, above(event.path)).append(never)

    def _settle(self, event: events.Settled) -> None:
        span = self._near(event)
        if span is None:
            return
        span.paid += event.cost
        span.uses += 1
        if event.kind == "tool":
            span.tools += event.seconds
        else:
            span.models += event.seconds

    def _queue(self, event: events.NodeQueued) -> None:
        key = (event.run_id, event.call, event.path)
        stack = self._open.get(key)
        if stack:
            stack[-1].queued += event.seconds
        else:
            self._waited[key] = self._waited.get(key, 0.0) + event.seconds

    def _near(self, event: Event) -> Span | None:
        """The innermost open span around where something happened."""
        path = event.path
        while True:
            stack = self._open.get((event.run_id, event.call, path))
            if stack:
                return stack[-1]
            if not path:
                return None
            path = above(path)

    def _under(self, event: Event, path: str) -> list[Span]:
        """Where the spans of the nodes under `path` go; a root of their own where nobody heard the run begin."""
        while True:
            stack = self._open.get((event.run_id, event.call, path))
            if stack:
                return stack[-1].children
            if not path:
                return self.roots
            path = above(path)
