"""OTLP, by the standard environment variables. Endpoint, headers, timeouts and compression are read by the exporters
themselves, service name and attributes by the SDK; here it is decided whether there is one.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import os
from typing import Any

from escalade.errors import BadInput

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_HTTP = "http/protobuf"


def from_environment() -> tuple[Any, Any]:
    """(provider of tracers, provider of meters), None for each that is not asked for. Raises BadInput."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None, None
    traces, metrics = _wanted("TRACES"), _wanted("METRICS")
    return (_tracers() if traces else None), (_meters() if metrics else None)


def _wanted(signal: str) -> bool:
    exporter = os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip() or "otlp"
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    if exporter == "none" or not (own or os.environ.get(_ENDPOINT)):
        return False
    if exporter != "otlp":
        raise BadInput(f"OTEL_{signal}_EXPORTER is {exporter!r}; expected 'otlp' or 'none'")
    protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or os.environ.get(_PROTOCOL) or _HTTP
    if protocol != _HTTP:
        raise BadInput(
            f"OTLP over {protocol!r} is not supported; set {_PROTOCOL}={_HTTP}, or give telemetry.enable() providers"
        )
    return True


def _tracers() -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise _missing() from None
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _meters() -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError:
        raise _missing() from None
    return MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])


def _missing() -> BadInput:
    return BadInput("export by OTLP needs the extra: pip install 'escalade[otlp]'")
