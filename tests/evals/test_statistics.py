"""Statistics: against scipy where it has them, against their definitions where it hasn't."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import optimize, stats

from escalade.errors import BadInput
from escalade.evals.statistics import (
    AS_GOOD,
    better_p,
    detectable,
    holm,
    judged,
    mcnemar_exact,
    mean_interval,
    normal_quantile,
    paired_difference,
    score_floor,
    t_quantile,
    verdict,
    wilson,
)

BINARY_PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
GRADED_PAIRS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30)


def columns(pairs: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.array(pairs, dtype=np.float64).T
    return a, b


@given(st.floats(1e-6, 1 - 1e-6), st.one_of(st.integers(1, 2000), st.floats(0.5, 50)))
def test_t_quantile_is_scipys(p: float, df: float) -> None:
    """To 9 digits, deep into the tails."""
    assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-9, abs=1e-12)


@given(st.floats(1e-9, 1 - 1e-9))
def test_normal_quantile_is_scipys(p: float) -> None:
    """To 9 digits."""
    assert normal_quantile(p) == pytest.approx(stats.norm.ppf(p), rel=1e-9, abs=1e-9)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys_and_contains_the_proportion(case: tuple[int, int]) -> None:
    """Wilson's score interval, with exact ends at none and all."""
    k, n = case
    low, high = wilson(k, n)
    theirs = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0.0 <= low <= k / n <= high <= 1.0


def test_nothing_observed_says_nothing() -> None:
    """No trials: anything is possible."""
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30))
def test_mean_interval_of_numbers_is_students(values: list[float]) -> None:
    """For values that aren't all 0 or 1 it is scipy's t interval."""
    assume(not all(v in {0.0, 1.0} for v in values) and len(set(values)) > 1)
    mean, low, high = mean_interval(values)
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    assert (low + high) / 2 == pytest.approx(mean, abs=1e-9)
    assert high - mean == pytest.approx(stats.t.ppf(0.975, len(values) - 1) * spread, rel=1e-6, abs=1e-9)


def test_mean_interval_of_verdicts_is_wilsons() -> None:
    """0/1 values are a proportion; a single number outside of that has no interval."""
    assert mean_interval([1, 0, 1, 1]) == (0.75, *wilson(3, 4))
    mean, low, high = mean_interval([1.3])
    assert mean == 1.3
    assert math.isnan(low)
    assert math.isnan(high)


@given(st.floats(0.01, 0.99), st.integers(1, 2000))
def test_mean_interval_without_spread(value: float, n: int) -> None:
    """Equal grades are no certainty: the interval has a width, which shrinks with their number, and stays in 0..1."""
    mean, low, high = mean_interval([value] * n)
    assert mean == pytest.approx(value)
    assert 0 <= low <= mean <= high <= 1
    assert 0.9 / (n + 4) < high - low < 5 / math.sqrt(n + 4)


def test_paired_difference_is_agresti_and_mins() -> None:
    """Their formula on a 2 x 2 table: 0.5 added to each cell, then Wald's interval."""
    n11, n10, n01, n00 = 30, 12, 4, 14  # a and b right, only a, only b, none
    a = np.repeat([1, 1, 0, 0], [n11, n10, n01, n00])
    b = np.repeat([1, 0, 1, 0], [n11, n10, n01, n00])
    n, p10, p01 = 62.0, 12.5 / 62, 4.5 / 62
    half = 1.959963984540054 * math.sqrt((p10 + p01 - (p10 - p01) ** 2) / n)
    assert paired_difference(a, b) == pytest.approx((8 / 60, p10 - p01 - half, p10 - p01 + half))


def test_equal_columns_are_not_certainly_equal() -> None:
    """Without a discordant pair the interval is about +-1.96/(n + 2), not a point: for graded values too."""
    for values in ([1.0] * 20, [0.5] * 20):
        diff, low, high = paired_difference(values, values)
        assert diff == 0.0
        assert -low == high == pytest.approx(1.96 / 22, rel=0.01)


@given(st.one_of(BINARY_PAIRS, GRADED_PAIRS))
def test_paired_difference_is_symmetric_and_contains_its_estimate(pairs: list) -> None:
    """Swapping the columns flips the interval; the plain difference lies in it."""
    a, b = columns(pairs)
    diff, low, high = paired_difference(a, b)
    assert low <= diff <= high
    assert diff == pytest.approx(float(np.mean(a) - np.mean(b)), abs=1e-12)
    assert paired_difference(b, a) == pytest.approx((-diff, -high, -low), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "only_a", "only_b", "at_least"),
    [
        (20, 0.1, 0.1, 0.97),
        (50, 0.05, 0.02, 0.96),
        (50, 0.2, 0.05, 0.94),
        (300, 0.02, 0.005, 0.94),
        (300, 0.02, 0, 0.93),
    ],
)
def test_paired_difference_keeps_its_level(n: int, only_a: float, only_b: float, at_least: float) -> None:
    """In 4,000 samples each, the 95 % interval holds the true difference, but for a point or two in the worst corner.

    That corner is a cell that is truly empty with a handful in the other one: exactly 0.937 there.
    """
    rng = np.random.default_rng(1)
    wins, losses, _ = rng.multinomial(n, [only_a, only_b, 1 - only_a - only_b], size=4000).T
    held = 0
    for won, lost in zip(wins, losses, strict=True):
        a, b = np.zeros(n), np.zeros(n)
        a[:won], b[won : won + lost] = 1, 1
        _, low, high = paired_difference(a, b)
        held += low <= only_a - only_b <= high
    assert held / 4000 >= at_least


