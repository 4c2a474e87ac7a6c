"""A live run says whether the promise of a replay holds, pays for nothing twice, and never spends more than it may."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from dspy.lm15 import AuthError

import escalade
from escalade.agents.climb import Stop, Try
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.policies import Budgeted, RandomMix, Threshold
from escalade.agents.world import SimModel, World
from escalade.errors import BadInput, DataError, UnknownName, UnknownPrice
from escalade.evals.compare import compare
from escalade.evals.record import record
from escalade.evals.replay import replay
from escalade.evals.studies.asking import Asking, Question
from escalade.evals.studies.confirmation import CONFIRMED, OUTSIDE
from escalade.evals.studies.live import aconfirm, confirm
from escalade.money import NANO, Money

RUNGS = [("Predict", "small"), ("ChainOfThought", "medium"), ("Predict", "large")]
MODELS = {
    "small": SimModel(skill=0.5, price_in="0.10", price_out="0.40"),
    "medium": SimModel(skill=0.75, price_in="0.50", price_out="2.00"),
    "large": SimModel(skill=0.93, price_in="2.50", price_out="10.00"),
}
N = 72


def program_on(world, policy=None, **options):
    gateway = Gateway(world.as_models(**options))
    return Escalate("question -> answer", rungs=RUNGS, policy=policy or Threshold(0.8), gateway=gateway)


def changed(**models):
    """The same world, some models of it changed behind their names."""
    return World({**MODELS, **models}, seed=3)


@pytest.fixture(scope="module")
def examples():
    return World(MODELS, seed=3).task(N, seed=1)


@pytest.fixture(scope="module")
def outcomes(examples):
    world = World(MODELS, seed=3)
    with escalade.scope():
        return record(program_on(world), examples, world.metric)


def paths(folder):
    lines = [json.loads(line) for line in (folder / "live.jsonl").read_text().splitlines()]
    return {line["key"]: tuple(step[0] for step in line["path"]) for line in lines}


@pytest.mark.parametrize(
    "policy", ["threshold-0.8", "threshold-fitted", "agreement-2", RandomMix(0.4, 0, 2, seed=5), "large"]
)
def test_what_nothing_changed_comes_to_the_same(policy, outcomes, examples, tmp_path):
    """The same paths, the same grades, the same nano-dollars, also of what was fitted on other folds: confirmed."""
    world = World(MODELS, seed=3)
    name = "Predict/large" if policy == "large" else policy
    done = confirm(name, program_on(world), examples, world.metric, outcomes, dir=tmp_path, margin=0.03)
    assert done.n == N
    assert (done.quality.diff, done.cost.diff) == (0, 0)
    assert (done.quality.verdict, done.cost.verdict) == (CONFIRMED, CONFIRMED)
    assert done.holds
    assert done.causes == ()
    assert int(done.spent) == int(world.cost())
    assert done.cost.live == pytest.approx(int(done.spent) / NANO / N)
    again = compare(outcomes, [name]).evidence.played[done.policy].replayed
    if again is not None:  # a mix is compared at its expected value
        tried = {key: tuple(np.flatnonzero(row)) for key, row in zip(outcomes.keys, again.tried, strict=True)}
        assert {key: tuple(sorted(path)) for key, path in paths(tmp_path).items()} == tried


def test_a_model_that_changed_is_found_and_named(outcomes, examples):
    """Worse and dearer behind the same name: both promises fail, and the parts of the causes add up to the whole."""
    world = changed(medium=SimModel(skill=0.15, price_in="0.50", price_out="9.00"))
    done = confirm("threshold-0.8", program_on(world), examples, world.metric, outcomes)
    assert done.cost.verdict == OUTSIDE
    confirmed = confirm("ChainOfThought/medium", program_on(world), examples, world.metric, outcomes)
    assert (confirmed.quality.verdict, confirmed.cost.verdict) == (OUTSIDE, OUTSIDE)
    assert not confirmed.holds
    for one in (done, confirmed):
        assert sum(cause.quality or 0 for cause in one.causes) == pytest.approx(one.quality.diff)
        assert sum(cause.cost or 0 for cause in one.causes) == pytest.approx(one.cost.diff)
    assert "an attempt of ChainOfThought/medium costs" in " ".join(cause.said for cause in confirmed.causes)
    assert confirmed.causes[0].said in confirmed.sentence
    json.dumps(confirmed.to_json(), allow_nan=False)


def test_nothing_is_paid_twice(outcomes, examples, tmp_path):
    """A run that a budget ended goes on; a line that a kill tore is owed again; another policy is another run."""
    world = World(MODELS, seed=3)
    program = program_on(world)
    first = confirm("threshold-0.8", program, examples, world.metric, outcomes, dir=tmp_path, budget="0.03")
    assert 0 < first.n < N
    assert first.owed == N - first.n
    asked = world.calls.total()
    lines = (tmp_path / "live.jsonl").read_bytes()
    assert lines.count(b"\n") == first.n
    (tmp_path / "live.jsonl").write_bytes(lines[:-20])
    then = confirm("threshold-0.8", program, examples, world.metric, outcomes, dir=tmp_path, budget="5")
    whole = World(MODELS, seed=3)
    clean = confirm("threshold-0.8", program_on(whole), examples, whole.metric, outcomes)
    torn = world.calls.total() - whole.calls.total()
    assert 0 < torn <= 3
    assert (then.n, then.quality, then.cost) == (N, clean.quality, clean.cost)
    assert int(then.before) < int(first.spent)
    calls = world.calls.total()
    third = confirm("threshold-0.8", program, examples, world.metric, outcomes, dir=tmp_path, budget="5")
    assert world.calls.total() == calls > asked
    assert (third.n, int(third.spent)) == (N, 0)
    confirm("threshold-0.9", program, examples[:10], world.metric, outcomes, dir=tmp_path)
    assert world.calls.total() > calls


def test_another_metric_is_another_run(outcomes, examples, tmp_path):
    """Grades by one metric never stand for those of another one."""
    world = World(MODELS, seed=3)
    program = program_on(world)
    confirm("threshold-0.8", program, examples[:5], world.metric, outcomes, dir=tmp_path)
    done = confirm("threshold-0.8", program, examples[:5], lambda example, got: 0.5, outcomes, dir=tmp_path)
    assert (done.n, int(done.before)) == (5, 0)
    assert done.quality.live == 0.5


@pytest.mark.parametrize("budget", ["0.001", "0.02", "0.05"])
def test_the_budget_holds_with_many_at_once(budget, outcomes, examples):
    """What was spent never passes it, whatever the concurrency, and questions without money are no errors."""
    world = World({name: replace(sim, latency=0.002) for name, sim in MODELS.items()}, seed=3)
    try:
        done = confirm("threshold-0.8", program_on(world), examples, world.metric, outcomes, budget=budget)
    except DataError as error:
        assert "larger budget" in str(error)
        assert world.calls.total() == 0
        return
    assert int(world.cost()) == int(done.spent) <= int(Money.of(budget))
    assert done.errors == (0, 0)
    assert done.n + done.owed == N


def test_peeking_ends_as_soon_as_it_is_decided(outcomes, examples):
    """A great difference ends it after a few questions; the rest is not asked and not paid."""
    world = changed(large=SimModel(skill=0.02, price_in="2.50", price_out="10.00"))
    done = confirm("Predict/large", program_on(world), examples, world.metric, outcomes, stop_early=True, concurrency=4)
    assert done.early
    assert done.quality.verdict == OUTSIDE
    assert done.n < N / 2
    assert done.n + done.owed == N
    assert world.calls.total() == done.n


def test_peeking_looks_in_the_order_of_the_questions(outcomes, examples):
    """Not in the one in which answers come: those that come first may be the easy ones."""
    world = World(MODELS, seed=3)
    program = program_on(world)
    seen, graded = [], []

    async def slowly(example, got):
        await asyncio.sleep(0.02 * (len(example.question) % 7) / 7)
        graded.append(example.question)
        return 1.0

    async def ask():
        async with escalade.scope():
            keys = {example.question: program.view(**example.inputs()).key for example in examples[:40]}
            questions = [Question(keys[e.question], e, dict(e.inputs().items()), None) for e in examples[:40]]
            asking = Asking(program, slowly, concurrency=16, seen=lambda answer: seen.append(answer.key) or False)
            await asking.all(questions)
            return keys

    keys = asyncio.run(ask())
    assert seen == [keys[example.question] for example in examples[:40]]
    assert graded != [example.question for example in examples[:40]]


def test_as_many_at_once_as_one_says(outcomes, examples):
    """Never more, and that many where there is enough to ask; the first one alone."""
    now = most = 0
    alone = []

    async def count(example, got):
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        alone.append(now)
        await asyncio.sleep(0.01)
        now -= 1
        return 1.0

    world = World(MODELS, seed=3)
    confirm("Predict/small", program_on(world), examples[:50], count, outcomes, concurrency=7)
    assert most == 7
    assert alone[:2] == [1, 1]


class Moody:
    """Raises on every other question."""

    name = "moody"

    def decide(self, view):
        if view.attempts:
            return Stop()
        if len(view.features["text"]) % 2:
            raise ZeroDivisionError("not today")
        return Try(0)


def test_a_policy_that_raises_is_an_error_of_its_questions(examples):
    """Quality 0 on those where it raises, at no cost; the others are answered."""
    world = World(MODELS, seed=3)
    program = program_on(world, Moody())

    async def ask():
        async with escalade.scope():
            keys = [program.view(**example.inputs()).key for example in examples]
            pairs = zip(keys, examples, strict=True)
            return await Asking(program, world.metric).all(
                [Question(k, e, dict(e.inputs().items()), None) for k, e in pairs]
            )

    answers = asyncio.run(ask())
    odd = [len(example.question) % 2 == 1 for example in examples]
    assert [answer.error == "ZeroDivisionError" for answer in answers] == odd
    assert all((a.quality, a.cost, a.chosen) == (0, 0, -1) for a, raised in zip(answers, odd, strict=True) if raised)
    assert world.calls.total() == N - sum(odd) < N


def test_what_fails_is_an_error_and_never_left_out(outcomes, examples):
    """A model that is down: quality 0 for its questions, and what they cost, which is nothing."""
    down = changed(small=replace(MODELS["small"], fail_every=1))
    done = confirm("Predict/small", program_on(down), examples[:20], down.metric, outcomes)
    assert done.errors == (20, 0)
    assert (done.quality.live, done.cost.live) == (0, 0)
    assert {"an error", "the same rungs cost something else"} == {cause.name for cause in done.causes}


def test_what_failed_for_a_reason_that_passes_is_asked_again(outcomes, examples, tmp_path):
    """An outage is in the figures of its run, and not in those of the next one."""
    down = changed(small=replace(MODELS["small"], fail_every=1))
    first = confirm("Predict/small", program_on(down), examples[:20], down.metric, outcomes, dir=tmp_path)
    assert first.errors == (20, 0)
    world = World(MODELS, seed=3)
    again = confirm("Predict/small", program_on(world), examples[:20], world.metric, outcomes, dir=tmp_path)
    assert (again.errors, world.calls.total(), again.quality.diff) == ((0, 0), 20, 0)


def test_a_wrong_key_is_no_answer_of_the_model(outcomes, examples, tmp_path):
    """It ends the run, and says what to do; nothing is kept as an answer, though a dearer rung would have given one."""
    locked = AuthError("Incorrect API key provided", provider="simulated")
    world = changed(small=SimModel(faults=lambda call: locked))
    with pytest.raises(BadInput, match="'Predict/small': model 'small' .*put its key right"):
        confirm(Threshold(0.8), program_on(world), examples, world.metric, outcomes, dir=tmp_path)
    assert (tmp_path / "live.jsonl").read_bytes() == b""


def test_time_that_is_over_is_no_error(examples):
    """What a deadline left is owed, as for want of money."""
    world = World({name: replace(sim, latency=0.05) for name, sim in MODELS.items()}, seed=3)
    program = program_on(world)

    async def ask():
        async with escalade.scope(deadline=0.5):
            keys = [program.view(**example.inputs()).key for example in examples]
            questions = [Question(k, e, dict(e.inputs().items()), None) for k, e in zip(keys, examples, strict=True)]
            asking = Asking(program, world.metric, concurrency=4)
            return await asking.all(questions), asking.owed

    answers, owed = asyncio.run(ask())
    there = [answer for answer in answers if answer is not None]
    assert owed == N - len(there) > 0
    assert not any(answer.error for answer in there)


def test_a_mistake_in_the_metric_costs_one_question(outcomes, examples):
    """It is raised as it is, after the first answer."""
    world = World(MODELS, seed=3)

    def broken(example, got):
        raise KeyError("answr")

    with pytest.raises(KeyError, match="answr"):
        confirm("Predict/small", program_on(world), examples, broken, outcomes)
    assert world.calls.total() == 1
    with pytest.raises(DataError, match="gave 100; expected a number from 0 to 1"):
        confirm("Predict/small", program_on(world), examples, lambda example, got: 100, outcomes)
    assert world.calls.total() == 2


def test_budgets_per_request_hold_live_as_in_the_replay(outcomes, examples):
    """The same questions stay where their budget ends, and that is confirmed."""
    world = World(MODELS, seed=3)
    policy = Budgeted(Threshold(1.0), Money(int(np.quantile(outcomes.cost[:, 0] + outcomes.ceiling[:, 1], 0.5))))
    done = confirm(policy, program_on(world), examples, world.metric, outcomes, budget="5")
    again = replay(policy, outcomes)
    assert again.tried[:, 1].any()
    assert not again.tried[:, 1].all()
    assert (done.quality.diff, done.cost.diff) == (0, 0)


def test_epochs_of_the_record_are_one_question(outcomes, examples):
    """Rows of one key are averaged before they are compared; the question is asked once."""
    twice = replace(
        outcomes,
        keys=outcomes.keys * 2,
        features={name: np.concatenate([column, column]) for name, column in outcomes.features.items()},
        quality=np.concatenate([outcomes.quality, 0 * outcomes.quality]),
        **{
            name: np.concatenate([getattr(outcomes, name)] * 2)
            for name in ("answer", "confidence", "cost", "price", "ceiling", "latency", "status", "form")
        },
    )
    world = World(MODELS, seed=3)
    done = confirm("Predict/large", program_on(world), examples, world.metric, twice)
    assert (done.n, world.calls.total()) == (N, N)
    assert done.quality.replayed == pytest.approx(outcomes.quality[:, 2].mean() / 2)
    assert sum(cause.quality or 0 for cause in done.causes) == pytest.approx(done.quality.diff)


def test_a_sample_is_drawn_by_seed(outcomes, examples, tmp_path):
    """The same seed asks the same questions, whatever the order of the examples; another one asks others."""
    world = World(MODELS, seed=3)
    asked = []
    for seed, order in ((1, examples), (1, examples[::-1]), (2, examples)):
        folder = tmp_path / str(len(asked))
        confirm("Predict/small", program_on(world), order, world.metric, outcomes, sample=20, seed=seed, dir=folder)
        asked.append(frozenset(paths(folder)))
    assert len(asked[0]) == 20
    assert asked[0] == asked[1] != asked[2]


def test_a_comparison_lends_its_policies_seed_and_folds(outcomes, examples):
    """Policies of one's own are known by the names that they have there."""
    world = World(MODELS, seed=3)
    comparison = compare(outcomes, [Threshold(0.55, name="mine"), "threshold-fitted"], seed=9, folds=4)
    for name in ("mine", "threshold-fitted"):
        done = confirm(name, program_on(world), examples, world.metric, comparison)
        assert done.seed == 9
        assert done.quality.replayed == pytest.approx(comparison.row(name).quality)
        assert done.quality.diff == 0
    with pytest.raises(BadInput, match="comparison to confirm"):
        confirm("mine", program_on(world), examples, world.metric, "outcomes.jsonl")


