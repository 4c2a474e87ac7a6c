"""Recording: every rung on every question, live, into a table that any policy can be replayed on for nothing.

    outcomes = record(qa, examples, metric)                 # pays for n * k attempts, in the current scope
    outcomes = record(qa, examples, metric, dir="runs/qa")  # the same, and what was paid for is never paid for again
    replay(Threshold(0.8), outcomes)                        # pays for none

What a policy will see in the replay (price bounds, features, key) is taken from `Escalate.view`, as it sees it live.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.forms import Form
from escalade.errors import BadInput, BudgetExceeded, DataError
from escalade.evals._codes import fact_column
from escalade.evals.outcomes import NO_ANSWER, STATUSES, UNKNOWN, Outcomes
from escalade.evals.studies.grading import Metric
from escalade.evals.studies.identity import rung_facts
from escalade.evals.studies.plan import Asked, Unit, asked_of, in_order
from escalade.evals.studies.recording import CONCURRENCY, Recorded, Recording
from escalade.pipelines._bridge import run_sync
from escalade.scopes import require

if TYPE_CHECKING:
    from escalade.agents.escalate import Escalate

__all__ = ["Metric", "record"]

_NO_FORM = (math.nan,) * len(Form._fields)


def record(
    program: Escalate,
    examples: Sequence[Any],
    metric: Metric,
    *,
    name: str = "recorded",
    epochs: int = 1,
    concurrency: int = CONCURRENCY,
    dir: str | PathLike[str] | None = None,  # noqa: A002 - as `Study.run` and the command have it
) -> Outcomes:
    """Try every rung of `program` on every example and keep the figures.

    `examples`: `dspy.Example`s with their inputs marked. Runs in the current scope, which pays; no cache answers. The
    first answer is graded before others are asked for, and the first question before the second: a metric with a
    mistake is found for the price of one. `epochs`: how often each question is asked, a row each. `concurrency`:
    attempts at once. `dir`: a run directory, in which a recording that was broken off goes on where it stopped (there,
    examples with the same inputs are one question). Raises DataError without examples, BudgetExceeded when the budget
    ends before the table is full, PermissionDenied for a rung that may not be used: a table with holes would be wrong.
    """
    if not callable(metric):
        raise BadInput(f"metric: expected a function of an example and a prediction, got {metric!r}")
    if not isinstance(epochs, int) or epochs < 1:
        raise BadInput(f"epochs: expected 1 or more, got {epochs!r}")
    if dir is not None:
        return _kept(program, examples, metric, Path(dir), name=name, epochs=epochs, concurrency=concurrency)
    require("recording")
    asked = asked_of(program, examples)
    units = list(in_order(asked, len(program.rungs), epochs))
    made: dict[Unit, Recorded] = {}
    recording = Recording(
        program,
        metric,
        asked,
        lambda one: made.update({one.unit: one}),
        digests=[""] * len(program.rungs),
        concurrency=concurrency,
        cached=False,  # what was paid for before would be recorded as free
    )
    refusal = run_sync(lambda: recording.fill(units))
    if refusal is not None:
        raise refusal
    k = len(program.rungs)
    rows = [[made[unit] for unit in units[at : at + k]] for at in range(0, len(units), k)]
    return _outcomes(program, name, [asked[row[0].unit.question] for row in rows], rows)


def _kept(
    program: Escalate, examples: Sequence[Any], metric: Metric, path: Path, *, name: str, epochs: int, concurrency: int
) -> Outcomes:
    """As `record`, in a run directory."""
    from escalade.evals.studies.running import run
    from escalade.evals.studies.study import Study

    require("recording")
    said: Mapping[str, Any] = {"data": list(examples), "metric": metric, "program": program}
    study = Study.of({**said, "name": name, "epochs": epochs, "concurrency": concurrency}, "record")
    found = run_sync(lambda: run(study, path, cached=False, compares=False))
    if found.owed or found.outcomes is None:
        raise BudgetExceeded(f"{found.owed} of {found.done + found.owed} attempts are owed in {path}: {found.why}")
    return found.outcomes


def _outcomes(program: Escalate, name: str, asked: Sequence[Asked], table: Sequence[Sequence[Recorded]]) -> Outcomes:
    attempts, views = [[one.attempt for one in row] for row in table], [one.view for one in asked]
    return Outcomes(
        name=name,
        rungs=program.rungs,
        keys=tuple(view.key for view in views),
        features={f: _column(f, [view.features[f] for view in views]) for f in views[0].features},
        quality=np.array([[one.quality for one in row] for row in table], dtype=np.float64),
        answer=np.array([_codes([a.answer if a.ok else None for a in row]) for row in attempts], dtype=np.int64),
        confidence=np.array([[a.confidence for a in row] for row in attempts], dtype=np.float64),
        cost=np.array([[one.list_cost for one in row] for row in table], dtype=np.int64),
        price=np.array([_or_unknown(view.prices) for view in views], dtype=np.int64),
        ceiling=np.array([_or_unknown(view.ceilings) for view in views], dtype=np.int64),
        latency=np.array([[a.latency for a in row] for row in attempts], dtype=np.float64),
        status=np.array([[STATUSES.index(a.status) for a in row] for row in attempts], dtype=np.int8),
        labels="metric",
        form=np.array([[a.form or _NO_FORM for a in row] for row in attempts], dtype=np.float64),
        identity={rung.name: rung_facts(program, i) for i, rung in enumerate(program.rungs)},
        responders={
            rung.name: tuple(sorted({row[i].line.model or "" for row in table} - {""}))
            for i, rung in enumerate(program.rungs)
        },
    )


def _column(name: str, facts: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Facts of one name, one for each question. Raises DataError for lists and the like."""
    wrong = next((fact for fact in facts if not isinstance(fact, str | int | float | bool | np.generic)), None)
    if wrong is not None:
        raise DataError(f"the feature {name!r} is {wrong!r} somewhere; recorded are numbers, texts and truth values")
    return fact_column(facts)


def _codes(answers: Sequence[Hashable | None]) -> list[int]:
    """Equal answers get equal codes within one question; None and nan, which equals nothing, get NO_ANSWER."""
    seen: dict[Hashable, int] = {}
    return [NO_ANSWER if a is None or _is_nan(a) else seen.setdefault(a, len(seen)) for a in answers]


def _is_nan(answer: object) -> bool:
    return isinstance(answer, float) and math.isnan(answer)


def _or_unknown(amounts: Sequence[int | None]) -> list[int]:
    return [UNKNOWN if amount is None else amount for amount in amounts]
