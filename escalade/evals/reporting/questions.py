"""The questions for the page: what each rung gave, and which course each policy took, as columns of small numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.evals._codes import STATUSES
from escalade.evals.outcomes import TEXT, UNKNOWN
from escalade.evals.reporting.courses import courses_of
from escalade.evals.reporting.pictures import first

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.compare import Comparison
    from escalade.evals.evidence import Evidence
    from escalade.evals.outcomes import Outcomes
    from escalade.evals.reporting.courses import Course

__all__ = ["LONGEST", "questions"]

LONGEST = 280
"""Letters of a question's text."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_HOLE = "\x00"


def questions(comparison: Comparison, evidence: Evidence, *, texts: bool = True) -> dict[str, Any]:
    """Plain values for JSON.

    `rungs`: names. `keys`, `texts`, `categories`: of the questions. `quality`: per rung a string of 0, 1 and ?, or
    parts of 1000. `cost`: per rung nano-dollars, -1 where unknown. `status`: per rung a string of digits, which
    `statuses` explains, None where all is well. `policies`: name, the code of the course of each question, and the
    courses: [rungs tried, the one that answers, [[words, numbers] of each reason]]; the words' numbers are cut out.
    """
    outcomes, words = evidence.outcomes, _Words()
    category = outcomes.category
    kinds = sorted(set(category)) if category is not None else []
    codes = {name: i for i, name in enumerate(kinds)}
    names = [entry.name for entry in evidence.entries]
    return {
        "rungs": [rung.name for rung in outcomes.rungs],
        "keys": list(outcomes.keys),
        "texts": _texts(outcomes) if texts and TEXT in outcomes.features else None,
        "kinds": kinds,
        "categories": None if category is None else [codes[name] for name in category],
        "quality": [_qualities(outcomes.quality[:, r]) for r in range(outcomes.k)],
        "cost": [[-1 if c == UNKNOWN else c for c in outcomes.cost[:, r].tolist()] for r in range(outcomes.k)],
        "status": None if not outcomes.status.any() else [_digits(outcomes.status[:, r]) for r in range(outcomes.k)],
        "statuses": list(STATUSES),
        "policies": [_policy(evidence, name, words) for name in names],
        "words": words.told,
        "first": names.index(first(comparison)),
        "against": names.index(comparison.baseline),
    }


class _Words:
    """Texts, each once, by number."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._at: dict[str, int] = {}

    def of(self, text: str) -> int:
        """The number of a text."""
        if text not in self._at:
            self._at[text] = len(self.told)
            self.told.append(text)
        return self._at[text]


def _policy(evidence: Evidence, name: str, words: _Words) -> dict[str, Any]:
    found, played = courses_of(evidence, name), evidence.played[name]
    if found is None:
        return {"name": name, "code": None, "courses": [], "quality": _thousandths(played.quality)}
    return {
        "name": name,
        "code": found.code.tolist(),
        "courses": [_course(course, words) for course in found.courses],
    }


def _course(course: Course, words: _Words) -> list[Any]:
    whys = []
    for why in course.whys:
        numbers = _NUMBER.findall(why)
        whys.append([words.of(_NUMBER.sub(_HOLE, why)), " ".join(numbers)])
    return [list(course.rungs), course.chosen, whys]


def _qualities(column: NDArray[np.float64]) -> str | list[int | None]:
    known = column[~np.isnan(column)]
    if bool(((known == 0) | (known == 1)).all()):
        return "".join("?" if np.isnan(q) else "1" if q else "0" for q in column.tolist())
    return _thousandths(column)


def _thousandths(column: NDArray[np.float64]) -> list[int | None]:
    return [None if np.isnan(q) else round(1000 * q) for q in column.tolist()]


def _digits(column: Iterable[int]) -> str:
    return "".join(str(int(code)) for code in column)


def _texts(outcomes: Outcomes) -> list[str]:
    return [_short(str(text)) for text in outcomes.features[TEXT].tolist()]


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
