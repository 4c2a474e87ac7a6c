"""Tools: what they are called, what they take, what they cost, who may use them, and the decorator that says so.

    @tool(name="crm.search", version="1.2.0", cost="0.002", limits="5/s, 100/min", side_effects="read")
    def search(query: str, limit: int = 10) -> list[str]:
        "Customers whose name contains the query."
        ...

    registry = Registry([search])

A decorated function can't be called directly: what can be used at all is used through a registry, under its guard. (For
unit tests of the function itself, decorate another name: `search_tool = tool(search)`.)
"""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal, NoReturn, overload

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from escalade.errors import BadInput, ToolError, UnknownName
from escalade.money import Money, money_or_none
from escalade.registry.access.conditions import Condition, parse_condition
from escalade.registry.handling import Handling
from escalade.registry.limits import RateLimit, parse_limits
from escalade.registry.metering import CostOf
from escalade.registry.schema import Inputs, is_async, is_generator, output_schema
from escalade.registry.versions import parse_version

SideEffects = Literal["none", "read", "write", "irreversible"]
"""none: computes; read: looks at the world; write: changes it, and it can be undone; irreversible: it can't."""

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_TAKEN = {
    "finish": "ReAct replaces a tool of that name by its own",
    "submit": "ReActV2 has a tool of that name",
    "llm_query": "RLM has a function of that name",
    "llm_query_batched": "RLM has a function of that name",
    "print": "RLM has a function of that name",
    "dspy": "RLM has a module of that name",
}


NOTHING_DRY: Any = object()
"""A tool that wasn't declared with `dry=...`."""


def _limits(value: Any) -> Any:
    """As people write them; a list is what a dumped spec has."""
    return value if isinstance(value, list) else parse_limits(value)


