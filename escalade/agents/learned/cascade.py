"""CascadeRouting: any rung next, in any order, as long as what it is expected to add is worth its price.

Source: Dekoninck, Baader & Vechev 2025, "A Unified Approach to Routing and Cascading for LLMs", ICML, arXiv 2410.10347.
Routing chooses one model beforehand, a cascade goes through them in a fixed order; both are special cases of this:
after each attempt, of all sets of rungs that contain those tried, find the one with the best

    expected quality of the best answer in it  -  price of what it adds / worth of a right answer

If it adds nothing, stop with the best answer so far; else try the cheapest rung that it adds, and look again. Quality
is estimated ex ante (from the question, and what the others answered) and post hoc (from the answer itself and who
agrees with it). An estimate is a normal variable, whose spread is that of what is still to be learned about it; the
expected maximum of several is Clark's (1961, Operations Research 9:145).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar, Self

from escalade.agents._saving import Saved, register, register_policy
from escalade.agents.climb import Decision, Stop, View, best_attempt
from escalade.agents.learned.facts import facts_of
from escalade.agents.learned.linear import Linear, fit_linear
from escalade.agents.learned.seen import largest, same
from escalade.agents.learned.table import Table, after, graded, rows_of
from escalade.agents.policies import RungRef, escalate_to, rung_index
from escalade.errors import BadInput
from escalade.money import NANO

MOST = 6
"""Rungs at most: all sets of them are looked at."""

_NORMAL = NormalDist()


@register
@dataclass(frozen=True, slots=True)
class Judge(Saved):
    """Estimates of one rung's quality.

    `before`: not tried yet. `after`: it has answered. `spread`: standard deviation of the one around the other.
    """

    kind: ClassVar[str] = "judge"
    noun: ClassVar[str] = "model"
    before: Linear
    after: Linear
    spread: float


@register_policy
@dataclass(frozen=True, slots=True)
class CascadeRouting(Saved):
    """Tries whatever rung is worth it next, and answers with the attempt that is most likely right.

    `rungs`: those that it may try, 6 at most, with a judge each. `worth`: dollars that a right answer is worth: one
    point of quality (0.01) is bought at a hundredth of it. A rung of unknown price is never tried. Raises BadInput.
    """

    kind: ClassVar[str] = "cascade-routing"
    rungs: tuple[RungRef, ...]
    judges: tuple[Judge, ...]
    worth: float
    name: str = "cascade-routing"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rungs", tuple(self.rungs))
        _check_rungs(self.rungs)
        if len(self.judges) != len(self.rungs):
            raise BadInput(
                f"cascade routing has a judge for each of its {len(self.rungs)} rungs, not {len(self.judges)}"
            )
        if not self.worth > 0:
            raise BadInput(f"a right answer is worth more than nothing, not {self.worth!r} dollars")

    @classmethod
    def fit(
        cls,
        table: Table,
        rungs: Sequence[RungRef],
        worth: float,
        *,
        rows: Sequence[int] | None = None,
        name: str = "cascade-routing",
    ) -> Self:
        """Fit the judges on these rows (None is all). Raises DataError for too few rows, BadInput."""
        known = tuple(rung_index(table.rungs, rung) for rung in rungs)
        _check_rungs(known)
        at = rows_of(table, rows)
        judges = tuple(_judge(table, at, known, rung) for rung in known)
        return cls(tuple(rungs), judges, worth, name)

    def decide(self, view: View) -> Decision:
        rungs = [rung_index(view.rungs, rung) for rung in self.rungs]
        question = facts_of(view.features)
        quality = dict(zip(rungs, self._estimates(view, rungs, question), strict=True))
        good = [rung for rung in rungs if (tried := view.tried(rung)) is not None and tried.ok]
        best = max(good, key=lambda rung: quality[rung][0], default=None)
        answer = best_attempt(view.attempts) if best is None else [a.rung for a in view.attempts].index(best)
        now = 0.0 if best is None else quality[best][0]
        added, value = self._best_set(view, quality, now)
        if not added:
            told = "nothing that fits is worth its price" if view.attempts else "no rung has a price that fits"
            return Stop(answer, f"quality {now:.3f} at hand; {told}")
        cheapest = min(added, key=lambda rung: (view.prices[rung] or 0, rung))
        return escalate_to(
            view, cheapest, f"quality {now:.3f} at hand, worth {value:+.3f} more after its price", answer
        )

    def _estimates(self, view: View, rungs: list[int], question: list[float]) -> Iterator[tuple[float, float]]:
        """(expected quality, spread) of each rung; what was tried has no spread left."""
        for judge, rung in zip(self.judges, rungs, strict=True):
            facts = question + _around(view, rungs, rung)
            if (tried := view.tried(rung)) is None:
                mean = _chance(judge.before(facts))
                yield mean, min(judge.spread, math.sqrt(mean * (1 - mean)))  # more no probability can have
            else:
                yield (_chance(judge.after(facts)) if tried.ok else 0.0), 0.0

    def _best_set(
        self, view: View, quality: dict[int, tuple[float, float]], now: float
    ) -> tuple[tuple[int, ...], float]:
        """(the rungs to add, what they are worth after their price), ((), 0) where nothing is worth it."""
        prices = view.prices
        left = [r for r in quality if view.tried(r) is None and prices[r] is not None and view.fits(r)]
        best: tuple[tuple[int, ...], float] = ((), 0.0)
        for size in range(1, len(left) + 1):
            for added in itertools.combinations(left, size):
                price = sum(prices[r] or 0 for r in added) / NANO / self.worth
                value = expected_maximum([(now, 0.0), *(quality[r] for r in added)]) - now - price
                if value > best[1] or (not view.attempts and not best[0]):
                    best = added, value
        return best


def _check_rungs(rungs: Sequence[RungRef]) -> None:
    if not 1 <= len(rungs) <= MOST or len(set(rungs)) < len(rungs):
        raise BadInput(f"cascade routing chooses among 1 to {MOST} rungs, each of them once, not {rungs!r}")


def expected_maximum(normals: Sequence[tuple[float, float]]) -> float:
    """Expected maximum of independent normals (mean, standard deviation), by Clark's moments, one after the other."""
    mean, spread = normals[0]
    for other, its in normals[1:]:
        width = math.hypot(spread, its)
        if width <= 0:
            mean = max(mean, other)
            continue
        a = (mean - other) / width
        chance, density = _NORMAL.cdf(a), math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
        first = mean * chance + other * (1 - chance) + width * density
        second = (mean**2 + spread**2) * chance + (other**2 + its**2) * (1 - chance) + (mean + other) * width * density
        mean, spread = first, math.sqrt(max(0.0, second - first * first))
    return mean


