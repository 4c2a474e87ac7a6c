"""The two shapes of an agent's prompts: ReAct's, all in text, and ReActV2's, with the provider's own tool calls.

A shape makes the predictors, writes the inputs of the next turn from the steps so far, and reads what the model wants.
It keeps no state. The prompts are DSPy's own, so that what optimisers know of ReAct holds here, too.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import dspy
from dspy.utils.exceptions import AdapterParseError

from escalade.agents._steps import Step, flat
from escalade.errors import BadInput

_TAKEN = frozenset({"trajectory", "next_thought", "next_tool_name", "next_tool_args"})

CONVERSATION = "conversation"
"""The input that a `dspy.History` of the signature becomes: the earlier turns as text."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that the model wants to be made."""

    name: str
    args: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a predictor is to be asked. `tools`: those of its inputs, whose schemas are sent, too."""

    predictor: str
    inputs: Mapping[str, Any]
    config: Mapping[str, Any] | None = None
    tools: Sequence[Any] = ()


class Shape(Protocol):
    """One of the two."""

    names: tuple[str, ...]
    """Of its predictors."""
    most_calls: int
    """Calls that one turn may make."""
    submits: bool
    """Does the call that ends it bring the answer? If not, the answer is asked for."""

    def next(self, inputs: Mapping[str, Any], steps: Sequence[Step], tools: Sequence[Any]) -> Prompt:
        """The next turn."""
        ...

    def last(self, next_: Prompt) -> Prompt:
        """The answer, with what it has: it is asked for with the inputs of what would be the next turn."""
        ...

    def read(self, said: Any) -> tuple[str, list[Wanted]]:
        """What it thought, and the calls that it wants."""
        ...

    def ends(self, wanted: Wanted) -> bool:
        """Does this call mean that it is done?"""
        ...

    def outputs(self, said: Any) -> dict[str, Any]:
        """The answer's fields. Raises AdapterParseError."""
        ...


class TextShape:
    """ReAct: thought, tool and arguments as fields of text; a second predictor answers."""

    most_calls: int = 1
    submits: bool = False

    names: tuple[str, ...] = ("react", "extract")

    def __init__(self, signature: Any) -> None:
        self._outputs = tuple(signature.output_fields)

    def next(self, inputs: Mapping[str, Any], steps: Sequence[Step], tools: Sequence[Any]) -> Prompt:
        return Prompt("react", {**inputs, "trajectory": _written(steps)})

    def last(self, next_: Prompt) -> Prompt:
        return Prompt("extract", next_.inputs)

    def read(self, said: Any) -> tuple[str, list[Wanted]]:
        return _text(said.get("next_thought")), [Wanted(str(said.next_tool_name), dict(said.next_tool_args or {}))]

    def ends(self, wanted: Wanted) -> bool:
        return wanted.name == "finish"

    def outputs(self, said: Any) -> dict[str, Any]:
        return {name: said[name] for name in ("reasoning", *self._outputs) if name in said}


class NativeShape:
    """ReActV2: the provider's own tool calls, several in a turn; a tool `submit` takes the answer.

    With a model that has no tool calls of its own, they are written as text.
    """

    most_calls: int = 4
    submits: bool = True

    names: tuple[str, ...] = ("react",)

    def __init__(self, signature: Any, submit: Any) -> None:
        self._signature, self._submit = signature, submit

    def next(self, inputs: Mapping[str, Any], steps: Sequence[Step], tools: Sequence[Any]) -> Prompt:
        events = [_event(step) for step in steps]
        if events:
            events[0] = {**inputs, **events[0]}
        first = {} if events else inputs
        tools = [*tools, self._submit]
        return Prompt("react", {"history": dspy.History(messages=events), "tools": tools, **first}, tools=tools)

    def last(self, next_: Prompt) -> Prompt:
        choice = {"type": "function", "function": {"name": "submit"}}
        return replace(next_, config={"tool_choice": choice, "reasoning_effort": None})

    def read(self, said: Any) -> tuple[str, list[Wanted]]:
        calls = said.get("tool_calls")
        calls = [] if calls is None else dspy.ToolCalls.model_validate(calls).tool_calls
        return _text(said.get("next_thought")), [Wanted(one.name, one.args or {}, one.id or "") for one in calls]

    def ends(self, wanted: Wanted) -> bool:
        return wanted.name == "submit"

    def outputs(self, said: Any) -> dict[str, Any]:
        """Of a prediction, or of the call itself."""
        try:
            wanted = said if isinstance(said, Wanted) else next(filter(self.ends, self.read(said)[1]), None)
            answer: dict[str, Any] | None = None if wanted is None else self._submit(**wanted.args)
        except (ValueError, TypeError) as error:
            raise self._unreadable(said, f"what the model submitted is no answer: {error}") from None
        if answer is None:
            raise self._unreadable(said, "the model did not submit an answer")
        return answer

    def _unreadable(self, said: Any, why: str) -> AdapterParseError:
        return AdapterParseError("ToolAgent", self._signature, str(said), message=why)