def test_bad_input_is_told_before_anything_is_paid(outcomes, examples):
    """Each in one line that says what to do."""
    world = World(MODELS, seed=3)
    program, metric = program_on(world), world.metric
    other = Escalate("question -> answer", rungs=RUNGS[:2], policy=Threshold(0.8), gateway=Gateway(world.as_models()))
    strangers = world.task(3, seed=77)
    cases = [
        (lambda: confirm("oracle", program, examples, metric, outcomes), BadInput, "oracle"),
        (lambda: confirm("treshold", program, examples, metric, outcomes), UnknownName, "treshold"),
        (lambda: confirm("threshold-0.8", other, examples, metric, outcomes), BadInput, "rungs are"),
        (lambda: confirm("threshold-0.8", program, strangers, metric, outcomes), DataError, "none of the 3"),
        (lambda: confirm("threshold-0.8", program, ["why?"], metric, outcomes), DataError, "dspy.Examples"),
        (lambda: confirm("threshold-0.8", program, examples, metric, outcomes, sample=0), BadInput, "sample"),
        (lambda: confirm("threshold-0.8", program, examples, metric, outcomes, margin=-1), BadInput, "margin"),
    ]
    for case, kind, said in cases:
        with pytest.raises(kind, match=said):
            case()
    free = program_on(World(MODELS, seed=3), price=None)
    with pytest.raises(UnknownPrice, match="price"):
        confirm("threshold-0.8", free, examples, metric, outcomes, budget="1")
    assert world.calls == Counter()


