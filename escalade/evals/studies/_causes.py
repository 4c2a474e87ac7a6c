"""Why a live run differs from its replay: the differences by what happened on each question, and what drifted.

The parts of quality add up to the mean difference in quality, those of cost to the one in cost. Drift of a confidence
and of a rung's price act through them: they are told beside, by rung.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from escalade.evals import statistics
from escalade.evals.outcomes import UNKNOWN
from escalade.evals.studies.confirmation import Cause
from escalade.money import NANO

if TYPE_CHECKING:
    from escalade.evals.outcomes import Outcomes
    from escalade.evals.replay import Replayed
    from escalade.evals.studies.asking import Answered

ERROR, OTHER, GRADED, SAME = "an error", "another rung answered", "the same rung answered otherwise", "nothing"
PATH, PRICE = "other rungs were tried", "the same rungs cost something else"

Pair = tuple["Answered", int, float]
"""A live answer, the row of the replay that it is compared with, and the weight of the pair: one over the epochs."""


def causes_of(pairs: Sequence[Pair], replay: Replayed, outcomes: Outcomes) -> tuple[Cause, ...]:
    """Models that answer in place of others, then the largest first; what makes no difference is left out."""
    n = sum(weight for _, _, weight in pairs)
    found = [*_of_quality(pairs, replay, n), *_of_cost(pairs, replay, n), *_drifts(pairs, outcomes, n)]
    money = float(np.where(replay.cost == UNKNOWN, 0, replay.cost).mean()) / NANO or 1.0
    others = _others(pairs, outcomes, n)
    return (*others, *sorted(found, key=lambda one: -max(abs(one.quality or 0.0), abs(one.cost or 0.0) / money)))


def _others(pairs: Sequence[Pair], outcomes: Outcomes, n: float) -> list[Cause]:
    """Who answered for the last rung of a climb, and never did in the record, by the names that providers give."""
    seen: dict[tuple[str, str], float] = defaultdict(float)
    for one, _, weight in pairs:
        rung = outcomes.rungs[one.path[-1].rung].name if one.path else ""
        known = outcomes.responders.get(rung)
        if one.model and known and one.model not in known:
            seen[rung, one.model] += weight
    return [
        Cause(
            f"another model behind {rung}",
            share / n,
            None,
            None,
            f"{rung} is answered by {model}, and was by {' and '.join(outcomes.responders[rung])}",
        )
        for (rung, model), share in sorted(seen.items())
    ]


def _of_quality(pairs: Sequence[Pair], replay: Replayed, n: float) -> list[Cause]:
    parts = _parts(pairs, lambda one, row: _why(one, row, replay), lambda one, row: one.quality - replay.quality[row])
    return [
        Cause(name, share / n, part / n, None, f"{name} on {share / n:.1%} of questions ({100 * part / n:+.1f} points)")
        for name, (share, part) in parts.items()
        if name != SAME and (part or name == ERROR)
    ]


def _of_cost(pairs: Sequence[Pair], replay: Replayed, n: float) -> list[Cause]:
    def why(one: Answered, row: int) -> str:
        tried = set(np.flatnonzero(replay.tried[row]).tolist())
        return PRICE if {step.rung for step in one.path} == tried else PATH

    parts = _parts(pairs, why, lambda one, row: math.nan if replay.cost[row] < 0 else one.cost - int(replay.cost[row]))
    return [
        Cause(name, share / n, None, part / n / NANO, f"{name}, {1000 * part / n / NANO:+.4g} dollars per 1k")
        for name, (share, part) in parts.items()
        if part
    ]


def _parts(
    pairs: Sequence[Pair], why: Callable[[Answered, int], str], much: Callable[[Answered, int], float]
) -> dict[str, tuple[float, float]]:
    """Name of the cause -> (weight of the pairs, sum of what it makes)."""
    share: dict[str, float] = defaultdict(float)
    sums: dict[str, float] = defaultdict(float)
    for one, row, weight in pairs:
        name = why(one, row)
        share[name] += weight
        sums[name] += weight * float(much(one, row))
    return {name: (share[name], sums[name]) for name in share}


def _why(one: Answered, row: int, replay: Replayed) -> str:
    if bool(one.error) != bool(replay.errors[row]):
        return ERROR
    if one.chosen != int(replay.chosen[row]):
        return OTHER
    return SAME if one.quality == replay.quality[row] else GRADED


def _drifts(pairs: Sequence[Pair], outcomes: Outcomes, n: float) -> list[Cause]:
    """Of each rung, on the questions where it was tried live: confidence and price against what was recorded."""
    sure: dict[int, list[tuple[float, float]]] = defaultdict(list)
    paid: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for one, row, _ in pairs:
        for step in one.path:
            then, cost = float(outcomes.confidence[row, step.rung]), int(outcomes.cost[row, step.rung])
            if not (math.isnan(then) or math.isnan(step.confidence)):
                sure[step.rung].append((step.confidence, then))
            if step.status == "ok" and cost > 0:
                paid[step.rung].append((step.cost, cost))
    return [*_unsure(sure, outcomes, n), *_dearer(paid, outcomes, n)]


def _unsure(seen: dict[int, list[tuple[float, float]]], outcomes: Outcomes, n: float) -> list[Cause]:
    found = []
    for rung, both in sorted(seen.items()):
        now, then = (np.array(column) for column in zip(*both, strict=True))
        mean, low, high = statistics.paired_difference(now, then)
        if low > 0 or high < 0:
            name = outcomes.rungs[rung].name
            than = "surer" if mean > 0 else "less sure"
            said = f"{name} is {than} than it was, by {mean:+.3f} ({low:+.3f} to {high:+.3f})"
            found.append(Cause(f"confidence of {name}", min(1.0, len(both) / n), None, None, said))
    return found


def _dearer(paid: dict[int, list[tuple[int, int]]], outcomes: Outcomes, n: float) -> list[Cause]:
    found = []
    for rung, both in sorted(paid.items()):
        now, then = (sum(column) for column in zip(*both, strict=True))
        ratio = now / then
        if abs(ratio - 1) > 0.01:
            name = outcomes.rungs[rung].name
            said = f"an attempt of {name} costs {ratio:.2f} times what was recorded"
            found.append(Cause(f"price of {name}", min(1.0, len(both) / n), None, None, said))
    return found
