"""Following one run of a pipeline: its events, what models write, what nodes return."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import dspy

from escalade import events
from escalade.agents._pipe import Pipe, carried
from escalade.agents._sink import SHOWABLE, SINK, Sink
from escalade.errors import BadInput
from escalade.pipelines.watching.listening import heard_by

if TYPE_CHECKING:
    from escalade.pipelines.pipeline import Pipeline

AHEAD = 16
"""Events that may wait for the reader before models wait with the next token."""


async def followed(
    pipeline: Pipeline, inputs: dict[str, Any], *, tokens: bool, results: bool, on: Any
) -> AsyncGenerator[events.Event, None]:
    """The events of one call; see `Pipeline.stream`. Raises BadInput for what is no class of events."""
    kinds = _kinds(on)
    tokens, results = tokens or events.Token in kinds, results or events.NodeResult in kinds
    if kinds:
        kinds += (events.Token, events.RungStarted) * tokens + (events.NodeResult,) * results
    pipe = Pipe(AHEAD, on=kinds, results=results)
    async with contextlib.aclosing(carried(pipe, _heard(pipeline, pipe, inputs, tokens=tokens))) as told:
        async for event in told:
            yield event


def _kinds(on: Any) -> tuple[type[events.Event], ...]:
    kinds = on if isinstance(on, tuple) else (on,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, events.Event)):
            raise BadInput(f"on: expected classes of events, such as NodeFinished, got {kind!r}")
    return kinds


async def _heard(pipeline: Pipeline, pipe: Pipe, inputs: dict[str, Any], *, tokens: bool) -> Any:
    """Run it with one more listener."""
    run_id, more = heard_by(pipe)
    if tokens:
        sink = Sink(pipe, run_id, provisional=True)
        more |= {SINK: sink, "send_stream": sink.receiver(pipeline), **SHOWABLE}
    with dspy.context(**more):
        return await pipeline.acall(**inputs)
