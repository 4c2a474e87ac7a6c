"""What an attempt hangs on: two metrics or rungs that aren't the same are never taken for each other."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest

from escalade import Gateway
from escalade.evals.studies.identity import metric_digest, rung_facts
from escalade.registry.prices import Price
from tests.evals.studies.test_study import Bench


def closed(grade: float) -> Any:
    def metric(example, prediction):
        return grade

    return metric


def default(grade: float) -> Any:
    def metric(example, prediction, grade=grade):
        return grade

    return metric


def wrapped(grade: float) -> Any:
    inner = (lambda e, p: 0.0) if grade else (lambda e, p: 1.0)

    def metric(example, prediction):
        return inner(example, prediction)

    return metric


def compiled(grade: float) -> Any:
    names: dict[str, Any] = {}
    exec(f"def metric(example, prediction): return {grade}", names)  # noqa: S102 - a function without a source
    return names["metric"]


class Grader:
    def __init__(self, grade: float) -> None:
        self.grade, self.accepts, self._calls = grade, ("a", str(grade)), 0

    def __call__(self, example: Any, prediction: Any) -> float:
        self._calls += 1
        return self.grade


@pytest.mark.parametrize(
    "make",
    [closed, default, wrapped, compiled, Grader, lambda x: Grader(x).__call__, lambda x: partial(max, x)],
)
def test_another_metric_of_the_same_code(make):
    """What a metric closes over, defaults to or holds is part of it; made anew it is the same."""
    assert metric_digest(make(0.0)) != metric_digest(make(1.0))
    assert metric_digest(make(1.0)) == metric_digest(make(1.0))


def test_what_a_metric_counts_is_its_own_business():
    """A metric that has graded is the metric that it was."""
    grader = Grader(1.0)
    before = metric_digest(grader)
    grader(None, None)
    assert metric_digest(grader) == before


def test_two_aliases_of_one_model_are_two_rungs(tmp_path):
    """One model string at two prices, or at two providers: neither stands for the other."""
    bench = Bench(4)
    models = {model.name: model for model in bench.world.as_models()}
    twin = dataclasses.replace(models["small"], name="twin", price=Price.of("5", "20"))
    bench.gateway = Gateway([*models.values(), twin], name="twins")
    done = bench.study(program=bench.program([("Predict", "small"), ("Predict", "twin")])).run(tmp_path)
    assert (done.done, done.owed, bench.calls) == (8, 0, 8)
    assert (done.outcomes.cost[:, 1] == 50 * done.outcomes.cost[:, 0]).all()


def test_settings_are_written_down_without_secrets(tmp_path):
    """Headers, keys and passwords of a program's own settings stay out of the directory; what else is set is told."""
    bench = Bench(2)
    program = bench.program()
    secrets = {
        "extra_headers": {"Authorization": "Bearer hidden-1"},
        "extra_body": {"service_token": "hidden-2", "reasoning": {"api_key": "hidden-3", "effort": "low"}},
        "proxy": "http://me:hidden-4@proxy.example/",
    }
    before = rung_facts(program, 0)["settings"]
    for lm in program._lms:
        lm.kwargs |= secrets
    bench.study(program=program).run(tmp_path)
    whole = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"hidden" not in whole
    assert b"effort" in whole
    assert rung_facts(program, 0)["settings"] != before
