"""What the tests of the registry share: a clock to turn, an engine that answers from a script, tools that count."""

from __future__ import annotations

import json
import threading
from typing import Any

import dspy
from dspy.lm15 import Message, Response, TextPart, ToolCallPart, Usage

from escalade.registry.ledger import Ledger, LedgerPurse
from escalade.registry.wall import govern


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


class _Script:
    """Answers with the items of a script, the last one for ever: a dict of fields for the chat adapter, a list of
    `(tool, arguments)` for native function calling, or an exception to raise.
    """

    supports_function_calling = True
    supports_response_schema = supports_reasoning = False
    supported_params = frozenset({"temperature", "max_tokens", "tools", "tool_choice"})

    def __init__(self, script: list[Any]) -> None:
        self.script, self.requests, self._lock = list(script), [], threading.Lock()

    def answer(self, request: Any) -> Response:
        with self._lock:
            self.requests.append(request)
            item = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, dict):
            parts = [TextPart("".join(f"[[ ## {k} ## ]]\n{_text(v)}\n\n" for k, v in item.items()) + DONE)]
        else:
            parts = [ToolCallPart(id=f"call_{n}", name=name, input=args) for n, (name, args) in enumerate(item)]
        finish = "stop" if isinstance(item, dict) else "tool_call"
        usage = Usage(input_tokens=10, output_tokens=5)
        return Response(
            id="1", model=request.model, message=Message.assistant(parts), finish_reason=finish, usage=usage
        )


DONE = "[[ ## completed ## ]]"


class ScriptEngine(_Script):
    """A foreign engine."""

    def complete(self, request: Any) -> Response:
        return self.answer(request)


class AsyncScriptEngine(_Script):
    """Its async half."""

    async def complete(self, request: Any) -> Response:
        return self.answer(request)


@govern
class GovernedScript(ScriptEngine):
    """An engine that the wall lets through, free of charge."""


@govern
class AsyncGovernedScript(AsyncScriptEngine):
    """Its async half."""


def scripted_lm(*script: Any, governed: bool = True) -> dspy.LM:
    """An LM that follows the script; both halves have a copy of their own."""
    pair = (GovernedScript, AsyncGovernedScript) if governed else (ScriptEngine, AsyncScriptEngine)
    engine, async_engine = (kind(list(script)) for kind in pair)
    return dspy.LM("script/lm", engine=engine, async_engine=async_engine, cache=False, num_retries=0)


def requests(lm: dspy.LM) -> int:
    """How often the engines were asked."""
    return len(lm._engine_spec.requests) + len(lm._async_engine_spec.requests)


def react_script(tool: str, args: dict[str, Any]) -> list[Any]:
    """ReAct calls the tool once, then finishes and answers."""
    return [
        {"next_thought": "look", "next_tool_name": tool, "next_tool_args": args},
        {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}},
        {"reasoning": "so", "answer": "42"},
    ]


def purse(limit: int | None = None) -> LedgerPurse:
    """A purse in a ledger of its own."""
    return Ledger().purse(limit=limit)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
