"""The vectorised replay and the loop of a live climb are the same function."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escalade.agents.climb import Policy, Rung
from escalade.agents.policies import Agreement, Budgeted, Constant, Threshold
from escalade.evals._vector import climb_all, vectorised
from escalade.evals.folds import ByFold
from escalade.evals.outcomes import UNKNOWN, Outcomes
from escalade.evals.replay import brake_left, replay, replay_one
from escalade.money import Money
from tests.evals._tables import KINDS, outcomes, policies, table


def check(policy: Policy, data: Outcomes, per_run: int | None) -> None:
    """Replay vectorised, and each row by `climb_sync`; compare everything that is an integer, exactly."""
    assert vectorised(policy)
    found = replay(policy, data, per_run=per_run)
    left = per_run
    for i in range(data.n):
        climb = replay_one(policy, data, i, left, brake_left=brake_left(per_run))
        left = None if left is None else left - climb.cost
        chosen = climb.chosen
        assert found.chosen[i] == (-1 if chosen is None else chosen.rung)
        assert set(np.flatnonzero(found.tried[i])) == set(climb.path)
        assert found.errors[i] == (chosen is None or not chosen.ok)
        assert found.quality[i] == (data.quality[i, chosen.rung] if chosen is not None and chosen.ok else 0.0)
        unknown = any(data.cost[i, rung] == UNKNOWN for rung in climb.path)
        assert found.cost[i] == (UNKNOWN if unknown else climb.cost)
        seconds = sum(a.latency for a in climb.attempts)
        assert found.latency[i] == seconds or np.isnan(found.latency[i]) == np.isnan(seconds) == True  # noqa: E712


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100)
@given(data=st.data())
def test_vectorised_is_the_climb(kind: type, data: st.DataObject) -> None:
    """For random tables, policies and run budgets: same rungs tried, same answer, same nano-dollars, same errors."""
    found = data.draw(outcomes())
    check(data.draw(policies(found.k, kinds=[kind])), found, data.draw(st.none() | st.integers(0, 120)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
@settings(max_examples=30)
@given(data=st.data())
def test_runs_brake_anywhere(kind: type, share: float, data: st.DataObject) -> None:
    """Wherever a run brakes, before its first question or never: in columns as row by row."""
    found = data.draw(outcomes(priced=True))
    policy, per_run = data.draw(policies(found.k, kinds=[kind])), data.draw(st.integers(0, 120))
    brake = int(per_run * share)
    chosen, tried = climb_all(policy, found, np.arange(found.n), per_run, brake)
    left = per_run
    for i in range(found.n):
        climb = replay_one(policy, found, i, left, brake_left=brake)
        left -= climb.cost
        assert set(np.flatnonzero(tried[i])) == set(climb.path)
        assert chosen[i] == (-1 if climb.chosen is None else climb.chosen.rung)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100)
@given(data=st.data())
def test_budgets_bind_anywhere(kind: type, data: st.DataObject) -> None:
    """With all prices known, under budgets of the request that end in the middle of a climb, and one of the run."""
    found = data.draw(outcomes(priced=True))
    inner = data.draw(policies(found.k, kinds=[kind]))
    policy = Budgeted(inner, Money(data.draw(st.integers(0, 40))))
    check(policy, found, data.draw(st.none() | st.integers(0, 100)))


def test_a_tie_of_members_is_decided_alike() -> None:
    """Among groups of the same size the one that ends last answers, where the judge isn't affordable."""
    data = table(quality=[[0, 1, 0]], answer=[[0, 1, 2]], cost=[1, 1, 9])
    assert replay(Agreement((0, 1), 2), data, per_run=5).chosen.tolist() == [1]
    check(Agreement((0, 1), 2), data, 5)


def test_nested_budgets_within_a_run() -> None:
    """A budget inside a budget, each tighter in turn, while the run's own runs out: still row by row the same."""
    rng = np.random.default_rng(3)
    cost = rng.integers(1, 30, (300, 4))
    data = table(quality=[[1, 1, 1, 1]] * 300, cost=cost, ceiling=cost + rng.integers(0, 5, (300, 4)))
    for inner, outer in ((8, 20), (20, 8), (25, 25)):
        for plain in (Constant(3), Threshold(0.8, (3, 2))):
            check(Budgeted(Budgeted(plain, Money(inner)), Money(outer)), data, 1500)


@settings(max_examples=100)
@given(st.data())
def test_by_fold_is_the_climb(data: st.DataObject) -> None:
    """Several policies stitched by fold are vectorised to the same result."""
    found = data.draw(outcomes())
    inner = tuple(data.draw(policies(found.k)) for _ in range(2))
    fold = {key: data.draw(st.integers(0, 1)) for key in found.keys}
    check(ByFold("stitched", inner, fold), found, data.draw(st.none() | st.integers(0, 60)))


def test_long_runs_in_blocks() -> None:
    """A run budget over thousands of questions, spent and crossed in many blocks, is exact to the nano-dollar."""
    rng = np.random.default_rng(7)
    n, k = 3000, 4
    cost = rng.integers(1, 50, (n, k)) * np.array([1, 3, 10, 100])
    data = Outcomes(
        name="long",
        rungs=tuple(Rung(f"r{i}") for i in range(k)),
        keys=tuple(map(str, range(n))),
        features={"prompt_chars": rng.integers(1, 500, n)},
        quality=rng.integers(0, 2, (n, k)).astype(np.float64),
        answer=rng.integers(-1, 2, (n, k)),
        confidence=rng.random((n, k)),
        cost=cost,
        price=cost,
        ceiling=cost + rng.integers(0, 20, (n, k)),
        latency=np.ones((n, k)),
        status=(rng.random((n, k)) < 0.1).astype(np.int8),
    )
    for policy in (Threshold(0.7), Threshold(0.5, (0, 3)), Constant(3)):
        whole = int(replay(policy, data).cost.sum())
        check(policy, data, whole // 2)


def test_subclasses_are_not_vectorised() -> None:
    """A subclass may decide differently, so that it is climbed row by row."""

    class Mine(Constant):
        pass

    assert vectorised(Constant(0))
    assert not vectorised(Mine(0))


def test_an_unknown_cost_spends_its_ceiling() -> None:
    """Under a run budget, an attempt of unknown cost takes what was reserved for it, as it does live."""
    data = table(quality=[[1], [1], [1]], cost=[UNKNOWN], ceiling=[[5], [6], [5]])
    assert replay(Constant(0), data, per_run=5).chosen.tolist() == [0, -1, -1]
    assert replay(Constant(0), data, per_run=11).chosen.tolist() == [0, 0, -1]
    assert replay(Constant(0), data, per_run=11).cost.tolist() == [UNKNOWN, UNKNOWN, 0]
    for budget in (5, 10, 11, 16):
        check(Constant(0), data, budget)
