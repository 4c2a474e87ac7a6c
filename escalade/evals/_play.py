"""How one policy of a comparison is played: what it came to on every question, whoever decided.

Random mixes aren't drawn: they are taken at their expected value, question by question, so that a row says nothing
about the luck of one draw. A budget of the run is spent in an order that is shuffled by seed and question: whose money
runs out doesn't depend on how a file is sorted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.policies import Budgeted, Constant, RandomMix
from escalade.errors import UnknownPrice
from escalade.evals.folds import shuffled
from escalade.evals.inference.units import questions_of
from escalade.evals.metrics.hindsight import best_within
from escalade.evals.outcomes import UNKNOWN
from escalade.evals.replay import Fitted, FittedBudgeted, MatchedRandom, Replayed, cross_fit, oracle
from escalade.evals.replay import replay as replayed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.lineup import Entry
    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]

P95 = 0.95


@dataclass(frozen=True)
class Played:
    """What a policy came to, row by row of the outcomes. `quality`: (n,) in 0..1, expected values for a mix.

    `cost`: (n,) nano-dollars, expected values for a mix, nan where unknown. `latency`: (n,) seconds of the attempts one
    after the other, expected values for a mix, nan where unknown or unanswered. `errors`: questions without a usable
    answer; `unpaid`: those of them for which no rung fitted the budget. `violations`: of budgets. `p95`: seconds over
    the questions that were answered, nan where unknown. `replayed`: the path on each question, None for a mix.
    `share`: of a mix, the strong rung's part; None for all others.
    """

    quality: Floats
    cost: Floats
    latency: Floats
    failed: Floats
    unpaid: int
    violations: int
    p95: float
    replayed: Replayed | None = None
    share: float | None = None

    @property
    def errors(self) -> float:
        """Rows without a usable answer."""
        return float(self.failed.sum())

    @property
    def mean_cost(self) -> float | None:
        """Nano-dollars per question, None where unknown."""
        mean = float(self.cost.mean()) if len(self.cost) else math.nan
        return None if math.isnan(mean) else mean


def play(entry: Entry, outcomes: Outcomes, folds: int, seed: int) -> Played:
    """Play it on all questions; what is fitted, out of fold. Raises UnknownPrice for a cost that can't be matched."""
    if isinstance(entry.play, RandomMix | MatchedRandom):
        return _mixed(entry, entry.play, outcomes, folds, seed)
    if entry.play is None and (entry.at_cost is not None or entry.reference is not None):
        return _bounded(entry, outcomes, folds, seed)
    one = _replayed(entry, outcomes, folds, seed)
    stopped = one.chosen < 0
    budgeted = entry.per_request is not None or isinstance(entry.play, Budgeted | FittedBudgeted)
    return Played(
        quality=one.quality,
        cost=np.where(one.cost == UNKNOWN, np.nan, one.cost),
        latency=np.where(stopped, np.nan, one.latency),
        failed=one.errors.astype(np.float64),
        unpaid=int((stopped if one.raised is None else stopped & ~one.raised).sum()) if budgeted else 0,
        violations=_violations(entry, one),
        p95=_p95(one.latency[~stopped]),
        replayed=one,
    )


def _replayed(entry: Entry, outcomes: Outcomes, folds: int, seed: int) -> Replayed:
    per_run = None if entry.per_run is None else int(entry.per_run)
    order = None if per_run is None else shuffled(outcomes.keys, seed)
    if entry.play is None:
        return oracle(outcomes)
    if isinstance(entry.play, Fitted):
        one = cross_fit(entry.play, outcomes, folds, seed, per_run=per_run, rows=order)
    else:
        one = replayed(entry.play, outcomes, per_run=per_run, rows=order)
    if order is None:
        return one
    back = np.argsort(one.rows)
    columns: dict[str, Any] = {name: value[back] for name, value in vars(one).items() if isinstance(value, np.ndarray)}
    return replace(one, **columns)


def _mixed(entry: Entry, mix: RandomMix | MatchedRandom, outcomes: Outcomes, folds: int, seed: int) -> Played:
    """The expected value: `share` of the strong rung's column and the rest of the cheap one's, for every question."""
    low, high = (replayed(Constant(rung), outcomes) for rung in (mix.low, mix.high))
    share = mix.share if isinstance(mix, RandomMix) else _share(entry, mix, outcomes, folds, seed, low, high)

    def expected(a: Floats, b: Floats) -> Floats:
        return (1.0 - share) * a + share * b

    return Played(
        quality=expected(low.quality, high.quality),
        cost=expected(*(np.where(one.cost == UNKNOWN, np.nan, one.cost) for one in (low, high))),
        latency=expected(low.latency, high.latency),
        failed=expected(low.errors.astype(np.float64), high.errors.astype(np.float64)),
        unpaid=0,
        violations=0,
        p95=_p95(np.append(low.latency, high.latency), np.repeat([1.0 - share, share], len(low.latency))),
        share=share,
    )


def _share(
    entry: Entry, mix: MatchedRandom, outcomes: Outcomes, folds: int, seed: int, low: Replayed, high: Replayed
) -> float:
    """Of the strong rung, so that the mix costs what its reference came to, budgets and all. No label is looked at."""
    reference = entry.reference
    if reference is None:
        return mix.fit(outcomes, np.arange(outcomes.n)).share
    if not (low.cost_known and high.cost_known):
        raise UnknownPrice(f"{entry.name}: costs can't be matched while some are unknown: set a price for every rung")
    asked = questions_of(outcomes)
    target, cheap, dear = (asked.average(one.cost) for one in (play(reference, outcomes, folds, seed), low, high))
    if math.isnan(target):
        raise UnknownPrice(f"{entry.name}: costs can't be matched while some are unknown: set a price for every rung")
    return 0.0 if dear <= cheap else min(1.0, max(0.0, (target - cheap) / (dear - cheap)))


def _bounded(entry: Entry, outcomes: Outcomes, folds: int, seed: int) -> Played:
    """The oracle at the cost of a reference: on each question one rung or none, in one of them a mix of two."""
    asked = questions_of(outcomes)
    target = entry.at_cost
    if target is None and entry.reference is not None:
        target = float(asked.mean(play(entry.reference, outcomes, folds, seed).cost).mean())
    if target is None or math.isnan(target):
        raise UnknownPrice(f"{entry.name}: costs can't be matched while some are unknown: set a price for every rung")
    best = best_within(outcomes, target * asked.n, weight=1.0 / np.bincount(asked.of)[asked.of])
    at, answered = np.arange(outcomes.n), best.chosen >= 0
    latency = np.where(answered, outcomes.latency[at, best.chosen], np.nan)
    return Played(
        quality=best.quality,
        cost=best.cost,
        latency=latency,
        failed=(best.quality == 0.0).astype(np.float64) * ~answered,
        unpaid=0,
        violations=0,
        p95=_p95(latency[answered]),
    )


def _violations(entry: Entry, one: Replayed) -> int:
    over = 0 if entry.per_request is None else int((one.cost > int(entry.per_request)).sum())
    return over + (entry.per_run is not None and int(one.cost.sum()) > entry.per_run)


def _p95(latency: Floats, weight: Floats | None = None) -> float:
    """Unknown (nan) without values or with an unknown one that counts."""
    if weight is not None:
        latency, weight = latency[weight > 0], weight[weight > 0]
    if not len(latency) or np.isnan(latency).any():
        return math.nan
    if weight is None:
        return float(np.quantile(latency, P95))
    return float(np.quantile(latency, P95, weights=weight, method="inverted_cdf"))
