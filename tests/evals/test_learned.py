"""Learned policies in a comparison: fitted on other folds than they are judged on, and worth what is claimed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import policies as figures
from escalade.agents.learned.gain import Gain
from escalade.agents.learned.guarantee import Guaranteed
from escalade.agents.learned.nearest import Nearest
from escalade.errors import BadInput, UnknownName, UnknownPrice
from escalade.evals.compare import compare
from escalade.evals.curves import sweep_of
from escalade.evals.folds import assign_folds
from escalade.evals.learned import FittedAnswers, FittedBandit, FittedGuaranteed, FittedRouter, held_out_scores
from escalade.evals.lineup import LEARNED, Lineup
from escalade.evals.loaders import load_outcomes
from escalade.evals.replay import cross_fit
from tests.agents.learned._worlds import HIGH, LOW, PEER, world

needs_texts = pytest.mark.skipif(not figures.RESPONSES.is_file(), reason="needs ../shared/data, which doesn't ship")
needs_mmlu = pytest.mark.skipif(not figures.MMLU.is_dir(), reason="needs ../shared/data, which doesn't ship")
FOUND = world(300)


@pytest.mark.slow
def test_compared_by_name() -> None:
    """Each learned family is a row, marked as fitted; scores have router metrics."""
    found = compare(FOUND, LEARNED, metrics=True, baselines=False)
    assert {row.name for row in found.rows} == {*LEARNED, "high"}
    for name in ("gain", "nearest", "answer-in-view"):
        apgr = found.row(name).apgr
        assert apgr is not None
        assert apgr > 0.6
    assert found.row("answer-in-view").beats_random
    told = "\n".join(found.notes)
    assert "guaranteed: loses at most 5 points, in 95% of calibrations" in told
    assert "cascade-routing: a right answer is taken to be worth $0.0397" in told
    assert "asked first: low, peer by answer-in-view" in told
    assert all(Lineup(FOUND).entry(name).fitted for name in LEARNED)


def test_not_in_the_default_line_up() -> None:
    """It stays quick: who wants learned policies names them."""
    assert not set(LEARNED) & set(Lineup(FOUND).names())


def test_budgets_hold_for_learned_policies() -> None:
    """A learned policy under a budget keeps it, like any other."""
    found = compare(FOUND, ["answer-in-view+budget"], per_request="0.001", per_run="0.1", baselines=False)
    assert found.row("answer-in-view+budget").budget_violations == 0


@pytest.mark.parametrize("fitted", [FittedRouter(Gain, LOW, HIGH), FittedAnswers((PEER, LOW), HIGH)])
def test_held_out_scores_never_saw_their_question(fitted) -> None:
    """Changing the labels of one fold leaves its own scores as they are, and changes those of the others."""
    fold = assign_folds(FOUND.keys)
    flipped = FOUND.quality.copy()
    flipped[fold == 0] = 1 - flipped[fold == 0]
    before, after = held_out_scores(fitted, FOUND), held_out_scores(fitted, replace(FOUND, quality=flipped))
    assert np.array_equal(before[fold == 0], after[fold == 0])
    assert not np.array_equal(before[fold != 0], after[fold != 0])


@pytest.mark.slow
def test_labels_without_a_pattern_give_no_gain() -> None:
    """On shuffled labels the score out of fold is worth what a random one is: nothing leaks."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(6):
        data = world(400, seed)
        noise = replace(data, quality=data.quality[rng.permutation(data.n)])
        sweep = sweep_of(FittedRouter(Gain, LOW, HIGH), noise)
        assert sweep is not None
        found.append(sweep.apgr)
    assert np.mean(found) == pytest.approx(0.5, abs=0.04)


def test_failed_answers_come_first() -> None:
    """A cheap answer that isn't there has no score: it escalates anyhow."""
    flaky = world(200, fails=0.2)
    scores = held_out_scores(FittedAnswers((PEER, LOW), HIGH), flaky)
    assert np.array_equal(np.isnan(scores), flaky.status[:, LOW] != 0)


def test_a_bandit_is_trained_on_its_own_choices() -> None:
    """It sees the reward of one rung per training row, in an order of its own; replayed, it learns no more."""
    bandit = FittedBandit((LOW, HIGH), 0.02).fit(FOUND, np.arange(100))
    assert sum(arm.pulls for arm in bandit.arms) == 100
    assert cross_fit(FittedBandit((LOW, HIGH), 0.02), FOUND).calls.sum() == FOUND.n


@pytest.mark.parametrize("grouped", [False, True])
def test_nothing_calibrates_that_was_fitted_on(grouped: bool) -> None:
    """A guarantee's two halves share no question and no group, and no question or group calibrates twice."""
    plain = load_outcomes(limit=600)
    names = [f"q{i // 3}" for i in range(plain.n)]
    data = replace(plain, group=tuple(names)) if grouped else replace(plain, keys=tuple(names))
    seen: dict[str, list[int]] = {}

    class Watched(FittedAnswers):
        def fit(self, outcomes, rows):
            seen["fitted"] = rows.tolist()
            return super().fit(outcomes, rows)

    fitted = FittedGuaranteed(Watched((2, 4), 5), epsilon=0.1)
    calibrate = Guaranteed.fit.__func__

    def watch(cls, outcomes, candidates, strong, **settings):
        seen["calibrated"] = settings["rows"]
        return calibrate(cls, outcomes, candidates, strong, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guaranteed, "fit", classmethod(watch))
        fitted.fit(data, np.arange(data.n))
    once = [names[i] for i in seen["calibrated"]]
    assert len(set(once)) == len(once) == 100
    assert not {names[i] for i in seen["fitted"]} & set(once)


