"""What a leaf of a pipeline may cost and how long it may take: a predictor, an Escalate, an agent, a tool, a function.

A prompt is as long as its inputs. Those that aren't known before the run, since other nodes make them, count as empty
for what is needed at least, as a usual answer for what is usual, and as the whole context of the model for the most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dspy

from escalade.agents import _estimate
from escalade.agents.models import Model
from escalade.pipelines.checking._reach import reached
from escalade.registry.governed import GovernedTool


@dataclass(frozen=True, slots=True)
class Bill:
    """One call of a leaf. `needed`: what its dearest single use holds at the least, so that with less it is refused.
    `usual`, `most`: nano-dollars, None where unknown. `seconds`: at the most, None where nothing ends it. `note`: what
    is unknown, or taken for granted.
    """

    needed: int = 0
    usual: int | None = 0
    most: int | None = 0
    seconds: float | None = None
    note: str = ""


FREE = "its own code: taken to cost nothing"
"""Of what uses no model and no tool, as far as one can look."""
UNKNOWN = Bill(0, None, None, None, "calls its models as often as its code says")


def bill_of(target: Any, known: Mapping[str, Any]) -> Bill:
    """The bill of one call of a leaf whose inputs are known as far as `known` tells them."""
    from escalade.agents.escalate import Escalate
    from escalade.agents.tool_agent import ToolAgent

    if isinstance(target, GovernedTool):
        return _of_tool(target)
    if isinstance(target, Escalate):
        return _of_climb(target, known)
    if isinstance(target, ToolAgent):
        return _of_agent(target, known)
    if isinstance(target, dspy.Module):
        predictor = _estimate.predictor_of(target)
        if predictor is not None:
            return _of_predictor(target, predictor, known)
        if target.predictors():
            return UNKNOWN
    why = reached(target)
    return Bill(0, None, None, None, f"{why}, as often as it says") if why else Bill(note=FREE)


def _of_tool(tool: GovernedTool) -> Bill:
    spec = tool.spec
    most = None if spec.most is None else int(spec.most)
    usual = None if spec.cost is None else int(spec.cost)
    return Bill(0, usual, most, spec.timeout, "" if most is not None else "the tool says no most that it may cost")


def _of_predictor(target: dspy.Module, predictor: dspy.Predict, known: Mapping[str, Any]) -> Bill:
    model = _estimate.model_on(predictor.lm or dspy.settings.lm)
    if model is None:
        return Bill(0, None, None, None, "its model is not one of a gateway: no price is known")
    needed, usual, most, note = _asked(target, model, _fields(predictor, known), predictor.config.get("max_tokens"))
    return Bill(needed, usual, most, model.timeout, note)


def _asked(
    program: dspy.Module, model: Model, fields: Mapping[str, Any], limit: int | None
) -> tuple[int, int | None, int | None, str]:
    """What a question to a model takes: at least, usually, at the most, and what is unknown. `fields`: None for
    unknown ones.
    """
    if model.price is None:
        return 0, None, None, f"model {model.name!r} has no price"
    empty = {name: "" if value is None else value for name, value in fields.items()}
    usual = {name: "x" * _estimate.USUAL if value is None else value for name, value in fields.items()}
    _, least = _estimate.estimate(program, model, empty)
    price, most = _estimate.estimate(program, model, usual)
    note = ""
    if None in fields.values():
        if model.context is None:
            most, note = None, f"model {model.name!r} has no context=, so a long prompt may cost anything"
        else:
            most = int(model.price.most(model.context, model.clamp(limit)))
            note = f"prompt of up to {model.context:,} tokens"
    return least or 0, price, most, note


def _of_climb(target: Any, known: Mapping[str, Any]) -> Bill:
    """Any rung may be the first that is tried, and all may be, once each."""
    predictors = [_estimate.predictor_of(program) for program in target.programs]
    fields = _fields(next((one for one in predictors if one is not None), None), known)
    empty = {name: "" if value is None else value for name, value in fields.items()}
    bills = target.bills({name: value or "x" * _estimate.USUAL for name, value in fields.items()})
    least = [most for _, most in target.bills(empty) if most is not None]
    models = [target.model_of(k) for k in range(len(bills))]
    mosts: list[int | None] = [most for _, most in bills]
    note = ""
    if None in fields.values():
        mosts = [_at_context(model, most) for model, (_, most) in zip(models, bills, strict=True)]
        note = "prompts of up to the models' contexts" if None not in mosts else "a rung's model has no context="
    most = None if None in mosts else sum(one for one in mosts if one is not None)
    return Bill(min(least, default=0), bills[0][0], most, sum(model.timeout for model in models), note)


def _at_context(model: Model, most: int | None) -> int | None:
    if most is None or model.context is None or model.price is None:
        return None
    return max(most, int(model.price.most(model.context, model.max_output)))


def _of_agent(agent: Any, known: Mapping[str, Any]) -> Bill:
    """Its own word for it: steps times the bound of one. With inputs that aren't known, no most is."""
    model = agent.own_model or _estimate.model_on(dspy.settings.lm)
    if model is None:
        return Bill(0, None, None, None, "its model is not one of a gateway: no price is known")
    fields = {name: known.get(name) for name in agent.signature.input_fields}
    usual, most = agent.bill(model, {name: value or "x" * _estimate.USUAL for name, value in fields.items()})
    if None in fields.values():
        return Bill(0, usual, None, None, "its prompt grows with inputs that other nodes make")
    return Bill(0, usual, most, None)


def _fields(predictor: dspy.Predict | None, known: Mapping[str, Any]) -> dict[str, Any]:
    return {} if predictor is None else {name: known.get(name) for name in predictor.signature.input_fields}
