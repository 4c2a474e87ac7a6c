"""Graders by name: `(example, prediction) -> 0..1`, for recording, studies, `dspy.Evaluate` and optimisers.

    number(answer)          the number that the answer comes to, of any unit: "$20.00", "#### 20" are 20, "5-20" isn't
    choice(answer)          a letter, as in "(B)", "the answer is B" or "I think B"
    exact(answer)           the same words, whatever their case and spaces; a full stop counts
    contains(answer)        the reference occurs in the answer, as whole words, even where it is denied
    json(answer.total)      a field of an answer that is JSON, or all of it without one: the same fields, numbers as
                            `number` reads them, texts as `exact`, lists in order; true isn't 1
    judge(big)              a model says whether the answer is right; judge(big, answer): of that output

In brackets stands the output that is graded; after a comma, the field of the example that it is compared with, if that
has another name: `number(answer, gold)`. Without brackets it is `answer`. A judge's quality is shown with his agreement
with other labels, or as unchecked (`agreeing.judge_check`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals.checking.judging import Judge
from escalade.evals.checking.numbers import number_in, same_number

__all__ = ["Grader", "choice_in", "grader"]

Compare = Callable[[Any, Any], bool]


@dataclass(frozen=True)
class Grader:
    """Compares an output of the prediction with a field of the example. 1.0 for right, 0.0 for wrong or no answer.

    Raises DataError for an example whose reference is missing or can't be read: that is no wrong answer.
    """

    kind: str
    output: str = "answer"
    reference: str = ""

    @property
    def name(self) -> str:
        """As it is written in a study."""
        return f"{self.kind}({self.output}{f', {self.reference}' if self.reference else ''})"

    def __call__(self, example: Any, prediction: Any, trace: Any = None) -> float:
        field, _, path = self.output.partition(".") if self.kind == "json" else (self.output, "", "")
        wanted = _field(example, self.reference or field, "example")
        given = _field(prediction, field, "prediction")
        if self.kind == "json":
            wanted, given = _reference(wanted, path), _inside(_parsed(given), path)
        return 0.0 if given is None else float(COMPARE[self.kind](wanted, given))


def grader(name: str) -> Grader | Judge:
    """The grader of this name. Raises UnknownName, BadInput."""
    found = re.fullmatch(r"\s*([\w-]+)\s*(?:\(\s*([^(),]*?)\s*(?:,\s*([^(),]*?)\s*)?\))?\s*", name)
    if found is None:
        raise BadInput(f"grader: expected a name like number(answer), got {name!r}")
    kind, first, second = found[1], found[2] or "", found[3] or ""
    if kind == "judge":
        return Judge(first, second or "answer")
    if kind not in COMPARE:
        raise UnknownName("grader", kind, [*COMPARE, "judge"])
    return Grader(kind, first or "answer", second)


def choice_in(text: object) -> str | None:
    """The letter that a text answers with, upper case; None for none.

    The text may be the letter, begin with it ("B) 12"), mark it ("the answer is (B)", in a box of LaTeX), have one in
    brackets, the last of which counts, or end with the only capital that stands alone ("I think B"; "not B" is none). A
    letter in running text ("A man") is none.
    """
    said = str(text).strip()
    if whole := re.fullmatch(r"[\W_]*([A-Za-z])[\W_]*", said):
        return whole[1].upper()
    for mark in _CHOICES:
        if found := mark.findall(said):
            return str(found[-1]).upper()
    alone = set(_ALONE.findall(said))
    ends = _ENDS.search(said)
    return ends[1] if ends and alone == {ends[1]} and not _DENIES.search(said) else None


_CHOICES = (
    re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{)?\s*\(?([A-Za-z])\)?\s*\}"),
    re.compile(r"(?i:\banswer(?:\s+is|\s*:)\s*:?\s*(?:option\s+|choice\s+)?)[*\s\"'(\[]*([A-Za-z])(?![\w'])"),
    re.compile(r"\A[*\s(\[]*([A-Z])[*\s]*[.):\]]"),
    re.compile(r"\(([A-Z])\)"),
)


_ALONE = re.compile(r"(?<![\w'])([A-HJ-Z])(?![\w'])")
_ENDS = re.compile(r"(?<![\w'])([A-HJ-Z])[\s.!*\"')\]]*\Z")
_DENIES = re.compile(r"\bnot\b|n't\b", re.IGNORECASE)
"""A capital that stands alone, and not for whoever speaks; one at the end of the text; a text that denies something."""


def _same_number(wanted: Any, given: Any) -> bool:
    right = number_in(wanted)
    if right is None:
        raise DataError(f"number: the reference {wanted!r} isn't one number")
    said = number_in(given)
    return said is not None and same_number(said, right)


def _same_choice(wanted: Any, given: Any) -> bool:
    right = choice_in(wanted)
    if right is None:
        raise DataError(f"choice: the reference {wanted!r} is no letter")
    return choice_in(given) == right


def _same_words(wanted: Any, given: Any) -> bool:
    return any(_words(one) == _words(given) for one in _several(wanted))


def _has_words(wanted: Any, given: Any) -> bool:
    """As whole words: 20 isn't in 120."""
    said = _words(given)
    return any(re.search(rf"(?<!\w){re.escape(_words(one))}(?!\w)", said) for one in _several(wanted))


