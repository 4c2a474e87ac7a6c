"""The best that any policy could have had for the same money: the oracle at equal budget, and the oracle's price.

Who knows every answer beforehand picks for each question one rung, or none, so that the summed quality is greatest
within the budget: a multiple-choice knapsack. Its linear relaxation (Sinha & Zoltners 1979, Operations Research
27:503) is solved exactly: of each question only the corners of its upper hull of (cost, quality) matter; the steps
between them, those that gain most for a dollar first, are taken until the money ends, the last one in part. For two
rungs that is sorting by gain per dollar.

It is a true bound: a policy answers with one rung's answer and pays at least for that rung, or leaves the question
unanswered and pays nothing or more; both are among the choices, and the relaxation is never below the best whole
choice. It exceeds that by less than one question's gain. A random mix of two such choices attains it in expectation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.climb import OK
from escalade.errors import BadInput, DataError, UnknownPrice
from escalade.evals.outcomes import STATUSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = ["Within", "best_within"]

NONE = -1
"""No rung: the question stays unanswered, at quality 0 and no cost."""


@dataclass(frozen=True)
class Within:
    """`quality`, `cost`: (n,) of each question, in nano-dollars; at most one of them is a mix of two choices.

    `chosen`: (n,) rung that answers, NONE for none; of the mixed one the dearer.
    """

    quality: Floats
    cost: Floats
    chosen: Ints


def best_within(outcomes: Outcomes, budget: float, *, weight: Floats | None = None) -> Within:
    """The most quality that all questions together can have for `budget` nano-dollars in all.

    `weight`: (n,) above 0, how much each row counts, in quality and in cost: 1 / epochs for the rows of one question.
    Raises BadInput for a negative budget, UnknownPrice where a cost is unknown, DataError where an outcome is missing.
    """
    if not budget >= 0:
        raise BadInput(f"an oracle's budget isn't negative: {budget!r}")
    if not outcomes.priced:
        raise UnknownPrice("an oracle at a budget needs the cost of every attempt: set a price for every rung")
    ok = outcomes.status == STATUSES.index(OK)
    if bool(np.isnan(outcomes.quality[ok]).any()):
        raise DataError("an oracle needs every rung's outcome on every question: a missing one might have been right")
    quality = np.where(ok, np.nan_to_num(outcomes.quality), 0.0)
    cost = outcomes.cost.astype(np.float64)
    start, steps = _free(quality, cost), []
    chosen, at = start.copy(), start
    while True:
        following, gain, price = _step(quality, cost, at)
        rows = np.flatnonzero(following != at)
        if not len(rows):
            break
        steps.append((rows, following[rows], gain[rows], price[rows]))
        at = following
    n = np.arange(len(start))
    has = Within(_of(quality, n, start), np.zeros(len(start)), chosen)
    return _spent(has, steps, budget, np.ones(len(n)) if weight is None else weight) if steps else has


Steps = list[tuple["Ints", "Ints", "Floats", "Floats"]]
"""(row, rung after, gain in quality, price) of each round of steps."""


def _spent(has: Within, steps: Steps, budget: float, weight: Floats) -> Within:
    rows, after, gain, price = (np.concatenate(column) for column in zip(*steps, strict=True))
    # a question's steps gain less and less for a dollar, so that none is taken before the one it builds on
    order = np.argsort(-gain / price, kind="stable")
    paid = price[order] * weight[rows[order]]
    part = np.clip((budget - (np.cumsum(paid) - paid)) / paid, 0.0, 1.0)
    taken = part > 0
    rows, after, part = rows[order][taken], after[order][taken], part[taken]
    np.add.at(has.quality, rows, part * gain[order][taken])
    np.add.at(has.cost, rows, part * price[order][taken])
    has.chosen[rows] = after
    return has


def _free(quality: Floats, cost: Floats) -> Ints:
    """The best choice that costs nothing: a rung that is free, or none."""
    free = np.where(cost <= 0, quality, -1.0)
    best = np.argmax(free, axis=1)
    return np.where(free[np.arange(len(best)), best] > 0, best, NONE).astype(np.int64)


def _step(quality: Floats, cost: Floats, at: Ints) -> tuple[Ints, Floats, Floats]:
    """From each question's choice to the next corner of its hull: most gain for a dollar, of equals the farthest."""
    n = np.arange(len(at))
    gain = quality - _of(quality, n, at)[:, None]
    price = cost - _of(cost, n, at)[:, None]
    rises = (gain > 0) & (price > 0)
    slope = np.where(rises, gain / np.where(rises, price, 1.0), -1.0)
    steepest = slope.max(axis=1, initial=-1.0)
    best = np.argmax(np.where((slope == steepest[:, None]) & rises, gain, -1.0), axis=1) if slope.size else n
    on = steepest > 0
    following = np.where(on, best, at)
    return following, np.where(on, gain[n, best], 0.0), np.where(on, price[n, best], 0.0)


def _of(column: Floats, n: Ints, at: Ints) -> Floats:
    """What a choice is worth, 0 for none."""
    return np.where(at >= 0, column[n, at], 0.0)
