"""What `Resilient` gives: a prediction that knows how it came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import dspy

from escalade.agents.degrade._tries import Tried
from escalade.agents.degrade.answers import Kept

Source = Literal["cache", "primary", "fallback", "stale", "similar", "static", "apology"]

LEVELS: Mapping[Source, int] = {
    "cache": 1,
    "primary": 2,
    "fallback": 3,
    "stale": 4,
    "similar": 4,
    "static": 4,
    "apology": 5,
}


class Resolved(dspy.Prediction):
    """A prediction that knows how it came about. Outputs of the program with one of these names are read as
    `prediction["level"]`.
    """

    _source: Source = "primary"
    _reasons: tuple[str, ...] = ()
    _result: Any = None
    _apology: str = ""
    _retry_after: float | None = None
    _age: float | None = None
    _model: str = ""

    @property
    def level(self) -> int:
        """1 to 5, see `escalade.agents.degrade`."""
        return LEVELS[self._source]

    @property
    def source(self) -> Source:
        """The level in a word: cache, primary, fallback, stale, similar, static, apology."""
        return self._source

    @property
    def apology(self) -> str:
        """What to tell the user where there is no answer; "" where there is one."""
        return self._apology

    @property
    def retry_after(self) -> float | None:
        """Seconds until it may be worth another try; None where there is an answer of today."""
        return self._retry_after

    @property
    def age(self) -> float | None:
        """How old an answer of before is, seconds; None for one that was made now."""
        return self._age

    @property
    def model(self) -> str:
        """The model of the gateway that answered in place of another, "" where none did."""
        return self._model

    @property
    def result(self) -> Any:
        """What the program itself returned, such as the `Escalated` of a climb; None where it didn't answer."""
        return self._result

    def explain(self) -> str:
        """One line per level that was tried: what went wrong with it; the last one answers."""
        return "\n".join(self._reasons)


def made_by(tried: Tried, number: int, reasons: list[str]) -> Resolved:
    """What a program answered; `number`: 0 for the first one."""
    seen = tried.seen
    source: Source = "primary"
    if number or seen.fell_back:
        source = "fallback"
    elif seen.hits and seen.hits == seen.uses:  # a hit is a use that is settled at nothing
        source = "cache"
    by = (
        f"model {seen.fell_back} in place of another" if seen.fell_back else "another program" if number else "answered"
    )
    outputs = dict(tried.result.items()) if isinstance(tried.result, dspy.Prediction) else {"result": tried.result}
    made = resolved(outputs, source, [*reasons, f"level {LEVELS[source]}, {source}: {by}"])
    made._result, made._model = tried.result, seen.fell_back
    if isinstance(tried.result, dspy.Prediction):
        made.set_lm_usage(tried.result.get_lm_usage())
        made._completions = tried.result._completions
    return made


def of_before(kept: Kept, source: Source, reasons: Sequence[str], wait: float | None = None) -> Resolved:
    """An answer that was kept."""
    made = resolved(kept.outputs, source, reasons, wait)
    made._age = kept.age
    return made


def resolved(outputs: Mapping[str, Any], source: Source, reasons: Sequence[str], wait: float | None = None) -> Resolved:
    """With these outputs, on the level of this source. `wait`: seconds until another try may be worth it."""
    made = Resolved(**outputs)
    made._source, made._reasons, made._retry_after = source, tuple(reasons), wait
    return made
