"""One row for each policy of a comparison: what it came to, beyond quality and list price. `findings` tells columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.policies import Constant
from escalade.errors import EscaladeError
from escalade.evals import statistics
from escalade.evals._rows import PER_1K
from escalade.evals.inference import clustered
from escalade.evals.lineup import WORTH
from escalade.evals.metrics import plane, spending
from escalade.evals.metrics.arena import arena_score, optimality
from escalade.evals.metrics.hindsight import best_within
from escalade.evals.metrics.matched import Matched, matched
from escalade.evals.replay import replay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.evidence import Evidence
    from escalade.evals.lineup import Entry

    Floats = NDArray[np.float64]

__all__ = ["CategoryFigures", "PolicyFigures", "by_category", "penalty_of", "policy_figures"]

LEAST = 2
"""A category of fewer questions isn't shown by itself."""


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """Of one policy; None is unknown, or nothing to say. Dollars are per 1,000 questions, qualities in 0..1.

    `low`, `high`: 95 % intervals. `usd`: list price, `usd_spent`: what was really paid. `over_hull`: quality at equal
    cost, `cost_over_hull`: cost at equal quality, both against random mixes of all constants; `over_random`: against
    the mix of its cheap and the strongest rung at its cost, whose quality is `random`. `oracle`: quality of the oracle
    at its cost.
    """

    name: str
    quality: float
    quality_low: float | None
    quality_high: float | None
    usd: float | None
    usd_spent: float | None
    p50: float | None
    p95: float | None
    escalated: float | None
    strong: float | None
    random: float | None
    over_random: float | None
    over_random_low: float | None
    over_random_high: float | None
    over_hull: float | None
    over_hull_low: float | None
    over_hull_high: float | None
    cost_over_hull: float | None
    cost_over_hull_low: float | None
    cost_over_hull_high: float | None
    oracle: float | None
    ibc: float | None
    delta_ibc: float | None
    perf_gain: float | None
    cost_save: float | None
    pareto_distance: float | None
    arena: float | None
    optimal_selected: float | None
    optimal_cost: float | None
    optimal_accuracy: float | None
    usd_penalised: float | None
    retried_quality: float | None
    usd_retried: float | None


@dataclass(frozen=True, slots=True)
class CategoryFigures:
    """One policy on the `n` questions of one category."""

    category: str
    policy: str
    n: int
    quality: float
    quality_low: float | None
    quality_high: float | None
    diff: float
    diff_low: float | None
    diff_high: float | None
    usd: float | None


def penalty_of(evidence: Evidence) -> float | None:
    """Nano-dollars that a wrong answer is taken to cost: WORTH calls of the strongest rung; None where unknown."""
    cost = evidence.outcomes.cost[:, evidence.lineup.strong]
    return WORTH * float(cost.mean()) if len(cost) and bool((cost >= 0).all()) else None


def policy_figures(evidence: Evidence, *, reps: int | None = None, penalty: float | None = None) -> list[PolicyFigures]:
    """Of every policy, in the order of the evidence. `penalty`: nano-dollars of a wrong answer, else `penalty_of`."""
    bill = penalty_of(evidence) if penalty is None else penalty
    against = _Constants.of(evidence)
    means = [_means(evidence, entry) for entry in evidence.entries]
    real = [math.nan if entry.play is None else cost for entry, (_, cost) in zip(evidence.entries, means, strict=True)]
    far = plane.pareto_distances(np.array(real), np.array([quality for quality, _ in means]))
    return [
        _figures(evidence, entry, against, over, bill, float(distance))
        for entry, over, distance in zip(evidence.entries, matched(evidence, reps=reps), far, strict=True)
    ]


@dataclass(frozen=True)
class _Constants:
    """(quality, nano-dollars) of the cheap and the strongest rung and of the best single one; nan is unknown."""

    small: tuple[float, float]
    large: tuple[float, float]
    best: tuple[float, float]

    @classmethod
    def of(cls, evidence: Evidence) -> _Constants:
        mean = evidence.questions.mean
        found = []
        if np.isnan(evidence.outcomes.quality).any():  # nobody knows what a constant would have come to
            return cls(*((math.nan, math.nan),) * 3)
        for rung in range(evidence.outcomes.k):
            one = replay(Constant(rung), evidence.outcomes)
            cost = np.where(one.cost < 0, math.nan, one.cost)
            found.append((float(mean(one.quality).mean()), float(mean(cost).mean())))
        best = max(found, key=lambda at: (at[0], -at[1]))
        return cls(found[evidence.lineup.cheap], found[evidence.lineup.strong], best)


def _means(evidence: Evidence, entry: Entry) -> tuple[float, float]:
    return float(evidence.quality(entry.name).mean()), float(evidence.cost(entry.name).mean())


