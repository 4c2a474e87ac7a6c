"""What policies gain on shuffled labels: nothing, or the evaluation leaks.

The gain of a policy is its quality above that of its own random mix: rungs dealt out to the questions at random, each
as often as the policy answers with it. Only a policy that knows which question needs which rung has one.

*Shuffled*, each question gets the labels of another one, all rungs at once; signals, answers and costs stay. No policy
can gain then, in expectation. One that does has seen labels of the questions that it was judged on: a replay that
peeks, a fit on its own test rows. The spread of the gain over all shuffles is known exactly (Hoeffding 1951, "A
combinatorial central limit theorem", Annals of Mathematical Statistics 22:558), so that one shuffle is enough to tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.policies import Constant
from escalade.evals._codes import STATUSES
from escalade.evals.folds import shuffled
from escalade.evals.outcomes import COLUMNS
from escalade.evals.replay import Fitted, Replayed, cross_fit, oracle, replay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.evidence import Evidence
    from escalade.evals.lineup import Entry
    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = ["MOST", "Gain", "Shuffled", "gain_of", "sample", "shuffled_gains", "subset", "unfitted"]

MOST = 300
"""Policies are fitted and replayed anew on shuffled labels of so many questions: a leak shows on few."""

FOLDS = 2

ALARM = 1e-4
"""Below this p value, divided by the number of policies, a gain on shuffled labels is no accident."""


@dataclass(frozen=True, slots=True)
class Gain:
    """`points`: above its own random mix, in 0..1. `error`: its standard deviation over all shuffles of the labels.
    `p`: chance of such a gain or more where nothing is known of the questions; nan where nothing can vary.
    """

    points: float
    error: float
    p: float

    @property
    def z(self) -> float:
        return self.points / self.error if self.error else 0.0


@dataclass(frozen=True, slots=True)
class Shuffled:
    """One policy on labels as they are (`gain`, `p`) and shuffled (`shuffled_gain`, `shuffled_p`, on `n` questions).

    `blind`: did it answer the shuffled questions as it answers the others? None for what is fitted to labels.
    """

    name: str
    gain: float
    p: float
    shuffled_gain: float
    shuffled_p: float
    n: int
    blind: bool | None


def gain_of(quality: Floats, chosen: Ints) -> Gain:
    """Of answering question i with rung `chosen[i]`, -1 for none. `quality`: (n, k).

    The mean of quality at random assignments is the sum over rungs of (share of the rung) x (its mean quality); the
    variance is the sum over all n x n cells of their doubly centred values squared, over n - 1, divided by n squared.
    """
    rows = np.flatnonzero(chosen >= 0)
    n, chosen, quality = len(rows), chosen[rows], quality[rows]
    if n < 2:
        return Gain(0.0, 0.0, math.nan)
    share = np.bincount(chosen, minlength=quality.shape[1]) / n
    centred = quality - quality.mean(axis=0)
    usual = centred @ share
    spread = sum(float(share[r] * ((centred[:, r] - usual) ** 2).sum()) for r in np.flatnonzero(share))
    points = float(centred[np.arange(n), chosen].mean())
    error = math.sqrt(spread / (n * (n - 1)))
    if error < 1e-12:
        return Gain(points, 0.0, math.nan)
    return Gain(points, error, NormalDist().cdf(-points / error))


def shuffled_gains(evidence: Evidence) -> tuple[Shuffled, ...]:
    """Each policy that chooses between rungs, on labels as they are and shuffled."""
    found = []
    outcomes = evidence.outcomes
    quality = labels_of(outcomes)
    part = sample(outcomes, evidence.seed)
    mixed = with_shuffled_labels(part, evidence.seed)
    for entry in _choosing(evidence) if part.n else ():
        one = evidence.played[entry.name].replayed
        again = _again(entry, mixed, evidence)
        if one is None or again is None:
            continue
        real, null = _real(quality[one.rows], one.chosen), gain_of(mixed.quality, again.chosen)
        blind = None if entry.fitted else _same_path(again, _again(entry, part, evidence))
        found.append(Shuffled(entry.name, real.points, real.p, null.points, null.p, part.n, blind))
    return tuple(found)


def unfitted(evidence: Evidence, found: tuple[Shuffled, ...]) -> tuple[str, ...]:
    """Policies of which nothing is known on shuffled labels: they couldn't be fitted to so few questions."""
    seen = {one.name for one in found}
    return tuple(entry.name for entry in _choosing(evidence) if entry.name not in seen)


