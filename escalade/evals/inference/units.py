"""The units that are independent: rows of one key are epochs of one question, and questions may come in groups.

A difference is first averaged over the epochs of its question; what is left is one value per question, and questions of
one group (a document, a conversation) are counted as one cluster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from escalade.evals.outcomes import Outcomes

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

__all__ = ["Questions", "questions_of"]


@dataclass(frozen=True)
class Questions:
    """Which rows belong to which question, and which question to which group.

    `of`: (rows,) question of each row, 0..n-1 by first appearance. `group`: (n,) group of each question, 0..g-1; None
    where every question is a group of its own.
    """

    of: Ints
    group: Ints | None = None

    @property
    def n(self) -> int:
        """Distinct questions."""
        return int(self.of.max()) + 1 if len(self.of) else 0

    @property
    def clusters(self) -> int:
        """Independent units: groups where there are some, else questions."""
        return self.n if self.group is None else int(self.group.max()) + 1

    @property
    def repeated(self) -> bool:
        """Has any question more than one row?"""
        return self.n < len(self.of)

    def mean(self, column: NDArray[np.float64] | NDArray[np.bool_]) -> Floats:
        """(n,) mean of each question over its rows; the column itself where each question has one."""
        values = np.asarray(column, dtype=np.float64)
        if values.shape != self.of.shape:
            raise BadInput(f"a column of {len(self.of)} rows is expected, not one of shape {values.shape}")
        if not self.repeated:
            return values
        return np.bincount(self.of, weights=values) / np.bincount(self.of)

    def average(self, column: NDArray[np.float64] | NDArray[np.int64]) -> float:
        """Of all questions, each counting once however often it was asked; nan without any."""
        return float(self.mean(column.astype(np.float64)).mean()) if self.n else math.nan


def questions_of(outcomes: Outcomes) -> Questions:
    """Raises BadInput where rows of one key are in different groups."""
    of = _codes(outcomes.keys)
    if outcomes.group is None:
        return Questions(of)
    group = _codes(outcomes.group)
    first = np.unique(of, return_index=True)[1]
    mixed = np.flatnonzero(group != group[first][of])
    if len(mixed):
        key = outcomes.keys[int(mixed[0])]
        raise BadInput(f"question {key!r} is in two groups; rows of one key are one question and have one group")
    each = group[first]
    return Questions(of, None if int(each.max(initial=-1)) + 1 == len(each) else each)


def _codes(names: Sequence[str]) -> Ints:
    """Codes 0, 1, ... in the order of first appearance."""
    seen: dict[str, int] = {}
    return np.fromiter((seen.setdefault(name, len(seen)) for name in names), dtype=np.int64, count=len(names))
