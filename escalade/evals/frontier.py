"""Which of several programs are worth having: quality and cost of each on the same examples.

    with escalade.scope(budget="1.00"):
        for point in frontier({"cheap": cheap, "tuned": tuned.program, "big": big}, devset, metric):
            print(point.name, point.quality.mean, point.cost.mean, point.on_frontier)

For policies on recorded outcomes, which cost nothing to try, `escalade.compare` does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from escalade.agents._attempts import ANSWERS_BADLY
from escalade.agents.cache.kinds import uncached
from escalade.errors import BudgetExceeded, DataError, UnknownPrice
from escalade.evals import curves
from escalade.evals.statistics import mean_interval
from escalade.evals.tuning import Figure
from escalade.scopes import Entered, require

__all__ = ["Point", "frontier"]


@dataclass(frozen=True)
class Point:
    """What one program came to: quality in 0..1 and cost in nano-dollars, per example; `errors`: examples without an
    answer, which count with quality 0 and with what they cost.
    """

    name: str
    quality: Figure
    cost: Figure
    errors: int
    on_frontier: bool


def frontier(
    programs: Mapping[str, dspy.Module], devset: Sequence[Any], metric: Callable[[Any, Any], Any]
) -> tuple[Point, ...]:
    """Run each program on each example, in the current scope and without a cache; the cheapest first.

    `on_frontier`: no other program is as good and cheaper, or as cheap and better. Raises DataError without examples or
    programs, UnknownPrice, and BudgetExceeded when the money ends: a program that it cut short can't be compared.
    """
    if not programs or not devset:
        raise DataError("a frontier takes at least one program and one example")
    ran = {name: [_ran(program, example, metric) for example in devset] for name, program in programs.items()}
    quality = {name: mean_interval([q for q, _, _ in rows]) for name, rows in ran.items()}
    cost = {name: mean_interval([float(c) for _, c, _ in rows]) for name, rows in ran.items()}
    on = curves.frontier([cost[name][0] for name in ran], [quality[name][0] for name in ran]).tolist()
    points = [
        Point(name, Figure(*quality[name]), Figure(*cost[name]), sum(failed for _, _, failed in rows), front)
        for (name, rows), front in zip(ran.items(), on, strict=True)
    ]
    return tuple(sorted(points, key=lambda point: point.cost.mean))


def _ran(program: dspy.Module, example: Any, metric: Callable[[Any, Any], Any]) -> tuple[float, int, bool]:
    """(quality, nano-dollars, did it fail)."""
    outer, quality, failed = require("frontier"), 0.0, False
    with uncached(), Entered(lambda: outer.narrow(name="frontier")) as account:
        try:
            prediction = program(**dict(example.inputs().items()))
        except BudgetExceeded:
            raise
        except ANSWERS_BADLY:
            failed = True
    if account.unpriced:
        raise UnknownPrice("a program used something without a known price: give its model a price")
    if not failed:
        graded = metric(example, prediction)
        quality = float(getattr(graded, "score", graded))
    return quality, account.spent, failed
