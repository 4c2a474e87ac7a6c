"""A replay predicts production: the same steps, the same answers, the same nano-dollars.

Random simulated worlds are climbed live, through DSPy, the gateway, the guard and the ledger; their outcomes are
recorded the same way; the replay of the record must agree in everything.
"""

from __future__ import annotations

import asyncio

import dspy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escalade.agents._route import Retry
from escalade.agents.braked import Braked
from escalade.agents.calibration import Identity, Isotonic, Platt
from escalade.agents.climb import Stop, Try
from escalade.agents.confidence import Combined, Logprob, Peers, Samples, Verbalised, Verifier
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Agreement, Budgeted, Constant, PromptLength, RandomMix, Threshold
from escalade.agents.routing.policy import TierTable
from escalade.agents.world import SimModel, World
from escalade.errors import BudgetExceeded
from escalade.evals.record import record
from escalade.evals.replay import brake_left, replay, replay_one
from escalade.money import NANO, Money
from escalade.registry.breaker import Breaker
from escalade.registry.opening import scope
from escalade.registry.prices import Price
from tests.agents.learned._random import learned
from tests.agents.scripted import Scripted

# -------------------------------------------------------------------------------------------- what is made up

PRICES = st.sampled_from(["0.05", "0.10", "0.50", "2.50", "10"])
SIMS = st.builds(
    SimModel,
    skill=st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0]),
    price_in=PRICES,
    price_out=PRICES,
    calibration=st.sampled_from(["calibrated", "overconfident", "underconfident"]),
    fail_every=st.sampled_from([None, None, None, 1]),  # never, or always: a record can't know the number of a call
)


@st.composite
def ladders(draw):
    """A world of one to three models, and a ladder of distinct (strategy, model) rungs on them."""
    sims = draw(st.lists(SIMS, min_size=1, max_size=3))
    models = {f"m{i}": sim for i, sim in enumerate(sims)}
    pairs = [(strategy, model) for model in models for strategy in ("Predict", "ChainOfThought")]
    rungs = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=4, unique=True))
    return World(models, seed=draw(st.integers(0, 99))), rungs


@st.composite
def policies(draw, k):
    """Any of our policies on a ladder of k rungs."""
    rung = st.integers(0, k - 1)
    some = st.lists(rung, min_size=1, max_size=k, unique=True).map(tuple)
    policy = draw(
        st.one_of(
            st.builds(Constant, rung),
            st.builds(Threshold, st.floats(0, 1), st.one_of(st.none(), some)),
            st.builds(Agreement, members=some, then=rung),
            st.builds(RandomMix, st.floats(0, 1), rung, rung, st.integers(0, 9)),
            st.builds(PromptLength, st.integers(0, 200), rung, rung),
            st.builds(TierTable, st.lists(rung, min_size=1, max_size=4).map(tuple)),
            learned(k),
            learned(k),
        )
    )
    if draw(st.integers(0, 3)) == 0:
        policy = Braked(policy, rungs=draw(some))
    if draw(st.booleans()):
        return Budgeted(policy, draw(st.one_of(st.none(), amounts().map(_dollars))))
    return policy


def classified(inputs):
    """What a classifier might say of a question: known beforehand, and the same each time."""
    size = len(inputs["question"])
    return {
        "complexity": ("low", "medium", "high")[size % 3],
        "intent": ("faq", "other")[size % 2],
        "segment": ("vip", "standard")[size % 5 == 0],
    }


def sources(models):
    """Where the confidence comes from: each of our sources, alone or together, judging on any of the models."""
    model = st.sampled_from(models)
    return st.one_of(
        st.sampled_from([True, False, Logprob("sum"), Samples(3, seed=5), Samples(3, seed=2, early=False)]),
        st.builds(Verifier, model, shown=st.just(60)),
        st.builds(lambda m: Peers((m,)), model),
        st.builds(lambda m: Combined((Verbalised(), Samples(2, seed=1), Verifier(m, shown=60))), model),
    )


CALIBRATORS = st.one_of(
    st.just(Identity()),
    st.builds(Platt, st.floats(0, 3), st.floats(-2, 2)),
    st.just(Isotonic(((0.2, 0.1), (0.5, 0.6), (0.9, 0.7)))),
)


def amounts():
    """Budgets in nano-dollars between one that fits nothing and one that fits all."""
    return st.one_of(st.integers(0, 50_000), st.integers(50_000, 2_000_000), st.integers(2_000_000, 80_000_000))


def _dollars(nanos):
    return f"{nanos / NANO:.9f}"


# ------------------------------------------------------------------------------------------- what is compared


def steps_of(climb):
    """The rungs tried and where it stopped, with the reasons, and the price of each attempt."""
    decisions = [
        ("try", s.decision.rung) if isinstance(s.decision, Try) else ("stop", s.decision.why) for s in climb.steps
    ]
    return decisions, [(a.rung, a.status, a.cost) for a in climb.attempts]


