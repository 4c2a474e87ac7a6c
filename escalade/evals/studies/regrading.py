"""Grading what was recorded anew, for nothing: where the answers were kept."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dspy

from escalade.errors import DataError

if TYPE_CHECKING:
    from escalade.evals.studies.plan import Asked
    from escalade.evals.studies.recording import Metric
    from escalade.evals.studies.rundir import Lines, RunDir

__all__ = ["regrade"]


async def regrade(directory: RunDir, lines: Lines, metric: Metric, asked: Sequence[Asked], why: str) -> None:
    """Append each answer once more, with its new grade. Raises DataError where an answer wasn't kept.

    Nothing is appended before all are graded. What is asked again is the metric alone, never a model of the ladder.
    """
    import orjson

    examples = {one.key: one.example for one in asked}
    latest = {(line["key"], line["of"], line["epoch"]): line for line in directory.lines()}
    right = [line for line in latest.values() if line["status"] == "ok" and line["key"] in examples]
    if lost := sum("outputs" not in line for line in right):
        raise DataError(
            f"{directory.path}: {why}, and {lost:,} of {len(right):,} answers weren't kept to be graded anew; undo "
            f"that, or run the study in another directory (`texts: true` keeps answers)"
        )
    graded: list[bytes] = []
    for line in right:
        said: Any = metric(examples[line["key"]], dspy.Prediction(**line["outputs"]))
        quality = float(await said if inspect.isawaitable(said) else said)
        graded.append(orjson.dumps({**line, "quality": quality, "regraded": True}) + b"\n")
    for one in graded:
        lines.add(one)
    lines.sync()
