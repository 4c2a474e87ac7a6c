"""One row for each score that a policy sets a threshold on: what the whole family of thresholds is worth.

    apgr, cpt50, cpt80, cpt95    RouteLLM's, on the exact curve over the fraction of strong calls (`evals.curves`)
    aiq                          RouterBench's, of the family's points and the constants, in dollars (`plane.aiq`)
    auc                          mean quality when the money is spread evenly, in dollars (`plane.area`)
    quality at equal cost        of the family's curve where it costs what the baseline costs, less the baseline's
    cost at equal quality        the first cost at which the curve has the baseline's quality, over the baseline's

In dollars a curve begins where nothing escalates and ends where everything does. Both areas run from what the cheap
rung costs to what the strongest costs; where a family begins dearer, a mix with the cheap rung leads there, where it
ends cheaper, one with the strongest leads on. Points between two cuts are mixes of both, by chance. Intervals are of
the bootstrap over questions (or their groups) and know nothing of how scores were fitted: those stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from escalade.evals._rows import sweep_behind
from escalade.evals.inference.bootstrap import REPS, Interval, bootstrap_many
from escalade.evals.metrics.plane import aiq, area

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.curves import Sweep
    from escalade.evals.evidence import Evidence

    Floats = NDArray[np.float64]

__all__ = ["Family", "families", "in_dollars"]

CELLS = 700_000
"""Questions times resamples of a curve: beyond that there are fewer resamples, and never fewer than FEWEST."""

FEWEST = 200

NOTHING = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Family:
    """The score of the policy `name`, between the answers `weak` and `strong`. None and nan are unknown.

    `at_cost`: quality at the baseline's cost less the baseline's. `at_quality`: cost at the baseline's quality over the
    baseline's.
    """

    name: str
    weak: str
    strong: str
    apgr: float | None
    cpt50: float | None
    cpt80: float | None
    cpt95: float | None
    aiq: float | None
    auc: float | None
    at_cost: Interval
    at_quality: Interval


def in_dollars(sweep: Sweep, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """(mean cost in nano-dollars, mean quality) at every cut, from nothing escalated to everything, `(m + 1,)`.

    `weights`: (n,) of the rows, equal ones where there are none. nan where a cost is unknown.
    """
    w = np.ones((1, len(sweep.score))) if weights is None else weights[None, :]
    cost, quality = _Dollars.of(sweep).curves(w)
    return cost[0], quality[0]


@dataclass(frozen=True)
class _Dollars:
    """A sweep in dollars, prepared to be drawn again: its rows by score, the highest first; `cut`: ends of equal ones.

    `start`: (2, n) cost and quality of the weak answers, `step`: (2, n) what escalating adds to either.
    """

    order: NDArray[np.intp]
    cut: NDArray[np.intp]
    start: Floats
    step: Floats

    @classmethod
    def of(cls, sweep: Sweep) -> _Dollars:
        """Unknown scores (nan) come first, as in `curves.curve`."""
        score = np.where(np.isnan(sweep.score), np.inf, sweep.score)
        order = np.argsort(-score, kind="stable")
        unknown = np.full(len(score), math.nan)
        cheap = unknown if sweep.weak_cost is None else sweep.weak_cost
        dear = unknown if sweep.strong_cost is None else sweep.strong_cost
        weak, strong = np.stack((cheap, sweep.weak)), np.stack((dear, sweep.strong))
        cut = np.flatnonzero(np.append(score[order][1:] != score[order][:-1], True))
        return cls(order, cut, weak, (strong - weak)[:, order])

    def curves(self, weights: Floats) -> tuple[Floats, Floats]:
        """(cost, quality), `(b, m + 1)` each, for `(b, n)` weights of the rows."""
        total, drawn = weights.sum(axis=1, keepdims=True), np.take(weights, self.order, axis=1)
        cost, quality = (
            np.hstack([base, base + np.cumsum(drawn * step, axis=1)[:, self.cut]]) / total
            for base, step in zip((weights @ self.start.T)[:, :, None].transpose(1, 0, 2), self.step, strict=True)
        )
        return cost, quality


def families(evidence: Evidence, *, reps: int | None = None) -> tuple[Family, ...]:
    """Of every policy with a score behind it, the oracle's among them, in the order of the evidence."""
    found: list[Family] = []
    known: dict[bytes, Family] = {}
    for entry in evidence.entries:
        bound = entry.play is None and not (entry.at_cost is None and entry.reference is None)
        sweep = None if bound else sweep_behind(entry, evidence.lineup, evidence.folds)
        if sweep is None:
            continue
        same = b"".join(np.ascontiguousarray(c).tobytes() for c in (sweep.score, sweep.weak, sweep.strong))
        if same not in known:
            known[same] = _family(entry.name, sweep, evidence, reps)
        found.append(replace(known[same], name=entry.name))
    return tuple(found)


