"""Logs as lines of JSON: one for each run, node, climb, rung, attempt on a model and call of a tool that ends.

    lines = escalade.json_logs()                        # to standard error, until lines.close()
    {"time": "2026-03-01T09:30:00.125Z", "level": "info", "event": "chat gpt-4o-mini", "seconds": 0.82,
     "run": "6f1c...", "node": "both/draft", "model": "small", "cost_nanos": 24000, "outcome": "ok", ...}

Nothing is configured by an import. A line has no prompt, answer, argument or result; with `previews=True`, those of
models have a hash, the length and a redacted beginning of what went in and came out. Whatever else our loggers say is
a line of the same form, redacted. `JsonFormatter` does that for any handler.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
import time
from contextlib import nullcontext
from typing import Any, TextIO

from escalade.registry.privacy.outlets import RedactingFilter, install
from escalade.telemetry import Spanning, names, switch

TREE = "escalade"

_DEEP = 16

_SHORT = {
    names.RUN_ID: "run",
    names.NODE: "node",
    names.MODEL: "model",
    names.TOOL_NAME: "tool",
    names.RUNG: "rung",
    names.COST: "cost_nanos",
    names.OUTCOME: "outcome",
    names.ERROR_TYPE: "error",
    names.CONFIDENCE: "confidence",
}

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def json_logs(stream: TextIO | None = None, *, level: int = logging.INFO, previews: bool = False) -> logging.Handler:
    """Write lines of JSON to `stream` (standard error), until the handler that this returns is closed.

    `level`: spans that ended well are INFO, those that failed or were refused WARNING. `previews`: see the module.
    """
    install(TREE)
    return _JsonLines(stream, level, previews=previews)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, extra fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Never raises for what is no JSON: that is written as text."""
        line = {**_head(record.created, record.levelno), "logger": record.name, "message": record.getMessage()}
        line |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info or record.exc_text:
            line["exception"] = record.exc_text or self.formatException(record.exc_info or (None, None, None))
        return _dumped(line)


class _JsonLines(logging.StreamHandler[Any]):
    """Takes what our loggers say, and each span as it ends, until it is closed.

    Spans hold nothing to redact, so they are written as they are: a record on its way through the filters of our
    loggers would be searched three times (0.7 ms a line, measured).
    """

    def __init__(self, stream: TextIO | None, level: int, *, previews: bool) -> None:
        super().__init__(stream)
        self.setLevel(level)
        self.setFormatter(JsonFormatter())
        self.addFilter(RedactingFilter())
        tree = logging.getLogger(TREE)
        self._before, self._previews = tree.level, previews
        tree.setLevel(min(level, tree.getEffectiveLevel()))
        tree.addHandler(self)
        switch.sinks = (*switch.sinks, self.ended)
        switch.previewers += (self,) if previews else ()
        switch.settle()

    def ended(self, spanning: Spanning, error: str, seconds: float) -> None:
        """Write its line. As for any handler, a stream that fails disturbs nobody: `logging` says so."""
        level = logging.WARNING if error else logging.INFO
        if level < self.level:
            return
        previews = spanning.previews if self._previews else {}
        line = _dumped({**_head(time.time(), level), **_facts(spanning, seconds, previews)})
        try:
            with self.lock or nullcontext():
                self.stream.write(f"{line}\n")
                self.flush()
        except Exception:  # noqa: BLE001 - as `logging.StreamHandler.emit`
            self.handleError(logging.makeLogRecord({"name": TREE, "msg": "%s", "args": (spanning.name,)}))

    def close(self) -> None:
        """Write no more lines; loggers are as they were."""
        tree = logging.getLogger(TREE)
        if self in tree.handlers:
            tree.removeHandler(self)
            tree.setLevel(self._before)
            switch.sinks = tuple(sink for sink in switch.sinks if sink != self.ended)
            switch.previewers = tuple(one for one in switch.previewers if one is not self)
            switch.settle()
        super().close()


def _head(when: float, level: int) -> dict[str, Any]:
    at = dt.datetime.fromtimestamp(when, dt.UTC).isoformat(timespec="milliseconds")
    return {"time": at.replace("+00:00", "Z"), "level": logging.getLevelName(level).lower()}


def _facts(spanning: Spanning, seconds: float, previews: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"event": spanning.name, "seconds": round(seconds, 6)}
    facts |= {_SHORT.get(name, name): value for name, value in {**spanning.facts, **previews}.items()}
    where = spanning.span.get_span_context()
    if where.is_valid:
        facts |= {"trace_id": f"{where.trace_id:032x}", "span_id": f"{where.span_id:016x}"}
    return facts


def _dumped(line: dict[str, Any]) -> str:
    try:
        return json.dumps(line, default=str, ensure_ascii=False, allow_nan=False)
    except ValueError:  # nan, infinity, a cycle
        return json.dumps(_plain(line), default=str, ensure_ascii=False)


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > _DEEP:
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
