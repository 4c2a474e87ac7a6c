"""Made-up outcomes in which it is known what a router should learn."""

from __future__ import annotations

import numpy as np

from escalade.agents.climb import Rung
from escalade.evals.outcomes import NO_ANSWER, Outcomes

LOW, PEER, HIGH = 0, 1, 2


def world(n: int = 400, seed: int = 0, *, fails: float = 0.0, texts: bool = True) -> Outcomes:
    """Three rungs: two cheap ones that are right together on easy questions, and a strong one that is right on most.

    Hard questions have many figures in them, so that a router that looks at the text can tell. `fails`: the share of
    cheap attempts without an answer.
    """
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.5
    right = np.stack([rng.random(n) < np.where(hard, 0.2, 0.9), rng.random(n) < np.where(hard, 0.2, 0.9)], axis=1)
    quality = np.column_stack([right, rng.random(n) < 0.95]).astype(np.float64)
    answer = np.where(quality > 0, 0, rng.integers(1, 50, quality.shape))
    status = np.zeros(quality.shape, dtype=np.int8)
    status[:, :2] = rng.random((n, 2)) < fails
    answer[status > 0] = NO_ANSWER
    confidence = np.clip(0.5 + 0.3 * quality + 0.2 * rng.random(quality.shape), 0, 1)
    confidence[:, HIGH] = np.nan
    cost = np.array([10_000, 20_000, 2_000_000]) * rng.integers(80, 120, (n, 1)) // 100
    text = [f"Of {i} eggs, how many are left{' of 3 and 4 each' * 5 if h else ''}?" for i, h in enumerate(hard)]
    features = {"prompt_chars": np.array([len(t) for t in text])}
    return Outcomes(
        name="made up",
        rungs=tuple(Rung(name) for name in ("low", "peer", "high")),
        keys=tuple(f"q{i}" for i in range(n)),
        features=features | ({"text": np.array(text, dtype=object)} if texts else {}),
        quality=np.where(status > 0, 0.0, quality),
        answer=answer,
        confidence=np.where(status > 0, np.nan, confidence),
        cost=cost,
        price=np.broadcast_to(np.array([10_000, 20_000, 2_000_000]), cost.shape).copy(),
        ceiling=cost * 2,
        latency=np.ones(quality.shape),
        status=status,
    )
