"""`Confidence`: how sure a model says that it is, read from whatever it writes, without a second paid call.

    "question -> answer, confidence: Confidence"

A plain `float` output makes DSPy pay for a second call when the model writes "80%", "8/10" or "high" (the adapter can't
parse it and falls back to another one), and takes 95 and -1 as they are. This type reads all of them in one call and
says nan where it doesn't know: an unknown confidence is never a guess, and policies treat it as "not confident".
"""

from __future__ import annotations

import math
import re
from typing import Any

_NUMBER = r"[-+]?(?:\d+(?:[.,]\d+)?|[.,]\d+)(?:e[-+]?\d+)?"
_STATED = re.compile(
    rf"({_NUMBER})\s*(%|percent\b|per cent\b|/\s*(\d+(?:[.,]\d+)?)|(?:out )?of\s+(\d+)\b)?", re.IGNORECASE
)

WORDS = {
    "no confidence": 0.05,
    "none": 0.05,
    "very low": 0.1,
    "very uncertain": 0.1,
    "low": 0.25,
    "not confident": 0.25,
    "not sure": 0.25,
    "unsure": 0.25,
    "uncertain": 0.25,
    "medium": 0.5,
    "moderate": 0.5,
    "somewhat confident": 0.6,
    "fairly confident": 0.7,
    "fairly sure": 0.7,
    "likely": 0.7,
    "confident": 0.8,
    "sure": 0.8,
    "high": 0.8,
    "very confident": 0.95,
    "very sure": 0.95,
    "very high": 0.95,
    "almost certain": 0.95,
    "certain": 0.99,
    "absolutely certain": 0.99,
}
"""What a word on its own counts as: a scale of ours, coarse, in the order that people give these words."""

_PHRASE = "|".join(sorted((re.escape(w) for w in WORDS), key=len, reverse=True))
_SAID = re.compile(
    rf"(?:(?:my |the )?confidence(?: level)?(?: is|:)?\s*|i(?:'| a)m )?({_PHRASE})(?: confidence)?(?=$|[\s.,;:!(])"
)
_TRIM = " \t\r\n*`\"'~<>=≈()[]{}"


class Confidence(float):
    """A probability from 0 to 1 of being right; nan where the model didn't say it in a way that can be read.

    >>> Confidence("80%"), Confidence("8/10"), Confidence("high"), Confidence("0,8 (fairly sure)")
    (Confidence(0.8), Confidence(0.8), Confidence(0.8), Confidence(0.8))
    >>> Confidence("").known
    False

    Never raises. A bare number above 10 and up to 100 is a percentage; one between 1 and 10 could be "8 of 10" or
    "8 %" and is unknown. Of several numbers the first counts. What is outside of 0..1 is unknown, not clipped.
    """

    __slots__ = ()

    def __new__(cls, said: object = None) -> Confidence:
        return super().__new__(cls, _probability(said))

    @property
    def known(self) -> bool:
        """Did the model say something that can be read?"""
        return not math.isnan(self)

    def __repr__(self) -> str:
        return f"Confidence({float(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Confidence, (float(self),)

    def toDict(self) -> float | None:  # noqa: N802 - DSPy's hook
        """A plain number, None for unknown: what DSPy saves in a demonstration, since its JSON knows no subclass."""
        return float(self) if self.known else None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        # A nan is None in JSON: the standard has no nan, and providers refuse prompts that hold one.
        written = core_schema.plain_serializer_function_ser_schema(
            lambda said: None if math.isnan(said) else float(said), when_used="json"
        )
        return core_schema.no_info_plain_validator_function(cls, serialization=written)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """What structured outputs are held to: a number from 0 to 1, strictly."""
        return {"type": "number", "minimum": 0, "maximum": 1, "description": "Probability from 0 to 1."}


def _probability(said: object) -> float:
    if isinstance(said, list | tuple):
        return _from_sequence(said)
    if isinstance(said, str):
        return _from_text(said)
    if said is None or isinstance(said, bool):
        return math.nan
    try:
        return _in_unit(float(said))  # type: ignore[arg-type]  # anything that has a __float__
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _from_sequence(said: list[Any] | tuple[Any, ...]) -> float:
    """DSPy repairs output before it is typed: "[0.8]" arrives as a list, and the decimal comma of "0,8" as (0, 8)."""
    if len(said) == 1:
        return _probability(said[0])
    if len(said) == 2 and all(type(part) is int and part >= 0 for part in said):
        return _from_text(f"{said[0]}.{said[1]}")
    return math.nan


def _from_text(said: str) -> float:
    text = said.strip(_TRIM).lower()
    if text in WORDS:
        return WORDS[text]
    stated = _STATED.search(text)
    if stated:
        value = _from_number(stated)
        if not math.isnan(value):
            return value
    word = _SAID.match(text)
    # "high, but only 3 of my sources agree": a word at the start counts where no number does.
    return WORDS[word.group(1)] if word and not (stated and stated.start() < word.start(1)) else math.nan


def _from_number(stated: re.Match[str]) -> float:
    value = _as_float(stated.group(1))
    unit, whole = stated.group(2), stated.group(3) or stated.group(4)
    if whole is not None:
        parts = _as_float(whole)
        return _unit_only(value / parts) if parts > 0 else math.nan
    return _unit_only(value / 100) if unit else _in_unit(value)


def _as_float(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except (ValueError, OverflowError):
        return math.nan


def _in_unit(value: float) -> float:
    """A bare number: 0..1 as it is, above 10 and up to 100 a percentage."""
    return _unit_only(value / 100 if 10 < value <= 100 else value)


def _unit_only(value: float) -> float:
    return value if 0 <= value <= 1 else math.nan
