"""From what a study says to what it is made of: examples, program, metric, policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, EscaladeError
from escalade.evals.studies.references import beside, is_reference, resolve
from escalade.evals.studies.spec import SIMULATED
from escalade.registry.privacy.outlets import error_line

if TYPE_CHECKING:
    from escalade.agents.escalate import Escalate
    from escalade.evals.outcomes import Outcomes
    from escalade.evals.studies.grading import Metric
    from escalade.evals.studies.study import Study

__all__ = ["Opened", "examples_of", "metric_of", "opened", "policies_of", "program_of", "recorded_of"]


@dataclass(frozen=True)
class Opened:
    """What attempts are made of."""

    program: Escalate
    examples: list[Any]
    metric: Metric


def opened(study: Study) -> Opened:
    """Imports what the study names. Raises BadInput."""
    program = program_of(study)
    examples = examples_of(study, tuple(program.signature.input_fields))
    return Opened(program, examples, metric_of(study))


def program_of(study: Study) -> Escalate:
    """The program, or the ladder that is written down in its place. Raises BadInput."""
    from escalade.agents.escalate import Escalate

    if study.program is not None and study.rungs is not None:
        raise BadInput("program, rungs: expected one of them; `rungs` stands for a program")
    if study.rungs is not None:
        return study.rungs.built(study.folder, study.seed)
    found = study.program
    if isinstance(found, str):
        found = resolve(found, study.folder, "program")
    if not isinstance(found, Escalate) and callable(found):
        try:
            found = found()
        except EscaladeError:
            raise
        except Exception as error:
            raise BadInput(f"program: {study.program} raised {error_line(error)}") from error
    if not isinstance(found, Escalate):
        raise BadInput(f"program: expected an Escalate, or a function that makes one, got a {type(found).__name__}")
    return found


def examples_of(study: Study, inputs: Sequence[str]) -> list[Any]:
    """The examples, their inputs marked. Raises DataError, BadInput."""
    data, names = study.data, study.inputs
    if isinstance(data, str) and data.partition(":")[0] == SIMULATED:
        found = _simulated(data, study.seed)
    else:
        from escalade.evals.loading.examples import load_examples

        if isinstance(data, str) and not (study.folder / data).exists() and is_reference(data) and data[:5] != "dspy:":
            data = resolve(data, study.folder, "data")
            data = data() if callable(data) else data
        if isinstance(data, str | Path):
            data, names = (
                beside(study.folder, str(data)),
                names or (None if str(data)[:5] == "dspy:" else tuple(inputs)),
            )
        found = load_examples(data, inputs=names)
    if study.split is not None:
        found = _side(study, found)
    return found[: study.limit]


def recorded_of(study: Study) -> Outcomes:
    """The outcomes that a study without a program replays. Raises DataError, BadInput."""
    from escalade.evals.loaders import load_outcomes
    from escalade.evals.outcomes import Outcomes

    data = study.data
    if isinstance(data, str) and not (study.folder / data).exists() and _importable(data):
        data = resolve(data, study.folder, "data")
    if isinstance(data, Outcomes):
        return data
    if not isinstance(data, str | Path):
        raise BadInput("program: a study of examples needs a program, or rungs, and a metric")
    return load_outcomes(beside(study.folder, str(data)), limit=study.limit)


def metric_of(study: Study) -> Metric:
    """The metric: a function, a reference to one, or the name of a grader. Raises BadInput."""
    metric = study.metric
    if metric is None:
        raise BadInput("metric: expected module:name of a function (example, prediction) -> 0..1, or a grader's name")
    if isinstance(metric, str):
        if metric == SIMULATED:
            from escalade.agents.world import World

            return World(seed=study.seed).metric
        metric = resolve(metric, study.folder, "metric") if is_reference(metric) else _grader(metric)
    if not callable(metric):
        raise BadInput(f"metric: expected a function of an example and a prediction, got {metric!r}")
    found: Metric = metric
    return found


def policies_of(study: Study) -> list[Any] | None:
    """Names as they are, references resolved; None for the default line-up. Raises BadInput."""
    if study.policies is None:
        return None
    return [
        resolve(one, study.folder, "policies") if isinstance(one, str) and is_reference(one) else one
        for one in study.policies
    ]


def _grader(name: str) -> Any:
    from escalade.evals.checking.graders import grader

    return grader(name)


def _importable(data: str) -> bool:
    """Is it a reference, and not LOADER:PATH?"""
    from escalade.evals.loaders import NAMED

    return is_reference(data) and data.partition(":")[0] not in NAMED


def _simulated(data: str, seed: int) -> list[Any]:
    from escalade.agents.world import World

    count = data.partition(":")[2]
    if not count.isdecimal() or not int(count):
        raise BadInput(f"data: write simulated:200 for 200 questions, got {data!r}")
    return World(seed=seed).task(int(count), seed=seed)


def _side(study: Study, examples: list[Any]) -> list[Any]:
    """One side of the split."""
    from escalade.evals.loading.splits import split

    assert study.split is not None  # noqa: S101 - asked before
    sides = split(examples, study.split.test, seed=study.split.seed, by=study.group or "group")
    return [examples[i] for i in getattr(sides, study.split.use).tolist()]
