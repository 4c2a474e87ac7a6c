"""Walls around models, tried where they are thin: kept answers, streams that are cut off, vectors one can't pay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import dspy
import numpy as np
import pytest
from dspy.lm15 import StreamEndEvent, Usage

import escalade
from escalade import events
from escalade.agents._route import Retry
from escalade.agents.cache import ResponseCache
from escalade.agents.cache.similar import SimilarityCache
from escalade.agents.degrade import Answers, Resilient
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Constant, Threshold
from escalade.agents.sessions import Session
from escalade.agents.streaming import Answered, stream
from escalade.agents.transports import Embedded
from escalade.agents.world import SimModel
from escalade.agents.world import World as SimWorld
from escalade.errors import PermissionDenied
from escalade.registry.access import Roles
from escalade.registry.prices import Price
from escalade.scopes import Principal
from escalade.testing import virtual_time
from tests.agents.scripted import Scripted

PRICE = Price.of("0.10", "0.40")
ACCESS = Roles({"user": ["model.*:call"]})
MODES = ("sync", "async")


def asked(program: dspy.Module, mode: str = "sync") -> Any:
    """One question."""
    if mode == "sync":
        return program(question="What is the capital of Peru?")
    return asyncio.run(program.acall(question="What is the capital of Peru?"))


def on(gateway: Gateway, **options: Any) -> dspy.Predict:
    """A program on its model."""
    program = dspy.Predict("question -> answer")
    program.set_lm(gateway.lm("main", **options))
    return program


def who(name: str, **options: Any) -> Any:
    """A scope of that user of acme."""
    return escalade.scope(principal=Principal(name, "acme", "user"), access=ACCESS, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("down", [False, True])
def test_kept_answer_is_not_for_who_is_bound_to_another_region(mode: str, *, down: bool) -> None:
    """Fresh or stale, an answer by a model in the US is for a colleague, and not for one who may use the EU only."""
    regions = {"user:eve": "eu"}
    gateway = Gateway([Model("main", "sim/main", Scripted(), price=PRICE, region="us")], name="walls", regions=regions)
    resilient = Resilient(on(gateway), answers=Answers(fresh=0 if down else 60))
    with who("bob"):
        assert asked(resilient, mode).source == "primary"
    gateway.model("main").transport = Scripted([dspy.lm15.ServerError("down", provider="x", status=500)] * 99)
    gateway.retry = Retry(retries=0)
    with who("ann"):
        assert asked(resilient, mode).source == ("stale" if down else "cache")
    with who("eve"), pytest.raises(PermissionDenied):
        asked(resilient, mode)


def test_kept_answer_is_not_for_who_lost_the_model() -> None:
    """A model that is for other roles by now: answers of before are not given either."""
    gateway = Gateway([Model("main", "sim/main", Scripted(), price=PRICE)], name="walls")
    resilient = Resilient(on(gateway), answers=Answers())
    with who("bob"):
        asked(resilient)
        gateway.model("main").roles = ("vip",)
        with pytest.raises(PermissionDenied):
            asked(resilient)


class CutOff(Scripted):
    """Its answers end where they have no more room."""

    def _events(self, request: Any) -> Iterator[Any]:
        for event in super()._events(request):
            end = event.type == "end"
            yield StreamEndEvent(finish_reason="length", usage=event.usage) if end else event


def test_streamed_answer_that_is_cut_off_is_not_kept() -> None:
    """With a stream as without: what was cut off is answered once, and not given again."""
    gateway = Gateway([Model("main", "sim/main", CutOff(), price=PRICE)], name="walls")
    resilient = Resilient(on(gateway), answers=Answers())

    async def followed() -> Any:
        return [event async for event in stream(resilient, question="When?")][-1]

    with escalade.scope():
        for _ in range(2):
            last = asyncio.run(followed())
            assert isinstance(last, Answered)
            assert last.result.source == "primary"


def test_streamed_attempt_that_is_cut_off_is_told_so() -> None:
    """A rung whose streamed answer has no more room is 'truncated', as it is without a stream, not 'wrong_format'."""
    gateway = Gateway([Model("main", "sim/main", CutOff(["[[ ## ans"] * 9), price=PRICE)], name="walls")
    climb = Escalate("question -> answer", rungs=["main"], policy=Constant(0), gateway=gateway, confidence=False)
    heard: list[Any] = []

    async def followed() -> None:
        async for _ in climb.stream(question="When?"):
            pass

    with escalade.scope(listen=heard.append), pytest.raises(dspy.utils.exceptions.AdapterParseError):
        asyncio.run(followed())
    assert [event.why for event in heard if isinstance(event, events.RungTried)] == ["truncated"]


class Vectors(Scripted):
    """All texts have the same vector."""

    def embed(self, model: str, texts: list[str]) -> Embedded:
        return Embedded(np.ones((len(texts), 3)), Usage(input_tokens=len(texts), output_tokens=0))

    async def aembed(self, model: str, texts: list[str]) -> Embedded:
        return self.embed(model, texts)


def dear() -> SimilarityCache:
    """An index by vectors that cost more than the tests have."""
    model = Model("vectors", "sim/vectors", Vectors(), price=Price.of("100000", "0"), kind="embedding")
    return SimilarityCache(Gateway([model], name="walls vectors").embedder("vectors"), threshold=0.9)


@pytest.mark.parametrize("mode", MODES)
def test_vectors_that_one_cannot_pay_cost_no_answer(mode: str) -> None:
    """The cache looks for similar questions with a model that the budget is too small for: a miss, and no refusal when
    the scope is left.
    """
    cache = ResponseCache(similar=dear())
    gateway = Gateway([Model("main", "sim/main", Scripted(), price=PRICE)], name="walls", cache=cache)
    with who("bob", budget="0.01") as run:
        assert asked(on(gateway, temperature=0.0), mode).answer == "42"
    assert run.spent == PRICE.cost(100, 20)


@pytest.mark.parametrize("mode", MODES)
def test_vectors_that_one_cannot_pay_cost_no_apology(mode: str) -> None:
    """Resilient apologises where the vectors for level 4 don't fit the budget; leaving the scope raises nothing."""
    down = Scripted([dspy.lm15.ServerError("down", provider="x", status=500)] * 99)
    gateway = Gateway([Model("main", "sim/main", down, price=PRICE)], name="walls", retry=Retry(retries=0))
    with who("bob", budget="0.01"):
        assert asked(Resilient(on(gateway), answers=Answers(similar=dear())), mode).level == 5


