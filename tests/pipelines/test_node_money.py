"""Attempts cost what they really cost: retries and hedges against a server that counts by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import dspy
import pytest

from escalade import LM15, Chain, Gateway, Model, NodeRetry, Price, Retry, events, node, scope
from escalade.pipelines.options.hedge import Hedge
from escalade.registry.journal import Journal
from tests.servers.fault_server import FaultServer

PRICE = Price.of("1", "2")


class Asker(dspy.Module):  # type: ignore[misc]
    """Asks one model."""

    def __init__(self, gateway: Gateway, alias: str) -> None:
        super().__init__()
        self.predict, self.lm = dspy.Predict("question -> answer"), gateway.lm(alias)

    async def aforward(self, question: str) -> dspy.Prediction:
        with dspy.context(lm=self.lm):
            return await self.predict.acall(question=question)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """One for this module."""
    with FaultServer() as running:
        yield running


@pytest.fixture
def gateway(server: FaultServer) -> Gateway:
    """Models that answer, at once or after 0.6 s, and that don't, none of which is tried again by itself."""
    server.reset()
    route = LM15(api_key="k", api_base=server.base, timeout=5)
    names = {"ok": "ok", "slow": "slow:0.6", "limited": "e429", "broken": "e500", "wrong": "e401", "quota": "e429quota"}
    models = [Model(alias, f"openai/{name}", route, price=PRICE, timeout=5) for alias, name in names.items()]
    return Gateway(models, retry=Retry(retries=0))


def billed(server: FaultServer, model: str) -> int:
    return int(PRICE.cost(*server.tokens.get(model, (0, 0))))


async def test_both_attempts_of_a_hedge_are_billed(server: FaultServer, gateway: Gateway) -> None:
    """The one that answered at the server's count, the one that was cut off at its reservation; nothing stays held."""
    journal, heard = Journal(), list[events.Event]()
    pipeline = Chain(a=node(Asker(gateway, "slow"), hedge=Hedge(0.2)))
    async with scope(budget="1.00", recorder=journal, listen=heard.append) as run:
        await pipeline.acall(question="why")
        spent, held = run.purse.spent, run.purse.held
    assert len([event for event in heard if isinstance(event, events.NodeHedged)]) == 1
    answered, cut = sorted(journal.entries(), key=lambda entry: entry.outcome != "ok")
    assert (answered.outcome, cut.outcome) == ("ok", "cancelled")
    assert (spent, held) == (answered.cost + cut.held, 0)
    assert journal.running() == []
    for _ in range(500):  # the server works on it all the same, and bills it
        if billed(server, "slow:0.6") > answered.cost:
            break
        await asyncio.sleep(0.01)
    assert spent >= billed(server, "slow:0.6") == 2 * answered.cost


@pytest.mark.parametrize(("alias", "calls"), [("limited", 3), ("broken", 3), ("wrong", 1), ("quota", 1)])
async def test_failures_of_models_are_judged(server: FaultServer, gateway: Gateway, alias: str, calls: int) -> None:
    """A limit and a failing server are tried again, a wrong key or a used up quota is not. Failed attempts are free."""
    made = node(Asker(gateway, alias), retry=NodeRetry(2, base=0.001, patience=60.0), fallback=Asker(gateway, "ok"))
    asked = {"limited": "e429", "broken": "e500", "wrong": "e401", "quota": "e429quota"}[alias]
    async with scope(budget="1.00", listen=(heard := list[events.Event]()).append) as run:
        await Chain(a=made).acall(question="why")
        assert run.purse.spent == billed(server, "ok") > 0
        assert run.purse.held == 0
    assert server.calls[asked] == calls
    assert len([event for event in heard if isinstance(event, events.NodeRetried)]) == calls - 1
    assert [event.cost for event in heard if isinstance(event, events.NodeFinished)] == [run.purse.spent] * 2
