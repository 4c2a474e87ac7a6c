"""Race: the first good answer, as it is; staggered starts; what the losers cost."""

from __future__ import annotations

import asyncio
import copy
import pickle
import time
from typing import Any

import dspy
import pytest

from escalade import events
from escalade.agents._route import Retry
from escalade.agents.escalate import Escalated
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.transports import LM15
from escalade.errors import BadInput, JoinFailed, NodeError
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.joined import Joined
from escalade.pipelines.node import node
from escalade.pipelines.race import Race
from escalade.registry.journal import Journal
from escalade.registry.opening import scope
from escalade.registry.prices import Price
from tests._virtual import virtually
from tests.pipelines.offline import after, no_task_left, offline_lm
from tests.servers.fault_server import FaultServer

PRICE = Price.of("1", "2")


def states(result: Any) -> dict[str, str]:
    return {name: status.state for name, status in result.statuses.items()}


@virtually
async def test_the_first_good_answer_wins() -> None:
    """A quicker failure does not, the slower ones are cancelled."""
    with no_task_left():
        result = await Race(bad=after(0, ValueError("no")), good=after(0.02, {"x": 1}), slow=after(9, {"x": 2})).acall()
    assert (dict(result.items()), result.winner) == ({"x": 1}, "good")
    assert states(result) == {"bad": "failed", "good": "ok", "slow": "cancelled"}


async def test_a_bare_value_has_a_name_that_does_not_depend_on_who_wins() -> None:
    """It is the field `result`; in a chain the next step finds it, by its name or as the only one."""
    assert (await Race(a=after(0, "x"), b=after(9, "y")).acall()).result == "x"
    assert (await Chain(race=Race(a=after(0, 3), b=after(9, 4)), twice=lambda result: result * 2).acall()).twice == 6


