"""The critical path of a run: which nodes, one after the other, determined when it ended.

Backwards from the end: of the nodes that ran inside, the one that ended last was waited for; what is between its end
and the end is the surrounding node's own. The same inside of it, and then from its start on, until the start of the
whole. So the pieces are one after the other without a gap, and their seconds add up to those of the run. The same is
done with traces of services, see Zhang, Gan et al., "CRISP: Critical Path Analysis of Large-Scale Microservice
Architectures" (USENIX ATC 2022), section 3.

A node that was cancelled was not waited for, unless it outlived all others: a race ends with its winner, though its
losers end a little later; a fan-out that takes what is there at the deadline waited for those that it cancels then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from escalade.pipelines.watching._timeline import Span

LATE = 0.02
"""Seconds by which a node that was cancelled must have outlived the others: to be cancelled takes a moment, too."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a critical path: what the node at `path` itself did from `begun` on (wall clock), for `seconds`."""

    path: str
    begun: float
    seconds: float


def critical_path(root: Span, now: float) -> list[Piece]:
    """The pieces, in order. `now`: when what is still running is taken to end."""
    pieces: list[Piece] = []
    _walk(root, root.begun, _end(root, now), now, pieces)
    return _merged(reversed(pieces))


def _walk(span: Span, low: float, high: float, now: float, pieces: list[Piece]) -> None:
    """Add the pieces between two moments, the last first. As deep as pipelines are nested."""
    at = high
    for child in _waited_for(span.children, now):
        end = min(_end(child, now), high)
        begun = max(child.begun, low)
        if end > at or begun >= end:
            continue  # it ran beside the one that was waited for
        _add(pieces, span.path, end, at)
        _walk(child, begun, end, now, pieces)
        at = begun
    _add(pieces, span.path, low, at)


def _waited_for(children: Iterable[Span], now: float) -> list[Span]:
    """Those that may have been waited for, the last to end first."""
    last = max((_end(child, now) for child in children if not _left(child)), default=-math.inf)
    waited = [child for child in children if not _left(child) or _end(child, now) > last + LATE]
    return sorted(waited, key=lambda child: _end(child, now), reverse=True)


def _left(span: Span) -> bool:
    return span.status == "cancelled"


def _end(span: Span, now: float) -> float:
    return now if span.ended is None else span.ended


def _add(pieces: list[Piece], path: str, begun: float, ended: float) -> None:
    if ended > begun:
        pieces.append(Piece(path, begun, ended - begun))


def _merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces of one node that follow one another as one."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and merged[-1].path == piece.path:
            before = merged.pop()
            merged.append(Piece(piece.path, before.begun, before.seconds + piece.seconds))
        else:
            merged.append(piece)
    return merged
