"""Recording: every rung on every question, live, into a table that any policy can be replayed on for nothing.

    outcomes = record(qa, examples, metric)          # pays for n * k attempts, in the current scope
    replay(Threshold(0.8), outcomes)                 # pays for none

What a policy will see in the replay (price bounds, features, key) is taken from `Escalate.view`, as it sees it live.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.cache.kinds import uncached
from escalade.agents.climb import REFUSED, Attempt, View
from escalade.agents.forms import Form
from escalade.errors import BadInput, BudgetExceeded, DataError, PermissionDenied
from escalade.evals._codes import fact_column
from escalade.evals.outcomes import NO_ANSWER, STATUSES, UNKNOWN, Outcomes
from escalade.scopes import require

if TYPE_CHECKING:
    from escalade.agents.escalate import Escalate

_NO_FORM = (math.nan,) * len(Form._fields)

Metric = Callable[[Any, Any], float]
"""(example, prediction) -> 0..1, as DSPy's metrics."""


def record(program: Escalate, examples: Sequence[Any], metric: Metric, *, name: str = "recorded") -> Outcomes:
    """Try every rung of `program` on every example and keep the figures.

    `examples`: `dspy.Example`s with their inputs marked. Runs in the current scope, which pays. Each question is graded
    before the next one is asked: a metric with a mistake is found for the price of one. Raises DataError
    without examples, BudgetExceeded when the budget ends before the table is full, PermissionDenied for a rung that may
    not be used: a table with holes would be wrong.
    """
    if not examples:
        raise DataError("no examples to record")
    if not callable(metric):
        raise BadInput(f"metric: expected a function of an example and a prediction, got {metric!r}")
    if wrong := [one for one in examples if not hasattr(one, "inputs")]:
        raise DataError(f"expected dspy.Examples with their inputs marked, got {wrong[0]!r}")
    views: list[View] = []
    table: list[list[Attempt]] = []
    quality: list[list[float]] = []
    for example in examples:
        inputs = dict(example.inputs().items())
        views.append(program.view(**inputs))
        with uncached():  # what was paid for before would be recorded as free
            table.append([_tried(program, rung, inputs) for rung in range(len(program.rungs))])
        quality.append([_graded(metric, example, attempt) for attempt in table[-1]])
    return Outcomes(
        name=name,
        rungs=program.rungs,
        keys=tuple(view.key for view in views),
        features={f: _column(f, [view.features[f] for view in views]) for f in views[0].features},
        quality=np.array(quality, dtype=np.float64),
        answer=np.array([_codes([a.answer if a.ok else None for a in row]) for row in table], dtype=np.int64),
        confidence=np.array([[a.confidence for a in row] for row in table], dtype=np.float64),
        cost=np.array([[a.cost for a in row] for row in table], dtype=np.int64),
        price=np.array([_or_unknown(view.prices) for view in views], dtype=np.int64),
        ceiling=np.array([_or_unknown(view.ceilings) for view in views], dtype=np.int64),
        latency=np.array([[a.latency for a in row] for row in table], dtype=np.float64),
        status=np.array([[STATUSES.index(a.status) for a in row] for row in table], dtype=np.int8),
        labels="metric",
        form=np.array([[a.form or _NO_FORM for a in row] for row in table], dtype=np.float64),
    )


def _column(name: str, facts: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Facts of one name, one for each question. Raises DataError for lists and the like."""
    wrong = next((fact for fact in facts if not isinstance(fact, str | int | float | bool | np.generic)), None)
    if wrong is not None:
        raise DataError(f"the feature {name!r} is {wrong!r} somewhere; recorded are numbers, texts and truth values")
    return fact_column(facts)


def _tried(program: Escalate, rung: int, inputs: dict[str, Any]) -> Attempt:
    """One attempt. Its cost is UNKNOWN where it used something that has no price."""
    scope = require("recording")
    unpriced = scope.unpriced
    attempt = program.attempt_sync(rung, **inputs)
    if attempt.status == REFUSED and isinstance(attempt.error, BudgetExceeded | PermissionDenied):
        raise attempt.error
    return attempt if scope.unpriced == unpriced else replace(attempt, cost=UNKNOWN)


def _graded(metric: Metric, example: Any, attempt: Attempt) -> float:
    return float(metric(example, attempt.result)) if attempt.ok else 0.0


def _codes(answers: Sequence[Hashable | None]) -> list[int]:
    """Equal answers get equal codes within one question; None and nan, which equals nothing, get NO_ANSWER."""
    seen: dict[Hashable, int] = {}
    return [NO_ANSWER if a is None or _is_nan(a) else seen.setdefault(a, len(seen)) for a in answers]


def _is_nan(answer: object) -> bool:
    return isinstance(answer, float) and math.isnan(answer)


def _or_unknown(amounts: Sequence[int | None]) -> list[int]:
    return [UNKNOWN if amount is None else amount for amount in amounts]
