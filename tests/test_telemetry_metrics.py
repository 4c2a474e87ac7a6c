"""Metrics for OpenTelemetry: names, units, buckets and labels as the conventions have them, labels bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from dspy import lm15
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import escalade
from escalade import Gateway, Model, Price, Principal, Registry, Roles, telemetry, tool
from escalade.agents._route import Retry
from escalade.agents.cache import ResponseCache
from tests.agents.scripted import Scripted, rate_limited

PRICE = Price.of("1", "10")


@pytest.fixture
def metrics() -> Iterator[InMemoryMetricReader]:
    """Metrics are on, into memory."""
    reader = InMemoryMetricReader()
    telemetry.enable(meter_provider=MeterProvider([reader]))
    yield reader
    telemetry.disable()


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    """(labels, point) by name of metric."""
    data: Any = reader.get_metrics_data()
    if data is None:
        return {}
    found: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        found[metric.name] = [(dict(point.attributes), point) for point in metric.data.data_points]
    return found


def gateway(transport: Scripted, **options: Any) -> Gateway:
    return Gateway(
        [Model("small", "openai/tiny-1", transport, price=PRICE)],
        name="metrics",
        retry=Retry(retries=1, base=0.0),
        **options,
    )


def test_models(metrics: InMemoryMetricReader) -> None:
    """Durations by error, tokens by type, both in the conventions' buckets; attempts by outcome; what they cost."""
    with escalade.scope(budget="1.00") as run:
        gateway(Scripted([rate_limited(0.0)])).lm("small")("hi")
        spent = int(run.spent)
    found = points(metrics)
    about = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "tiny-1"}
    (failed, first), (answered, second) = found["gen_ai.client.operation.duration"]
    assert failed == {**about, "error.type": "RateLimitError"}
    assert answered == {**about, "gen_ai.response.model": "openai/tiny-1"}
    assert first.count == second.count == 1
    assert first.explicit_bounds[0] == 0.01
    assert first.explicit_bounds[-1] == 81.92
    tokens = {labels["gen_ai.token.type"]: point for labels, point in found["gen_ai.client.token.usage"]}
    assert {kind: point.sum for kind, point in tokens.items()} == {"input": 100, "output": 20}
    assert tokens["input"].explicit_bounds[-1] == 67_108_864
    uses = {labels["escalade.outcome"]: point.value for labels, point in found["escalade.uses"]}
    assert uses == {"ok": 1, "failed": 1}
    (cost,) = found["escalade.cost"]
    assert cost[0] == {"escalade.kind": "model", "escalade.resource": "small"}
    assert cost[1].value == spent


async def test_streams(metrics: InMemoryMetricReader) -> None:
    """How long it took until something was shown."""
    async with escalade.scope():
        engine = gateway(Scripted()).lm("small")._async_engine_spec
        request = lm15.Request(model="escalade/small", messages=(lm15.Message.user("hi"),))
        assert [event async for event in engine.stream(request)]
    ((labels, first),) = points(metrics)["gen_ai.client.operation.time_to_first_chunk"]
    assert labels["gen_ai.response.model"] == "openai/tiny-1"
    assert first.count == 1


def test_tools_and_refusals(metrics: InMemoryMetricReader) -> None:
    """Durations of tools that ran, refusals by class, and nobody's name in any label."""
    registry = Registry([tool(name="crm.search", cost="0.002")(lambda: "found")], name="metrics")
    access = Roles({"caller": ["crm.*:call"], "guest": ["x:read"]})
    with escalade.scope(principal=Principal("ana", "acme", {"caller"}), access=access):
        registry.resolve("crm.search")()
        with escalade.scope(principal=Principal("eve", "acme", {"guest"})):
            with pytest.raises(escalade.PermissionDenied):
                registry.resolve("crm.search")()
    found = points(metrics)
    ((labels, _),) = found["gen_ai.execute_tool.duration"]
    assert labels == {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "crm.search"}
    about = {"escalade.kind": "tool", "escalade.resource": "crm.search"}
    assert [labels for labels, _ in found["escalade.uses"]] == [
        {**about, "escalade.outcome": "ok"},
        {**about, "escalade.outcome": "refused", "error.type": "PermissionDenied"},
    ]
    assert not any(name in str(found) for name in ("ana", "eve", "acme"))


def test_answers_out_of_caches(metrics: InMemoryMetricReader) -> None:
    """By kind, where they came from and which level had them."""
    registry = Registry([tool(name="look", side_effects="read", cache=60)(lambda: "seen")], name="metrics")
    lm = gateway(Scripted(), cache=ResponseCache()).lm("small", temperature=0.0)
    with escalade.scope():
        for _ in range(2):
            registry.resolve("look")()
            dspy.Predict("question -> answer")(question="q", lm=lm)
    found = {labels["escalade.resource"]: (labels, point) for labels, point in points(metrics)["escalade.answers"]}
    assert found["look"][0] == {"escalade.kind": "tool", "escalade.resource": "look", "escalade.source": "cache"}
    assert found["small"][0] == {
        "escalade.kind": "model",
        "escalade.resource": "small",
        "escalade.source": "cache",
        "escalade.cache.level": "memory",
    }
    assert found["look"][1].value == found["small"][1].value == 1


async def test_waits(metrics: InMemoryMetricReader) -> None:
    """How long calls stood in line: for one of a tool's places, and for a turn in a model's lane."""

    async def slow() -> str:
        """Slow."""
        await asyncio.sleep(0.05)
        return "done"

    registry = Registry([tool(name="slow", max_concurrent=1)(slow)], name="metrics")
    async with escalade.scope():
        await asyncio.gather(*(registry.resolve("slow").acall() for _ in range(3)))
    ((labels, wait),) = points(metrics)["escalade.queue.wait"]
    assert labels == {"escalade.kind": "tool", "escalade.resource": "slow"}
    assert wait.count == 3
    assert wait.sum > 0.1