def test_a_router_is_fitted_once_on_the_same_rows() -> None:
    """Rows, curves and courses ask for the same router; other rows, other settings or other labels are fitted anew."""
    data, router = load_outcomes(limit=300), FittedRouter(Nearest, 0, 5, name="nearest")
    rows = np.arange(200)
    first = router.fit(data, rows)
    assert router.fit(data, rows.copy()) is first
    assert router.fit(data.training(rows), rows) is first
    assert router.fit(data, rows[::2]) != first
    assert replace(router, margin=0.2).fit(data, rows) is not first
    graded = replace(data, quality=1.0 - data.quality)
    assert router.fit(graded, rows) != first
    assert router.fit(data, rows) == first


def test_names_that_are_none() -> None:
    """A router takes no number; what is worth a price needs prices."""
    with pytest.raises(UnknownName):
        Lineup(FOUND).entry("gain-3")
    with pytest.raises(BadInput, match="one or more rungs other than|between 0 and 1"):
        compare(FOUND, ["guaranteed-7"])
    unpriced = replace(FOUND, cost=np.full_like(FOUND.cost, -1))
    for name in ("bandit", "cascade-routing"):
        with pytest.raises(UnknownPrice, match="worth"):
            Lineup(unpriced).entry(name)


def test_texts_stay_out_of_sight(tmp_path) -> None:
    """Loaders keep the texts of questions for policies; neither a repr nor a saved file shows them."""
    path = tmp_path / "long.csv"
    lines = ["question_id,model,correct,question", "1,a,1,How many?", "1,b,0,", "2,a,0,Why?", "2,b,1,Why?"]
    path.write_text("\n".join(lines) + "\n")
    outcomes = load_outcomes(path)
    assert [outcomes.view(i).features["text"] for i in range(2)] == ["How many?", "Why?"]
    assert "many" not in repr(outcomes)
    assert "many" not in outcomes.save(tmp_path / "kept.jsonl").read_text()
    assert "many" in outcomes.save(tmp_path / "all.jsonl", texts=True).read_text()


def test_the_form_of_answers_is_kept(tmp_path) -> None:
    """Loaded, on another ladder and saved: attempts know the form of their answers."""
    ladder = load_outcomes(limit=20)
    again = load_outcomes(ladder.save(tmp_path / "saved.jsonl"))
    assert [again.attempt(i, 4).form for i in range(20)] == [ladder.attempt(i, 4).form for i in range(20)]
    form = ladder.only_rungs(["mixtral-8x7b"]).attempt(0, 0).form
    assert form is not None
    assert (form.chars, form.whole) == (2.0, 1.0)


# -------------------------------------------------------------------------------------------------- on real recordings


@pytest.mark.slow
@needs_texts
@pytest.mark.parametrize("labels", ["recorded", "regraded"])
def test_question_alone(labels: str) -> None:
    """GSM8K pair, from the text of the question: clearly better than chance, by recorded labels as good as claimed."""
    data = figures.gsm8k().graded(labels)
    gain = figures.measured(FittedRouter(Gain, figures.MIXTRAL, figures.GPT4), data).apgr
    assert gain is not None
    assert gain >= figures.FLOORS.get((labels, "question"), 0.54)


@pytest.mark.slow
@needs_texts
def test_nearest_questions() -> None:
    """KNN on the same pair: better than chance."""
    near = figures.measured(FittedRouter(Nearest, figures.MIXTRAL, figures.GPT4), figures.gsm8k()).apgr
    assert near is not None
    assert near >= 0.58


@pytest.mark.slow
@needs_texts
@pytest.mark.parametrize("seen", ["one peer", "four peers"])
@pytest.mark.parametrize("labels", ["recorded", "regraded"])
def test_answers_in_view(labels: str, seen: str) -> None:
    """GSM8K pair, with answers of the 1.5B model and of Mixtral in view."""
    members = figures.ONE if seen == "one peer" else figures.FOUR
    found = figures.measured(FittedAnswers(members, figures.GPT4), figures.gsm8k().graded(labels)).apgr
    assert found is not None
    assert found >= figures.FLOORS[labels, seen]


@pytest.mark.slow
@needs_mmlu
def test_answers_in_view_on_mmlu_pro() -> None:
    """Llama 3, 8B to 70B, with the answer of another small model in view; all calls are priced."""
    data = figures.mmlu_pro()
    assert data.priced
    found = figures.measured(FittedAnswers((0, 1), 2), data).apgr
    assert found is not None
    assert found >= figures.FLOORS["mmlu", "one peer"]
