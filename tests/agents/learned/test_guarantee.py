"""A threshold with a guarantee: the promise is broken in fewer than delta of the calibration sets, in any world."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from escalade.agents.learned.answers import AnswerInView
from escalade.agents.learned.betting import last_safe, p_values, rows_needed
from escalade.agents.learned.guarantee import GAINS, Guaranteed, cuts_of, losses_of, thresholds
from escalade.agents.policies import Constant
from escalade.errors import BadInput, DataError
from escalade.evals.loaders import load_outcomes
from escalade.evals.replay import replay
from tests.agents.learned._worlds import HIGH, LOW, PEER, world

RESAMPLES, EPSILON, DELTA = 1_000, 0.05, 0.05


def broken(losses: np.ndarray, n: int, *, seed: int = 0) -> tuple[float, float]:
    """(share of calibration sets of n rows whose choice loses more than EPSILON; share that chose anything)."""
    rng = np.random.default_rng(seed)
    true = losses.mean(axis=1)
    chosen = [last_safe(losses[:, rng.integers(0, losses.shape[1], n)], EPSILON, DELTA) for _ in range(RESAMPLES)]
    bad = np.mean([at >= 0 and true[at] > EPSILON for at in chosen])
    return float(bad), float(np.mean([at >= 0 for at in chosen]))


def smooth(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    """Verdicts of 0 and 1: the bolder the candidate, the more often it is wrong where the strong rung is right."""
    u = rng.random(n)
    chance = np.linspace(0.0, 0.12, m)[:, None]
    return np.where(u < chance, 1.0, np.where(u > 1 - chance / 3, -1.0, 0.0))


def rare(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    """Heavy tail: hardly anything is lost on most questions, everything on a few, and a little is won on the rest."""
    u = rng.random(n)
    chance = np.linspace(0.0, 0.1, m)[:, None]
    return np.where(u < chance, 1.0, -0.01)


def edge(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    """The hardest case: every candidate but the first loses a hair more than it may."""
    u = rng.random(n)
    losses = np.tile(np.where(u < EPSILON + 0.002, 1.0, 0.0), (m, 1))
    losses[0] = 0.0
    return losses


@pytest.mark.parametrize("make", [smooth, rare, edge])
@pytest.mark.parametrize("n", [200, 1_000])
def test_the_promise_holds_in_made_up_worlds(make, n: int) -> None:
    """Over 1,000 calibration sets, at most 5 % of the choices lose more than promised on the population."""
    losses = make(np.random.default_rng(7), 25, 60_000)
    bad, _ = broken(losses, n)
    assert bad <= DELTA


def test_the_promise_is_worth_something() -> None:
    """It isn't kept by never choosing: with 1,000 rows a candidate is found that saves strong calls."""
    losses = smooth(np.random.default_rng(7), 25, 60_000)
    rng = np.random.default_rng(1)
    chosen = [last_safe(losses[:, rng.integers(0, 60_000, 1_000)], EPSILON, DELTA) for _ in range(200)]
    allowed = int(np.flatnonzero(losses.mean(axis=1) <= EPSILON)[-1])
    assert np.median(chosen) > allowed / 2


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["recorded", "regraded"])
def test_the_promise_holds_on_the_bundled_data(labels: str) -> None:
    """Fitted on one half, calibrated on resamples of the other, which is the population."""
    outcomes = load_outcomes(labels=labels)
    scored = AnswerInView.fit(outcomes, (3, 4), 5, rows=range(0, outcomes.n, 2))
    losses = losses_of(outcomes, cuts_of(scored), 5, range(1, outcomes.n, 2))
    bad, found = broken(losses, losses.shape[1])
    print(f"{labels}: promise broken in {bad:.1%} of {RESAMPLES:,} resamples, a saving found in {found:.0%}")
    assert bad <= DELTA


def test_p_values_are_valid_at_the_bound() -> None:
    """Where the mean loss is exactly epsilon, p <= 0.05 comes up in at most 5 % of the samples, for any spread."""
    rng = np.random.default_rng(3)
    for loss in (0.05, 0.25, 1.0):  # always a little, or seldom all
        draws = np.where(rng.random((2_000, 300)) < EPSILON / loss, loss, 0.0)
        assert (p_values(draws, EPSILON, DELTA) <= DELTA).mean() <= DELTA + 0.01


def test_p_values_follow_the_evidence() -> None:
    """Smaller losses and more rows are more convincing; a loss above the bound never is."""
    few, many = np.zeros((1, 100)), np.zeros((1, 400))
    assert p_values(many, EPSILON, DELTA)[0] < p_values(few, EPSILON, DELTA)[0] < 1
    assert p_values(few - 0.1, EPSILON, DELTA)[0] < p_values(few, EPSILON, DELTA)[0]
    assert p_values(few + 0.2, EPSILON, DELTA)[0] == 1.0