def shaped(style: str, signature: Any, tools: Sequence[Any]) -> tuple[Shape, dict[str, Any]]:
    """The shape, and its predictors by name. Raises BadInput for another style, and for a signature that the shape
    can't have.
    """
    if style == "text":
        taken = _TAKEN & signature.fields.keys()
        if taken:
            raise BadInput(f"an agent in text has fields of its own called {', '.join(sorted(taken))}; rename yours")
        react = dspy.ReAct(signature, list(tools))
        return TextShape(signature), {"react": react.react, "extract": react.extract}
    if style != "native":
        raise BadInput(f"style: expected 'text' or 'native', got {style!r}")
    from dspy.predict.react_v2 import ReActV2

    try:
        native = ReActV2(signature, list(tools))
    except ValueError as error:
        raise BadInput(f"a native agent can't have this signature: {error}") from None
    submit = native.tools["submit"]
    picklable = dspy.Tool(
        Submit(tuple(signature.output_fields)),
        name=submit.name,
        desc=submit.desc,
        args=submit.args,
        arg_types=submit.arg_types,
    )
    return NativeShape(signature, picklable), {"react": native.react}


@dataclass(frozen=True)
class Submit:
    """Takes the answer. ReActV2's own is a local function, and demonstrations that hold it can't be pickled, so that
    BootstrapFewShot fails with it.
    """

    outputs: tuple[str, ...]

    def __call__(self, **given: Any) -> dict[str, Any]:
        missing = [name for name in self.outputs if name not in given]
        if missing:
            raise ValueError(f"Missing required final output field(s): {', '.join(missing)}")
        return {name: given[name] for name in self.outputs}


def talkless(signature: Any) -> tuple[Any, str]:
    """The signature with its `dspy.History` as text, and the name of that field; "" if it has none."""
    name = history_field(signature)
    if name:
        if CONVERSATION in signature.fields:
            raise BadInput(f"{name!r} becomes an input {CONVERSATION!r}, and the signature has one; rename it")
        signature = signature.delete(name).append(
            CONVERSATION, dspy.InputField(desc="earlier turns of this conversation, oldest first"), type_=str
        )
    return signature, name


def history_field(signature: Any) -> str:
    """The input that is a `dspy.History`, "" if there is none."""
    return next((name for name, field in signature.input_fields.items() if field.annotation is dspy.History), "")


def conversation(history: Any) -> str:
    """Earlier turns as text, `field: value` a line, turns apart."""
    if history is None:
        return ""
    messages = dspy.History.model_validate(history).messages
    return "\n\n".join("\n".join(f"{name}: {value}" for name, value in turn.items()) for turn in messages)


def _written(steps: Sequence[Step]) -> str:
    trajectory = flat(list(steps))
    if not trajectory:
        return ""
    adapter = dspy.settings.adapter or dspy.ChatAdapter()
    shown: str = adapter.format_user_message_content(_trajectory(tuple(trajectory)), trajectory)
    return shown


@functools.lru_cache(256)
def _trajectory(names: tuple[str, ...]) -> Any:
    """Made once for a number of calls: DSPy takes 2 ms for it."""
    return dspy.Signature(f"{', '.join(names)} -> x")


def _event(step: Step) -> dict[str, Any]:
    from dspy.adapters.types.tool import ToolCallResults

    calls = dspy.ToolCalls.from_dict_list(
        [{"name": used.name, "args": dict(used.args), "id": used.id} for used in step.calls]
    )
    results = ToolCallResults.from_tool_calls_and_values(
        calls, [used.observation for used in step.calls], [bool(used.error) for used in step.calls]
    )
    event: dict[str, Any] = {"tool_calls": calls.model_copy(update={"tool_call_results": results})}
    return {"next_thought": step.thought, **event} if step.thought else event


def _text(value: Any) -> str:
    return "" if value is None else str(getattr(value, "content", value))


def observed(result: Any, most: int) -> str:
    """A result as a model reads it: text as it is, anything else as JSON; at most so many bytes, and the rest told."""
    if isinstance(result, str):
        text = result
    else:
        from pydantic_core import to_json

        text = to_json(result, fallback=repr).decode()
    return cut(text, most)


def cut(text: str, most: int) -> str:
    """At most so many bytes, marked."""
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= most:
        return text
    return f"{raw[:most].decode('utf-8', 'ignore')}… ({len(raw) - most:,} bytes more are not shown)"


def shown_args(args: Mapping[str, Any], most: int) -> Mapping[str, Any]:
    """Arguments as later turns show them; too long ones are only told of."""
    size = len(json.dumps(args, default=str))
    return args if size <= most else {"note": f"{size:,} bytes of arguments are not repeated"}
