"""Time and money of one policy: latency, escalations, what was really spent, budgets, and what failures cost.

p50, p95    quantiles of the seconds of all attempts on a question, one after the other, as a cascade makes its
            caller wait; over the answered questions, linear between ranks
escalated   share of questions on which a second rung was tried
strong      share of questions on which the strongest rung was tried (of a mix: its share)
spent       what the attempts on its path took when they were recorded: 0 for one that a cache answered. The list
            price is what they would take again
penalised   cost + (1 - quality) x penalty: what a wrong or failed answer costs whoever gets it
retried     each wrong or failed answer is noticed and asked again of the strongest rung, unless that has answered:
            cost + (1 - quality) x its cost, quality + (1 - quality) x its quality. Noticing is taken to be free,
            so that this is the least that failures cost
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.climb import OK
from escalade.evals.outcomes import STATUSES, UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals._play import Played
    from escalade.evals.evidence import Evidence
    from escalade.evals.lineup import Entry
    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]

__all__ = ["Compliance", "compliance", "escalations", "latencies", "penalised", "retried", "spent"]


@dataclass(frozen=True, slots=True)
class Compliance:
    """Whether one policy kept to its budgets; money in nano-dollars, None where there is no such budget.

    `questions`: how many cost more than `per_request`; `unanswered`: those for which no rung fitted. `overshoot`: by
    how much they were over, together; `worst`: the most that one was; `worst_share`: that relative to `per_request`.
    `run_overshoot`: by how much all together cost more than `per_run`; `used`: what they cost, relative to it.
    """

    name: str
    per_request: int | None
    per_run: int | None
    violations: int
    questions: int
    unanswered: int
    overshoot: int
    worst: int
    worst_share: float | None
    run_overshoot: int | None
    used: float | None


def latencies(played: Played) -> tuple[float | None, float | None]:
    """(median, 95th percentile) in seconds; None where one is unknown, and the median of a mix."""
    one = played.replayed
    p95 = None if np.isnan(played.p95) else played.p95
    if one is None:
        return None, p95
    answered = one.latency[one.chosen >= 0]
    known = len(answered) > 0 and not bool(np.isnan(answered).any())
    return (float(np.quantile(answered, 0.5)) if known else None), p95


def escalations(played: Played) -> tuple[float | None, float | None]:
    """(share with a second rung, share with the strongest rung); None where there is no path to look at."""
    if played.replayed is None:
        return (None, None) if played.share is None else (0.0, played.share)
    tried = played.replayed.tried
    if not len(tried):
        return None, None
    return float((tried.sum(axis=1) > 1).mean()), float(tried[:, -1].mean())


def spent(played: Played, outcomes: Outcomes) -> Floats | None:
    """(n,) nano-dollars that its attempts really took, nan where unknown; None where the data doesn't say."""
    if outcomes.spent is None or played.replayed is None:
        return None
    tried, paid = played.replayed.tried, outcomes.spent
    unknown = (tried & (paid == UNKNOWN)).any(axis=1)
    return np.where(unknown, np.nan, np.where(tried, paid, 0).sum(axis=1))


def penalised(played: Played, penalty: float) -> Floats:
    """(n,) nano-dollars, with `penalty` nano-dollars for a wrong answer, in part for a partly wrong one."""
    billed: Floats = played.cost + (1.0 - played.quality) * penalty
    return billed


def retried(played: Played, outcomes: Outcomes) -> tuple[Floats, Floats]:
    """(quality, nano-dollars) of each row when wrong answers are asked again of the strongest rung, nan where unknown.

    A mix is taken at its expected value. Where the strongest rung was tried already, nothing more can be done.
    """
    ok = outcomes.status[:, -1] == STATUSES.index(OK)
    strong = np.where(ok, outcomes.quality[:, -1], 0.0)
    cost = np.where(outcomes.cost[:, -1] == UNKNOWN, np.nan, outcomes.cost[:, -1])
    wrong = 1.0 - played.quality
    if played.replayed is not None:
        wrong = np.where(played.replayed.tried[:, -1], 0.0, wrong)
    elif played.share is not None:  # wrong only where the mix asked its other rung; what the strong one got wrong stays
        wrong = np.maximum(wrong - played.share * (1.0 - strong), 0.0)
    # a right answer costs nothing more, also where the strongest rung's cost is unknown
    return played.quality + wrong * strong, played.cost + np.where(wrong > 0, wrong * cost, 0.0)


def compliance(entry: Entry, played: Played) -> Compliance | None:
    """Of a policy with a budget and a path; None for all others."""
    if played.replayed is None or (entry.per_request is None and entry.per_run is None):
        return None
    cost = played.replayed.cost
    request = None if entry.per_request is None else int(entry.per_request)
    run = None if entry.per_run is None else int(entry.per_run)
    over = np.maximum(cost - request, 0) if request is not None else np.zeros_like(cost)
    worst, total = int(over.max(initial=0)), int(np.maximum(cost, 0).sum())
    return Compliance(
        name=entry.name,
        per_request=request,
        per_run=run,
        violations=played.violations,
        questions=int((over > 0).sum()),
        unanswered=played.unpaid,
        overshoot=int(over.sum()),
        worst=worst,
        worst_share=worst / request if request else None,
        run_overshoot=None if run is None else max(0, total - run),
        used=total / run if run else None,
    )


def budgets(evidence: Evidence) -> tuple[Compliance, ...]:
    """Of every policy that has a budget to keep."""
    found = [compliance(entry, evidence.played[entry.name]) for entry in evidence.entries]
    return tuple(one for one in found if one is not None)
