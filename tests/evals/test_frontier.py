"""Programs on the same questions: what each came to, which are worth having, and what is no answer counts."""

from __future__ import annotations

import dspy
import pytest
from dspy import lm15

import escalade
from escalade.agents._route import Retry
from escalade.agents.cache import ResponseCache
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Constant
from escalade.agents.transports.simulated import Simulated
from escalade.agents.world import SimModel, World
from escalade.errors import BudgetExceeded, DataError, NoScope, UnknownPrice
from escalade.evals.frontier import frontier


@pytest.fixture
def world():
    return World(seed=4)


def on(gateway, rung, **options):
    return Escalate("question -> answer", rungs=[rung], policy=Constant(0), gateway=gateway, **options)


def test_what_is_dearer_and_no_better_is_not_on_the_frontier(world):
    """Cheapest first; the sum of all costs is what the scope has spent; a dear copy of a program is behind it."""
    world = World({"small": SimModel(0.5), "big": SimModel(0.9, "2", "8"), "dear": SimModel(0.5, "4", "16")}, seed=4)
    gateway, devset = Gateway(world.as_models()), world.task(60, 1)
    programs = {name: on(gateway, name) for name in ("dear", "big", "small")}
    with escalade.scope(budget="1.00") as run:
        points = frontier(programs, devset, world.metric)
    assert [(point.name, point.on_frontier) for point in points] == [("small", True), ("big", True), ("dear", False)]
    assert sum(point.cost.mean for point in points) * 60 == pytest.approx(int(run.spent))
    for point in points:
        assert point.quality.low <= point.quality.mean <= point.quality.high
        assert point.cost.low <= point.cost.mean <= point.cost.high
        assert point.errors == 0


def test_any_program_and_metrics_with_feedback(world):
    """A plain Predict is measured as well, by the score of a metric that gives feedback."""
    gateway, devset = Gateway(world.as_models()), world.task(20, 1)
    with escalade.scope(budget="1.00") as run, dspy.context(lm=gateway.lm("small")):
        [plain] = frontier({"plain": dspy.Predict("question -> answer")}, devset, world.feedback)
    assert plain.cost.mean * 20 == pytest.approx(int(run.spent))
    assert 0 < plain.quality.mean < 1


def test_a_cache_makes_no_program_cheaper(world):
    """The same program twice costs the same twice, though the second could have had its answers from the cache."""
    gateway = Gateway(world.as_models(), cache=ResponseCache())
    with escalade.scope(budget="1.00"):
        first, second = frontier({n: on(gateway, "small") for n in ("a", "b")}, world.task(10, 1), world.metric)
    assert first.cost == second.cost
    assert first.cost.mean > 0


def test_failures_count_as_wrong(world):
    """A call that fails is an error of quality 0, and is counted; nothing is dropped."""
    fails = SimModel(skill=1.0, fail_every=4, error=lm15.InvalidRequestError("no", provider="simulated"))
    world = World({"small": fails}, seed=4)
    gateway = Gateway(world.as_models(), retry=Retry(retries=0))
    with escalade.scope(budget="1.00"):
        [point] = frontier({"shaky": on(gateway, "small")}, world.task(20, 1), world.metric)
    assert (point.errors, point.quality.mean) == (5, 0.75)


def test_a_mistake_in_a_program_is_raised(world):
    """What is no failure of a model isn't taken for a wrong answer."""

    class Mistaken(dspy.Module):
        def forward(self, question):
            raise KeyError("oops")

    with escalade.scope(budget="1.00"), pytest.raises(KeyError):
        frontier({"mistaken": Mistaken()}, world.task(2, 1), world.metric)


def test_the_end_of_the_money_is_raised(world):
    """A program that the budget cut short can't be compared with one that it didn't."""
    program = on(Gateway(world.as_models()), "small")
    with pytest.raises(BudgetExceeded), escalade.scope(budget="0.002") as run:
        frontier({"qa": program}, world.task(200, 1), world.metric)
    assert 0 < run.spent <= escalade.Money.of("0.002")


def test_what_makes_no_sense_is_refused(world):
    """No examples, no programs, no scope, no price."""
    program = on(Gateway(world.as_models()), "small")
    unpriced = on(Gateway([Model("small", "sim/small", Simulated(world))], name="unpriced"), "small")
    with escalade.scope():
        with pytest.raises(DataError):
            frontier({"qa": program}, [], world.metric)
        with pytest.raises(DataError):
            frontier({}, world.task(2, 1), world.metric)
        with pytest.raises(UnknownPrice):
            frontier({"qa": unpriced}, world.task(2, 1), world.metric)
    with pytest.raises(NoScope):
        frontier({"qa": program}, world.task(2, 1), world.metric)