async def test_the_winner_is_handed_on_as_it_is() -> None:
    """A Prediction of another class stays one, with what it knows about itself; also through copies and pickles."""
    with dspy.context(lm=offline_lm()):
        plain = await Race(a=dspy.Predict("question -> answer")).acall(question="q")
    assert isinstance(plain, Joined)
    assert plain.answer == "answer(q)"
    found = Escalated(answer="x")
    result = await Race(a=after(0, found), b=after(9, None)).acall()
    for again in (result, copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert isinstance(again, Escalated)
        assert isinstance(again, Joined)
        assert (again.answer, again.winner) == ("x", "a")
    assert not isinstance(found, Joined)
    predict = dspy.Predict("question -> answer")
    assert [name for name, _ in Race(a=predict, b=Chain(dspy.ChainOfThought("a -> b"))).named_predictors()] == [
        "branches['a']",
        "branches['b'].steps['chainofthought'].predict",
    ]
    with pytest.raises(BadInput, match="only the result of a Race has a winner"):
        (await FanOut(a=after(0, 1)).acall()).winner  # noqa: B018


@virtually
async def test_when_all_fail_every_cause_is_told() -> None:
    """One error, as a node of the race's place would raise it, with each branch's own."""
    with no_task_left(), pytest.raises(JoinFailed) as caught:
        await Chain(race=Race(a=after(0, ValueError("one")), b=after(0.01, node_error()))).acall()
    assert caught.value.path == "race"
    assert isinstance(caught.value, NodeError)
    assert [(name, type(cause).__name__) for name, cause in caught.value.causes.items()] == [
        ("a", "ValueError"),
        ("b", "KeyError"),
    ]
    assert "a: failed after" in str(caught.value)
    assert "0 of 2 ended well, 1 needed" in str(caught.value)


def node_error() -> Exception:
    return KeyError("two")


@virtually
async def test_staggered_starts() -> None:
    """The next begins when no earlier one has answered after `stagger` seconds, or at once when one has failed."""
    told: list[events.Event] = []
    race = Race(a=after(0.45, "a"), b=after(9, "b"), c=after(9, "c"), stagger=0.25)
    async with scope(listen=told.append):
        result = await race.acall()
    assert result.winner == "a"
    assert states(result) == {"a": "ok", "b": "cancelled", "c": "skipped"}
    assert [event.path for event in told if isinstance(event, events.NodeStarted)] == ["a", "b"]
    assert [event.path for event in told if isinstance(event, events.NodeSkipped)] == ["c"]
    began = time.perf_counter()
    result = await Race(a=after(0, ValueError("no")), b=after(0, "b"), stagger=9).acall()
    assert (result.winner, time.perf_counter() - began < 1) == ("b", True)
    with pytest.raises(JoinFailed):
        await Race(a=after(0, ValueError("no")), b=after(0.01, ValueError("no")), stagger=9).acall()


@virtually
async def test_a_race_of_timeouts() -> None:
    """`timeout` is for each branch that has none of its own."""
    with pytest.raises(JoinFailed) as caught:
        await Race(a=after(9, 1), b=node(after(9, 1), timeout=0.01), timeout=0.03).acall()
    assert [str(cause).partition(": ")[2] for cause in caught.value.causes.values()] == [
        "no result within its timeout of 0.03 s",
        "no result within its timeout of 0.01 s",
    ]


async def test_a_missing_field_is_missing_before_anything_runs() -> None:
    """A call without what a branch needs is the caller's mistake and no lost race."""
    ran: list[int] = []
    with pytest.raises(BadInput, match="'x'"):
        await Race(a=lambda: ran.append(1), b=lambda x: x).acall()
    assert not ran


# -- over HTTP, with a server that counts by itself


def billed(server: FaultServer, *models: str) -> int:
    return sum(int(PRICE.cost(*server.tokens.get(model, (0, 0)))) for model in models)


class Asker(dspy.Module):
    """Asks a model after some time."""

    def __init__(self, gateway: Gateway, alias: str, seconds: float = 0.0) -> None:
        super().__init__()
        self.predict, self.lm, self.seconds = dspy.Predict("question -> answer"), gateway.lm(alias), seconds

    async def aforward(self, question: str) -> dspy.Prediction:
        await asyncio.sleep(self.seconds)
        with dspy.context(lm=self.lm):
            return await self.predict.acall(question=question)


@pytest.fixture(scope="module")
def server() -> Any:
    """One for this module."""
    with FaultServer() as running:
        yield running


@pytest.fixture
def gateway(server: FaultServer) -> Gateway:
    """Models that answer, at once and after 1.2 s, and one that fails, for a price."""
    server.reset()
    route = LM15(api_key="k", api_base=server.base, timeout=5)
    names = {"ok": "ok", "other": "ok-2", "slow": "slow:2.5", "broken": "e500"}
    models = [Model(alias, f"openai/{name}", route, price=PRICE, timeout=5) for alias, name in names.items()]
    return Gateway(models, retry=Retry(retries=0))


async def test_losers_cost_what_was_really_spent(server: FaultServer, gateway: Gateway) -> None:
    """Who had answered costs the server's own count; who had not asked yet, or failed, nothing; who was cut off while
    the server worked costs his reservation, since the server may bill it (and this one does). Nothing stays held.
    """
    fan = FanOut(
        quick=Asker(gateway, "ok", 0.8),  # the others have asked by then
        other=Asker(gateway, "other", 0.8),
        broken=Asker(gateway, "broken"),
        waiting=Asker(gateway, "other", 9.0),
        cut=Asker(gateway, "slow"),
        quorum=2,
    )
    async with scope(budget="1.00", recorder=(journal := Journal())) as run:
        result = await fan.acall(question="why")
        costs = {name: status.cost for name, status in result.statuses.items()}
        assert run.purse.held == 0
        assert run.purse.spent == sum(costs.values())
    assert costs["quick"] == billed(server, "ok") > 0
    assert costs["other"] == billed(server, "ok-2") > 0
    assert (costs["broken"], costs["waiting"]) == (0, 0)
    reserved = [entry.held for entry in journal.entries() if entry.resource == "slow"]
    assert [costs["cut"]] == reserved
    async with asyncio.timeout(30):
        while not billed(server, "slow:2.5"):  # noqa: ASYNC110 - the server is in a thread
            await asyncio.sleep(0.02)
    assert costs["cut"] >= billed(server, "slow:2.5")
    assert journal.running() == []


async def test_a_race_that_is_won_costs_no_more_than_its_winner(server: FaultServer, gateway: Gateway) -> None:
    """Staggered, the second never asks: the ledger has the server's own count, to the nano-dollar."""
    race = Race(first=Asker(gateway, "ok"), second=Asker(gateway, "slow"), stagger=5.0)
    async with scope(budget="1.00") as run:
        result = await race.acall(question="why")
    assert result.winner == "first"
    assert run.purse.spent == billed(server, "ok") == result.statuses["first"].cost
    assert result.statuses["second"].cost is None
    assert sum(server.calls.values()) == 1