def test_within_a_running_loop(outcomes, examples):
    """`aconfirm` runs on it; `confirm` works there, too."""
    world = World(MODELS, seed=3)

    async def both():
        mine = await aconfirm("Predict/small", program_on(world), examples[:9], world.metric, outcomes)
        return mine, confirm("Predict/small", program_on(world), examples[:9], world.metric, outcomes)

    one, other = asyncio.run(both())
    assert one.quality == other.quality


def test_questions_of_a_group_are_not_independent(outcomes, examples):
    """Their differences are taken together: where all questions of a document fail at once, the interval is wider."""
    world = changed(small=SimModel(skill=0.2, price_in="0.10", price_out="0.40"))
    program = program_on(world)
    single = confirm("Predict/small", program, examples, world.metric, outcomes)
    worse = sorted(range(N), key=lambda i: (single.quality.diff and outcomes.quality[i, 0], outcomes.keys[i]))
    documents = [""] * N
    for place, i in enumerate(worse):
        documents[i] = f"document {place // 10}"
    grouped = replace(outcomes, group=tuple(documents))
    done = confirm("Predict/small", program, examples, world.metric, grouped)
    assert done.quality.diff == single.quality.diff < 0
    assert done.quality.diff_high - done.quality.diff_low > single.quality.diff_high - single.quality.diff_low
    with pytest.raises(BadInput, match="independent"):
        confirm("Predict/small", program, examples, world.metric, grouped, stop_early=True)


def test_another_label_or_price_is_another_run(outcomes, examples, tmp_path):
    """Answers that were graded by other labels, or paid at another price, don't stand beside those of today."""
    world = World(MODELS, seed=3)
    first = confirm("threshold-0.8", program_on(world), examples, world.metric, outcomes, dir=tmp_path)
    other = [one.copy(answer="?") if at < 5 else one for at, one in enumerate(examples)]
    calls = world.calls.total()
    again = confirm("threshold-0.8", program_on(world), other, world.metric, outcomes, dir=tmp_path)
    assert world.calls.total() > calls
    assert again.quality.live <= first.quality.live - 4 / N
    assert again.before == first.spent
    dear = changed(large=replace(MODELS["large"], price_in="5.00", price_out="20.00"))
    paid = confirm("threshold-0.8", program_on(dear), examples, dear.metric, outcomes, dir=tmp_path)
    alone = confirm("threshold-0.8", program_on(dear), examples, dear.metric, outcomes)
    assert paid.cost.live == alone.cost.live
