"""Tuning records once within its budget, fits on some questions, judges on others, and says what it came to."""

from __future__ import annotations

import math
from dataclasses import replace

import dspy
import pytest

import escalade
from escalade.agents.calibration import Isotonic, Temperature
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.learned.betting import rows_needed
from escalade.agents.learned.guarantee import Guaranteed
from escalade.agents.models import Model
from escalade.agents.policies import Agreement, Budgeted, Constant, Threshold
from escalade.agents.transports.simulated import Simulated
from escalade.agents.world import SimModel, World
from escalade.errors import BadInput, DataError, NoScope, UnknownPrice
from escalade.evals.calibrating import calibrated
from escalade.evals.replay import replay
from escalade.evals.tuning import tune, tune_on
from escalade.money import Money
from escalade.registry.journal import Journal

RUNGS = ["small", ("ChainOfThought", "small"), ("ChainOfThought", "large")]


def make_world(seed=7):
    return World(
        {
            "small": SimModel(skill=0.5, calibration="overconfident", price_in="0.10", price_out="0.40"),
            "large": SimModel(skill=0.95, price_in="2.50", price_out="10.00"),
        },
        seed=seed,
    )


def make(world, policy=None, **options):
    gateway = Gateway(world.as_models())
    return Escalate("question -> answer", rungs=RUNGS, policy=policy or Threshold(0.8), gateway=gateway, **options)


@pytest.fixture
def world():
    return make_world()


def same(a, b):
    """Equal reports and equal programs."""
    return a.report == b.report and a.program.dump_state() == b.program.dump_state()


def test_the_report_is_what_happens_live(world):
    """The tuned program, saved, loaded and run on the judging questions, has the quality and the cost of the report."""
    qa, train = make(world), world.task(200, 1)
    with escalade.scope(budget="5.00") as run:
        tuned = tune(qa, train, world.metric, budget="2.00")
        assert tuned.report.spent == run.spent > 0
    again = make(world, Constant(0))
    again.load_state(tuned.program.dump_state())
    by_key = {}
    with escalade.scope(budget="5.00"):
        for example in train:
            by_key[qa.view(**example.inputs()).key] = example
        judged = [by_key[tuned.outcomes.keys[i]] for i in tuned.report.judged]
        for program, quality, cost in (
            (qa, tuned.report.quality_before, tuned.report.cost_before),
            (again, tuned.report.quality_after, tuned.report.cost_after),
        ):
            answers = [program(**e.inputs()) for e in judged]
            found = [world.metric(e, a) for e, a in zip(judged, answers, strict=True)]
            assert sum(found) / len(found) == pytest.approx(quality.mean)
            assert sum(a.cost for a in answers) / len(answers) == pytest.approx(cost.mean)
    with escalade.scope():
        for example in judged[:20]:
            assert again(**example.inputs()).explain() == tuned.program(**example.inputs()).explain()


@pytest.mark.slow
def test_an_overconfident_ladder_gets_better(world):
    """Where the small model overstates, tuning finds it out: better on unseen questions, as its report says."""
    with escalade.scope(budget="5.00"):
        report = tune(make(world), world.task(400, 1), world.metric).report
    assert report.verdict == "better"
    assert report.quality_after.mean >= report.quality_before.mean + 0.05
    assert "better" in str(report)
    assert str(report.spent) in str(report)


@pytest.mark.parametrize("seed", range(3))
def test_a_ladder_that_climbs_too_often_gets_cheaper(seed):
    """From a threshold that always climbs: cheaper on unseen questions, whatever the world."""
    world = make_world(seed)
    with escalade.scope(budget="5.00"):
        report = tune(make(world, Threshold(1.0)), world.task(300, 1), world.metric, margin=0.05).report
    assert report.cost_after.mean < report.cost_before.mean
    assert report.cost_change.high < 0
    assert report.quality_change.high >= -0.05


def test_nothing_is_fitted_and_judged_on_the_same_questions(world):
    """The three parts share no question, not even a repeated one, and have all of them."""
    train = world.task(100, 1)
    with escalade.scope(budget="5.00"):
        tuned = tune(make(world), [*train, *train[:20]], world.metric)
    parts = [tuned.report.fitted, tuned.report.chosen, tuned.report.judged]
    assert sorted(i for part in parts for i in part) == list(range(120))
    keys = [{tuned.outcomes.keys[i] for i in part} for part in parts]
    assert sum(map(len, keys)) == len(set(tuned.outcomes.keys)) == 100


