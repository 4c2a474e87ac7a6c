"""Where the time and the money of runs went.

    with escalade.profile() as run:
        pipeline(question="...")
    run.table()          # per node: time, queue, models, tools, dollars, share of the critical path
    run.speed_up         # work over time: how much ran at once
    pipeline.draw(run=run)

The critical path is what determined when the run ended (see `_critical.py`): only what is on it makes the run faster.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput
from escalade.events import Event
from escalade.money import Money
from escalade.pipelines.watching._critical import Piece, critical_path
from escalade.pipelines.watching._timeline import Span, Timeline, above, alike
from escalade.pipelines.watching.listening import Listening

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["NodeProfile", "Piece", "Profile", "profile"]


@dataclass(slots=True)
class NodeProfile:
    """All runs of one node; of a map or a loop, those of all items and rounds, at a `path` like `pages[*]`.

    Seconds, summed over its `runs`: `seconds` from start to end; `waited` before that for a free place; `queued`
    within, in groups and behind limits; `models`, `tools` inside of calls of them, which may run at once; `critical` on
    the critical path, by itself and not by nodes in it. `paid`: nano-dollars of its own; `cost`: of it and all below.
    `uses`: calls of models and tools. `counts`: what else happened, such as {"retried": 2}. `statuses`: how its runs
    ended. `leaf`: there are no nodes in it.
    """

    path: str
    runs: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    queued: float = 0.0
    models: float = 0.0
    tools: float = 0.0
    critical: float = 0.0
    uses: int = 0
    paid: int = 0
    cost: int = 0
    leaf: bool = True
    counts: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    _each: array[float] = field(default_factory=lambda: array("d"), repr=False)

    def percentile(self, share: float) -> float:
        """Seconds within which that `share` (0 to 1) of its finished runs ended, by the nearest rank; nan for none."""
        times = sorted(self._each)
        return times[min(len(times) - 1, max(0, math.ceil(share * len(times)) - 1))] if times else math.nan

    def add(self, span: Span) -> None:
        """One more run."""
        self.runs += 1
        self.seconds += span.seconds
        self.waited += span.waited
        self.queued += span.queued
        self.models += span.models
        self.tools += span.tools
        self.uses += span.uses
        self.paid += span.paid
        self.cost += span.total()
        self.leaf = self.leaf and not span.children
        self.statuses[span.status] = self.statuses.get(span.status, 0) + 1
        for what, times in span.counts.items():
            self.counts[what] = self.counts.get(what, 0) + times
        if span.ended is not None and (span.status != "skipped" or span.seconds):
            self._each.append(span.seconds)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, with percentiles."""
        told = {name: getattr(self, name) for name in _TOLD}
        return {**told, "p50": self.percentile(0.5), "p95": self.percentile(0.95), "most": self.percentile(1.0)}


_TOLD = (
    "path", "runs", "seconds", "waited", "queued", "models", "tools", "critical", "uses", "paid", "cost", "leaf",
    "counts", "statuses",
)  # fmt: skip