def test_t_interval_keeps_its_level() -> None:
    """On small graded samples the interval of the difference holds the true one about 95 times of 100."""
    rng = np.random.default_rng(2)
    a, b = rng.beta(2, 2, (2, 1000, 12))
    held = [low <= 0 <= high for _, low, high in map(paired_difference, a, b)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.025)


@given(BINARY_PAIRS)
def test_mcnemar_is_the_binomial_test(pairs: list) -> None:
    """Exact two-sided binomial test on the discordant pairs; 1 without any."""
    a, b = columns(pairs)
    wins, losses = int((a > b).sum()), int((a < b).sum())
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_at_thousands_of_pairs() -> None:
    """No overflow where 2**n has no float."""
    a = np.repeat([1.0, 0.0], [2600, 2400])
    assert mcnemar_exact(a, 1 - a) == pytest.approx(stats.binomtest(2400, 5000).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.05, "better"),
        (0.0, 0.05, "as good"),
        (-0.02, 0.01, "as good"),
        (-0.02, -0.01, "as good"),
        (-0.03, -0.01, "worse"),
        (-0.03, 0.01, "can't tell"),
        (-0.03, 0.0, "can't tell"),
        (math.nan, math.nan, "can't tell"),
    ],
)
def test_verdicts(low: float, high: float, word: str) -> None:
    """One word per position of the interval, with a margin of two points."""
    assert verdict(low, high, 0.02) == word


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 0.2))
def test_verdicts_are_symmetric(x: float, y: float, margin: float) -> None:
    """If one is better, the other one is worse (or as good, within the margin); both are never better."""
    low, high = min(x, y), max(x, y)
    mine, theirs = verdict(low, high, margin), verdict(-high, -low, margin)
    if mine == "better":
        assert theirs in {"worse", "as good"}
        assert verdict(-high, -low, 0.0) == "worse"
    if mine == "worse":
        assert theirs == "better"


@given(BINARY_PAIRS, st.sampled_from([0.8, 0.95, 0.99]))
def test_better_p_is_the_interval_turned_round(pairs: list, level: float) -> None:
    """The one-sided p value is below (1 - level) / 2 just where the interval lies above 0."""
    a, b = columns(pairs)
    _, low, _ = paired_difference(a, b, level)
    assume(abs(low) > 1e-9)
    assert (better_p(a, b) < (1 - level) / 2) == (low > 0)


@given(GRADED_PAIRS)
def test_better_p_of_grades_is_scipys(pairs: list) -> None:
    """For values between 0 and 1 it is the one-sided paired t test."""
    a, b = columns(pairs)
    assume(not np.isin(np.append(a, b), (0, 1)).all() and np.std(a - b) > 1e-6)
    assert better_p(a, b) == pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue, rel=1e-6, abs=1e-12)


def test_better_p_without_spread() -> None:
    """Equal differences of graded values: what always wins is better; a single pair tells nothing."""
    assert better_p([2.0, 2.0], [1.0, 1.0]) == 0.0
    assert better_p([1.0, 1.0], [2.0, 2.0]) == 1.0
    assert better_p([2.0, 2.0], [2.0, 2.0]) == 0.5
    assert math.isnan(better_p([3.0], [1.0]))


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=12), st.floats(0.001, 0.5))
def test_holm_is_its_definition(p: list[float], alpha: float) -> None:
    """Step down: the smallest is rejected at alpha / m, the next at alpha / (m - 1), until the first that isn't."""
    known = sorted((one, i) for i, one in enumerate(p) if not math.isnan(one))
    rejected = set()
    for rank, (one, i) in enumerate(known):
        if one * (len(known) - rank) > alpha:
            break
        rejected.add(i)
    adjusted = holm(p)
    assert {i for i, one in enumerate(adjusted) if one <= alpha} == rejected
    assert [math.isnan(one) for one in adjusted] == [math.isnan(one) for one in p]


