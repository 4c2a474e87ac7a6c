"""One climb as a log keeps it: numbers, names of rungs, and the probability of each step. No texts.

A log of these is what other policies are judged on (`estimates.py`): it holds all that a policy may look at, so that
any other can be asked what it would have done on the same way up, and how likely the one that served was to take it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from escalade.agents.climb import OK, Attempt, Rung, View
from escalade.agents.forms import Form
from escalade.errors import DataError

__all__ = ["Logged", "Tried"]


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt. `rung`: index on the ladder. `propensity`: of trying it then, in (0, 1], given all that was seen
    before. `answer`: a code; within one climb equal codes are equal answers, None is none. `confidence`, `latency`
    (seconds): nan where unknown. `cost`: nano-dollars at list price.
    """

    rung: int
    propensity: float = 1.0
    confidence: float = math.nan
    status: str = OK
    cost: int = 0
    latency: float = math.nan
    answer: int | None = None
    form: Form | None = None


@dataclass(frozen=True, slots=True)
class Logged:
    """One climb. `id`: of this climb, unique. `run`: id of the scope's run, "" without. `key`: of the question.

    `group`: a pseudonym of whoever asked, for what isn't independent. `at`: seconds since 1970. `policy`, `version`: of
    the policy that served; `arm`: which part of it, such as "new" of a canary. `ladder`: names of the rungs; `prices`,
    `ceilings`: nano-dollars that each was expected to cost here, None where unknown. `features`: those that are
    numbers. `path`: the attempts, in order. `answered`: index into `path`, -1 without an answer. `stop`: propensity of
    stopping after them, 1.0 where nothing else was possible. `quality`: 0..1, None until somebody tells it.
    """

    id: str
    key: str
    policy: str
    ladder: tuple[str, ...]
    path: tuple[Tried, ...]
    answered: int = -1
    stop: float = 1.0
    quality: float | None = None
    features: Mapping[str, float] = field(default_factory=dict)
    prices: tuple[int | None, ...] = ()
    ceilings: tuple[int | None, ...] = ()
    run: str = ""
    group: str = ""
    version: str = ""
    arm: str = ""
    at: float = 0.0

    def __post_init__(self) -> None:
        chances = [*(tried.propensity for tried in self.path), self.stop]
        if not all(0.0 < chance <= 1.0 for chance in chances):
            raise DataError(f"climb {self.id}: a propensity lies above 0 and up to 1, not at {chances!r}")
        if not all(0 <= tried.rung < len(self.ladder) for tried in self.path) or not -1 <= self.answered < self.calls:
            raise DataError(f"climb {self.id}: a rung or an answer that the climb doesn't have")
        if self.quality is not None and not 0.0 <= self.quality <= 1.0:
            raise DataError(f"climb {self.id}: a quality lies between 0 and 1, not at {self.quality!r}")

    @property
    def calls(self) -> int:
        return len(self.path)

    @property
    def propensity(self) -> float:
        """Of the whole way up and of stopping there, given what each attempt gave; in (0, 1]."""
        return math.prod(tried.propensity for tried in self.path) * self.stop

    @property
    def rung(self) -> str | None:
        """The name of the rung that answered, None if none did."""
        return None if self.answered < 0 else self.ladder[self.path[self.answered].rung]

    @property
    def rungs(self) -> tuple[int, ...]:
        """The rungs tried, in order."""
        return tuple(tried.rung for tried in self.path)

    @property
    def cost(self) -> int:
        """Nano-dollars at list price, over all attempts."""
        return sum(tried.cost for tried in self.path)

    @property
    def latency(self) -> float:
        """Seconds of the attempts one after the other; nan where one is unknown."""
        return math.fsum(tried.latency for tried in self.path)

    @property
    def failed(self) -> bool:
        """Did it end without a usable answer?"""
        return self.answered < 0 or self.path[self.answered].status != OK

    def told(self, quality: float) -> Logged:
        """The same climb, now that somebody said how good the answer was."""
        return replace(self, quality=float(quality))

    def views(self) -> Iterator[View]:
        """What the policy saw before each of its decisions: before any attempt, after the first, and so on.

        Texts aren't in the log: a policy that reads them can't be asked. Nor are budgets: there is no limit here.
        """
        rungs = tuple(Rung(name) for name in self.ladder)
        unknown = (None,) * len(rungs)
        attempts = tuple(_attempt(tried) for tried in self.path)
        for seen in range(len(attempts) + 1):
            yield View(
                key=self.key,
                features=self.features,
                rungs=rungs,
                prices=self.prices or unknown,
                ceilings=self.ceilings or unknown,
                attempts=attempts[:seen],
            )

    def to_line(self) -> str:
        """As one line of JSON, without its quality: that is told in lines of its own."""
        values = {name: getattr(self, name) for name in _PLAIN}
        return json.dumps(values | {"path": [_packed(tried) for tried in self.path]}, separators=(",", ":"))

    @classmethod
    def from_line(cls, values: Mapping[str, Any]) -> Logged:
        """From the object of its line. Raises KeyError, TypeError, ValueError for what is none."""
        plain = {name: _tuple(values[name]) for name in _PLAIN}
        return cls(path=tuple(_unpacked(*packed) for packed in values["path"]), **plain)


_PLAIN = (
    "id", "run", "group", "at", "key", "policy", "version", "arm", "ladder", "prices", "ceilings", "features",
    "answered", "stop",
)  # fmt: skip


def _attempt(tried: Tried) -> Attempt:
    return Attempt(
        rung=tried.rung,
        answer=tried.answer,
        confidence=tried.confidence,
        cost=tried.cost,
        latency=tried.latency,
        status=tried.status,
        form=tried.form,
    )


def _packed(tried: Tried) -> list[Any]:
    form = None if tried.form is None else list(tried.form)
    known = [None if math.isnan(figure) else figure for figure in (tried.confidence, tried.latency)]
    return [tried.rung, tried.propensity, known[0], tried.status, tried.cost, known[1], tried.answer, form]


def _unpacked(
    rung: int,
    propensity: float,
    confidence: float | None,
    status: str,
    cost: int,
    latency: float | None,
    answer: int | None,
    form: list[float] | None,
) -> Tried:
    if not 0.0 <= (confidence or 0.0) <= 1.0 or not (latency or 0.0) >= 0.0 or not cost >= 0:
        raise ValueError(f"a confidence of {confidence}, a cost of {cost} or a latency of {latency} can't be")
    known = [math.nan if figure is None else figure for figure in (confidence, latency)]
    return Tried(rung, propensity, known[0], status, cost, known[1], answer, None if form is None else Form(*form))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
