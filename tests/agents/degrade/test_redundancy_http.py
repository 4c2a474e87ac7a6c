"""Providers that fail over real HTTP: an invalid key, one that hangs, all of them down. The server counts by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import pytest

import escalade
from escalade.agents._route import Retry
from escalade.agents.degrade import Answers, Replies, Reply, Resilient
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.transports import LM15, LiteLLM
from escalade.registry.breaker import Breaker
from escalade.registry.prices import Price
from tests.servers.fault_server import FaultServer

pytestmark = [
    # litellm builds its pydantic models on the first call, and pydantic doesn't like them.
    pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict class:UserWarning"),
]

PRICE = Price.of("1", "2")
NOBODY = "http://127.0.0.1:9/v1"
FAULTS = ("e401", "e404", "e429", "e429quota", "e500", "e503", "drop", "badjson", "refused", "slow:2")

Make = Callable[..., Resilient]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    LiteLLM.preload().join()
    with FaultServer() as running:
        yield running


@pytest.fixture(params=[LM15, LiteLLM], ids=["lm15", "litellm"])
def make(request: pytest.FixtureRequest, server: FaultServer) -> Make:
    """A Resilient whose models show these faults, each the fallback of the one before."""
    server.reset()

    def made(*faults: str, **options: Any) -> Resilient:
        models = []
        for number, fault in enumerate(faults):
            base = NOBODY if fault == "refused" else server.base
            seconds = 0.6 if "slow" in fault else 10
            transport = request.param(api_key=f"key-{number}", api_base=base, timeout=seconds)
            spare = (f"m{number + 1}",) if number + 1 < len(faults) else ()
            models.append(
                Model(f"m{number}", f"openai/{fault}", transport, price=PRICE, timeout=20, fallbacks=spare,
                      breaker=Breaker(failures=99))
            )  # fmt: skip
        program = dspy.Predict("question -> answer")
        program.set_lm(Gateway(models, name="redundant", retry=Retry(retries=0)).lm("m0"))
        return Resilient(program, **options)

    return made


def ask(program: dspy.Module, mode: str) -> Any:
    """One question, in a format that needs no second call."""
    with dspy.context(adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        return program(question="When?") if mode == "sync" else asyncio.run(program.acall(question="When?"))


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_provider_that_fails(make: Make, server: FaultServer, fault: str, mode: str) -> None:
    """Whatever is wrong with the primary: another provider answers, the prediction says which, and each was asked
    once.
    """
    with escalade.scope(budget="1"):
        answer = ask(make(fault, "ok"), mode)
    assert (answer.answer, answer.level, answer.model) == ("answer value", 3, "m1")
    assert server.calls["ok"] == 1
    assert server.calls[fault] == (0 if fault == "refused" else 1)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("fault", FAULTS)
def test_all_are_down(make: Make, fault: str, mode: str) -> None:
    """No exception but an apology, with the reason of each model in explain()."""
    with escalade.scope(budget="1"):
        answer = ask(make(fault, "e503", fault), mode)
    assert (answer.level, answer.answer) == (5, None)
    assert answer.apology
    assert all(name in answer.explain() for name in ("m0", "m1", "m2"))


def test_the_provider_says_when(make: Make) -> None:
    """The Retry-After of a provider is the time to try again; of several, the first."""
    with escalade.scope(budget="1"):
        assert ask(make("e429:50"), "sync").retry_after == 50.0
        assert ask(make("e429:50", "e429:40"), "sync").retry_after == 40.0


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_providers_that_hang(make: Make, mode: str) -> None:
    """Two that hang and one that answers: the wait is that of two timeouts."""
    began = time.perf_counter()
    with escalade.scope(budget="1"):
        answer = ask(make("slow:20", "slow:20", "ok"), mode)
    assert (answer.level, answer.model) == (3, "m2")
    assert time.perf_counter() - began < 15, "one that is waited for takes 20 s"


def test_an_answer_of_before(make: Make, server: FaultServer) -> None:
    """All providers go down after an answer: it is given again, and a written one to those who never asked."""
    answers = Answers(fresh=0)
    with escalade.scope(budget="1"):
        assert ask(make("ok", answers=answers), "sync").level == 2
        down = make("e500", "refused", answers=answers, replies=Replies([Reply("Soon.", words=("who",))]))
        answer = ask(down, "sync")
        assert (answer.level, answer.source, answer.answer) == (4, "stale", "answer value")
        answer = down(question="Who?")
        assert (answer.level, answer.source, answer.answer) == (4, "static", "Soon.")
    assert server.calls["ok"] == 1


def test_it_recovers(make: Make, server: FaultServer) -> None:
    """A provider that comes back is the primary again, at the next question."""
    resilient = make("flaky:1", "e500")
    with escalade.scope(budget="1"):
        assert [ask(resilient, "sync").level for _ in range(3)] == [5, 2, 2]
    assert server.calls["flaky:1"] == 3
