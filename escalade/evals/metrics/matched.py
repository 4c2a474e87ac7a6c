"""Against random mixes: what a policy has that money alone wouldn't have bought, with intervals.

    quality at equal cost    quality - that of the best random mix of constants that costs no more
    cost at equal quality    cost / that of the cheapest random mix of constants that is as good
    over random              quality - that of the mix of its cheap and the strongest rung at the same cost

The mixes of all constants are RouterBench's "zero router" (`plane.hull`): the first two ask more than the third, whose
two rungs may not be the ones to mix. Where a policy costs less than the cheap rung or more than the strongest, the mix
of the third is that rung alone: then costs aren't equal. Intervals against the hull are of the bootstrap over
questions, or over their groups, in which policy, constants and hull are drawn together; over the mix of two it is the
paired interval of the comparison, with the share that the mix has on these questions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.evals.inference import clustered
from escalade.evals.inference.bootstrap import REPS, Interval, bootstrap_many
from escalade.evals.metrics.plane import hull

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.evidence import Evidence

    Floats = NDArray[np.float64]

__all__ = ["Matched", "at_equal", "matched"]

CELLS = 20_000_000
"""Questions times resamples: beyond that there are fewer resamples, and never fewer than FEWEST."""

FEWEST = 400

UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Matched:
    """One policy against random mixes; nan is unknown. `quality`: at equal cost, `cost`: at equal quality (a ratio),
    `random`: over the mix of the cheap and the strongest rung. `mixed`: that mix's quality.
    """

    name: str
    quality: Interval
    cost: Interval
    random: Interval
    mixed: float


def at_equal(cost: Floats, quality: Floats, corners: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """(quality above the hull at this cost, cost over the hull's at this quality), of each policy; nan where there is
    nothing equal.

    Below the cheapest corner there is no mix of that cost: its own quality counts, which is asking too much.
    """
    x, y = corners
    same = np.interp(quality, y, x)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((quality <= y[-1]) & (same > 0), cost / same, np.nan)
    return quality - np.interp(cost, x, y), ratio


def matched(evidence: Evidence, *, reps: int | None = None) -> tuple[Matched, ...]:
    """Of every policy in the order of the evidence; all unknown where a rung's cost is. `reps`: resamples."""
    asked, entries = evidence.questions, evidence.entries
    if not evidence.outcomes.priced or not asked.n or np.isnan(evidence.outcomes.quality).any():
        return tuple(Matched(entry.name, UNKNOWN, UNKNOWN, UNKNOWN, math.nan) for entry in entries)
    m, k = len(entries), evidence.outcomes.k
    columns = np.column_stack(
        [evidence.cost(entry.name) for entry in entries]
        + [evidence.quality(entry.name) for entry in entries]
        + [cost for _, cost in evidence.constants]
        + [quality for quality, _ in evidence.constants]
    )

    def figures(weights: Floats) -> Floats:
        means = (weights @ columns) / weights.sum(axis=1, keepdims=True)
        cost, quality, costs, qualities = np.split(means, [m, 2 * m, 2 * m + k], axis=1)
        return np.hstack(_over_hulls(cost, quality, costs, qualities))

    draws = reps or int(np.clip(CELLS // asked.n, FEWEST, REPS))
    found = bootstrap_many(figures, asked.n, reps=draws, seed=evidence.seed, group=asked.group)
    return tuple(
        Matched(entry.name, found[i], found[m + i], *_over_mix(evidence, entry.name)) for i, entry in enumerate(entries)
    )


def _over_hulls(cost: Floats, quality: Floats, costs: Floats, qualities: Floats) -> tuple[Floats, Floats]:
    """(quality at equal cost, cost at equal quality), `(b, m)` each, against the hull of each resample's constants."""
    over, ratio = np.empty_like(cost), np.empty_like(cost)
    for row in range(len(cost)):
        over[row], ratio[row] = at_equal(cost[row], quality[row], hull(costs[row], qualities[row]))
    return over, ratio


def _over_mix(evidence: Evidence, name: str) -> tuple[Interval, float]:
    """(quality of the policy less that of the mix of two rungs at its cost, the mix's quality)."""
    mixed, _ = evidence.mix_at(float(evidence.cost(name).mean()))
    over = clustered.difference(evidence.quality(name), mixed, evidence.questions.group)
    return Interval(over.value, over.low, over.high), float(mixed.mean())
