"""Guaranteed: the boldest threshold whose loss of quality against the strong rung is bounded, with a stated confidence.

The promise: over calibration sets drawn from the same questions, with probability 1 - delta at least, the policy that
is chosen loses at most epsilon of mean quality against the strong rung on new questions. It holds for any model, any
score and any distribution (`betting.py` has the sources), as long as the calibration rows were not used to fit the
candidates and new questions come from where they came from. A budget that holds the strong rung back isn't part of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from escalade.agents._saving import Saved, register_policy
from escalade.agents.climb import Decision, Policy, View, climb_sync
from escalade.agents.learned.answers import AnswerInView
from escalade.agents.learned.betting import last_safe, rows_needed
from escalade.agents.learned.gain import Gain
from escalade.agents.learned.nearest import Nearest
from escalade.agents.learned.table import Table, checked_rows, graded
from escalade.agents.policies import Constant, RungRef, Threshold, rung_index
from escalade.errors import BadInput, DataError

CONFIDENCES = tuple(round(1.0 - 0.025 * i, 3) for i in range(41))
"""Thresholds of confidence from 1 to 0, the safest first."""

GAINS = tuple(round(-0.3 + 0.02 * i, 2) for i in range(46))
"""Thresholds of an expected gain from -0.3 to 0.6, the safest first."""

_BY_THRESHOLD = (Threshold, Gain, Nearest, AnswerInView)
"""Policies whose threshold decides one thing: whether to go on."""


@register_policy
@dataclass(frozen=True, slots=True)
class Guaranteed(Saved):
    """Decides as `policy`, which was chosen on `rows` calibration questions so that it loses `epsilon` at most.

    `delta`: the chance, over calibration sets, that the promise is broken. `passed` of `candidates` passed the test;
    where none did, the policy is the strong rung alone. `loss`: mean loss on the calibration rows.
    """

    kind: ClassVar[str] = "guaranteed"
    policy: Policy
    epsilon: float
    delta: float
    rows: int
    passed: int
    candidates: int
    loss: float
    name: str = "guaranteed"

    @classmethod
    def fit(
        cls,
        table: Table,
        candidates: Sequence[Policy],
        strong: RungRef,
        *,
        epsilon: float = 0.02,
        delta: float = 0.05,
        rows: Sequence[int] | None = None,
        seed: int = 0,
        name: str = "guaranteed",
    ) -> Self:
        """Choose the last of `candidates`, ordered from the safest to the boldest, that passes with all before it.

        `rows`: calibration rows, None is all; their order is shuffled by `seed`. The candidates and their order must
        not depend on the labels of these rows: keep those that a candidate was fitted on out of `rows` yourself. Nobody
        else can: a policy doesn't remember its rows, and keys of other tables may be the same numbers. Raises BadInput,
        and DataError, which says how many rows it would take.
        """
        if not 0 < epsilon < 1 or not 0 < delta < 1:
            raise BadInput(f"a guarantee takes an epsilon and a delta between 0 and 1, not {epsilon!r} and {delta!r}")
        at = checked_rows(table, rows)
        needed = rows_needed(epsilon, delta)
        if len(at) < needed:
            raise DataError(
                f"{len(at)} calibration rows can't show a loss of at most {epsilon:g} with {1 - delta:.1%} confidence: "
                f"it takes {needed} at least; record more, or allow a larger epsilon or delta"
            )
        random.Random(seed).shuffle(at)
        losses = losses_of(table, candidates, strong, at)
        if not (abs(losses) <= 1).all():
            raise DataError("a guarantee needs qualities from 0 to 1; there are others, or unknown ones")
        last = last_safe(losses, epsilon, delta) if candidates else -1
        policy = candidates[last] if last >= 0 else Constant(strong)
        loss = float(losses[last].mean()) if last >= 0 else 0.0
        return cls(policy, epsilon, delta, len(at), last + 1, len(candidates), loss, name)

    def decide(self, view: View) -> Decision:
        return self.policy.decide(view)

    @property
    def per_request(self) -> Any:
        """The hard budget per request of the policy in it, None without one."""
        return getattr(self.policy, "per_request", None)


def thresholds(ladder: Sequence[RungRef]) -> list[Policy]:
    """Candidates that escalate on this ladder by confidence, the safest first."""
    return [Threshold(cut, tuple(ladder)) for cut in CONFIDENCES]


def cuts_of(policy: Any) -> list[Policy]:
    """Candidates with the model of this policy (`Gain`, `Nearest`, `AnswerInView`) at other cuts, the safest first."""
    if not hasattr(policy, "threshold") or not hasattr(policy, "score"):
        raise BadInput(f"{policy!r} has no score that a threshold could be set on")
    return [replace(policy, threshold=cut) for cut in GAINS]


def losses_of(table: Table, candidates: Sequence[Policy], strong: RungRef, rows: Sequence[int]) -> Any:
    """(m, n) quality of the strong rung less quality of the candidate's answer, -1..1."""
    import numpy as np

    best, nested = rung_index(table.rungs, strong), _nested(candidates)
    losses = np.zeros((len(candidates), len(rows)))
    for column, row in enumerate(rows):
        chosen = _chosen(table, row, candidates, nested=nested)
        quality = {rung: graded(table, row, rung) if rung >= 0 else 0.0 for rung in {*chosen, best}}
        losses[:, column] = [quality[best] - quality[rung] for rung in chosen]
    return losses


def _chosen(table: Table, row: int, candidates: Sequence[Policy], *, nested: bool) -> list[int]:
    """The rung that answers by each candidate, -1 for none. Between thresholds that agree, nested candidates do."""
    view, known = table.view(row), [-2] * len(candidates)

    def rung(i: int) -> int:
        if known[i] == -2:
            chosen = climb_sync(candidates[i], lambda rung: table.attempt(row, rung), view).chosen
            known[i] = -1 if chosen is None else chosen.rung
        return known[i]

    spans = [(0, len(candidates) - 1)] if candidates else []
    while spans:
        first, last = spans.pop()
        if rung(first) == rung(last) and nested:
            known[first : last + 1] = [known[first]] * (last + 1 - first)
        elif last - first > 1:
            middle = (first + last) // 2
            spans += [(first, middle), (middle, last)]
    return known


def _nested(candidates: Sequence[Any]) -> bool:
    """Are they one policy at thresholds in order? Then a question's answer changes in one direction only."""
    if not candidates or type(candidates[0]) not in _BY_THRESHOLD:
        return False
    first, cuts = candidates[0], [float(getattr(one, "threshold", math.nan)) for one in candidates]
    if any(type(one) is not type(first) or replace(one, threshold=first.threshold) != first for one in candidates):
        return False
    return cuts in (sorted(cuts), sorted(cuts, reverse=True))
