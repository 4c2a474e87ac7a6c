"""What an action is expected to come to, fitted on logged climbs: the model of a doubly robust estimate.

In each place of the climb (the rungs tried so far) and for each action there, a ridge regression on what is seen there:
features, and of each attempt its confidence, whether it failed, and whether it agrees with the one before. Where too
few climbs took an action, their mean stands in. The estimate doesn't hang on the model, only its width does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.climb import View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Action = tuple[str, int]
"""("try", rung) or ("stop", index of the attempt that answers)."""

State = tuple[tuple[int, ...], "Floats"]
"""A place in the climb: the rungs tried so far, and what is seen there, in figures."""

Chances = Mapping[Action, float]
"""The actions of a policy in one place, and how likely each is."""

LEAST, RIDGE = 20, 1.0


@dataclass(frozen=True)
class Walk:
    """A logged climb, as estimates need it. `states`: before each action. `actions`: taken, the last one
    stops. `likely`: of each action under the policy that logged. `target`: what the other policy would do there.
    `rewards`: of each action, so that their sum is what is estimated.
    """

    states: tuple[State, ...]
    actions: tuple[Action, ...]
    likely: tuple[float, ...]
    target: tuple[Chances, ...]
    rewards: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """How much likelier the target's way is than the one that was logged, action by action."""
        pairs = zip(self.actions, self.likely, self.target, strict=True)
        return [target.get(action, 0.0) / likely for action, likely, target in pairs]


Expect = Callable[[State, Action], float]


def fitted(walks: Sequence[Walk]) -> Expect:
    """Expected sum of rewards from an action on, if the target decides from there. Fitted from the last action back."""
    cells: dict[tuple[tuple[int, ...], Action], tuple[Floats, float]] = {}
    overall = float(np.mean([sum(walk.rewards) for walk in walks])) if walks else 0.0

    def expect(state: State, action: Action) -> float:
        found = cells.get((state[0], action))
        return overall if found is None else float(state[1] @ found[0]) + found[1]

    for depth in range(max((len(walk.actions) for walk in walks), default=0) - 1, -1, -1):
        there: dict[tuple[tuple[int, ...], Action], list[tuple[Floats, float]]] = {}
        for walk in walks:
            if len(walk.actions) > depth:
                worth = walk.rewards[depth]
                if len(walk.actions) > depth + 1:
                    worth += expected(expect, walk.states[depth + 1], walk.target[depth + 1])
                place, figures = walk.states[depth]
                there.setdefault((place, walk.actions[depth]), []).append((figures, worth))
        cells |= {place: _ridge(rows) for place, rows in there.items()}
    return expect


def expected(expect: Expect, state: State, chances: Chances) -> float:
    """Of a policy that decides by these chances."""
    return sum(chance * expect(state, action) for action, chance in chances.items())


def state_of(view: View) -> State:
    """Where the climb stands."""
    return tuple(attempt.rung for attempt in view.attempts), _described(view)


def _described(view: View) -> Floats:
    figures = [float(view.features[name]) for name in sorted(view.features)]
    before = None
    for attempt in view.attempts:
        unknown = math.isnan(attempt.confidence)
        same = before is not None and attempt.answer is not None and attempt.answer == before
        figures += [0.5 if unknown else attempt.confidence, float(unknown), float(attempt.ok), float(same)]
        before = attempt.answer
    return np.nan_to_num(np.array(figures, dtype=np.float64))


def _ridge(rows: Sequence[tuple[Floats, float]]) -> tuple[Floats, float]:
    """Weights and what is added to them."""
    x, y = np.array([one for one, _ in rows]), np.array([worth for _, worth in rows])
    if len(y) < LEAST or not x.shape[1]:
        return np.zeros(x.shape[1]), float(y.mean())
    middle, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    z = (x - middle) / scale
    weights = np.linalg.solve(z.T @ z + RIDGE * np.eye(z.shape[1]), z.T @ (y - y.mean())) / scale
    return weights, float(y.mean() - middle @ weights)
