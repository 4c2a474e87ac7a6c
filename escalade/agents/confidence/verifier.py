"""A chosen model judges the answer: one more call (Kadavath et al. 2022, "P(True)", arXiv 2207.05221)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from escalade.agents._saving import register
from escalade.agents.confidence.said import Confidence
from escalade.agents.confidence.source import Answered, Build, Call, Helper, Reading, Source, Weighing
from escalade.agents.confidence.stated import probability
from escalade.errors import BadInput

INSTRUCTIONS = "Judge whether the proposed {outputs} is right for the given {inputs}. Do not trust it: check it."


@register
@dataclass(frozen=True)
class Verifier(Source):
    """What a model says of question and answer.

    `model`: alias of the judge. `signature`: as text, of inputs and outputs of the rung as inputs, and one output, a
    probability, a truth value or a decision; None makes one of all of them with an output `confidence`. `instructions`:
    what the judge is told; None is a sentence of ours, or DSPy's for a signature of yours. `strategy`: of the judge, by
    name. `shown`: bytes of each output that the judge gets to see: they bound the price. Raises BadInput.
    """

    kind: ClassVar[str] = "verifier"
    name: ClassVar[str] = "verifier"
    model: str
    signature: str | None = None
    strategy: str = "Predict"
    shown: int = 2_000
    instructions: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.signature, str | None):
            raise BadInput(
                f"a verifier's signature is a text, like 'question, answer -> right: bool', not {self.signature!r}"
            )
        if self.shown < 1:
            raise BadInput(f"a verifier that is shown {self.shown} bytes of an answer can't judge it")

    def helpers(self, signature: Any, build: Build) -> dict[str, Helper]:
        return {"judge": Helper(build(self.strategy, self._signature(signature)), self.model, self.shown)}

    def weigh(self, answered: Answered) -> Weighing:
        outputs = {name: _cut(answered.result.get(name), self.shown) for name in answered.outputs}
        [given] = yield [Call({**answered.inputs, **outputs}, "judge")]
        if given.error is not None:
            return Reading(error=given.error)
        said = given.result
        return Reading(probability(said.get(self._verdict(said))))

    def _verdict(self, said: Mapping[str, Any]) -> str:
        return "confidence" if "confidence" in said else list(said.keys())[-1]

    def _signature(self, asked: Any) -> Any:
        import dspy

        outputs = [name for name in asked.output_fields if name != "confidence"]
        if self.signature is None:
            fields: dict[str, Any] = {
                n: (f.annotation, dspy.InputField(desc=f.json_schema_extra["desc"]))
                for n, f in asked.input_fields.items()
            }
            fields |= {n: (str, dspy.InputField(desc=f"proposed {n}")) for n in outputs}
            desc = "probability from 0 to 1 that the proposed answer is right"
            fields["confidence"] = (Confidence, dspy.OutputField(desc=desc))
            told = INSTRUCTIONS.format(outputs=", ".join(outputs), inputs=", ".join(asked.input_fields))
            return dspy.Signature(fields, self.instructions or told)
        own = dspy.Signature(self.signature, self.instructions, custom_types={"Confidence": Confidence})
        unknown = set(own.input_fields) - set(asked.input_fields) - set(outputs)
        if unknown or len(own.output_fields) != 1:
            raise BadInput(
                f"the verifier's signature {self.signature!r}: expected inputs out of "
                f"{[*asked.input_fields, *outputs]} and exactly one output"
            )
        return own


def _cut(value: Any, size: int) -> str:
    """The value as text, at most so many bytes of it."""
    return str(value).encode("utf-8", "replace")[:size].decode("utf-8", "ignore")
