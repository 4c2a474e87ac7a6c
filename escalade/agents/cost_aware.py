"""Quality and cost as one objective: a metric that DSPy's optimisers and `Evaluate` can climb.

    metric = cost_aware_metric(exact_match, dollars_per_point="0.05")
    with escalade.scope(budget="2.00"):
        better = dspy.GEPA(metric=metric, …).compile(qa, trainset=trainset)

The score is the quality less what the answer cost, in units of what a right answer is worth. Costs are the ledger's, to
the nano-dollar. `Escalate` and `ToolAgent` return predictions that know them; `Metered(program)` does it for any other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import dspy

from escalade.agents._steps import AgentAnswer
from escalade.agents.escalate import Escalated
from escalade.errors import BadInput, UnknownPrice
from escalade.money import Money
from escalade.scopes import Entered, Scope, current, require

__all__ = ["CostAware", "Metered", "cost_aware_metric", "cost_of"]


class Metered(dspy.Module):
    """Any program, with predictions that know what the whole call cost (`cost_of`).

    Needed where a prediction doesn't say so itself, and where it says it of its own part alone, as at the end of a
    pipeline of several agents. A call raises NoScope outside of a scope.
    """

    def __init__(self, program: dspy.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, **inputs: Any) -> Any:
        """Call the program in a scope of its own."""
        with _account() as account:
            result = self.program(**inputs)
        return _marked(result, account)

    async def aforward(self, **inputs: Any) -> Any:
        """`forward`, on the event loop."""
        async with _account() as account:
            result = await self.program.acall(**inputs)
        return _marked(result, account)


def _account() -> Entered:
    outer = require("Metered")
    return Entered(lambda: outer.narrow(name="metered"), check=False)


def _marked(result: Any, account: Scope) -> Any:
    if not isinstance(result, dspy.Prediction):
        raise BadInput(f"a metered program returns a dspy.Prediction, not {type(result).__name__}")
    result._metered = None if account.unpriced else account.spent
    return result


def cost_of(prediction: Any) -> Money:
    """What the prediction cost. Raises UnknownPrice when something that it took has no known price, BadInput when it
    doesn't know its cost.
    """
    if hasattr(prediction, "_metered"):
        if prediction._metered is None:
            raise _unknown()
        return Money(prediction._metered)
    if not isinstance(prediction, Escalated | AgentAnswer):
        raise BadInput(
            f"a {type(prediction).__name__} doesn't know what it cost; those of Escalate and ToolAgent do, and those "
            f"of Metered(program)"
        )
    around = current()
    if around is not None and around.unpriced:
        raise _unknown()
    return prediction.cost


def _unknown() -> UnknownPrice:
    return UnknownPrice("something that was used has no known price, and unknown isn't zero: give its model a price")


def cost_aware_metric(metric: Callable[..., Any], *, dollars_per_point: str | Decimal | Money) -> CostAware:
    """The metric less what the answer cost: `quality - dollars / dollars_per_point`.

    `metric`: as for DSPy, `(example, prediction[, trace])` -> 0..1; or as for GEPA, with five arguments and feedback.
    `dollars_per_point`: what a right answer (quality 1) is worth. Raises BadInput.
    """
    worth = Money.of(dollars_per_point)
    if worth <= 0:
        raise BadInput(f"dollars_per_point: expected what a right answer is worth, above $0, got {worth}")
    if not callable(metric):
        raise BadInput(f"metric: expected a function of an example and a prediction, got {metric!r}")
    return CostAware(metric, worth)


@dataclass(frozen=True)
class CostAware:
    """What `cost_aware_metric` returns.

    A float for `Evaluate` and most optimisers. While demonstrations are gathered (`trace` is given) it is 0 for what is
    not worth its cost: those take any other number for a success. Asked for one predictor, as GEPA does, `score` and
    `feedback`, which names the rungs and what they cost. Raises UnknownPrice.
    """

    metric: Callable[..., Any]
    dollars_per_point: Money

    def __call__(
        self, example: Any, prediction: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None
    ) -> Any:
        graded = _graded(self.metric, (example, prediction, trace, pred_name, pred_trace))
        quality, cost = float(getattr(graded, "score", graded)), cost_of(prediction)
        score = quality - int(cost) / int(self.dollars_per_point)
        if pred_name is not None:
            return dspy.Prediction(score=score, feedback=self._feedback(graded, prediction, quality, cost, score))
        return score if trace is None else max(0.0, score)

    def _feedback(self, graded: Any, prediction: Any, quality: float, cost: Money, score: float) -> str:
        told = str(getattr(graded, "feedback", "") or f"Quality {quality:g}.")
        return f"{told} It cost {cost}{_on(prediction)}; with that the score is {score:.4g}."


def _graded(metric: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    """Call the metric with as many of the five arguments as it takes, 2 at least."""
    kinds = [p.kind for p in inspect.signature(metric).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return metric(*given)
    positional = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) + kinds.count(inspect.Parameter.POSITIONAL_ONLY)
    return metric(*given[: max(2, positional)])


def _on(prediction: Any) -> str:
    """Where the money went, as far as the prediction knows."""
    if isinstance(prediction, Escalated):
        tried = (f"{prediction._rungs[a.rung].name} {Money(a.cost)}" for a in prediction.climb.attempts)
        return f" (rungs: {', '.join(tried)})"
    if isinstance(prediction, AgentAnswer):
        return f" ({len(prediction.steps)} steps, {prediction.ended})"
    return ""
