"""Replay: columns of what a policy did, budgets of a run, the oracle, and what is fitted out of fold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.agents.climb import FAILED, Stop, Try, View
from escalade.agents.policies import Budgeted, Constant, PromptLength, RandomMix, Threshold
from escalade.errors import BadInput, DataError, UnknownName, UnknownPrice
from escalade.evals.folds import assign_folds
from escalade.evals.loaders import load_outcomes
from escalade.evals.outcomes import COLUMNS, STATUSES, UNKNOWN, Outcomes
from escalade.evals.replay import (
    Fitted,
    FittedBudgeted,
    FittedPromptLength,
    FittedThreshold,
    MatchedRandom,
    cross_fit,
    oracle,
    replay,
    replay_one,
)
from escalade.money import Money
from tests.evals._tables import outcomes, table

BROKEN = STATUSES.index(FAILED)


class Upward:
    """A policy of a user, without a vectorised form: up until an attempt is good."""

    name = "upward"

    def decide(self, view: View) -> Try | Stop:
        tried = len(view.attempts)
        done = tried and view.attempts[-1].ok
        return Stop() if done or tried == len(view.rungs) else Try(tried)


def world(n: int = 400, seed: int = 0) -> Outcomes:
    """A cheap rung whose confidence is worth something, and a dear one; long prompts are harder."""
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.random((n, 2)), 2)
    chars = rng.integers(10, 300, n)
    return table(
        quality=np.stack([rng.random(n) < confidence[:, 0], rng.random(n) < 0.9], axis=1).astype(float).tolist(),
        confidence=confidence,
        cost=np.stack([rng.integers(5, 15, n), rng.integers(80, 120, n)], axis=1),
        chars=chars.tolist(),
    )


# ------------------------------------------------------------------------------------------------------------- columns


def test_replayed_columns() -> None:
    """Rungs tried and chosen, cost of all attempts, quality of the chosen one, serial latency, calls."""
    data = table(
        quality=[[1, 1], [0, 1], [1, 0]],
        confidence=[[0.9, 1], [0.1, 1], [0.2, 1]],
        cost=[1, 10],
        status=[[0, 0], [0, 0], [BROKEN, BROKEN]],
    )
    found = replay(Threshold(0.8), data)
    assert found.policy == "threshold"
    assert found.n == 3
    assert found.chosen.tolist() == [0, 1, 1]
    assert found.tried.tolist() == [[True, False], [True, True], [True, True]]
    assert found.calls.sum(axis=0).tolist() == [3, 2]
    assert found.cost.tolist() == [1, 11, 11]
    assert found.quality.tolist() == [1.0, 1.0, 0.0]
    assert found.errors.tolist() == [False, False, True]
    assert found.latency.tolist() == [1.0, 2.0, 2.0]
    assert found.mean_cost == pytest.approx(23 / 3)


def test_any_policy_is_replayed() -> None:
    """A policy that has no vectorised form is climbed row by row, with the same columns."""
    data = table(quality=[[1, 1], [1, 1]], status=[[0, 0], [BROKEN, 0]], cost=[1, 10])
    found = replay(Upward(), data, per_run=5)
    assert found.chosen.tolist() == [0, 0]
    assert found.cost.tolist() == [1, 1]
    assert found.errors.tolist() == [False, True]
    assert replay(Upward(), data).chosen.tolist() == [0, 1]


def test_rows_are_replayed_alone() -> None:
    """By index or by mask, in the order given; columns follow."""
    data = table(quality=[[0], [1], [0], [1]])
    assert replay(Constant(0), data, rows=[3, 0]).quality.tolist() == [1.0, 0.0]
    assert replay(Constant(0), data, rows=np.array([False, True, True, False])).rows.tolist() == [1, 2]
    assert replay(Constant(0), data, rows=[]).n == 0


def test_unknown_costs_stay_unknown() -> None:
    """A question with an attempt of unknown cost has an unknown cost, and so has the mean: never zero."""
    data = table(quality=[[1, 1], [1, 1]], confidence=[[0.9, 1], [0.1, 1]], cost=[1, UNKNOWN])
    found = replay(Threshold(0.8), data)
    assert found.cost.tolist() == [1, UNKNOWN]
    assert not found.cost_known
    assert found.mean_cost is None
    assert replay(Constant(0), data).cost_known


def test_one_climb_in_full() -> None:
    """`replay_one` gives the climb itself, with its steps and reasons."""
    data = table(quality=[[0, 1]], confidence=[[0.1, 1]], cost=[1, 10])
    assert replay_one(Threshold(0.8), data, 0).path == (0, 1)
    assert "doesn't fit" in replay_one(Threshold(0.8), data, 0, budget_left=10).explain()


def test_unknown_rungs_are_refused() -> None:
    """A rung that the ladder lacks is refused by name, vectorised too."""
    with pytest.raises(UnknownName, match="gpt-5"):
        replay(Constant("gpt-5"), table(quality=[[1]]))


# ------------------------------------------------------------------------------------------------------------- budgets


def test_a_run_budget_is_spent_in_order() -> None:
    """What doesn't fit any more stays unanswered: an error of quality 0 that costs nothing."""
    found = replay(Constant(0), table(quality=[[1]] * 5, cost=[10]), per_run=35)
    assert found.chosen.tolist() == [0, 0, 0, -1, -1]
    assert found.cost.tolist() == [10, 10, 10, 0, 0]
    assert found.quality.tolist() == [1, 1, 1, 0, 0]
    assert found.errors.tolist() == [False, False, False, True, True]
    assert found.latency.tolist() == [1, 1, 1, 0, 0]


