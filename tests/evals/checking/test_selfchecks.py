"""The checks that run with every comparison: they hold on good data, and each of them can fail."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from escalade.agents.climb import Decision, Policy, View
from escalade.agents.policies import Constant, Threshold, draw, pick
from escalade.errors import DataError
from escalade.evals import compare as comparing
from escalade.evals._rows import evidence_of
from escalade.evals.checking import agreeing, selfchecks, shuffling
from escalade.evals.checking.failing import failures
from escalade.evals.compare import Comparison, compare
from escalade.evals.evidence import Evidence
from escalade.evals.findings import Check, findings
from escalade.evals.lineup import Entry, Lineup
from escalade.evals.outcomes import Outcomes
from escalade.evals.replay import Replayed, replay
from escalade.evals.report import closing
from tests.evals._tables import table


@pytest.fixture(scope="module")
def ladder() -> Comparison:
    """The default comparison on the data that ships."""
    return compare()


def world(n: int = 200, *, seed: int = 0) -> Outcomes:
    """Two rungs; the confidence of the cheap one says something of whether it is right."""
    rng = np.random.default_rng(seed)
    quality = (rng.random((n, 2)) < [0.6, 0.9]).astype(float)
    sure = np.clip(0.3 * quality[:, 0] + 0.7 * rng.random(n), 0, 1)
    return table(quality=quality.tolist(), confidence=np.stack([sure, sure], axis=1).tolist(), cost=[1, 10])


def evidence(outcomes: Outcomes, *policies: Any) -> Evidence:
    """What a comparison of these rests on."""
    lineup = Lineup(outcomes)
    entries = [lineup.entry(one) if isinstance(one, str) else Entry(one.name, one) for one in policies]
    entries.append(lineup.entry(outcomes.rungs[-1].name))
    return evidence_of(entries, entries[-1], lineup, 5)


def check(found: Evidence, name: str) -> Check:
    """The check of that name."""
    return next(one for one in selfchecks.selfchecks(found) if one.name == name)


def test_all_hold_on_the_data_that_ships(ladder) -> None:
    """Every check holds there, says so with figures, and findings have them with their tables."""
    found = findings(ladder, only=["checks"])
    assert {one.name for one in found.checks} == {"shuffled labels", "missing outcomes", "own default", "errors"}
    assert all(one.held for one in found.checks)
    assert {table.name for table in found.tables} == {"failures", "shuffled", "graders"}
    assert any("threshold-fitted always escalates" in one for one in found.sentences)
    relabelled = '"better" becomes "worse" for agreement-models, agreement-4'
    assert any("With --labels regraded" in one and relabelled in one for one in found.sentences)
    assert all(one.endswith(".") for one in found.sentences)


# ------------------------------------------------------------------------------------------------------ shuffled labels


def test_the_spread_over_shuffles_is_exact() -> None:
    """Mean and standard deviation of the gain, against all that a thousand shuffles of the rows give."""
    rng = np.random.default_rng(5)
    quality, chosen = rng.random((40, 3)), rng.integers(0, 3, 40)
    gain = shuffling.gain_of(quality, chosen)
    drawn = [shuffling.gain_of(quality[rng.permutation(40)], chosen).points for _ in range(4_000)]
    assert np.mean(drawn) == pytest.approx(0, abs=4 * gain.error / np.sqrt(4_000))
    assert np.std(drawn) == pytest.approx(gain.error, rel=0.05)


def test_hindsight_gains_and_a_constant_does_not() -> None:
    """A gain is found where there is one, and is nothing where there is nothing to choose."""
    outcomes = world()
    best = np.where(outcomes.quality[:, 0] == 1, 0, 1)
    assert shuffling.gain_of(outcomes.quality, best).p < 1e-6
    alone = shuffling.gain_of(outcomes.quality, np.ones(200, dtype=np.int64))
    assert alone.points == pytest.approx(0)
    assert np.isnan(alone.p)


class Hoards:
    """Keeps what it was ever fitted on: what one fold is fitted on, another is judged on. Of every n-th question."""

    def __init__(self, name: str = "hoards", every: int = 1) -> None:
        self.name, self.every, self.best = name, every, dict[str, int]()

    def fit(self, outcomes: Outcomes, rows: Any) -> Policy:
        at = [i for i in rows.tolist() if i % self.every == 0]
        self.best |= {outcomes.keys[i]: int(outcomes.quality[i, 0] < outcomes.quality[i, 1]) for i in at}
        return Recalled(self.best)


@dataclass(frozen=True)
class Recalled:
    """Knows the best rung of each question by heart."""

    best: dict[str, int]
    name: str = "recalled"

    def decide(self, view: View) -> Decision:
        return pick(view, self.best.get(view.key, 1), "by heart")


def test_a_leak_is_found() -> None:
    """A policy fitted on its own test rows gains on shuffled labels, and the check says which and how much."""
    found = check(evidence(world(), Hoards(), Threshold(0.5, name="honest")), "shuffled labels")
    assert found.held is False
    assert "hoards gains +" in found.said
    assert "honest" not in found.said


def test_who_leaks_is_not_recommended_by_anything() -> None:
    """Whoever shows, exports or asks a comparison hears of a failed check first, and of another policy as the best."""
    found = compare(world(), [Hoards(), Threshold(0.5, (0, 1), name="honest")])
    assert (found.row("hoards").verdict, found.doubted) == ("better", ("hoards",))
    assert found.cheapest_as_good is not found.row("hoards")
    assert found.row("hoards") not in found.candidates
    told = found.to_json()
    assert [(one["name"], one["about"]) for one in told["checks"] if one["held"] is False] == [
        ("shuffled labels", ["hoards"])
    ]
    assert told["cheapest_as_good"] != "hoards"
    assert closing(found).endswith("Not counted, since a self-check failed: hoards.")
    text = io.StringIO()
    found.show(Console(file=text, width=100))
    assert text.getvalue().index("FAILED shuffled labels") < text.getvalue().index("verdict")
    with pytest.raises(DataError, match="can't be told: the self-check 'shuffled labels' failed"):
        found.check("honest.quality < 1")


def test_checks_run_once() -> None:
    """However often a comparison is shown: its checks are those of the first time."""
    found = compare(world(), ["threshold-0.8"])
    assert found.checks
    assert [*map(id, found.checks)] == [*map(id, findings(found).checks[-len(found.checks) :])]


def test_an_evaluation_that_fails_as_a_whole_recommends_nobody(monkeypatch) -> None:
    """A check that speaks of no policy by name speaks of all."""
    monkeypatch.setattr(selfchecks, "_raising", lambda evidence: Check("errors", False, "as planted"))
    found = compare(world(), ["threshold-0.8"])
    assert {*found.doubted} == {row.name for row in found.rows}
    assert (found.cheapest_as_good, found.candidates) == (None, ())
    assert closing(found).endswith("No policy is recommended: a self-check failed.")


class Picky:
    """Can't be fitted to the half of a few hundred questions, and says so as a library would."""

    name = "picky"

    def fit(self, outcomes: Outcomes, rows: Any) -> Policy:
        if len(rows) < 120:
            raise ValueError("too few samples")
        return Threshold(0.6, (0, 1), "picky")


