"""Time, money, budgets and the price of failures, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from escalade.agents.policies import Constant, RandomMix, Threshold
from escalade.evals._play import play
from escalade.evals.compare import compare
from escalade.evals.lineup import Entry
from escalade.evals.metrics import spending
from escalade.evals.outcomes import Outcomes
from escalade.money import Money
from tests.evals._tables import table


@pytest.fixture
def found() -> Outcomes:
    """Four questions; the first two are sure on the cheap rung, one of them wrongly."""
    some = table(
        quality=[[1, 1], [0, 1], [0, 1], [0, 0]],
        confidence=[[0.9, 0.9], [0.9, 0.9], [0.1, 0.9], [0.1, 0.9]],
        cost=[[1, 10]] * 4,
    )
    return replace(some, latency=np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0]]))


CASCADE = Entry("mine", Threshold(0.5, (0, 1), "mine"))


def test_serial_latency_and_escalations(found) -> None:
    """A cascade's caller waits for both attempts: 1, 2, 3 + 5 and 4 + 5 seconds."""
    one = play(CASCADE, found, 5, 0)
    assert spending.latencies(one) == (pytest.approx(5.0), pytest.approx(np.quantile([1, 2, 8, 9], 0.95)))
    assert spending.escalations(one) == (0.5, 0.5)
    assert spending.escalations(play(Entry("always", Constant(1)), found, 5, 0)) == (0.0, 1.0)
    mix = play(Entry("mix", RandomMix(0.3, 0, 1)), found, 5, 0)
    assert spending.escalations(mix) == (0.0, 0.3)
    assert spending.latencies(mix)[0] is None


def test_unknown_latency_stays_unknown(found) -> None:
    """One unknown time leaves the quantiles unknown, never shorter."""
    gap = replace(found, latency=np.where(np.arange(4)[:, None] == 2, np.nan, found.latency))
    assert spending.latencies(play(CASCADE, gap, 5, 0)) == (None, None)


def test_spent_is_not_the_list_price(found) -> None:
    """What a cache answered took nothing, what isn't known is unknown, and the list price stays as it is."""
    paid = replace(found, spent=np.array([[0, 10], [1, 10], [0, 10], [1, -1]]))
    one = play(CASCADE, paid, 5, 0)
    np.testing.assert_array_equal(spending.spent(one, paid), [0, 1, 10, np.nan])
    assert one.cost.tolist() == [1, 1, 11, 11]
    assert spending.spent(one, found) is None


def test_failures_are_billed(found) -> None:
    """Each wrong answer costs the penalty: questions 2 and 4 are wrong."""
    one = play(CASCADE, found, 5, 0)
    assert spending.penalised(one, 100).tolist() == [1, 101, 11, 111]


def test_failures_are_retried(found) -> None:
    """Only question 2 can still be asked of the strongest rung: right for 10 more; question 4 has been asked."""
    one = play(CASCADE, found, 5, 0)
    quality, cost = spending.retried(one, found)
    assert quality.tolist() == [1, 1, 1, 0]
    assert cost.tolist() == [1, 11, 11, 11]


def test_retried_mix_is_the_expectation(found) -> None:
    """Of a mix, what the weak rung gets wrong is asked again, in expectation over its draws."""
    mix = play(Entry("mix", RandomMix(0.25, 0, 1)), found, 5, 0)
    weak, strong = (play(Entry("r", Constant(rung)), found, 5, 0) for rung in (0, 1))
    again = [spending.retried(one, found) for one in (weak, strong)]
    quality, cost = spending.retried(mix, found)
    np.testing.assert_allclose(quality, 0.75 * again[0][0] + 0.25 * again[1][0])
    np.testing.assert_allclose(cost, 0.75 * again[0][1] + 0.25 * again[1][1])


def test_budgets_by_hand() -> None:
    """Two questions cost 30 and 25 more than their 20; the run 125 against 100."""
    some = table(quality=[[0, 1]] * 4, cost=[[5, 50], [5, 45], [5, 20], [5, 10]], ceiling=[[5, 10]] * 4)
    entry = Entry("r1+budget", Constant(1), Money(20), Money(100))
    one = spending.compliance(entry, play(replace(entry, per_run=None), some, 5, 0))
    assert one is not None
    assert (one.questions, one.overshoot, one.worst, one.worst_share) == (2, 55, 30, 1.5)
    assert (one.run_overshoot, one.used) == (25, 1.25)
    assert spending.compliance(CASCADE, play(CASCADE, some, 5, 0)) is None


def test_budgets_that_are_kept() -> None:
    """Where bounds hold there are no violations, and what isn't answered is counted."""
    some = table(quality=[[0, 1]] * 40, cost=[[1, 10]] * 40)
    compared = compare(some, ["r1+budget"], per_request=Money(10), per_run=Money(100), baselines=False)
    assert compared.evidence is not None
    (one,) = spending.budgets(compared.evidence)
    assert (one.violations, one.questions, one.overshoot, one.run_overshoot) == (0, 0, 0, 0)
    assert one.unanswered == compared.row("r1+budget").unpaid
    assert one.used is not None
    assert one.used <= 1
