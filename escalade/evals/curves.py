"""Quality against cost: RouteLLM's router metrics on the exact curve, and the Pareto frontier.

RouteLLM (Ong et al. 2024, arXiv 2406.18665) routes between a weak and a strong model by a score and a threshold. With
r(c) the quality of the mix when a fraction c of the questions goes to the strong model,

    PGR(c)   = (r(c) - weak) / (strong - weak)           performance gap recovered
    APGR     = integral of PGR(c) over c from 0 to 1     0.5 for a random router
    CPT(x%)  = the smallest c with PGR(c) >= x%          call-performance threshold, smaller is better

Its evaluation code (routellm/evals/evaluate.py, benchmarks.py) sweeps the threshold over 11 cut points, the deciles of
the scores, and integrates by trapezoids between them; CPT is interpolated between the same points by `np.interp`,
which presumes a curve that never falls. Here the threshold sweeps over all distinct scores. Questions with the same
score cross it together; a router that wants a fraction in between has to pick among them at random, so that the curve
is linear between cut points in expectation, and the trapezoids are exact. CPT is the first crossing of that curve, also
where it falls again later. Deciles cut the corners of a concave curve and lose a little APGR: on RouteLLM's GSM8K pair
the oracle below has 1.115 by deciles and 1.121 on the exact curve, prompt length 0.598 by both.

RouteLLM's "optimal" line is no router: it keeps what only the weak model gets right even where every call is strong.
The oracle *router* is the score `strong - weak`: first the questions that only the strong model gets right, then those
that make no difference, last those that only the weak one gets right. It ends at PGR 1, as every router does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.climb import OK, Policy
from escalade.agents.policies import Agreement, PromptLength, RandomMix, RungRef, Threshold, rung_index
from escalade.errors import BadInput
from escalade.evals._vector import Board, Table, largest_group
from escalade.evals.learned import FittedAnswers, FittedRouter, held_out_scores
from escalade.evals.outcomes import STATUSES, UNKNOWN
from escalade.evals.replay import Fitted, FittedPromptLength, FittedThreshold, MatchedRandom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]


def curve(score: ArrayLike, weak_quality: ArrayLike, strong_quality: ArrayLike) -> tuple[Floats, Floats]:
    """(fraction of strong calls, quality of the mix) at every distinct cut point, both `(m + 1,)`, from 0 to 1.

    `score`: (n,) the higher, the sooner the strong model is called; nan (unknown) comes first. `weak_quality`,
    `strong_quality`: (n,) quality of either answer. Raises BadInput for columns that don't match.
    """
    score, weak, strong = _columns(score, weak_quality, strong_quality)
    score = np.where(np.isnan(score), np.inf, score)
    order = np.argsort(-score, kind="stable")
    cut = np.append(score[order][1:] != score[order][:-1], True)
    n = len(score)
    fraction = np.append(0.0, (np.flatnonzero(cut) + 1) / n)
    quality = weak.mean() + np.append(0.0, np.cumsum((strong - weak)[order])[cut] / n)
    return fraction, quality


def pgr(quality: ArrayLike, weak: float, strong: float) -> Floats:
    """Performance gap recovered: 0 at the weak model's mean quality, 1 at the strong one's, beyond either outside."""
    return (np.asarray(quality, dtype=np.float64) - weak) / (strong - weak)


def apgr(score: ArrayLike, weak_quality: ArrayLike, strong_quality: ArrayLike) -> float | None:
    """Average PGR on the exact curve; 0.5 in expectation for a random score.

    None where the strong model isn't better than the weak one: there is no gap to recover. Arguments as for `curve`.
    """
    fraction, recovered = _recovered(score, weak_quality, strong_quality)
    return None if recovered is None else float(np.trapezoid(recovered, fraction))


def cpt(score: ArrayLike, weak_quality: ArrayLike, strong_quality: ArrayLike, x: float = 0.5) -> float | None:
    """Smallest fraction of strong calls (0..1) that recovers `x` of the gap, on the exact curve.

    None when it is never reached (x > 1, beyond the best point of the curve), or there is no gap. Arguments as for
    `curve`.
    """
    fraction, recovered = _recovered(score, weak_quality, strong_quality)
    if recovered is None:
        return None
    reached = np.flatnonzero(recovered >= x - 1e-12)  # the curve ends at 1, up to rounding of a sum
    if not len(reached):
        return None
    i = int(reached[0])
    if i == 0:
        return 0.0
    rise = (x - recovered[i - 1]) / (recovered[i] - recovered[i - 1])
    return float(fraction[i - 1] + min(1.0, rise) * (fraction[i] - fraction[i - 1]))


@dataclass(frozen=True)
class Sweep:
    """A score to sweep, with the quality of the two answers that it decides between; columns `(n,)`.

    `names`: of the two answers, the weak one first. `weak_cost`, `strong_cost`: `(n,)` nano-dollars of all attempts
    that lead to either answer, nan where unknown; None where a sweep is made by hand. Of a vote all members count,
    although one that can't be won any more ends before all of them were asked.
    """

    score: Floats
    weak: Floats
    strong: Floats
    names: tuple[str, str] = ("", "")
    weak_cost: Floats | None = None
    strong_cost: Floats | None = None

    @property
    def apgr(self) -> float | None:
        return apgr(self.score, self.weak, self.strong)

    def cpt(self, x: float) -> float | None:
        return cpt(self.score, self.weak, self.strong, x)


def sweep_of(policy: Policy | Fitted, outcomes: Outcomes, folds: int = 5, seed: int = 0) -> Sweep | None:
    """The score that this policy sets one threshold on; None without one, or with more than two answers to choose from.

    `RandomMix`: the same for all, so that its curve is the expected one: a straight line. `PromptLength`: the length.
    `Threshold` on two rungs: 1 - confidence of the cheap answer. `Agreement`: how many members disagree with the
    largest group, whose answer is the weak one. What is fitted has the score of what it fits. A failed cheap attempt
    has the score nan, first of all: it escalates anyhow. What is learned has the gain that it expects, out of fold
    (`folds`, `seed`); its weak answer is that of the last rung that it looks at.
    """
    if isinstance(policy, FittedRouter | FittedAnswers):
        before = policy.members if isinstance(policy, FittedAnswers) else ()
        score = held_out_scores(policy, outcomes, folds, seed)
        return _pair(score, outcomes, policy.members[-1], policy.high, before)
    rungs = outcomes.rungs
    if isinstance(policy, RandomMix | MatchedRandom):
        return _pair(np.zeros(outcomes.n), outcomes, policy.low, policy.high)
    if isinstance(policy, PromptLength | FittedPromptLength):
        chars = np.asarray(outcomes.features["prompt_chars"], dtype=np.float64)
        return _pair(chars, outcomes, policy.low, policy.high)
    if isinstance(policy, Threshold | FittedThreshold):
        ladder = tuple(range(len(rungs))) if policy.ladder is None else policy.ladder
        return _confidence_sweep(outcomes, *ladder) if len(ladder) == 2 else None
    return _agreement_sweep(policy, outcomes) if isinstance(policy, Agreement) else None


def oracle_sweep(outcomes: Outcomes, low: RungRef, high: RungRef) -> Sweep:
    """The score of the oracle router: what the strong rung gains, which nobody knows beforehand."""
    weak, strong = _graded(outcomes, low), _graded(outcomes, high)
    return _pair(strong - weak, outcomes, low, high)


def frontier(cost: ArrayLike, quality: ArrayLike) -> NDArray[np.bool_]:
    """Which of m points no other one dominates, `(m,)` bool: none is as cheap and better, or as good and cheaper.

    Of equal points the first is kept. A point with a nan (an unknown cost) is never on the frontier. Raises BadInput.
    """
    cost, quality = _columns(cost, quality)
    on = np.zeros(len(cost), dtype=bool)
    best = -np.inf
    for i in np.lexsort((np.arange(len(cost)), -quality, cost)).tolist():
        if not np.isnan(cost[i]) and quality[i] > best:
            on[i], best = True, quality[i]
    return on


def _recovered(score: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> tuple[Floats, Floats | None]:
    fraction, quality = curve(score, weak, strong)
    low, high = (float(column.mean()) for column in _columns(weak, strong))
    return fraction, pgr(quality, low, high) if high > low else None


def _columns(*columns: ArrayLike) -> list[Floats]:
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    if any(a.ndim != 1 or len(a) != len(arrays[0]) or not len(a) for a in arrays):
        raise BadInput(f"need columns of the same length, at least 1; these are {[a.shape for a in arrays]}")
    return arrays


def _graded(outcomes: Outcomes, ref: RungRef) -> Floats:
    rung = rung_index(outcomes.rungs, ref)
    return np.where(outcomes.status[:, rung] == STATUSES.index(OK), outcomes.quality[:, rung], 0.0)


def _pair(score: Floats, outcomes: Outcomes, low: RungRef, high: RungRef, before: Sequence[RungRef] = ()) -> Sweep:
    """`before`: the rungs that were asked whichever answer is taken; none where it is decided before any attempt."""
    rungs = outcomes.rungs
    names = rungs[rung_index(rungs, low)].name, rungs[rung_index(rungs, high)].name
    weak_cost = _cost_of(outcomes, before or (low,))
    strong_cost = _cost_of(outcomes, (*before, high))
    return Sweep(score, _graded(outcomes, low), _graded(outcomes, high), names, weak_cost, strong_cost)


def _cost_of(outcomes: Outcomes, refs: Sequence[RungRef]) -> Floats:
    """(n,) of these rungs together."""
    cost = outcomes.cost[:, sorted({rung_index(outcomes.rungs, ref) for ref in refs})]
    return np.where((cost == UNKNOWN).any(axis=1), np.nan, cost.sum(axis=1))


def _confidence_sweep(outcomes: Outcomes, low: RungRef, high: RungRef) -> Sweep:
    rung = rung_index(outcomes.rungs, low)
    failed = outcomes.status[:, rung] != STATUSES.index(OK)
    score = np.where(failed, np.nan, 1.0 - outcomes.confidence[:, rung])
    return _pair(score, outcomes, low, high, (low,))


def _agreement_sweep(policy: Agreement, outcomes: Outcomes) -> Sweep:
    members = [rung_index(outcomes.rungs, ref) for ref in policy.members]
    rows = np.arange(outcomes.n)
    board = Board(Table.of(outcomes, rows))
    board.tried[:, members] = True
    agreeing, best = largest_group(board, members)
    weak = np.where(agreeing > 0, outcomes.quality[rows, best], 0.0)
    names = f"vote of {len(members)}", outcomes.rungs[rung_index(outcomes.rungs, policy.then)].name
    return Sweep(
        (len(members) - agreeing).astype(np.float64),
        weak,
        _graded(outcomes, policy.then),
        names,
        _cost_of(outcomes, policy.members),
        _cost_of(outcomes, (*policy.members, policy.then)),
    )
