"""Bootstrap intervals of anything that is made of weighted sums over questions, in columns.

A resample is a row of counts: how often each question was drawn. A statistic takes a block of such rows, `(b, n)`, and
gives one value for each, so that the means of forty policies in two thousand resamples are one matrix product:

    bootstrap(lambda w: w @ quality / w.sum(axis=1), len(quality))

With `group`, whole groups are drawn (the cluster bootstrap: Davison & Hinkley 1997, 3.8): a question has the count of
its group, and rows of counts don't sum to n: divide by their sum.

Intervals are percentiles, taken a little further out: at Phi(sqrt(g / (g - 1)) t(g - 1)) for g independent units, which
mends that the plain percentile interval of a mean is too short in small samples (Hesterberg 2015, "What teachers should
know about the bootstrap", The American Statistician 69:371, "expanded percentile"). `method="bca"`: bias-corrected and
accelerated (Efron 1987, JASA 82:171), with the acceleration from a jackknife that leaves out at most BLOCKS blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from escalade.errors import BadInput
from escalade.evals.statistics import t_quantile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Statistic = Callable[[Floats], ArrayLike]

__all__ = ["Interval", "bootstrap", "bootstrap_many", "interval_of", "resamples"]

REPS = 2_000
CELLS = 2_000_000
"""A block of resamples has about so many counts (16 MB): it stays near the processor, whatever n is."""

BLOCKS = 200
LEAST_KNOWN = 0.9
"""A bound is unknown where the statistic is unknown (nan) in more than the rest of the resamples."""

Method = Literal["percentile", "bca"]


@dataclass(frozen=True, slots=True)
class Interval:
    """`value` on the questions as they are, between `low` and `high` at `level`; nan is unknown."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def __contains__(self, truth: float) -> bool:
        return self.low <= truth <= self.high


def bootstrap(
    statistic: Statistic,
    n: int,
    *,
    reps: int = REPS,
    seed: int = 0,
    group: ArrayLike | None = None,
    level: float = 0.95,
    method: Method = "percentile",
) -> Interval:
    """The interval of one figure. `statistic`: `(b, n)` counts -> `(b,)` values, nan where one is unknown.

    `n`: questions. `group`: (n,) codes of groups that are drawn whole. Raises BadInput.
    """

    def column(weights: Floats) -> Floats:
        return np.asarray(statistic(weights), dtype=np.float64).reshape(len(weights), 1)

    return bootstrap_many(column, n, reps=reps, seed=seed, group=group, level=level, method=method)[0]


def bootstrap_many(
    statistic: Statistic,
    n: int,
    *,
    reps: int = REPS,
    seed: int = 0,
    group: ArrayLike | None = None,
    level: float = 0.95,
    method: Method = "percentile",
) -> list[Interval]:
    """The intervals of m figures from the same resamples. `statistic`: `(b, n)` counts -> `(b, m)` values."""
    codes = _codes(n, group)
    if reps < 2 or not 0.0 < level < 1.0 or method not in {"percentile", "bca"}:
        raise BadInput(
            "bootstrap: expected 2 resamples or more, a level between 0 and 1, and percentile or bca; "
            f"got {reps}, {level} and {method!r}"
        )
    values = np.asarray(statistic(np.ones((1, n))), dtype=np.float64)
    if values.ndim != 2 or len(values) != 1:
        raise BadInput(f"a statistic of one row of counts gives one row of values, not the shape {values.shape}")
    drawn = np.concatenate([np.asarray(statistic(w), dtype=np.float64) for w in resamples(n, reps, seed, codes)])
    lean = _jackknife(statistic, n, codes) if method == "bca" else np.zeros(values.shape[1])
    units = n if codes is None else int(codes.max()) + 1
    return [
        interval_of(column, float(value), units, level, method=method, skew=float(skew))
        for value, column, skew in zip(values[0], drawn.T, lean, strict=True)
    ]


def resamples(n: int, reps: int = REPS, seed: int = 0, group: ArrayLike | None = None) -> Iterator[Floats]:
    """Blocks of counts, `(b, n)` each, `reps` rows in all: the same for the same seed."""
    rng, codes = np.random.default_rng(seed), _codes(n, group)
    units = n if codes is None else int(codes.max()) + 1
    block = max(1, min(reps, CELLS // n))
    for start in range(0, reps, block):
        rows = min(block, reps - start)
        at = rng.integers(0, units, (rows, units), dtype=np.int32) + np.arange(rows, dtype=np.int32)[:, None] * units
        counts = np.bincount(at.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)
        yield counts if codes is None else counts[:, codes]


def interval_of(
    drawn: Floats, value: float, units: int, level: float = 0.95, *, method: Method = "percentile", skew: float = 0.0
) -> Interval:
    """From the values that a figure had in all resamples, nan where unknown. `units`: that were drawn from."""
    known = drawn[~np.isnan(drawn)]
    if math.isnan(value) or len(known) < LEAST_KNOWN * len(drawn) or units < 2:
        return Interval(value, math.nan, math.nan, level)
    z = NormalDist()
    out = math.sqrt(units / (units - 1)) * t_quantile(0.5 + level / 2.0, units - 1)
    if method == "percentile":
        p_low, p_high = z.cdf(-out), z.cdf(out)
    else:
        below = float((known < value).mean() + (known == value).mean() / 2.0)
        shift = z.inv_cdf(min(max(below, 0.5 / len(known)), 1.0 - 0.5 / len(known)))
        p_low, p_high = (z.cdf(shift + (shift + q) / (1.0 - skew * (shift + q))) for q in (-out, out))
    low, high = np.quantile(known, [p_low, p_high])
    return Interval(value, float(low), float(high), level)


def _jackknife(statistic: Statistic, n: int, group: NDArray[np.int64] | None) -> Floats:
    """Acceleration of each figure: a sixth of the skewness of what it loses by one block after the other."""
    units = np.arange(n) if group is None else group
    blocks = min(BLOCKS, int(units.max()) + 1)
    left = (units[None, :] % blocks != np.arange(blocks)[:, None]).astype(np.float64)
    without = np.asarray(statistic(left), dtype=np.float64)
    loss = np.nanmean(without, axis=0) - without
    spread = np.nansum(loss**2, axis=0) ** 1.5
    skew: Floats = np.divide(np.nansum(loss**3, axis=0), 6.0 * spread, out=np.zeros(without.shape[1]), where=spread > 0)
    return skew


def _codes(n: int, group: ArrayLike | None) -> NDArray[np.int64] | None:
    if n < 1:
        raise BadInput("a bootstrap needs one question or more")
    if group is None:
        return None
    codes = np.unique(np.asarray(group), return_inverse=True)[1].astype(np.int64)
    if codes.shape != (n,):
        raise BadInput(f"{n} questions have {n} groups, not {codes.shape}")
    return codes
