"""What keeps a policy from the oracle, in parts that add up to the gap exactly.

A policy that escalates chooses, on each question, between a *low* answer (what it gives when it stays) and a *high* one
(that of the rung it escalates to). Let g be what the high answer gains on a question and e > 0 what it costs more, as
recorded. The policy escalates a set of questions, and B is the sum of e over it: what it spends on escalation. With
Q(S) the mean quality when the set S is escalated,

    oracle      every question at its best rung of all           quality at no budget
    hindsight   every question where g > 0                       the same two answers, no budget
    afforded    the best S with e(S) <= B, knowing g             hindsight on the policy's own money (a knapsack; its
                                                                 linear relaxation, so an upper bound)
    predicted   S cut from the order of E[g | signals] / e       the order that can be learned from what it sees
    reordered   S cut from the order of the policy's own score   its own order
    policy      what it does

where an order is cut at its best place within B, knowing g: so that two orders are compared, not two cuts. Then

    unused          oracle - hindsight       rungs that it never asks, or doesn't keep the answer of
    over budget     hindsight - afforded     right answers that its money doesn't buy
    unpredictable   afforded - predicted     what the signals don't tell
    misranked       predicted - reordered    what they tell, and its order leaves out
    miscalibrated   reordered - policy       its cut isn't where it should be
    measurement     gap by the labels in use - gap by the second grading, where the data has one: all other parts are
                    then by the second grading, of the very same climbs

Limits. The order that is "predicted" is a ridge regression of g on the signals in quantile bins, out of fold: a better
learner would move quality from unpredictable to misranked. Both cuts look at g, so a noisy order is flattered a little,
and misranked may come out below zero where the policy's order is the better one. All is meant at what the policy
spends: one that seldom escalates lacks money ("over budget"), not calibration. Signals are facts that are numbers,
categories, and the confidence and agreement of the attempts it had made. Where a cost is unknown, e is 1 everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.policies import Constant
from escalade.evals._codes import NO_ANSWER
from escalade.evals._rows import sweep_behind
from escalade.evals.checking.shuffling import labels_of
from escalade.evals.folds import assign_folds
from escalade.evals.outcomes import UNKNOWN
from escalade.evals.tables import Column, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.evidence import Evidence
    from escalade.evals.lineup import Entry
    from escalade.evals.outcomes import Outcomes
    from escalade.evals.replay import Replayed

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

__all__ = ["Choice", "Gap", "choice_of", "gap_of", "gaps", "gaps_table"]

BINS, RIDGE = 8, 3.0


@dataclass(frozen=True, slots=True)
class Gap:
    """`gap` = `oracle` - `quality`, and its parts, which add up to it; all in 0..1 of quality. `labels`: by which the
    gap is meant; `measurement` is None where there is no second grading, and 0 in the sum.
    """

    name: str
    labels: str
    oracle: float
    quality: float
    gap: float
    unused: float
    over_budget: float
    unpredictable: float
    misranked: float
    miscalibrated: float
    measurement: float | None

    @property
    def parts(self) -> tuple[float, ...]:
        """Their sum is the gap."""
        known = (self.unused, self.over_budget, self.unpredictable, self.misranked, self.miscalibrated)
        return (*known, self.measurement or 0.0)


@dataclass(frozen=True)
class Choice:
    """What a policy chose between on n questions. `low`, `high`: (n,) quality of the two answers. `extra`: (n,) what
    the high one costs more, above 0. `taken`: (n,) where it escalated. `score`: (n,) its own order, the highest first;
    nan is before all. `signals`: (n, m) what it saw when it chose, nan where unknown.
    """

    low: Floats
    high: Floats
    extra: Floats
    taken: Bools
    score: Floats
    signals: Floats

    @property
    def gain(self) -> Floats:
        return self.high - self.low

    @property
    def budget(self) -> float:
        return float(self.extra[self.taken].sum())


def gaps(evidence: Evidence) -> tuple[Gap, ...]:
    """Of each policy that chooses between a low and a high answer, in the order of the comparison."""
    return tuple(gap for entry in evidence.entries if (gap := gap_of(evidence, entry)) is not None)


def gap_of(evidence: Evidence, entry: Entry) -> Gap | None:
    """Of one policy; None for constants, random mixes, the oracle, one that never or always escalates, and where some
    rungs were not asked.
    """
    one, outcomes = evidence.played[entry.name].replayed, evidence.outcomes
    if one is None or entry.play is None or isinstance(entry.play, Constant) or not outcomes.whole:
        return None
    sweep = sweep_behind(entry, evidence.lineup, evidence.folds)
    chosen = choice_of(one, outcomes, None if sweep is None else sweep.score)
    if chosen is None:
        return None
    other = _second(outcomes)
    if other is None:
        return _gap(entry.name, outcomes, one, chosen, evidence, None)
    again = choice_of(one, other, chosen.score)
    if again is None:
        return None
    first = float(labels_of(outcomes).max(axis=1).mean() - one.quality.mean())
    return replace(_gap(entry.name, other, one, again, evidence, first), labels=outcomes.labels)


def gaps_table(evidence: Evidence) -> Table | None:
    """The table "gap"; None where no policy chooses."""
    found = gaps(evidence)
    if not found:
        return None
    other = _second(evidence.outcomes)
    note = "there is no second grading: what is wrong with the labels is in the other parts"
    if other is not None:
        note = f"all parts but measurement are by {other.labels!r}, of the same answers"
    return Table.of("gap", "What keeps policies from the oracle", _COLUMNS, found, about=_ABOUT, notes=[note])


_ABOUT = "The oracle's quality minus the policy's, taken apart; the parts of a row add up to its gap."

_COLUMNS = (
    Column("name", "policy", "text", "The policy."),
    Column("gap", "gap", "points", "Quality of the oracle over all rungs, minus the policy's."),
    Column(
        "unpredictable",
        "unpredictable",
        "points",
        "What its signals don't tell: hindsight on its money, minus the best cut of an order learned from them.",
    ),
    Column(
        "misranked",
        "misranked",
        "points",
        "The best cut of the learned order (ridge regression, out of fold), minus that of its own order.",
    ),
    Column(
        "miscalibrated", "miscalibrated", "points", "The best cut of its own order within its money, minus its own."
    ),
    Column(
        "over_budget",
        "over budget",
        "points",
        "Hindsight on its two answers, minus the same with no more money for escalation than it spends.",
    ),
    Column("unused", "unused", "points", "The oracle over all rungs, minus hindsight on its two answers."),
    Column("measurement", "measurement", "points", "The gap by the labels in use, minus that by the second grading."),
)


def choice_of(one: Replayed, outcomes: Outcomes, score: Floats | None = None) -> Choice | None:
    """What a replayed policy chose between; None where it never or always escalates.

    The high rung is the dearest that it answers with; its low answer, where it escalated, is that of the last good
    attempt before, or, for a router that asks one rung alone, that of the rung it mostly stays with. `score`: by row.
    """
    quality, cost = labels_of(outcomes)[one.rows], outcomes.cost[one.rows].astype(np.float64)
    used = np.unique(one.chosen[one.chosen >= 0])
    if len(used) < 2:
        return None
    high = int(used[-1])
    taken, at = one.tried[:, high], np.arange(one.n)
    if taken.all() or not taken.any():
        return None
    graded = np.where(one.chosen >= 0, quality[at, one.chosen], 0.0)
    before = one.tried.copy()
    before[:, high] = False
    stays = int(np.bincount(one.chosen[~taken & (one.chosen >= 0)], minlength=outcomes.k).argmax())
    good = before & (outcomes.status[one.rows] == 0)
    last = np.where(good.any(axis=1), outcomes.k - 1 - good[:, ::-1].argmax(axis=1), stays)
    alone = taken & ~before.any(axis=1)  # a router: it doesn't look at an answer before it escalates
    low = np.where(taken, np.where(good.any(axis=1) | alone, quality[at, last], 0.0), graded)
    extra = cost[:, high] - np.where(alone if alone.any() else False, cost[:, stays], 0.0)
    if (outcomes.cost[one.rows] == UNKNOWN).any():
        extra = np.ones(one.n)
    return Choice(
        low=low,
        high=np.where(taken, graded, quality[:, high]),
        extra=np.maximum(extra, 1.0),
        taken=taken,
        score=taken.astype(np.float64) if score is None else np.asarray(score, dtype=np.float64)[one.rows],
        signals=_signals(one, outcomes, before),
    )


def split(choice: Choice, fold: NDArray[np.int64]) -> dict[str, float]:
    """Mean qualities: "hindsight", "afforded", "predicted", "reordered", "policy". `fold`: (n,), of each question."""
    gain, extra, n = choice.gain, choice.extra, len(choice.low)
    base = float(choice.low.mean())
    mine = float(gain[choice.taken].sum())
    order = np.where(gain > 0, gain / extra, -np.inf)
    expected = _expected(choice, fold)
    ratio = np.where(expected > 0, expected / extra, expected)
    own = np.where(np.isnan(choice.score), np.inf, choice.score)
    best = {
        "hindsight": float(np.maximum(gain, 0.0).sum()),
        "afforded": _cut(order, gain, extra, choice.budget),
        "predicted": _cut(ratio, gain, extra, choice.budget),
        "reordered": max(mine, _cut(own, gain, extra, choice.budget)),
        "policy": mine,
    }
    best["afforded"] = max(best["afforded"], best["predicted"], best["reordered"])  # they differ by rounding alone
    return {name: base + value / n for name, value in best.items()}


def _gap(name: str, outcomes: Outcomes, one: Replayed, choice: Choice, evidence: Evidence, first: float | None) -> Gap:
    """`first`: the gap by the labels in use, where these are the second ones."""
    at = split(choice, _folds(evidence)[one.rows])
    oracle = float(labels_of(outcomes)[one.rows].max(axis=1).mean())
    gap = oracle - at["policy"]
    shown = gap if first is None else first
    quality = float(one.quality.mean())
    return Gap(
        name=name,
        labels=outcomes.labels,
        oracle=quality + shown,
        quality=quality,
        gap=shown,
        unused=oracle - at["hindsight"],
        over_budget=at["hindsight"] - at["afforded"],
        unpredictable=at["afforded"] - at["predicted"],
        misranked=at["predicted"] - at["reordered"],
        miscalibrated=at["reordered"] - at["policy"],
        measurement=None if first is None else first - gap,
    )


def _folds(evidence: Evidence) -> NDArray[np.int64]:
    outcomes = evidence.outcomes
    distinct = len(set(outcomes.keys if outcomes.group is None else outcomes.group))
    if distinct < 2:
        return np.zeros(outcomes.n, dtype=np.int64)
    return assign_folds(outcomes.keys, min(evidence.folds, distinct), evidence.seed, group=outcomes.group)


def _second(outcomes: Outcomes) -> Outcomes | None:
    """By the other grading, if there is one of all answers."""
    for name, grading in outcomes.gradings.items():
        if name != outcomes.labels and not np.isnan(grading).any():
            return outcomes.graded(name)
    return None


def _cut(order: Floats, gain: Floats, extra: Floats, budget: float) -> float:
    """The most that is gained by escalating from the top of an order, within the budget. Equal places go together, or
    in part at random: nobody can tell them apart.
    """
    _, group = np.unique(-order, return_inverse=True)
    gains, costs = np.bincount(group, weights=gain), np.bincount(group, weights=extra)
    spent, gained = np.cumsum(costs), np.cumsum(gains)
    inside = int(np.searchsorted(spent, budget * (1 + 1e-12), side="right"))
    reached = np.append(0.0, gained[:inside])
    if inside < len(gains):
        left = budget - (spent[inside - 1] if inside else 0.0)
        reached = np.append(reached, reached[-1] + gains[inside] * max(0.0, left) / costs[inside])
    return float(reached.max())


# ---------------------------------------------------------------------------------------------------------- prediction


def _expected(choice: Choice, fold: NDArray[np.int64]) -> Floats:
    """(n,) E[g | signals] by ridge regression, out of fold."""
    found, gain = np.zeros(len(fold)), choice.gain
    design = _binned(np.column_stack([choice.signals, choice.score]))
    parts = [np.flatnonzero(fold == f) for f in np.unique(fold)]
    grams = [design[part].T @ design[part] for part in parts]
    every = np.sum(grams, axis=0) + RIDGE * np.eye(design.shape[1])
    for part, gram in zip(parts, grams, strict=True):
        train = np.delete(np.arange(len(fold)), part)
        mean = float(gain[train].mean()) if len(train) else 0.0
        weights = np.linalg.solve(every - gram, design[train].T @ (gain[train] - mean))
        found[part] = mean + design[part] @ weights
    return found


def _binned(signals: Floats) -> Floats:
    """Each signal as one column per quantile bin, and one for "unknown": no shape is assumed."""
    return np.concatenate([*map(_bins, signals.T), np.zeros((len(signals), 1))], axis=1)


def _bins(signal: Floats) -> Floats:
    known = ~np.isnan(signal)
    if not known.any():
        return np.zeros((len(signal), 1))
    edges = np.unique(np.quantile(signal[known], np.arange(1, BINS) / BINS))
    place = np.where(known, np.searchsorted(edges, np.where(known, signal, 0.0), side="right"), len(edges) + 1)
    found: Floats = np.eye(len(edges) + 2)[place]
    return found


def _signals(one: Replayed, outcomes: Outcomes, before: Bools) -> Floats:
    return np.column_stack(list(_columns(one, outcomes, before)))


def _columns(one: Replayed, outcomes: Outcomes, before: Bools) -> Iterator[Floats]:
    """What was seen before the high rung was tried."""
    for column in outcomes.features.values():
        if column.dtype != object:
            yield column[one.rows].astype(np.float64)
    if outcomes.category is not None:
        names = {name: i for i, name in enumerate(dict.fromkeys(outcomes.category))}
        codes = np.array([names[name] for name in outcomes.category])[one.rows]
        yield from ((codes == i).astype(np.float64) for i in names.values())
    for rung in np.flatnonzero(before.any(axis=0)):
        yield np.where(before[:, rung], outcomes.confidence[one.rows, rung], np.nan)
    answers = np.where(before, outcomes.answer[one.rows], NO_ANSWER)
    yield before.sum(axis=1).astype(np.float64)
    most = np.zeros(one.n)
    for rung in np.flatnonzero(before.any(axis=0)):
        same = (answers == answers[:, [rung]]) & (answers != NO_ANSWER)
        most = np.maximum(most, np.where(answers[:, rung] != NO_ANSWER, same.sum(axis=1), 0))
    yield most