def test_what_cannot_be_fitted_to_shuffled_labels_is_told() -> None:
    """A fit that raises on half of the questions ends no report, and isn't passed over without a word."""
    found = compare(world(), [Picky(), Threshold(0.5, (0, 1), name="honest")])
    assert "not picky, which can't be fitted to half of them" in check(found.evidence, "shuffled labels").said


def test_nothing_to_choose_is_not_told_as_held() -> None:
    """Constants alone, or labels that are all alike, can't tell."""
    assert check(evidence(world(), Constant(0, "a"), Constant(1, "b")), "shuffled labels").held is None
    same = table(quality=[[1.0, 1.0]] * 30, confidence=[[0.5 + i / 100, 1.0] for i in range(30)])
    assert check(evidence(same, Threshold(0.6)), "shuffled labels").held is None


# --------------------------------------------------------------------------------------------- missing, default, errors


def test_an_evaluator_that_counts_holes_as_zero_is_caught(monkeypatch) -> None:
    """If a missing quality became a figure, the check would fail."""
    found = evidence(world(), Threshold(0.5))
    assert check(found, "missing outcomes").held

    def lax(policy: Policy, outcomes: Outcomes) -> Replayed:
        return replay(policy, replace(outcomes, quality=np.nan_to_num(outcomes.quality)))

    monkeypatch.setattr(selfchecks, "replay", lax)
    assert check(found, "missing outcomes").held is False


