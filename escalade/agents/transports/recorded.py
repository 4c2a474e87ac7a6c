"""Answers from a recording: what a provider said once is said again, without a network and without paying.

    record = Recorded("runs/monday.jsonl", inner=LiteLLM(), mode="record")     # asks, and writes down what came
    replay = Recorded("runs/monday.jsonl")                                     # never asks

A recording is a text file with one JSON object per line: a header, then one line per attempt with the digest of the
request, which of the identical requests it was (from 0), the answer or the error, and the seconds that it took. The
digest is of everything that is sent: model, messages, tools and settings; not of keys and addresses. Answers are in it
in plain text, prompts are not.

The n-th request of a kind gets the n-th answer to it. What was not recorded raises `NotRecorded`, which is neither
retried nor answered by a fallback: a replay never guesses and never falls through to the network.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dspy import lm15
from dspy._vendor.lm15.errors import canonical_error_code, error_class_for_code  # private in 3.4
from dspy._vendor.lm15.serde import request_to_dict, response_from_dict, response_to_dict  # private in 3.4

from escalade.agents.transports import CHAT_PARAMS, Transport
from escalade.agents.transports._pieces import pieces
from escalade.errors import BadInput, DataError

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

VERSION = 1
_CHUNK = 16
_HINTS = ("supports_function_calling", "supports_response_schema", "supports_reasoning")


class NotRecorded(lm15.InvalidRequestError):
    """The recording has no answer, or no further answer, to this request."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded attempt: `answer` or `error` as JSON, the other None; `latency`: seconds, of a stream to its end."""

    answer: dict[str, Any] | None
    error: dict[str, Any] | None
    latency: float

    def response(self) -> Response:
        """The answer. Raises the error where it was one."""
        if self.error is not None:
            raise _error(self.error)
        return response_from_dict(self.answer or {})


