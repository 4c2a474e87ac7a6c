"""OTLP: what the standard variables say, and what really arrives at a collector."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import escalade
from escalade import telemetry
from escalade.errors import BadInput

collector_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
metrics_service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")

PROGRAM = """
import escalade
from escalade import Gateway, Model, Price, Simulated, World
from escalade.agents.world import SimModel

assert escalade.telemetry.enable_from_environment()
world = World({"small": SimModel()})
gateway = Gateway([Model("small", "sim/small", Simulated(world), price=Price.of("1", "10"))])
with escalade.scope(budget="1.00"):
    gateway.lm("small")("a secret question")
"""


class Collector(ThreadingHTTPServer):
    """Takes what is posted to it. `got`: (path, headers, body), as they came."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def parsed(self, path: str, kind: Any) -> list[Any]:
        found = []
        for at, _, body in self.got:
            if at == path:
                message = kind()
                message.ParseFromString(body)
                found.append(message)
        return found


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on the loopback, in a thread."""
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the machine counts, and telemetry is off afterwards."""
    import os

    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    yield
    telemetry.disable()


@pytest.mark.slow
def test_a_process_exports(collector: Collector) -> None:
    """A process with an endpoint in its environment sends spans and metrics there when it ends: with the service's name
    and the headers that the variables say, and without what was asked.
    """
    import os

    env = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=acme",
        "OTEL_SERVICE_NAME": "answers",
    }
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=env, timeout=100)
    traces = collector.parsed("/v1/traces", collector_service.ExportTraceServiceRequest)
    (resource,) = [spans for one in traces for spans in one.resource_spans]
    assert any(a.key == "service.name" and a.value.string_value == "answers" for a in resource.resource.attributes)
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    assert set(spans) == {"escalade.run", "chat small"}
    assert spans["chat small"].parent_span_id == spans["escalade.run"].span_id
    figures = collector.parsed("/v1/metrics", metrics_service.ExportMetricsServiceRequest)
    names = {m.name for one in figures for r in one.resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage", "escalade.cost"} <= names
    assert all(headers["x-tenant"] == "acme" for _, headers, _ in collector.got)
    assert not any(b"secret question" in body for _, _, body in collector.got)


def test_nothing_by_default() -> None:
    """Without an endpoint nothing is switched on."""
    assert not telemetry.enable_from_environment()
    assert telemetry.switch.tracer is None


@pytest.mark.parametrize(
    "said",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    ],
)
def test_switched_off_by_the_environment(said: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint alone is not enough where the variables say no."""
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **said}.items():
        monkeypatch.setenv(name, value)
    assert not telemetry.enable_from_environment()
    assert telemetry.switch.tracer is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER is 'zipkin'; expected 'otlp' or 'none'"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTLP over 'grpc' is not supported"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc", "OTLP over 'grpc' is not supported"),
    ],
)
def test_what_is_not_there(name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other exporters and protocols are bad input that says what to do, not silence."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=expected):
        telemetry.enable_from_environment()
    assert telemetry.switch.tracer is None


def test_one_signal(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint for traces alone sends no metrics; what is left is sent when telemetry is switched off."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/own/path")
    assert telemetry.enable_from_environment()
    with escalade.scope():
        pass
    telemetry.disable()
    assert {path for path, _, _ in collector.got} == {"/own/path"}
