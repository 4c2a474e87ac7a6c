"""Means and paired differences of questions that come in groups, and how many questions it would take.

Questions of one group (a document, a conversation) are right or wrong together, so that a group counts as one
observation of its sum. For a mean, the sandwich estimator with n questions, groups g of n_g, and residuals e is

    V = sum over g of (sum of e in g)^2 / (1 - n_g / n) / n^2

(Liang & Zeger 1986, Biometrika 73:13, with the leverage correction "CR2" of Bell & McCaffrey 2002, Survey Methodology
28:169) and has their degrees of freedom. With groups of one size that is the usual "CR1" with Student's t at g - 1;
with groups of unequal size CR1 is too sure of itself, above all when one group is large.

0/1 values get the additions that keep their intervals honest near 0 and 1, too: a paired difference the four half pairs
of Agresti and Min (`statistics.paired_difference`), a share Wilson's interval at its effective number of questions,
V = p (1 - p) / n_eff, at most n, scaled for the degrees of freedom (Korn & Graubard 1998, Survey Methodology 24:193).
The mean of grades between 0 and 1 is skewed near either end: its t is transformed as by Hall 1992 ("On the removal of
skewness by transformation", JRSS B 54:221), which at a mean of 0.97 of 50 grades holds 95 % where Student's t holds 88.
Differences of grades aren't: theirs are nearly symmetric. Without groups, all else is what `statistics` gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from escalade.errors import BadInput
from escalade.evals import statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Groups = NDArray[np.int64] | None

__all__ = ["Difference", "clustered_error", "difference", "mean_interval", "rows_needed", "skewed_interval"]

LEVEL, POWER = 0.95, 0.8


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference of means. `value` in the values' unit, between `low` and `high` at `level`; nan is unknown.

    `p_better`: one-sided p value that it isn't above 0. `detectable`: the smallest true difference that would be found
    significant with `power`. `df`: degrees of freedom of its standard error, inf where the normal distribution is used.
    `floor`: a second lower bound, for the verdict "as good" (`statistics.score_floor`); inf for none.
    """

    value: float
    low: float
    high: float
    p_better: float
    detectable: float
    df: float
    floor: float = math.inf


def difference(a: Floats, b: Floats, group: Groups = None, *, level: float = LEVEL, power: float = POWER) -> Difference:
    """Of one value per question, `(n,)` each. `group`: (n,) codes 0..g-1. Raises BadInput for unequal columns."""
    value, low, high = statistics.paired_difference(a, b, level)
    if group is None:
        p, found = statistics.better_p(a, b), statistics.detectable(a, b, power, level)
        df = math.inf if statistics.adjusts(a, b) else len(a) - 1.0
        return Difference(value, low, high, p, found, df, statistics.score_floor(a, b, level))
    adjusted = statistics.adjusts(a, b)
    middle, error, df = clustered_error(np.asarray(a, dtype=np.float64) - b, group, adjusted=adjusted)
    if math.isnan(error):
        return Difference(value, math.nan, math.nan, math.nan, math.nan, df)
    t = statistics.t_quantile(0.5 + level / 2.0, df)
    low, high = middle - t * error, middle + t * error
    if adjusted:
        low, high = max(-1.0, min(value, low)), min(1.0, max(value, high))
    found = (t + statistics.t_quantile(power, df)) * error
    return Difference(value, low, high, _above(middle, error, df), found, df)


def mean_interval(x: Floats, group: Groups = None, *, level: float = LEVEL) -> tuple[float, float, float]:
    """(mean, low, high) of one value per question. Raises BadInput."""
    values = np.asarray(x, dtype=np.float64)
    binary = bool(((values == 0) | (values == 1)).all())
    plain = statistics.mean_interval(values, level)
    if group is None and (binary or bool((values == values[0]).all())):
        return plain
    if not binary or group is None:
        return skewed_interval(values, group, level=level)
    mean, error, df = clustered_error(values, group)
    if math.isnan(error):
        return mean, math.nan, math.nan
    t = statistics.t_quantile(0.5 + level / 2.0, df)
    units = int(group.max()) + 1
    shared = mean * (1.0 - mean) / error**2 if error > 0 else float(units)
    size = min(shared, float(len(values))) * (NormalDist().inv_cdf(0.5 + level / 2.0) / t) ** 2
    return mean, *statistics.wilson(mean * size, size, level)


