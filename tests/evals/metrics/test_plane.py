"""Figures in the plane of quality and cost, RouterArena's, each against a case worked by hand and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.agents.policies import Constant, Threshold
from escalade.errors import BadInput
from escalade.evals.metrics.arena import arena_score, optimality
from escalade.evals.metrics.plane import (
    aiq,
    area,
    cost_save,
    delta_ibc,
    hull,
    ibc,
    pareto_distances,
    perf_gain,
    reached,
)
from escalade.evals.replay import replay
from tests.evals._tables import table

COST, QUALITY = [1.0, 2.0, 3.0, 5.0], [0.2, 0.5, 0.6, 0.4]

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=7)


def test_hull_by_hand() -> None:
    """The dear and worse point is no corner; beyond the best one the hull is level, before the first there is none."""
    x, y = hull(COST, QUALITY)
    assert (x.tolist(), y.tolist()) == ([1, 2, 3], [0.2, 0.5, 0.6])
    assert reached([1.5, 2.5, 9.0], COST, QUALITY) == pytest.approx([0.35, 0.55, 0.6])
    assert math.isnan(reached(0.5, COST, QUALITY))
    assert hull([1, 2, 3], [0.0, 0.1, 1.0])[0].tolist() == [1, 3]


@given(POINTS, st.floats(0, 10))
def test_the_hull_is_what_mixes_of_two_points_reach(points, at) -> None:
    """At any cost it is the best of all mixes of two points that cost no more."""
    x, y = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    best = math.nan
    for i in range(len(x)):
        for j in range(len(x)):
            if x[i] <= at:
                share = 1.0 if x[j] <= at else (at - x[i]) / (x[j] - x[i])
                best = np.nanmax([best, y[i] + share * (y[j] - y[i])])
    assert reached(at, x, y) == pytest.approx(best, nan_ok=True)


def test_areas_by_hand() -> None:
    """From 1 to 3: (.35 + .55) / 2; with level ground beyond; of a curve as it is, also where it falls."""
    assert aiq(COST, QUALITY, 1, 3) == pytest.approx(0.45)
    assert aiq(COST, QUALITY, 1, 5) == pytest.approx((0.9 + 2 * 0.6) / 4)
    assert area(COST, QUALITY, 3, 5) == pytest.approx(0.5)
    assert area(COST, QUALITY, 2.5, 3.5) == pytest.approx((0.575 + 0.575) / 2)
    assert area([1, 1, 2], [0.0, 0.4, 0.6], 1, 2) == pytest.approx(0.5)
    assert aiq(COST, QUALITY, 0.5, 3) is None
    assert aiq(COST, QUALITY, 3, 3) is None
    with pytest.raises(BadInput):
        area([2, 1], [0, 1], 1, 2)


def test_a_mix_has_the_mean_of_its_ends() -> None:
    """A straight line from weak to strong has the height of its middle."""
    assert aiq([1, 9], [0.4, 0.8], 1, 9) == pytest.approx(0.6)


def test_benefit_per_cost_by_hand() -> None:
    """20 points for $2 more, where the large model gives 30 for $6 more: twice its benefit per dollar."""
    assert ibc(0.8, 3.0, 0.6, 1.0) == pytest.approx(0.1)
    assert delta_ibc(0.8, 3.0, (0.6, 1.0), (0.9, 7.0)) == pytest.approx(1.0)
    assert delta_ibc(0.9, 7.0, (0.6, 1.0), (0.9, 7.0)) == pytest.approx(0.0)
    assert delta_ibc(0.8, 1.0, (0.6, 1.0), (0.9, 7.0)) is None
    assert delta_ibc(0.8, 3.0, (0.6, 1.0), (0.6, 7.0)) is None


def test_against_the_best_single_by_hand() -> None:
    """5 % better at half the cost; what is worse saves nothing that counts."""
    assert perf_gain(0.84, 0.8) == pytest.approx(0.05)
    assert perf_gain(0.84, 0.0) is None
    assert cost_save(0.8, 2.0, 0.8, 4.0) == 0.5
    assert cost_save(0.9, 6.0, 0.8, 4.0) == -0.5
    assert cost_save(0.79, 1.0, 0.8, 4.0) is None


def test_distances_by_hand() -> None:
    """Costs span 4 and qualities .4: the last point is 2 and .2 from the nearest corner, which is half of either."""
    assert pareto_distances(COST, QUALITY) == pytest.approx([0, 0, 0, math.hypot(0.5, 0.5)])
    assert np.isnan(pareto_distances([math.nan], [0.5])).all()
    assert pareto_distances([1, math.nan, 1], [0.5, 0.9, 0.5])[[0, 2]].tolist() == [0, 0]


def test_arena_score_by_hand() -> None:
    """At the middle of the logarithmic scale C is one half; at its ends, and beyond, 0 and 1."""
    middle = math.sqrt(0.0044 * 200)
    assert arena_score(0.8, middle) == pytest.approx(1.1 * 0.8 * 0.5 / (0.08 + 0.5))
    assert arena_score(0.8, 200) == arena_score(0.8, 999) == 0
    assert arena_score(0.8, 0.0044) == arena_score(0.8, 0) == pytest.approx(1.1 * 0.8 / 1.08)
    assert arena_score(0.0, 200) == 0
    assert arena_score(1.0, 0.0044) == pytest.approx(1)
    with pytest.raises(BadInput):
        arena_score(1.2, 1)


def test_optimality_by_hand() -> None:
    """Five questions, one of them hopeless: a threshold picks the optimal rung on two of four, and pays more."""
    found = table(
        quality=[[1, 1], [0, 1], [1, 1], [0, 1], [0, 0]],
        confidence=[[0.9, 0.9], [0.1, 0.9], [0.1, 0.9], [0.9, 0.9], [0.1, 0.9]],
        cost=[[1, 10]] * 5,
    )
    one = optimality(found, replay(Threshold(0.5, (0, 1)), found))
    # right on questions 1, 2, 3, where 1 + 10 + 1 would have been enough and 1 + 11 + 11 were paid
    assert (one.n, one.selected, one.accuracy) == (4, 2 / 4, 3 / 4)
    assert one.cost == pytest.approx(12 / 23)
    strong = optimality(found, replay(Constant(1), found))
    assert (strong.selected, strong.cost, strong.accuracy) == (2 / 4, 22 / 40, 1.0)


def test_optimality_of_what_is_unknown() -> None:
    """Without costs only the accuracy is known; where nothing is ever right, nothing is."""
    found = table(quality=[[1, 1], [0, 1]], cost=-1)
    one = optimality(found, replay(Constant(0), found))
    assert (one.n, one.selected, one.cost, one.accuracy) == (2, None, None, 0.5)
    never = table(quality=[[0, 0.5]], cost=[[1, 2]])
    assert optimality(never, replay(Constant(1), never)).accuracy is None
