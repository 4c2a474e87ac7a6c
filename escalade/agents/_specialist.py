"""Agents as tools of other agents: specialists, under the same guard as any tool.

    registry = Registry([biller.as_tool("billing", description="Knows invoices.", budget=0.5)])
    coordinator = ToolAgent("question -> answer", tools=registry.tools(["billing"]), model="large")

What the specialist spends is paid by the scope of whoever calls it, from a share of its own; the tool itself costs
nothing. Roles decide who may use it, by the tool's permission. Specialists that call each other are bounded by depth.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

import dspy
from pydantic import Field

from escalade.agents._shapes import history_field
from escalade.errors import BadInput, ToolError
from escalade.money import Money, money_or_none
from escalade.registry.tools import ToolDefinition, define
from escalade.scopes import Entered, Scope, require

DEPTH = "escalade_depth"
"""The key of `dspy.context` that says how many specialists called each other on the way here."""


def as_tool(
    program: Any,
    name: str,
    *,
    description: str,
    budget: str | Decimal | Money | float | None = None,
    max_depth: int = 3,
    **options: Any,
) -> ToolDefinition:
    """A program with a signature (`ToolAgent`, `Escalate`, `dspy.Predict`, …) as a tool.

    `budget`: what one call may spend, dollars, or a float share of what its caller has left (0.25). `max_depth`: how
    deep specialists may call each other, this one included. `options`: as of `@tool`, such as `version`, `permission`,
    `limits`, `timeout`. Without `side_effects` it counts as one that writes. Raises BadInput.

    Its arguments are the signature's inputs, its result the one output, or a dict of several.
    """
    signature = getattr(program, "signature", None) or getattr(getattr(program, "predict", None), "signature", None)
    if signature is None:
        raise BadInput(f"tool {name!r}: a {type(program).__name__} has no signature that says what it takes")
    if max_depth < 1:
        raise BadInput(f"max_depth of {name!r}: expected 1 or more, got {max_depth!r}")
    if not hasattr(program, "aforward"):
        raise BadInput(f"tool {name!r}: a {type(program).__name__} has no aforward; wrap it in a module that has one")
    limit, history = budget_of(budget, name), history_field(signature)
    outputs = [one for one in signature.output_fields if one != "confidence"]

    async def specialist(**inputs: Any) -> Any:
        outer = require(f"specialist {name!r}")
        depth = dspy.settings.get(DEPTH, 0)
        if depth >= max_depth:
            raise ToolError(f"{name} is {depth} specialists deep already, and {max_depth} are allowed; answer yourself")
        # No scope of the guard holds the share: the tool's own reservation is free, what it calls pays.
        async with Entered(lambda: outer.narrow(name=name, budget=_share(limit, outer)), check=False):
            if history:  # each call begins a conversation
                inputs[history] = dspy.History(messages=[])
            with dspy.context(**{DEPTH: depth + 1}):
                answer = await program.acall(**inputs)
        return answer[outputs[0]] if len(outputs) == 1 else {one: answer[one] for one in outputs}

    _signed(specialist, signature)
    return define(specialist, name=name, description=description, **options)


def budget_of(budget: object, name: str) -> Money | float | None:
    """Dollars, or a share. Raises BadInput."""
    if isinstance(budget, float):
        if not 0 < budget <= 1:
            raise BadInput(
                f"budget of {name!r}: a float is a share between 0 and 1, got {budget!r}; write dollars as text"
            )
        return budget
    return money_or_none(budget)


def _share(limit: Money | float | None, outer: Scope) -> Money | None:
    if isinstance(limit, Money) or limit is None:
        return limit
    left = outer.purse.left()
    return None if left is None else Money(int(left * limit))


def _signed(function: Callable[..., Any], signature: Any) -> None:
    """The signature's inputs as the function's parameters, from which the schema of the tool is made."""
    parameters, hints = [], {}
    for name, info in signature.input_fields.items():
        if info.annotation is dspy.History:
            continue
        said = (info.json_schema_extra or {}).get("desc", "")
        plain = said in {"", f"${{{name}}}"}
        hints[name] = info.annotation if plain else Annotated[info.annotation, Field(description=said)]
        default = inspect.Parameter.empty if info.is_required() else info.default
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[name], default=default)
        )
    function.__annotations__ = hints
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect reads first
