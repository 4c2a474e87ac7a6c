"""A model as grader: a DSPy program through the gateway, governed and paid for by the current scope like any other.

    metric = Judge("big")                       # of the gateway named "default"
    outcomes = record(qa, examples, metric)     # labels "judge(big)": shown as unchecked …
    outcomes = beside(outcomes, by_hand)        # … until some answers have other labels, too

What he says is as good as he is: Zheng et al. 2023, "Judging LLM-as-a-judge" (arXiv 2306.05685) tell his biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, DataError

if TYPE_CHECKING:
    import dspy

    from escalade.agents.gateway import Gateway

__all__ = ["Judge"]

INSTRUCTIONS = (
    "Judge whether the proposed answer is right. Where a reference is given, the answer is right if it means the same. "
    "Do not trust the proposed answer: check it."
)


@dataclass(frozen=True)
class Judge:
    """Asks a model whether an answer is right: 1.0 or 0.0, or the probability that a program of your own gives.

    `model`: alias of the judge in the gateway named `gateway`. `output`: of the prediction, what is judged. The judge
    is shown the example's inputs, its field of the same name as reference where it has one, and the proposed answer.
    `program`: a DSPy module of your own, called with (question, reference, proposed) and read at `right`.
    """

    model: str
    output: str = "answer"
    gateway: str = "default"
    program: Any = None

    def __post_init__(self) -> None:
        if not self.model:
            raise BadInput("judge: which model? Write judge(big), with an alias of the gateway")

    @property
    def name(self) -> str:
        """As it is written in a study, and what its labels are called."""
        return f"judge({self.model})" if self.output == "answer" else f"judge({self.model}, {self.output})"

    def __call__(self, example: Any, prediction: Any, trace: Any = None) -> float:
        """Calls the model, in the current scope, which pays. Raises what the call raises, DataError for no verdict."""
        import dspy

        with dspy.context(lm=_gateway(self.gateway).lm(self.model)):
            said = (self.program or _program())(**self._asked(example, prediction))
        return _share(said.get("right"))

    def _asked(self, example: Any, prediction: Any) -> dict[str, str]:
        inputs = dict(example.inputs().items())
        labels = {name: value for name, value in example.items() if name not in inputs}
        return {
            "question": "\n".join(f"{name}: {value}" for name, value in inputs.items()),
            "reference": str(labels.get(self.output, "none")),
            "proposed": str(prediction[self.output]),
        }


def _gateway(name: str) -> Gateway:
    from escalade.agents.gateway import find_gateway

    return find_gateway(name)


@lru_cache(maxsize=1)
def _program() -> dspy.Module:
    import dspy

    signature = dspy.Signature("question: str, reference: str, proposed: str -> right: bool", INSTRUCTIONS)
    return dspy.Predict(signature)


def _share(verdict: Any) -> float:
    """0..1 of a truth value or a probability. Raises DataError: a judge who says nothing didn't say "wrong"."""
    if isinstance(verdict, bool | int | float) and 0.0 <= verdict <= 1.0:
        return float(verdict)
    raise DataError(f"the judge gave {verdict!r}; expected true, false or a probability")
