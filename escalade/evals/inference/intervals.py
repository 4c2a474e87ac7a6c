"""What may be said of each policy of a comparison: its intervals, tests, and how many questions it would take.

    found = intervals(escalade.compare("outcomes.jsonl").evidence)
    found[0].rows_needed

Differences and qualities have the intervals of `clustered`; curves, ratios and the frontier those of `bootstrap`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.evals import statistics
from escalade.evals._rows import LEVEL, adjusted, sweep_behind
from escalade.evals.inference import clustered
from escalade.evals.inference.bootstrap import REPS, Interval, interval_of, resamples
from escalade.evals.inference.resampled import CURVE, Swept, on_frontier

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.evidence import Evidence

    Floats = NDArray[np.float64]

__all__ = ["PolicyIntervals", "intervals"]


@dataclass(frozen=True, slots=True)
class PolicyIntervals:
    """What may be said of one policy; None is unknown, or nothing to say.

    `diff`: mean paired difference to the baseline, 0..1, after averaging the rows of a question, with its interval by
    groups. `mcnemar`: exact two-sided p value of the same, where every question has one 0/1 row and no group. `p_holm`:
    one-sided p value that it is no better, adjusted for all policies that were named. `detectable`: the true difference
    that these questions find 4 times in 5. `rows_needed`: questions that find a difference of the margin 4 times in 5.
    `frontier`: share of resamples in which it is on the frontier. `cost_ratio`: its cost over the baseline's. `apgr`,
    `cpt50`, `cpt80`: of the score behind it, as in `curves`. `df`: degrees of freedom of the difference, inf for the
    normal.
    """

    name: str
    n: int
    quality: float
    quality_low: float | None
    quality_high: float | None
    diff: float | None
    diff_low: float | None
    diff_high: float | None
    mcnemar: float | None
    p_holm: float | None
    detectable: float | None
    rows_needed: int | None
    frontier: float | None
    cost_ratio: float | None
    cost_ratio_low: float | None
    cost_ratio_high: float | None
    apgr: float | None
    apgr_low: float | None
    apgr_high: float | None
    cpt50: float | None
    cpt50_low: float | None
    cpt50_high: float | None
    cpt80: float | None
    cpt80_low: float | None
    cpt80_high: float | None
    df: float | None


def intervals(evidence: Evidence, *, reps: int = REPS) -> tuple[PolicyIntervals, ...]:
    """Of every policy, in the order of the evidence. The same for the same evidence and `reps`, the resamples."""
    drawn = _drawn(evidence, reps)
    p = adjusted(evidence)
    return tuple(
        _policy(
            evidence, at, None if entry.name == evidence.baseline else evidence.change(entry.name), p[entry.name], drawn
        )
        for at, entry in enumerate(evidence.entries)
    )


@dataclass(frozen=True)
class _Drawn:
    """By policy: the cost ratio, the share of resamples on the frontier, and `CURVE` where there is a score."""

    ratio: list[Interval]
    frontier: Floats
    curves: list[list[Interval] | None]


def _drawn(evidence: Evidence, reps: int) -> _Drawn:
    asked, entries = evidence.questions, evidence.entries
    quality = np.column_stack([evidence.quality(e.name) for e in entries])
    cost = np.column_stack([evidence.cost(e.name) for e in entries])
    real = np.array([e.play is not None for e in entries])
    columns = np.hstack([np.nan_to_num(cost), quality])
    unknown = np.isnan(cost).any(axis=0)
    base = next(at for at, e in enumerate(entries) if e.name == evidence.baseline)
    sweeps, whose = _sweeps(evidence)
    rows_of = np.bincount(asked.of)

    def figures(weights: Floats) -> tuple[Floats, NDArray[np.bool_], list[Floats]]:
        means = (weights @ columns) / weights.sum(axis=1, keepdims=True)
        costs = np.where(unknown, np.nan, means[:, : len(entries)])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(costs[:, [base]] > 0, costs / costs[:, [base]], np.nan)
        front = on_frontier(np.where(real, costs, np.nan), means[:, len(entries) :])
        by_row = (weights / rows_of)[:, asked.of] if asked.repeated else weights
        return ratio, front, [swept.figures(by_row) for swept in sweeps]

    now = figures(np.ones((1, asked.n)))
    blocks = [figures(weights) for weights in resamples(asked.n, reps, evidence.seed, asked.group)]
    units = asked.clusters
    ratios = np.concatenate([block[0] for block in blocks])
    curves = [
        [
            interval_of(np.concatenate([block[2][at][:, i] for block in blocks]), float(now[2][at][0, i]), units, LEVEL)
            for i in range(len(CURVE))
        ]
        for at in range(len(sweeps))
    ]
    return _Drawn(
        ratio=[interval_of(ratios[:, at], float(now[0][0, at]), units, LEVEL) for at in range(len(entries))],
        frontier=np.where(real & ~unknown, np.concatenate([block[1] for block in blocks]).mean(axis=0), np.nan),
        curves=[None if at is None else curves[at] for at in whose],
    )


def _sweeps(evidence: Evidence) -> tuple[list[Swept], list[int | None]]:
    """Each score once, and which one is behind each policy: many policies are cuts of the same."""
    seen: dict[tuple[bytes, ...], int] = {}
    swept: list[Swept] = []
    whose: list[int | None] = []
    for entry in evidence.entries:
        sweep = sweep_behind(entry, evidence.lineup, evidence.folds)
        if sweep is None:
            whose.append(None)
            continue
        at = seen.setdefault(tuple(c.tobytes() for c in (sweep.score, sweep.weak, sweep.strong)), len(swept))
        if at == len(swept):
            swept.append(Swept.of(sweep))
        whose.append(at)
    return swept, whose


def _policy(
    evidence: Evidence, at: int, change: clustered.Difference | None, p_holm: float, drawn: _Drawn
) -> PolicyIntervals:
    name, asked = evidence.entries[at].name, evidence.questions
    quality = evidence.quality(name)
    mean, low, high = clustered.mean_interval(quality, asked.group)
    quality_low, quality_high = statistics.bounds(low, high, 0.0, 1.0)
    diff_low, diff_high = (None, None) if change is None else statistics.bounds(change.low, change.high, -1.0, 1.0)
    curves = drawn.curves[at] or [Interval(math.nan, math.nan, math.nan)] * len(CURVE)
    figures = {"cost_ratio": drawn.ratio[at]} | dict(zip(CURVE, curves, strict=True))
    bounds = {
        key: statistics.known(value)
        for figure, one in figures.items()
        for key, value in ((figure, one.value), (f"{figure}_low", one.low), (f"{figure}_high", one.high))
    }
    needed = None
    if change is not None and evidence.margin > 0:
        needed = clustered.rows_needed(change.detectable, asked.n, evidence.margin)
    return PolicyIntervals(
        name=name,
        n=asked.n,
        quality=mean,
        quality_low=quality_low,
        quality_high=quality_high,
        diff=None if change is None else change.value,
        diff_low=diff_low,
        diff_high=diff_high,
        mcnemar=None if change is None else _mcnemar(evidence, quality),
        p_holm=statistics.known(p_holm),
        detectable=None if change is None else statistics.known(min(change.detectable, 1.0)),
        rows_needed=needed,
        frontier=statistics.known(float(drawn.frontier[at])),
        df=None if change is None else change.df,
        **bounds,
    )


def _mcnemar(evidence: Evidence, quality: Floats) -> float | None:
    asked = evidence.questions
    base = evidence.quality(evidence.baseline)
    if asked.group is not None or not all(bool(((c == 0) | (c == 1)).all()) for c in (quality, base)):
        return None
    return statistics.mcnemar_exact(quality, base)
