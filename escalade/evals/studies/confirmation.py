"""What a live run says about the promise of a replay: a verdict for quality and for cost, and what differs most."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from escalade.evals.studies.promise import (
    CONFIRMED,
    INSIDE,
    OUTSIDE,
    TOO_FEW,
    UNKNOWN,
    Promise,
    figure,
    in_print,
    interval,
)
from escalade.evals.tables import Column, Table
from escalade.money import NANO, Money

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["CONFIRMED", "INSIDE", "OUTSIDE", "TOO_FEW", "UNKNOWN", "Cause", "Confirmation", "Promise"]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why live differs from the replay. `share`: of the questions. `quality`, `cost`: what it adds to the mean
    differences, in 0..1 and dollars per question; None for what acts through the others. `said`: in one sentence.
    """

    name: str
    share: float
    quality: float | None
    cost: float | None
    said: str


@dataclass(frozen=True)
class Confirmation:
    """What a live run of a policy says of its replay. Print it with `show`.

    `n`: questions that were answered live; `owed`: those that were not asked. `early`: it ended because it was decided.
    `errors`: without an answer, live and replayed. `spent`: dollars of this run; `before`: of earlier ones of the same
    directory. `causes`: what makes the difference, the largest first. `notes`: one line each. `few`: why these are too
    few questions for a verdict, "" where they aren't.
    """

    policy: str
    dataset: str
    n: int
    owed: int
    seed: int
    quality: Promise
    cost: Promise
    errors: tuple[int, int]
    spent: Money
    before: Money = field(default_factory=lambda: Money(0))
    early: bool = False
    peeking: bool = False
    causes: tuple[Cause, ...] = ()
    notes: tuple[str, ...] = field(default=())
    few: str = ""

    @property
    def holds(self) -> bool | None:
        """Does the promise hold? False where quality or cost is outside of its interval; None where these questions are
        too few to tell: fewer than intervals are shown to hold for, or an interval that is wider than the margin. A
        cost that nobody knows is no promise.
        """
        verdicts = {self.quality.verdict, self.cost.verdict}
        if OUTSIDE in verdicts:
            return False
        return True if self.quality.verdict == CONFIRMED and verdicts <= {CONFIRMED, UNKNOWN} else None

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        quality, cost = _said(self.quality), _said(self.cost)
        first = f"{self.policy}, live on {self.n:,} questions: {quality}; {cost}."
        if self.holds is None:
            wide = "an interval is wider than the margin, and more questions make it narrower"
            return f"{first} Too few to tell whether it holds: {self.few or wide}."
        return first if self.holds or not self.causes else f"{first} Most of it: {self.causes[0].said}."

    def table(self) -> Table:
        """Promised and live, as every report shows it."""
        rows = [
            {
                "what": promise.what,
                **{
                    name: in_print(promise, getattr(promise, name))
                    for name in ("replayed", "live", "low", "high", "diff", "diff_low", "diff_high")
                },
                "verdict": promise.verdict,
            }
            for promise in (self.quality, self.cost)
        ]
        columns = (
            Column("what", "", "text", "quality in percent points of 0..100, cost in dollars per 1,000 questions"),
            Column("replayed", "replayed", "figure", "mean over the questions that were asked live", "low", "high"),
            Column("live", "live", "figure", "mean of the live climbs over the same questions"),
            Column("diff", "difference", "figure", "mean of live - replayed by question", "diff_low", "diff_high"),
            Column(
                "verdict",
                "",
                "text",
                "confirmed: in the interval, and that is within the margin; too few: no interval holds",
            ),
        )
        return Table.of("live", f"{self.policy}: replay and live", columns, rows, about=self.sentence, notes=self.notes)

    def to_json(self) -> dict[str, Any]:
        """As one JSON object; dollars as floats."""
        return {
            "policy": self.policy,
            "dataset": self.dataset,
            "n": self.n,
            "owed": self.owed,
            "seed": self.seed,
            "holds": self.holds,
            "too_few": self.few,
            "early": self.early,
            "peeking": self.peeking,
            **{p.what: _json(asdict(p) | _more(p)) for p in (self.quality, self.cost)},
            "errors": {"live": self.errors[0], "replayed": self.errors[1]},
            "spent_usd": int(self.spent) / NANO,
            "spent_before_usd": int(self.before) / NANO,
            "causes": [_json(asdict(cause)) for cause in self.causes],
            "sentence": self.sentence,
            "notes": list(self.notes),
        }

    def show(self, console: Console | None = None) -> None:
        """Print it, as `escalade confirm` does."""
        from escalade.evals.studies._live_view import show

        show(self, console)


def _more(promise: Promise) -> dict[str, Any]:
    return {"low": promise.low, "high": promise.high, "verdict": promise.verdict}


def _json(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(float(value), 12) if math.isfinite(value) else None


def _said(promise: Promise) -> str:
    if promise.verdict == UNKNOWN:
        return f"{promise.what} can't be told"
    live = figure(promise, promise.live)
    if promise.verdict == TOO_FEW:
        return f"{promise.what} {live}, replayed {figure(promise, promise.replayed)}"
    where = "outside of" if promise.verdict == OUTSIDE else "in"
    wide = ", which is wider than the margin" if promise.verdict == INSIDE else ""
    return f"{promise.what} {live}, {where} the interval of the replay ({interval(promise)}){wide}"
