"""What a confidence is worth: against hand-worked cases, brute force and scipy."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from escalade.errors import BadInput
from escalade.evals.loaders import load_outcomes
from escalade.evals.metrics.confidence import aurc, auroc, brier, confidence_of, ece, reliability
from escalade.evals.statistics import wilson
from tests.evals._tables import table

SURE, RIGHT = [0.9, 0.8, 0.8, 0.3], [1.0, 1.0, 0.0, 0.0]

ANSWERS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.55, 0.9, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=7
)


def test_by_hand() -> None:
    """Four answers: of four pairs three are in order and one is tied; 0.1^2 + 0.2^2 + 0.8^2 + 0.3^2 over 4."""
    assert auroc(SURE, RIGHT) == (3 + 0.5) / 4
    assert brier(SURE, RIGHT).score == pytest.approx((0.01 + 0.04 + 0.64 + 0.09) / 4)
    # bins of a tenth: .9 is .1 off, the two .8 together .3 off (1.6 - 1), .3 is .3 off
    assert ece(SURE, RIGHT) == pytest.approx((0.1 + 0.6 + 0.3) / 4)
    # after 1, 2, 3 and 4 answers: 0, then half a wrong one of 2, then 1 of 3, then 2 of 4
    area, excess = aurc(SURE, RIGHT)
    assert area == pytest.approx((0 + 0.25 + 1 / 3 + 0.5) / 4)
    assert excess == pytest.approx(area - (0 + 0 + 1 / 3 + 0.5) / 4)


def test_murphys_parts_by_hand() -> None:
    """Two values: .8 is right in 1 of 2, .2 in 0 of 2: reliability .065, resolution .0625, uncertainty .1875."""
    parts = brier([0.8, 0.8, 0.2, 0.2], [1, 0, 0, 0])
    assert parts.reliability == pytest.approx((0.3**2 + 0.2**2) / 2)
    assert parts.resolution == pytest.approx(0.0625)
    assert parts.uncertainty == pytest.approx(0.1875)
    assert parts.score == pytest.approx(parts.reliability - parts.resolution + parts.uncertainty)


@given(ANSWERS)
def test_against_brute_force(answers) -> None:
    """All pairs, and all orders of equal confidences, give the same; Murphy's parts add up."""
    sure, right = (np.array(column) for column in zip(*answers, strict=True))
    pairs = [(a > b) + (a == b) / 2 for a in sure[right == 1] for b in sure[right == 0]]
    assert auroc(sure, right) == pytest.approx(np.mean(pairs)) if pairs else math.isnan(auroc(sure, right))
    orders = [o for o in itertools.permutations(range(len(sure))) if all(np.diff(sure[list(o)]) <= 0)]
    areas = [np.mean([np.mean(1 - right[list(o)][: i + 1]) for i in range(len(sure))]) for o in orders]
    assert aurc(sure, right)[0] == pytest.approx(np.mean(areas))
    assert aurc(sure, right)[1] >= -1e-12
    parts = brier(sure, right)
    assert parts.score == pytest.approx(parts.reliability - parts.resolution + parts.uncertainty)
    assert parts.score >= parts.uncertainty - parts.resolution - 1e-12


def test_against_scipy() -> None:
    """The area is Mann and Whitney's U over all pairs, with many ties."""
    rng = np.random.default_rng(0)
    sure, right = rng.integers(0, 11, 500) / 10, rng.integers(0, 2, 500).astype(float)
    u = mannwhitneyu(sure[right == 1], sure[right == 0]).statistic
    assert auroc(sure, right) == pytest.approx(u / ((right == 1).sum() * (right == 0).sum()))


def test_graded_quality_is_a_share_of_a_right_answer() -> None:
    """A quality of .5 counts as half a right and half a wrong answer with that confidence."""
    assert auroc([0.9, 0.4], [0.5, 0.0]) == auroc([0.9, 0.9, 0.4, 0.4], [1, 0, 0, 0])
    assert brier([0.5, 0.5], [0.5, 0.5]).score == 0


