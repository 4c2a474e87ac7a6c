"""A provider that is busy, and callers in a hurry, shut nothing; a timeout is kept however a model is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from dspy import lm15
from dspy.lm15 import Message, Request

import escalade
from escalade.agents._route import Retry
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.transports import LM15, LiteLLM
from escalade.errors import DeadlineExceeded
from escalade.registry.prices import Price
from escalade.testing import virtual_time
from tests.agents.scripted import Scripted, rate_limited
from tests.servers.fault_server import FaultServer

PRICE = Price.of("1", "2")


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    LiteLLM.preload().join()  # importing it takes longer than any timeout here
    with FaultServer() as running:
        yield running


def ask(gateway: Gateway, name: str = "m") -> object:
    request = Request(model=f"escalade/{name}", messages=(Message.user("hi"),))
    return gateway.lm(name)._engine_spec.complete(request)


def test_a_busy_provider_is_waited_out() -> None:
    """Twelve times 429 in a row are twelve waits; the model stays open to everybody, and nothing is billed for them."""
    model = Model("m", "sim/m", Scripted([rate_limited(2.0)] * 12), price=PRICE)
    with virtual_time() as clock, escalade.scope(budget="1.00") as run:
        ask(Gateway([model]))
        assert clock.elapsed == pytest.approx(24.0, abs=0.1)
        assert run.spent == PRICE.cost(100, 20)
    assert model.breaker is not None
    assert model.breaker.state == "closed"


@pytest.mark.parametrize(
    ("retry", "attempts"),
    [(Retry(), 31), (Retry(retries=0), 1), (Retry(patience=90), 46)],
    ids=["a minute", "no retries", "as long as one has patience"],
)
def test_it_is_not_waited_for_without_end(retry: Retry, attempts: int) -> None:
    """After a minute of waits in all the last 429 is raised."""
    scripted = Scripted([rate_limited(2.0)] * 99)
    with virtual_time(), escalade.scope(), pytest.raises(lm15.RateLimitError):
        ask(Gateway([Model("m", "sim/m", scripted, price=PRICE)], retry=retry))
    assert len(scripted.requests) == attempts


def test_who_has_a_stand_in_does_not_wait_long() -> None:
    """A 429 counts as a retry where another model can answer."""
    busy, ready = Scripted([rate_limited(0.5)] * 99), Scripted()
    models = [
        Model("m", "sim/m", busy, price=PRICE, fallbacks="n"),
        Model("n", "sim/n", ready, price=PRICE),
    ]
    with virtual_time(), escalade.scope():
        ask(Gateway(models))
    assert (len(busy.requests), len(ready.requests)) == (3, 1)


async def test_who_is_in_a_hurry_shuts_the_model_for_nobody(server: FaultServer) -> None:
    """Deadlines that pass while a model answers are the callers' own: another tenant is answered right after."""
    model = Model("m", "openai/slow:0.3", LM15(api_key="k", api_base=server.base), price=PRICE)
    lm = Gateway([model]).lm("m")
    for _ in range(6):
        with escalade.scope(deadline=0.02), pytest.raises(DeadlineExceeded):
            await lm.acall("hi")
    with escalade.scope():
        assert await lm.acall("hi")


@pytest.mark.parametrize("transport", [LM15, LiteLLM])
@pytest.mark.parametrize("stream", [False, True], ids=["answer", "stream"])
def test_a_sync_call_keeps_the_models_timeout(server: FaultServer, transport: type, stream: bool) -> None:
    """Without a deadline, too: a provider that says nothing for 6 s is left after 0.2 s, and another one asked."""
    made = transport(api_key="k", api_base=server.base)
    models = [
        Model("m", "openai/hang:6", made, price=PRICE, timeout=0.2, fallbacks="n"),
        Model("n", "openai/ok", made, price=PRICE),
    ]
    gateway = Gateway(models, retry=Retry(retries=0))
    request = Request(model="escalade/m", messages=(Message.user("hi"),))
    began = time.perf_counter()
    with escalade.scope():
        engine = gateway.lm("m")._engine_spec
        assert list(engine.stream(request)) if stream else engine.complete(request)
    assert time.perf_counter() - began < 5, "it takes 6 s"