def test_a_cheap_question_still_fits_later() -> None:
    """The budget is a hard limit for each question, not a switch: a later, cheaper one is answered."""
    found = replay(Constant(0), table(quality=[[1]] * 3, cost=[[10], [30], [5]]), per_run=20)
    assert found.chosen.tolist() == [0, -1, 0]


def test_an_unknown_ceiling_never_fits_a_budget() -> None:
    """However large the budget is."""
    data = table(quality=[[1]], cost=[1], ceiling=[UNKNOWN])
    assert replay(Constant(0), data, per_run=10**30).chosen.tolist() == [-1]
    assert replay(Constant(0), data).chosen.tolist() == [0]


@given(outcomes(priced=True), st.integers(0, 200))
def test_a_run_never_passes_its_budget(data: Outcomes, per_run: int) -> None:
    """Where no cost exceeds its ceiling, the sum of all costs stays within the budget."""
    honest = Outcomes(**{**vars(data), "ceiling": np.maximum(data.ceiling, data.cost)})
    for policy in (Threshold(0.8), Budgeted(Constant(data.k - 1))):
        assert replay(policy, honest, per_run=per_run).cost.sum() <= per_run


# -------------------------------------------------------------------------------------------------------------- oracle


def test_the_oracle_takes_the_cheapest_right_rung() -> None:
    """It alone is paid; the cheapest where none is right; a failed attempt isn't right, whatever its label."""
    data = table(
        quality=[[0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 1]],
        cost=[[1, 5, 3], [1, 5, 3], [2, 1, 3], [1, 5, 3]],
        status=[[0, 0, 0], [0, 0, 0], [0, 0, 0], [BROKEN, 0, 0]],
    )
    found = oracle(data)
    assert found.chosen.tolist() == [2, 0, 1, 2]
    assert found.cost.tolist() == [3, 1, 1, 3]
    assert found.quality.tolist() == [1, 1, 0, 1]
    assert found.calls.sum(axis=1).tolist() == [1, 1, 1, 1]
    assert oracle(data, rows=[2]).chosen.tolist() == [1]


def test_the_oracle_prefers_what_has_a_price() -> None:
    """An unknown cost isn't cheap; where only such a rung is right, it is taken all the same."""
    assert oracle(table(quality=[[1, 1]], cost=[UNKNOWN, 9])).chosen.tolist() == [1]
    assert oracle(table(quality=[[0, 1]], cost=[9, UNKNOWN])).chosen.tolist() == [1]


@given(outcomes())
def test_nothing_is_better_than_the_oracle(data: Outcomes) -> None:
    """On each question it is at least as good as any rung."""
    best = oracle(data).quality
    for rung in range(data.k):
        assert (replay(Constant(rung), data).quality <= best).all()


# -------------------------------------------------------------------------------------------------------------- fitted


