"""The curves, frontier and ratios of a whole comparison on resampled questions, in columns.

One resample is one row of counts (`bootstrap`), and every figure of every policy is taken from the same one: so the
frontier is that of one possible study, and policies are paired there, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.curves import Sweep

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

__all__ = ["CURVE", "Swept", "on_frontier"]

CURVE = ("apgr", "cpt50", "cpt80")
"""What `Swept.figures` gives, in this order."""

FEW = 64
"""So many distinct scores are summed up by a matrix product; more of them by sorting the columns."""


@dataclass(frozen=True)
class Swept:
    """A sweep, prepared to be drawn again: `order` of its rows by score, the highest first; `starts` of equal scores.

    `gain`: (n,) what the strong answer is better by, in that order.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    gain: Floats

    @classmethod
    def of(cls, sweep: Sweep) -> Swept:
        """Unknown scores (nan) come first, as in `curves.curve`."""
        score = np.where(np.isnan(sweep.score), np.inf, sweep.score)
        order = np.argsort(-score, kind="stable")
        new = np.append(True, score[order][1:] != score[order][:-1])
        return cls(order, np.flatnonzero(new), (sweep.strong - sweep.weak)[order])

    def figures(self, weights: Floats) -> Floats:
        """(b, 3) of `CURVE`, for `(b, n)` weights of the rows; nan where there is no gap to recover."""
        drawn, gained = self._summed(weights)
        total = drawn.sum(axis=1, keepdims=True)
        fraction, gain = np.cumsum(drawn, axis=1) / total, np.cumsum(gained, axis=1)
        gap = gain[:, -1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            recovered = np.where(gap > 0, gain / gap, np.nan)
        before = np.zeros((len(weights), 1))
        fraction, recovered = np.hstack([before, fraction]), np.hstack([before, recovered])
        steps = np.diff(fraction, axis=1) * (recovered[:, 1:] + recovered[:, :-1])
        return np.column_stack([steps.sum(axis=1) / 2, *(_crossed(fraction, recovered, x) for x in (0.5, 0.8))])

    def _summed(self, weights: Floats) -> tuple[Floats, Floats]:
        """(b, m) weights, and gains times weights, of each distinct score."""
        if len(self.starts) > FEW:
            sorted_ = np.take(weights, self.order, axis=1)
            sums = sorted_, sorted_ * self.gain
            if len(self.starts) == len(self.order):
                return sums
            return np.add.reduceat(sums[0], self.starts, axis=1), np.add.reduceat(sums[1], self.starts, axis=1)
        n, m = len(self.order), len(self.starts)
        step = np.zeros(n, dtype=np.int64)
        step[self.starts[1:]] = 1
        sums_of = np.zeros((n, 2 * m))
        sums_of[self.order, np.cumsum(step)] = 1.0
        sums_of[self.order, m + np.cumsum(step)] = self.gain
        both = weights @ sums_of
        return both[:, :m], both[:, m:]


def _crossed(fraction: Floats, recovered: Floats, x: float) -> Floats:
    """(b,) the first fraction at which `x` is recovered, linear between cut points; nan where there is none."""
    reached = recovered >= x - 1e-12
    first = np.argmax(reached, axis=1)
    at, before = np.arange(len(first)), np.maximum(first - 1, 0)
    low, high = recovered[at, before], recovered[at, first]
    with np.errstate(divide="ignore", invalid="ignore"):
        rise = np.clip((x - low) / (high - low), 0.0, 1.0)
    found = fraction[at, before] + rise * (fraction[at, first] - fraction[at, before])
    return np.where(reached.any(axis=1), found, np.nan)


def on_frontier(cost: Floats, quality: Floats) -> Bools:
    """(b, p) which of p policies lies on the frontier of each resample; as `curves.frontier`, row by row.

    `cost`: nan where unknown, which is never on it.
    """
    # Sums in another order differ in the last digits: what is equal by value is made equal.
    quality = np.round(quality, 12)
    dearer, cheaper = cost[:, :, None], cost[:, None, :]
    own, other = quality[:, :, None], quality[:, None, :]
    earlier = np.tri(cost.shape[1], k=-1, dtype=bool)
    tied = (cheaper == dearer) & ((other > own) | ((other == own) & earlier))
    beaten = ((cheaper < dearer) & (other >= own)) | tied
    on: Bools = ~beaten.any(axis=2) & ~np.isnan(cost)
    return on
