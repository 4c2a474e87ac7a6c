"""Exploration: propensities are exact, decisions are the same live and replayed, and both are saved."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escalade.agents.climb import Attempt, Policy, Rung, Stop, Try, View
from escalade.agents.learned.bandit import Bandit
from escalade.agents.policies import Agreement, Budgeted, Constant, RandomMix, Threshold, dump_policy, load_policy
from escalade.errors import BadInput
from escalade.evals.online.canary import Canary
from escalade.evals.online.epsilon import Epsilon
from escalade.evals.online.propensity import action, chance, chances, settled
from escalade.evals.online.watching import log_of
from escalade.evals.replay import replay
from tests.evals._tables import table


def view(key: str = "q", *attempts: Attempt, left: int | None = None, k: int = 3) -> View:
    """A place in a climb on `k` rungs that cost 1, 2, 3."""
    prices = tuple(range(1, k + 1))
    return View(key, {"prompt_chars": 9}, tuple(Rung(f"r{i}") for i in range(k)), prices, prices, attempts, left)


CHEAP = Attempt(0, "a", 0.5, cost=1)
POLICIES: list[Policy] = [
    Epsilon(Threshold(0.8), 0.3),
    Epsilon(Threshold(0.2), 0.5, rungs=(2,)),
    Epsilon(Constant(1), 1.0),
    Epsilon(Canary(Constant(0), Threshold(0.8), 0.4, "request"), 0.2),
    Canary(Threshold(0.2), Threshold(0.9), 0.3, "request"),
    Canary(Constant(0), Epsilon(Constant(2), 0.5), 0.5),
    RandomMix(0.3, 0, 2),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_propensities_are_the_frequencies(policy: Policy) -> None:
    """Over 4,000 questions each first decision comes as often as its propensity says, within five standard errors."""
    seen = Counter(action(policy.decide(view(f"q{i}"))) for i in range(4_000))
    for decision, p in chances(policy, view("q0")):
        error = math.sqrt(p * (1 - p) / 4_000)
        assert seen[action(decision)] / 4_000 == pytest.approx(p, abs=5 * error + 1e-9)


def test_propensities_of_whole_climbs_are_the_frequencies() -> None:
    """Ways up of several steps, too: a canary's second step is likelier or not by what its first one told."""
    rows = np.random.default_rng(0).random((1_200, 3))
    outcomes = table(quality=[[0, 1, 1]] * 1_200, confidence=[[0.5, 0.95, 1]] * 1_200, chars=rows[:, 0].tolist())
    for policy in (POLICIES[0], POLICIES[4], Canary(Constant(0), Epsilon(Threshold(0.9), 0.4), 0.5)):
        ways = Counter()
        told: dict[Any, float] = {}
        for line in log_of(policy, outcomes):
            ways[line.rungs] += 1
            told[line.rungs] = line.propensity
        assert sum(told.values()) == pytest.approx(1, abs=0.02)
        for way, p in told.items():
            assert ways[way] / 1_200 == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 1_200))


attempts = st.lists(
    st.builds(
        Attempt,
        rung=st.integers(0, 2),
        answer=st.sampled_from("ab"),
        confidence=st.floats(0, 1) | st.just(math.nan),
        cost=st.integers(0, 3),
        status=st.sampled_from(["ok", "failed"]),
    ),
    max_size=3,
    unique_by=lambda attempt: attempt.rung,
)


@given(attempts, st.none() | st.integers(0, 6), st.sampled_from(POLICIES), st.text(max_size=3))
@settings(max_examples=200, deadline=None)
def test_chances_add_up_and_cover_what_is_decided(
    seen: list[Attempt], left: int | None, policy: Policy, key: str
) -> None:
    """Wherever a climb stands: chances add up to 1, none is negative, and what is decided is possible."""
    if isinstance(policy, RandomMix) and seen:
        return
    now = view(key, *seen, left=left)
    found = chances(policy, now)
    assert sum(p for _, p in found) == pytest.approx(1)
    assert all(p >= 0 for _, p in found)
    assert chance(policy, now, policy.decide(now)) > 0
    assert all(now.fits(one.rung) and now.tried(one.rung) is None for one, _ in found if isinstance(one, Try))


def test_a_step_that_cannot_be_paid_isnt_drawn() -> None:
    """What doesn't fit is neither drawn nor wanted; a policy that stops for want of money, stops."""
    now = view("q", CHEAP, left=2)
    assert {action(one) for one, _ in chances(Epsilon(Threshold(0.8), 0.5), now)} == {1, -1}
    broke = view("q", CHEAP, left=1)
    assert chances(Epsilon(Threshold(0.8), 0.5), broke) == [(settled(broke, Threshold(0.8).decide(broke)), 1.0)]


def test_nothing_to_explore_is_the_policy_itself() -> None:
    """With a share of 0 it decides, climbs and costs as its policy."""
    outcomes = table(quality=[[0, 1]] * 50, confidence=[[i / 50, 1] for i in range(50)])
    mine, plain = (replay(policy, outcomes) for policy in (Epsilon(Threshold(0.5), 0.0), Threshold(0.5)))
    assert (mine.chosen == plain.chosen).all()
    assert (mine.cost == plain.cost).all()


def test_bandits_and_agreement_have_chances() -> None:
    """A bandit tells its own; what doesn't draw is certain."""
    bandit = Bandit((0, 2), 0.01)
    assert sum(p for _, p in chances(bandit, view())) == pytest.approx(1)
    assert chance(bandit, view(), Try(2)) == pytest.approx(bandit.propensities(view())[1])
    assert chance(Agreement((0, 1), 2), view(), Try(0)) == 1
    assert chance(Agreement((0, 1), 2), view(), Stop()) == 0


def test_what_draws_goes_outside() -> None:
    """A wrapper that decides otherwise than what draws in it can't tell its chances."""
    with pytest.raises(BadInput, match="what draws goes outside"):
        chances(Budgeted(Epsilon(Constant(0)), "0.01"), view())


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_saved_and_loaded(policy: Policy) -> None:
    """As any policy: JSON and back, and equal."""
    assert load_policy(json.loads(json.dumps(dump_policy(policy)))) == policy


def test_bad_input() -> None:
    """Shares are shares."""
    for make in (lambda: Epsilon(Constant(0), 1.5), lambda: Canary(Constant(0), Constant(1), -0.1)):
        with pytest.raises(BadInput, match="between 0 and 1"):
            make()
    with pytest.raises(BadInput, match="sticky_by: expected"):
        Canary(Constant(0), Constant(1), sticky_by="mood")  # type: ignore[arg-type]
