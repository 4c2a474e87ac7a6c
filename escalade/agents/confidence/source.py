"""A source of confidence: what it adds to the question, what it does with the answer, what that may cost.

A source is a frozen dataclass without state. It makes no call itself: it yields rounds of calls, which are made at
once, each in a scope of its own, and is sent what they gave. So it is written once for sync and async, knows nothing
of money, and what it spends is counted apart from the answer.

    @register_source
    @dataclass(frozen=True)
    class Brevity(Source):
        kind = name = "brevity"

        def weigh(self, answered):
            return Reading(1.0 if len(answered.result.answer) < 20 else 0.5)
            yield  # no call is made

Whatever goes wrong in a source, the answer stays: its confidence is nan, and the error is kept in the attempt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from escalade.agents._saving import Saved, register

if TYPE_CHECKING:
    import dspy


@dataclass(frozen=True, slots=True)
class Helper:
    """A program that a source runs besides the rung's own, on a model of the gateway.

    `shown`: bytes that each output of the rung has in its inputs at most, 0 where it is asked the question alone; they
    bound its price.
    """

    program: dspy.Module
    model: str
    shown: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One call to make. `helper`: name of the source's helper, "" is the rung's own program. `sample`: its number."""

    inputs: Mapping[str, Any]
    helper: str = ""
    sample: int | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """What a call gave: `result`, a prediction, or an `error`. `cost`: nano-dollars. `truncated`: cut at its limit."""

    result: Any = None
    error: BaseException | None = None
    cost: int = 0
    truncated: bool = False
    trace: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer to weigh. `inputs`: the question. `result`: the prediction. `outputs`: names of the outputs that count.

    `same`: prediction -> what "the same answer" means. `samples`: all that were drawn, where the source draws some.
    """

    inputs: Mapping[str, Any]
    result: Any
    outputs: tuple[str, ...]
    same: Callable[[Any], Any]
    samples: tuple[Given, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source reads: a probability of being right in 0..1, nan where it doesn't know.

    `signals`: what it was made from, by name, where that is more than one. `error`: why it doesn't know.
    """

    value: float = math.nan
    signals: Mapping[str, float] = field(default_factory=dict)
    error: BaseException | None = None


Weighing = Generator[list[Call], list[Given], Reading]
"""Yields rounds of calls, is sent what they gave, returns the reading."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Several samples of the same question: how many at most, at which temperature, from which seed, stopped early?"""

    k: int
    temperature: float
    seed: int | None
    early: bool


Build = Callable[[Any, Any], Any]
"""(strategy, signature) -> program."""


class Source(Saved):
    """Base of the sources. Subclasses are frozen dataclasses with a `kind`, a `name` and `weigh`."""

    __slots__ = ()
    noun: ClassVar[str] = "source of confidence"
    name: ClassVar[str]

    def extend(self, signature: Any) -> Any:
        """The signature that rungs are asked with: the user's, and what this source adds to it."""
        return signature

    def settings(self) -> Mapping[str, Any]:
        """Settings of the language model that this source needs on the answer's call."""
        return {}

    def draws(self) -> Draws | None:
        """The samples that this source needs, None for the one answer."""
        return None

    def helpers(self, signature: Any, build: Build) -> Mapping[str, Helper]:
        """Programs that it calls, by name. `signature`: the user's."""
        return {}

    def weigh(self, answered: Answered) -> Weighing:
        """How likely is this answer right?"""
        raise NotImplementedError


register_source = register
"""Class decorator: programs that were saved with this source can be loaded."""


def rung_signature(signature: Any, source: Source | None) -> Any:
    """What a rung with this source is asked."""
    return signature if source is None else source.extend(signature)
