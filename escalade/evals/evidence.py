"""What a comparison rests on: the outcomes, the policies, and what each of them did on every question.

Every further table, check and picture is made from it (`findings.py`), so that all of them speak of the same replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.policies import Constant
from escalade.errors import UnknownName
from escalade.evals.inference import clustered
from escalade.evals.inference.units import Questions, questions_of
from escalade.evals.outcomes import UNKNOWN
from escalade.evals.replay import replay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals._play import Played
    from escalade.evals.lineup import Entry, Lineup
    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]

__all__ = ["Evidence"]


@dataclass(frozen=True)
class Evidence:
    """`played`: by the name of the policy, in the order of `entries`. `baseline`: the name of one of them. `built`:
    what rooms have found in it already, by their builders (`findings.py`).
    """

    lineup: Lineup
    entries: tuple[Entry, ...]
    played: Mapping[str, Played]
    baseline: str
    folds: int
    built: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

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

    @cached_property
    def constants(self) -> tuple[tuple[Floats, Floats], ...]:
        """Of each rung alone, (n,) of each question: quality, and nano-dollars, nan where unknown."""
        alone = [replay(Constant(rung), self.outcomes) for rung in range(self.outcomes.k)]
        mean = self.questions.mean
        return tuple((mean(one.quality), mean(np.where(one.cost == UNKNOWN, np.nan, one.cost))) for one in alone)

    def mix_at(self, cost: float) -> tuple[Floats, bool]:
        """(n,) quality of each question by a random mix, in expectation, of the cheap and the strongest rung that costs
        so many nano-dollars; and whether the strongest is the dearer one, so that there is anything to mix.

        What costs less than the cheap rung is held against a mix with the cheapest one: no other costs the same.
        """
        costs = [float(spent.mean()) for _, spent in self.constants]
        low, high = self.lineup.cheap, self.lineup.strong
        low = int(np.argmin(costs)) if cost < costs[low] else low
        gap = costs[high] - costs[low]
        share = min(1.0, max(0.0, (cost - costs[low]) / gap)) if gap > 0 else 0.0
        return (1.0 - share) * self.constants[low][0] + share * self.constants[high][0], gap > 0

    def entry(self, name: str) -> Entry:
        """Raises UnknownName."""
        found = next((entry for entry in self.entries if entry.name == name), None)
        if found is None:
            raise UnknownName("policy", name, [entry.name for entry in self.entries])
        return found
