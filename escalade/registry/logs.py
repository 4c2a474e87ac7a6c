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
from typing import Any, TextIO

from escalade.registry.privacy.outlets import RedactingFilter, install
from escalade.telemetry import Spanning, names, switch

TREE = "escalade"

_FACTS = "escalade_facts"

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

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", _FACTS}

_spans = logging.getLogger(f"{TREE}.spans")


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
        when = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when.replace("+00:00", "Z"), "level": record.levelname.lower()}
        facts = getattr(record, _FACTS, None)
        if facts is None:
            line |= {"logger": record.name, "message": record.getMessage()}
        else:
            line |= facts
        line |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info or record.exc_text:
            line["exception"] = record.exc_text or self.formatException(record.exc_info or (None, None, None))
        return json.dumps(_plain(line), default=str, ensure_ascii=False)


class _JsonLines(logging.StreamHandler[Any]):
    """Takes what our loggers say, and has spans told to them while it is open."""

    def __init__(self, stream: TextIO | None, level: int, *, previews: bool) -> None:
        super().__init__(stream)
        self.setLevel(level)
        self.setFormatter(JsonFormatter())
        self.addFilter(RedactingFilter())
        tree = logging.getLogger(TREE)
        self._before = tree.level, switch.previews
        tree.setLevel(min(level, tree.getEffectiveLevel()))
        tree.addHandler(self)
        switch.sink, switch.previews = _tell, previews or switch.previews
        switch.settle()

    def close(self) -> None:
        """Write no more lines; loggers are as they were."""
        tree = logging.getLogger(TREE)
        if self in tree.handlers:
            tree.removeHandler(self)
            tree.setLevel(self._before[0])
            switch.sink, switch.previews = None, self._before[1]
            switch.settle()
        super().close()


def _tell(spanning: Spanning, error: str, seconds: float) -> None:
    level = logging.WARNING if error else logging.INFO
    if _spans.isEnabledFor(level):
        _spans.log(level, "%s", spanning.name, extra={_FACTS: _facts(spanning, seconds)})


def _facts(spanning: Spanning, seconds: float) -> dict[str, Any]:
    facts: dict[str, Any] = {"event": spanning.name, "seconds": round(seconds, 6)}
    facts |= {_SHORT.get(name, name): value for name, value in spanning.facts.items()}
    where = spanning.span.get_span_context()
    if where.is_valid:
        facts |= {"trace_id": f"{where.trace_id:032x}", "span_id": f"{where.span_id:016x}"}
    return facts


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