class ToolSpec(Handling):
    """All that is known of one version of a tool. Immutable: a change is a new version.

    `name`: dotted, lower-case, like "crm.search". `version`: semantic, without build metadata. `input_schema`: JSON
    schema of the arguments, an object. `output_schema`: of the result, None when it isn't known. `cost`: dollars per
    call, also of one that failed; 0 is free, None is unknown (which it is with `max_cost`, unless said otherwise), and
    then `max_cost` counts, or a budget refuses it. `limits`: rate limits, all of them at once; `limits_per`: whether
    each tenant or user has his own. `permission`: what a role must grant,
    "<name>:call" by default. `side_effects`: "write" unless said otherwise, the careful assumption. `approval`:
    "always" when a person must agree to each call, or a condition like {"amount": {">": 100}}. `timeout`: seconds,
    None for none; the scope's deadline holds besides. How its calls are repeated, kept, waited for and charged: see
    `Handling`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str = "1.0.0"
    description: str = ""
    input_schema: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    output_schema: dict[str, Any] | None = None
    cost: Annotated[Money | None, BeforeValidator(money_or_none)] = Money(0)
    limits: Annotated[tuple[RateLimit, ...], BeforeValidator(_limits)] = ()
    limits_per: Literal["resource", "tenant", "user"] = "resource"
    permission: str = ""
    side_effects: SideEffects = "write"
    approval: Literal["always"] | dict[str, Any] | None = None
    timeout: float | None = Field(default=None, gt=0)
    tags: tuple[str, ...] = ()
    owner: str = ""

    @property
    def label(self) -> str:
        """`crm.search@1.2.0`."""
        return f"{self.name}@{self.version}"

    @property
    def model_name(self) -> str:
        """What models call it: `crm_search`. Providers allow no dots, and RLM wants an identifier."""
        return self.name.replace(".", "_")

    @property
    def most(self) -> Money | None:
        """Dollars that one call costs at most, None for unknown."""
        return self.max_cost if self.cost is None else self.cost

    @property
    def wants_approval(self) -> Literal["always"] | Condition | None:
        """`approval`, ready to be asked."""
        return parse_condition(self.approval, self.name) if isinstance(self.approval, dict) else self.approval

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name) or len(name) > 64:
            raise ValueError(f"{name!r} is not a tool name; write it like 'crm.search', at most 64 characters")
        model_name = name.replace(".", "_")
        reason = "it is a word of Python" if keyword.iskeyword(model_name) else _TAKEN.get(model_name)
        if reason:
            raise ValueError(f"a tool can't be called {name!r}: {reason}")
        return name

    @field_validator("version")
    @classmethod
    def _check_version(cls, version: str) -> str:
        parse_version(version)
        return version

    @field_validator("tags", "approval", mode="before")
    @classmethod
    def _check_text(cls, given: Any, info: ValidationInfo) -> Any:
        """A text where a list, or a condition, belongs."""
        if isinstance(given, str) and info.field_name == "tags":
            raise ValueError(f"expected a list, [{given!r}]")
        if isinstance(given, str) and given != "always":
            raise ValueError(f"expected 'always', or a condition like {{'amount': {{'>': 100}}}}, got {given!r}")
        return given

    @field_validator("approval")
    @classmethod
    def _check_approval(cls, approval: Any) -> Any:
        return parse_condition(approval, "a condition").to_json() if isinstance(approval, dict) else approval

    @field_validator("cost")
    @classmethod
    def _check_cost(cls, cost: Money | None) -> Money | None:
        if cost is not None and cost < 0:
            raise ValueError(f"a cost can't be negative: {cost}")
        return cost

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        cost = {} if values.get("max_cost") is None else {"cost": None}
        return {**cost, **values, "permission": values.get("permission") or f"{values.get('name')}:call"}


class ToolDefinition:
    """A function with its spec: what a registry takes. Made by `tool`; immutable, so that copies of it are itself."""

    __slots__ = ("_function", "cost_of", "dry", "inputs", "is_async", "spec")

    _function: Callable[..., Any]
    spec: ToolSpec
    inputs: Inputs
    is_async: bool
    cost_of: CostOf | None
    dry: Any

    def __init__(
        self,
        function: Callable[..., Any],
        spec: ToolSpec,
        inputs: Inputs,
        cost_of: CostOf | None = None,
        dry: Any = NOTHING_DRY,
    ) -> None:
        for name, value in (
            ("_function", function), ("spec", spec), ("inputs", inputs), ("is_async", is_async(function)),
            ("cost_of", cost_of), ("dry", dry),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise ToolError(
            f"tool {self.spec.label} is used through a registry, under its guard: "
            f"`Registry([...]).get_tool({self.spec.name!r})(...)`"
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"tool {self.spec.label} is immutable; publish a new version")

    def __copy__(self) -> ToolDefinition:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ToolDefinition:
        return self

    def __repr__(self) -> str:
        return f"<tool {self.spec.label}>"


@overload
def tool(function: Callable[..., Any], /) -> ToolDefinition: ...
@overload
def tool(
    *,
    name: str | None = None,
    version: str = "1.0.0",
    description: str | None = None,
    cost: str | Decimal | Money | CostOf | None = "0",
    limits: str | dict[str, str] | RateLimit | tuple[RateLimit, ...] | None = None,
    limits_per: Literal["resource", "tenant", "user"] = "resource",
    permission: str = "",
    side_effects: SideEffects = "write",
    approval: Literal["always"] | dict[str, Any] | None = None,
    timeout: float | None = None,
    tags: tuple[str, ...] | list[str] = (),
    owner: str = "",
    max_cost: str | Decimal | Money | None = None,
    metered: bool = False,
    wait: bool = False,
    when_store_is_down: Literal["closed", "open"] = "closed",
    idempotent: bool = False,
    retries: int = 0,
    max_concurrent: int | None = None,
    once: bool = False,
    cache: float | None = None,
    cache_per: Literal["tenant", "user"] = "tenant",
    dry: Any = ...,
) -> Callable[[Callable[..., Any]], ToolDefinition]: ...
def tool(function: Callable[..., Any] | None = None, /, **said: Any) -> Any:
    """Make a tool of a function, sync or async: `@tool`, or `@tool(name=..., cost=...)`; fields as in `ToolSpec`.

    The name is the function's own and the description its docstring, unless said otherwise. The input schema comes
    from the type hints: each parameter needs one; `Annotated[int, Field(description=..., ge=1)]` says more. The
    function may raise `ToolError` for what is the caller's fault: anything else counts as a failure of the tool and
    may open its breaker. `cost` may be a function of the arguments (a dict), too. `dry`: what a dry run answers, a
    value or a function of the same arguments.

    Raises BadInput, which names the parameter.
    """
    if function is None:
        return lambda decorated: define(decorated, **said)
    return define(function, **said)


def define(function: Callable[..., Any], **said: Any) -> ToolDefinition:
    """`tool(**said)(function)`, as one call."""
    if isinstance(function, ToolDefinition) or not callable(function):
        raise BadInput(f"@tool takes a function, got {function!r}")
    name = said.pop("name", None) or getattr(function, "__name__", type(function).__name__).lower()
    if is_generator(function):
        raise BadInput(f"tool {name!r} is a generator; return a list instead: a model gets one answer per call")
    description = said.pop("description", None)
    dry, cost_of = said.pop("dry", NOTHING_DRY), None
    if callable(said.get("cost")):
        cost_of, said["cost"] = said["cost"], None
    fields = {
        "name": name,
        "description": inspect.getdoc(function) or "" if description is None else description,
        **said,
    }
    try:
        ToolSpec(**fields)  # before the schema, whose errors name the tool
        inputs = Inputs(function, name.replace(".", "_"))
        spec = ToolSpec(**fields, input_schema=inputs.schema, output_schema=output_schema(inputs.output))
    except ValidationError as error:
        raise _bad(name, error) from None
    return ToolDefinition(function, spec, inputs, cost_of, dry)


def _bad(name: str, error: ValidationError) -> BadInput:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = ({*ToolSpec.model_fields} | {"dry"}) - {"input_schema", "output_schema"}
        return BadInput(f"tool {name!r}: {UnknownName('field', where, sorted(known))}")
    message = first["msg"].removeprefix("Value error, ")
    return BadInput(": ".join(part for part in (f"tool {name!r}", where, message) if part))
