"""The rows of a comparison as one table among the others, each column explained."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from escalade.evals._rows import PER_1K
from escalade.evals.inference.clustered import mean_interval
from escalade.evals.tables import Column, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.compare import Comparison
    from escalade.evals.evidence import Evidence

__all__ = ["COLUMNS", "NAME", "comparison_table", "costs_bounded"]

NAME = "comparison"

Bounds = tuple[float | None, float | None]
UNKNOWN: Bounds = (None, None)

COLUMNS = (
    Column(
        "name",
        "policy",
        "text",
        "What decided which model answers; a rung's name is the policy that always uses it.",
    ),
    Column(
        "quality",
        "quality",
        "share",
        "Mean quality over the questions: for labels 0 and 1 the share that was right. 95 % interval: Wilson's "
        "for 0 and 1, Student's t otherwise.",
        "quality_low",
        "quality_high",
    ),
    Column(
        "cost_per_1k_usd",
        "$/1k",
        "usd",
        "Dollars at list price for 1,000 questions, all attempts of a climb counted. 95 % interval: Student's t "
        "over the questions.",
        "cost_low",
        "cost_high",
    ),
    Column(
        "diff",
        "vs baseline",
        "points",
        "Mean over the questions of quality minus the baseline's on the same question, in points. 95 % interval "
        "of the paired differences.",
        "diff_low",
        "diff_high",
    ),
    Column(
        "cost_ratio",
        "cost",
        "ratio",
        "Its cost divided by the baseline's: 0.25x is a quarter.",
    ),
    Column(
        "verdict",
        "verdict",
        "text",
        "better: the whole interval of the difference lies above 0; as good: none of it lies more than the margin "
        "below 0; worse: all of it lies below 0; can't tell: anything else; too few: fewer than 30 questions, or "
        "than 10 groups.",
    ),
    Column(
        "frontier",
        "frontier",
        "yes",
        "No other policy has a higher quality for as little money, or as high a one for less.",
    ),
    Column(
        "beats_random",
        "beats random",
        "yes",
        "Is it better than a random mix of its cheap and the strongest rung at the same cost? yes where the 95 % "
        "interval of the paired difference lies above 0.",
    ),
    Column(
        "errors",
        "err",
        "count",
        "Questions left without a usable answer; they count as wrong.",
    ),
    Column(
        "unpaid",
        "no $",
        "count",
        "Questions that no rung fitted the budget for; they count as wrong, and among the errors.",
    ),
    Column(
        "budget_violations",
        "over",
        "count",
        "Questions, and runs, that cost more than their budget.",
    ),
    Column(
        "p95_latency_s",
        "p95",
        "seconds",
        "95th percentile of the seconds to an answer, attempts one after the other, of the questions that were "
        "answered.",
    ),
    Column(
        "detectable",
        "detectable",
        "points",
        "The smallest true difference to the baseline that a sample of this size and spread finds significant 4 "
        "times in 5: (z(0.975) + z(0.8)) standard errors of the paired difference.",
    ),
    Column(
        "p_better",
        "p",
        "p",
        "One-sided p value that it is no better than the baseline, adjusted by Holm for all rows that are judged.",
    ),
    Column(
        "apgr",
        "APGR",
        "figure",
        "Mean share of the gap between weak and strong that its score recovers, over all shares of strong calls; "
        "random: 0.5 (Ong et al. 2024, arXiv 2406.18665).",
    ),
    Column(
        "cpt50",
        "CPT50",
        "share",
        "Smallest share of calls to strong with which half of the gap is recovered (same source).",
    ),
    Column(
        "cpt80",
        "CPT80",
        "share",
        "Smallest share of calls to strong with which 80 % of the gap is recovered (same source).",
    ),
)


def comparison_table(comparison: Comparison) -> Table:
    """Best quality first, as `Comparison.rows`."""
    bounds = costs_bounded(comparison)
    return Table.of(
        NAME,
        f"Policies against {comparison.baseline}",
        COLUMNS,
        [asdict(row) | dict(zip(("cost_low", "cost_high"), bounds[row.name], strict=True)) for row in comparison.rows],
        about=f"What each policy came to on the same {comparison.n:,} questions, {comparison.labels} labels.",
    )


def costs_bounded(comparison: Comparison) -> dict[str, Bounds]:
    """(low, high) of the 95 % interval of dollars per 1,000 questions, by policy; None where unknown."""
    evidence = comparison.evidence
    if evidence is None:
        return {row.name: UNKNOWN for row in comparison.rows}
    return {row.name: _bounds(evidence.played[row.name].cost, evidence) for row in comparison.rows}


def _bounds(cost: NDArray[np.float64], evidence: Evidence) -> Bounds:
    """One value per question, questions of one group counted as one."""
    questions = evidence.questions
    if questions.clusters < 2 or bool(np.isnan(cost).any()):
        return UNKNOWN
    _, low, high = mean_interval(questions.mean(cost * PER_1K), questions.group)
    return max(0.0, low), high
