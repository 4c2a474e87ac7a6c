"""What a comparison rests on: the outcomes, the policies, and what each of them did on every question.

Every further table, check and picture is made from it (`findings.py`), so that all of them speak of the same replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from escalade.errors import UnknownName
from escalade.evals.inference import clustered
from escalade.evals.inference.units import Questions, questions_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from escalade.evals._play import Played
    from escalade.evals.lineup import Entry, Lineup
    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]

__all__ = ["Evidence"]


@dataclass(frozen=True)
class Evidence:
    """`played`: by the name of the policy, in the order of `entries`. `baseline`: the name of one of them."""

    lineup: Lineup
    entries: tuple[Entry, ...]
    played: Mapping[str, Played]
    baseline: str
    folds: int

    @property
    def outcomes(self) -> Outcomes:
        return self.lineup.outcomes

    @cached_property
    def questions(self) -> Questions:
        """Which rows are epochs of one question, and which questions come in groups."""
        return questions_of(self.outcomes)

    @property
    def seed(self) -> int:
        return self.lineup.seed

    @property
    def margin(self) -> float:
        return self.lineup.margin

    @property
    def base(self) -> Played:
        return self.played[self.baseline]

    def quality(self, name: str) -> Floats:
        """(n,) of each question: the mean of a policy over its rows."""
        return self.questions.mean(self.played[name].quality)

    def cost(self, name: str) -> Floats:
        """(n,) nano-dollars of each question, nan where unknown: the mean of a policy over its rows."""
        return self.questions.mean(self.played[name].cost)

    def change(self, name: str) -> clustered.Difference:
        """The paired difference of a policy's quality to the baseline's."""
        return clustered.difference(self.quality(name), self.quality(self.baseline), self.questions.group)

    def entry(self, name: str) -> Entry:
        """Raises UnknownName."""
        found = next((entry for entry in self.entries if entry.name == name), None)
        if found is None:
            raise UnknownName("policy", name, [entry.name for entry in self.entries])
        return found
