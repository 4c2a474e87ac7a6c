"""Replay: what a policy would have done on recorded outcomes, and what it would have cost.

`replay_one` runs the very loop of a live climb on one question. `replay` does that for all of them, in columns where
the policy has a vectorised form (`_vector.py`) and row by row where not, with equal results.

`Fitted` things aren't policies yet: they choose one from training rows. `cross_fit` fits on some folds and replays on
the fold that was held out, so that nothing is ever judged on rows that it was fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from escalade.agents.climb import OK, Attempt, Climb, Policy, climb_sync, counted_down
from escalade.agents.policies import Budgeted, Constant, PromptLength, RandomMix, RungRef, Threshold, rung_index
from escalade.errors import BadInput, Censored, DataError, UnknownName, UnknownPrice
from escalade.evals._vector import NONE, climb_all, vectorised
from escalade.evals.folds import ByFold, assign_folds
from escalade.evals.outcomes import STATUSES, UNKNOWN, Outcomes
from escalade.money import Money
from escalade.registry.accounts import brake_at
from escalade.registry.privacy.outlets import error_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
    Rows = NDArray[np.int64] | NDArray[np.bool_] | Sequence[int] | None

MAX_CUTS = 64
"""A threshold is fitted on at most so many candidates: quantiles of the confidences where there are more."""


@dataclass(frozen=True)
class Replayed:
    """What a policy did on n questions of a ladder of k rungs. All columns follow `rows`.

    `rows`: (n,) row in the outcomes. `chosen`: (n,) rung that answers, -1 when unanswered. `tried`: (n, k) bool.
    `cost`: (n,) int64 nano-dollars over all attempts, UNKNOWN (-1) where an attempt's cost is unknown. `quality`: (n,)
    float, 0.0 when unanswered or failed. `latency`: (n,) seconds of the attempts one after the other, nan where
    unknown, 0.0 where nothing was tried. `errors`: (n,) bool, unanswered or answered by an attempt that isn't OK.
    `raised`: (n,) bool, where the policy itself raised: unanswered, and what it had tried by then is paid; None if it
    never did. `error`: the first that it raised.
    """

    policy: str
    rows: Ints
    chosen: Ints
    tried: Bools
    cost: Ints
    quality: NDArray[np.float64]
    latency: NDArray[np.float64]
    errors: Bools
    raised: Bools | None = None
    error: str = ""

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def calls(self) -> Ints:
        """(n, k) int64 calls of each rung: 0 or 1, since a climb tries no rung twice."""
        return self.tried.astype(np.int64)

    @property
    def cost_known(self) -> bool:
        """Is every cost known?"""
        return bool((self.cost >= 0).all())

    @property
    def mean_cost(self) -> float | None:
        """Nano-dollars per question, None where a cost is unknown."""
        return float(self.cost.mean()) if self.n and self.cost_known else None


def replay(policy: Policy, outcomes: Outcomes, *, per_run: int | None = None, rows: Rows = None) -> Replayed:
    """Replay the policy on the outcomes.

    `per_run`: nano-dollars for all questions together, a hard budget consumed in order: a question on which nothing
    fits any more stays unanswered (an error of quality 0 that costs nothing), and past its brake nothing escalates, as
    in a scope with that budget. An unknown ceiling never fits a budget. A question on which the policy raises stays
    unanswered, as it does live (but for BadInput: a policy that can't be used at all ends the replay).
    `rows`: indices or a mask of the rows to replay, None is all. Raises UnknownName for rungs that the ladder lacks,
    and Censored where the policy tries a rung that was not asked, or answers with what nobody graded: what it would
    have come to isn't known, and is never taken for a zero.
    """
    at = _rows(outcomes, rows)
    if vectorised(policy):
        return _replayed(policy.name, outcomes, at, *climb_all(policy, outcomes, at, per_run, brake_left(per_run)))
    chosen, tried, raised = _climb_each(policy, outcomes, at, per_run)
    found = _replayed(policy.name, outcomes, at, chosen, tried)
    if not raised:
        return found
    return replace(found, raised=np.isin(np.arange(len(at)), list(raised)), error=next(iter(raised.values())))


def replay_one(
    policy: Policy, outcomes: Outcomes, i: int, budget_left: int | None = None, *, brake_left: int | None = None
) -> Climb:
    """The climb on question i, with every step and its reason.

    `budget_left`: nano-dollars, None without a limit. `brake_left`: what is left when the budget brakes (`brake_left`
    of this module, for a budget of a run), None for a budget that doesn't. Raises Censored where it tries a rung that
    was not asked.
    """
    climb = _climb_one(policy, outcomes, i, (budget_left, brake_left), [])
    for rung in climb.path:
        if not outcomes.whole and not outcomes.asked[i, rung]:
            name, key = outcomes.rungs[rung].name, outcomes.keys[i]
            raise Censored(f"{policy.name}: {name} was not asked question {key!r}", policy=policy.name)
    return climb


def brake_left(per_run: int | None) -> int | None:
    """Nano-dollars that are left of a run's budget when its ledger brakes."""
    return None if per_run is None else per_run - brake_at(per_run)


def oracle(outcomes: Outcomes, rows: Rows = None) -> Replayed:
    """Hindsight: the cheapest of the rungs with the best answer, alone tried and paid; the cheapest if none is right.

    No policy, since it needs the truth: the bound that no router on these rungs can pass. For labels 0/1 "best" is
    "right"; a failed attempt is never right. A rung of unknown cost is dearer than those of known cost. Raises Censored
    where the quality of any rung is unknown.
    """
    at = _rows(outcomes, rows)
    _refuse("oracle", _ungraded(outcomes, at).any(axis=1), "it has to know the answer of every rung, and lacks some")
    quality = np.where(_ok(outcomes, at), np.nan_to_num(outcomes.quality[at]), 0.0)
    worst = np.iinfo(np.int64).max
    cost = np.where(outcomes.cost[at] == UNKNOWN, worst - 1, outcomes.cost[at])
    chosen = np.argmin(np.where(quality == quality.max(axis=1, keepdims=True), cost, worst), axis=1)
    tried = np.zeros(quality.shape, dtype=bool)
    tried[np.arange(len(at)), chosen] = True
    return _replayed("oracle", outcomes, at, chosen.astype(np.int64), tried)


def _rows(outcomes: Outcomes, rows: Rows) -> Ints:
    if rows is None:
        return np.arange(outcomes.n)
    at = np.asarray(rows)
    return np.flatnonzero(at) if at.dtype == np.bool_ else at.astype(np.int64)


def _ok(outcomes: Outcomes, rows: Ints) -> Bools:
    ok: Bools = outcomes.status[rows] == STATUSES.index(OK)
    return ok


def _climb_each(
    policy: Policy, outcomes: Outcomes, rows: Ints, per_run: int | None
) -> tuple[Ints, Bools, dict[int, str]]:
    """What answers, what was tried, and what was raised, by place in `rows`."""
    chosen, tried = np.full(len(rows), NONE, dtype=np.int64), np.zeros((len(rows), outcomes.k), dtype=bool)
    left, brake, raised = per_run, brake_left(per_run), {}
    for at, i in enumerate(rows.tolist()):
        paid: list[Attempt] = []
        try:
            climb = _climb_one(policy, outcomes, i, (left, brake), paid)
            chosen[at] = NONE if climb.chosen is None else climb.chosen.rung
        except BadInput:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, live the question would stay unanswered
            raised[at] = error_line(error)
        tried[at, [attempt.rung for attempt in paid]] = True
        if left is not None:
            left -= sum(attempt.cost for attempt in paid)
    return chosen, tried, raised


def _climb_one(
    policy: Policy, outcomes: Outcomes, i: int, budget: tuple[int | None, int | None], paid: list[Attempt]
) -> Climb:
    """`budget`: what is left, and when it brakes. `paid`: is filled with the attempts, whatever becomes of them."""

    def attempt(rung: int) -> Attempt:
        paid.append(outcomes.attempt(i, rung))
        return paid[-1]

    return climb_sync(policy, attempt, counted_down(outcomes.view(i, budget_left=budget[0]), budget[1]))


def _replayed(name: str, outcomes: Outcomes, rows: Ints, chosen: Ints, tried: Bools) -> Replayed:
    at = np.arange(len(rows))
    good = (chosen >= 0) & _ok(outcomes, rows)[at, chosen]
    if not outcomes.whole:
        beyond = tried & ~outcomes.asked[rows]
        most = outcomes.rungs[int(beyond.sum(axis=0).argmax())].name
        _refuse(name, beyond.any(axis=1), f"it goes on to {most}, which was not asked there")
        _refuse(name, good & _ungraded(outcomes, rows)[at, chosen], "it answers with what nobody graded")
    cost = outcomes.cost[rows]
    unknown = (tried & (cost == UNKNOWN)).any(axis=1)
    return Replayed(
        policy=name,
        rows=rows,
        chosen=chosen,
        tried=tried,
        cost=np.where(unknown, UNKNOWN, np.where(tried, cost, 0).sum(axis=1)),
        quality=np.where(good, outcomes.quality[rows][at, chosen], 0.0),
        latency=np.where(tried, outcomes.latency[rows], 0.0).sum(axis=1),
        errors=~good,
    )


def _ungraded(outcomes: Outcomes, rows: Ints) -> Bools:
    """(n, k) where an answer, or what would have been one, has no quality."""
    missing: Bools = np.isnan(outcomes.quality[rows]) & _ok(outcomes, rows)
    return missing


def _refuse(name: str, questions: Any, why: str) -> None:
    where: Bools = np.asarray(questions)
    if where.any():
        told = f"{int(where.sum()):,} of {len(where):,} questions ({where.mean():.1%})"
        raise Censored(f"{name}: on {told} {why}", policy=name, share=float(where.mean()))


# ------------------------------------------------------------------------------------------------------------- fitted


@runtime_checkable
class Fitted(Protocol):
    """Chooses a policy from training rows. Of the others it knows what a live policy knows, and no outcome."""

    @property
    def name(self) -> str:
        """Shown in tables."""
        ...

    def fit(self, outcomes: Outcomes, rows: Ints) -> Policy:
        """The policy for these training rows; in `outcomes`, what the other rows gave is unknown (`training`)."""
        ...


Reference = Policy | Fitted | Replayed | int
"""What a cost is matched with: a policy, a fitted one (fitted on the same training rows), a replay, nano-dollars."""


@dataclass(frozen=True)
class MatchedRandom:
    """A random mix of two rungs that costs as much as the reference: what a router has to beat to be one.

    The share of `high` follows from the mean costs on the training rows, clipped to 0..1 where the reference is cheaper
    than `low` or dearer than `high`. Raises UnknownPrice where a cost is unknown.
    """

    reference: Reference
    low: RungRef
    high: RungRef
    seed: int = 0
    name: str = "random, matched"

    def fit(self, outcomes: Outcomes, rows: Ints) -> RandomMix:
        target = _reference_cost(self.reference, outcomes, rows)
        low, high = (float(_costs(outcomes, rung, rows).mean()) for rung in (self.low, self.high))
        share = 0.0 if high <= low else min(1.0, max(0.0, (target - low) / (high - low)))
        return RandomMix(share, self.low, self.high, self.seed, self.name)


@dataclass(frozen=True)
class FittedPromptLength:
    """Prompt length, with the cut at a share of strong calls (`at_share`) or at the cost of a reference.

    Exactly one of the two is given. The cut is the one among the lengths of the training rows that comes closest; one
    more candidate sends everything to `low`. Raises BadInput, UnknownName for data without the lengths of prompts, and
    UnknownPrice where a cost to match is unknown.
    """

    low: RungRef
    high: RungRef
    at_share: float | None = None
    reference: Reference | None = None
    name: str = "prompt-length"

    def __post_init__(self) -> None:
        if (self.at_share is None) == (self.reference is None):
            raise BadInput("prompt length is fitted at a share or at the cost of a reference: give exactly one of them")

    def fit(self, outcomes: Outcomes, rows: Ints) -> PromptLength:
        if "prompt_chars" not in outcomes.features:
            raise UnknownName("feature", "prompt_chars", list(outcomes.features))
        chars = outcomes.features["prompt_chars"][rows].astype(np.float64)
        if self.reference is not None:
            low, high = (_costs(outcomes, rung, rows) for rung in (self.low, self.high))
            start, gain, target = low.mean(), (high - low) / len(rows), _reference_cost(self.reference, outcomes, rows)
        else:
            start, gain, target = 0.0, np.full(len(rows), 1 / len(rows)), float(self.at_share or 0.0)
        longest_first = np.argsort(-chars, kind="stable")
        cuts = chars[longest_first]
        reached = start + np.cumsum(gain[longest_first])
        last = np.append(cuts[1:] != cuts[:-1], True)  # of equal lengths, all or none are long
        cuts, reached = np.append(np.inf, cuts[last]), np.append(start, reached[last])
        cut = float(cuts[np.argmin(np.abs(reached - target))])
        return PromptLength(cut, self.low, self.high, self.name)


@dataclass(frozen=True)
class FittedThreshold:
    """The cheapest confidence threshold whose quality is at least that of `baseline` minus `margin` in training.

    Candidates: 0, every confidence that occurs (quantiles of them where there are more than MAX_CUTS), and the baseline
    alone, which is what remains when no threshold is good enough. `margin`: in points of quality, 0.02 is two.
    Raises UnknownPrice where a cost is unknown.
    """

    ladder: tuple[RungRef, ...]
    baseline: RungRef
    margin: float = 0.0
    name: str = "threshold, fitted"

    def fit(self, outcomes: Outcomes, rows: Ints) -> Policy:
        best: Policy = Constant(self.baseline, self.name)
        alone = replay(best, outcomes, rows=rows)
        cheapest = _mean(alone.cost)
        enough = float(alone.quality.mean()) - self.margin
        for cut in self._cuts(outcomes, rows):
            policy = Threshold(cut, self.ladder, self.name)
            tried = replay(policy, outcomes, rows=rows)
            if tried.quality.mean() >= enough and _mean(tried.cost) < cheapest:
                best, cheapest = policy, _mean(tried.cost)
        return best

    def _cuts(self, outcomes: Outcomes, rows: Ints) -> list[float]:
        # The last rung is final: its confidence decides nothing.
        rungs = [rung_index(outcomes.rungs, r) for r in self.ladder[:-1]]
        seen = outcomes.confidence[rows][:, rungs]
        seen = np.unique(np.append(seen[~np.isnan(seen)], 0.0))
        if len(seen) > MAX_CUTS:
            seen = np.unique(np.quantile(seen, np.linspace(0.0, 1.0, MAX_CUTS), method="nearest"))
        return [cut for cut in seen.tolist() if 0.0 <= cut <= 1.0]


@dataclass(frozen=True)
class FittedBudgeted:
    """`Budgeted` around whatever is fitted. `per_request`: Money, None for the budget of the run alone."""

    fitted: Fitted
    per_request: Money | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"{self.fitted.name}, budgeted")

    def fit(self, outcomes: Outcomes, rows: Ints) -> Budgeted:
        return Budgeted(self.fitted.fit(outcomes, rows), self.per_request, self.name)


