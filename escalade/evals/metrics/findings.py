"""The metrics of a comparison as tables, and what has to be said of them in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from escalade.agents.policies import Constant
from escalade.evals._names import shortened
from escalade.evals._rows import PER_1K
from escalade.evals.baselines import FittedBestSingle
from escalade.evals.lineup import WORTH
from escalade.evals.metrics import confidence
from escalade.evals.metrics.columns import BUDGETS, CATEGORIES, CONFIDENCE, CURVES, POLICIES, RELIABILITY
from escalade.evals.metrics.policies import by_category, penalty_of, policy_figures
from escalade.evals.metrics.scores import families
from escalade.evals.metrics.spending import budgets
from escalade.evals.tables import Table
from escalade.money import NANO

if TYPE_CHECKING:
    from escalade.evals.evidence import Evidence
    from escalade.evals.lineup import Entry
    from escalade.evals.metrics.policies import PolicyFigures

__all__ = ["build"]


def build(evidence: Evidence) -> Sequence[Table | str]:
    """Tables: policies, curves, confidence, reliability, budgets, categories; and a sentence for each policy that isn't
    shown to beat a random mix that costs the same.
    """
    figures = policy_figures(evidence)
    tables = (
        _policies(evidence, figures),
        _curves(evidence),
        _confidence(evidence),
        _reliability(evidence),
        _budgets(evidence),
        _categories(evidence),
    )
    return [*(table for table in tables if table.rows), *_said(evidence, figures)]


def _ends(evidence: Evidence) -> tuple[str, str]:
    """The cheap rung and the strongest, as people call them."""
    names = [rung.name for rung in evidence.outcomes.rungs]
    return shortened(names[evidence.lineup.cheap], names), shortened(names[evidence.lineup.strong], names)


def _policies(evidence: Evidence, figures: list[PolicyFigures]) -> Table:
    penalty = penalty_of(evidence)
    cheap, strong = _ends(evidence)
    notes = [f"the cheap rung is {cheap}, the strongest {strong}"]
    if penalty is not None:
        notes.append(f"a wrong answer is taken to cost ${penalty / NANO:.3g}, {WORTH} calls of the strongest rung")
    about = "What each policy came to, against random mixes, hindsight and published figures of merit."
    return Table.of("policies", "Policies", POLICIES, figures, about=about, notes=notes)


def _curves(evidence: Evidence) -> Table:
    rows = []
    for one in families(evidence):
        row = {column.name: getattr(one, column.name) for column in CURVES}
        for name in ("at_cost", "at_quality"):
            interval = row[name]
            row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        rows.append(row)
    about = "What the score behind each policy is worth over all thresholds, by calls and by dollars."
    notes = ["a score of one value for all, as of a random mix, has the expected curve of chance: a straight line"]
    return Table.of("curves", "Curves", CURVES, rows, about=about, notes=notes if rows else ())


def _confidence(evidence: Evidence) -> Table:
    found = [confidence.confidence_of(evidence.outcomes, rung) for rung in range(evidence.outcomes.k)]
    rows = [one for one in found if one is not None]
    about = "What the confidence of each rung is worth: does it rank its answers, is it the chance of being right?"
    return Table.of("confidence", "Confidence", CONFIDENCE, rows, about=about)


def _reliability(evidence: Evidence) -> Table:
    outcomes, rows = evidence.outcomes, []
    for rung in range(outcomes.k):
        sure, right = confidence.attempts_of(outcomes, rung)
        bins = confidence.reliability(sure, right) if len(sure) else ()
        rows += [{"rung": outcomes.rungs[rung].name} | asdict(one) for one in bins]
    about = (
        "How right the answers of each rung are, by how sure it was: on the diagonal, the confidence can be believed."
    )
    return Table.of("reliability", "Reliability", RELIABILITY, rows, about=about)


MONEY = ("per_request", "per_run", "overshoot", "worst", "run_overshoot")


def _budgets(evidence: Evidence) -> Table:
    rows = [asdict(one) for one in budgets(evidence)]
    for row in rows:
        row |= {name: None if row[name] is None else row[name] / NANO for name in MONEY}
    about = "Whether policies kept to their budgets, and by how much they didn't."
    return Table.of("budgets", "Budgets", BUDGETS, rows, about=about)


def _categories(evidence: Evidence) -> Table:
    rows = by_category(evidence)
    about = "Quality and cost of every policy in each category."
    notes = [f"{len({row.category for row in rows})} categories: none of the intervals is adjusted for so many looks"]
    return Table.of("categories", "Categories", CATEGORIES, rows, about=about, notes=notes if rows else ())


def _said(evidence: Evidence, figures: list[PolicyFigures]) -> Iterator[str]:
    """Which policies aren't shown to beat chance for the same money, with the figures."""
    cheap, strong = _ends(evidence)
    low, high = (_mean_cost(evidence, rung) for rung in (evidence.lineup.cheap, evidence.lineup.strong))
    for entry, one in zip(evidence.entries, figures, strict=True):
        if not _chooses(entry) or one.over_random is None or one.over_random_low is None or one.usd is None:
            continue
        if one.over_random_low > 0 or low is None or high is None or not low < high:
            continue
        points = f"{100 * one.over_random:+.1f} points [{100 * one.over_random_low:+.1f}, "
        points += f"{100 * (one.over_random_high or 0.0):+.1f}]"
        word = "is worse than" if (one.over_random_high or 0.0) < 0 else "isn't shown to beat"
        where = "at the same cost" if low <= one.usd <= high else "of the nearest cost, since none costs the same"
        yield (
            f"{entry.name} {word} a random mix of {cheap} and {strong} {where}: "
            f"{100 * one.quality:.1f} % against {100 * (one.random or 0.0):.1f} % for ${one.usd:.3g} per 1,000 "
            f"questions, {points}."
        )


def _chooses(entry: Entry) -> bool:
    return entry.play is not None and not entry.mixed and not isinstance(entry.play, Constant | FittedBestSingle)


def _mean_cost(evidence: Evidence, rung: int) -> float | None:
    cost = evidence.outcomes.cost[:, rung]
    return evidence.questions.average(cost) * PER_1K if bool((cost >= 0).all()) else None
