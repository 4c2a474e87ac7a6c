"""OpenTelemetry spans and metrics, for who asks for them: `escalade.telemetry.enable()`.

    telemetry.enable()                          # the global providers of traces and metrics
    telemetry.enable_from_environment()         # OTLP to OTEL_EXPORTER_OTLP_ENDPOINT, where that is set

    escalade.run                                one run: a scope
      invoke_workflow Chain                     a pipeline
        escalade.node draft                     a node of it
          invoke_agent Escalate                 a climb
            escalade.rung cot_small             one rung: confidence, cost, why it was tried
              chat gpt-4o-mini                  each physical attempt on a model, retries and fallbacks too
          execute_tool crm.search               each governed tool call

Off, which is the default, it costs one comparison per call. No span carries prompts, answers, arguments, results or
the names of people; what failed is told by class. `previews=True` adds a keyed hash, the length and a redacted
beginning of prompts and answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from escalade.telemetry._exporters import from_environment
from escalade.telemetry._meters import GAUGES, Figures, Meters
from escalade.telemetry._spans import SPAN, Spanning, begin, closed, innermost, opened, parent, path_here, spanned
from escalade.telemetry._switch import switch
from escalade.telemetry._uses import ended, refused, started

__all__ = [
    "GAUGES",
    "SPAN",
    "Spanning",
    "begin",
    "closed",
    "disable",
    "enable",
    "enable_from_environment",
    "ended",
    "innermost",
    "opened",
    "parent",
    "path_here",
    "refused",
    "spanned",
    "started",
    "switch",
    "waited",
    "watch",
]

_watched: list[Figures] = []

_ours: list[Any] = []
"""Providers that were made here, to be closed here."""


def enable(tracer_provider: Any = None, meter_provider: Any = None, *, previews: bool = False) -> None:
    """Emit spans and metrics from now on, to these providers or to the global ones. Scopes that are open already stay
    without a span.

    `previews`: spans of models get hash, length and a redacted beginning of what went in and came out.
    """
    from opentelemetry import metrics, trace

    switch.in_spans = previews
    switch.meters = Meters(metrics.get_meter("escalade", meter_provider=meter_provider), _watched)
    switch.trace(trace.get_tracer("escalade", tracer_provider=tracer_provider))


def enable_from_environment(*, previews: bool = False) -> bool:
    """As the standard variables say: export by OTLP over HTTP to OTEL_EXPORTER_OTLP_ENDPOINT (or its _TRACES_ and
    _METRICS_ kin). False, and nothing happens, where none is set, or OTEL_SDK_DISABLED or a `none` in
    OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER say so.

    What is left is sent when the process ends, and by `disable()`. Raises BadInput for other exporters and protocols,
    and where the extra `otlp` is not installed.
    """
    tracers, meters = from_environment()
    if tracers is None and meters is None:
        return False
    from opentelemetry import metrics, trace

    disable()
    _ours.extend(provider for provider in (tracers, meters) if provider is not None)
    enable(tracers or trace.NoOpTracerProvider(), meters or metrics.NoOpMeterProvider(), previews=previews)
    return True


def disable() -> None:
    """Emit no spans and no metrics any more; what `enable_from_environment` made is sent and closed."""
    switch.meters, switch.in_spans = None, False
    switch.trace(None)
    while _ours:
        _ours.pop().shutdown()


def waited(kind: str, resource: str, began: float) -> None:
    """Somebody has stood in line for a tool or a model since `began`, `time.perf_counter()` seconds."""
    meters = switch.meters
    if meters is not None:
        meters.waited(kind, resource, time.perf_counter() - began)


def watch(figures: Figures) -> Callable[[], None]:
    """Ask this whenever metrics are read, for gauges; see `escalade.watch_metrics`. Returns what ends it."""
    _watched.append(figures)
    return lambda: _watched.remove(figures) if figures in _watched else None
