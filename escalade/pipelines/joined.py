"""What a fan-out, a map or a race returns: a Prediction that also knows how each branch ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy

from escalade.errors import BadInput
from escalade.pipelines._told import told
from escalade.pipelines.joins import BranchStatus

OK = BranchStatus("ok")


class Joined(dspy.Prediction):
    """The results by branch. How they came about is no field: neither saved, nor shown to a model."""

    _statuses: Mapping[Any, BranchStatus] | None = None
    _winner: str | None = None
    _count: int | None = None

    @property
    def statuses(self) -> Mapping[Any, BranchStatus]:
        """How each branch ended, by name, or by index for the items of a map. Where all had to end well and nobody
        measured, that is all that they say.
        """
        if self._statuses is not None:
            return self._statuses
        return dict.fromkeys(self.keys() if self._count is None else range(self._count), OK)

    @property
    def missing(self) -> dict[Any, BranchStatus]:
        """The branches without a result, and why there is none."""
        return {name: status for name, status in self.statuses.items() if not status.ok}

    @property
    def winner(self) -> str:
        """Which branch of a `Race` this is the result of."""
        if self._winner is None:
            raise BadInput("only the result of a Race has a winner")
        return self._winner


def joined(result: dspy.Prediction, statuses: Mapping[Any, BranchStatus], winner: str | None = None) -> Joined:
    """A Prediction as it is, of its own class too, that knows how it came about."""
    return told(Joined, result, _statuses=statuses, _winner=winner)