def test_a_calibrated_confidence() -> None:
    """Where the confidence is the chance of being right, calibration errors are of the size of chance, no more."""
    rng = np.random.default_rng(1)
    sure = rng.random(20_000)
    right = (rng.random(20_000) < sure).astype(float)
    assert ece(sure, right) < 0.02
    assert ece(sure, right, binning="mass") < 0.02
    assert ece(sure**3, right) > 0.15
    assert all(b.quality_low - 0.01 <= b.confidence <= b.quality_high + 0.01 for b in reliability(sure, right))


def test_bins() -> None:
    """Bins of equal width cut at tenths, 1 being in the last; of equal mass, equal confidences stay together."""
    sure = [0.05, 0.95, 1.0, 1.0]
    assert [b.n for b in reliability(sure, [0, 1, 1, 0], binning="width")] == [1, 3]
    assert [b.n for b in reliability([0.5] * 9 + [0.9], [1] * 10)] == [9, 1]
    assert [b.n for b in reliability(np.arange(100) / 100, [1] * 100)] == [10] * 10
    (one,) = reliability([0.7] * 4, [1, 1, 1, 0])
    assert (one.quality_low, one.quality_high) == wilson(3, 4)
    assert ece([0.7] * 4, [1, 1, 1, 0], bins=1) == pytest.approx(0.05)


def test_bins_do_not_depend_on_the_order() -> None:
    """Shuffled answers give the same errors."""
    rng = np.random.default_rng(2)
    sure, right = rng.integers(0, 21, 300) / 20, rng.integers(0, 2, 300).astype(float)
    at = rng.permutation(300)
    for binning in ("width", "mass"):
        assert ece(sure[at], right[at], binning=binning) == pytest.approx(ece(sure, right, binning=binning))


def test_of_a_rung() -> None:
    """Failed attempts, and those without a confidence, are counted apart; a rung without any has no figures."""
    found = table(
        quality=[[1, 1], [1, 1], [0, 1], [0, 1], [1, 1], [0, 0]],
        confidence=[[0.9, np.nan], [0.8, np.nan], [0.8, np.nan], [0.3, np.nan], [np.nan, np.nan], [0.9, np.nan]],
        status=[[0, 0]] * 5 + [[3, 0]],
    )
    one = confidence_of(found, 0)
    assert one is not None
    assert (one.rung, one.n, one.without, one.auroc) == ("r0", 4, 2, auroc(SURE, RIGHT))
    assert one.excess_aurc == aurc(SURE, RIGHT)[1]
    assert confidence_of(found, 1) is None


def test_the_ladder_that_ships() -> None:
    """The small model's stated confidence ranks its answers somewhat and is far too high."""
    found = load_outcomes(limit=400)
    one = confidence_of(found, 3)
    assert one is not None
    assert 0.5 < one.auroc < 0.8
    assert one.mean > one.quality + 0.15
    assert one.ece == pytest.approx(one.mean - one.quality, abs=0.05)


@pytest.mark.parametrize(("sure", "right"), [([], []), ([0.5], [0.5, 1]), ([1.5], [1]), ([np.nan], [1]), ([1], [2])])
def test_bad_columns(sure, right) -> None:
    """Columns that don't match, or that aren't shares, are refused."""
    with pytest.raises(BadInput):
        auroc(sure, right)
    with pytest.raises(BadInput):
        ece([0.5], [1], bins=0)


def test_only_good_attempts(monkeypatch) -> None:
    """Another status of all attempts leaves nothing to judge."""
    found = load_outcomes(limit=40)
    assert confidence_of(replace(found, status=np.full_like(found.status, 3)), 3) is None


def test_an_interval_of_a_bin_stays_between_none_and_all():
    """Two grades in a bin leave Student's t far above 1."""
    found = reliability([0.1, 0.2, 0.8, 0.9], [0.2, 0.4, 0.3, 0.9], bins=2)
    assert all(0.0 <= one.quality_low <= one.quality <= one.quality_high <= 1.0 for one in found)