def test_what_others_answered_changes_nothing_that_was_fitted(world):
    """Turning every label of the judging questions round leaves calibrators and threshold as they are."""
    with escalade.scope(budget="5.00"):
        tuned = tune(make(world), world.task(150, 1), world.metric)
    quality = tuned.outcomes.quality.copy()
    quality[list(tuned.report.judged)] = 1 - quality[list(tuned.report.judged)]
    other = tune_on(make(world), replace(tuned.outcomes, quality=quality))
    assert other.program.dump_state() == tuned.program.dump_state()
    assert other.report.quality_after != tuned.report.quality_after


@pytest.mark.slow
def test_the_same_again(world):
    """Recorded and tuned again, everything is the same; another seed deals the questions out in another way."""
    train = world.task(120, 1)
    with escalade.scope(budget="5.00"):
        first, second = (tune(make(make_world()), train, world.metric, seed=3) for _ in range(2))
        third = tune(make(make_world()), train, world.metric, seed=4)
    assert same(first, second)
    assert first.report.judged != third.report.judged


def test_the_program_is_left_alone(world):
    """What was handed in has its policy, its calibrators and its demonstrations still; the gateway is shared."""
    qa = make(world)
    with escalade.scope(budget="5.00"):
        earlier = tune(qa, world.task(100, 1), world.metric).program
        before = earlier.dump_state()
        again = tune(earlier, world.task(100, 2), world.metric)
    assert (qa.policy, qa.calibrators) == (Threshold(0.8), {})
    assert earlier.dump_state() == before
    assert again.program.calibrators.keys() == earlier.calibrators.keys()
    assert again.program._gateway is qa._gateway


def test_a_calibrated_program_is_judged_as_it_was(world):
    """Before is what the program did with its own calibrators, not what it would do without."""
    qa = make(world)
    with escalade.scope(budget="5.00"):
        earlier = tune(qa, world.task(100, 1), world.metric).program
        again = tune(earlier, world.task(100, 2), world.metric)
    known = calibrated(again.outcomes, earlier.calibrators)
    was = replay(earlier.policy, known, rows=list(again.report.judged))
    assert again.report.quality_before.mean == was.quality.mean()
    assert again.report.cost_before.mean == was.cost.mean()


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["0.15", "0.20", "0.25"])
def test_the_budget_is_never_passed(world, budget):
    """A budget that pays for some of the questions: those are used, and the scope outside is not exhausted."""
    with escalade.scope(budget="5.00", recorder=(journal := Journal())) as run:
        tuned = tune(make(world), world.task(250, 1), world.metric, budget=budget)
        assert run.spent == tuned.report.spent <= Money.of(budget)
    assert journal.denials() == []
    assert 100 <= tuned.report.recorded == tuned.outcomes.n < tuned.report.given == 250
    assert not any(math.isnan(c) for c in tuned.outcomes.confidence.flat)


@pytest.mark.slow
def test_the_budget_of_the_scope_holds_too(world):
    """What the scope has left counts, whatever the budget of the tuning."""
    with escalade.scope(budget="0.20") as run:
        assert tune(make(world), world.task(250, 1), world.metric, budget="100").report.recorded < 250
    assert run.spent <= Money.of("0.20")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, 100),
        ({"using": Temperature}, 100),
        ({"using": Isotonic}, 250),
        ({"guarantee": 0.05}, 10 * math.ceil(rows_needed(0.05, 0.05) / 3)),
        ({"guarantee": (0.1, 0.2)}, 100),
    ],
)
def test_too_few_questions_are_refused_with_the_number_that_it_takes(world, options, needed):
    """One less is refused before anything is paid; so many are enough."""
    with escalade.scope(budget="5.00"):
        with pytest.raises(DataError, match=f"takes {needed} different ones"):
            tune(make(world), world.task(needed - 1, 1), world.metric, **options)
        assert sum(world.calls.values()) == 0
        tune(make(world), world.task(needed, 1), world.metric, **options)


def test_a_hopeless_budget_is_given_up_early(world):
    """After ten questions it is clear what a hundred would cost; that is said, and the rest of the money is kept."""
    with escalade.scope(budget="5.00") as run:
        with pytest.raises(DataError, match=r"10 questions cost .* the 100 .* there is \$0.05: raise the budget"):
            tune(make(world), world.task(400, 1), world.metric, budget="0.05")
        assert run.spent < Money.of("0.02")
    assert sum(world.calls.values()) == 10 * len(RUNGS)


def test_a_budget_that_ends_too_soon_is_an_error(world):
    """Where it nearly paid for enough questions, the error says how many there are, what they cost, and how many it
    takes.
    """
    with escalade.scope(budget="5.00"), pytest.raises(DataError, match=r"\d\d of 400 questions, for .* takes 100"):
        tune(make(world), world.task(400, 1), world.metric, budget="0.11")


def test_repeated_questions_are_no_more_questions(world):
    """A hundred copies of ten questions are ten."""
    with escalade.scope(budget="5.00"), pytest.raises(DataError, match="10 different questions"):
        tune(make(world), world.task(10, 1) * 10, world.metric)