class Recording:
    """Recorded attempts by digest, in memory, and in a file if there is a path. Thread-safe. Raises DataError.

    Several transports, for several models, may share one; only one process may write one at a time.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.supports: dict[str, Any] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._lock = threading.Lock()
        self._whole: int | None = None  # bytes to cut a torn file to, before it is written on
        if self.path is not None and self.path.exists():
            self._load(self.path)

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._entries.values()))

    def get(self, key: str, turn: int) -> Entry | None:
        """The `turn`-th attempt on this request, from 0."""
        with self._lock:
            found = self._entries.get(key, ())
            return found[turn] if turn < len(found) else None

    def count(self, key: str) -> int:
        """How many attempts there are on this request."""
        with self._lock:
            return len(self._entries.get(key, ()))

    def add(self, key: str, model: str, entry: Entry) -> None:
        """Append the next attempt on this request; it is on disk when this returns."""
        with self._lock:
            turns = self._entries.setdefault(key, [])
            line: dict[str, Any] = {"key": key, "turn": len(turns), "model": model, "latency": round(entry.latency, 6)}
            line.update({"answer": entry.answer} if entry.error is None else {"error": entry.error})
            turns.append(entry)
            self._write(line)

    def describe(self, supports: dict[str, Any]) -> None:
        """Keep what the recorded transport supports: prompts depend on it, and so does every digest."""
        with self._lock:
            if not self.supports:
                self.supports = supports
                self._write({"escalade_recording": VERSION, "supports": supports})

    def _write(self, line: dict[str, Any]) -> None:
        if self.path is None:
            return
        if self._whole is not None:
            os.truncate(self.path, self._whole)
            self._whole = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _load(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n")
        if torn := lines.pop():
            # The recorder died while it wrote; everything before is whole. To replay is to read only.
            self._whole = len(text[: -len(torn)].encode())
        for number, line in enumerate(lines, 1):
            try:
                self._read(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}, line {number}: not a line of a recording ({error})") from error

    def _read(self, line: Any) -> None:
        if not isinstance(line, dict):
            raise TypeError("expected an object")
        if "escalade_recording" in line:
            if line["escalade_recording"] != VERSION:
                raise ValueError(f"version {line['escalade_recording']}, expected {VERSION}")
            self.supports = line["supports"]
            return
        entry = Entry(line.get("answer"), line.get("error"), line["latency"])
        if (entry.answer is None) == (entry.error is None):
            raise ValueError("expected an answer or an error")
        self._entries.setdefault(line["key"], []).append(entry)


class Recorded:
    """Replays a recording, or makes one.

    `recording`: a path, or a `Recording`. `mode`: "replay" only replays; "record" asks `inner` each time and appends;
    "fill" replays what there is and asks `inner` for the rest. `pace`: 1 takes as long as it took, 0 no time at all.
    Safe for any number of threads and tasks. Raises BadInput, DataError.
    """

    def __init__(
        self,
        recording: str | Path | Recording,
        inner: Transport | None = None,
        mode: Literal["replay", "record", "fill"] = "replay",
        *,
        pace: float = 0.0,
    ) -> None:
        if mode not in {"replay", "record", "fill"} or pace < 0 or (mode != "replay" and inner is None):
            raise BadInput(
                f"mode {mode!r}: expected 'replay', or 'record' or 'fill' with an inner transport; pace >= 0"
            )
        self.recording = recording if isinstance(recording, Recording) else Recording(recording)
        if mode == "replay" and self.recording.path is not None and not self.recording.path.exists():
            raise DataError(
                f"no recording at {self.recording.path}; make one with mode='record' and an inner transport"
            )
        self._inner, self._mode, self._pace = inner, mode, pace
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        if inner is not None:
            self.recording.describe(
                {**{h: getattr(inner, h) for h in _HINTS}, "params": sorted(inner.supported_params)}
            )

    @property
    def name(self) -> str:
        return "recorded" if self._inner is None else f"recorded {self._inner.name}"

    @property
    def supports_function_calling(self) -> bool:
        return bool(self.recording.supports.get("supports_function_calling", True))

    @property
    def supports_response_schema(self) -> bool:
        return bool(self.recording.supports.get("supports_response_schema", True))

    @property
    def supports_reasoning(self) -> bool:
        return bool(self.recording.supports.get("supports_reasoning", False))

    @property
    def supported_params(self) -> frozenset[str]:
        return frozenset(self.recording.supports.get("params", CHAT_PARAMS))

    def rewind(self) -> None:
        """Begin again: the next request of each kind gets the first answer to it."""
        with self._lock:
            self._seen.clear()

    def complete(self, request: Request) -> Response:
        """The recorded answer, or the inner transport's. Raises NotRecorded, and the errors that were recorded."""
        key, entry = self._look(request)
        if entry is not None:
            time.sleep(entry.latency * self._pace)
            return entry.response()
        began = time.perf_counter()
        try:
            answer = self._asked().complete(request)
        except lm15.LM15Error as error:
            self._failed(key, request, error, began)
            raise
        self._add(key, request, answer, began)
        return answer

    async def acomplete(self, request: Request) -> Response:
        """As `complete`."""
        key, entry = self._look(request)
        if entry is not None:
            await asyncio.sleep(entry.latency * self._pace)
            return entry.response()
        began = time.perf_counter()
        try:
            answer = await self._asked().acomplete(request)
        except lm15.LM15Error as error:
            self._failed(key, request, error, began)
            raise
        self._add(key, request, answer, began)
        return answer

    def stream(self, request: Request) -> Generator[Any, None, None]:
        """As `complete`, in pieces. A stream that was left early is not recorded, one that broke off is its error."""
        key, entry = self._look(request)
        if entry is not None:
            time.sleep(entry.latency * self._pace)
            yield from pieces(entry.response(), _CHUNK)
            return
        began, events = time.perf_counter(), []
        try:
            for event in self._asked().stream(request):
                events.append(event)
                yield event
        except lm15.LM15Error as error:
            self._failed(key, request, error, began)
            raise
        self._add(key, request, lm15.materialize_response(iter(events), request), began)

    async def astream(self, request: Request) -> AsyncGenerator[Any, None]:
        """As `stream`."""
        key, entry = self._look(request)
        if entry is not None:
            await asyncio.sleep(entry.latency * self._pace)
            for event in pieces(entry.response(), _CHUNK):
                yield event
            return
        began, events = time.perf_counter(), []
        try:
            async with aclosing(self._asked().astream(request)) as source:
                async for event in source:
                    events.append(event)
                    yield event
        except lm15.LM15Error as error:
            self._failed(key, request, error, began)
            raise
        self._add(key, request, lm15.materialize_response(iter(events), request), began)

    def _look(self, request: Request) -> tuple[str, Entry | None]:
        """The request's digest, and what was recorded for it; None means that the inner transport is to be asked."""
        key = digest(request)
        if self._mode == "record":
            return key, None
        with self._lock:
            turn = self._seen[key]
            self._seen[key] += 1
        entry = self.recording.get(key, turn)
        if entry is None and self._mode == "replay":
            raise _not_recorded(self.recording, key, request.model, turn)
        return key, entry

    def _asked(self) -> Transport:
        if self._inner is None:
            raise BadInput("nothing to ask: there is no inner transport")
        return self._inner

    def _add(self, key: str, request: Request, answer: Response, began: float) -> None:
        told = response_to_dict(answer, include_provider_data=True)
        self.recording.add(key, request.model, Entry(told, None, time.perf_counter() - began))

    def _failed(self, key: str, request: Request, error: lm15.LM15Error, began: float) -> None:
        told = {"code": canonical_error_code(error), "message": error.message, "status": error.status}
        told.update(retry_after=error.retry_after, provider=error.provider, provider_code=error.provider_code)
        kept = {name: value for name, value in told.items() if value is not None}
        self.recording.add(key, request.model, Entry(None, kept, time.perf_counter() - began))


def digest(request: Request) -> str:
    """32 hex digits of everything that is sent."""
    text = json.dumps(request_to_dict(request), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _not_recorded(recording: Recording, key: str, model: str, turn: int) -> NotRecorded:
    where = recording.path or "the recording"
    had = recording.count(key)
    if had:
        said = (
            f"{where} has {had} answers to this request to {model!r}, this is number {turn + 1}; rewind() begins again"
        )
    else:
        said = (
            f"{where} has no answer to this request to {model!r} ({len(recording)} others); record it with mode='fill'"
        )
    return NotRecorded(said, provider="recorded")


def _error(told: dict[str, Any]) -> lm15.LM15Error:
    """The error as it was raised, less its causes."""
    known = {name: told[name] for name in ("status", "retry_after", "provider", "provider_code") if name in told}
    return error_class_for_code(told["code"])(told["message"], **known)
