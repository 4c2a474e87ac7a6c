"""A budget holds where DSPy swallows the refusal: at most the calls that fit are paid, and leaving the scope raises.

BestOfN and Refine print and return None, Parallel returns Nones, Evaluate scores 0, ReAct turns it into an observation,
BootstrapFewShot, MIPROv2 and GEPA return a program that was never trained (measured on DSPy 3.4.1).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import dspy
import pytest
from dspy.lm15 import Usage

from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Threshold
from escalade.agents.transports.simulated import Simulated
from escalade.agents.world import World
from escalade.errors import BudgetExceeded, ScopeClosed
from escalade.registry.journal import Journal
from escalade.registry.opening import scope
from escalade.registry.prices import Price

CALLS = 3


class Metered(Simulated):
    """A simulated transport whose every answer is billed 1,000 output tokens: each call costs just what it reserves."""

    def complete(self, request):
        return replace(super().complete(request), usage=Usage(input_tokens=0, output_tokens=1000))

    async def acomplete(self, request):
        return replace(await super().acomplete(request), usage=Usage(input_tokens=0, output_tokens=1000))


@pytest.fixture
def world():
    return World(seed=4)


@pytest.fixture
def gateway(world):
    carry = Metered(world)
    price = Price.of("0", "1")
    return Gateway([Model(m, f"sim/{m}", carry, price=price, max_output=1000) for m in ("small", "large")])


def parallel(world, program, train):
    dspy.Parallel(num_threads=4, max_errors=100, disable_progress_bar=True)([(program, e.inputs()) for e in train])


def batch(world, program, train):
    program.batch(train, num_threads=4, max_errors=100, disable_progress_bar=True)


def evaluate(world, program, train):
    dspy.Evaluate(devset=train, metric=world.metric, num_threads=4, max_errors=100, display_progress=False)(program)


def best_of_n(world, program, train):
    dspy.BestOfN(program, N=8, reward_fn=lambda _args, _pred: 0.0, threshold=1.0)(**train[0].inputs())


def refine(world, program, train):
    dspy.Refine(program, N=8, reward_fn=lambda _args, _pred: 0.0, threshold=1.0)(**train[0].inputs())


def react(world, program, train):
    def look(subject: str) -> str:
        """Look something up, with a model."""
        return str(program(question=subject))

    for example in train:
        dspy.ReAct("question -> answer", tools=[look], max_iters=5)(**example.inputs())


def gather(world, program, train):
    async def ask():
        return await asyncio.gather(*(program.acall(**e.inputs()) for e in train), return_exceptions=True)

    asyncio.run(ask())


def mipro(world, program, train):
    tuned = dspy.MIPROv2(metric=world.metric, auto=None, num_candidates=3, num_threads=2, max_errors=100, verbose=False)
    tuned.compile(program, trainset=train, num_trials=3, minibatch=False)


def gepa(world, program, train):
    tuned = dspy.GEPA(metric=world.feedback, max_metric_calls=30, reflection_lm=dspy.settings.lm, num_threads=2)
    tuned.compile(program, trainset=train, valset=train)


def bootstrap_few_shot(world, program, train):
    dspy.BootstrapFewShot(metric=world.metric, max_errors=100).compile(program, trainset=train)


WAYS = [parallel, batch, evaluate, best_of_n, refine, react, gather, bootstrap_few_shot, mipro, gepa]


@pytest.mark.parametrize("way", WAYS, ids=lambda w: w.__name__)
def test_at_most_three_calls_are_paid_and_the_scope_raises(way, world, gateway):
    """With money for three calls, three are made; whatever DSPy makes of the refusal, leaving the scope raises it."""
    train = world.task(12, seed=1)
    journal = Journal()
    with pytest.raises(BudgetExceeded, match=r"may cost up to \$0\.001"):
        with scope(budget=f"0.00{CALLS}", recorder=journal) as run, dspy.context(lm=gateway.lm("small")):
            # What comes out of it is DSPy's business (None, 0 points, an untrained program, its own error).
            with contextlib.suppress(Exception):
                way(world, dspy.Predict("question -> answer"), train)
            assert run.purse.spent <= CALLS * 1_000_000
            assert run.purse.held == 0
    assert sum(world.calls.values()) == CALLS
    assert len(journal.entries()) == CALLS
    assert journal.denials()


@pytest.mark.parametrize("way", [parallel, evaluate, best_of_n], ids=lambda w: w.__name__)
def test_escalating_agents_are_held_to_it_too(way, world, gateway):
    """An Escalate that can't answer any more makes its refusal stick as well."""
    qa = Escalate("question -> answer", rungs=["small", "large"], policy=Threshold(0.99), gateway=gateway)
    with pytest.raises(BudgetExceeded):
        with scope(budget=f"0.00{CALLS}"), contextlib.suppress(Exception):
            way(world, qa, world.task(12, seed=1))
    assert sum(world.calls.values()) <= CALLS


def test_with_enough_money_nothing_is_raised(world, gateway):
    """The same run with a sufficient budget leaves its scope quietly."""
    with scope(budget="1.00") as run, dspy.context(lm=gateway.lm("small")):
        evaluate(world, dspy.Predict("question -> answer"), world.task(12, seed=1))
        assert run.purse.spent == 12 * 1_000_000


def test_stragglers_of_a_closed_scope_are_refused(world, gateway):
    """A thread that outlives its scope may not call any more: nobody would pay."""
    predict = dspy.Predict("question -> answer")
    with scope(budget="1.00") as run, dspy.context(lm=gateway.lm("small")):
        settings = dspy.settings.copy()
    with dspy.context(**settings), pytest.raises(ScopeClosed):
        predict(question="anybody there?")
    assert run.closed
    assert sum(world.calls.values()) == 0
