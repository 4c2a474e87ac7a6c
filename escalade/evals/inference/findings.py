"""The table "intervals" of a comparison, and in words where it has too few questions to name a winner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from escalade.evals import statistics
from escalade.evals.check import Check
from escalade.evals.inference.censored import censored
from escalade.evals.inference.intervals import PolicyIntervals, intervals
from escalade.evals.tables import Column, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from escalade.evals.evidence import Evidence

__all__ = ["build", "not_enough"]

COLUMNS = (
    Column("name", "policy", "text", "The policy."),
    Column("n", "questions", "count", "Distinct questions; rows of one question are averaged first."),
    Column(
        "quality",
        "quality",
        "share",
        "Mean quality, with Wilson's interval for 0/1 values, Student's t for others; by groups where there are some "
        "(Bell & McCaffrey 2002).",
        "quality_low",
        "quality_high",
    ),
    Column(
        "diff",
        "difference",
        "points",
        "Mean paired difference to the baseline: Agresti & Min 2005 for 0/1 values, Student's t for others; by groups "
        "the cluster-robust t interval (Liang & Zeger 1986; Bell & McCaffrey 2002).",
        "diff_low",
        "diff_high",
    ),
    Column(
        "mcnemar",
        "McNemar p",
        "p",
        "Exact two-sided p value of the questions that only one of both gets right (McNemar 1947); for single 0/1 "
        "answers without groups.",
    ),
    Column(
        "p_holm",
        "p better (Holm)",
        "p",
        "One-sided p value that it is no better than the baseline, adjusted for all policies (Holm 1979).",
    ),
    Column(
        "detectable",
        "detectable",
        "points",
        "The smallest true difference that these questions find significant 4 times in 5: (t of 97.5 % + t of 80 %) "
        "standard errors of the paired difference.",
    ),
    Column(
        "rows_needed",
        "questions needed",
        "count",
        "Questions that find a true difference of the margin 4 times in 5: n (detectable / margin)^2.",
    ),
    Column(
        "frontier",
        "on the frontier",
        "share",
        "Share of bootstrap resamples of the questions in which no other policy is as good and cheaper, or as cheap "
        "and better.",
    ),
    Column(
        "cost_ratio",
        "cost",
        "ratio",
        "Cost as a multiple of the baseline's, with its bootstrap interval (Hesterberg 2015).",
        "cost_ratio_low",
        "cost_ratio_high",
    ),
    Column(
        "apgr",
        "APGR",
        "figure",
        "Average performance gap recovered by the score behind the policy (RouteLLM, Ong et al. 2024), with its "
        "bootstrap interval.",
        "apgr_low",
        "apgr_high",
    ),
    Column(
        "cpt50",
        "CPT(50 %)",
        "share",
        "Share of strong calls that recovers half of the gap (RouteLLM), with its bootstrap interval.",
        "cpt50_low",
        "cpt50_high",
    ),
    Column(
        "cpt80",
        "CPT(80 %)",
        "share",
        "Share of strong calls that recovers 80 % of the gap (RouteLLM), with its bootstrap interval.",
        "cpt80_low",
        "cpt80_high",
    ),
)


def build(evidence: Evidence) -> Sequence[Table | Check | str]:
    """The table, whether what is missing is missing by chance, and what has to be said in words."""
    found = intervals(evidence)
    notes = [
        "a random mix keeps its share of strong calls in every resample; what is fitted isn't fitted again",
        *_of_groups(evidence),
    ]
    about = "How sure each figure is, and how many questions it would take."
    table = Table.of("intervals", "Intervals and tests", COLUMNS, found, about=about, notes=notes)
    holes = [Check("holes", hole.by is None, hole.said) for hole in censored(evidence.outcomes)]
    return [table, *holes, *not_enough(evidence, found)]


def not_enough(evidence: Evidence, found: Sequence[PolicyIntervals]) -> list[str]:
    """One sentence in place of a winner, where no policy can be told to be as good as the baseline or better."""
    judged = [
        one
        for one, entry in zip(found, evidence.entries, strict=True)
        if one.diff is not None and entry.play is not None and not entry.mixed and not _same(evidence, one.name)
    ]
    if not judged or evidence.margin <= 0:
        return []
    asked, margin = evidence.questions, evidence.margin
    if why := statistics.too_few(asked.n, asked.clusters):
        return [f"Not enough questions: {why}."]
    verdicts = {one.name: _verdict(one, margin) for one in judged}
    if not {statistics.BETTER, statistics.AS_GOOD}.isdisjoint(verdicts.values()):
        return []
    open_ = [one for one in judged if verdicts[one.name] == statistics.CANT_TELL]
    if not open_:
        return []
    best = max(open_, key=lambda one: (one.diff or 0.0, one.name))
    told = "" if best.rows_needed is None else f", and it takes about {best.rows_needed:,} to find {_points(margin)}"
    seen = f"{asked.n:,} of them find a difference of {_points(best.detectable or 1.0)}"
    return [f"Not enough questions to name a winner: {seen} between {best.name} and {evidence.baseline}{told}."]


def _same(evidence: Evidence, name: str) -> bool:
    """Does it get on each question what the baseline gets, for the same money? Then nothing is to be told apart."""
    one, base = evidence.played[name], evidence.base
    return bool((one.quality == base.quality).all() and (one.cost == base.cost).all())


def _verdict(one: PolicyIntervals, margin: float) -> str:
    if one.diff_low is None or one.diff_high is None:
        return statistics.CANT_TELL
    return statistics.verdict(one.diff_low, one.diff_high, margin)


def _of_groups(evidence: Evidence) -> list[str]:
    asked = evidence.questions
    told = [f"{len(asked.of):,} rows are {asked.n:,} questions: their epochs are averaged"] if asked.repeated else []
    if asked.group is not None:
        told.append(f"{asked.n:,} questions come in {asked.clusters:,} groups, which are what is independent")
    return told


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
