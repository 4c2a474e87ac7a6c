"""Braked: when a budget is nearly used up, climbs go on with cheap rungs; live and replayed."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import events
from escalade.agents.braked import Braked
from escalade.agents.climb import Attempt, Policy, Rung, Stop, Try, View, counted_down
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Budgeted, Constant, Threshold, load_policy
from escalade.agents.transports import Simulated
from escalade.agents.world import SimModel, World
from escalade.errors import BadInput, BudgetExceeded, UnknownName
from escalade.evals.loaders import load_outcomes
from escalade.evals.record import record
from escalade.evals.replay import replay
from escalade.registry.budgets import Budget
from escalade.registry.ledger import Ledger

RUNGS = (Rung("tiny", tier=1), Rung("small", tier=1), Rung("big", tier=2), Rung("unknown"))
PRICES = (1, 2, 10, 50)


def view(*attempts: Attempt, braked: bool = True, left: int | None = None, rungs: Any = RUNGS) -> View:
    """What a policy sees."""
    return View("q", {"prompt_chars": 1}, rungs, PRICES, PRICES, attempts, left, braked=braked)


@pytest.mark.parametrize("policy", [Constant(2), Threshold(0.8), Budgeted(Threshold(0.8), "1")])
def test_without_the_brake_it_is_the_policy(policy: Policy) -> None:
    """As long as no budget brakes, it decides as the policy alone."""
    for attempts in ((), (Attempt(0, "a", 0.2),), (Attempt(0, "a", 0.9),)):
        assert Braked(policy).decide(view(*attempts, braked=False)) == policy.decide(view(*attempts, braked=False))


def test_the_dearest_of_the_tier_stands_in() -> None:
    """Without an answer yet, it tries the dearest rung of the tier, and names the one that was wanted."""
    assert Braked(Constant(2)).decide(view()) == Try(1, "the budget is nearly used up, and big is above tier 1", 2)
    assert Braked(Constant(2)).decide(view(left=1)) == Try(
        0, "the budget is nearly used up, and big is above tier 1", 2
    )


def test_a_rung_of_the_tier_is_the_policy_s() -> None:
    """What the policy wants is tried where it is cheap enough, and where the tier allows it."""
    assert Braked(Constant(0)).decide(view()).why == "always this rung"
    assert Braked(Constant(2), tier=2).decide(view()).why == "always this rung"
    assert isinstance(Braked(Constant(3), tier=4).decide(view()), Try), "no tier is above all tiers"
    assert Braked(Constant(3), tier=4).decide(view()) == Try(
        2, "the budget is nearly used up, and unknown is above tier 4", 3
    )


def test_an_answer_is_enough() -> None:
    """With a good attempt at hand the climb stops."""
    decision = Braked(Constant(2)).decide(view(Attempt(0, "a", 0.1)))
    assert decision == Stop(0, "the budget is nearly used up, and big is above tier 1", wanted=2)


def test_nothing_fits() -> None:
    """Where no cheap rung is left that fits, it stops, and says what was wanted."""
    decision = Braked(Constant(2)).decide(view(Attempt(1, status="failed"), left=0))
    assert isinstance(decision, Stop)
    assert decision.wanted == 2
    assert decision.why.endswith("nothing else fits the $0 left")


def test_rungs_by_name() -> None:
    """Recorded ladders have no tiers: the rungs to go on with can be named."""
    bare = tuple(replace(rung, tier=None) for rung in RUNGS)
    assert Braked(Constant(2), rungs=("tiny",)).decide(view(rungs=bare)) == Try(
        0, "the budget is nearly used up, and big is above tiny", 2
    )
    with pytest.raises(UnknownName, match="rung 'tinny'; did you mean 'tiny'"):
        Braked(Constant(2), rungs=("tinny",)).decide(view())
    with pytest.raises(BadInput, match=r"no model of tiny, small, big, unknown has a tier.*Braked\(policy, rungs="):
        Braked(Constant(2)).decide(view(rungs=bare))


def test_bad_settings() -> None:
    """Tiers are 1 to 4, and some rung has to be left."""
    with pytest.raises(BadInput, match="tier from 1 to 4, got 5"):
        Braked(Constant(0), tier=5)
    with pytest.raises(BadInput, match="at least one rung"):
        Braked(Constant(0), rungs=())


def test_saved_and_frozen() -> None:
    """It is saved with the policy in it, and loads as an equal one; nothing can be changed."""
    for policy in (Braked(Budgeted(Threshold(0.7), "0.01"), tier=2), Braked(Constant(1), rungs=(0, "small"))):
        assert load_policy(json.loads(json.dumps(policy.dump()))) == policy
    with pytest.raises(FrozenInstanceError):
        policy.tier = 3  # type: ignore[misc]


def test_budget_per_request_shows_through() -> None:
    """The budget per request of the policy inside is hard all the same."""
    assert Braked(Budgeted(Constant(0), "0.5")).per_request == 500_000_000
    assert Braked(Constant(0)).per_request is None


def program(policy: Policy) -> tuple[Escalate, World]:
    """Two rungs on models of tiers 1 and 3, the cheap one always wrong and never sure."""
    world = World({"small": SimModel(skill=0.0), "big": SimModel(skill=1.0, price_in="2.50", price_out="10")}, seed=1)
    transport = Simulated(world)
    models = [
        Model("small", "simulated/small", transport, price=world.models["small"].price, tier=1, max_output=100),
        Model("big", "simulated/big", transport, price=world.models["big"].price, tier=3, max_output=100),
    ]
    gateway = Gateway(models, name="braked")
    return Escalate("question -> answer", rungs=["small", "big"], policy=policy, gateway=gateway), world


def test_live() -> None:
    """A day's budget that brakes: questions are answered by the cheap model then, instead of being refused; the
    listener hears it, and explain() tells.
    """
    ask, world = program(Braked(Constant("Predict/big")))
    questions = [example.question for example in world.task(3, seed=2)]
    ledger = Ledger([Budget("everything", "1", "day")])
    with escalade.scope(ledger=ledger):
        assert ask(question=questions[0]).rung.name == "Predict/big"
    ledger.purse().reserve(950_000_000).settle(950_000_000)
    heard: list[Any] = []
    with escalade.scope(ledger=ledger, listen=heard.append):
        answer = ask(question=questions[1])
    assert answer.rung.name == "Predict/small"
    assert "the budget is nearly used up, and Predict/big is above tier 1" in answer.explain()
    (event,) = [event for event in heard if isinstance(event, events.StoodIn)]
    assert (event.rung, event.wanted) == ("Predict/small", "Predict/big")
    assert "nearly used up" in event.why
    with pytest.raises(BudgetExceeded), escalade.scope(ledger=ledger):
        ledger.purse().reserve(49_999_000).settle(49_999_000)
        ask(question=questions[2])


def test_replayed(tmp_path: Path) -> None:
    """A record knows the tiers, also after it was saved and loaded; under the brake, its replay steps down."""
    ask, world = program(Constant(0))
    with escalade.scope():
        outcomes = record(ask, world.task(300, seed=3), world.metric)
    outcomes.save(tmp_path / "outcomes.jsonl")
    loaded = load_outcomes(tmp_path / "outcomes.jsonl")
    assert [rung.tier for rung in loaded.rungs] == [1, 3]
    half = sum(int(cost) for cost in outcomes.cost[:, 1]) // 2
    dear, stepped = (replay(policy, loaded, per_run=half) for policy in (Constant(1), Braked(Constant(1))))
    assert set(dear.chosen) == {-1, 1}
    assert set(stepped.chosen) >= {0, 1}
    assert (stepped.chosen >= 0).sum() > (dear.chosen >= 0).sum()


def test_the_brake_counts_down() -> None:
    """A replay's view brakes as the budget is spent: the second attempt is a cheap one."""
    look = counted_down(view(left=100, braked=False), brake_left=90)
    policy = Braked(Constant(2))
    assert policy.decide(look(())) == Try(2, "always this rung")
    assert policy.decide(look((Attempt(1, status="failed", cost=20),))) == Try(
        0, "the budget is nearly used up, and big is above tier 1", 2
    )
