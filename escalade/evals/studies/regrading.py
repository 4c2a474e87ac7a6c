"""Grading what was recorded anew, where the answers were kept; and by what each question was graded.

`grades.json` says that of every question that was ever asked in the directory, also of those that a limit or a split
leaves out now: when they come back, they are graded by the metric and the labels of then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dspy

from escalade.errors import DataError
from escalade.evals.studies.blocks import blocks
from escalade.evals.studies.grading import Grader
from escalade.evals.studies.rundir import QUESTIONS
from escalade.scopes import require

if TYPE_CHECKING:
    from escalade.evals.studies.changes import Grade
    from escalade.evals.studies.grading import Metric
    from escalade.evals.studies.plan import Asked
    from escalade.evals.studies.rundir import Lines, RunDir

__all__ = ["grades_of", "keep_grades", "regrade"]

GRADES = "grades.json"

_UNDECIDED = ("", "")
"""The grade of questions that were being graded anew when the process ended: no metric's."""


def grades_of(directory: RunDir, before: Mapping[str, Any]) -> dict[str, Grade]:
    """By question. `before`: the study as the directory has it."""
    known = directory.read(GRADES)
    if known is not None:
        return dict(known)
    metric = (before.get("metric") or {}).get("digest", "")
    return {row["key"]: (metric, row["labels"]) for rows in blocks(directory.path / QUESTIONS) for row in rows}


def keep_grades(directory: RunDir, grades: Mapping[str, Grade]) -> None:
    """For `grades_of`."""
    import orjson

    directory.put(GRADES, orjson.dumps(grades) + b"\n")


def undecided(grades: Mapping[str, Grade], keys: Collection[str]) -> dict[str, Grade]:
    """The same, but for these questions, which nobody has graded."""
    return {**grades, **dict.fromkeys(keys, _UNDECIDED)}


async def regrade(
    directory: RunDir, lines: Lines, metric: Metric, asked: Sequence[Asked], why: str, grades: Mapping[str, Grade]
) -> None:
    """Append each answer once more, with its new grade. Raises DataError where an answer wasn't kept.

    Nothing is appended before all are graded, nor before `grades`, those of all questions, say that these are being
    graded anew. What is asked again is the metric alone, never a model of the ladder; a metric that asks models pays,
    and `regrading` says how much.
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
    grader = Grader(metric)
    graded: list[bytes] = []
    for line in right:
        paid = require("grading").purse.spent
        quality = await grader.grade(examples[line["key"]], dspy.Prediction(**line["outputs"]))
        cost = require("grading").purse.spent - paid
        graded.append(orjson.dumps({**line, "quality": quality, "regraded": True, "regrading": cost}) + b"\n")
    keep_grades(directory, undecided(grades, examples))
    for one in graded:
        lines.add(one)
    lines.sync()