def _family(name: str, sweep: Sweep, evidence: Evidence, reps: int | None) -> Family:
    asked, base = evidence.questions, evidence.base
    draws = reps or int(np.clip(CELLS // max(1, asked.n), FEWEST, REPS))
    rows_of, prepared = np.bincount(asked.of), _Dollars.of(sweep)
    means = np.column_stack([asked.mean(base.cost), asked.mean(base.quality)])

    def figures(weights: Floats) -> Floats:
        by_row = (weights / rows_of)[:, asked.of] if asked.repeated else weights
        against = (weights @ means) / weights.sum(axis=1, keepdims=True)
        drawn = zip(*prepared.curves(by_row), against.tolist(), strict=True)
        return np.array([equal((x, y), *at) for x, y, at in drawn])

    at_cost = at_quality = NOTHING
    if not np.isnan(np.concatenate((means[:, 0], prepared.start[0], prepared.step[0]))).any():
        found = bootstrap_many(figures, asked.n, reps=draws, seed=evidence.seed, group=asked.group)
        at_cost, at_quality = found
    return Family(
        name=name,
        weak=sweep.names[0],
        strong=sweep.names[1],
        apgr=sweep.apgr,
        cpt50=sweep.cpt(0.5),
        cpt80=sweep.cpt(0.8),
        cpt95=sweep.cpt(0.95),
        **_areas(sweep, evidence),
        at_cost=at_cost,
        at_quality=at_quality,
    )


def equal(curve: tuple[Floats, Floats], cost: float, quality: float) -> tuple[float, float]:
    """(quality at this cost less `quality`, first cost with this quality over `cost`); nan where there is none.

    Beyond its end the curve is level; before its beginning there is nothing.
    """
    x, y = curve
    there = math.nan if cost < x[0] else float(np.interp(cost, x, y))
    i = int(np.argmax(y >= quality - 1e-12))
    if y[i] < quality - 1e-12 or not cost > 0:
        return there - quality, math.nan
    if i == 0:
        return there - quality, float(x[0]) / cost
    rise = min(1.0, (quality - y[i - 1]) / (y[i] - y[i - 1]))
    return there - quality, float(x[i - 1] + rise * (x[i] - x[i - 1])) / cost


def _areas(sweep: Sweep, evidence: Evidence) -> dict[str, float | None]:
    outcomes, lineup, asked = evidence.outcomes, evidence.lineup, evidence.questions
    x, y = in_dollars(sweep, 1.0 / np.bincount(asked.of)[asked.of])
    if not outcomes.priced or np.isnan(x).any():
        return {"aiq": None, "auc": None}
    ends = [
        (float(asked.mean(outcomes.cost[:, rung].astype(np.float64)).mean()), _quality(evidence, rung))
        for rung in (lineup.cheap, lineup.strong)
    ]
    (a, weak), (b, strong) = ends
    whole = aiq(np.append(x, (a, b)), np.append(y, (weak, strong)), a, b)
    if x[0] > a:
        x, y = np.append(a, x), np.append(weak, y)
    if x[-1] < b:
        x, y = np.append(x, b), np.append(y, strong)
    return {"aiq": whole, "auc": area(x, y, a, b)}


def _quality(evidence: Evidence, rung: int) -> float:
    outcomes = evidence.outcomes
    graded = np.where(outcomes.status[:, rung] == 0, outcomes.quality[:, rung], 0.0)
    return float(evidence.questions.mean(graded).mean())