@pytest.mark.slow
def test_a_point_that_is_worth_more_buys_more_quality(world):
    """From nearly nothing to a dollar per right answer: the choice gets better and dearer, never worse."""
    with escalade.scope(budget="5.00"):
        outcomes = tune(make(world), world.task(300, 1), world.metric).outcomes
    found = [tune_on(make(world), outcomes, dollars_per_point=w).report for w in ("0.00001", "0.001", "0.01", "1")]
    cuts = [replay_cut(report.policy) for report in found]
    assert cuts == sorted(cuts)
    assert found[0].cost_after.mean < found[-1].cost_after.mean
    assert found[0].quality_after.mean < found[-1].quality_after.mean


def replay_cut(policy):
    """The threshold; the last rung alone is beyond all of them."""
    return getattr(policy, "threshold", 2.0)


@pytest.mark.slow
def test_a_guarantee_is_the_guaranteed_threshold(world):
    """The policy is a `Guaranteed` that was calibrated on the choosing questions alone; it is saved too."""
    with escalade.scope(budget="5.00"):
        tuned = tune(make(world), world.task(300, 1), world.metric, guarantee=(0.05, 0.1))
    policy = tuned.report.policy
    assert isinstance(policy, Guaranteed)
    assert (policy.epsilon, policy.delta, policy.rows) == (0.05, 0.1, len(tuned.report.chosen))
    again = make(world)
    again.load_state(tuned.program.dump_state())
    assert again.policy == policy


@pytest.mark.parametrize("limit", ["0.004", "0.05"])
def test_a_hard_budget_per_question_stays(world, limit):
    """Within a `Budgeted` the threshold is tuned, and what a question may cost is what it was, whatever is chosen."""
    qa = make(world, Budgeted(Threshold(0.3), limit))
    with escalade.scope(budget="5.00"):
        tuned = tune(qa, world.task(100, 1), world.metric, dollars_per_point="0.005")
        assert isinstance(tuned.report.policy, Budgeted)
        assert tuned.report.policy.policy != Threshold(0.3)
        for options in ({"margin": 0.0}, {"guarantee": (0.1, 0.2)}):
            assert tune_on(qa, tuned.outcomes, **options).report.policy.per_request == Money.of(limit)
        assert max(tuned.program(**e.inputs()).cost for e in world.task(20, 2)) <= Money.of(limit)


@pytest.mark.parametrize("policy", [Constant(0), Agreement((0, 1), then=2)])
def test_a_policy_without_a_threshold_is_refused(world, policy):
    """There is nothing to tune, and it is said before anything is paid."""
    with escalade.scope(budget="5.00"), pytest.raises(BadInput, match="no threshold to tune"):
        tune(make(world, policy), world.task(100, 1), world.metric)
    assert sum(world.calls.values()) == 0


def test_only_a_ladder_can_be_tuned():
    """Any other program is refused by its name, before anything is paid."""
    with escalade.scope(budget="5.00"), pytest.raises(BadInput, match="expected an Escalate.*got Predict"):
        tune(dspy.Predict("question -> answer"), [], None)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"margin": 0.1, "guarantee": 0.1}, "one of margin"),
        ({"margin": -0.1}, "margin: expected"),
        ({"guarantee": 2}, "guarantee: expected"),
        ({"dollars_per_point": "0"}, "dollars_per_point: expected"),
        ({"budget": 2.0}, "not an amount of dollars"),
    ],
)
def test_what_makes_no_sense_is_refused(world, options, complaint):
    """Before anything is paid, with what was expected."""
    with escalade.scope(budget="5.00"), pytest.raises(BadInput, match=complaint):
        tune(make(world), world.task(100, 1), world.metric, **options)
    assert sum(world.calls.values()) == 0


def test_what_is_no_example_is_refused(world):
    """A list of dicts is no training set."""
    with escalade.scope(budget="5.00"), pytest.raises(DataError, match="inputs marked"):
        tune(make(world), [{"question": "?"}] * 100, world.metric)


def test_without_a_scope_nothing_is_recorded(world):
    """Somebody has to pay."""
    with pytest.raises(NoScope):
        tune(make(world), world.task(100, 1), world.metric)


def test_unknown_prices_are_an_error(world):
    """A ladder whose costs nobody knows can't be tuned for them."""
    gateway = Gateway([Model(name, f"sim/{name}", Simulated(world)) for name in ("small", "large")])
    qa = Escalate("question -> answer", rungs=["small", "large"], policy=Threshold(0.8), gateway=gateway)
    with escalade.scope(), pytest.raises(UnknownPrice):
        tune(qa, world.task(100, 1), world.metric)
