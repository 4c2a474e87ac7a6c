"""Record a whole run once, models and tools together, and replay it without either.

    with record("runs/monday"):                 # asks, and writes down what came
        pipeline(question="?")
    with replay("runs/monday"):                 # never asks: the same answers, no network, nothing to pay for
        pipeline(question="?")

Two files: `runs/monday.models.jsonl`, as `transports.Recorded` keeps answers of models, and `runs/monday.tools.jsonl`,
a cassette as scopes have them. The n-th equal request gets the n-th answer to it. What was not recorded is refused, and
the refusal shows the recorded request that comes nearest to it; so that it can, the texts that were sent are in a third
file, `runs/monday.asked.jsonl`. All three have in plain text what was said: look through them before you pass them on.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

import dspy

from escalade import scopes
from escalade.agents._prompt import text_of
from escalade.agents.models import Model
from escalade.agents.transports.recorded import NotRecorded, Recorded, Recording
from escalade.errors import BadInput
from escalade.registry.modes import moded

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response


@contextlib.contextmanager
def record(path: str | PathLike[str]) -> Iterator[None]:
    """What models and tools answer in the block is written to files beside `path`, over what is there. In a scope, and
    not in another such block. Raises BadInput, NoScope.
    """
    files = _files(path)
    for file in files:
        file.unlink(missing_ok=True)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    with _taped(files, "record"):
        yield
    for file in files:
        file.touch()  # a run without tools, or without models, has none


@contextlib.contextmanager
def replay(path: str | PathLike[str]) -> Iterator[None]:
    """Models and tools answer in the block what was recorded at `path`. In a scope, and not in another such block.
    Raises BadInput where nothing was recorded, NoScope.
    """
    files = _files(path)
    if not all(file.exists() for file in files):
        raise BadInput(f"nothing was recorded at {path}: run it once in `with record({str(path)!r}):`")
    with _taped(files, "replay"):
        yield


def _files(path: str | PathLike[str]) -> tuple[Path, Path, Path]:
    """Of models, of tools, of what was asked."""
    base = Path(path)
    models, tools, asked = (base.with_name(f"{base.name}.{kind}.jsonl") for kind in ("models", "tools", "asked"))
    return models, tools, asked


@contextlib.contextmanager
def _taped(files: tuple[Path, Path, Path], mode: Literal["record", "replay"]) -> Iterator[None]:
    models, tools, asked = files
    scope = scopes.require(f"{mode}()")
    if isinstance(Model.__dict__.get("transport"), property):
        raise BadInput(f"{mode}(): models are faulty, recorded or replayed already")
    tapes = _Tapes(Recording(models), asked, mode)
    prop = property(tapes.of, lambda model, value: model.__dict__.update(transport=value))
    inside = moded(scope, mode, tools)
    with mock.patch.object(Model, "transport", prop, create=True), dspy.context(**{scopes.KEY: inside}):
        yield


class _Tapes:
    """The transports of all models, each with its place on one recording."""

    def __init__(self, recording: Recording, asked: Path, mode: Literal["record", "replay"]) -> None:
        self._recording, self._mode, self.asked = recording, mode, asked
        self._made: dict[int, _Tape] = {}
        self._lock = threading.Lock()

    def of(self, model: Model) -> Any:
        inner = model.__dict__["transport"]
        with self._lock:
            if id(inner) not in self._made:
                carried = Recorded(self._recording, inner=inner if self._mode == "record" else None, mode=self._mode)
                self._made[id(inner)] = _Tape(carried, self)
            return self._made[id(inner)]

    def note(self, request: Request) -> None:
        """Keep the text that was sent."""
        if self._mode == "record":
            with self._lock, self.asked.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_text(request), ensure_ascii=False) + "\n")

    def nearest(self, request: Request) -> str:
        """The recorded text that is most like this one."""
        if not self.asked.exists():
            return ""
        texts = [json.loads(line) for line in self.asked.read_text("utf-8").splitlines()]
        found = difflib.get_close_matches(_text(request), texts, n=1, cutoff=0.0)
        if not found:
            return ""
        change = difflib.unified_diff(found[0].splitlines(), _text(request).splitlines(), "recorded", "now", n=0)
        return "; the nearest recorded request differs so:\n" + "\n".join(list(change)[:20])


class _Tape:
    """One transport."""

    def __init__(self, carried: Recorded, tapes: _Tapes) -> None:
        self._carried, self._tapes = carried, tapes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._carried, name)

    @contextlib.contextmanager
    def _noted(self, request: Request) -> Iterator[None]:
        self._tapes.note(request)
        try:
            yield
        except NotRecorded as error:
            raise NotRecorded(f"{error}{self._tapes.nearest(request)}", provider="recorded") from None

    def complete(self, request: Request) -> Response:
        with self._noted(request):
            return self._carried.complete(request)

    async def acomplete(self, request: Request) -> Response:
        with self._noted(request):
            return await self._carried.acomplete(request)

    def stream(self, request: Request) -> Generator[Any, None, None]:
        with self._noted(request):
            yield from self._carried.stream(request)

    async def astream(self, request: Request) -> AsyncGenerator[Any, None]:
        with self._noted(request):
            async with contextlib.aclosing(self._carried.astream(request)) as events:
                async for event in events:
                    yield event


def _text(request: Request) -> str:
    return "\n".join([request.model, text_of(request.system), *(text_of(one.parts) for one in request.messages)])