def test_holm_by_hand() -> None:
    """Holm's own example of ascending factors, with the running maximum and the cap at 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_keeps_the_family_wise_level() -> None:
    """Of 20 policies that are no better than the baseline, one or more seem so in at most 2.5 % of the samples."""
    rng = np.random.default_rng(11)
    lucky = plain = 0
    for _ in range(400):
        base = rng.random(300) < 0.7
        p = [better_p((rng.random(300) < 0.7).astype(float), base.astype(float)) for _ in range(20)]
        plain += min(p) <= 0.025
        lucky += min(holm(p)) <= 0.025
    assert lucky / 400 <= 0.05
    assert plain / 400 > 0.15


def test_detectable_is_what_is_detected() -> None:
    """A true difference of that size is found significant in about 80 % of simulated samples."""
    rng = np.random.default_rng(3)
    n, base = 400, 0.1
    pilot_a, pilot_b = np.repeat([1, 0], [40, 360]), np.repeat([0, 1, 0], [40, 40, 320])
    delta = detectable(pilot_a, pilot_b)
    wins = base + delta / 2
    losses = base - delta / 2
    found = 0
    for _ in range(1000):
        d = rng.choice(3, p=[1 - wins - losses, wins, losses], size=n)
        found += paired_difference(d == 1, d == 2)[1] > 0
    assert found / 1000 == pytest.approx(0.8, abs=0.05)


def test_detectable_shrinks_with_the_sample() -> None:
    """Four times the pairs, about half the difference; graded values too; one graded pair can detect nothing."""
    a, b = np.array([1, 0, 0, 1, 1, 0, 1, 1] * 20), np.array([1, 1, 0, 0, 1, 0, 1, 0] * 20)
    for x, y in ((a, b), (a * 0.5, b * 0.3)):
        assert detectable(np.tile(x, 4), np.tile(y, 4)) == pytest.approx(detectable(x, y) / 2, rel=0.03)
    assert math.isnan(detectable([3.0], [1.0]))


@pytest.mark.parametrize(
    "broken",
    [
        lambda: wilson(3, 2),
        lambda: t_quantile(0.975, 0),
        lambda: normal_quantile(1.0),
        lambda: mean_interval([]),
        lambda: mean_interval([1.0, math.nan]),
        lambda: paired_difference([1, 0], [1]),
        lambda: holm([1.5]),
        lambda: mcnemar_exact([0.5], [1]),
        lambda: verdict(0, 1, -0.1),
    ],
)
def test_bad_input_is_refused(broken) -> None:
    """Impossible counts, levels and columns raise BadInput."""
    with pytest.raises(BadInput):
        broken()


def test_so_few_questions_allow_no_verdict() -> None:
    """29 questions, or 9 groups, are too few for any verdict; one more of either isn't."""
    assert judged(0.1, 0.2, 0.02, 29, 29) == judged(0.1, 0.2, 0.02, 99, 9) == "too few"
    assert judged(0.1, 0.2, 0.02, 30, 10) == "better"


def test_a_loss_is_ruled_out_by_the_score_bound() -> None:
    """It is Wilson's where pairs differ in one direction only; where in both, the score of the multinomial with its
    nuisance parameter searched for is the quantile there.
    """
    z2 = normal_quantile(0.975) ** 2
    assert score_floor(np.ones(120), np.ones(120)) == pytest.approx(-z2 / (120 + z2))
    assert score_floor(np.append(0.0, np.ones(119)), np.ones(120)) == pytest.approx(-wilson(1, 120)[1])
    assert score_floor([0.5, 1.0], [1.0, 0.5]) == math.inf
    n, wins, losses = 60, 4, 9
    a, b = np.repeat([1.0, 0.0, 1.0], [wins, losses, n - wins - losses]), np.repeat([0.0, 1.0], [wins, n - wins])
    delta = score_floor(a, b)

    def unlikely(share: float) -> float:
        cells = share + delta, share, 1.0 - 2.0 * share - delta
        return -sum(
            count * math.log(cell) for count, cell in zip((wins, losses, n - wins - losses), cells, strict=True)
        )

    found = optimize.minimize_scalar(unlikely, bounds=(-delta + 1e-9, (1.0 - delta) / 2.0 - 1e-9), method="bounded")
    spread = math.sqrt(n * (2.0 * found.x + delta - delta**2))
    assert (wins - losses - n * delta) / spread == pytest.approx(normal_quantile(0.975), abs=1e-4)


@pytest.mark.parametrize("n", [100, 120, 150, 200, 300, 500])
def test_a_true_loss_of_the_margin_is_seldom_as_good(n: int) -> None:
    """All that differ are lost, two points in truth: at most 3 % are told to be as good, by the binomial itself."""
    wrong = 0.0
    for losses in range(n // 10):
        a = np.append(np.zeros(losses), np.ones(n - losses))
        low, high = paired_difference(a, np.ones(n))[1:]
        word = verdict(low, high, 0.02, floor=score_floor(a, np.ones(n)))
        wrong += (word == AS_GOOD) * math.comb(n, losses) * 0.02**losses * 0.98 ** (n - losses)
    assert wrong <= 0.03
