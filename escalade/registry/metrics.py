"""Usage as Prometheus reads it: the text exposition format 0.0.4. And gauges of the same for OpenTelemetry.

Labels are bounded: tools, versions, arguments and models are those that were registered; outcomes, refusals, sources of
answers and gates that were not asked are classes; budgets are those that tenants have by name.
No principal, no run, no payload. Format: https://prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from escalade.errors import BadInput
from escalade.registry.breaker import Breaker
from escalade.registry.budgets import patterns_of
from escalade.registry.ledger import Ledger
from escalade.registry.privacy.names import alias
from escalade.registry.usage import ToolUsage
from escalade.telemetry import GAUGES, watch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What an endpoint answers with."""

Samples = Iterable[tuple[str, Mapping[str, str], float]]

STATES = ("closed", "half-open", "open")


class Source(Protocol):
    """A registry, whose uses are of tools, or a gateway, whose are of models."""

    def usage(self) -> list[ToolUsage]: ...
    def breakers(self) -> list[tuple[str, str, Breaker]]: ...


def usage_metrics(*sources: Source | Ledger) -> str:
    """All figures of registries, gateways and ledgers, for an endpoint that Prometheus scrapes. Raises BadInput."""
    used: dict[str, list[ToolUsage]] = {}
    for source in _checked(sources):
        if not isinstance(source, Ledger):
            used.setdefault(_kind(source), []).extend(source.usage())
    families = [_family(*one) for kind in ("tool", "model") if kind in used for one in _of_uses(kind, used[kind])]
    found = list(_figures(sources))
    for name, about in GAUGES.items():
        samples = [("", labels, value) for figure, labels, value in found if figure == name]
        if samples:
            families.append(_family(f"escalade_{name.replace('.', '_')}", "gauge", about, samples))
    return "".join(families)


def watch_metrics(*sources: Source | Ledger) -> Callable[[], None]:
    """Show the states of breakers and the use of budgets as gauges of OpenTelemetry, too, where `telemetry` is on.
    Returns what ends it. Raises BadInput.
    """
    _checked(sources)
    return watch(lambda: _figures(sources))


def _checked(sources: Sequence[Source | Ledger]) -> Sequence[Source | Ledger]:
    for source in sources:
        if not isinstance(source, Ledger) and not hasattr(source, "breakers"):
            raise BadInput(f"metrics: expected registries, gateways and ledgers, got {source!r}")
    return sources


def _kind(source: Source) -> str:
    return "model" if hasattr(source, "models") else "tool"


def _figures(sources: Sequence[Source | Ledger]) -> Samples:
    for source in sources:
        if isinstance(source, Ledger):
            yield from _budgets(source)
        else:
            yield from _breakers(source)


def _breakers(source: Source) -> Samples:
    kind = _kind(source)
    for name, version, breaker in source.breakers():
        now = breaker.state
        for state in STATES:
            yield "breaker.state", {**_labels(kind, name, version), "state": state}, float(state == now)


def _budgets(ledger: Ledger) -> Samples:
    """Not those of users, nor those that a pattern stands for: there are as many as tenants."""
    patterns = set(ledger.patterns)
    for account in ledger.accounts():
        if (
            account.limit
            and not account.name.startswith("user:")
            and not patterns.intersection(patterns_of(account.name))
        ):
            yield "budget.used", {"account": alias(account.name)}, account.used / account.limit


def _of_uses(kind: str, rows: list[ToolUsage]) -> Iterable[tuple[str, str, str, Samples]]:
    calls, total = f"escalade_{kind}", "counter"
    yield f"{calls}_calls_total", total, "Calls that ran, by outcome.", _calls(rows)
    yield f"{calls}_answers_total", total, "Calls that were answered without a run.", _answers(rows)
    yield f"{calls}_unchecked_total", total, "Calls that ran past a gate that was down.", _open(rows)
    if kind == "tool":
        yield f"{calls}_cache_failures_total", total, "Times that the cache failed.", _cache(rows)
    yield f"{calls}_refusals_total", total, "Calls that the guard refused.", _refusals(rows)
    if kind == "tool":
        yield f"{calls}_invalid_arguments_total", total, "Arguments that did not fit the schema.", _bad(rows)
    yield f"{calls}_duration_seconds", "summary", "How long calls took.", _durations(rows)
    yield f"{calls}_cost_dollars_total", total, "What calls with a known price cost.", _costs(rows)
    yield f"{calls}_unpriced_calls_total", total, "Calls without a known price.", _unpriced(rows)
    yield f"{calls}_tokens_total", total, "Tokens, as far as they are reported.", _tokens(rows)


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
    for row in rows:
        if row.version:
            yield "", _tool(row), row.tokens
        for kind, count in row.tokens_by.items():
            yield "", {**_tool(row), "type": kind}, count


def _tool(row: ToolUsage) -> dict[str, str]:
    return _labels("tool" if row.version else "model", row.name, row.version)


def _labels(kind: str, name: str, version: str) -> dict[str, str]:
    return {"tool": name, "version": version} if kind == "tool" else {"model": name}


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
