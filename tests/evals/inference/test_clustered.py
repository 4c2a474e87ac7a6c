"""Epochs are averaged, groups count as what is independent: against statsmodels, by hand, and end to end."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from escalade.errors import BadInput
from escalade.evals import statistics
from escalade.evals.compare import compare
from escalade.evals.inference.clustered import (
    clustered_error,
    difference,
    mean_interval,
    rows_needed,
    skewed_interval,
)
from escalade.evals.inference.units import Questions, questions_of
from tests.evals._tables import table

COLUMNS = st.integers(2, 12).flatmap(
    lambda groups: st.lists(
        st.tuples(st.integers(0, groups - 1), st.floats(-5, 5).map(lambda x: round(x, 3))),
        min_size=3,
        max_size=40,
    )
)


def coded(names: list[int]) -> np.ndarray:
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


@given(COLUMNS)
@settings(max_examples=100)
def test_the_error_is_that_of_statsmodels(rows: list[tuple[int, float]]) -> None:
    """Its CR1 cluster covariance where groups have one size; with other sizes the same sums of groups, corrected."""
    group, x = coded([g for g, _ in rows]), np.array([x for _, x in rows])
    if group.max() < 1:
        return
    fit = sm.OLS(x, np.ones(len(x))).fit(cov_type="cluster", cov_kwds={"groups": group})
    mean, error, df = clustered_error(x, group)
    assert mean == pytest.approx(float(fit.params[0]), abs=1e-9)
    sizes, groups = np.bincount(group), int(group.max()) + 1
    if len(set(sizes.tolist())) == 1:
        assert error == pytest.approx(float(fit.bse[0]), rel=1e-6, abs=1e-9)
        assert df == pytest.approx(groups - 1)
    else:
        sums = np.array([(x[group == g] - mean).sum() for g in range(groups)])
        by_hand = math.sqrt(float((sums**2 / (1 - sizes / len(x))).sum())) / len(x)
        assert error == pytest.approx(by_hand, rel=1e-9, abs=1e-12)
        assert df + 1e-9 >= 1
        assert df <= groups - 1 + 1e-9


def test_intervals_of_groups_are_statsmodels() -> None:
    """Estimate, bounds and p value of grades in groups of five: its t interval with g - 1 degrees of freedom."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), 5)
    a, b = rng.random(60) + rng.normal(0, 0.2, 12)[group], rng.random(60)
    found = difference(a, b, group)
    fit = sm.OLS(a - b, np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": group}, use_t=True)
    low, high = fit.conf_int()[0]
    assert (found.value, found.low, found.high) == pytest.approx((fit.params[0], low, high), rel=1e-6)
    two_sided = 2 * min(found.p_better, 1 - found.p_better)
    assert two_sided == pytest.approx(float(fit.pvalues[0]), rel=1e-6)
    assert found.detectable == pytest.approx(
        float(fit.bse[0]) * (stats.t.ppf(0.975, 11) + stats.t.ppf(0.8, 11)), rel=1e-6
    )


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=40))
def test_without_groups_it_is_the_plain_difference(pairs: list[tuple[bool, bool]]) -> None:
    """A group for each question is no group, for 0/1 answers up to t for the normal distribution."""
    a, b = (np.array([pair[i] for pair in pairs], dtype=float) for i in (0, 1))
    plain, alone = difference(a, b), difference(a, b, np.arange(len(a)))
    assert (plain.value, plain.low, plain.high) == statistics.paired_difference(a, b)
    assert plain.value == alone.value
    z, t = 1.959964, stats.t.ppf(0.975, len(a) - 1)
    middle = (plain.low + plain.high) / 2
    if plain.low > -1 and plain.high < 1 and plain.low < plain.value < plain.high:
        n = len(a)
        leverage = math.sqrt(n / (n - 1))
        assert alone.high - middle <= (plain.high - middle) * t / z * leverage + 1e-9 or alone.high == 1.0


def test_answers_that_agree_within_groups_are_worth_less() -> None:
    """Groups whose questions fall together have wider intervals, of differences and of shares; never no width."""
    once = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    alike, group = np.repeat(once, 5), np.repeat(np.arange(12), 5)
    _, low, high = mean_interval(alike, group)
    assert (high - low) > 1.8 * np.ptp(mean_interval(alike)[1:])
    sure = mean_interval(np.ones(60), group)
    assert sure[0] == sure[2] == 1.0
    assert sure[1] < mean_interval(np.ones(60))[1]
    same = difference(np.ones(60), np.ones(60), group)
    assert same.low < 0 < same.high


def test_one_group_says_nothing() -> None:
    """There is nothing to compare a single group with: bounds are unknown."""
    found = difference(np.array([1.0, 0.0, 1.0]), np.zeros(3), np.zeros(3, dtype=np.int64))
    assert math.isnan(found.low)
    assert math.isnan(found.p_better)


