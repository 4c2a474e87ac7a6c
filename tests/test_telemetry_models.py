"""Spans of models, climbs and pipelines: one trace for each run, whatever threads and tasks it works in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import escalade
from escalade import Gateway, Model, Price, telemetry
from escalade.agents._route import Retry
from tests.agents.scripted import Scripted

SECRET = "canary@example.com"
PRICE = Price.of("1", "10")
SURE = "[[ ## answer ## ]]\n42\n\n[[ ## confidence ## ]]\n0.95\n\n[[ ## completed ## ]]"
UNSURE = "[[ ## answer ## ]]\n41\n\n[[ ## confidence ## ]]\n0.25\n\n[[ ## completed ## ]]"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Tracing is on, into memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable(provider)
    yield exporter
    telemetry.disable()


def models(small: Any = None, big: Any = None, **options: Any) -> Gateway:
    """Two models of a provider, the small one with the big one as fallback."""
    return Gateway(
        [
            Model("small", "openai/tiny-1", small or Scripted(), price=PRICE, fallbacks="big"),
            Model("big", "gemini/huge-1", big or Scripted(), price=PRICE),
        ],
        name="telemetry",
        retry=Retry(retries=1, base=0.0),
        **options,
    )


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """The finished spans of a name, in the order in which they began."""
    return sorted((s for s in exporter.get_finished_spans() if s.name == name), key=lambda s: s.start_time or 0)


def one(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = named(exporter, name)
    return span


def child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return span.parent is not None and span.parent.span_id == parent.context.span_id


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_an_attempt_on_a_model(spans: InMemorySpanExporter) -> None:
    """One client span per attempt with the conventions' attributes, what it cost, and nothing of what was said."""
    with escalade.scope(budget="1.00") as run:
        dspy.Predict("question -> answer")(question=SECRET, lm=models().lm("small", temperature=0.5))
        spent = run.spent
    chat = one(spans, "chat tiny-1")
    assert chat.kind is SpanKind.CLIENT
    attributes = said(chat)
    assert attributes.pop("escalade.call.id")
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "tiny-1",
        "gen_ai.request.max_tokens": 1024,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "openai/tiny-1",
        "gen_ai.response.id": "1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "escalade.model": "small",
        "escalade.attempt": 1,
        "escalade.run.id": run.run_id,
        "escalade.outcome": "ok",
        "escalade.cost.nanos": int(spent),
        "escalade.cost.known": True,
    }
    assert child(chat, one(spans, "escalade.run"))
    assert SECRET not in "".join(span.to_json() for span in spans.get_finished_spans())