def _chance(value: float) -> float:
    return min(0.99, max(0.01, value))


def _around(view: View, rungs: Sequence[int], rung: int) -> list[float]:
    """What the attempts say about one rung's answer, given or to come; as many facts for any view."""
    own = view.tried(rung)
    others = [a for a in view.attempts if a.rung != rung and a.rung in rungs]
    most = largest(others) / max(1, len(others))
    sure = [a.confidence for a in others if not math.isnan(a.confidence)]
    failed = sum(not a.ok for a in others)
    agree = [same(a, own) for a in others]
    confidence = 0.0 if own is None or math.isnan(own.confidence) else own.confidence
    form = (0.0,) * 4 if own is None or own.form is None else own.form
    each = [float(any(a.rung == r and same(a, own) for a in others)) for r in rungs]
    there = [float(any(a.rung == r and a.ok for a in others)) for r in rungs]
    crowd = [most if others else 0.5, max(sure, default=0.5), sum(sure) / len(sure) if sure else 0.5]
    return [
        float(len(others)),
        float(failed),
        *crowd,
        sum(agree) / max(1, len(agree)),
        confidence,
        *form,
        *each,
        *there,
    ]


def _judge(table: Table, at: list[int], rungs: tuple[int, ...], rung: int) -> Judge:
    """Fitted on the sets of others that were tried before it: none, all, and one that changes from row to row."""
    before, after_it, target, first = [], [], [], []
    others = [r for r in rungs if r != rung]
    sets = [s for size in range(len(others) + 1) for s in itertools.combinations(others, size)]
    for n, row in enumerate(at):
        question, right = facts_of(table.view(row).features), graded(table, row, rung)
        for tried in dict.fromkeys([(), tuple(others), sets[n % len(sets)]]):
            before.append(question + _around(after(table, row, tried), rungs, rung))
            after_it.append(question + _around(after(table, row, (*tried, rung)), rungs, rung))
            target.append(right)
            first.append(not tried)
    ante, _ = fit_linear(before, target)
    post, _ = fit_linear(after_it, target)
    apart = [post(b) - ante(a) for a, b, alone in zip(before, after_it, first, strict=True) if not alone]
    spread = math.sqrt(sum(d * d for d in apart) / max(1, len(apart))) if apart else 0.0
    return Judge(ante, post, spread)
