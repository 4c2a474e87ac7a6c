"""Learned policies with made-up weights, for tests of properties that no fit may depend on."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from escalade.agents.climb import Policy
from escalade.agents.learned.answers import AnswerInView
from escalade.agents.learned.bandit import USED, Arm, Bandit
from escalade.agents.learned.cascade import CascadeRouting, Judge
from escalade.agents.learned.facts import FACTS
from escalade.agents.learned.gain import Gain
from escalade.agents.learned.guarantee import Guaranteed
from escalade.agents.learned.linear import Linear
from escalade.agents.learned.nearest import Nearest

WORDS, SEEN = 32, 80
"""Buckets of words; more facts about attempts than there are for any ladder of these tests."""


@st.composite
def learned(draw: Any, k: int) -> Policy:
    """Any learned policy on a ladder of k rungs."""
    rng = random.Random(draw(st.integers(0, 10_000)))
    kinds = [_gain, _nearest, _cascade, _bandit] + ([_answers] if k > 1 else [])
    policy = draw(st.sampled_from(kinds))(rng, k)
    return Guaranteed(policy, 0.05, 0.05, 100, 1, 1, 0.0) if rng.random() < 0.2 else policy


def _linear(rng: random.Random, facts: int, words: int = 0) -> Linear:
    return Linear(
        rng.uniform(-0.3, 0.6),
        tuple(rng.gauss(0, 0.05) for _ in range(facts)),
        tuple(rng.gauss(0, 0.2) for _ in range(words)),
        tuple(rng.uniform(1, 5) for _ in range(words)),
    )


def _gain(rng: random.Random, k: int) -> Policy:
    words = rng.choice([0, WORDS])
    return Gain(_linear(rng, len(FACTS), words), rng.randrange(k), rng.randrange(k), rng.uniform(-0.2, 0.5))


def _nearest(rng: random.Random, k: int) -> Policy:
    facts = tuple(rng.sample(range(len(FACTS)), 4))
    points = tuple(tuple(rng.uniform(0, 2) for _ in facts) for _ in range(9))
    gain = tuple(rng.choice([-1.0, 0.0, 1.0]) for _ in points)
    low, high = rng.randrange(k), rng.randrange(k)
    return Nearest(3, facts, tuple(rng.uniform(0, 1) for _ in facts), points, gain, low, high, rng.uniform(-0.3, 0.6))


def _answers(rng: random.Random, k: int) -> Policy:
    then = rng.randrange(k)
    members = [rung for rung in range(k) if rung != then]
    rng.shuffle(members)
    question = rng.random() < 0.5
    model = _linear(rng, SEEN)
    return AnswerInView(model, tuple(members[: rng.randint(1, k - 1)]), then, rng.uniform(-0.3, 0.6), question)


def _cascade(rng: random.Random, k: int) -> Policy:
    judges = tuple(Judge(_linear(rng, SEEN), _linear(rng, SEEN), rng.uniform(0, 0.4)) for _ in range(k))
    return CascadeRouting(tuple(range(k)), judges, rng.choice([1e-5, 1e-3, 0.1]))


def _bandit(rng: random.Random, k: int) -> Policy:
    d, rungs = len(USED) + 1, tuple(rng.sample(range(k), rng.randint(1, k)))
    arms = tuple(Arm.fresh(d, 1.0).updated([rng.gauss(0, 1) for _ in range(d)], rng.random(), 0.25) for _ in rungs)
    return Bandit(rungs, rng.choice([1e-4, 0.01]), arms, rng.choice([0.0, 0.3]), seed=rng.randrange(99))