def test_grades_near_the_end_are_transformed() -> None:
    """Hall's bounds lie further out on the side where a few grades pull; symmetric values have Student's t."""
    low = np.concatenate([np.full(45, 0.99), np.array([0.2, 0.4, 0.5, 0.6, 0.7])])
    mean, bottom, top = mean_interval(low)
    assert mean - bottom > 1.2 * (top - mean)
    even = np.concatenate([np.linspace(0.1, 0.9, 41)])
    found, students = skewed_interval(even), stats.t.interval(0.95, 40, even.mean(), even.std(ddof=1) / math.sqrt(41))
    assert found[1:] == pytest.approx(students, rel=1e-6)


def test_rows_needed() -> None:
    """Four times the questions for half the difference; unknown where nothing is known; a wanted one is above 0."""
    assert rows_needed(0.04, 1_000, 0.04) == 1_000
    assert rows_needed(0.04, 1_000, 0.02) == 4_000
    assert rows_needed(math.nan, 1_000, 0.02) is None
    with pytest.raises(BadInput, match="above 0"):
        rows_needed(0.04, 1_000, 0.0)


def test_rows_needed_find_what_they_promise() -> None:
    """In simulated studies with so many questions, the wanted difference is significant about 4 times in 5."""
    rng = np.random.default_rng(4)

    def study(n: int) -> tuple[np.ndarray, np.ndarray]:
        base = rng.random(n) < 0.7
        return np.where(rng.random(n) < 0.4, rng.random(n) < 0.825, base).astype(float), base.astype(float)

    n = rows_needed(difference(*study(2_000)).detectable, 2_000, 0.05)
    assert n is not None
    power = np.mean([difference(*study(n)).low > 0 for _ in range(400)])
    assert 0.72 < power < 0.88


def test_rows_of_one_key_are_one_question() -> None:
    """Answering each question five times tells little more than once: `n` counts questions, and intervals say so."""
    rng = np.random.default_rng(1)
    quality = (rng.random((60, 2)) < 0.7).astype(float)
    once = compare(table(quality=quality.tolist(), cost=[[1, 5]] * 60), ["r0"], baselines=False)
    five = table(
        quality=np.repeat(quality, 5, axis=0).tolist(),
        cost=[[1, 5]] * 300,
        keys=[f"q{i}" for i in range(60) for _ in range(5)],
    )
    again = compare(five, ["r0"], baselines=False)
    for name in ("r0", "r1"):
        a, b = once.row(name), again.row(name)
        assert (a.n, a.quality, a.quality_low, a.diff_low, a.verdict, a.errors) == (
            b.n, b.quality, b.quality_low, b.diff_low, b.verdict, b.errors,
        )  # fmt: skip
        assert a.p_better == b.p_better


def test_groups_widen_a_comparison() -> None:
    """The same outcomes, by documents whose questions fall together: a difference that isn't one any more."""
    rng = np.random.default_rng(2)
    documents = (rng.random((40, 2)) < [0.8, 0.55]).astype(float)
    quality = np.repeat(documents, 10, axis=0)
    plain = table(quality=quality.tolist(), cost=[[1, 5]] * 400)
    grouped = replace(plain, group=tuple(f"d{i // 10}" for i in range(400)))
    without, within = (compare(data, ["r0"], baselines=False) for data in (plain, grouped))
    assert not any("groups" in note for note in without.notes)
    assert any("400 questions in 40 groups: intervals are by group" in note for note in within.notes)
    loose, strict = without.row("r0"), within.row("r0")
    assert (loose.diff, loose.n) == (strict.diff, strict.n)
    assert (strict.diff_high or 0) - (strict.diff_low or 0) > 2.5 * ((loose.diff_high or 0) - (loose.diff_low or 0))


def test_too_few_questions_or_groups_have_no_verdict() -> None:
    """However large the difference: below 30 questions, or 10 groups, the word is "too few"."""

    def word(n: int, groups: int | None = None) -> str:
        data = table(quality=[[1, 0]] * n, cost=[[1, 5]] * n)
        if groups:
            data = replace(data, group=tuple(f"g{i % groups}" for i in range(n)))
        return compare(data, ["r0"], baselines=False).row("r0").verdict

    assert word(29) == statistics.NOT_ENOUGH
    assert word(30) == statistics.BETTER
    assert word(90, 9) == statistics.NOT_ENOUGH
    assert word(90, 10) == statistics.BETTER


def test_units() -> None:
    """Questions and groups in the order in which they appear; a question in two groups is refused."""
    data = replace(table(quality=[[1.0]] * 4, keys=["b", "a", "b", "c"]), group=("x", "y", "x", "x"))
    found = questions_of(data)
    assert found.of.tolist() == [0, 1, 0, 2]
    assert found.group is not None
    assert found.group.tolist() == [0, 1, 0]
    assert (found.n, found.clusters, found.repeated) == (3, 2, True)
    assert found.mean(np.array([1.0, 0.0, 0.0, 1.0])).tolist() == [0.5, 0.0, 1.0]
    with pytest.raises(BadInput, match="in two groups"):
        questions_of(replace(data, group=("x", "y", "z", "x")))
    with pytest.raises(BadInput, match="4 rows"):
        found.mean(np.zeros(3))
    assert Questions(np.arange(3)).mean(np.array([1.0, 2.0, 3.0])).tolist() == [1.0, 2.0, 3.0]
