"""The vectorised replay and the loop of a live climb are the same function."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from escalade.agents.climb import Policy
from escalade.agents.policies import Constant, Threshold
from escalade.evals._vector import vectorised
from escalade.evals.folds import ByFold
from escalade.evals.outcomes import UNKNOWN, Outcomes
from escalade.evals.replay import replay, replay_one
from tests.evals._tables import outcomes, policies


def check(policy: Policy, data: Outcomes, per_run: int | None) -> None:
    """Replay vectorised, and each row by `climb_sync`; compare everything that is an integer, exactly."""
    assert vectorised(policy)
    found = replay(policy, data, per_run=per_run)
    left = per_run
    for i in range(data.n):
        climb = replay_one(policy, data, i, left)
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


@settings(max_examples=400)
@given(st.data())
def test_vectorised_is_the_climb(data: st.DataObject) -> None:
    """For random tables, policies and run budgets: same rungs tried, same answer, same nano-dollars, same errors."""
    found = data.draw(outcomes())
    policy = data.draw(policies(found.k))
    check(policy, found, data.draw(st.none() | st.integers(0, 120)))


@settings(max_examples=150)
@given(st.data())
def test_run_budget_binds_anywhere(data: st.DataObject) -> None:
    """With all prices known and a run budget that ends in the middle, still row by row the same."""
    found = data.draw(outcomes(priced=True))
    check(data.draw(policies(found.k)), found, data.draw(st.integers(0, 60)))


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
        rungs=tuple(_rungs(k)),
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


def _rungs(k: int) -> list:
    from escalade.agents.climb import Rung

    return [Rung(f"r{i}") for i in range(k)]