def _same_value(wanted: Any, given: Any) -> bool:
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        return not isinstance(given, bool) and _same_number(wanted, given)
    if isinstance(wanted, str) and isinstance(given, str):
        return _words(wanted) == _words(given)
    if isinstance(wanted, Mapping) and isinstance(given, Mapping):
        return wanted.keys() == given.keys() and all(_same_value(wanted[name], given[name]) for name in wanted)
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(map(_same_value, wanted, given))
    return type(wanted) is type(given) and bool(wanted == given)


COMPARE: dict[str, Compare] = {
    "number": _same_number,
    "choice": _same_choice,
    "exact": _same_words,
    "contains": _has_words,
    "json": _same_value,
}
"""(reference, answer) -> the same? By the name of the grader."""


def _several(wanted: Any) -> list[Any]:
    """References of which any one is right. Raises DataError for none, and for an empty one, which is in everything."""
    found = list(wanted) if isinstance(wanted, list | tuple | set) else [wanted]
    if not found or not all(_words(one) for one in found):
        raise DataError(f"the reference {wanted!r} is empty")
    return found


def _words(text: Any) -> str:
    return " ".join(str(text).casefold().split())


def _field(of: Any, name: str, what: str) -> Any:
    """A field of an example or a prediction. Raises DataError for an example that lacks it, UnknownName."""
    if hasattr(of, "keys") and name in of.keys():  # noqa: SIM118 - DSPy's examples aren't mappings
        value = of[name]
        if value is None and what == "example":
            raise DataError(f"the example's {name!r} is None; it can't be compared with")
        return value
    raise UnknownName(f"field of the {what}", name, list(of.keys()) if hasattr(of, "keys") else [])


def _parsed(text: Any) -> Any:
    """JSON of an answer, also in a fenced block; None for what is none."""
    if not isinstance(text, str):
        return text.model_dump() if hasattr(text, "model_dump") else text
    fenced = re.search(r"```(?:json)?\s*\n(.*?)```", text, re.DOTALL)
    try:
        return json.loads(fenced[1] if fenced else text)
    except ValueError:
        return None


def _inside(value: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        if isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, Mapping) and name in value:
            value = value[name]
        else:
            return None
    return value


def _reference(wanted: Any, path: str) -> Any:
    """The field of the reference, if it is JSON too, else the reference itself. Raises DataError for one without it."""
    parsed = _parsed(wanted)
    if not isinstance(parsed, Mapping | list):
        return wanted if parsed is None else parsed
    found = _inside(parsed, path)
    if found is None:
        raise DataError(f"json: the reference {wanted!r} has nothing at {path!r}")
    return found