def test_candidates_behind_the_first_failure_are_not_looked_at() -> None:
    """Fixed sequence testing: that is what makes many tests cost nothing."""
    good, bad = np.zeros(500), np.full(500, 0.5)
    assert last_safe(np.stack([good, bad, good]), EPSILON, DELTA) == 0
    assert last_safe(np.stack([bad, good, good]), EPSILON, DELTA) == -1
    assert last_safe(np.stack([good, good, good]), EPSILON, DELTA) == 2


def test_too_small_a_calibration_set_says_how_many_rows_it_takes() -> None:
    """With so many rows it goes through, with one less it doesn't."""
    needed = rows_needed(0.1, 0.05)
    data, candidates = world(), [Constant(HIGH)]
    with pytest.raises(DataError, match=rf"it takes {needed} at least"):
        Guaranteed.fit(data, candidates, HIGH, epsilon=0.1, rows=range(needed - 1))
    assert Guaranteed.fit(data, candidates, HIGH, epsilon=0.1, rows=range(needed)).passed == 1
    assert needed > math.log(20) / math.log1p(0.9 * 0.05 / 0.45)  # the wealth that the boldest bets come to


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.05), (1.0, 0.05), (0.02, 0.0), (0.02, 1.0)])
def test_promises_that_are_none(epsilon: float, delta: float) -> None:
    """Both are numbers between 0 and 1."""
    with pytest.raises(BadInput, match="between 0 and 1"):
        Guaranteed.fit(world(), [], HIGH, epsilon=epsilon, delta=delta)


def test_without_a_candidate_that_passes_the_strong_rung_answers() -> None:
    """It loses nothing against itself."""
    policy = Guaranteed.fit(world(), [Constant(LOW)], HIGH)
    assert policy.policy == Constant(HIGH)
    assert (policy.passed, policy.candidates, policy.loss) == (0, 1, 0.0)


def test_a_guaranteed_policy_saves_money_on_new_questions() -> None:
    """Fitted, calibrated and judged on three samples: it keeps its promise and asks the strong rung less."""
    fitting, calibration, new = (world(n, seed) for seed, n in enumerate((400, 400, 1_200)))
    scored = AnswerInView.fit(fitting, (PEER, LOW), HIGH)
    policy = Guaranteed.fit(calibration, cuts_of(scored), HIGH, epsilon=EPSILON)
    one, strong = replay(policy, new), replay(Constant(HIGH), new)
    assert strong.quality.mean() - one.quality.mean() <= EPSILON
    assert one.cost.mean() < 0.9 * strong.cost.mean()
    assert policy.candidates == len(GAINS)


def test_candidates_by_confidence() -> None:
    """From the safest to the boldest; what has no score has no cuts."""
    cuts = [policy.threshold for policy in thresholds((LOW, HIGH))]
    assert cuts == sorted(cuts, reverse=True)
    with pytest.raises(BadInput, match="no score"):
        cuts_of(Constant(0))


@pytest.mark.slow
@pytest.mark.parametrize("fails", [0.0, 0.3])
def test_losses_are_those_of_every_candidate(fails: float) -> None:
    """Thresholds in order are searched for where they change the answer; each alone gives the same losses."""
    data = world(120, seed=5, fails=fails)
    scored = AnswerInView.fit(world(), (PEER, LOW), HIGH)
    for candidates in (
        cuts_of(scored),
        thresholds((LOW, PEER, HIGH)),
        [Constant(HIGH), Constant(LOW), *cuts_of(scored)],
    ):
        each = np.concatenate([losses_of(data, [one], HIGH, range(data.n)) for one in candidates])
        assert np.array_equal(losses_of(data, candidates, HIGH, range(data.n)), each)


@pytest.mark.parametrize("rows", [[*range(60)] * 20, [True] * 1_000, [-1, *range(999)], [5_000, *range(999)]])
def test_rows_that_are_no_rows(rows: list[int]) -> None:
    """The same rows again prove nothing, and a mask is no list of rows."""
    data = world(n=1_000)
    with pytest.raises(BadInput, match="each of them once"):
        Guaranteed.fit(data, thresholds([LOW, HIGH]), HIGH, rows=rows)


def test_unknown_qualities_promise_nothing() -> None:
    """Where a quality is missing there is no guarantee, and a candidate of unknown loss passes no test."""
    assert last_safe(np.array([[0.0] * 400, [math.nan] * 400]), EPSILON, DELTA) == 0
    data = world(n=1_000)
    quality = data.quality.copy()
    quality[5, LOW] = math.nan
    data = replace(data, quality=quality)
    with pytest.raises(DataError, match="unknown"):
        Guaranteed.fit(data, [Constant(LOW)], HIGH)
