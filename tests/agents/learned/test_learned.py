"""Learned policies: they find what there is to learn, say why, are saved as JSON and decide without numpy."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from escalade.agents.climb import FAILED, Attempt, Stop, Try
from escalade.agents.learned.answers import AnswerInView
from escalade.agents.learned.bandit import Arm, Bandit, off_policy_value
from escalade.agents.learned.cascade import CascadeRouting, expected_maximum
from escalade.agents.learned.cuts import Aim
from escalade.agents.learned.facts import FACTS, facts_of, words_of
from escalade.agents.learned.gain import Gain
from escalade.agents.learned.guarantee import Guaranteed, cuts_of
from escalade.agents.learned.linear import PENALTIES, Linear, fit_linear
from escalade.agents.learned.nearest import Nearest
from escalade.agents.learned.table import after
from escalade.agents.policies import Constant, load_policy
from escalade.errors import BadInput, DataError
from escalade.evals.outcomes import Outcomes
from escalade.evals.replay import replay, replay_one
from tests.agents.learned._worlds import HIGH, LOW, PEER, world

DATA = world()
NEW = world(seed=1)
FITTED: dict[str, Any] = {
    "gain": Gain.fit(DATA, LOW, HIGH),
    "nearest": Nearest.fit(DATA, LOW, HIGH, k=20),
    "answers": AnswerInView.fit(DATA, (PEER, LOW), HIGH),
    "cascade": CascadeRouting.fit(DATA, (LOW, PEER, HIGH), 0.02),
    "bandit": Bandit((LOW, HIGH), 0.02),
}
FITTED["guaranteed"] = Guaranteed.fit(NEW, cuts_of(FITTED["answers"]), HIGH, epsilon=0.1)


@pytest.mark.parametrize("name", FITTED)
def test_saved_as_json_and_loaded_equal(name: str) -> None:
    """The dump is plain JSON; what is loaded decides the same, for the same reasons."""
    policy = FITTED[name]
    again = load_policy(json.loads(json.dumps(policy.dump(), allow_nan=False)))
    assert again == policy
    for i in range(30):
        assert replay_one(again, NEW, i).explain(NEW.rungs) == replay_one(policy, NEW, i).explain(NEW.rungs)


@pytest.mark.parametrize("name", FITTED)
def test_fitting_is_deterministic(name: str) -> None:
    """The same rows give the same policy."""
    fits = {
        "gain": lambda: Gain.fit(DATA, LOW, HIGH),
        "nearest": lambda: Nearest.fit(DATA, LOW, HIGH, k=20),
        "answers": lambda: AnswerInView.fit(DATA, (PEER, LOW), HIGH),
        "cascade": lambda: CascadeRouting.fit(DATA, (LOW, PEER, HIGH), 0.02),
        "bandit": lambda: Bandit((LOW, HIGH), 0.02),
        "guaranteed": lambda: Guaranteed.fit(NEW, cuts_of(FITTED["answers"]), HIGH, epsilon=0.1),
    }
    assert fits[name]() == FITTED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gain", "nearest", "answers", "cascade"])
def test_learned_policies_beat_a_random_mix_of_the_same_cost(name: str) -> None:
    """On questions that they haven't seen."""
    one = replay(FITTED[name], NEW)
    low, high = replay(Constant(LOW), NEW), replay(Constant(HIGH), NEW)
    share = (one.cost.mean() - low.cost.mean()) / (high.cost.mean() - low.cost.mean())
    mixed = (1 - share) * low.quality.mean() + share * high.quality.mean()
    assert one.quality.mean() > mixed + 0.03


@pytest.mark.parametrize("name", FITTED)
def test_reasons_name_signal_and_price(name: str) -> None:
    """The first step says what it went by and what the rung is expected to cost."""
    step = replay_one(FITTED[name], NEW, 0).steps[0].decision
    assert isinstance(step, Try)
    told = replay_one(FITTED[name], NEW, 0).explain(NEW.rungs)
    assert "$0." in told
    assert any(char.isdigit() for char in step.why)