def test_a_table_with_holes_is_checked_where_it_is_complete() -> None:
    """Rungs that were not asked everywhere: the checks look at the questions that are complete, and say so."""
    outcomes = world()
    quality = outcomes.quality.copy()
    quality[50:, 1] = np.nan
    one = replace(outcomes, quality=quality)
    lineup = Lineup(one)
    entry = Entry("r0", Constant(0))
    found = evidence_of([entry, Entry("mine", Threshold(0.0, name="mine"))], entry, lineup, 5)
    held = {one.name: one.held for one in selfchecks.selfchecks(found)}
    assert held == {"shuffled labels": True, "missing outcomes": True, "own default": True, "errors": True}
    assert "250 of 400 are there" in check(found, "missing outcomes").said


def test_an_evaluator_that_flatters_its_default_is_caught(monkeypatch) -> None:
    """If a router without predictions scored better than its constant, the check would fail."""
    found = evidence(world(), Threshold(0.5))
    assert check(found, "own default").held

    def kind(policy: Policy, outcomes: Outcomes) -> Replayed:
        one = replay(policy, outcomes)
        return one if isinstance(policy, Constant) else replace(one, quality=one.quality + 0.01)

    monkeypatch.setattr(selfchecks, "replay", kind)
    assert check(found, "own default").held is False
    assert check(found, "errors").held is False


def test_who_never_escalates_is_told() -> None:
    """A router that is its cheap rung on every question is called that, as is one that always escalates."""
    said = list(selfchecks._said(evidence(world(), Threshold(0.0, name="low"), Threshold(0.4, name="mine"))))
    assert any("low never escalates: on all 200 questions it is r0 alone" in one for one in said)
    assert not any(one.startswith("mine") for one in said)


@dataclass(frozen=True)
class Raising:
    """Raises on half of the questions, the others go to the strongest rung."""

    name: str = "raising"

    def decide(self, view: View) -> Decision:
        if draw(1, view.key) < 0.5:
            raise ZeroDivisionError("half of the time")
        return pick(view, 1, "")


def test_a_policy_that_raises_has_errors_and_the_quality_that_follows() -> None:
    """Half of the questions raise: half are errors, of quality 0, in the comparison, its failures and its words."""
    outcomes = world(400)
    raises = np.array([draw(1, key) < 0.5 for key in outcomes.keys])
    found = compare(outcomes, [Raising()])
    row = found.row("raising")
    assert row.errors == raises.sum()
    assert 0.4 < row.errors / row.n < 0.6
    assert row.quality == pytest.approx(outcomes.quality[~raises, 1].sum() / 400)
    assert row.verdict == "worse"
    assert found.evidence is not None
    mine = next(one for one in failures(found.evidence) if one.name == "raising")
    assert (mine.failed, mine.unanswered, mine.errors) == (raises.sum(), 0, raises.sum())
    said = list(selfchecks._said(found.evidence))
    assert f"raising raised on {raises.sum()} of 400 questions, which count as errors" in said[0]
    assert "ZeroDivisionError: half of the time" in said[0]


def test_failures_are_counted_apart() -> None:
    """Each status in its own column, for rungs, for policies where they ended, and rescued ones beside them."""
    status = [[0, 0], [1, 0], [2, 0], [3, 0], [4, 3]]
    outcomes = table(quality=[[1.0, 1.0]] * 5, confidence=[[0.9, 0.9]] * 5, status=status)
    by_name = {one.name: one for one in failures(evidence(outcomes, Threshold(0.5, name="climbs"), "random-0.25"))}
    assert [getattr(by_name["r0"], name) for name in ("wrong_format", "truncated", "failed", "refused")] == [1] * 4
    assert (by_name["r0"].errors, by_name["r0"].share) == (4, 0.8)
    assert (by_name["climbs"].failed, by_name["climbs"].errors, by_name["climbs"].rescued) == (1, 1, 3)
    assert by_name["random-0.25"].failed == pytest.approx(1)
    assert by_name["random-0.25"].refused == pytest.approx(0.75)


# ------------------------------------------------------------------------------------------------------------- gradings


