"""Usage as Prometheus reads it: the text exposition format 0.0.4.

Labels are bounded: tools, versions and arguments are those that were registered; outcomes, refusals, sources of answers
and gates that were not asked are classes.
No principal, no run, no payload. Format: https://prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry
    from escalade.registry.usage import ToolUsage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What an endpoint answers with."""

Samples = Iterable[tuple[str, dict[str, str], float]]


def usage_metrics(registry: Registry) -> str:
    """All figures of a registry, for an endpoint that Prometheus scrapes."""
    rows = registry.usage()
    return "".join(
        [
            _family("escalade_tool_calls_total", "counter", "Calls that ran, by outcome.", _calls(rows)),
            _family(
                "escalade_tool_answers_total", "counter", "Calls that were answered without a run.", _answers(rows)
            ),
            _family(
                "escalade_tool_unchecked_total", "counter", "Calls that ran past a gate that was down.", _open(rows)
            ),
            _family("escalade_tool_cache_failures_total", "counter", "Times that the cache failed.", _cache(rows)),
            _family("escalade_tool_refusals_total", "counter", "Calls that the guard refused.", _refusals(rows)),
            _family(
                "escalade_tool_invalid_arguments_total", "counter", "Arguments that did not fit the schema.", _bad(rows)
            ),
            _family("escalade_tool_duration_seconds", "summary", "How long calls took.", _durations(rows)),
            _family("escalade_tool_cost_dollars_total", "counter", "What calls with a known price cost.", _costs(rows)),
            _family("escalade_tool_unpriced_calls_total", "counter", "Calls without a known price.", _unpriced(rows)),
            _family("escalade_tool_tokens_total", "counter", "Tokens, as far as tools report them.", _tokens(rows)),
        ]
    )


def _calls(rows: list[ToolUsage]) -> Samples:
    for row in rows:
        for outcome, count in (("ok", row.successes), ("failed", row.failures), ("cancelled", row.cancelled)):
            yield "", {**_tool(row), "outcome": outcome}, count


def _answers(rows: list[ToolUsage]) -> Samples:
    return (("", {**_tool(row), "source": source}, count) for row in rows for source, count in row.answered.items())


def _open(rows: list[ToolUsage]) -> Samples:
    return (("", {**_tool(row), "gate": gate}, count) for row in rows for gate, count in row.unchecked.items())


def _cache(rows: list[ToolUsage]) -> Samples:
    return (("", _tool(row), row.cache_failures) for row in rows)


def _refusals(rows: list[ToolUsage]) -> Samples:
    return (("", {**_tool(row), "reason": reason}, count) for row in rows for reason, count in row.refusals.items())


def _bad(rows: list[ToolUsage]) -> Samples:
    return (("", {**_tool(row), "argument": name}, count) for row in rows for name, count in row.invalid.items())


def _durations(rows: list[ToolUsage]) -> Samples:
    for row in rows:
        for quantile, seconds in (("0.5", row.p50), ("0.95", row.p95)):
            yield "", {**_tool(row), "quantile": quantile}, float("nan") if seconds is None else seconds
        yield "_sum", _tool(row), row.seconds
        yield "_count", _tool(row), row.calls


def _costs(rows: list[ToolUsage]) -> Samples:
    return (("", _tool(row), int(row.cost) / 1e9) for row in rows)


def _unpriced(rows: list[ToolUsage]) -> Samples:
    return (("", _tool(row), row.unpriced) for row in rows)


def _tokens(rows: list[ToolUsage]) -> Samples:
    return (("", _tool(row), row.tokens) for row in rows)


def _tool(row: ToolUsage) -> dict[str, str]:
    return {"tool": row.name, "version": row.version}


def _family(name: str, kind: str, about: str, samples: Samples) -> str:
    lines = [
        f"{name}{suffix}{{{','.join(f'{key}={_quoted(value)}' for key, value in labels.items())}}} {_number(count)}"
        for suffix, labels, count in samples
    ]
    return "\n".join([f"# HELP {name} {about}", f"# TYPE {name} {kind}", *lines, ""])


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _number(value: float) -> str:
    return "NaN" if value != value else repr(value)  # noqa: PLR0124 - nan is all that differs from itself
