"""AnswerInView: the cheap rungs answer first, and what they said tells what the strong rung would add.

The strongest sign is whether cheap answers agree (Yue et al. 2023, arXiv 2310.03094); how sure they are, the form of
the answer and the question itself add to it. What is predicted is the gain, as by `gain.Gain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from escalade.agents._saving import Saved, register_policy
from escalade.agents.climb import Decision, Stop, View, best_attempt
from escalade.agents.learned.cuts import aimed
from escalade.agents.learned.facts import facts_of
from escalade.agents.learned.gain import gains
from escalade.agents.learned.linear import Linear, fit_linear
from escalade.agents.learned.seen import seen_of
from escalade.agents.learned.table import Table, after, rows_of
from escalade.agents.policies import RungRef, escalate_to, rung_index
from escalade.errors import BadInput


@register_policy
@dataclass(frozen=True, slots=True)
class AnswerInView(Saved):
    """The `members` answer one after the other; rung `then` answers where that promises `threshold` or more.

    The last member's answer is the one at hand, the others are its peers. `model`: predicts what `then` gains on it,
    -1..1. `question`: does the model look at the question, too? A failed last member escalates, whatever the
    threshold. The best attempt answers when `then` fails or doesn't fit the budget, or the ledger brakes. Raises
    BadInput.
    """

    kind: ClassVar[str] = "answer-in-view"
    model: Linear
    members: tuple[RungRef, ...]
    then: RungRef
    threshold: float
    question: bool = True
    name: str = "answer-in-view"

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        _check_members(self.members, self.then)

    @classmethod
    def fit(
        cls,
        table: Table,
        members: Sequence[RungRef],
        then: RungRef,
        *,
        rows: Sequence[int] | None = None,
        margin: float | None = None,
        share: float | None = None,
        question: bool | None = None,
        name: str = "answer-in-view",
    ) -> Self:
        """Fit the model and its threshold on these rows (None is all).

        `margin`, `share`: as in `cuts.Aim`, a margin of 0.02 by default; the threshold is set on predictions for rows
        that were left out. `question`: look at the question; None does if that predicts rows that were left out better.
        Raises DataError for too few rows, BadInput.
        """
        _check_members(members, then)
        at = rows_of(table, rows)
        tried = [rung_index(table.rungs, member) for member in members]
        views = [after(table, i, tried) for i in at]
        gain = gains(table, at, members[-1], then)
        asked = (False, True) if question is None else (question,)
        fits = [fit_linear([_facts(v, tried, question=q) for v in views], gain) for q in asked]
        errors = [sum((y - p) ** 2 for y, p in zip(gain, left_out.tolist(), strict=True)) for _, left_out in fits]
        best = errors.index(min(errors))
        model, left_out = fits[best]
        threshold = aimed(margin, share).threshold(left_out, gain)
        return cls(model, tuple(members), then, threshold, asked[best], name)

    def score(self, view: View) -> float:
        """The gain that it expects by `then`, after all members have been tried."""
        tried = [rung_index(view.rungs, member) for member in self.members]
        return self.model(_facts(view, tried, question=self.question))

    def decide(self, view: View) -> Decision:
        members = [rung_index(view.rungs, member) for member in self.members]
        then, best = rung_index(view.rungs, self.then), best_attempt(view.attempts)
        left = next((member for member in members if view.tried(member) is None), None)
        done = view.tried(then)
        if done is not None:
            return Stop(best, "escalated already")
        if left is not None:
            return escalate_to(view, left, f"answer {len(view.attempts) + 1} of {len(members)} to look at", best)
        last = view.tried(members[-1])
        if last is None or not last.ok:
            return escalate_to(view, then, f"{view.rungs[members[-1]].name} gave no answer", best)
        score = self.score(view)
        if score < self.threshold:
            return Stop(view.attempts.index(last), f"expected gain {score:+.3f} < {self.threshold:+.3f}")
        return escalate_to(
            view, then, f"expected gain {score:+.3f} >= {self.threshold:+.3f}", view.attempts.index(last)
        )


def _check_members(members: Sequence[RungRef], then: RungRef) -> None:
    if isinstance(members, str) or not members or then in members or len(set(members)) < len(members):
        raise BadInput(f"answers in view come from one or more different rungs other than {then!r}, not {members!r}")


def _facts(view: View, tried: Sequence[int], *, question: bool) -> list[float]:
    seen = seen_of(view, tried)
    return seen + facts_of(view.features) if question else seen
