"""Where text leaves us, redacted: errors that models read, log records, attributes of spans."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from escalade import telemetry
from escalade.registry import secrets
from escalade.registry.privacy import redactor
from escalade.registry.privacy.names import alias, fingerprint

_LONGEST = 64 * 1024
_TRACEBACK = "Traceback (most recent call last)"
_PATH = re.compile(
    r"(?<![\w/:.<])(?:~|\.{1,2})?(?:/[\w.@+~%-]++){2,}+/?|(?<![A-Za-z0-9])[A-Za-z]:[\\/][^\s\"'<>|:]++|\\\\[^\s\"'<>|]++"
)
_LOCATION = re.compile(r"\bFile \"?<path>\"?, line \d+(?:, in [\w<>.]+)?")


def safe_line(what: BaseException | str, limit: int = 300) -> str:
    """One line that may be shown to a model or kept in a record: no personal data, secret, path or traceback.

    `limit`: characters; longer lines end in "…". Never raises.
    """
    text = what if isinstance(what, str) else _text_of(what)
    if _TRACEBACK in text:  # what follows the last frame is the message
        text = text[: text.index(_TRACEBACK)] + (text.rstrip().rpartition("\n")[2])
    line = " ".join(redactor.default().redact(text[:_LONGEST]).text.split())
    line = _LOCATION.sub("<path>", _PATH.sub("<path>", line))
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def error_line(error: BaseException, limit: int = 300) -> str:
    """`safe_line` with the class of the error in front, as in a traceback's last line."""
    line = safe_line(error, limit)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def preview(text: str, limit: int = 80) -> dict[str, Any]:
    """What may be shown of a prompt or an answer: a `hash` by the key of aliases, its `length` in characters, and its
    redacted beginning as `preview`.
    """
    return {"hash": fingerprint(text), "length": len(text), "preview": safe_line(text, limit)}


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - somebody's __str__
        return ""


def span_attributes(attributes: Mapping[str, Any], limit: int = 1024) -> dict[str, str | bool | int | float]:
    """OpenTelemetry attributes without personal data and secrets: scalars stay scalars, the rest becomes text.

    `limit`: characters per value. None is left out, as OpenTelemetry has no such value.
    """
    clean: dict[str, str | bool | int | float] = {}
    for name, value in redactor.default().redact_value(dict(attributes)).items():
        if value is None:
            continue
        kept = value if isinstance(value, str | bool | int | float) else redactor.redact(str(value)).text
        clean[str(name)] = f"{kept[: limit - 1]}…" if isinstance(kept, str) and len(kept) > limit else kept
    return clean


# ------------------------------------------------------------------------------------------------------------- logs

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class RedactingFilter(logging.Filter):
    """Redacts each record that passes: message, arguments, exception, stack and extra fields. Lets all of them pass.

    On our own loggers it is installed when the first scope is opened. Add it to a handler of yours
    (`handler.addFilter(RedactingFilter())`), and what other libraries log there is redacted, too.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record in place; it stays as it is where nothing was found."""
        message = _message(record)
        clean = redactor.redact(message).text
        if clean != message:
            record.msg, record.args = clean, None
        self._hide_traces(record)
        for name in vars(record).keys() - _USUAL:
            setattr(record, name, redactor.redact_value({name: getattr(record, name)}).get(name, "<redacted>"))
        return True

    def _hide_traces(self, record: logging.LogRecord) -> None:
        trace = record.exc_text
        if not trace and isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
            trace = logging.Formatter().formatException(record.exc_info)
        clean = redactor.redact(trace).text if trace else trace
        if clean != trace:
            record.exc_text = clean
            record.exc_info = None  # handlers would format it anew, and structured ones send it as it is
        if record.stack_info:
            record.stack_info = redactor.redact(record.stack_info).text


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a format that doesn't fit its arguments: `logging` says so elsewhere
        return f"{record.msg} {record.args}"


class _Redacts(logging.NullHandler):
    """Writes nothing: it changes records on their way up. What no other handler hears goes to standard error, as it
    would if this one weren't there.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        passed, last = _filter.filter(record), logging.lastResort
        if last is not None and record.levelno >= last.level and not self._heard(record.name):
            last.handle(record)
        return passed

    def _heard(self, name: str) -> bool:
        """By any other handler?"""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


_filter = RedactingFilter()
_handler = _Redacts()
_seen = 0


def install(tree: str = "escalade") -> None:
    """Put the filter on all loggers of a tree, and remember the secrets of the environment. Cheap to call again.

    Filters of a logger don't hold for its children: each one needs it. What a logger says that was made since goes past
    the first handler of the tree, which redacts it for those of the root.
    """
    global _seen  # noqa: PLW0603 - loggers are global, too
    telemetry.switch.shown, telemetry.switch.safe, telemetry.switch.preview = alias, safe_line, preview
    known, top = logging.Logger.manager.loggerDict, logging.getLogger(tree)
    if len(known) == _seen and _handler in top.handlers:
        return
    if not _seen:
        secrets.remember_environment()
    if _handler not in top.handlers:  # it wasn't there yet, or logging was configured since
        top.handlers.insert(0, _handler)
    for name, logger in {**known, tree: top}.items():
        if isinstance(logger, logging.Logger) and (name == tree or name.startswith(f"{tree}.")):
            logger.addFilter(_filter)
    _seen = len(known)
