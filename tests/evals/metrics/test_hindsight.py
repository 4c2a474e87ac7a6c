"""The oracle at equal budget: a bound that is exact, and that no policy of the same cost passes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from escalade.errors import BadInput, UnknownPrice
from escalade.evals.loaders import load_outcomes
from escalade.evals.metrics.hindsight import best_within
from escalade.evals.outcomes import STATUSES, Outcomes
from escalade.evals.replay import oracle, replay
from tests.evals._tables import outcomes, policies, table


def graded(found: Outcomes) -> np.ndarray:
    return np.where(found.status == STATUSES.index("ok"), np.nan_to_num(found.quality), 0.0)


def test_two_rungs_by_hand() -> None:
    """Gains of 1 for 2, 5 and 10 more: $16 buys the first two whole; with one more, a tenth of the last."""
    found = table(quality=[[0, 1], [0, 1], [0, 1], [1, 1]], cost=[[1, 3], [1, 6], [1, 11], [1, 5]])
    best = best_within(found, 10)
    assert best.quality.tolist() == pytest.approx([1, 1, 0, 1])
    assert best.cost.sum() == pytest.approx(10)
    assert best.chosen.tolist()[:2] == [1, 1]
    assert best_within(found, 15.5).quality.sum() == pytest.approx(3.5)
    assert best_within(found, 1000).quality.sum() == 4
    assert best_within(found, 1000).cost.sum() == 3 + 6 + 11 + 1
    assert best_within(found, 0).quality.sum() == 0


def test_free_rungs_are_taken() -> None:
    """What costs nothing is had on any budget; a dear wrong answer never is."""
    found = table(quality=[[0.5, 1], [0, 0]], cost=[[0, 4], [3, 9]])
    assert best_within(found, 0).quality.tolist() == [0.5, 0]
    assert best_within(found, 2).quality.tolist() == pytest.approx([0.75, 0])
    assert best_within(found, 99).cost.tolist() == [4, 0]


@settings(max_examples=60)
@given(outcomes(priced=True), st.integers(0, 80))
def test_it_is_the_linear_program(found, budget) -> None:
    """Scipy's solver of the relaxed knapsack finds the same quality, and no whole choice is better."""
    assume(found.n)
    n, k, quality = found.n, found.k, graded(found)
    each = np.kron(np.eye(n), np.ones(k))
    rows = np.vstack([each, found.cost.ravel()])
    solved = linprog(-quality.ravel(), A_ub=rows, b_ub=[1.0] * n + [budget])
    best = best_within(found, budget)
    assert best.quality.sum() == pytest.approx(-solved.fun, abs=1e-9)
    assert best.cost.sum() <= budget + 1e-9
    if (k + 1) ** n <= 700:
        whole = [
            sum(quality[i, r] for i, r in enumerate(picked) if r < k)
            for picked in itertools.product(range(k + 1), repeat=n)
            if sum(found.cost[i, r] for i, r in enumerate(picked) if r < k) <= budget
        ]
        assert max(whole) <= best.quality.sum() + 1e-9 < max(whole) + 1 + 1e-6


@settings(max_examples=150)
@given(st.data())
def test_no_policy_passes_it(data) -> None:
    """Whatever a policy of any kind, budgeted or not, comes to, the oracle at its cost has at least that quality."""
    found = data.draw(outcomes(priced=True))
    assume(found.n)
    one = replay(data.draw(policies(found.k)), found)
    bound = best_within(found, float(one.cost.sum()))
    assert one.quality.sum() <= bound.quality.sum() + 1e-9


def test_with_money_enough_it_is_the_oracle() -> None:
    """At the oracle's own cost it has the oracle's quality on the data that ships, and for less: it pays for no wrong
    answers.
    """
    found = load_outcomes(limit=300)
    free = oracle(found)
    bound = best_within(found, float(free.cost.sum()))
    assert bound.quality.sum() == pytest.approx(free.quality.sum())
    assert bound.cost.sum() <= free.cost.sum()


def test_more_money_is_never_worse() -> None:
    """Quality rises with the budget, by less and less."""
    found = load_outcomes(limit=200)
    most = float(found.cost[:, -1].sum())
    heights = [best_within(found, share * most).quality.sum() for share in np.linspace(0, 1, 9)]
    assert (np.diff(heights) >= -1e-9).all()
    assert (np.diff(heights, 2) <= 1e-9).all()


def test_refusals() -> None:
    """A negative budget and unknown costs are refused."""
    with pytest.raises(BadInput, match="negative"):
        best_within(table(quality=[[1]]), -1)
    with pytest.raises(UnknownPrice):
        best_within(table(quality=[[1]], cost=-1), 5)
