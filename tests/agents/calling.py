"""A transport whose script calls tools, in the provider's own form or in ReAct's text."""

from __future__ import annotations

import json

from dspy.lm15 import Message, Response, TextPart, ToolCallPart, Usage

from tests.agents.scripted import Scripted

TOKENS = (100, 20)


class Calling(Scripted):
    """As `Scripted`; a list of (tool, arguments) is answered with the provider's own tool calls."""

    def _response(self, request, text, finish="stop"):
        item = self._item
        if not isinstance(item, list):
            return super()._response(request, text, finish)
        parts = [
            ToolCallPart(id=f"{len(self.requests)}-{at}", name=name, input=args) for at, (name, args) in enumerate(item)
        ]
        usage = Usage(input_tokens=TOKENS[0], output_tokens=TOKENS[1])
        return Response(
            id="1", model=request.model, message=Message.assistant(parts), finish_reason="tool_call", usage=usage
        )

    def _next(self, request):
        self._item = super()._next(request)
        return self._item


class ByQuestion:
    """Answers by what it is asked: one function of the whole prompt, as text, so that any number may ask at once."""

    name = "by-question"
    supports_function_calling = supports_response_schema = True
    supports_reasoning = False
    supported_params = frozenset({"temperature", "max_tokens"})

    def __init__(self, answer):
        self._answer = answer

    def complete(self, request):
        text = self._answer("\n".join(part.text for message in request.messages for part in message.parts))
        usage = Usage(input_tokens=TOKENS[0], output_tokens=TOKENS[1])
        return Response(
            id="1", model=request.model, message=Message.assistant([TextPart(text)]), finish_reason="stop", usage=usage
        )

    async def acomplete(self, request):
        return self.complete(request)


def wants(tool, thought="hm", **args):
    """One turn of ReAct in the Chat format."""
    return fields(next_thought=thought, next_tool_name=tool, next_tool_args=json.dumps(args))


def done(answer, **more):
    """The two turns that end a ReAct."""
    return [wants("finish"), fields(reasoning="so", answer=answer, **more)]


def fields(**values):
    """A completion in the Chat format."""
    return "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in values.items()) + "[[ ## completed ## ]]"
