"""A complete answer as the events of a stream, its text in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspy.lm15 import response_to_events

if TYPE_CHECKING:
    from dspy.lm15 import Response


def pieces(answer: Response, size: int) -> Iterator[Any]:
    """One start event; text and arguments of tools in deltas of at most `size` characters, others whole; one end event
    with the usage.
    """
    for event in response_to_events(answer):
        kind = event.delta.type if event.type == "delta" else ""
        if kind == "text":
            text = event.delta.text
            for at in range(0, len(text), size):
                # Log probabilities belong to the whole text: they travel with its first piece.
                scores = {} if at == 0 else {"logprobs": (), "logprobs_complete": True}
                yield replace(event, delta=replace(event.delta, text=text[at : at + size], **scores))
        elif kind == "tool_call" and event.delta.input:
            given = event.delta.input
            for at in range(0, len(given), size):
                called = {} if at == 0 else {"name": None, "id": None}
                yield replace(event, delta=replace(event.delta, input=given[at : at + size], **called))
        else:
            yield event