def cross_fit(
    fitted: Fitted,
    outcomes: Outcomes,
    folds: int = 5,
    seed: int = 0,
    *,
    per_run: int | None = None,
    rows: Rows = None,
) -> Replayed:
    """Out of fold: each question is answered by the policy that was fitted on the other folds; in dataset order.

    `per_run`, `rows`: as in `replay`, one budget over all folds; all rows are fitted on, whichever are replayed. Raises
    BadInput with fewer distinct questions than folds, and Censored as `replay` does.
    """
    return replay(out_of_fold(fitted, outcomes, folds, seed), outcomes, per_run=per_run, rows=rows)


def out_of_fold(fitted: Fitted, outcomes: Outcomes, folds: int = 5, seed: int = 0) -> ByFold:
    """The policy that decides on each question as fitted on the folds that it isn't in. Raises as `cross_fit`."""
    if not outcomes.whole and not _fits_on_holes(fitted):
        unknown = _ungraded(outcomes, np.arange(outcomes.n)).any(axis=1)
        _refuse(fitted.name, unknown, "it learns from the quality of every rung, and lacks some")
    fold = assign_folds(outcomes.keys, folds, seed, group=outcomes.group)
    others = [np.flatnonzero(fold != f) for f in range(folds)]
    policies = tuple(fitted.fit(outcomes.training(rows), rows) for rows in others)
    return ByFold(fitted.name, policies, dict(zip(outcomes.keys, fold.tolist(), strict=True)))


