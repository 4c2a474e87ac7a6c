"""Bootstrap intervals: against scipy, by group, and the figures of comparisons on resamples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.coverage import CASES, HOLDS, tally
from escalade.agents.policies import Constant
from escalade.errors import BadInput
from escalade.evals.compare import compare
from escalade.evals.curves import Sweep, apgr, cpt, frontier
from escalade.evals.findings import findings
from escalade.evals.inference.bootstrap import bootstrap, bootstrap_many, resamples
from escalade.evals.inference.intervals import intervals
from escalade.evals.inference.resampled import Swept, on_frontier
from escalade.evals.loaders import load_outcomes


def mean_of(x: np.ndarray):
    """A weighted mean as a statistic."""
    return lambda weights: weights @ x / weights.sum(axis=1)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_it_is_scipys(method: str) -> None:
    """Bounds of a skewed mean, up to the noise of two samples of resamples and the widening for small samples."""
    x = np.random.default_rng(3).gamma(1.0, 1.0, 200)
    ours = bootstrap(mean_of(x), 200, reps=8_000, method=method)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=8_000, method=method, rng=1).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(x.mean())
    assert abs(ours.low - theirs.low) < 0.05 * width
    assert abs(ours.high - theirs.high) < 0.05 * width
    assert x.mean() in ours


def test_the_same_seed_gives_the_same() -> None:
    """Resamples hang on the seed alone, not on the blocks in which they are drawn."""
    one, again, other = (np.concatenate(list(resamples(50, 10, seed))) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    assert (one.sum(axis=1) == 50).all()


def test_groups_are_drawn_whole() -> None:
    """All questions of a group have one count, and as many groups are drawn as there are."""
    group = np.array([0, 0, 0, 1, 2, 2])
    counts = np.concatenate(list(resamples(6, 50, 0, group)))
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 4] == counts[:, 5]).all()
    assert (counts[:, [0, 3, 4]].sum(axis=1) == 3).all()
    x = np.repeat(np.arange(20.0), 5)
    alone, grouped = bootstrap(mean_of(x), 100), bootstrap(mean_of(x), 100, group=np.repeat(np.arange(20), 5))
    assert grouped.high - grouped.low > 1.8 * (alone.high - alone.low)


def test_what_is_unknown_stays_unknown() -> None:
    """A figure that most resamples lack has no bounds; one question alone has none either."""
    nothing = bootstrap(lambda w: np.where(w[:, 0] > 0, 1.0, np.nan), 10)
    assert math.isnan(nothing.low)
    assert math.isnan(bootstrap(mean_of(np.ones(1)), 1).low)
    two = bootstrap_many(lambda w: np.column_stack([w @ np.ones(9), np.full(len(w), np.nan)]), 9)
    assert (two[0].low, two[0].high) == (9.0, 9.0)
    assert math.isnan(two[1].high)


@pytest.mark.parametrize(
    "broken",
    [
        lambda: bootstrap(mean_of(np.ones(3)), 0),
        lambda: bootstrap(mean_of(np.ones(3)), 3, reps=1),
        lambda: bootstrap(mean_of(np.ones(3)), 3, group=[1, 2]),
        lambda: bootstrap(mean_of(np.ones(3)), 3, level=1.0),
        lambda: bootstrap_many(lambda w: np.ones(3), 3),
    ],
)
def test_bad_input_is_refused(broken) -> None:
    """Nothing to draw from, no level, groups of another length, a statistic of another shape."""
    with pytest.raises(BadInput):
        broken()


QUALITIES = st.sampled_from([0.0, 0.25, 1.0])
SWEEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, math.nan]) | st.floats(0, 1), QUALITIES, QUALITIES, st.integers(0, 3)),
    min_size=2,
    max_size=90,
)


@given(SWEEPS)
@settings(max_examples=150)
def test_curves_on_weights_are_curves_of_repeated_questions(rows: list[tuple[float, float, float, int]]) -> None:
    """APGR and CPT of a row of counts, in columns, are those of the table in which each question occurs so often."""
    assume(any(row[3] for row in rows))
    score, weak, strong = (np.array([row[i] for row in rows]) for i in range(3))
    weights = np.array([[row[3] for row in rows], [1] * len(rows)], dtype=float)
    found = Swept.of(Sweep(score, weak, strong)).figures(weights)
    for row, count in zip(found, weights.astype(int), strict=True):
        columns = [np.repeat(column, count) for column in (score, weak, strong)]
        for at, expected in enumerate((apgr(*columns), cpt(*columns, 0.5), cpt(*columns, 0.8))):
            gap = columns[2].mean() - columns[1].mean()
            if expected is None or gap < 1e-9:
                assert gap < 1e-9 or math.isnan(row[at])
            else:
                assert row[at] == pytest.approx(expected, abs=1e-7)


AMOUNTS = st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan])


@given(st.lists(st.tuples(AMOUNTS, QUALITIES), min_size=1, max_size=8))
def test_frontiers_in_columns_are_the_frontier(points: list[tuple[float, float]]) -> None:
    """With ties, unknown costs and equal points, of which the first is kept."""
    cost, quality = (np.array([point[i] for point in points]) for i in (0, 1))
    assert on_frontier(cost[None], quality[None])[0].tolist() == frontier(cost, quality).tolist()


@pytest.fixture(scope="module")
def ladder():
    """The default comparison of the ladder that ships."""
    return compare()


def test_intervals_of_a_comparison(ladder) -> None:
    """They are of the very rows, the truth on these questions lies in each, and membership says what the row says."""
    for one in intervals(ladder.evidence, reps=200):
        row = ladder.row(one.name)
        assert (one.n, one.quality, one.quality_low) == (row.n, row.quality, row.quality_low)
        assert one.p_holm == row.p_better
        assert one.cost_ratio == pytest.approx(row.cost_ratio)
        assert (one.apgr is None) == (row.apgr is None)
        if one.apgr is not None and one.apgr_low is not None:
            assert one.apgr == pytest.approx(row.apgr)
            assert one.cpt80 == pytest.approx(row.cpt80)
            assert one.apgr_low <= one.apgr <= one.apgr_high
        if row.verdict not in {"baseline", "hindsight"}:
            assert (one.diff, one.diff_low, one.detectable) == (row.diff, row.diff_low, row.detectable)
            assert (one.frontier or 0) > 0.3 or not row.frontier


def test_the_table_and_its_sentence(ladder) -> None:
    """The table has a line for each policy; a winner needs no sentence, too few questions to name one do."""
    found = findings(ladder, only=["inference"])
    assert [row["name"] for row in found.table("intervals").rows] == [e.name for e in ladder.evidence.entries]
    assert all(column.about for column in found.table("intervals").columns)
    assert not found.sentences
    few = findings(compare(load_outcomes(limit=60), ["threshold-0.99", "agreement-2"]), only=["inference"])
    assert "Not enough questions to name a winner: 60 of them find a difference of" in " ".join(few.sentences)
    same = compare(load_outcomes(limit=60), [Constant("gpt-4-1106", name="same"), "threshold-0.99"], baselines=False)
    told = " ".join(findings(same, only=["inference"]).sentences)
    assert "same" not in told, "no number of questions tells the baseline from itself"
    fewer = findings(compare(load_outcomes(limit=20), ["threshold-0.99"]), only=["inference"])
    assert "Not enough questions: 20 are compared" in " ".join(fewer.sentences)


@pytest.mark.parametrize(
    "name", ["0/1, n = 50, no difference", "3 epochs, n = 50, no difference", "groups of 5, n = 50, no difference"]
)
def test_intervals_hold_the_truth(name: str) -> None:
    """In simulated studies about as often as they say, and nothing is found where there is nothing to find.

    `python -m benchmarks coverage` does it 1,000 times for each of 22 kinds of studies.
    """
    studies = 120
    seen = tally(next(case for case in CASES if case.name == name), studies)
    for figure in ("quality", "difference"):
        assert seen.held[figure] >= (HOLDS[0] - 0.05) * studies
    assert seen.better <= 0.08 * studies
