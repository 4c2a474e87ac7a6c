"""An exporter of OpenTelemetry spans that redacts what it passes on: those of an application, whose instruments record
exceptions with their causes, and those of other libraries. Spans of ours hold nothing to redact.

    provider.add_span_processor(BatchSpanProcessor(RedactingExporter(OTLPSpanExporter())))

Needs the SDK of OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from escalade.registry.privacy.redactor import redact, redact_value


class RedactingExporter:
    """Around any span exporter: names, attributes, events, links and the status are redacted, the rest is as it was."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[Any]) -> Any:
        """Pass them on, redacted."""
        return self._exporter.export([_clean(span) for span in spans])

    def shutdown(self) -> None:
        """Of the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Of the exporter."""
        return bool(self._exporter.force_flush(timeout_millis))


def _clean(span: Any) -> Any:
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Link, Status

    said = span.status.description
    return ReadableSpan(
        name=redact(span.name).text,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_attributes(span.attributes),
        events=[Event(redact(one.name).text, _attributes(one.attributes), one.timestamp) for one in span.events],
        links=[Link(one.context, _attributes(one.attributes)) for one in span.links],
        kind=span.kind,
        status=Status(span.status.status_code, None if said is None else redact(said).text),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _attributes(given: Any) -> dict[str, Any]:
    clean: dict[str, Any] = redact_value(dict(given or {}))
    return clean
