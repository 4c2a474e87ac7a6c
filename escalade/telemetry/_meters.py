"""Metrics for OpenTelemetry: the conventions' histograms of model calls and tool calls, and counters of our own.

Labels are bounded: models, tools and rungs are those that a program has; outcomes, errors and sources are classes. No
principal, no tenant, no run, no text. Dashboards ask for `gen_ai.client.*` by these names; the newest draft of the
conventions calls the same `gen_ai.client.inference.*`.

Buckets: https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-metrics.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from escalade.telemetry.names import (
    CACHE_LEVEL,
    ERROR_TYPE,
    FIRST_CHUNK,
    INPUT_TOKENS,
    OPERATION,
    OUTPUT_TOKENS,
    PROVIDER,
    REQUEST_MODEL,
    RESPONSE_MODEL,
    SOURCE,
    TOKEN_TYPE,
    TOOL_NAME,
)

if TYPE_CHECKING:
    from escalade.scopes import Entry

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(4.0**n for n in range(14))

KIND = "escalade.kind"
RESOURCE = "escalade.resource"
OUTCOME = "escalade.outcome"

Figures = Callable[[], Iterable[tuple[str, Mapping[str, str], float]]]
"""What is to be looked at when metrics are read: (name without "escalade.", labels, value)."""

GAUGES = {
    "breaker.state": "1 for the state that a circuit breaker is in.",
    "budget.used": "Share of a budget that is settled or held.",
}


class Meters:
    """All instruments, on one meter of OpenTelemetry. `watched`: who tells the figures of gauges."""

    def __init__(self, meter: Any, watched: list[Figures]) -> None:
        seconds: dict[str, Any] = {"unit": "s", "explicit_bucket_boundaries_advisory": list(SECONDS)}
        tokens: dict[str, Any] = {"unit": "{token}", "explicit_bucket_boundaries_advisory": list(TOKENS)}
        histogram, counter = meter.create_histogram, meter.create_counter
        self._models = histogram("gen_ai.client.operation.duration", description="Attempts on models.", **seconds)
        self._first = histogram(
            "gen_ai.client.operation.time_to_first_chunk", description="Until a stream shows something.", **seconds
        )
        self._tokens = histogram("gen_ai.client.token.usage", description="Tokens of an attempt.", **tokens)
        self._tools = histogram("gen_ai.execute_tool.duration", description="Calls of tools that ran.", **seconds)
        self._waits = histogram("escalade.queue.wait", description="Waited for a place.", **seconds)
        self._uses = counter("escalade.uses", unit="{use}", description="Uses of tools and models, by outcome.")
        self._cost = counter("escalade.cost", unit="{nanodollar}", description="What uses with a known price cost.")
        self._answers = counter("escalade.answers", unit="{answer}", description="Answers that nothing ran for.")
        self._climbs = counter("escalade.escalations", unit="{escalation}", description="From rung to rung.")
        self._watched = watched
        for name, about in GAUGES.items():
            meter.create_observable_gauge(f"escalade.{name}", [self._gauge(name)], description=about)

    def used(self, entry: Entry, facts: Mapping[str, Any]) -> None:
        """A use ended; `facts`: the attributes of its span."""
        if entry.source:
            about = {KIND: entry.kind, RESOURCE: entry.resource, SOURCE: entry.source}
            self._answers.add(1, {**about, **_some(facts, CACHE_LEVEL)})
            return
        about = {KIND: entry.kind, RESOURCE: entry.resource}
        self._uses.add(1, {**about, OUTCOME: entry.outcome})
        if entry.priced:
            self._cost.add(entry.cost, about)
        if entry.kind == "model":
            self._of_model(entry, facts)
        else:
            self._tools.record(entry.seconds, _some(facts, OPERATION, TOOL_NAME, ERROR_TYPE))

    def refused(self, entry: Entry) -> None:
        """The guard said no; `entry.outcome` is the class of the refusal."""
        self._uses.add(1, {KIND: entry.kind, RESOURCE: entry.resource, OUTCOME: "refused", ERROR_TYPE: entry.outcome})

    def escalated(self, from_rung: str, to_rung: str) -> None:
        """A climb went on."""
        self._climbs.add(1, {"escalade.rung.from": from_rung, "escalade.rung.to": to_rung})

    def waited(self, kind: str, resource: str, seconds: float) -> None:
        """Somebody stood in line."""
        self._waits.record(seconds, {KIND: kind, RESOURCE: resource})

    def _of_model(self, entry: Entry, facts: Mapping[str, Any]) -> None:
        about = _some(facts, OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL)
        failed = {**about, ERROR_TYPE: entry.error} if entry.error else about
        self._models.record(entry.seconds, failed)
        if FIRST_CHUNK in facts:
            self._first.record(facts[FIRST_CHUNK], about)
        for kind, count in (("input", facts.get(INPUT_TOKENS)), ("output", facts.get(OUTPUT_TOKENS))):
            if count is not None:
                self._tokens.record(count, {**about, TOKEN_TYPE: kind})

    def _gauge(self, wanted: str) -> Callable[[Any], Iterable[Any]]:
        def observe(_: Any) -> Iterable[Any]:
            from opentelemetry.metrics import Observation

            return [
                Observation(value, dict(labels))
                for figures in list(self._watched)
                for name, labels, value in figures()
                if name == wanted
            ]

        return observe


def _some(facts: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: facts[name] for name in names if name in facts}
