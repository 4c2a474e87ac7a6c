"""What another policy would have come to, from a log of climbs whose propensities are known.

    found = estimate(log.lines(), Threshold(0.9))
    found.quality.value, found.quality.low, found.quality.high

A climb of the log counts for the target by how much likelier the target was to take the same way: the product over its
actions of the target's chance over the logged one, w. Of n climbs with outcomes y,

    ips    sum of w y / n                           inverse propensity scores (Horvitz & Thompson 1952, JASA 47:663)
    snips  sum of w y / sum of w                    self-normalised (Hajek 1971; Swaminathan & Joachims 2015, NIPS)
    dr     v(s0) + sum over actions of w so far     doubly robust, action by action (Dudik, Langford & Li 2011, ICML;
           (r + v(s') - q(s, a))                    Jiang & Li 2016, ICML), with q and v fitted on other folds

IPS has no bias. The self-normalised mean has one that goes to 0 with n, and is mostly narrower. The doubly robust one
has no bias either, since propensities are known, and is narrower the better its model. Intervals are Student's t by
Hall's transformation (weights are skewed), by the groups of those who asked, else by question (`inference.clustered`).

It is refused where the target goes what the log can't tell: where it acts and the log's policy never did, and where so
few climbs count that no interval is to be trusted. Weights are clipped only on request, and what that may cost is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from escalade.agents.climb import Decision, Policy, Stop, View
from escalade.errors import BadInput, Censored, DataError
from escalade.evals.folds import assign_folds
from escalade.evals.inference import clustered
from escalade.evals.online._outcome_model import Action, Chances, Expect, Walk, expected, fitted, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.online.logged import Logged

    Floats = NDArray[np.float64]

__all__ = ["Estimate", "OffPolicy", "Randomised", "estimate"]

LEVEL = 0.95
BEYOND_DOUBT = 1 - 1e-6
"""The level at which weights have to average 1: they are skewed, and a log that is right must not be refused."""

LEAST_EFFECTIVE = 30
"""Climbs that count for less are too few: one of them could turn the estimate round."""


@runtime_checkable
class Randomised(Protocol):
    """A target that draws: it tells its chances in place of one decision."""

    def chances(self, view: View) -> Iterable[tuple[Decision, float]]:
        """Each decision that is possible here, with its probability; they add up to 1."""
        ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """`value`, between `low` and `high` at 95 %, by `method`."""

    method: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OffPolicy:
    """What a policy would have come to on the climbs of a log.

    `n`: climbs that were counted; `untold`: others, whose quality nobody told; they are left out, and with them
    whatever made people tell. `effective`: (sum of w)^2 / sum of w^2, the number of climbs that count. `followed`:
    share of the climbs on which the target might have gone the same way. `quality`, `cost` (nano-dollars per question):
    doubly robust; `qualities`, `costs`: by each method. `clipped`: share of all weight that clipping took away: so much
    lower at most, of 1, is the quality by IPS on average; 0 without clipping.
    """

    policy: str
    n: int
    untold: int
    effective: float
    followed: float
    quality: Estimate
    cost: Estimate
    qualities: tuple[Estimate, ...]
    costs: tuple[Estimate, ...]
    clipped: float = 0.0


def estimate(
    lines: Iterable[Logged], target: Policy, *, clip: float | None = None, folds: int = 5, seed: int = 0
) -> OffPolicy:
    """Judge `target` on the climbs of a log.

    `clip`: the most that a climb may count, None for no limit. `folds`, `seed`: for the model of the doubly robust
    estimate, which never sees the climb that it is used on. Raises Censored where the target goes what the log's policy
    never tried, DataError with too few climbs that count or weights that can't be, BadInput.
    """
    if clip is not None and not clip > 0:
        raise BadInput(f"clip: the most that a climb may count is above 0, not {clip!r}")
    every = list(lines)
    told = [line for line in every if line.quality is not None]
    if not told:
        raise DataError(f"{target.name}: of the {len(every):,} climbs in the log, the quality of none was told")
    walks = [_walk(line, target) for line in told]
    _supported(target, walks)
    raw = np.array([math.prod(walk.ratios) for walk in walks])
    group = _codes([line.group or line.key for line in told])
    _plausible(target, raw, group, clip)
    weights = raw if clip is None else np.minimum(raw, clip)
    fold = _folds([line.group or line.key for line in told], folds, seed)
    qualities = _estimates(walks, weights, group, fold, clip)
    costs = _estimates(
        [_paying(walk, line) for walk, line in zip(walks, told, strict=True)], weights, group, fold, clip
    )
    return OffPolicy(
        policy=target.name,
        n=len(told),
        untold=len(every) - len(told),
        effective=_effective(weights),
        followed=float((raw > 0).mean()),
        quality=qualities[-1],
        cost=costs[-1],
        qualities=qualities,
        costs=costs,
        clipped=0.0 if clip is None else float((raw - weights).sum() / max(raw.sum(), 1e-300)),
    )


def _walk(line: Logged, target: Policy) -> Walk:
    """With quality as the reward of the last action."""
    seen = tuple(line.views())
    actions: list[Action] = [("try", tried.rung) for tried in line.path]
    return Walk(
        states=tuple(state_of(view) for view in seen),
        actions=(*actions, ("stop", line.answered)),
        likely=(*(tried.propensity for tried in line.path), line.stop),
        target=tuple(_chances(target, view) for view in seen),
        rewards=(*(0.0 for _ in line.path), float(line.quality or 0.0)),
    )


def _paying(walk: Walk, line: Logged) -> Walk:
    """The same climb with what each attempt cost as its reward, nano-dollars."""
    return Walk(walk.states, walk.actions, walk.likely, walk.target, (*(float(t.cost) for t in line.path), 0.0))


def _chances(target: Policy, view: View) -> Chances:
    decided = target.chances(view) if isinstance(target, Randomised) else [(target.decide(view), 1.0)]
    found: dict[Action, float] = {}
    for decision, chance in decided:
        action = _action(decision, view)
        found[action] = found.get(action, 0.0) + chance
    return found


def _action(decision: Decision, view: View) -> Action:
    if not isinstance(decision, Stop):
        return "try", decision.rung
    return "stop", decision.attempt % len(view.attempts) if view.attempts else -1


def _supported(target: Policy, walks: Sequence[Walk]) -> None:
    """Raises Censored where the logged action was certain and the target might take another."""
    beyond = [walk for walk in walks if _goes_beyond(walk)]
    if beyond:
        share = len(beyond) / len(walks)
        raise Censored(
            f"{target.name}: on {len(beyond):,} of {len(walks):,} climbs ({share:.1%}) it acts as the log's policy "
            "never did there: what that comes to can't be told; let a share of the requests explore",
            policy=target.name,
            share=share,
        )


def _goes_beyond(walk: Walk) -> bool:
    for action, likely, chances in zip(walk.actions, walk.likely, walk.target, strict=True):
        if likely >= 1.0 and any(chance > 0 for other, chance in chances.items() if other != action):
            return True
        if not chances.get(action):
            return False  # from here on the target is on another way
    return False


def _plausible(target: Policy, raw: Floats, group: NDArray[np.int64], clip: float | None) -> None:
    """Raises DataError where too few climbs count, or weights don't average 1 as they have to."""
    effective = _effective(raw if clip is None else np.minimum(raw, clip))
    if effective < LEAST_EFFECTIVE:
        raise DataError(
            f"{target.name}: of {len(raw):,} climbs only {effective:.1f} count effectively, and it takes "
            f"{LEAST_EFFECTIVE}: it seldom goes where the log went; log more, or explore more"
        )
    mean, low, high = clustered.skewed_interval(raw, group, level=BEYOND_DOUBT)
    if not low <= 1.0 <= high:
        raise DataError(
            f"{target.name}: its weights average {mean:.3f} ({low:.3f} to {high:.3f} beyond doubt) and have to be 1: "
            "it acts as the policy of the log never did, or logged propensities are wrong"
        )