def test_matched_random_costs_what_its_reference_costs() -> None:
    """The expected cost of the mix is the reference's mean: a policy, its replay, or an amount; clipped at the ends."""
    data = world()
    rows = np.arange(data.n)
    reference = Threshold(0.5)
    cost = replay(reference, data).mean_cost
    low, high = data.cost.mean(axis=0)
    for given_as in (reference, replay(reference, data), round(cost), FittedBudgeted(FittedThreshold((0, 1), 1, 9.0))):
        mix = MatchedRandom(given_as, 0, 1, seed=3).fit(data, rows)
        assert isinstance(mix, RandomMix)
        assert mix.seed == 3
        if not isinstance(given_as, FittedBudgeted):
            assert low + mix.share * (high - low) == pytest.approx(cost, abs=0.5)
    assert MatchedRandom(0, 0, 1).fit(data, rows).share == 0.0
    assert MatchedRandom(10**6, 0, 1).fit(data, rows).share == 1.0
    assert MatchedRandom(50, 1, 1).fit(data, rows).share == 0.0


def test_prompt_length_at_a_share() -> None:
    """The cut comes as close to the share as the lengths allow; equal lengths go together; 0 sends nothing up."""
    data = table(quality=[[1, 1]] * 6, chars=[10, 20, 20, 20, 30, 40])
    cuts = {share: FittedPromptLength(0, 1, at_share=share).fit(data, np.arange(6)).chars for share in (0, 0.3, 0.8, 1)}
    assert cuts == {0: math.inf, 0.3: 30, 0.8: 20, 1: 10}


def test_prompt_length_at_the_cost_of_a_reference() -> None:
    """The mean cost on the training rows comes within one question of the reference's."""
    data, rows = world(), np.arange(400)
    target = replay(Threshold(0.5), data).mean_cost
    policy = FittedPromptLength(0, 1, reference=Threshold(0.5)).fit(data, rows)
    assert replay(policy, data).mean_cost == pytest.approx(target, abs=3)
    assert isinstance(policy, PromptLength)


def test_prompt_length_needs_one_aim() -> None:
    """Neither or both of share and reference are refused."""
    for aims in ({}, {"at_share": 0.5, "reference": 5}):
        with pytest.raises(BadInput):
            FittedPromptLength(0, 1, **aims)


def test_fitted_threshold_is_the_cheapest_that_is_good_enough() -> None:
    """No other threshold on the training rows is cheaper and within the margin of the baseline."""
    data, rows = world(), np.arange(0, 400, 2)
    policy = FittedThreshold((0, 1), baseline=1, margin=0.02).fit(data, rows)
    assert isinstance(policy, Threshold)
    enough = replay(Constant(1), data, rows=rows).quality.mean() - 0.02
    fitted = replay(policy, data, rows=rows)
    assert fitted.quality.mean() >= enough
    seen = np.unique(data.confidence[rows, 0])
    for cut in np.unique(np.quantile(seen, np.linspace(0, 1, 64), method="nearest")):
        other = replay(Threshold(float(cut), (0, 1)), data, rows=rows)
        assert other.quality.mean() < enough or other.mean_cost >= fitted.mean_cost


def test_fitted_threshold_falls_back_to_the_baseline() -> None:
    """Where no threshold is good enough, or none is cheaper, the baseline alone remains."""
    data = table(quality=[[0, 1]] * 4, confidence=[[1.0, 1.0]] * 4, cost=[1, 10])
    assert FittedThreshold((0, 1), 1).fit(data, np.arange(4)) == Constant(1, "threshold, fitted")


def test_fitted_budgets_hold() -> None:
    """What is fitted is wrapped with the budget, under a name of its own."""
    data = world()
    fitted = FittedBudgeted(FittedThreshold((0, 1), 1, 0.02), Money(100))
    assert fitted.name == "threshold, fitted, budgeted"
    assert (cross_fit(fitted, data).cost <= 100).all()


def test_matching_needs_prices() -> None:
    """Unknown costs, a reference that lacks rows, and no rows at all are refused, each by its class."""
    unpriced, data = table(quality=[[1, 1]], cost=[1, UNKNOWN]), world(10)
    with pytest.raises(UnknownPrice):
        MatchedRandom(5, 0, 1).fit(unpriced, np.arange(1))
    with pytest.raises(BadInput, match="lacks"):
        MatchedRandom(replay(Constant(0), data, rows=[1, 2]), 0, 1).fit(data, np.arange(10))
    with pytest.raises(DataError):
        MatchedRandom(5, 0, 1).fit(data, np.arange(0))


