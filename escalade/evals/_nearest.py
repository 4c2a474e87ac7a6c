"""`Nearest` in columns: the same neighbours, the same scores and the same decisions, for all questions at once.

A distance is summed fact by fact in the same order, so that it is the same to the last bit; of equally near questions
the first count, as there.
"""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.learned.facts import facts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from escalade.agents.learned.nearest import Nearest

    Floats = NDArray[np.float64]

BLOCK = 256
"""Questions whose distances are in memory at once."""


_last: tuple[Callable[[], Any], Floats] | None = None
"""The column of texts that facts were last made of, and these: the policies of all folds look at the same questions."""


def facts_in(features: Mapping[str, NDArray[Any]], n: int) -> Floats:
    """(n, facts) of the questions, from the columns of what is known about them."""
    global _last  # noqa: PLW0603 - one slot, set at once
    text, last = features.get("text"), _last
    if text is not None and last is not None and last[0]() is text:
        return last[1]
    used = {name: features[name].tolist() for name in ("text", "prompt_chars") if name in features}
    facts = np.array([facts_of({name: column[i] for name, column in used.items()}) for i in range(n)])
    if text is not None:
        _last = weakref.ref(text), facts
    return facts


def nearest_scores(policy: Nearest, facts: Floats) -> Floats:
    """(n,) score of each question, as `Nearest.score` has it."""
    here = facts[:, list(policy.facts)] * np.array(policy.scale)
    points, gain = np.array(policy.points).reshape(len(policy.points), len(policy.facts)), np.array(policy.gain)
    scores = np.empty(len(here))
    for start in range(0, len(here), BLOCK):
        far = np.zeros((len(here[start : start + BLOCK]), len(points)))
        for j in range(points.shape[1]):
            apart = here[start : start + BLOCK, j][:, None] - points[:, j][None, :]
            far += apart * apart
        kth = np.partition(far, policy.k - 1, axis=1)[:, [policy.k - 1]]
        nearer, equal = far < kth, far == kth
        room = policy.k - nearer.sum(axis=1, keepdims=True)
        counted = nearer | (equal & (np.cumsum(equal, axis=1) <= room))
        scores[start : start + BLOCK] = [math.fsum(gain[row].tolist()) / policy.k for row in counted]
    return scores