def live(qa, examples, budget, mode):
    """[(climb or None when unanswered, nano-dollars spent)] of asking each question within one run's budget."""
    done = []
    with scope(budget=None if budget is None else Money(budget)) as run:
        for example in examples:
            before = run.purse.spent
            try:
                # A request of its own: that one can't be paid must not end the run.
                with scope(name="request", optional=True):
                    inputs = dict(example.inputs().items())
                    got = qa(**inputs) if mode == "sync" else asyncio.run(qa.acall(**inputs))
                done.append((got, run.purse.spent - before))
            except (BudgetExceeded, dspy.utils.exceptions.LMError):
                done.append((None, run.purse.spent - before))
            assert run.purse.held == 0
    return done


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_live_climb_and_replay_agree(data):
    """For random worlds, ladders, policies and budgets: the same steps, answers, nano-dollars and gaps."""
    world, rungs = data.draw(ladders())
    policy = data.draw(policies(len(rungs)))
    budget = data.draw(st.one_of(st.none(), amounts()))
    mode = data.draw(st.sampled_from(["sync", "async"]))
    examples = world.task(4, seed=data.draw(st.integers(0, 20)))
    # A record can't know the state of a breaker, so here it never opens.
    patient = Breaker(failures=1 << 30, window=1 << 30)
    gateway = Gateway(world.as_models(breaker=patient), retry=Retry(retries=0))
    confidence = data.draw(st.dictionaries(st.integers(0, len(rungs) - 1), sources(gateway.models)))
    qa = Escalate(
        "question -> answer",
        rungs=rungs,
        policy=policy,
        gateway=gateway,
        confidence=confidence,
        features=classified,
    )
    qa.calibrators = data.draw(st.dictionaries(st.sampled_from([r.name for r in qa.rungs]), CALIBRATORS))

    with scope():
        outcomes = record(qa, examples, world.metric)
    asked = live(qa, examples, budget, mode)

    again = replay(policy, outcomes, per_run=budget)
    left = budget
    for i, (example, (got, spent)) in enumerate(zip(examples, asked, strict=True)):
        climb = replay_one(policy, outcomes, i, budget_left=left, brake_left=brake_left(budget))
        assert spent == climb.cost == again.cost[i]
        assert (got is None) == bool(again.errors[i])
        if got is not None:
            assert steps_of(got.climb) == steps_of(climb)
            assert got.climb.chosen.rung == climb.chosen.rung == again.chosen[i]
            assert got.climb.chosen.confidence == pytest.approx(climb.chosen.confidence, nan_ok=True)
            assert world.metric(example, got) == again.quality[i]
            same = [a.answer == got.climb.chosen.answer for a in got.climb.attempts]
            assert same == [a.answer == climb.chosen.answer for a in climb.attempts]
        left = None if left is None else left - climb.cost


@pytest.mark.slow
@pytest.mark.parametrize("policy", [Threshold(1.0), Agreement((0, 1), then=2), Budgeted(Threshold(1.0), "0.01")])
def test_the_brake_of_a_run_is_replayed(policy):
    """Past 95 % of a run's budget nothing escalates any more, live and replayed, row by row and in columns."""
    world = World(seed=3)
    gateway = Gateway(world.as_models(max_output=64))
    rungs = [("Predict", "small"), ("ChainOfThought", "small"), ("Predict", "medium")]
    qa = Escalate("question -> answer", rungs=rungs, policy=policy, gateway=gateway)
    examples = world.task(250, seed=1)
    with scope():
        outcomes = record(qa, examples, world.metric)
    budget = int(replay(policy, outcomes).cost.sum() * 0.9)
    asked = live(qa, examples, budget, "sync")
    again = replay(policy, outcomes, per_run=budget)
    assert [spent for _, spent in asked] == again.cost.tolist()
    assert any("nearly used up" in got.climb.explain() for got, _ in asked if got is not None)


def test_an_answer_that_equals_nothing():
    """Not a number agrees with nothing, not even with itself: it is no vote, neither live nor replayed."""
    said = Scripted(["[[ ## x ## ]]\nnan\n\n[[ ## completed ## ]]"] * 9)
    gateway = Gateway([Model(name, f"sim/{name}", said, price=Price.of("1", "1")) for name in ("a", "b")])
    policy = Agreement((0,), then=1)
    qa = Escalate("question -> x: float", rungs=["a", "b"], policy=policy, gateway=gateway, confidence=False)
    with scope():
        outcomes = record(qa, [dspy.Example(question="q").with_inputs("question")], lambda example, prediction: 1.0)
        assert qa(question="q").climb.path == replay_one(policy, outcomes, 0).path == (0, 1)


def test_explanations_agree():
    """What a climb says about itself is the same live and replayed: it comes from the same decisions."""
    world = World(seed=3)
    rungs = [("Predict", "small"), ("ChainOfThought", "small"), ("ChainOfThought", "large")]
    gateway = Gateway(world.as_models())
    qa = Escalate("question -> answer", rungs=rungs, policy=Threshold(0.9), gateway=gateway)
    examples = world.task(20, seed=5)
    with scope(budget="1.00") as run:
        outcomes = record(qa, examples, world.metric)
        left, said = [], []
        for example in examples:
            left.append(run.purse.left())
            said.append(qa(**example.inputs()).climb)
    replayed = [replay_one(qa.policy, outcomes, i, budget_left=left[i]) for i in range(20)]
    assert [c.explain() for c in said] == [c.explain() for c in replayed]
    assert any(len(c.attempts) == 3 for c in said)
    assert any(isinstance(c.steps[1].decision, Stop) for c in said)