def _figures(
    evidence: Evidence, entry: Entry, against: _Constants, over: Matched, penalty: float | None, distance: float
) -> PolicyFigures:
    one, asked, outcomes = evidence.played[entry.name], evidence.questions, evidence.outcomes
    quality, cost = _means(evidence, entry)
    _, low, high = clustered.mean_interval(evidence.quality(entry.name), asked.group)
    quality_low, quality_high = statistics.bounds(low, high, 0.0, 1.0)
    known = not math.isnan(cost)
    best = None if one.replayed is None or entry.play is None else optimality(outcomes, one.replayed)
    more, billed = spending.retried(one, outcomes)
    took = spending.spent(one, outcomes)
    (p50, p95), (escalated, strong) = spending.latencies(one), spending.escalations(one)
    return PolicyFigures(
        name=entry.name,
        quality=quality,
        quality_low=quality_low,
        quality_high=quality_high,
        usd=_usd(cost),
        usd_spent=None if took is None else _usd(float(asked.mean(took).mean())),
        p50=p50,
        p95=p95,
        escalated=escalated,
        strong=strong,
        random=statistics.known(over.mixed),
        **_interval("over_random", over.random),
        **_interval("over_hull", over.quality),
        **_interval("cost_over_hull", over.cost),
        oracle=_oracle(evidence, cost),
        ibc=_per_dollar(plane.ibc(quality, cost, *against.small) if known else None),
        delta_ibc=plane.delta_ibc(quality, cost, against.small, against.large) if known else None,
        perf_gain=plane.perf_gain(quality, against.best[0]),
        cost_save=plane.cost_save(quality, cost, *against.best) if known else None,
        pareto_distance=statistics.known(distance),
        arena=arena_score(quality, cost * PER_1K) if known else None,
        optimal_selected=best.selected if best else None,
        optimal_cost=best.cost if best else None,
        optimal_accuracy=best.accuracy if best else None,
        usd_penalised=None if penalty is None else _usd(float(asked.mean(spending.penalised(one, penalty)).mean())),
        retried_quality=statistics.known(float(asked.mean(more).mean())),
        usd_retried=_usd(float(asked.mean(billed).mean())),
    )


def _oracle(evidence: Evidence, cost: float) -> float | None:
    asked = evidence.questions
    if math.isnan(cost):
        return None
    try:
        best = best_within(evidence.outcomes, cost * asked.n, weight=1.0 / np.bincount(asked.of)[asked.of])
    except EscaladeError:  # an outcome or a price is missing: there is no bound to tell
        return None
    return float(asked.mean(best.quality).mean())


def by_category(evidence: Evidence) -> list[CategoryFigures]:
    """Every policy on every category of LEAST questions or more, the largest category first; [] without categories.

    A question has the category of its first row.
    """
    labels, asked = evidence.outcomes.category, evidence.questions
    if labels is None:
        return []
    first = np.unique(asked.of, return_index=True)[1]
    each = np.array(labels, dtype=object)[first]
    names, size = np.unique(each.astype(str), return_counts=True)
    order = [names[i] for i in np.lexsort((names, -size)).tolist() if size[i] >= LEAST]
    base = evidence.quality(evidence.baseline)
    return [
        _in_category(str(name), entry, evidence, np.flatnonzero(each.astype(str) == name), base)
        for name in order
        for entry in evidence.entries
    ]


def _in_category(name: str, entry: Entry, evidence: Evidence, at: NDArray[np.int64], base: Floats) -> CategoryFigures:
    asked = evidence.questions
    group = None if asked.group is None else np.unique(asked.group[at], return_inverse=True)[1]
    if group is not None and int(group.max()) < 1:
        group = None
    values = evidence.quality(entry.name)[at]
    quality, low, high = clustered.mean_interval(values, group)
    is_base = entry.name == evidence.baseline
    change = clustered.difference(values, base[at], group)
    quality_low, quality_high = statistics.bounds(low, high, 0.0, 1.0)
    diff_low, diff_high = (0.0, 0.0) if is_base else statistics.bounds(change.low, change.high, -1.0, 1.0)
    return CategoryFigures(
        category=name,
        policy=entry.name,
        n=len(at),
        quality=quality,
        quality_low=quality_low,
        quality_high=quality_high,
        diff=change.value,
        diff_low=diff_low,
        diff_high=diff_high,
        usd=_usd(float(evidence.cost(entry.name)[at].mean())),
    )


def _interval(name: str, one: object) -> dict[str, float | None]:
    return {
        name + end: statistics.known(getattr(one, figure))
        for end, figure in (("", "value"), ("_low", "low"), ("_high", "high"))
    }


def _usd(nanos: float) -> float | None:
    return statistics.known(nanos * PER_1K)


def _per_dollar(per_nano: float | None) -> float | None:
    """Quality for each dollar more that 1,000 questions cost."""
    return None if per_nano is None else per_nano / PER_1K