def judged(n: int, flip: float, labels: str = "judge") -> Outcomes:
    """Labels by a judge who is wrong on a share of the answers, beside the reference."""
    outcomes, rng = world(n), np.random.default_rng(3)
    wrong = rng.random(outcomes.quality.shape) < flip
    judge = np.where(wrong, 1 - outcomes.quality, outcomes.quality)
    return replace(outcomes, labels=labels, quality=judge, gradings={labels: judge, "reference": outcomes.quality})


def test_kappa_by_hand() -> None:
    """Cohen's own kind of table: 20 both right, 5 and 10 apart, 15 both wrong; kappa is 0.4."""
    a = np.repeat([1.0, 1.0, 0.0, 0.0], [20, 5, 10, 15])
    b = np.repeat([1.0, 0.0, 1.0, 0.0], [20, 5, 10, 15])
    assert agreeing.kappa(a, b) == pytest.approx(0.4)
    assert np.isnan(agreeing.kappa(np.ones(3), np.ones(3)))


def test_a_judge_is_shown_beside_the_reference() -> None:
    """Agreement and kappa with interval on what has both; a judge who guesses fails."""
    good = agreeing.judge_check(judged(300, 0.1))
    assert good is not None
    assert good.held
    assert "agrees with 'reference' on 89.8%" in good.said
    bad = agreeing.judge_check(judged(300, 0.5))
    assert bad is not None
    assert bad.held is False


def test_an_unchecked_judge_is_called_that() -> None:
    """Without reference labels, or with another judge's alone, the words are there, and nothing is held."""
    outcomes = judged(60, 0.1)
    for gradings in ({}, {"judge": outcomes.quality, "judge-2": outcomes.quality}):
        found = agreeing.judge_check(replace(outcomes, gradings=gradings))
        assert found is not None
        assert found.held is None
        assert "unchecked judge" in found.said
    assert agreeing.judge_check(world()) is None


def test_a_partial_second_grading_counts_what_has_both() -> None:
    """Holes in the second grading are left out of the agreement, and no verdict is made of them."""
    outcomes = judged(200, 0.2, labels="first")
    other = outcomes.gradings["reference"].copy()
    other[50:] = np.nan
    outcomes = replace(outcomes, gradings={"first": outcomes.quality, "reference": other})
    every, *rungs = agreeing.agreements(outcomes)
    assert (every.n, [one.n for one in rungs]) == (100, [50, 50])
    assert every.differ == (outcomes.quality[:50] != other[:50]).sum()
    assert every.kappa_low < every.kappa < every.kappa_high
    assert not agreeing.changed(evidence(replace(outcomes, gradings={}), Threshold(0.5)))


def test_verdicts_that_another_grader_changes(ladder) -> None:
    """They are those that the comparison finds, for what isn't fitted anew."""
    assert ladder.evidence is not None
    mine = {(one.policy, one.verdict, one.other_verdict) for one in agreeing.changed(ladder.evidence)}
    fitted = {entry.name for entry in ladder.evidence.entries if entry.fitted or entry.mixed}
    theirs = {(one.name, one.verdict, one.other) for one in ladder.changed if one.name not in fitted}
    assert theirs == {one for one in mine if one[0] not in fitted}
    assert isinstance(ladder.changed[0], comparing.Change)


@pytest.mark.parametrize("n", [25, 30, 39])
def test_too_few_to_fit_one_policy_leaves_the_checks_to_the_others(n) -> None:
    """Half of the questions are too few for the nearest ones: a leak of another policy is seen all the same."""
    good = findings(compare(world(n), folds=5), only=["checks"]).checks
    assert {one.name for one in good} == {"shuffled labels", "missing outcomes", "own default", "errors"}
    assert check(compare(world(n), ["nearest", Hoards()], folds=5).evidence, "shuffled labels").held is False


def test_a_small_leak_on_few_questions_is_not_called_nothing() -> None:
    """Where a gain on shuffled labels is neither proof nor nothing, the check says that it can't tell."""
    found = [check(evidence(world(60, seed=seed), Hoards("peeks", 3)), "shuffled labels") for seed in range(6)]
    assert not all(one.held for one in found)
    unsure = [one for one in found if one.held is None]
    assert unsure
    assert all("peeks gains +" in one.said and "luck has it so once in" in one.said for one in unsure)
