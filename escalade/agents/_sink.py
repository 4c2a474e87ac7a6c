"""Where tokens go while an answer is written: from DSPy's engines to the reader of a stream.

The sink travels as a key of `dspy.context`. Each attempt of a rung gets a receiver of its own, which DSPy takes for its
`send_stream`. What isn't the answer (judges, peers, tools) is not shown, nor is what can't be shown without changing
it: samples, of which one is chosen later; log probabilities, which not every provider streams; typed decisions.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import dspy
from dspy.adapters.decision import resolve_adapter

from escalade import events
from escalade.agents._fields import Fields, text_fields
from escalade.agents._pipe import Pipe

SINK = "escalade_sink"
"""The key of `dspy.context` that carries the sink."""

QUIET: Mapping[str, Any] = {"send_stream": None, SINK: None}
"""Settings under which nothing is shown."""


class Sink:
    """One reader's. `pipe`: to him. `provisional`: is anything shown before it is certain to be the answer?"""

    def __init__(self, pipe: Pipe, run_id: str, *, provisional: bool) -> None:
        self.pipe, self.run_id, self.provisional = pipe, run_id, provisional
        self._drafts = itertools.count(1)
        self._shown: dict[str, tuple[int, str]] = {}
        self._rungs: dict[tuple[int, str], str] = {}

    def begin(self, rung: str) -> None:
        """A rung begins, of the climb at this node: others may climb at the same time."""
        here = events.here()
        if rung != self._rungs.get(here):
            self._rungs[here] = rung
            self._tell(events.RungStarted, rung=rung)

    def receiver(self, program: Any) -> Receiver:
        """For the calls of one attempt."""
        signature = getattr(program, "signature", None)
        rung = self._rungs.get(events.here(), "")
        return Receiver(self, rung, () if signature is None else text_fields(signature))

    def draft(self) -> int:
        """The number of one more."""
        return next(self._drafts)

    async def show(self, field: str, text: str, draft: int, rung: str, *, whole: str) -> None:
        """Tell a piece; waits while the reader is behind. `whole`: all of the field so far. Cancelled once he has left,
        which ends a thread that can't be cancelled otherwise: what it asked for is not written to its end.
        """
        if self.pipe.left:
            raise asyncio.CancelledError
        if draft >= self._shown.get(field, (0, ""))[0]:
            self._shown[field] = draft, whole
        self._tell(events.Token, text=text, field=field, draft=draft, rung=rung, provisional=bool(rung))
        await self.pipe.room()

    def finish(self, answer: Mapping[str, Any], names: tuple[str, ...], rung: str) -> None:
        """Tell the fields of the answer that the reader hasn't seen, or hasn't seen last."""
        shown = {name: text for name, (_, text) in self._shown.items()}
        unseen = [name for name in names if isinstance(answer.get(name), str) and shown.get(name) != answer[name]]
        draft = self.draft() if unseen else 0
        for name in unseen:
            self._tell(events.Token, text=answer[name], field=name, draft=draft, rung=rung)

    def _tell(self, kind: type[events.Event], **values: Any) -> None:
        events.send((self.pipe,), kind, self.run_id, events.here(), **values)


class Receiver:
    """What DSPy sends the chunks of one attempt to: of all its calls, some of which may run at once.

    `submits`: the fields that an agent's tool `submit` takes, whose arguments are its answer.
    """

    def __init__(self, sink: Sink, rung: str, submits: tuple[str, ...] = ()) -> None:
        self._sink, self._rung, self._submits = sink, rung, submits
        self._open: dict[Any, _Call] = {}

    async def send(self, chunk: Any) -> None:
        """A chunk of a call. Called by DSPy, in the context of the predictor that asked."""
        choice, key = chunk.choices[0], (chunk.predict_id, chunk.id)
        if key not in self._open:
            predictor = dspy.settings.caller_predict
            names = text_fields(predictor.signature) if predictor is not None else ()
            self._open[key] = _Call(self._sink.draft(), Fields(dspy.settings.adapter or dspy.ChatAdapter(), names))
        call = self._open[key]
        await self._show(call.draft, call.text, choice.delta.content or "")
        for part in getattr(choice.delta, "tool_calls", None) or ():
            name = getattr(part.function, "name", None)
            if name is not None:
                call.tools[part.index] = Fields(None, self._submits if name == "submit" else ())
            if part.index in call.tools:
                await self._show(call.draft, call.tools[part.index], part.function.arguments or "")
        if choice.finish_reason is not None:
            del self._open[key]

    async def _show(self, draft: int, fields: Fields, more: str) -> None:
        for name, text in fields.feed(more) if more else ():
            await self._sink.show(name, text, draft, self._rung, whole=fields.given[name])


@dataclass(slots=True)
class _Call:
    """One call of a model: its text, and its tool calls by number."""

    draft: int
    text: Fields
    tools: dict[int, Fields] = field(default_factory=dict)


def showing(rung: str, program: dspy.Module, *, answer: bool, plain: bool) -> Mapping[str, Any]:
    """DSPy's settings for one call of a rung. `answer`: it is no helper's. `plain`: it is the rung's one answer, asked
    for without log probabilities.
    """
    sink: Sink | None = dspy.settings.get(SINK)
    if sink is None:
        return {}
    if answer:
        sink.begin(rung)
    if not plain or not sink.provisional or decides(program):
        return {"send_stream": None}
    return {"send_stream": sink.receiver(program)}


def receiver_of(program: Any, sink: Sink) -> Receiver | None:
    """What takes the tokens of a node of a pipeline: None for a climb, which chooses itself what is shown."""
    return None if hasattr(program, "attempt_sync") else sink.receiver(program)


class _Showable:
    """Stands for DSPy's stream listeners, which it asks whether they are for a predictor: yes for all whose tokens can
    be shown. It is no typed decision, and DSPy can reach an event loop from here.
    """

    @property
    def predict(self) -> _Showable:
        return self

    def __eq__(self, predictor: object) -> bool:
        return isinstance(predictor, dspy.Module) and _reaches_a_loop() and not decides(predictor)

    __hash__ = None  # type: ignore[assignment]


SHOWABLE: Mapping[str, Any] = {"stream_listeners": [_Showable()]}
"""Settings under which whatever runs may be asked for its tokens."""

reaching = threading.local()
"""`reaching.loop` is true in threads from which DSPy reaches an event loop: anyio's."""


def _reaches_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return getattr(reaching, "loop", False)
    return _asked_by() == "aforward"  # a sync call would have to wait for the loop that it blocks


def _asked_by() -> str:
    """Which of a predictor's methods is it that asks? DSPy doesn't tell."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name not in ("forward", "aforward"):
        frame = frame.f_back
    return "" if frame is None else frame.f_code.co_name


def quietly() -> Mapping[str, Any]:
    """Settings for what is not the answer."""
    return {} if dspy.settings.get(SINK) is None else QUIET


def decides(program: dspy.Module) -> bool:
    """Has it outputs of DSPy's decision types? Those can't be streamed."""
    adapter = dspy.settings.adapter or dspy.ChatAdapter()
    return any(
        resolve_adapter(None, adapter, one.signature, one.fields, one.signature) is not adapter
        for one in program.predictors()
    )