def _estimates(
    walks: Sequence[Walk], weights: Floats, group: NDArray[np.int64], fold: NDArray[np.int64], clip: float | None
) -> tuple[Estimate, ...]:
    """By ips, snips and dr."""
    y = np.array([math.fsum(walk.rewards) for walk in walks])
    share = float(weights.mean())
    normalised = float((weights * y).sum() / weights.sum())
    robust = np.empty(len(walks))
    for f in range(int(fold.max()) + 1):
        expect = fitted([walk for walk, held in zip(walks, fold, strict=True) if held != f])
        for i in np.flatnonzero(fold == f).tolist():
            robust[i] = _robust(walks[i], expect, clip)
    scores = {"ips": weights * y, "snips": normalised + weights * (y - normalised) / share, "dr": robust}
    return tuple(Estimate(name, *clustered.skewed_interval(z, group, level=LEVEL)) for name, z in scores.items())


def _robust(walk: Walk, expect: Expect, clip: float | None) -> float:
    """The doubly robust score of one climb."""
    score, so_far = expected(expect, walk.states[0], walk.target[0]), 1.0
    for at, (action, ratio) in enumerate(zip(walk.actions, walk.ratios, strict=True)):
        so_far *= ratio
        if so_far == 0.0:
            break
        ahead = 0.0
        if at + 1 < len(walk.actions):
            ahead = expected(expect, walk.states[at + 1], walk.target[at + 1])
        counted = so_far if clip is None else min(so_far, clip)
        score += counted * (walk.rewards[at] + ahead - expect(walk.states[at], action))
    return score


def _effective(weights: Floats) -> float:
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def _folds(names: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    distinct = len(set(names))
    if distinct < 2:
        raise DataError("all climbs are of one question or of one who asked: there is nothing to tell apart")
    return assign_folds(names, min(folds, distinct), seed)


def _codes(names: Sequence[str]) -> NDArray[np.int64]:
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64)
