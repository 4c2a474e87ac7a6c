"""What an agent may cost: steps times the bound of one, so that it may stand on a rung of a ladder.

Each turn's prompt has the question, the tools and all steps before; a step adds a thought, the arguments and the result
of each call, cut to `shown` bytes each. So turn k is bounded, and the answer after it. The bound is enforced, too: the
agent's scope has it for a budget, whatever adapters and fallbacks make of a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import dspy

from escalade.agents._estimate import Bill, _size, model_on, predictor_of
from escalade.agents._shapes import Prompt, Shape
from escalade.agents.models import Model
from escalade.registry.governed import GovernedTool

_FRAME = 256
"""Bytes around a call: names of fields, ids."""

USUAL_STEPS = 2
"""Steps of a usual answer, for the expected price."""


def growth(shape: Shape, shown: int) -> int:
    """Bytes that a step adds to the next prompt at most."""
    return shown + shape.most_calls * (2 * shown + _FRAME)


def bill(
    shape: Shape, predictors: Mapping[str, Any], model: Model, inputs: Mapping[str, Any],
    tools: Iterable[GovernedTool], max_steps: int, shown: int,
) -> Bill:  # fmt: skip
    """(expected price, upper bound) of a run. Unknown for an unpriced model, and with an unpriced tool."""
    tools = list(tools)
    first = shape.next(inputs, (), tools)
    turn, end = _both(predictors, first, shape.last(first))
    more = growth(shape, shown)
    sizes = [*(turn + k * more for k in range(max_steps)), end + max_steps * more]
    bounds = [model.ceiling(size, _limit(predictors, first)) for size in sizes]
    charges = [_most(tool) for tool in tools]
    usual = model.expected(turn)
    if any(one is None for one in (*bounds, *charges)) or usual is None:
        return None, None
    paid = max((charge or 0 for charge in charges), default=0)
    most = sum(bound or 0 for bound in bounds) + max_steps * shape.most_calls * paid
    return (USUAL_STEPS + 1) * usual, most


def prompt_bytes(predictors: Mapping[str, Any], prompt: Prompt) -> int:
    """UTF-8 bytes of a prompt at most; tools are counted as text and as schemas, one of which is sent.

    Before the first step tools are all that is no text, and rendered once as long as they say the same.
    """
    schemas = tuple(repr(tool.format_as_litellm_function_call()) for tool in prompt.tools)
    others = [one for one in prompt.inputs.values() if not isinstance(one, str) and one is not prompt.tools]
    same = schemas if all(isinstance(value, dspy.History) and not value.messages for value in others) else None
    size = _size(_predictor(predictors[prompt.predictor]), prompt.inputs, same)
    return size + sum(len(schema.encode()) + 64 for schema in schemas)


def _both(predictors: Mapping[str, Any], next_: Prompt, last: Prompt) -> tuple[int, int]:
    """Bytes of the next turn and of the answer after it, which may be the same predictor's, with the same inputs."""
    turn = prompt_bytes(predictors, next_)
    return turn, turn if last.predictor == next_.predictor else prompt_bytes(predictors, last)


def bounds(
    predictors: Mapping[str, Any], model: Model, next_: Prompt, last: Prompt, more: int
) -> tuple[int, int] | None:
    """Nano-dollars that the next turn costs at most, and the answer after it; None where the price is unknown."""
    size, size_after = _both(predictors, next_, last)
    turn = model.ceiling(size, _limit(predictors, next_))
    end = model.ceiling(size_after + more, _limit(predictors, last))
    return None if turn is None or end is None else (turn, end)


def model_of(predictor: Any) -> Model | None:
    """The governed model that it would ask here, None for none."""
    return model_on(_predictor(predictor).lm or dspy.settings.lm)


def _predictor(program: Any) -> Any:
    return predictor_of(program) or program


def _limit(predictors: Mapping[str, Any], prompt: Prompt) -> int | None:
    limit: int | None = _predictor(predictors[prompt.predictor]).config.get("max_tokens")
    return limit


def _most(tool: GovernedTool) -> int | None:
    spec = tool.spec
    most = spec.max_cost if spec.max_cost is not None else spec.cost
    return None if most is None else int(most) * (1 + spec.retries)
