"""Confidence sequences: looking again and again costs width, never the level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escalade.errors import BadInput
from escalade.evals.inference.sequential import Asymptotic, Betting
from escalade.evals.statistics import t_quantile

RUNS, LENGTH = 250, 250


def false_alarms(make, draws):
    """Share of the runs in which zero, the true mean, is outside of the interval at any moment."""
    alarms = 0
    for run in draws:
        seen = make()
        for value in run.tolist():
            seen.add(value)
            if seen.low > 0 or seen.high < 0:
                alarms += 1
                break
    return alarms / len(draws)


def students(draws, start=10):
    """The same for the interval of a fixed number of values, looked at after each from `start`."""
    n = np.arange(1, draws.shape[1] + 1)
    mean = draws.cumsum(axis=1) / n
    spread = np.sqrt(np.maximum((draws**2).cumsum(axis=1) / n - mean**2, 0) * n / np.maximum(n - 1, 1))
    t = np.array([math.inf if k < start else t_quantile(0.975, k - 1) for k in n.tolist()])
    return float((np.abs(mean) > t * np.maximum(spread, 1e-12) / np.sqrt(n)).any(axis=1).mean())


@pytest.fixture(scope="module")
def differences():
    """Paired differences of answers that are right or wrong, without any effect: a third of them -1 or 1."""
    return np.random.default_rng(1).choice([-1.0, 0.0, 1.0], p=[1 / 6, 2 / 3, 1 / 6], size=(RUNS, LENGTH))


def test_betting_keeps_its_level_however_often_one_looks(differences):
    """At most 5 % of runs without an effect ever find one; Student's interval finds it in many times more of them."""
    ours, fixed = false_alarms(lambda: Betting(-1, 1, points=21), differences), students(differences)
    assert ours <= 0.05
    assert fixed > 0.2


def test_asymptotic_keeps_its_level_on_differences_of_dollars():
    """Also where the costs themselves have long tails, from its first 30 values on."""
    costs = np.random.default_rng(2).lognormal(0.0, 1.0, size=(2, RUNS, LENGTH))
    draws = costs[0] - costs[1]
    assert false_alarms(Asymptotic, draws) <= 0.05
    assert students(draws) > 0.2


def test_both_find_an_effect_that_is_there():
    """A true difference of 0.2 is found by nearly all runs within 300 questions, and the truth stays inside."""
    draws = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], p=[0.05, 0.70, 0.25], size=(60, LENGTH))
    for make in (lambda: Betting(-1, 1, points=201), Asymptotic):
        after = [make() for _ in draws]
        for seen, run in zip(after, draws.tolist(), strict=True):
            seen.add(*run)
        assert np.mean([seen.low > 0 for seen in after]) > 0.85
        assert np.mean([seen.low <= 0.2 <= seen.high for seen in after]) >= 0.95


def test_nothing_ever_differs():
    """Values that are all 0 don't make it certain at once: the bounds close in as questions come."""
    seen = Betting(-1, 1)
    widths = []
    for _ in range(6):
        seen.add(*[0.0] * 50)
        widths.append(seen.high - seen.low)
    assert widths[0] > 0.1
    assert widths == sorted(widths, reverse=True)
    assert seen.low < 0 < seen.high
    assert seen.mean == 0.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(2.0, 5.0), min_size=1, max_size=40), st.integers(1, 39))
def test_the_grain_of_adding_changes_nothing(values, cut):
    """One by one or all at once: the same mean and, at the end, bounds no wider; the interval stays in its bounds."""
    whole, parts = Betting(2.0, 5.0, points=51), Betting(2.0, 5.0, points=51)
    whole.add(*values)
    parts.add(*values[:cut])
    parts.add(*values[cut:])
    assert parts.mean == pytest.approx(whole.mean) == pytest.approx(np.mean(values))
    assert 2.0 <= whole.low <= parts.low <= parts.high <= whole.high <= 5.0


def test_bounds_move_with_the_unit():
    """The interval of values in other units is the same interval in these units."""
    draws = np.random.default_rng(4).random(80)
    one, other = Betting(0, 1), Betting(-10, 30)
    one.add(*draws.tolist())
    other.add(*(40 * draws - 10).tolist())
    assert (other.low, other.high) == pytest.approx((40 * one.low - 10, 40 * one.high - 10))


@pytest.mark.parametrize("wrong", [math.nan, 1.5, -0.1])
def test_what_has_no_place_in_the_mean_is_refused(wrong):
    """Betting knows its bounds; nan is nowhere."""
    with pytest.raises(BadInput, match="bounds"):
        Betting().add(wrong)
    with pytest.raises(BadInput, match="nan"):
        Asymptotic().add(math.nan)


@pytest.mark.parametrize("make", [lambda: Betting(level=1), lambda: Betting(1, 0), lambda: Asymptotic(start=1)])
def test_senseless_settings_are_refused(make):
    """With one line."""
    with pytest.raises(BadInput):
        make()
