"""What the model itself says, in a field beside its answer: no further call.

`TypedDecision` uses DSPy's decision types, which are experimental there. They ask for probabilities and parse them
strictly: a model that doesn't write a number there costs a second call and may lose the answer, where `Verbalised`
reads nan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from escalade.agents._saving import register
from escalade.agents.confidence.said import Confidence
from escalade.agents.confidence.source import Answered, Reading, Source, Weighing
from escalade.errors import BadInput

ASKED = "probability from 0 to 1 that the other outputs are right"

LEVELS = ("certainly wrong", "probably wrong", "could be either", "probably right", "certainly right")
"""The rubric of `TypedDecision("score")`."""


@register
@dataclass(frozen=True)
class Verbalised(Source):
    """The model says how sure it is, in an output `confidence`. A signature that has one already keeps its own."""

    kind: ClassVar[str] = "verbalised"
    name: ClassVar[str] = "verbalised"

    def extend(self, signature: Any) -> Any:
        return _with_output(signature, Confidence, ASKED)

    def weigh(self, answered: Answered) -> Weighing:
        return Reading(stated(answered.result))
        yield


@register
@dataclass(frozen=True)
class TypedDecision(Source):
    """The model says it as one of DSPy's decision types.

    `ask`: "noul" adds an output `confidence` that is a `Noul` (is the answer right?) and reads its probability,
    never its `confidence`, which is a distance from the threshold; "score" adds a `Score` with the five `LEVELS`
    and reads where it lies between them. `field`: adds nothing, but reads how likely the value of that output is that
    the model chose; it must be a `Noul` or a `Choice` of the signature. Raises BadInput.
    """

    kind: ClassVar[str] = "decision"
    name: ClassVar[str] = "decision"
    ask: str = "noul"
    field: str | None = None

    def __post_init__(self) -> None:
        if self.ask not in {"noul", "score"}:
            raise BadInput(f"a decision is asked for as 'noul' or 'score', not as {self.ask!r}")

    def extend(self, signature: Any) -> Any:
        from dspy.experimental import Noul, Score

        if self.field is not None:
            if self.field not in signature.output_fields:
                raise BadInput(f"no output {self.field!r} to read a decision from: {list(signature.output_fields)}")
            return signature
        wanted = Noul if self.ask == "noul" else Score[LEVELS]
        return _with_output(signature, wanted, "are the other outputs right?")

    def weigh(self, answered: Answered) -> Weighing:
        said = answered.result.get("confidence" if self.field is None else self.field)
        return Reading(decided(said, chosen=self.field is not None))
        yield


def stated(result: Any) -> float:
    """The confidence that a prediction states, nan where it states none."""
    return probability(result.get("confidence")) if "confidence" in result else math.nan


def probability(said: Any) -> float:
    """What a field says of something being right: a truth value is 0 or 1, a decision its probability."""
    if isinstance(said, bool):
        return float(said)
    return decided(said) if hasattr(said, "criteria") else float(Confidence(said))


def decided(said: Any, *, chosen: bool = False) -> float:
    """Probability in a decision value: that it is true, or with `chosen` that its value is the right one."""
    from dspy.experimental import Choice, Noul, Score

    if isinstance(said, Noul):
        p = said.probability
        if p is None:
            return math.nan
        return float(1 - p if chosen and not said.value else p)
    if isinstance(said, Choice):
        return float((said.probabilities or {}).get(str(said.value), math.nan))
    if isinstance(said, Score):
        top = len(said.criteria()) - 1
        return float(said.value) / top
    return math.nan


def _with_output(signature: Any, type_: Any, desc: str) -> Any:
    import dspy

    if "confidence" in signature.output_fields:
        return signature
    return signature.append("confidence", dspy.OutputField(desc=desc), type_=type_)
