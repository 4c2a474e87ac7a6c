"""The gateway over real HTTP: each fault of a provider has a documented outcome, on both routes.

The documented outcomes are the table in `escalade/agents/_route.py`. The server counts calls and tokens by itself.
"""

from __future__ import annotations

import asyncio

import dspy
import pytest
from dspy import lm15
from dspy.lm15 import Message, Request

from escalade.agents._route import Retry
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.transports import LM15, LiteLLM
from escalade.errors import CircuitOpen, DeadlineExceeded
from escalade.registry.breaker import Breaker
from escalade.registry.journal import Journal
from escalade.registry.opening import scope
from escalade.registry.prices import Price
from tests.servers.fault_server import FaultServer

pytestmark = [
    # litellm builds its pydantic models on the first call, and pydantic doesn't like them.
    pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict class:UserWarning"),
]

PRICE = Price.of("1", "2")
NOBODY = "http://127.0.0.1:9/v1"
TRIES = 3

OUTCOMES = [
    # fault,     calls of the faulty model, billed at its reservation
    ("e401", 1, False),
    ("e429", TRIES, False),
    ("e429quota", 1, False),
    ("e500", TRIES, False),
    ("e503", TRIES, False),
    ("slow:2", TRIES, True),
    ("refused", TRIES, False),
    ("drop", TRIES, True),
    ("badjson", 1, True),
    ("ctx", 1, False),
]


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
    """Makes a gateway whose `bad` model shows a fault and whose `ok` stands in for it."""

    def make(fault, *, alone=False, breaker=None, retry=None, timeout=None):
        timeout = timeout or (0.6 if "slow" in fault else 5)
        base = NOBODY if fault == "refused" else server.base
        bad = request.param(api_key="k", api_base=base, timeout=timeout)
        good = request.param(api_key="k", api_base=server.base, timeout=5)
        models = [
            Model(
                "bad",
                f"openai/{fault}",
                bad,
                price=PRICE,
                timeout=5,
                fallbacks=() if alone else ("ok",),
                breaker=breaker or Breaker(failures=99),
            ),
            Model("ok", "openai/ok", good, price=PRICE),
        ]
        return Gateway(models, retry=retry or Retry(retries=TRIES - 1, base=0.0))

    return make


