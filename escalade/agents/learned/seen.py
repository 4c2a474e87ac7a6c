"""Facts about the attempts so far, in numbers: how sure each was, what form its answer has, who agrees with whom.

Only what live and replayed attempts both know. How much longer an answer was than usual is read off its cost relative
to its expected price.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from escalade.agents.climb import Attempt, View


def seen_of(view: View, rungs: Sequence[int]) -> list[float]:
    """The facts about the attempts on these rungs, whose last one is the answer at hand; as many for any view."""
    attempts = [view.tried(rung) for rung in rungs]
    facts = [fact for rung, attempt in zip(rungs, attempts, strict=True) for fact in _one(view, rung, attempt)]
    *peers, last = attempts
    agree = [same(peer, last) for peer in peers]
    sure = [0.0 if peer is None or math.isnan(peer.confidence) else peer.confidence for peer in peers]
    pairs = [same(a, b) for i, a in enumerate(peers) for b in peers[:i]]
    return [
        *facts,
        *map(float, agree),
        float(any(agree)),
        float(all(agree)),
        max((c for c, yes in zip(sure, agree, strict=True) if yes), default=0.0),
        max((c for c, yes in zip(sure, agree, strict=True) if not yes), default=0.0),
        largest(attempts) / len(attempts),
        sum(pairs) / max(1, len(pairs)),
    ]


def same(a: Attempt | None, b: Attempt | None) -> bool:
    """Did both answer, and the same?"""
    if a is None or b is None or not a.ok or not b.ok or a.answer is None:
        return False
    return bool(a.answer == b.answer)


def largest(attempts: Sequence[Attempt | None]) -> int:
    """Attempts that gave the most frequent answer."""
    return max((sum(same(a, b) for b in attempts) for a in attempts), default=0)


def _one(view: View, rung: int, attempt: Attempt | None) -> list[float]:
    if attempt is None or not attempt.ok:
        return [1.0] + [0.0] * 7
    unsure = math.isnan(attempt.confidence)
    form = attempt.form or (0.0,) * 4
    price = view.prices[rung]
    longer = math.log(attempt.cost / price) if price and attempt.cost > 0 else 0.0
    return [0.0, 0.0 if unsure else attempt.confidence, float(unsure), longer, *form]