def _fits_on_holes(fitted: Fitted) -> bool:
    """Does it look at no quality when it is fitted, or at replays alone, which refuse what they don't know?"""
    inner = fitted.fitted if isinstance(fitted, FittedBudgeted) else fitted
    return isinstance(inner, MatchedRandom | FittedPromptLength | FittedThreshold)


def _reference_cost(reference: Reference, outcomes: Outcomes, rows: Ints) -> float:
    if isinstance(reference, int):
        return float(reference)
    if isinstance(reference, Replayed):
        return _mean(_only(reference, rows))
    policy = reference.fit(outcomes, rows) if isinstance(reference, Fitted) else reference
    return _mean(replay(policy, outcomes, rows=rows).cost)


def _only(replayed: Replayed, rows: Ints) -> Ints:
    wanted = np.isin(replayed.rows, rows)
    if not np.isin(rows, replayed.rows).all():
        raise BadInput(f"the replay of {replayed.policy!r} can't be a reference: it lacks some of the training rows")
    costs: Ints = replayed.cost[wanted]
    return costs


def _costs(outcomes: Outcomes, rung: RungRef, rows: Ints) -> Ints:
    costs: Ints = outcomes.cost[rows, rung_index(outcomes.rungs, rung)]
    _mean(costs)
    return costs


def _mean(costs: Ints) -> float:
    if not len(costs):
        raise DataError("nothing can be fitted on no rows")
    if (costs == UNKNOWN).any():
        raise UnknownPrice("costs can't be matched while some are unknown: set a price for every rung")
    return float(costs.mean())
