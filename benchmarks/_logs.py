"""Logs of a randomised policy in the simulated world, and what any other policy truly comes to there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents._sampling import logistic, logit
from escalade.agents.climb import Policy, Rung
from escalade.agents.world import SimModel, World
from escalade.evals.online.logged import Logged, Tried
from escalade.evals.outcomes import Outcomes
from escalade.evals.replay import replay

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODELS = (SimModel(skill=0.55), SimModel(skill=0.75), SimModel(skill=0.9))
COSTS = (100_000, 400_000, 2_000_000)
LADDER = ("small", "middle", "large")


def population(n: int, seed: int = 0) -> Outcomes:
    """Questions of the world's formulas (`agents.world`): who is right, and how sure they say they are."""
    rng = np.random.default_rng(seed)
    difficulty = rng.random(n)
    chances = [
        [World.chance(sim, d, reasoning=False, demos=0, hints=0.0) for sim in MODELS] for d in difficulty.tolist()
    ]
    p = np.array(chances)
    right = rng.random(p.shape) < p
    inkling = np.where(right, 0.75, -0.75) + rng.standard_normal(p.shape)
    sure = [
        [logistic(logit(one) + 1.5 * x) for one, x in zip(*row, strict=True)] for row in zip(p, inkling, strict=True)
    ]
    cost = (np.array(COSTS) * rng.gamma(4.0, 0.25, p.shape)).astype(np.int64) + 1
    return Outcomes(
        name="simulated world",
        rungs=tuple(Rung(name) for name in LADDER),
        keys=tuple(f"q{i}" for i in range(n)),
        features={"prompt_chars": (400 * difficulty + 40 * rng.random(n)).astype(np.int64)},
        quality=right.astype(np.float64),
        answer=np.where(right, 0, 1 + np.arange(3)),
        confidence=np.array(sure),
        cost=cost,
        price=cost,
        ceiling=cost,
        latency=np.ones(p.shape),
        status=np.zeros(p.shape, dtype=np.int8),
    )


def truth(policy: Policy, world: Outcomes) -> tuple[float, float]:
    """(quality, nano-dollars per question) of a policy on all of them."""
    found = replay(policy, world)
    return float(found.quality.mean()), float(found.cost.mean())


@dataclass(frozen=True)
class Explorer:
    """The policy that logs: it goes on with these chances after a sure and after an unsure answer, by `cut`."""

    sure: float = 0.3
    unsure: float = 0.8
    cut: float = 0.7

    def climb(self, world: Outcomes, i: int, name: str, rng: np.random.Generator) -> Logged:
        """One climb of all three rungs at most, from the bottom, with the chances of what it did."""
        path: list[Tried] = []
        likely, stop = 1.0, 1.0
        for rung in range(world.k):
            attempt = world.attempt(i, rung)
            path.append(Tried(rung, likely, attempt.confidence, attempt.status, attempt.cost, 1.0, attempt.answer))
            on = self.unsure if attempt.confidence < self.cut else self.sure
            if rung == world.k - 1:
                stop = 1.0
            elif rng.random() < on:
                likely = on
            else:
                stop = 1.0 - on
                break
        quality = float(world.quality[i, len(path) - 1])
        features = {name: float(value) for name, value in world.facts(i).items()}
        return Logged(name, world.keys[i], "explorer", LADDER, tuple(path), len(path) - 1, stop, quality, features)


def log_of(world: Outcomes, rows: NDArray[np.int64], rng: np.random.Generator, policy: Explorer) -> list[Logged]:
    """A climb on each of these questions."""
    return [policy.climb(world, i, f"c{at}", rng) for at, i in enumerate(rows.tolist())]
