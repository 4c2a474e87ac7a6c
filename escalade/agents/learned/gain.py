"""Gain: a pre-router that learned what the strong rung adds.

It is fitted on the gain, quality of the strong answer less quality of the weak one, and not on whether the weak one is
wrong: a question that both get wrong is no reason to pay for the strong rung. (RouteLLM's routers estimate the chance
that the strong model wins: Ong et al. 2024, arXiv 2406.18665.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from escalade.agents._saving import Saved, register_policy
from escalade.agents.climb import Decision, View
from escalade.agents.learned._routing import routed
from escalade.agents.learned.cuts import aimed
from escalade.agents.learned.facts import facts_of, words_of
from escalade.agents.learned.linear import Linear, fit_linear
from escalade.agents.learned.table import Table, graded, rows_of
from escalade.agents.policies import RungRef, rung_index
from escalade.errors import BadInput

WORDS = 512
"""Buckets of words."""


@register_policy
@dataclass(frozen=True, slots=True)
class Gain(Saved):
    """The rung `high` where the question promises a gain of `threshold` or more by it, else the rung `low`.

    `model`: predicts the gain, in -1..1, from facts about the question and its words. A `high` that doesn't fit the
    budget is replaced by `low`; a `low` that gives no answer is followed by `high`.
    """

    kind: ClassVar[str] = "gain"
    model: Linear
    low: RungRef
    high: RungRef
    threshold: float
    name: str = "gain"

    @classmethod
    def fit(
        cls,
        table: Table,
        low: RungRef,
        high: RungRef,
        *,
        rows: Sequence[int] | None = None,
        margin: float | None = None,
        share: float | None = None,
        words: int = WORDS,
        name: str = "gain",
    ) -> Self:
        """Fit the model and its threshold on these rows (None is all).

        `margin`, `share`: as in `cuts.Aim`, a margin of 0.02 by default; the threshold is set on predictions for rows
        that were left out. `words`: buckets of words, 0 for none. Raises DataError for too few rows, BadInput.
        """
        at = rows_of(table, rows)
        views = [table.view(i) for i in at]
        gain = gains(table, at, low, high)
        known = any("text" in view.features for view in views)
        size = words if known else 0
        facts = [facts_of(view.features) for view in views]
        model, left_out = fit_linear(facts, gain, [words_of(v.features, size) for v in views] if size else (), size)
        return cls(model, low, high, aimed(margin, share).threshold(left_out, gain), name)

    def score(self, view: View) -> float:
        """The gain that it expects by `high`."""
        words = self.model.words
        return self.model(facts_of(view.features), words_of(view.features, len(words)) if words else None)

    def decide(self, view: View) -> Decision:
        low, high = rung_index(view.rungs, self.low), rung_index(view.rungs, self.high)
        score = 0.0 if view.attempts else self.score(view)
        return routed(view, low, high, score, self.threshold, "expected gain")


def gains(table: Table, rows: Sequence[int], low: RungRef, high: RungRef) -> list[Any]:
    """Quality of the strong rung's answer less that of the weak one's, -1..1, for each row. Raises
    BadInput where they are one rung.
    """
    weak, strong = rung_index(table.rungs, low), rung_index(table.rungs, high)
    if weak == strong:
        raise BadInput(f"expected two different rungs, a weak one and a strong one, got {low!r} and {high!r}")
    return [graded(table, i, strong) - graded(table, i, weak) for i in rows]
