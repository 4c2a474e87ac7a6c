"""RouterArena's figures (Lu et al. 2025, arXiv 2510.00202), as its evaluation code reckons them.

    C     = (log2 c_max - log2 c) / (log2 c_max - log2 c_min)    c: dollars per 1,000 questions, held in c_min..c_max
    score = (1 + beta) A C / (beta A + C)                        A: accuracy; beta = 0.1 lets accuracy weigh most
    Opt.Sel, Opt.Cost, Opt.Acc                                   on the questions that some model answers right

c_min = $0.0044 and c_max = $200 are those of its leaderboard, of 2025: a score says nothing on other scales. The
optimal model of a question is the cheapest that is right (quality 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.climb import OK
from escalade.errors import BadInput
from escalade.evals.outcomes import STATUSES, UNKNOWN

if TYPE_CHECKING:
    from escalade.evals.outcomes import Outcomes
    from escalade.evals.replay import Replayed

__all__ = ["Optimality", "arena_score", "optimality"]

BETA, C_MIN, C_MAX = 0.1, 0.0044, 200.0


@dataclass(frozen=True, slots=True)
class Optimality:
    """`n`: questions that some rung answers right. None is unknown.

    `selected`: share of them that are answered right by the cheapest rung that is right (in RouterArena a router calls
    one model; a policy here may have tried others before, which `cost` tells). `cost`: what the optimal rungs cost on
    the questions it got right, relative to what it paid for them, all attempts together; 1 is best. `accuracy`: its
    quality on those n, relative to the oracle's, which is 1.
    """

    n: int
    selected: float | None
    cost: float | None
    accuracy: float | None


def arena_score(
    quality: float, usd_per_1k: float, *, beta: float = BETA, c_min: float = C_MIN, c_max: float = C_MAX
) -> float:
    """0..1, higher is better. `quality`: in 0..1. Raises BadInput."""
    if not 0.0 <= quality <= 1.0 or math.isnan(usd_per_1k) or not 0.0 < c_min < c_max or not beta > 0:
        raise BadInput(f"arena score: no figures it can be made of: quality {quality!r}, ${usd_per_1k!r} per 1,000")
    cost = math.log2(c_max / max(c_min, min(usd_per_1k, c_max))) / math.log2(c_max / c_min)
    weighted = beta * quality + cost
    return (1.0 + beta) * quality * cost / weighted if weighted > 0 else 0.0


def optimality(outcomes: Outcomes, replayed: Replayed) -> Optimality:
    """Of a policy's replay. Rungs that cost the same are equally optimal. What is unknown leaves it unknown."""
    rows, chosen = replayed.rows, replayed.chosen
    ok = outcomes.status[rows] == STATUSES.index(OK)
    if bool(np.isnan(outcomes.quality[rows][ok]).any()):
        return Optimality(0, None, None, None)  # a rung that nobody asked might have been right
    right = ok & (outcomes.quality[rows] >= 1.0)
    asked = right.any(axis=1)
    n = int(asked.sum())
    if not n:
        return Optimality(0, None, None, None)
    accuracy = float(replayed.quality[asked].sum() / n)
    if bool((outcomes.cost[rows] == UNKNOWN).any()):
        return Optimality(n, None, None, accuracy)
    at = np.arange(len(rows))
    cost = np.where(right, outcomes.cost[rows], np.iinfo(np.int64).max)
    least = cost.min(axis=1)
    good = asked & (replayed.quality >= 1.0)
    best = good & (cost[at, chosen] == least)
    paid = int(replayed.cost[good].sum())
    return Optimality(n, float(best.sum() / n), float(least[good].sum() / paid) if paid > 0 else None, accuracy)