class Profile(Listening):
    """Where the time and the money of one or more runs went; a listener, which may be asked while they run.

    It keeps some 300 bytes per run of a node, and no results. Several calls of pipelines, such as the rows of an
    Evaluate, are added up.
    """

    def __init__(self) -> None:
        super().__init__()
        self._timeline = Timeline()
        self._made: tuple[int, _Report] | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Profile:
        """The profile of events that were heard or read before, in their order. Raises BadInput for what is none.

        >>> import escalade
        >>> from escalade.pipelines.chain import Chain
        >>> heard = []
        >>> with escalade.scope(listen=heard.append):
        ...     _ = Chain(a=lambda: 1)()
        >>> [node.path for node in Profile.of(heard).nodes]
        ['', 'a']
        """
        made = cls()
        if isinstance(events, str) or not isinstance(events, Iterable):
            raise BadInput(f"expected the events of a run, got {events!r:.80}")
        for event in events:
            if not isinstance(event, Event):
                raise BadInput(f"expected the events of a run, got {event!r:.80} among them")
            made(event)
        return made

    def __call__(self, event: Event) -> None:
        if not self._again(event):
            self._timeline(event)

    @property
    def nodes(self) -> list[NodeProfile]:
        """Node by node, each before those in it; the first, at path "", is the pipeline itself."""
        return list(self._report.nodes.values())

    def node(self, path: str) -> NodeProfile | None:
        """The node at a path, with `[*]` for the items of a map and the rounds of a loop; None if it never ran."""
        return self._report.nodes.get(path)

    @property
    def critical_path(self) -> list[Piece]:
        """What determined when the run ended, piece by piece without a gap; of several calls, of the longest."""
        return self._report.critical

    @property
    def calls(self) -> int:
        """Calls of pipelines."""
        return len(self._timeline.roots)

    @property
    def seconds(self) -> float:
        """From the start of the first call to the end of the last."""
        return self._report.seconds

    @property
    def work(self) -> float:
        """Seconds of all leaves, without those that they stood in line: the time that the same would take one after
        the other.
        """
        return self._report.work

    @property
    def speed_up(self) -> float:
        """`work / seconds`: how much ran at once on average; nan for runs without a duration."""
        return self.work / self.seconds if self.seconds > 0 else math.nan

    @property
    def queued(self) -> float:
        """Seconds that all nodes stood in line for places."""
        return sum(node.waited + node.queued for node in self._report.nodes.values())

    @property
    def cost(self) -> Money:
        """What all of it cost."""
        return Money(sum(root.total() for root in self._timeline.roots))

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data: seconds and nano-dollars."""
        return {
            "calls": self.calls,
            "seconds": self.seconds,
            "work": self.work,
            "speed_up": self.speed_up,
            "queued": self.queued,
            "cost": int(self.cost),
            "nodes": [node.as_dict() for node in self.nodes],
            "critical_path": [
                {"path": piece.path, "begun": piece.begun, "seconds": piece.seconds} for piece in self.critical_path
            ],
        }

    def table(self) -> Table:
        """The nodes as a table, for `rich.print`."""
        from escalade.pipelines.watching._profile_view import table

        return table(self)

    def __rich__(self) -> Table:
        return self.table()

    def _repr_html_(self) -> str:
        from escalade.pipelines.watching._profile_view import html

        return html(self)

    @property
    def _report(self) -> _Report:
        heard = self._timeline.heard
        if self._made is None or self._made[0] != heard:
            self._made = heard, _Report(self._timeline)
        return self._made[1]


def profile() -> Profile:
    """A profile of what runs in a `with` or `async with` block; or a listener for a scope.

    >>> import escalade
    >>> from escalade.pipelines.chain import Chain
    >>> with escalade.profile() as run:
    ...     _ = Chain(a=lambda: 1, b=lambda a: a + 1)()
    >>> [node.path for node in run.nodes], run.calls
    (['', 'a', 'b'], 1)
    """
    return Profile()


class _Report:
    """What is computed of a timeline."""

    def __init__(self, timeline: Timeline) -> None:
        roots, now = list(timeline.roots), timeline.last
        self.nodes: dict[str, NodeProfile] = {}
        self.work = 0.0
        for span in _all(roots):
            path = alike(span.path)
            if path not in self.nodes:
                self.nodes[path] = NodeProfile(path)
            self.nodes[path].add(span)
            if not span.children:
                self.work += max(0.0, span.seconds - span.queued)
        self.nodes = _as_tree(self.nodes)
        self.seconds = max((_end(r, now) for r in roots), default=0.0) - min((r.begun for r in roots), default=0.0)
        self.critical: list[Piece] = []
        for root in roots:
            pieces = critical_path(root, now)
            if sum(piece.seconds for piece in pieces) > sum(piece.seconds for piece in self.critical):
                self.critical = pieces
            for piece in pieces:
                self.nodes[alike(piece.path)].critical += piece.seconds


def _as_tree(nodes: dict[str, NodeProfile]) -> dict[str, NodeProfile]:
    """Each before those in it; beside one another in the order in which they began."""
    inside: dict[str | None, list[str]] = {}
    for path in nodes:
        around: str | None = path
        while around is not None and (around == path or around not in nodes):
            around = above(around) if around else None
        inside.setdefault(around, []).append(path)
    ordered: dict[str, NodeProfile] = {}
    waiting = list(reversed(inside.get(None, [])))
    while waiting:
        path = waiting.pop()
        ordered[path] = nodes[path]
        waiting.extend(reversed(inside.get(path, [])))
    return ordered


def _all(roots: list[Span]) -> Iterator[Span]:
    for root in roots:
        yield from root.walk()


def _end(span: Span, now: float) -> float:
    return now if span.ended is None else span.ended
