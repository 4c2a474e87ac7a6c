"""What another policy would have come to, from logs whose propensities are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks._logs import Explorer, log_of, population, truth
from escalade.agents.climb import Decision, Try, View
from escalade.agents.policies import Constant, Threshold
from escalade.errors import BadInput, Censored, DataError
from escalade.evals.online.estimates import estimate
from escalade.evals.online.logged import Logged, Tried

LOGS, CLIMBS = 30, 250


@pytest.fixture(scope="module")
def world():
    """Questions of the simulated world."""
    return population(5_000)


def logged(world, seed: int, policy: Explorer | None = None, n: int = CLIMBS) -> list[Logged]:
    """A log of n climbs on questions drawn from the world."""
    rng = np.random.default_rng(seed)
    return log_of(world, rng.integers(0, world.n, n), rng, policy or Explorer())


def test_intervals_cover_the_truth_of_the_simulated_world(world) -> None:
    """By every method, of quality and of cost, as often as they say; the doubly robust one is the narrowest."""
    target = Threshold(0.8)
    quality, cost = truth(target, world)
    held: dict[str, int] = {}
    width: dict[str, float] = {}
    for seed in range(LOGS):
        found = estimate(logged(world, seed), target)
        for what, estimates, true in (("quality", found.qualities, quality), ("cost", found.costs, cost)):
            for one in estimates:
                name = f"{what} {one.method}"
                held[name] = held.get(name, 0) + (one.low <= true <= one.high)
                width[name] = width.get(name, 0.0) + one.high - one.low
    assert min(held.values()) >= 25  # of 30 at 95 % each: below it once in 400
    assert sum(held.values()) >= 0.91 * 6 * LOGS
    assert width["quality dr"] < width["quality ips"]
    assert width["cost dr"] < width["cost snips"] < width["cost ips"]


def test_by_hand() -> None:
    """Half of the climbs drew each of two rungs: those on the target's rung count twice, the others not at all."""
    lines = [line(i, rung=i % 2, propensity=0.5, quality=float(i % 4 == 1)) for i in range(80)]
    found = estimate(lines, Constant(1))
    ips, snips, _ = found.qualities
    assert (ips.value, snips.value) == (pytest.approx(0.5), pytest.approx(0.5))
    assert found.effective == pytest.approx(40)
    assert found.followed == 0.5
    assert found.costs[1].value == pytest.approx(10)
    assert found.quality.method == found.cost.method == "dr"


def test_the_policy_that_logged_has_the_mean_of_its_log(world) -> None:
    """Without any randomness, the log says exactly what its own policy came to."""
    lines = logged(world, 1, Explorer(sure=0.0, unsure=1.0, cut=0.8))
    found = estimate(lines, Threshold(0.8))
    mean = np.mean([line.quality for line in lines])
    assert [one.value for one in found.qualities] == pytest.approx([mean] * 3)
    assert found.effective == pytest.approx(CLIMBS)


def test_what_the_log_never_tried_is_refused(world) -> None:
    """A deterministic log says nothing of policies that go on where it stopped, and says on how many climbs."""
    lines = logged(world, 1, Explorer(sure=0.0, unsure=1.0, cut=0.7))
    with pytest.raises(Censored, match="never did there") as refused:
        estimate(lines, Threshold(0.9))
    between = [line for line in lines if any(0.7 <= t.confidence < 0.9 for t in line.path[:2])]
    assert refused.value.share == pytest.approx(len(between) / len(lines))
    assert refused.value.policy == "threshold"


def test_too_few_that_count_are_refused() -> None:
    """A target that the log seldom followed gets no estimate, and the reason."""
    lines = [line(i, rung=int(i < 5), propensity=0.05 if i < 5 else 0.95, quality=1.0) for i in range(100)]
    with pytest.raises(DataError, match=r"only 5\.0 count effectively"):
        estimate(lines, Constant(1))


def test_wrong_propensities_are_refused() -> None:
    """Weights have to average 1; where they don't, something in the log is not as it says."""
    lines = [line(i, rung=i % 2, propensity=0.9, quality=1.0) for i in range(400)]
    with pytest.raises(DataError, match="have to be 1"):
        estimate(lines, Constant(1))


def test_clipping_is_asked_for_and_costs_what_it_says(world) -> None:
    """Without `clip` nothing is clipped; with it the quality by IPS is lower, by no more than is said."""
    lines, target = logged(world, 3), Threshold(0.8)
    plain, clipped = estimate(lines, target), estimate(lines, target, clip=2.0)
    assert plain.clipped == 0
    assert 0 < clipped.clipped < 1
    lost = plain.qualities[0].value - clipped.qualities[0].value
    assert 0 < lost <= 1.5 * clipped.clipped  # the weights average about 1
    with pytest.raises(BadInput, match="clip"):
        estimate(lines, target, clip=0.0)


def test_targets_may_draw() -> None:
    """A target that tells its chances is judged by them."""

    class Half:
        name = "half"

        def decide(self, view: View) -> Decision:
            return self.chances(view)[0][0]

        def chances(self, view: View) -> list[tuple[Decision, float]]:
            if view.attempts:
                return [(Constant(view.attempts[0].rung).decide(view), 1.0)]
            return [(Try(0), 0.5), (Try(1), 0.5)]

    lines = [line(i, rung=i % 2, propensity=0.5, quality=float(i % 2)) for i in range(80)]
    assert estimate(lines, Half()).qualities[0].value == pytest.approx(0.5)
    assert estimate(lines, Half()).effective == pytest.approx(80)


def test_climbs_that_nobody_judged_are_counted_apart() -> None:
    """They are left out, and said to be; a log in which nobody was told anything is refused."""
    lines = [line(i, rung=i % 2, propensity=0.5, quality=1.0) for i in range(80)]
    untold = [replace(one, quality=None) for one in lines]
    found = estimate([*lines, *untold], Constant(1))
    assert (found.n, found.untold) == (80, 80)
    with pytest.raises(DataError, match="the quality of none was told"):
        estimate(untold, Constant(1))


def line(i: int, *, rung: int, propensity: float, quality: float) -> Logged:
    """One call of one of two rungs."""
    tried = Tried(rung, propensity, 0.5, cost=10 if rung else 1)
    return Logged(f"c{i}", f"q{i}", "log", ("low", "high"), (tried,), 0, 1.0, quality, {"x": float(i % 7)})
