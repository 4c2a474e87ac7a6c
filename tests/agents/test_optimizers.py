"""DSPy's optimisers on governed agents: they gain, they keep within the budget, and what they made is saved."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import dspy
import pytest

import escalade
from escalade.agents.cost_aware import cost_aware_metric
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.policies import Threshold
from escalade.agents.tool_agent import ToolAgent
from escalade.agents.world import World
from escalade.errors import BudgetExceeded
from escalade.money import Money
from escalade.registry.catalogue import Registry
from escalade.registry.journal import Journal
from escalade.registry.tools import tool

pytestmark = [
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
    pytest.mark.timeout(300),  # they compute; a slow machine takes its time
]

TRAIN, VAL = 30, 30
TESTED = {"escalating": 80, "with_tools": 60, "with_native_tools": 40}
"""Questions to judge on: agents with tools take several calls for each."""


@tool(name="notes.look", cost="0.00001", side_effects="read")
def look(topic: str) -> str:
    """Looks a topic up in the notes."""
    return "nothing there"


def escalating(gateway: Gateway) -> dspy.Module:
    """A ladder of two rungs."""
    rungs = ["small", ("ChainOfThought", "small")]
    return Escalate("question -> answer", rungs=rungs, policy=Threshold(0.8), gateway=gateway)


def with_tools(gateway: Gateway) -> dspy.Module:
    """ReAct on a governed tool."""
    options: dict[str, Any] = {"registry": Registry([look]), "gateway": gateway, "model": "small"}
    return ToolAgent("question -> answer", tools=["notes.look"], style="text", **options)


def with_native_tools(gateway: Gateway) -> dspy.Module:
    """ReActV2 on a governed tool."""
    options: dict[str, Any] = {"registry": Registry([look]), "gateway": gateway, "model": "small"}
    return ToolAgent("question -> answer", tools=["notes.look"], style="native", **options)


def bootstrap(metric: Any, program: dspy.Module, world: World, prompt_model: Any) -> dspy.Module:
    """Demonstrations of its own right answers."""
    optimiser = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=3, max_labeled_demos=3, max_errors=1000)
    return optimiser.compile(program, trainset=world.task(TRAIN, 1))


def mipro(metric: Any, program: dspy.Module, world: World, prompt_model: Any) -> dspy.Module:
    """Instructions and demonstrations."""
    optimiser = dspy.MIPROv2(
        metric=metric,
        auto=None,
        num_candidates=4,
        max_bootstrapped_demos=2,
        max_labeled_demos=2,
        num_threads=1,
        seed=1,
        prompt_model=prompt_model,
        verbose=False,
        max_errors=1000,
    )
    data = {"trainset": world.task(TRAIN, 1), "valset": world.task(VAL, 2)}
    return optimiser.compile(program, **data, num_trials=3, minibatch=False)


def gepa(metric: Any, program: dspy.Module, world: World, prompt_model: Any) -> dspy.Module:
    """Instructions that come of reflecting on feedback."""
    optimiser = dspy.GEPA(
        metric=metric,
        max_metric_calls=500,
        reflection_lm=prompt_model,
        reflection_minibatch_size=4,
        num_threads=1,
        seed=1,
    )
    return optimiser.compile(program, trainset=world.task(TRAIN, 1), valset=world.task(VAL, 2))


MAKERS = [escalating, with_tools, with_native_tools]
OPTIMISERS = [bootstrap, mipro, gepa]
by_name = {"ids": lambda one: one.__name__}

PAIRS = [
    (make, optimise) for make in MAKERS for optimise in OPTIMISERS if (make, optimise) != (with_native_tools, gepa)
]
"""GEPA on the native agent gains as well, and takes as long as all the others together."""


def metric_for(world: World, optimise: Any) -> Any:
    """Feedback is GEPA's alone: to the others any prediction, even one of score 0, is a success."""
    return world.feedback if optimise is gepa else world.metric


def never(example: Any, prediction: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> float:
    """A metric that nothing is good enough for, so that an optimiser goes on until the money ends."""
    return 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("make", "optimise"), PAIRS, **by_name)
def test_it_gains_within_the_budget_and_is_saved(make, optimise):
    """On unseen questions it is better than before, all calls were paid by the scope, and what is saved decides alike.

    The demonstrations of a native agent are calls of tools, which say nothing to the simulated models: it isn't worse.
    """
    world = World(seed=0)
    gateway, before = Gateway(world.as_models()), None
    devset = world.task(TESTED[make.__name__], 3)
    evaluate = dspy.Evaluate(devset=devset, metric=world.metric, num_threads=1, display_progress=False)
    journal = Journal()
    with escalade.scope(budget="2.00", recorder=journal) as run, dspy.context(lm=gateway.lm("small")):
        program = make(gateway)
        before = evaluate(program).score
        compiled = optimise(metric_for(world, optimise), program, world, gateway.lm("large", temperature=1.0))
        after = evaluate(compiled).score
        assert run.purse.held == 0
    tools = Money.of("0.00001") * sum(entry.kind == "tool" for entry in journal.entries())
    assert run.spent == journal.settled == world.cost() + tools
    assert sum(entry.kind == "model" for entry in journal.entries()) == sum(world.calls.values())
    gain = 0 if (make, optimise) == (with_native_tools, bootstrap) else 5
    assert after >= before + gain
    again = make(gateway)
    again.load_state(json.loads(json.dumps(compiled.dump_state())))
    with escalade.scope():
        for example in world.task(5, 5):
            one, other = compiled(**example.inputs()), again(**example.inputs())
            assert (one.answer, one.cost, one.explain()) == (other.answer, other.cost, other.explain())


@pytest.mark.slow
@pytest.mark.parametrize("make", [escalating, with_tools], **by_name)
@pytest.mark.parametrize("optimise", OPTIMISERS, **by_name)
def test_a_budget_that_is_too_small_holds_and_is_told(make, optimise):
    """Whatever the optimiser makes of the refusals, no more than the budget is spent, and leaving the scope raises."""
    world = World(seed=0)
    gateway = Gateway(world.as_models(max_output=200))
    with pytest.raises(BudgetExceeded):
        with escalade.scope(budget="0.0005") as run, dspy.context(lm=gateway.lm("small")):
            program = make(gateway)
            # What comes out of it is DSPy's business: an untrained program, or its own error.
            with contextlib.suppress(Exception):
                optimise(never, program, world, gateway.lm("small", temperature=1.0))
    assert 0 < run.spent <= Money.of("0.0005")
    assert world.cost() <= run.spent


@pytest.mark.slow
@pytest.mark.parametrize("optimise", OPTIMISERS, **by_name)
def test_they_take_a_metric_of_quality_and_cost(optimise):
    """Compiled for quality less cost, a ladder doesn't score worse by it on unseen questions."""
    world = World(seed=0)
    gateway = Gateway(world.as_models())
    metric = cost_aware_metric(metric_for(world, optimise), dollars_per_point="0.01")
    evaluate = dspy.Evaluate(
        devset=world.task(TESTED["escalating"], 3), metric=metric, num_threads=1, display_progress=False
    )
    with escalade.scope(budget="2.00"), dspy.context(lm=gateway.lm("small")):
        program = escalating(gateway)
        before = evaluate(program).score
        after = evaluate(optimise(metric, program, world, gateway.lm("large", temperature=1.0))).score
    assert after > before
