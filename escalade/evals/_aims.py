"""What a threshold is tuned for: a margin of quality, the worth of a right answer, or a guarantee."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from escalade.agents.climb import Policy
from escalade.agents.learned.betting import rows_needed
from escalade.agents.learned.guarantee import CONFIDENCES, Guaranteed, cuts_of
from escalade.agents.policies import Budgeted, Constant, Threshold
from escalade.errors import BadInput, UnknownPrice
from escalade.evals.replay import Replayed, replay
from escalade.money import Money

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from escalade.agents.calibration import Calibrator
    from escalade.evals.outcomes import Outcomes

FITTING, CHOOSING, JUDGING = (0, 1, 2, 3), (4, 5, 6), (7, 8, 9)
"""Folds of ten."""

LEAST = 30
"""Fewer questions choose nothing and judge nothing: the interval of a share is +-0.17 then."""

MARGIN, DELTA = 0.02, 0.05
"""Of quality that may be lost against the last rung; the chance that a guarantee is broken."""


def candidates_of(policy: Any) -> list[Policy]:
    """The same policy at other thresholds, the safest first. Raises BadInput for one without a threshold."""
    if isinstance(policy, Guaranteed):
        return candidates_of(policy.policy)
    if isinstance(policy, Budgeted):
        return [replace(policy, policy=inner) for inner in candidates_of(policy.policy)]
    if isinstance(policy, Threshold):
        return [replace(policy, threshold=cut) for cut in CONFIDENCES]
    if hasattr(policy, "threshold") and hasattr(policy, "score"):
        return cuts_of(policy)
    raise BadInput(f"policy {policy.name!r} has no threshold to tune; use a Threshold, or fit a policy on outcomes")


def _within_budget(policy: Any, strong: Policy) -> Policy:
    """The strong rung alone, under the hard budget per question of this policy where it has one."""
    if isinstance(policy, Guaranteed):
        return _within_budget(policy.policy, strong)
    return replace(policy, policy=strong) if isinstance(policy, Budgeted) else strong


@dataclass(frozen=True)
class Aim:
    """How to choose among candidates. `epsilon`: a guarantee is asked for; `worth`: nano-dollars that a right answer is
    worth; with neither of them the margin decides.
    """

    margin: float = MARGIN
    worth: int | None = None
    epsilon: float | None = None
    delta: float = DELTA

    @classmethod
    def of(cls, margin: Any, dollars_per_point: Any, guarantee: Any) -> Aim:
        if sum(one is not None for one in (margin, dollars_per_point, guarantee)) > 1:
            raise BadInput("what to tune for is one of margin, dollars_per_point and guarantee")
        if dollars_per_point is not None:
            worth = Money.of(dollars_per_point)
            if worth <= 0:
                raise BadInput(f"dollars_per_point: expected what a right answer is worth, above $0, got {worth}")
            return cls(worth=int(worth))
        if guarantee is not None:
            epsilon, delta = guarantee if isinstance(guarantee, tuple) else (guarantee, DELTA)
            if not 0 < epsilon < 1 or not 0 < delta < 1:
                raise BadInput(f"guarantee: expected an epsilon and a delta between 0 and 1, got {guarantee!r}")
            return cls(epsilon=epsilon, delta=delta)
        if margin is not None and not 0 <= margin < 1:
            raise BadInput(f"margin: expected quality that may be lost, 0..1, got {margin!r}")
        return cls(margin=MARGIN if margin is None else margin)

    def needed(self, using: type[Calibrator]) -> int:
        """The fewest questions of which each part gets enough."""
        choosing = LEAST if self.epsilon is None else max(LEAST, rows_needed(self.epsilon, self.delta))
        parts = ((using.min_rows, FITTING), (choosing, CHOOSING), (LEAST, JUDGING))
        return 10 * max(math.ceil(rows / len(folds)) for rows, folds in parts)

    def choose(self, policy: Policy, outcomes: Outcomes, rows: NDArray[np.int64], seed: int) -> Policy:
        """The candidate that suits these rows best; of equal ones the safest."""
        last, candidates = len(outcomes.rungs) - 1, candidates_of(policy)
        strong = _within_budget(policy, Constant(last))
        if self.epsilon is not None:
            promised = Guaranteed.fit(
                outcomes, candidates, last, epsilon=self.epsilon, delta=self.delta, rows=rows.tolist(), seed=seed
            )
            return promised if promised.passed else replace(promised, policy=strong)
        tried = [(one, replay(one, outcomes, rows=rows)) for one in (strong, *candidates)]
        if not all(done.cost_known for _, done in tried):
            raise UnknownPrice("thresholds can't be weighed while costs are unknown: give every model a price")
        enough = float(tried[0][1].quality.mean()) - self.margin
        return max(tried, key=lambda one: self._value(one[1], enough))[0]

    def _value(self, done: Replayed, enough: float) -> tuple[float, float]:
        quality, cost = float(done.quality.mean()), float(done.cost.mean())
        if self.worth:
            return (quality - cost / self.worth, 0.0)
        return (-cost, quality) if quality >= enough else (-math.inf, quality)