def skewed_interval(x: Floats, group: Groups = None, *, level: float = LEVEL) -> tuple[float, float, float]:
    """(mean, low, high) of values of any size, skewed ones too: Student's t by Hall's transformation."""
    values = np.asarray(x, dtype=np.float64)
    group = np.arange(len(values)) if group is None else group
    mean, error, df = clustered_error(values, group)
    if math.isnan(error):
        return mean, math.nan, math.nan
    t, skew = statistics.t_quantile(0.5 + level / 2.0, df), _skewness(values, group)
    return mean, mean - _untwisted(t, skew) * error, mean - _untwisted(-t, skew) * error


def rows_needed(detectable: float, n: int, wanted: float) -> int | None:
    """Questions that it takes to find a true difference of `wanted`, where n of them find `detectable`.

    The standard error shrinks with the root of the number of questions: n (detectable / wanted)^2, of the same kind and
    in groups of the same size. None where that isn't known. Raises BadInput unless `wanted` is above 0.
    """
    if not wanted > 0:
        raise BadInput(f"rows needed: a difference that is to be found is above 0, not {wanted!r}")
    if math.isnan(detectable):
        return None
    return math.ceil(n * (detectable / wanted) ** 2 - 1e-9)


def clustered_error(x: Floats, group: NDArray[np.int64], *, adjusted: bool = False) -> tuple[float, float, float]:
    """(mean, standard error, degrees of freedom) of values in groups; nan and 0 with a single group.

    `adjusted`: with Agresti and Min's half pairs, each a group of its own: half at +1, half at -1, and one at 0.
    """
    values = np.asarray(x, dtype=np.float64)
    if values.shape != group.shape or not len(values):
        raise BadInput(f"{len(group)} questions in groups have one value each, not {values.shape}")
    share = np.bincount(group) / len(values)
    added = 2 if adjusted else 0
    total = len(values) + added
    mean = float(values.sum()) / total
    if len(share) < 2:
        return mean, math.nan, 0.0
    sums = np.bincount(group, weights=values - mean)
    squares = float((sums**2 / (1.0 - share)).sum()) + (1.0 + 2.0 * mean**2 if adjusted else 0.0)
    return mean, math.sqrt(squares) / total, _freedom(share)


def _freedom(share: Floats) -> float:
    """Bell and McCaffrey's degrees of freedom for a mean: g - 1 for groups of one size, fewer for others."""
    leaning = share**2 / (1.0 - share)
    return float(1.0 / ((share**2).sum() + leaning.sum() ** 2 - (leaning**2).sum()))


def _skewness(x: Floats, group: NDArray[np.int64]) -> float:
    """Of the mean, estimated: -1..1, about 0 for many questions or a symmetric distribution."""
    sums = np.bincount(group, weights=x - x.mean())
    spread = float((sums**2).sum()) ** 1.5
    return float((sums**3).sum()) / spread if spread > 0 else 0.0


def _untwisted(t: float, skew: float) -> float:
    """Inverse of Hall's transformation g(t) = t + skew t^2 / 3 + skew^2 t^3 / 27 + skew / 6."""
    if abs(skew) < 1e-6:
        return t
    return float(np.cbrt(1.0 + skew * (t - skew / 6.0)) - 1.0) * 3.0 / skew


def _above(mean: float, error: float, df: float) -> float:
    if error == 0.0:
        return 0.5 if mean == 0.0 else float(mean < 0.0)
    tail = statistics.t_tail(abs(mean) / error, df)
    return tail if mean >= 0.0 else 1.0 - tail
