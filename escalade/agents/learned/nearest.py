"""Nearest: a router that looks at the most similar questions that it has seen (k nearest neighbours).

Distances are Euclidean between facts about questions, each fact scaled by what a ridge regression makes of it: facts
that say nothing about the gain don't make questions different. (Hu et al. 2024, RouterBench, arXiv 2403.12031, has kNN
among its routers.)
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from escalade.agents._saving import Saved, register_policy
from escalade.agents.climb import Decision, View
from escalade.agents.learned._routing import routed
from escalade.agents.learned.cuts import aimed
from escalade.agents.learned.facts import facts_of
from escalade.agents.learned.gain import gains
from escalade.agents.learned.linear import fit_linear
from escalade.agents.learned.table import Table, rows_of
from escalade.agents.policies import RungRef, rung_index
from escalade.errors import BadInput

MOST = 1_000
"""Questions kept: a decision takes about a microsecond for each."""

FACTS_USED = 12
"""Facts by which questions are compared: those that say most about the gain."""


@register_policy
@dataclass(frozen=True, slots=True)
class Nearest(Saved):
    """The rung `high` where it gained `threshold` or more on the `k` most similar questions, else the rung `low`.

    `scale`: one factor per fact that counts. `facts`: their indices. `points`: scaled facts of the questions seen.
    `gain`: what `high` gained on each, -1..1. Raises BadInput.
    """

    kind: ClassVar[str] = "nearest"
    k: int
    facts: tuple[int, ...]
    scale: tuple[float, ...]
    points: tuple[tuple[float, ...], ...]
    gain: tuple[float, ...]
    low: RungRef
    high: RungRef
    threshold: float
    name: str = "nearest"

    def __post_init__(self) -> None:
        if not 1 <= self.k <= len(self.points) or len(self.points) != len(self.gain):
            raise BadInput(f"k is 1 to the {len(self.points)} questions seen, not {self.k!r}")

    @classmethod
    def fit(
        cls,
        table: Table,
        low: RungRef,
        high: RungRef,
        *,
        k: int = 100,
        rows: Sequence[int] | None = None,
        margin: float | None = None,
        share: float | None = None,
        seed: int = 0,
        name: str = "nearest",
    ) -> Self:
        """Keep these rows (None is all), MOST of them drawn by `seed` where there are more, and set the threshold.

        `margin`, `share`: as in `cuts.Aim`, set on what the other rows say of each. Raises DataError, BadInput.
        """
        import numpy as np

        if k < 1:
            raise BadInput(f"k: expected 1 question or more to look at, got {k!r}")
        at = rows_of(table, rows)
        if len(at) > MOST:
            at = sorted(random.Random(seed).sample(at, MOST))
        facts, gain = np.array([facts_of(table.view(i).features) for i in at]), gains(table, at, low, high)
        model, _ = fit_linear(facts, gain)
        scale = np.abs(model.weights)
        says = scale * facts.std(axis=0)
        used = np.array([i for i in np.argsort(-says, kind="stable")[:FACTS_USED].tolist() if says[i] > 0], dtype=int)
        points = np.round(facts[:, used] * scale[used], 5)
        k = min(k, len(at) - 1)
        square = (points**2).sum(axis=1)
        far = square[:, None] + square[None, :] - 2 * points @ points.T
        np.fill_diagonal(far, np.inf)
        kth = np.partition(far, k - 1, axis=1)[:, [k - 1]]
        nearer, equal = far < kth, far == kth
        counted = nearer | (equal & (np.cumsum(equal, axis=1) <= k - nearer.sum(axis=1, keepdims=True)))
        seen = counted @ np.asarray(gain, dtype=np.float64) / k
        return cls(
            k=k,
            facts=tuple(used.tolist()),
            scale=tuple(scale[used].tolist()),
            points=tuple(map(tuple, points.tolist())),
            gain=tuple(gain),
            low=low,
            high=high,
            threshold=aimed(margin, share).threshold(seen, gain),
            name=name,
        )

    def score(self, view: View) -> float:
        """Mean gain on the most similar questions; of equally similar ones the first count."""
        facts = facts_of(view.features)
        here = [facts[i] * scale for i, scale in zip(self.facts, self.scale, strict=True)]
        far = [_square(here, point) for point in self.points]
        return math.fsum(self.gain[i] for i in heapq.nsmallest(self.k, range(len(far)), key=far.__getitem__)) / self.k

    def decide(self, view: View) -> Decision:
        return self.decided(view, 0.0 if view.attempts else self.score(view))

    def decided(self, view: View, score: float) -> Decision:
        """What it decides where the score of the question is known."""
        low, high = rung_index(view.rungs, self.low), rung_index(view.rungs, self.high)
        return routed(view, low, high, score, self.threshold, f"gain on the {self.k} most similar questions")


def _square(here: Sequence[float], point: Sequence[float]) -> float:
    """Squared distance, summed in this order: `sum` rounds otherwise from one version of Python to the next."""
    total = 0.0
    for a, b in zip(here, point, strict=True):
        total += (a - b) * (a - b)
    return total
