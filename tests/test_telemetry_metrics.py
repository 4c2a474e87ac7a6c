"""Metrics for OpenTelemetry: names, units, buckets and labels as the conventions have them, labels bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from dspy import lm15
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import escalade
from escalade import Budget, Gateway, Ledger, Model, Price, Principal, Registry, Roles, telemetry, tool
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


def test_gauges(metrics: InMemoryMetricReader) -> None:
    """States of breakers and shares of budgets, of what is watched; budgets of users and patterns are in none."""
    model = gateway(Scripted([lm15.ServerError("down")] * 5))
    budgets = [Budget(name, "0.10") for name in ("everything", "tenant:acme", "user:acme/ana", "user:*/*")]
    registry, ledger = Registry([tool(name="look")(lambda: "seen")], name="metrics"), Ledger(budgets)
    unwatch = escalade.watch_metrics(registry, model, ledger)
    access = Roles({"all": ["*:*"]})
    for who in ("acme", "umbrella"):
        with escalade.scope(principal=Principal("ana", who, {"all"}), access=access, ledger=ledger):
            for _ in range(3):
                with contextlib.suppress(Exception):
                    model.lm("small")("hi")
    found = points(metrics)
    states = {
        (labels.get("model") or labels["tool"]): labels["state"]
        for labels, p in found["escalade.breaker.state"]
        if p.value
    }
    assert states == {"small": "open", "look": "closed"}
    used = {labels["account"]: point.value for labels, point in found["escalade.budget.used"]}
    assert set(used) == {"everything", "tenant:acme"}
    assert all(0 <= share < 1 for share in used.values())
    unwatch()
    assert "escalade.budget.used" not in points(metrics)
    assert "budget" not in escalade.usage_metrics(Ledger([Budget("tenant:*", "1")])), "as many as there are tenants"


def test_prometheus() -> None:
    """The same without OpenTelemetry, as text: models beside tools, each family once, tokens by type."""
    model, registry = gateway(Scripted([rate_limited(0.0)])), Registry([tool(name="look")(lambda: "seen")], name="m")
    ledger = Ledger([Budget("everything", "0.10")])
    with escalade.scope(ledger=ledger):
        model.lm("small")("hi")
        registry.resolve("look")()
    spent = PRICE.cost(100, 20)
    text = escalade.usage_metrics(registry, model, ledger)
    lines = text.splitlines()
    for expected in (
        'escalade_model_calls_total{model="small",outcome="ok"} 1',
        'escalade_model_calls_total{model="small",outcome="failed"} 1',
        'escalade_model_tokens_total{model="small",type="input"} 100',
        'escalade_model_tokens_total{model="small",type="output"} 20',
        f'escalade_model_cost_dollars_total{{model="small"}} {int(spent) / 1e9!r}',
        'escalade_tool_calls_total{tool="look",version="1.0.0",outcome="ok"} 1',
        'escalade_breaker_state{model="small",state="closed"} 1.0',
        'escalade_breaker_state{tool="look",version="1.0.0",state="open"} 0.0',
        f'escalade_budget_used{{account="everything"}} {int(spent) / 100_000_000!r}',
    ):
        assert expected in lines, expected
    types = [line for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))


def test_metrics_of_something_else() -> None:
    """What is neither a registry nor a gateway nor a ledger is bad input that says so."""
    with pytest.raises(escalade.BadInput, match="expected registries, gateways and ledgers, got 'shop'"):
        escalade.usage_metrics("shop")  # type: ignore[arg-type]
