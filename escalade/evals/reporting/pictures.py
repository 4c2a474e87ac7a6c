"""From a comparison to what its pictures show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from escalade.evals._rows import PER_1K
from escalade.evals.inference.clustered import mean_interval
from escalade.evals.metrics import confidence
from escalade.evals.reporting.charts.categories import Category, Share
from escalade.evals.reporting.charts.frontier import Point, Role
from escalade.evals.reporting.charts.reliability import Reliability
from escalade.evals.reporting.comparing import costs_bounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.compare import Comparison, Row
    from escalade.evals.evidence import Evidence

__all__ = ["categories", "costs", "first", "points", "reliabilities", "role"]

MOST_CATEGORIES, MOST_COSTS = 24, 8


def role(row: Row, baseline: str) -> Role:
    """What a row is, for its colour and form."""
    if row.hindsight:
        return "bound"
    if row.name == baseline:
        return "baseline"
    return "frontier" if row.frontier else "mix" if row.mixed else "other"


def first(comparison: Comparison) -> str:
    """The policy that one would choose: what is looked at first."""
    chosen = comparison.cheapest_as_good or next(iter(comparison.candidates), None)
    return comparison.baseline if chosen is None else chosen.name


def points(comparison: Comparison) -> list[Point]:
    """Of all rows whose cost is known."""
    bounds = costs_bounded(comparison)
    return [
        Point(
            row.name,
            row.cost_per_1k_usd,
            row.quality,
            *bounds[row.name],
            row.quality_low,
            row.quality_high,
            role(row, comparison.baseline),
            row.frontier,
        )
        for row in comparison.rows
        if row.cost_per_1k_usd is not None
    ]


def reliabilities(evidence: Evidence) -> list[Reliability]:
    """Of the rungs that say how sure they are."""
    found = []
    for rung, one in enumerate(evidence.outcomes.rungs):
        sure, right = confidence.attempts_of(evidence.outcomes, rung)
        if len(sure):
            worth = confidence.confidence_of(evidence.outcomes, rung)
            told = f"{len(sure):,} answers" + (f", ECE {worth.ece:.3f}" if worth and not math.isnan(worth.ece) else "")
            found.append(Reliability(one.name, confidence.reliability(sure, right), told))
    return found


def costs(comparison: Comparison, evidence: Evidence) -> dict[str, NDArray[np.float64]]:
    """Name -> dollars per 1,000 questions like each: the first policy, the baseline, the frontier, the best others."""
    ranked = [row.name for row in sorted(comparison.rows, key=lambda row: not row.frontier) if not row.hindsight]
    order = dict.fromkeys([first(comparison), comparison.baseline, *ranked])
    known = {name: evidence.played[name] for name in order if evidence.played[name].replayed is not None}
    shown = {name: one.cost * PER_1K for name, one in known.items() if len(one.cost) and not np.isnan(one.cost).any()}
    return dict(list(shown.items())[:MOST_COSTS])


def categories(evidence: Evidence, names: tuple[str, ...]) -> tuple[list[Category], int]:
    """(the largest categories, with the quality of these policies in each; how many more there are)."""
    of = evidence.outcomes.category
    if of is None or len(set(of)) < 2:
        return [], 0
    questions = evidence.questions
    starts = np.unique(questions.of, return_index=True)[1]
    own = np.array(of, dtype=object)[starts]
    qualities = [questions.mean(evidence.played[name].quality) for name in names]
    found = [_category(str(name), own == name, qualities, questions.group) for name in dict.fromkeys(own.tolist())]
    found.sort(key=lambda one: (-one.n, one.name))
    return sorted(found[:MOST_CATEGORIES], key=lambda one: one.name), len(found[MOST_CATEGORIES:])


def _category(
    name: str,
    here: NDArray[np.bool_],
    qualities: list[NDArray[np.float64]],
    group: NDArray[np.int64] | None,
) -> Category:
    groups = None if group is None else np.unique(group[here], return_inverse=True)[1]
    return Category(name, int(here.sum()), tuple(_share(quality[here], groups) for quality in qualities))


def _share(quality: NDArray[np.float64], groups: NDArray[np.int64] | None) -> Share:
    mean, low, high = mean_interval(quality, groups)
    return Share(mean, 0.0 if math.isnan(low) else max(0.0, low), 1.0 if math.isnan(high) else min(1.0, high))