def test_cross_fit_never_looks_at_what_it_predicts() -> None:
    """Each fold is answered by the policy of the others: the fitter sees all rows but those of one fold."""
    data, seen = world(50), []

    class Spy:
        name = "spy"

        def fit(self, outcomes: Outcomes, rows: np.ndarray) -> Constant:
            seen.append(set(rows.tolist()))
            return Constant(len(seen) % 2)

    found = cross_fit(Spy(), data, folds=5, seed=4)
    fold = assign_folds(data.keys, 5, 4)
    assert isinstance(Spy(), Fitted)
    assert [set(range(50)) - rows for rows in seen] == [set(np.flatnonzero(fold == f).tolist()) for f in range(5)]
    assert found.chosen.tolist() == [(f + 1) % 2 for f in fold.tolist()]
    assert (found.policy, found.rows.tolist()) == ("spy", list(range(50)))


class Recorded:
    """Keeps what each fit was handed."""

    name = "recorded"

    def __init__(self) -> None:
        self.handed: list[tuple[Outcomes, np.ndarray]] = []

    def fit(self, outcomes: Outcomes, rows: np.ndarray) -> Constant:
        self.handed.append((outcomes, rows))
        return Constant(0)


def test_a_fit_is_handed_no_outcome_of_the_rows_that_it_is_judged_on() -> None:
    """Of them it knows questions, prices and bounds, by no grading what any attempt gave; of its own rows all."""
    whole = load_outcomes(limit=60)
    data = replace(whole, spent=whole.cost, form=np.ones((60, whole.k, 4)))
    one = Recorded()
    cross_fit(one, data)
    for seen, rows in one.handed:
        out = np.setdiff1d(np.arange(60), rows)
        assert not seen.asked[out].any()
        assert all(np.isnan(column[out]).all() for column in (seen.form, *seen.gradings.values()))
        assert (seen.spent[out] == UNKNOWN).all()
        assert (seen.keys, [*seen.features]) == (data.keys, [*data.features])
        for name in (*COLUMNS, "form", "spent"):
            np.testing.assert_array_equal(getattr(seen, name)[rows], getattr(data, name)[rows])
        for name in ("price", "ceiling"):
            np.testing.assert_array_equal(getattr(seen, name), getattr(data, name))
        assert all((column[rows] == data.gradings[name][rows]).all() for name, column in seen.gradings.items())


class Scribbles:
    """Writes itself a better record when it is fitted, wherever it can."""

    name = "scribbles"

    def fit(self, outcomes: Outcomes, rows: np.ndarray) -> Constant:
        for column in (*map(outcomes.__getattribute__, COLUMNS), *outcomes.gradings.values()):
            with pytest.raises(ValueError, match="read-only"):
                column[:] = 1
        outcomes.gradings.clear()
        object.__setattr__(outcomes, "quality", np.ones_like(outcomes.quality))
        object.__setattr__(outcomes, "cost", np.zeros_like(outcomes.cost))
        return Constant(0)


def test_a_fit_can_write_neither_labels_nor_costs() -> None:
    """What a policy does to the table that it is handed changes no figure, not its own either."""
    data = load_outcomes(limit=60)
    before = data.digest, [*data.gradings]
    found, fair = cross_fit(Scribbles(), data), replay(Constant(0), data)
    assert (found.quality.tolist(), found.cost.tolist()) == (fair.quality.tolist(), fair.cost.tolist())
    assert before == (replace(data).digest, [*data.gradings])


def test_columns_are_read_only_and_those_handed_in_stay_as_they_were() -> None:
    """Outcomes can't be written; the array that they were made of still can."""
    mine = np.array([[0.0, 1.0]])
    data = replace(table(quality=[[0, 1]]), quality=mine)
    with pytest.raises(ValueError, match="read-only"):
        data.quality[0, 0] = 1
    mine[0, 0] = 0.5


def test_cross_fit_shares_one_run_budget() -> None:
    """The run's budget is spent in dataset order, across folds."""
    data = table(quality=[[1, 1]] * 10, cost=[10, 20])
    found = cross_fit(FittedPromptLength(0, 1, at_share=0.0), data, per_run=70)
    assert found.chosen.tolist() == [0] * 7 + [-1] * 3


def test_prompt_length_without_lengths_is_refused_by_name() -> None:
    """Data that don't know how long the questions are can't have them cut by length."""
    data = replace(table(quality=[[1, 1]] * 6), features={})
    with pytest.raises(UnknownName, match="prompt_chars"):
        FittedPromptLength(0, 1, at_share=0.5).fit(data, np.arange(6))
