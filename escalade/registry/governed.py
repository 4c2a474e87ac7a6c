"""GovernedTool: a `dspy.Tool` that enforces inside its function.

DSPy reaches a tool by many ways: `tool(...)`, `tool.acall(...)`, `tool.func(...)` (in `ToolCall.execute` and RLM), by
ReAct, ReActV2 and native function calling. The guard is therefore in `func` itself, and the function that it guards
is nowhere to be had: there is no `__wrapped__`, and a `dspy.Tool` made of `func` is as governed as this one.

Copies (DSPy copies programs all the time) have a description of their own, which optimisers may rewrite, and share
everything that counts: limits, breaker, usage. Pickles hold the name of the registry and find the tool there again.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import dspy
from dspy.utils.callback import with_callbacks
from pydantic import PrivateAttr

from escalade.errors import BadInput, EscaladeError
from escalade.registry import code_act
from escalade.registry.calling import Registered
from escalade.registry.elsewhere import elsewhere, is_remote
from escalade.registry.messages import shown
from escalade.registry.tools import ToolSpec
from escalade.scopes import current

_DESCRIBES = frozenset({"desc", "args", "arg_desc"})
"""What may be changed: it is shown to models and decides nothing."""


class GovernedTool(dspy.Tool):
    """One version of a tool, as DSPy uses it. Made by a registry: `registry.get_tool("crm.search", "^1.2")`.

    Called with the tool's arguments; awaited with `acall`. Raises the guard's refusals (PermissionDenied, RateLimited,
    CircuitOpen, BudgetExceeded, DeadlineExceeded), NoScope, InvalidArguments, ToolTimeout, and for what the tool's own
    code raises ToolFailed, of that class as well. Their text is one line for models (`registry/messages.py`); the
    original is their `__cause__`.
    """

    _registered: Registered = PrivateAttr()
    _floats: str | None = PrivateAttr()

    def __init__(self, registered: Registered, floats: str | None = None) -> None:
        spec = registered.spec
        inputs = registered.definition.inputs
        args = {name: dict(schema) for name, schema in inputs.properties.items()}  # its own: optimisers may rewrite it
        super().__init__(
            func=door(registered, floats),
            name=spec.model_name,
            desc=spec.description,
            args=args,
            arg_types=inputs.hints,
        )
        self._registered, self._floats = registered, floats

    @property
    def spec(self) -> ToolSpec:
        """What the registry knows of it."""
        return self._registered.spec

    def _parse_function(self, func: Callable[..., Any], arg_desc: dict[str, str] | None = None) -> None:
        """Nothing to find out: the registry has compiled the schema once, better than DSPy would each time."""

    def _validate_and_parse_args(self, **kwargs: Any) -> dict[str, Any]:
        """The arguments as they are: `func` checks them, after the roles."""
        return kwargs

    def __call__(self, /, **kwargs: Any) -> Any:
        return self._call(kwargs)

    async def acall(self, /, **kwargs: Any) -> Any:
        return await self._acall(kwargs)

    # Callbacks see what they see of any tool. The arguments are a dict here, since DSPy's decorator has parameters of
    # its own: a tool may have one called `instance` or `self`.

    @with_callbacks
    def _call(self, kwargs: dict[str, Any]) -> Any:
        try:
            return self._registered.now(self._floats).call((), kwargs)
        except Exception as error:
            raise shown(error, self.spec) from error

    @with_callbacks
    async def _acall(self, kwargs: dict[str, Any]) -> Any:
        try:
            return await self._registered.now(self._floats).acall((), kwargs)
        except Exception as error:
            raise await _shown(error, self.spec) from error

    def format_as_litellm_function_call(self) -> dict[str, Any]:
        """For native function calling, with the whole schema: DSPy's own drops `required`, definitions and
        strictness.
        """
        schema = self._registered.spec.input_schema
        properties = {**schema["properties"], **(self.args or {})}
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.desc,
                "parameters": {
                    "type": "object",
                    "properties": properties,
                    "required": list(schema.get("required", ())),
                    "additionalProperties": False,
                },
            },
        }

    def __setattr__(self, name: str, value: Any) -> None:
        if name in type(self).model_fields and name not in _DESCRIBES:
            raise BadInput(
                f"{name!r} of governed tool {self.spec.label} can't be replaced; register a tool of your own"
            )
        super().__setattr__(name, value)

    def __copy__(self) -> GovernedTool:
        twin = GovernedTool(self._registered, self._floats)
        twin._describe(self.desc, self.args, self.arg_desc)
        return twin

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> GovernedTool:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        registry, spec = self._registered.registry, self.spec
        if not registry.findable:
            raise pickle.PicklingError(
                f"can't pickle tool {spec.label}: another registry has taken the name {registry.name!r} of its own; "
                f"give each registry a name, Registry(name=...)"
            )
        described = (self.desc, self.args, self.arg_desc)
        return _unpickled, (registry.name, spec.name, spec.version, *described, self._floats)

    def _describe(self, desc: str | None, args: dict[str, Any] | None, arg_desc: dict[str, str] | None) -> None:
        self.desc, self.args, self.arg_desc = desc, copy.deepcopy(args), copy.deepcopy(arg_desc)


def door(registered: Registered, floats: str | None = None) -> Callable[..., Any]:
    """A plain function through the guard. It has the tool's signature, which DSPy, RLM and people read."""

    def governed(*args: Any, **kwargs: Any) -> Any:
        try:
            return registered.now(floats).call(args, kwargs)
        except Exception as error:
            raise shown(error, registered.spec) from error

    async def agoverned(*args: Any, **kwargs: Any) -> Any:
        try:
            return await registered.now(floats).acall(args, kwargs)
        except Exception as error:
            raise await _shown(error, registered.spec) from error

    function: Any = agoverned if registered.definition.is_async else governed
    inputs = registered.definition.inputs
    function.__name__ = function.__qualname__ = registered.spec.model_name
    function.__doc__ = registered.spec.description
    function.__signature__ = inputs.signature
    function.__annotations__ = dict(inputs.hints)
    setattr(function, code_act.GOVERNED, registered.spec.label)
    return cast("Callable[..., Any]", function)


async def _shown(error: Exception, spec: ToolSpec) -> EscaladeError:
    """`shown`, which says what the budget has left, without blocking the event loop where a store is asked for that."""
    scope = current()
    if scope is not None and is_remote(scope.purse):
        return await elsewhere(partial(shown, error, spec))
    return shown(error, spec)


code_act.refuse()


def _unpickled(
    registry: str,
    name: str,
    version: str,
    desc: str | None,
    args: dict[str, Any],
    arg_desc: dict[str, str] | None,
    floats: str | None = None,
) -> GovernedTool:
    from escalade.registry.catalogue import find_registry

    found = GovernedTool(find_registry(registry).resolve(name, version)._registered, floats)
    found._describe(desc, args, arg_desc)
    return found