def _choosing(evidence: Evidence) -> list[Entry]:
    """Those that choose between rungs, and that were replayed."""
    return [
        entry
        for entry in evidence.entries
        if evidence.played[entry.name].replayed is not None
        and entry.play is not None
        and not isinstance(entry.play, Constant)
    ]


def alarmed(found: tuple[Shuffled, ...]) -> tuple[Shuffled, ...]:
    """Those that gain on shuffled labels, or look at them."""
    least = ALARM / max(len(found), 1)
    return tuple(one for one in found if one.shuffled_p < least or one.blind is False)


def planted(outcomes: Outcomes, seed: int) -> Gain:
    """The gain on shuffled labels of what cheats: hindsight. It has to show, or the check can't fail."""
    part = sample(outcomes, seed)
    mixed = with_shuffled_labels(part, seed)
    return gain_of(mixed.quality, oracle(mixed).chosen)


def _real(quality: Floats, chosen: Ints) -> Gain:
    """Where some rungs were not asked, on the questions that are complete."""
    known = ~np.isnan(quality).any(axis=1)
    return gain_of(quality[known], chosen[known])


def sample(outcomes: Outcomes, seed: int) -> Outcomes:
    """A few hundred questions, drawn by seed and key, of which the quality of every rung is known."""
    lacking = np.flatnonzero(np.isnan(labels_of(outcomes)).any(axis=1))
    order = shuffled(outcomes.keys, seed)
    return subset(outcomes, order[~np.isin(order, lacking)][:MOST])


def labels_of(outcomes: Outcomes) -> Floats:
    """(n, k) quality, 0 for what failed, as replays count it."""
    good = outcomes.status == STATUSES.index("ok")
    found: Floats = np.where(good, outcomes.quality, 0.0)
    return found


def with_shuffled_labels(outcomes: Outcomes, seed: int) -> Outcomes:
    """Each question with the labels of another one, every grading alike; what failed counts as wrong before."""
    order = np.random.default_rng(seed).permutation(outcomes.n)
    gradings = {name: labels_of(replace(outcomes, quality=one))[order] for name, one in outcomes.gradings.items()}
    return replace(outcomes, quality=labels_of(outcomes)[order], gradings=gradings)


def subset(outcomes: Outcomes, rows: Ints) -> Outcomes:
    """The same ladder on these rows only, in their order here."""
    rows = np.sort(rows)
    columns: dict[str, Any] = {name: getattr(outcomes, name)[rows] for name in COLUMNS}
    at = rows.tolist()

    def some(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(names[i] for i in at)

    def each(table: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: column[rows] for name, column in table.items()}

    return replace(
        outcomes,
        keys=tuple(outcomes.keys[i] for i in at),
        category=some(outcomes.category),
        group=some(outcomes.group),
        features=each(outcomes.features),
        gradings=each(outcomes.gradings),
        form=None if outcomes.form is None else outcomes.form[rows],
        spent=None if outcomes.spent is None else outcomes.spent[rows],
        **columns,
    )


def _again(entry: Entry, outcomes: Outcomes, evidence: Evidence) -> Replayed | None:
    """The policy on these outcomes; None where there are too few questions to fit it."""
    if not isinstance(entry.play, Fitted):
        return None if entry.play is None else replay(entry.play, outcomes)
    if len(set(outcomes.group or outcomes.keys)) < 2 * FOLDS:
        return None
    try:
        return cross_fit(entry.play, outcomes, FOLDS, evidence.seed)
    except Exception:  # noqa: BLE001 - half of the questions are too few for it, which says nothing of the others
        return None


def _same_path(one: Replayed, other: Replayed | None) -> bool:
    return other is not None and bool((one.chosen == other.chosen).all() and (one.tried == other.tried).all())