@pytest.mark.parametrize("name", FITTED)
def test_nothing_is_tried_that_does_not_fit(name: str) -> None:
    """With money for cheap rungs only, the strong one is left alone and a question that can be answered, is."""
    for i in range(40):
        climb = replay_one(FITTED[name], NEW, i, budget_left=200_000)
        assert HIGH not in climb.path
        if name != "bandit":  # what it samples is what it wants
            assert climb.chosen is not None


@pytest.mark.parametrize("name", FITTED)
def test_failed_attempts_do_not_end_in_an_exception(name: str) -> None:
    """Where cheap rungs give no answer, the strong one is asked."""
    flaky = world(60, seed=3, fails=0.5)
    for i in range(flaky.n):
        climb = replay_one(FITTED[name], flaky, i)
        assert climb.chosen is not None
        failed = any(not a.ok for a in climb.attempts)
        if failed and name in {"gain", "nearest"}:
            assert climb.path[-1] == HIGH


def test_decides_without_numpy() -> None:
    """A saved policy is loaded and decides in a process that can't import numpy."""
    code = (
        "import sys, json; sys.modules['numpy'] = None\n"
        "from escalade.agents._saving import load_policy\n"
        "from escalade.agents.climb import Rung, View\n"
        "view = View('k', {'prompt_chars': 9, 'text': 'How many?'}, (Rung('low'), Rung('peer'), Rung('high')), "
        "(1, 2, 3), (1, 2, 3))\n"
        "for line in sys.stdin: print(type(load_policy(json.loads(line)).decide(view)).__name__)\n"
    )
    lines = "".join(json.dumps(policy.dump()) + "\n" for policy in FITTED.values())
    done = subprocess.run([sys.executable, "-c", code], input=lines, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Try"] * len(FITTED)


# ------------------------------------------------------------------------------------------------------------- models


def test_ridge_equals_its_definition() -> None:
    """Weights, bias and leave-one-out predictions are those of fitting without each row, for the chosen penalty."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)) * [1, 5, 0.1] + 2, rng.normal(size=40)
    y += x[:, 0]
    model, left_out = fit_linear(x, y)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0) / np.sqrt(3)

    def predicted(penalty: float, rows: Any, at: Any) -> Any:
        a, b = scaled[rows], y[rows]
        m = a.mean(axis=0)
        w = np.linalg.solve((a - m).T @ (a - m) + penalty * np.eye(3), (a - m).T @ (b - b.mean()))
        return (scaled[at] - m) @ w + b.mean()

    everything = np.arange(40)
    loo = {p: np.array([predicted(p, everything != i, [i])[0] for i in range(40)]) for p in PENALTIES}
    best = min(loo, key=lambda p: float(((y - loo[p]) ** 2).mean()))
    assert left_out == pytest.approx(loo[best], abs=1e-9)
    assert [model(row) for row in x.tolist()] == pytest.approx(predicted(best, everything, everything), abs=1e-4)


def test_words_add_what_they_say() -> None:
    """A model with words tells questions apart that have the same facts."""
    counts = [words_of({"text": "red red apple" if i % 2 else "green pear"}, 64) for i in range(60)]
    model, _ = fit_linear([[1.0]] * 60, [float(i % 2) for i in range(60)], counts, 64)
    assert model([1.0], counts[1]) > 0.8
    assert model([1.0], counts[0]) < 0.2
    assert model([1.0], {}) == pytest.approx(model.bias + model.weights[0])


def test_a_model_with_half_its_words() -> None:
    """Words and frequencies belong together."""
    with pytest.raises(BadInput, match="as many words"):
        Linear(0.0, (1.0,), (1.0,), ())


def test_facts_of_a_question() -> None:
    """Figures, signs and what the last sentence wants."""
    text = "Ann buys 3 pens at $1.50 each and 10% more. How much money does she pay in total?"
    facts = dict(zip(FACTS, facts_of({"text": text, "prompt_chars": len(text)}), strict=True))
    assert facts["numbers"] == pytest.approx(np.log1p(3))
    assert facts["cents"] == facts["decimals"] == facts["percent"] == facts["dollars"] == pytest.approx(np.log(2))
    assert facts["how much"] == facts["asked dollars"] == facts["asked total"] == 1.0
    assert facts["how many"] == 0.0
    assert facts["largest number"] == pytest.approx(np.log1p(10))


@pytest.mark.parametrize("text", ["", "?", "...", "1,2,,3", "\uff19 \u0663 \u00bd", "\x00\ud800", "9" * 400, "日本語"])
def test_facts_of_odd_texts(text: str) -> None:
    """Any text has as many facts as any other, all finite."""
    facts = facts_of({"text": text, "prompt_chars": len(text)})
    assert len(facts) == len(FACTS)
    assert np.isfinite(facts).all()
    assert sum(words_of({"text": text}, 8).values()) >= 0


def test_questions_without_a_text() -> None:
    """Their length is all that is known; a router can be fitted on it, too."""
    assert len(facts_of({"prompt_chars": 9})) == len(FACTS)
    blind = world(texts=False)
    policy = Gain.fit(blind, LOW, HIGH)
    assert policy.model.words == ()
    assert isinstance(policy.decide(blind.view(0)), Try)


def test_labels_are_words() -> None:
    """Facts that are texts or truth values count as words of the question."""
    assert words_of({"intent": "sum"}, 1 << 20) != words_of({"intent": "code"}, 1 << 20)


# ------------------------------------------------------------------------------------------------------------- fitting


def test_too_few_rows() -> None:
    """Nothing is learned from a handful of questions."""
    with pytest.raises(DataError, match="too few to learn from"):
        Gain.fit(DATA, LOW, HIGH, rows=range(5))


@pytest.mark.parametrize("rows", [range(5_000), range(-500, 0), [0.5] * 30, [*range(30), 7], 30])
def test_rows_that_are_no_rows_of_the_table(rows: Any) -> None:
    """Every fit says which rows it takes: those of the table, by number, each of them once."""
    fits: list[Callable[[], object]] = [
        lambda: Gain.fit(DATA, LOW, HIGH, rows=rows),
        lambda: Nearest.fit(DATA, LOW, HIGH, rows=rows),
        lambda: AnswerInView.fit(DATA, (LOW,), HIGH, rows=rows),
        lambda: CascadeRouting.fit(DATA, (LOW, HIGH), 0.02, rows=rows),
        lambda: Guaranteed.fit(DATA, [Constant(LOW)], HIGH, rows=rows),
    ]
    for fit in fits:
        with pytest.raises(BadInput, match="rows: expected numbers"):
            fit()


def test_rungs_that_are_none() -> None:
    """Two names of one rung are no weak and strong one; no members, and rungs that are there twice, are told, too."""
    for fit in (Gain.fit, Nearest.fit):
        with pytest.raises(BadInput, match="two different rungs"):
            fit(DATA, LOW, DATA.rungs[LOW].name)
    with pytest.raises(BadInput, match="k: expected 1"):
        Nearest.fit(DATA, LOW, HIGH, k=0)
    for members in ((), (LOW, LOW), (HIGH,)):
        with pytest.raises(BadInput, match="one or more different rungs other than"):
            AnswerInView.fit(DATA, members, HIGH)
    with pytest.raises(BadInput, match="each of them once"):
        CascadeRouting.fit(DATA, (LOW, DATA.rungs[LOW].name), 0.02)


def test_aims() -> None:
    """A margin or a share, not both, not neither; the cut is where it is reached, ties together."""
    score, gain = [4.0, 3.0, 2.0, 1.0], [1.0, 0.0, 1.0, -1.0]
    assert Aim(margin=0.0).threshold(score, gain) == 3.5
    assert Aim(share=0.5).threshold(score, gain) == 2.5
    assert Aim(share=0.0).threshold(score, gain) > 4
    assert Aim(share=1.0).threshold(score, gain) == 1.0
    assert Aim(share=0.5).threshold([1.0, 1.0, 1.0, 0.0], gain) in {0.5, 2.0}
    with pytest.raises(BadInput, match="exactly one"):
        Aim()
    with pytest.raises(BadInput, match="between 0 and 1"):
        Aim(share=2)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_share_of_strong_calls(share: float) -> None:
    """Fitted at a share, about that share of new questions goes to the strong rung."""
    policy = Gain.fit(DATA, LOW, HIGH, share=share)
    assert replay(policy, NEW).calls[:, HIGH].mean() == pytest.approx(share, abs=0.12)


def test_answers_in_view_need_members() -> None:
    """One member at least, and none of them is the rung that they escalate to."""
    model = Linear(0.0, (1.0,))
    for members in ((), (HIGH,)):
        with pytest.raises(BadInput, match="one or more different rungs other than"):
            AnswerInView(model, members, HIGH, 0.5)


def test_agreement_counts() -> None:
    """The answer in view is escalated sooner where its peer said something else."""
    policy = FITTED["answers"]
    view = after(NEW, 0, (PEER, LOW))
    same, other = (
        replace(view, attempts=(Attempt(PEER, answer, 0.9, 20_000), Attempt(LOW, 1, 0.9, 10_000))) for answer in (1, 2)
    )
    assert policy.score(other) > policy.score(same) + 0.2


# ------------------------------------------------------------------------------------------------------------- cascade


def test_expected_maximum() -> None:
    """As drawn: exact for two, close for three."""
    rng = np.random.default_rng(0)
    normals = [(0.5, 0.2), (0.6, 0.1), (0.3, 0.4)]
    drawn = np.array([rng.normal(m, s, 200_000) for m, s in normals])
    assert expected_maximum(normals[:2]) == pytest.approx(drawn[:2].max(axis=0).mean(), abs=2e-3)
    assert expected_maximum(normals) == pytest.approx(drawn.max(axis=0).mean(), abs=0.01)
    assert expected_maximum([(0.5, 0.0), (0.7, 0.0)]) == 0.7


@pytest.mark.slow
def test_cascade_routing_spends_more_where_answers_are_worth_more() -> None:
    """The dearer a wrong answer, the more it pays for right ones."""
    cheap, dear = (replace(FITTED["cascade"], worth=worth) for worth in (0.001, 1.0))
    assert replay(cheap, NEW).cost.mean() < replay(dear, NEW).cost.mean()
    assert replay(cheap, NEW).quality.mean() < replay(dear, NEW).quality.mean()


def test_cascade_routing_never_tries_what_has_no_price() -> None:
    """An unknown price can't be weighed."""
    unknown: Outcomes = replace(NEW, price=np.where(np.arange(3) == HIGH, -1, NEW.price))
    assert not replay(FITTED["cascade"], unknown).tried[:, HIGH].any()


def test_cascade_routing_of_too_many_rungs() -> None:
    """All sets of rungs are looked at: six are enough."""
    with pytest.raises(BadInput, match="1 to 6 rungs"):
        CascadeRouting(tuple(range(7)), (), 1.0)
    with pytest.raises(BadInput, match="more than nothing"):
        replace(FITTED["cascade"], worth=0)


# -------------------------------------------------------------------------------------------------------------- bandit


def trained(rounds: int, seed: int = 0) -> tuple[Bandit, list[dict[str, Any]]]:
    """A bandit that has seen some questions, and its log."""
    bandit, log = Bandit((LOW, HIGH), 0.02, seed=seed), []
    for i in range(rounds):
        view = DATA.view(i)
        decision = bandit.decide(view)
        assert isinstance(decision, Try)
        reward = float(DATA.quality[i, decision.rung])
        log.append(bandit.logged(view, decision, reward))
        bandit = bandit.learned(view, decision, reward)
    return bandit, log


def test_a_bandit_learns() -> None:
    """After some hundred questions it asks the strong rung more on hard questions than on easy ones."""
    bandit, _ = trained(400)
    hard = NEW.features["prompt_chars"] > NEW.features["prompt_chars"].mean()
    to_high = np.array([bandit.propensities(NEW.view(i))[1] for i in range(NEW.n)])
    assert to_high[hard].mean() > to_high[~hard].mean() + 0.3


@pytest.mark.slow
def test_propensities_are_those_of_the_draws() -> None:
    """Over many seeds, a rung is tried as often as its propensity says."""
    bandit, _ = trained(60)
    view = NEW.view(5)
    drawn = [replace(bandit, seed=seed).decide(view) for seed in range(3_000)]
    share = np.mean([isinstance(d, Try) and d.rung == HIGH for d in drawn])
    assert bandit.propensities(view)[1] == pytest.approx(share, abs=0.03)
    assert sum(bandit.propensities(view)) == pytest.approx(1.0)
    assert min(bandit.propensities(view)) >= bandit.explore / 2


def test_a_bandit_updates_as_a_regression_does() -> None:
    """One reward after the other gives the posterior of all at once."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=12)
    arm = Arm.fresh(3, 1.0)
    for row, reward in zip(x.tolist(), y.tolist(), strict=True):
        arm = arm.updated(row, reward, 0.25)
    covariance = np.linalg.inv(np.eye(3) + x.T @ x / 0.25)
    assert np.array(arm.covariance) == pytest.approx(covariance)
    assert arm.mean == pytest.approx(covariance @ x.T @ y / 0.25)
    assert arm.pulls == 12


def test_the_log_of_a_bandit_serves_off_policy_evaluation() -> None:
    """What always asking one rung would have brought, is estimated from the log of another policy."""
    _, log = trained(400)
    for rung, name in ((LOW, "low"), (HIGH, "high")):
        chance = {key: {name: 1.0} for key in DATA.keys}
        assert off_policy_value(log, chance) == pytest.approx(DATA.quality[:, rung].mean(), abs=0.15)
    assert json.loads(json.dumps(log)) == log
    with pytest.raises(BadInput, match="never tries"):
        off_policy_value(log, {})


def test_a_bandit_learns_from_its_own_rungs() -> None:
    """Not from another rung, and not from a stop."""
    bandit = FITTED["bandit"]
    for decision in (Try(PEER), Stop(-1)):
        with pytest.raises(BadInput, match="learns from the rungs that it tries"):
            bandit.learned(NEW.view(0), decision, 1.0)
    with pytest.raises(BadInput, match="a worth and a noise"):
        Bandit((LOW,), 0.0)


def test_a_failed_first_choice_is_followed_by_the_strongest() -> None:
    """A bandit's last rung stands in where the one that it chose gave no answer."""
    view = replace(NEW.view(0), attempts=(Attempt(LOW, status=FAILED),))
    decision = FITTED["bandit"].decide(view)
    assert isinstance(decision, Try)
    assert decision.rung == HIGH


@pytest.mark.parametrize("reward", [math.nan, math.inf, -0.1, 1.1, "1"])
def test_bandit_learns_from_qualities_only(reward: Any) -> None:
    """One nan would stay in an arm for good, and make all its later draws nan."""
    bandit = Bandit((LOW, HIGH), worth=0.01)
    with pytest.raises(BadInput, match="between 0 and 1"):
        bandit.learned(NEW.view(0), bandit.decide(NEW.view(0)), reward)
    with pytest.raises(BadInput, match="between 0 and 1"):
        bandit.logged(NEW.view(0), bandit.decide(NEW.view(0)), reward)


@pytest.mark.parametrize(
    ("change", "chance"),
    [
        ({"reward": math.nan}, 1.0),
        ({"propensity": 0.0}, 1.0),
        ({"propensity": math.nan}, 1.0),
        ({"rung": None, "propensity": "x"}, 1.0),
        ({}, -1.0),
        ({}, 3.0),
        ({}, math.nan),
    ],
)
def test_a_log_that_is_none(change: dict[str, Any], chance: float) -> None:
    """A line that no bandit wrote, and a probability that is none, are named instead of counted."""
    line = {"key": "a", "rung": "low", "propensity": 0.5, "reward": 1.0}
    with pytest.raises(BadInput, match="line 1 of the log"):
        off_policy_value([line, line | {"key": "b"} | change], {"a": {"low": 1.0}, "b": {"low": chance}})
    with pytest.raises(BadInput, match="line 0 of the log"):
        off_policy_value([{"key": "a"}], {"a": {"low": 1.0}})