@pytest.mark.parametrize("mode", MODES)
def test_summary_that_was_paid_for_nothing_is_paid_by_its_turn(mode: str) -> None:
    """A summary that can't be read has been paid: the turn that asked for it says so, and turns add up to the run."""
    long = f"[[ ## answer ## ]]\n{'word ' * 300}\n\n[[ ## completed ## ]]"
    speaks = Model("main", "sim/main", Scripted([long] * 9), price=PRICE)
    mumbles = Model("sums up", "sim/small", Scripted(["mm"] * 99), price=PRICE)
    gateway = Gateway([speaks, mumbles], name="walls")
    program = dspy.Predict("question, history: dspy.History -> answer")
    program.set_lm(gateway.lm("main"))
    session = Session(program, id="walls", max_tokens=150, summarise="sums up", gateway=gateway)
    with who("bob", budget="1.00") as run:
        for _ in range(3):
            session.say(question="And?") if mode == "sync" else asyncio.run(session.asay(question="And?"))
        turns = session.turns()
    assert sum(turn.summary_cost for turn in turns) > 0
    assert run.spent == sum(turn.cost for turn in turns)


def test_who_may_not_use_the_model_hears_nothing_of_equal_calls() -> None:
    """The failure of a call that others wait for is not for somebody who may not use the model: he is refused."""

    class Slow(Scripted):
        async def acomplete(self, request: Any) -> Any:
            await asyncio.sleep(0.2)
            return await super().acomplete(request)

    down = Slow([dspy.lm15.ServerError("down", provider="x", status=500)] * 9)
    models = [Model("main", "sim/main", down, price=PRICE)]
    lm = Gateway(models, name="walls", retry=Retry(retries=0), cache=ResponseCache()).lm("main", temperature=0.0)
    access = Roles({"user": ["model.*:call"], "guest": ["model.other:call"]})

    async def ask(role: str) -> Any:
        with escalade.scope(principal=Principal(role, "acme", role), access=access):
            return await lm.acall("When?")

    async def together() -> list[Any]:
        first = asyncio.create_task(ask("user"))
        await asyncio.sleep(0.05)
        return await asyncio.gather(first, ask("user"), ask("guest"), return_exceptions=True)

    with virtual_time() as clock:
        *users, guest = clock.run(together())
    assert len(down.requests) == 1
    assert all(isinstance(failed, dspy.utils.exceptions.LMServerError) for failed in users)
    assert isinstance(guest, PermissionDenied)


def test_nothing_is_tuned_on_a_rung_that_may_not_be_used() -> None:
    """A denied last rung isn't taken for one that is always wrong, by which any policy is good enough."""
    world = SimWorld({"small": SimModel(skill=0.5), "large": SimModel(skill=0.9)}, seed=1)
    rungs = ["small", "large"]
    ladder = Escalate("question -> answer", rungs=rungs, policy=Threshold(0.8), gateway=Gateway(world.as_models()))
    access = Roles({"user": ["model.small:call"]})
    with escalade.scope(principal=Principal("bob", "acme", "user"), access=access, budget="1.00") as run:
        with pytest.raises(PermissionDenied, match="'bob' may not use model 'large'"):
            escalade.tune(ladder, world.task(120, seed=1), world.metric, budget="0.50")
    assert run.spent < escalade.Money.of("0.01")


def test_nothing_is_recorded_of_a_rung_that_may_not_be_used() -> None:
    """A denied rung is no wrong answer in the table; the first question says so."""
    world = SimWorld({"small": SimModel(skill=0.5), "large": SimModel(skill=0.9)}, seed=1)
    ladder = Escalate(
        "question -> answer", rungs=["small", "large"], policy=Threshold(0.8), gateway=Gateway(world.as_models())
    )
    access = Roles({"user": ["model.small:call"]})
    with escalade.scope(principal=Principal("bob", "acme", "user"), access=access) as run:
        with pytest.raises(PermissionDenied, match="'bob' may not use model 'large'"):
            escalade.record(ladder, world.task(5), world.metric)
    assert len(run.recorder.entries()) == 1


def test_what_has_no_price_is_recorded_as_unknown() -> None:
    """The cost of an attempt on a model without a price is unknown in the table, not zero."""
    world = SimWorld({"small": SimModel(skill=0.5), "free": SimModel(skill=0.9)}, seed=1)
    models = world.as_models()
    models[1].price = None
    ladder = Escalate("question -> answer", rungs=["small", "free"], policy=Threshold(0.8), gateway=Gateway(models))
    with escalade.scope():
        outcomes = escalade.record(ladder, world.task(3), world.metric)
    assert (outcomes.cost[:, 0] > 0).all()
    assert (outcomes.cost[:, 1] == -1).all()
    assert not outcomes.priced
