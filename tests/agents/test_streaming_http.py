"""Streams over real HTTP: tokens come as the server writes them, and who leaves hangs up."""

from __future__ import annotations

import asyncio
import time

import dspy
import pytest

import escalade
from escalade.agents._route import Retry
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.streaming import Token
from escalade.agents.tool_agent import ToolAgent
from escalade.agents.transports import LM15, LiteLLM
from escalade.registry.catalogue import Registry
from escalade.registry.prices import Price
from escalade.registry.tools import tool
from tests.servers.fault_server import FaultServer

pytestmark = [pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict class:UserWarning")]

PRICE = Price.of("1", "2")


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(server):
    server.reset()


@pytest.fixture(scope="module", autouse=True)
def _litellm():
    LiteLLM.preload().join()


@pytest.fixture(params=[LM15, LiteLLM], ids=["lm15", "litellm"])
def gateway(request, server):
    """Models that write slowly, that break off, and that call tools."""
    transport = request.param(api_key="k", api_base=server.base, timeout=5)
    return Gateway(
        [
            Model(name.partition(":")[0], f"openai/{name}", transport, price=PRICE)
            for name in ("slowstream:40", "cut:2", "ok", "tool")
        ],
        retry=Retry(retries=0),
    )


def climb(gateway, *models):
    """One rung for each model; the first that answers does."""
    return Escalate("question -> answer", rungs=models, policy=_First(), gateway=gateway, confidence=False)


class _First:
    name = "the first that answers"

    def decide(self, view):
        if view.attempts and (view.attempts[-1].ok or len(view.attempts) == len(view.rungs)):
            return escalade.Stop(-1, "it answered")
        return escalade.Try(len(view.attempts))


def newest(told):
    """The text of the newest draft of the answer."""
    drafts = {}
    for event in told:
        if isinstance(event, Token) and event.field == "answer":
            drafts[event.draft] = drafts.get(event.draft, "") + event.text
    return drafts[max(drafts)]


async def test_tokens_come_as_they_are_written(gateway, server):
    """A piece is here while the server still writes; the bill is the provider's own count."""
    qa = climb(gateway, "slowstream")
    times, began = [], time.perf_counter()
    async with escalade.scope(budget="1") as run:
        told = []
        async for event in qa.stream(question="one two three"):
            told.append(event)
            if isinstance(event, Token):
                times.append(time.perf_counter() - began)
        assert run.spent == int(PRICE.cost(*server.tokens["slowstream:40"]))
        assert times[0] < time.perf_counter() - began - 0.04
    assert newest(told) == told[-1].result.answer


async def test_leaving_hangs_up(gateway, server):
    """Left after its first event, the call ends at once: the server doesn't get to its end, and the next call works."""
    qa = climb(gateway, "slowstream")
    async with escalade.scope(budget="1") as run:
        began = time.perf_counter()
        async with qa.stream(question="one two three") as open_:
            async for event in open_:
                if isinstance(event, Token):
                    break
        assert time.perf_counter() - began < 2
        assert (run.purse.held, asyncio.current_task().cancelling()) == (0, 0)
        partly = run.spent
        assert partly > 0
        told = [event async for event in climb(gateway, "ok").stream(question="x")]
        assert run.spent == partly + told[-1].result.cost
    assert newest(told) == told[-1].result.answer


async def test_a_stream_that_breaks_off_is_climbed_past(gateway):
    """What a rung wrote before it broke off gives way to the next one's draft."""
    qa = climb(gateway, "cut", "ok")
    async with escalade.scope(budget="1") as run:
        told = [event async for event in qa.stream(question="x")]
        assert run.purse.held == 0
        assert run.spent == told[-1].result.cost
    assert [attempt.status for attempt in told[-1].result.climb.attempts] == ["failed", "ok"]
    assert newest(told) == told[-1].result.answer


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_native_tool_calls(gateway, server, mode):
    """A provider's own tool calls reach the tool, and their results the provider, until `submit` is forced."""
    used = []

    @tool(name="find", side_effects="read")
    def find(query: str) -> str:
        """Finds."""
        used.append(query)
        return "found"

    agent = ToolAgent(
        "question -> answer",
        tools=["find"],
        registry=Registry([find]),
        gateway=gateway,
        model="tool",
        style="native",
        max_steps=2,
    )
    with escalade.scope(budget="1") as run, pytest.raises(dspy.utils.exceptions.AdapterParseError, match="submit"):
        if mode == "sync":
            agent(question="q")
        else:
            asyncio.run(agent.acall(question="q"))
    assert len(used) == 2  # this server calls the first tool, whatever it is told
    assert server.calls["tool"] == 3
    assert run.spent == int(PRICE.cost(*server.tokens["tool"]))
    assert run.purse.held == 0


async def test_many_streams_at_once(gateway):
    """Ten streams, half of them left at the first token: the others are whole, and nothing stays held."""
    qa = climb(gateway, "slowstream")

    async def one(at):
        async with qa.stream(question=f"question {at}") as open_:
            told = []
            async for event in open_:
                told.append(event)
                if at % 2 and isinstance(event, Token):
                    break
            return told

    async with escalade.scope(budget="1") as run:
        told = await asyncio.gather(*(one(at) for at in range(10)))
        assert run.purse.held == 0
    for at in range(0, 10, 2):
        assert newest(told[at]) == told[at][-1].result.answer
