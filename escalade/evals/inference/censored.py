"""Outcomes with holes: which rungs were not asked, whether that looks like chance, and who can be judged all the same.

Recorded live, a cascade asks the upper rung only where the lower one was unsure. What it didn't ask isn't missing by
chance: the mean of what is there says nothing about the rest. A deterministic log has no propensities but 0 and 1, and
just this can be told: a policy whose whole way lies within what was recorded is replayed as always, every other one is
refused, with the share of questions on which it leaves that. Where a log was randomised, `online.estimates` judges the
others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from escalade.errors import Censored, DataError
from escalade.evals._play import play

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.lineup import Entry, Lineup
    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]

__all__ = ["Hole", "Refused", "censored", "inside"]

SURE = 0.001
"""A p value below which holes don't look like chance."""


@dataclass(frozen=True, slots=True)
class Hole:
    """What one rung lacks. `share`: of the questions it was not asked, 0..1. `by`: the lower rung whose confidence goes
    with that, None where none does. `cut`: above it the rung was never asked, below it always: a threshold decided;
    None where it wasn't so. `p`: how likely such a difference in confidence is by chance. `said`: all of it in words.
    """

    rung: str
    missing: int
    share: float
    by: str | None
    cut: float | None
    p: float
    said: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A policy that can't be judged on these outcomes. `share`: of the questions on which it leaves them."""

    name: str
    why: str
    share: float


def censored(outcomes: Outcomes) -> tuple[Hole, ...]:
    """The rungs that were not asked everything, in the order of the ladder; empty for whole outcomes."""
    return tuple(_hole(outcomes, rung) for rung in range(outcomes.k) if not outcomes.asked[:, rung].all())


def inside(
    entries: list[Entry], base: Entry, lineup: Lineup, folds: int, *, named: bool
) -> tuple[list[Entry], Entry, tuple[Refused, ...]]:
    """The entries that stay within what was recorded, the baseline, and the others with the reason.

    Where the baseline is among the others and nobody `named` it, the dearest rung that was always asked stands in, else
    the first policy that is left. Raises Censored for a baseline that was named, DataError where no policy is left.
    """
    refused, left = [], []
    for entry in entries:
        try:
            play(entry, lineup.outcomes, folds, lineup.seed)
            left.append(entry)
        except Censored as error:
            if named and entry.name == base.name:
                raise
            why = (
                str(error)
                if error.policy == entry.name
                else f"{entry.name}: {str(error).removeprefix(f'{error.policy}: ')}"
            )
            refused.append(Refused(entry.name, why, error.share))
    if not any(entry.play is not None for entry in left):
        raise DataError(f"{lineup.outcomes.name}: no policy stays within what was recorded; {refused[0].why}")
    if base not in left:
        base = _stand_in(left, lineup, folds)
        left = left if base in left else [*left, base]
    return left, base, tuple(refused)


def _stand_in(left: list[Entry], lineup: Lineup, folds: int) -> Entry:
    for rung in reversed(lineup.outcomes.rungs):
        entry = next((one for one in left if one.name == rung.name), lineup.entry(rung.name))
        try:
            play(entry, lineup.outcomes, folds, lineup.seed)
        except Censored:
            continue
        return entry
    return next(entry for entry in left if entry.play is not None)


def _hole(outcomes: Outcomes, rung: int) -> Hole:
    asked = outcomes.asked[:, rung]
    name, missing = outcomes.rungs[rung].name, int((~asked).sum())
    told = f"{name} was not asked {missing:,} of {outcomes.n:,} questions"
    splits = [_split(outcomes, lower, asked) for lower in range(rung)]
    best = min(splits, key=lambda one: (one[2] is None, one[1]), default=None)
    if best is None or not best[1] < SURE:
        return Hole(name, missing, missing / outcomes.n, None, None, best[1] if best else math.nan, told)
    lower, p, cut = best
    by = outcomes.rungs[lower].name
    how = (
        f"where {by} was less unsure (p = {max(p, 1e-9):.1g})"
        if cut is None
        else f"just where {by} was sure at {cut:g} or more"
    )
    said = f"{told}, {how}: they aren't missing by chance"
    return Hole(name, missing, missing / outcomes.n, by, cut, p, said)


def _split(outcomes: Outcomes, lower: int, asked: NDArray[np.bool_]) -> tuple[int, float, float | None]:
    """(rung, p value, cut) of the difference in its confidence between what was asked and what wasn't; by ranks."""
    sure = outcomes.confidence[:, lower]
    on, off = sure[asked & ~np.isnan(sure)], sure[~asked & ~np.isnan(sure)]
    if not len(on) or not len(off):
        return lower, 1.0, None
    cut = float(off.min()) if on.max() < off.min() else None
    return lower, _rank_p(on, off), cut


def _rank_p(a: Floats, b: Floats) -> float:
    """Two-sided p value of Mann & Whitney's test (1947, Ann. Math. Stat. 18:50), by the normal distribution."""
    together = np.concatenate([a, b])
    _, code, count = np.unique(together, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2.0)[code]
    n, m = len(a), len(b)
    u = float(rank[:n].sum()) - n * (n + 1) / 2.0
    ties = float((count.astype(np.float64) ** 3 - count).sum())
    total = n + m
    variance = n * m / 12.0 * ((total + 1) - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    return 2.0 * NormalDist().cdf(-abs(u - n * m / 2.0) / math.sqrt(variance))
