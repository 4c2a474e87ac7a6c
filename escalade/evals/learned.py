"""Learned policies in a comparison: fitted on some folds, judged on the one that was held out.

Each `fit` looks at the training rows and at nothing else. What has to be fitted and then calibrated, or learns on the
way, does both within the training rows.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.climb import Policy
from escalade.agents.learned.answers import AnswerInView
from escalade.agents.learned.bandit import Bandit
from escalade.agents.learned.cascade import CascadeRouting
from escalade.agents.learned.gain import Gain
from escalade.agents.learned.guarantee import Guaranteed, cuts_of
from escalade.agents.learned.nearest import Nearest
from escalade.agents.learned.table import after
from escalade.agents.policies import RungRef, rung_index
from escalade.evals._nearest import facts_in, nearest_scores
from escalade.evals.folds import assign_folds, shuffled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from escalade.evals.outcomes import Outcomes

    Ints = NDArray[np.int64]
    Scored = Gain | Nearest | AnswerInView

DELTA = 0.05
"""The chance that a promise of the line-up is broken."""


@dataclass(frozen=True)
class FittedRouter:
    """A `Gain` or a `Nearest`: from the question alone, `low` or `high`. `margin`: as in `cuts.Aim`."""

    kind: type[Gain] | type[Nearest]
    low: RungRef
    high: RungRef
    margin: float = 0.02
    name: str = "gain"

    def fit(self, outcomes: Outcomes, rows: Ints) -> Gain | Nearest:
        known, key = _known_of(outcomes), (self, rows.tobytes())
        if key not in known:
            known[key] = self.kind.fit(
                outcomes, self.low, self.high, rows=rows.tolist(), margin=self.margin, name=self.name
            )
        return known[key]

    @property
    def members(self) -> tuple[RungRef, ...]:
        """The rung whose answer the strong one replaces."""
        return (self.low,)


_last: tuple[Callable[[], object], dict[Any, Gain | Nearest]] | None = None
"""The origin of the outcomes that routers were last fitted on, and these: a comparison wants the same for its rows, its
curves and its courses.
"""


def _known_of(outcomes: Outcomes) -> dict[Any, Gain | Nearest]:
    global _last  # noqa: PLW0603 - one slot, set at once
    last = _last
    if last is None or last[0]() is not outcomes.origin:
        _last = last = weakref.ref(outcomes.origin, _forget), {}
    return last[1]


def _forget(gone: object) -> None:
    global _last  # noqa: PLW0603 - as above
    if _last is not None and _last[0] is gone:
        _last = None


@dataclass(frozen=True)
class FittedAnswers:
    """An `AnswerInView`: the members answer, `high` where that pays."""

    members: tuple[RungRef, ...]
    high: RungRef
    margin: float = 0.02
    name: str = "answer-in-view"

    def fit(self, outcomes: Outcomes, rows: Ints) -> AnswerInView:
        return AnswerInView.fit(
            outcomes, self.members, self.high, rows=rows.tolist(), margin=self.margin, name=self.name
        )


@dataclass(frozen=True)
class FittedGuaranteed:
    """A `Guaranteed` on the scores of `scored`: half of the training questions fit those, the others calibrate the cut.

    Rows of one question, and questions of one group, are all in the same half: what calibrates was never fitted on. Of
    each question, or group, one row calibrates: the test behind the promise takes independent rows.
    """

    scored: FittedRouter | FittedAnswers
    epsilon: float = 0.05
    delta: float = DELTA
    name: str = "guaranteed"

    def fit(self, outcomes: Outcomes, rows: Ints) -> Guaranteed:
        fitting, calibrating = _halves(outcomes, rows)
        candidates = cuts_of(self.scored.fit(outcomes, fitting))
        return Guaranteed.fit(
            outcomes,
            candidates,
            self.scored.high,
            epsilon=self.epsilon,
            delta=self.delta,
            rows=calibrating.tolist(),
            name=self.name,
        )


@dataclass(frozen=True)
class FittedCascade:
    """A `CascadeRouting` among these rungs; `worth`: dollars for a right answer."""

    rungs: tuple[RungRef, ...]
    worth: float
    name: str = "cascade-routing"

    def fit(self, outcomes: Outcomes, rows: Ints) -> CascadeRouting:
        return CascadeRouting.fit(outcomes, self.rungs, self.worth, rows=rows.tolist(), name=self.name)


@dataclass(frozen=True)
class FittedBandit:
    """A `Bandit` that has gone through the training rows, each of which told it the reward of its choice alone."""

    rungs: tuple[RungRef, ...]
    worth: float
    seed: int = 0
    name: str = "bandit"

    def fit(self, outcomes: Outcomes, rows: Ints) -> Bandit:
        bandit = Bandit(self.rungs, self.worth, seed=self.seed, name=self.name)
        for i in rows[shuffled([outcomes.keys[i] for i in rows.tolist()], self.seed)].tolist():
            view = outcomes.view(i)
            decision = bandit.decide(view)
            rung = getattr(decision, "rung")  # noqa: B009 - it always tries
            reward = float(outcomes.quality[i, rung]) if outcomes.attempt(i, rung).ok else 0.0
            bandit = bandit.learned(view, decision, reward)
        return bandit


def _halves(outcomes: Outcomes, rows: Ints) -> tuple[Ints, Ints]:
    """Every other question, or group, in an order that depends on names alone; of the second half, one row each."""
    names = outcomes.keys if outcomes.group is None else outcomes.group
    order = rows[shuffled([names[i] for i in rows.tolist()])]
    rank: dict[str, int] = {}
    half = np.array([rank.setdefault(names[i], len(rank)) % 2 for i in order.tolist()], dtype=np.int64)
    first = np.unique([rank[names[i]] for i in order.tolist()], return_index=True)[1]
    alone = np.zeros(len(order), dtype=bool)
    alone[first] = True
    return order[half == 0], order[(half == 1) & alone]


def held_out_scores(fitted: FittedRouter | FittedAnswers, outcomes: Outcomes, folds: int = 5, seed: int = 0) -> Any:
    """The score of each question, `(n,)`, by what was fitted on the other folds; nan after a failed answer."""
    fold = assign_folds(outcomes.keys, folds, seed, group=outcomes.group)
    scores, facts = np.full(outcomes.n, np.nan), None
    tried = [] if isinstance(fitted, FittedRouter) else [rung_index(outcomes.rungs, m) for m in fitted.members]
    for f in range(folds):
        policy: Policy = fitted.fit(outcomes, np.flatnonzero(fold != f))
        held_out = np.flatnonzero(fold == f)
        if isinstance(policy, Nearest):
            facts = facts_in(outcomes.features, outcomes.n) if facts is None else facts
            scores[held_out] = nearest_scores(policy, facts[held_out])
            continue
        for i in held_out.tolist():
            view = after(outcomes, i, tried)
            if not view.attempts or view.attempts[-1].ok:
                scores[i] = policy.score(view)  # type: ignore[attr-defined]  # all of them have one
    return scores
