"""What telemetry costs: per span while it is on, per call while it is off.

Each piece of work is done in short blocks, in turn without and with telemetry: spans through a batch processor whose
exporter throws them away, or metrics, or JSON lines into memory. The fastest block of each counts, in time of the
calling thread: on a machine that others use, the same work takes up to twice as long from one moment to the next. The
difference is divided by the spans of the piece. Off, what remains are the questions whether somebody looks; they are
timed as such.
"""

from __future__ import annotations

import asyncio
import gc
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dspy

from escalade import telemetry
from escalade.agents._spans import climbing
from escalade.agents.climb import Attempt, Climb, Rung, Step, Stop
from escalade.agents.gateway import Gateway
from escalade.agents.world import World
from escalade.pipelines.chain import Chain
from escalade.registry.catalogue import Registry
from escalade.registry.logs import json_logs
from escalade.registry.opening import scope
from escalade.registry.tools import tool
from escalade.scopes import require

SPAN_US, OFF_US = 60.0, 2.0
BLOCK, PAIRS = 10, 20

Work = Callable[[], Any]
Switch = Callable[[], Callable[[], Any]]
"""Switches it on, and says how to switch it off."""


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """What it takes more, microseconds."""
    figures = []
    # A module's history is walked by whoever looks for its predictors: calls would get slower by and by.
    with dspy.context(disable_history=True), scope(budget="1000000"):
        for name, spans, work in _pieces():
            figures.append(_figure(f"spans on: {name}, per span", _extra(work, _spans_on, repeats) / spans, SPAN_US))
        name, _, work = next(_pieces())
        figures.append(_figure(f"metrics on: {name}", _extra(work, _metrics_on, repeats), None))
        figures.append(_figure(f"JSON lines on: {name}", _extra(work, _lines_on, repeats), None))
        figures.append(_figure("off: questions of a climb with one call of a model", _questions(repeats), OFF_US))
    return figures


def _pieces() -> Iterator[tuple[str, int, Work]]:
    """(name, spans, work)."""
    world = World()
    gateway = Gateway(world.as_models(), name="benchmark-telemetry")
    found = Registry([tool(name="look")(lambda: "seen")], name="benchmark-telemetry").resolve("look")
    lm = gateway.lm("small")
    rungs, current = (Rung("only"),), require("a benchmark")
    done = Climb(Attempt(0), (Step(Stop(0, "confidence 0.95 >= 0.80"), None),))

    def climb() -> None:
        with climbing("Escalate", current, rungs) as told:
            told.attempt(lambda _: Attempt(0, confidence=0.95))(0)
            told.done(done)

    steps = {f"n{number}": _node for number in range(10)}
    chain = Chain(**steps)
    yield "call of a model", 1, lambda: lm("How much is 17 + 25?")
    yield "call of a tool", 1, found
    yield "climb of one rung", 2, climb
    yield "chain of 10 nodes", 11, lambda: chain(x=1)


async def _node(x: int) -> dict[str, int]:
    await asyncio.sleep(0)
    return {"x": x}


@contextmanager
def _spans_on() -> Iterator[Switch]:
    from opentelemetry.metrics import NoOpMeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))

    def switch() -> Callable[[], Any]:
        telemetry.enable(provider, NoOpMeterProvider())
        return telemetry.disable

    yield switch
    provider.shutdown()


@contextmanager
def _metrics_on() -> Iterator[Switch]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.trace import NoOpTracerProvider

    provider = MeterProvider([InMemoryMetricReader()])

    def switch() -> Callable[[], Any]:
        telemetry.enable(NoOpTracerProvider(), provider)
        return telemetry.disable

    yield switch
    provider.shutdown()


@contextmanager
def _lines_on() -> Iterator[Switch]:
    yield lambda: json_logs(io.StringIO()).close


def _extra(work: Work, on: Any, repeats: int) -> float:
    """Seconds that one piece of work takes longer with it."""
    _block(work)
    without, within = [], []
    gc.collect()
    gc.disable()
    with on() as switch:
        for _ in range(repeats * PAIRS):
            without.append(_block(work))
            off = switch()
            work()
            within.append(_block(work))
            off()
    gc.enable()
    return min(within) - min(without)


def _block(work: Work) -> float:
    """Seconds of one piece, of this thread alone."""
    began = time.thread_time()
    for _ in range(BLOCK):
        work()
    return (time.thread_time() - began) / BLOCK


def _questions(repeats: int) -> float:
    """Seconds of what a climb with one call asks while nobody looks: around the climb, its rungs and the attempt."""
    current = require("a benchmark")

    def ask() -> None:
        with climbing("Escalate", current, ()) as told:
            told.attempt(lambda _: None)  # type: ignore[arg-type, return-value]
        for _ in range(4):  # the guard's door, the request, the answer, the end
            if telemetry.switch.tracer is not None:
                raise AssertionError

    return min(_block(lambda: [ask() for _ in range(100)]) / 100 for _ in range(repeats * PAIRS))


def _figure(name: str, seconds: float, limit: float | None) -> dict[str, Any]:
    value = seconds * 1e6
    return {
        "name": name,
        "value": value,
        "unit": "us",
        "limit": "reported" if limit is None else f"<= {limit:g} us",
        "ok": limit is None or value <= limit,
        "ratio": None,
        "note": "",
    }