def ask(gateway, mode):
    """One Predict on the bad model, with the adapter's own second call forbidden."""
    predict = dspy.Predict("question -> answer")
    with dspy.context(lm=gateway.lm("bad"), adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        return predict(question="q") if mode == "sync" else asyncio.run(predict.acall(question="q"))


def billed(server, model="ok"):
    """What the server itself counted, at list price."""
    return int(PRICE.cost(*server.tokens.get(model, (0, 0))))


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(("fault", "calls", "at_reservation"), OUTCOMES, ids=[row[0] for row in OUTCOMES])
def test_fault_has_its_documented_outcome(server, gateway, fault, calls, at_reservation, mode):
    """Retried as often as documented, each attempt reserved and settled, the fallback answers, the money is right."""
    with scope(budget="1.00", recorder=(journal := Journal())) as run:
        assert ask(gateway(fault), mode).answer
        assert run.purse.held == 0
    *failed, answered = journal.entries()
    assert journal.running() == []
    assert [e.resource for e in failed] == ["bad"] * calls
    assert [e.outcome for e in failed] == ["failed"] * calls
    assert all(e.held > 0 and e.cost == (e.held if at_reservation else 0) for e in failed)
    assert server.calls[fault] == (0 if fault == "refused" else calls)
    assert (answered.resource, answered.outcome, answered.cost) == ("ok", "ok", billed(server))
    assert run.purse.spent == sum(e.cost for e in journal.entries())


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_retry_after_of_the_provider_is_waited_for(server, gateway, mode):
    """Retry-After arrives on both routes, is waited for, and the wait is not billed."""
    import time

    began = time.perf_counter()
    with scope(budget="1.00", recorder=(journal := Journal())):
        ask(gateway("e429:1", retry=Retry(retries=1, base=0.0)), mode)
    assert time.perf_counter() - began >= 1.0
    assert server.calls["e429:1"] == 2
    assert [e.cost for e in journal.entries()[:2]] == [0, 0]


def test_transient_failure_is_retried_into_success(server, gateway):
    """Two failures and then an answer: three attempts on the same model, one bill, no fallback."""
    with scope(budget="1.00", recorder=(journal := Journal())) as run:
        ask(gateway("flaky:2"), "async")
        assert run.purse.spent == billed(server, "flaky:2") > 0
    assert [e.outcome for e in journal.entries()] == ["failed", "failed", "ok"]
    assert server.calls == {"flaky:2": 3}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_open_circuit_is_not_retried(server, gateway, mode):
    """Once the circuit is open, no request goes out: neither by a retry nor by the next question."""
    broken = gateway("e500", alone=True, breaker=Breaker(failures=2, cooldown=60))
    with scope(budget="1.00", recorder=(journal := Journal())):
        with pytest.raises((dspy.utils.exceptions.LMServerError, CircuitOpen)):
            ask(broken, mode)
        assert server.calls["e500"] == 2
        with pytest.raises(CircuitOpen):
            ask(broken, mode)
    assert server.calls["e500"] == 2
    assert {e.outcome for e in journal.denials()} == {"CircuitOpen"}


async def test_stream_that_breaks_before_content_falls_back(server, gateway):
    """Nothing was shown yet, so the other model answers; the broken attempt may have been billed."""
    engine = gateway("cut:0", retry=Retry(retries=0)).lm("bad")._async_engine_spec
    request = Request(model="escalade/bad", messages=(Message.user("hi"),))
    with scope(budget="1.00", recorder=(journal := Journal())):
        shown = [event async for event in engine.stream(request)]
    assert [e.type for e in shown if e.type != "delta"] == ["start", "end"]
    first, second = journal.entries()
    assert (first.outcome, first.cost) == ("failed", first.held)
    assert (second.resource, second.cost) == ("ok", billed(server))


@pytest.mark.parametrize("fault", ["cut:2", "broken:2"])
async def test_cut_stream_is_an_error_and_is_billed_by_what_was_seen(server, gateway, fault):
    """A stream that breaks off never passes for an answer; what was shown is billed, and nothing stands in for it."""
    engine = gateway(fault, retry=Retry(retries=0)).lm("bad")._async_engine_spec
    request = Request(model="escalade/bad", messages=(Message.user("hi"),))
    shown = []
    with scope(budget="1.00", recorder=(journal := Journal())) as run:
        with pytest.raises((lm15.StreamAssemblyError, lm15.TransportError)):
            async for event in engine.stream(request):
                shown.append(event)  # noqa: PERF401 - a comprehension would lose what came before the failure
        assert run.purse.held == 0
    (entry,) = journal.entries()
    assert entry.outcome == "failed"
    assert 0 < entry.cost < entry.held
    assert shown
    assert server.calls["ok"] == 0


async def test_deadline_ends_a_slow_provider(server, gateway):
    """The scope's deadline cuts through retries and fallbacks, and nothing stays reserved."""
    slow = gateway("slow:2", timeout=5)
    with scope(budget="1.00", deadline=0.3) as run, dspy.context(lm=slow.lm("bad")):
        with pytest.raises(DeadlineExceeded):
            await dspy.Predict("question -> answer").acall(question="q")
        assert run.purse.held == 0
    assert server.calls["ok"] == 0


async def test_many_at_once_are_billed_to_the_token(server, gateway):
    """Fifty concurrent calls with failures among them cost what the server counted, to the nano-dollar."""
    flaky = gateway("flaky:10", timeout=5, retry=Retry(retries=9, base=0.0))
    predict = dspy.Predict("question -> answer")
    with scope(budget="1.00") as run, dspy.context(lm=flaky.lm("bad")):
        done = await asyncio.gather(*(predict.acall(question=f"q{i}") for i in range(50)))
        assert len(done) == 50
        assert run.purse.spent == billed(server, "flaky:10") + billed(server)
        assert run.purse.held == 0
