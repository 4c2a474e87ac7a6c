r"""The number that a text answers with: "$20.00" is 20, and so are "20 dollars", "\boxed{20}" and "#### 20".

In a text with several numbers it is looked for in this order: what is marked as the answer (``\boxed``, ``####``,
"the answer is", bold in the last sentence); the result of the last equation, where the last sentence repeats it
("9 * 2 = 18. She makes $18 in 3 days." is 18, not 3); the last number. A number that is denied ("25, not 20") is passed
over; an end of a range ("5-20", "10 to 20") and a part of a sum that nobody has done ("3 x 20") answer with none.

Never the last run of digits: RouteLLM's grader of GSM8K read "$20.00" as 0, and so 115 right answers as wrong. Read are
thousands ("1,319.00"), fractions ("3/4", "1 1/2", "½", ``\frac{3}{4}``), percent, signs in Unicode, powers ("2e3"),
"million", "20k" and "3M". Not read are numbers in words, a decimal comma, and units: "20 cents" is 20.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Number", "number_in", "same_number"]


@dataclass(frozen=True, slots=True)
class Number:
    """`value`: exact; of "25%" it is 25, and `percent` is true."""

    value: Fraction
    percent: bool = False


def number_in(text: object) -> Number | None:
    """The number that this answers with, None for none. A number is itself; True and False are none."""
    if isinstance(text, bool) or text is None:
        return None
    plain = _plain(str(text))
    marked = _marked(plain)
    found = [] if marked is None else _found(marked)
    if found and marked is not None:
        return None if _goes_on(marked, found, 0) else _number(found[0])
    found = _found(plain)
    if not found:
        return None
    return _repeated(plain) or (None if _goes_on(plain, found, len(found) - 1) else _number(found[-1]))


def same_number(one: Number, other: Number, tolerance: float = 1e-6) -> bool:
    """Equal within `tolerance`, relative above 1 and absolute below. "25%" equals both 25 and 0.25."""
    if _near(one.value, other.value, tolerance):
        return True
    if one.percent == other.percent:
        return False
    a, b = (n.value / 100 if n.percent else n.value for n in (one, other))
    return _near(a, b, tolerance)


def _near(a: Fraction, b: Fraction, tolerance: float) -> bool:
    return abs(a - b) <= Fraction(tolerance) * max(Fraction(1), abs(b))


# -------------------------------------------------------------------------------------------------------- how it's read

_SIGNS = str.maketrans({"−": "-", "–": "-", "﹣": "-", "－": "-", "⁄": "/", "，": ",", "．": ".", "％": "%"})  # noqa: RUF001
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8"}
_THIN = re.compile(r"(?<=\d)(?:[\u00a0\u202f\u2009]|\\[,!]|\{,\})(?=\d{3}(?!\d))")
_FRAC = re.compile(r"\\[dt]?frac\s*\{([\d.,]+)\}\s*\{([\d.,]+)\}")
_LATEX = re.compile(r"\\(?=[$%])|\\(?:text|mathrm)\b|\\[()\[\]]")

_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,12}(?!\d)|\d{1,40}(?!\d))(?:\.\d{1,40}(?!\d))?|(?<!\d)\.\d{1,40}(?!\d)"
_NUMBER = re.compile(
    rf"""(?<![\w.])
    (?P<minus>(?<![\w)%])-)?[$€£¥]?(?P<inner>(?<=[$€£¥])-)?
    (?:(?:(?P<whole>\d{{1,40}})[ ])?(?P<over>\d[\d,]{{0,40}})/(?P<below>\d[\d,]{{0,40}})(?![\d/])
      |(?P<plain>{_DIGITS})(?:[eE](?P<power>[+-]?\d{{1,3}})(?!\w))?)
    (?P<after>\s?%|\s(?:thousand|million|billion|trillion)\b|(?-i:[kKM]|bn)(?!\w))?""",
    re.VERBOSE | re.IGNORECASE,
)
_TIMES = {
    "k": 10**3,
    "thousand": 10**3,
    "m": 10**6,
    "million": 10**6,
    "bn": 10**9,
    "billion": 10**9,
    "trillion": 10**12,
}

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_HASHES = re.compile(r"####\s*(.+)")
_SAID = re.compile(r"\banswer(?:\s+is\b|\s*:)\s*:?([^\n]*)", re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*\n]*\d[^*\n]*)\*\*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z*$\\(])|\n+")
_RESULT = re.compile(r"=\s*\**([^=\n]*)")
_DENIED = re.compile(r"\b(?:not|instead of|rather than)\s+$", re.IGNORECASE)
LOOK = 20
"""Characters before a number that are looked at: more would be slow in long texts, and tell nothing."""
_JOINED = re.compile(r"\s*(?:[*+×÷x-]|\bto\b|\bor\b)\s*", re.IGNORECASE)  # noqa: RUF001
_GOES_ON = re.compile(r"\s*(?:[*/+×÷x-]\s*[$(\d]|\()")  # noqa: RUF001 - that is how people write "times"


def _plain(text: str) -> str:
    """Without typography: one minus, one kind of fraction, thousands without spaces, no LaTeX around figures."""
    text = _THIN.sub(",", text.translate(_SIGNS))
    for sign, written in _VULGAR.items():
        text = re.sub(rf"(?<=\d){sign}", f" {written}", text).replace(sign, written)
    text = _FRAC.sub(r" \1/\2", text)
    return _LATEX.sub("", text)


def _numbers(text: str) -> list[Number]:
    return [_number(found) for found in _found(text)]


def _found(text: str) -> list[re.Match[str]]:
    """Where a text has numbers, but for those that it denies."""
    every = _NUMBER.finditer(text)
    return [one for one in every if _below(one) and not _DENIED.search(text, max(0, one.start() - LOOK), one.start())]


def _goes_on(text: str, found: list[re.Match[str]], at: int) -> bool:
    """Is this number an end of a range, or a part of a sum, and not another word for the same? `found`: all of them."""
    pairs = [found[i : i + 2] for i in (at - 1, at) if 0 <= i < len(found) - 1]
    return any(
        (_JOINED.fullmatch(text, one.end(), other.start()) or _between(text, one, other))
        and not same_number(_number(one), _number(other))
        for one, other in pairs
    )


def _between(text: str, one: re.Match[str], other: re.Match[str]) -> bool:
    before = text[max(0, one.start() - LOOK) : one.start()].rstrip().lower()
    return before.endswith("between") and text[one.end() : other.start()].strip() == "and"


def _below(found: re.Match[str]) -> bool:
    """Is it no division by zero?"""
    return found["below"] is None or _digits(found["below"]) != 0


def _number(found: re.Match[str]) -> Number:
    if found["over"] is not None:
        value = _digits(found["over"]) / _digits(found["below"]) + int(found["whole"] or 0)
    else:
        value = _digits(found["plain"]) * Fraction(10) ** int(found["power"] or 0)
    after = (found["after"] or "").strip().lower()
    value *= _TIMES.get(after, 1)
    return Number(-value if found["minus"] or found["inner"] else value, percent=after == "%")


def _digits(text: str) -> Fraction:
    return Fraction(text.replace(",", "") or "0")


def _marked(text: str) -> str | None:
    """What is marked as the answer, the last one of its kind; None where nothing is."""
    for mark in (_BOXED, _HASHES, _SAID):
        found = [one for one in mark.findall(text) if _numbers(one)]
        if found:
            return str(found[-1])
    bold = _BOLD.findall(_last_sentence(text))
    return str(bold[-1]) if bold else None


def _last_sentence(text: str) -> str:
    return next((one for one in reversed(_SENTENCE.split(text)) if _numbers(one)), "")


def _repeated(text: str) -> Number | None:
    """The result of the last equation, if the last sentence repeats it."""
    results = [result for said in _RESULT.findall(text) if (result := _result(said))]
    last = _last_sentence(text)
    if not results or results[-1].value not in {number.value for number in _numbers(last)}:
        return None
    return results[-1]


def _result(said: str) -> Number | None:
    """What an equation comes to, None where its right side goes on."""
    found = _NUMBER.search(said)
    if found is None or not _below(found) or _GOES_ON.match(said, found.end()):
        return None
    return _number(found)
