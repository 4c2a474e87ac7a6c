"""Fitted yardsticks: the best single rung, and the best rung of each category.

Both look at nothing but the training rows' labels: who can't beat them has learned nothing about questions. A rung's
quality counts 0 where its attempt failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.climb import OK, Policy
from escalade.agents.policies import Constant
from escalade.errors import DataError, UnknownPrice
from escalade.evals.folds import ByFold
from escalade.evals.outcomes import STATUSES, UNKNOWN
from escalade.evals.replay import Fitted, replay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.outcomes import Outcomes

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

__all__ = ["FittedBestSingle", "FittedCategoryMean"]

LEAST = 10
"""A category with fewer training rows has no mean to speak of: it goes where all questions would."""


@dataclass(frozen=True)
class FittedBestSingle:
    """Always the rung that was best on the training rows; of equal ones the cheaper. Chosen, not known, beforehand."""

    name: str = "best-single"

    def fit(self, outcomes: Outcomes, rows: Ints) -> Constant:
        return Constant(int(np.argmax(_graded(outcomes, rows).mean(axis=0))), self.name)


@dataclass(frozen=True)
class FittedCategoryMean:
    """Each category to the rung that was best for it on the training rows; of equal ones the cheaper.

    `reference`: a policy, fitted or not, or nano-dollars a question: what it costs is then at most that on the training
    rows, if the cheapest rung is; the steps up that gain most for a dollar come first. Raises DataError where the data
    has no categories, UnknownPrice where a cost to keep to is unknown.
    """

    reference: Policy | Fitted | float | None = None
    name: str = "category-mean"

    def fit(self, outcomes: Outcomes, rows: Ints) -> ByFold:
        if outcomes.category is None:
            raise DataError(f"{self.name}: this data has no categories")
        labels = np.array(outcomes.category, dtype=object)
        graded, cost = _graded(outcomes, rows), outcomes.cost[rows].astype(np.float64)
        names = [name for name in dict.fromkeys(labels[rows].tolist()) if (labels[rows] == name).sum() >= LEAST]
        parts = [labels[rows] == name for name in names]
        parts.append(~np.isin(labels[rows], names))  # the rest goes where all would
        quality = np.array([graded[part].mean(axis=0) for part in parts[:-1]] + [graded.mean(axis=0)])
        if self.reference is None:
            best = np.argmax(quality, axis=1)
        else:
            spent = np.array([cost[part].sum(axis=0) / len(rows) for part in parts])
            share = np.array([part.mean() for part in parts])
            best = _within(quality * share[:, None], spent, self._target(outcomes, rows))
        to = dict(zip(names, best[:-1].tolist(), strict=True))
        rung_of = {key: to.get(label, int(best[-1])) for key, label in zip(outcomes.keys, labels, strict=True)}
        return ByFold(self.name, tuple(Constant(rung) for rung in range(outcomes.k)), rung_of)

    def _target(self, outcomes: Outcomes, rows: Ints) -> float:
        """Nano-dollars a question."""
        if bool((outcomes.cost[rows] == UNKNOWN).any()):
            raise UnknownPrice(f"{self.name}: a cost can't be kept to while some are unknown: set every rung's price")
        if isinstance(self.reference, int | float):
            return float(self.reference)
        assert self.reference is not None  # noqa: S101 - asked before
        policy = self.reference.fit(outcomes, rows) if isinstance(self.reference, Fitted) else self.reference
        return float(replay(policy, outcomes, rows=rows).cost.mean())


def _within(quality: Floats, cost: Floats, budget: float) -> Ints:
    """(m,) rung of each of m categories: from the cheapest on, the steps that gain most for a dollar while they fit."""
    m = np.arange(len(cost))
    at = np.lexsort((-quality, cost), axis=1)[:, 0]
    left = budget - cost[m, at].sum()
    while True:
        gain, price = quality - quality[m, at][:, None], cost - cost[m, at][:, None]
        fits = (gain > 0) & (price <= left)
        if not fits.any():
            return at.astype(np.int64)
        worth = np.where(fits, gain / np.maximum(price, 1e-9), -1.0)
        row, rung = np.unravel_index(int(np.argmax(worth)), worth.shape)
        left -= price[row, rung]
        at[row] = rung


def _graded(outcomes: Outcomes, rows: Ints) -> Floats:
    ok = outcomes.status[rows] == STATUSES.index(OK)
    return np.where(ok, np.nan_to_num(outcomes.quality[rows]), 0.0)
