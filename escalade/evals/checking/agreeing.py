"""Two gradings of the same answers: where they differ, and what that does to verdicts. A judge beside the reference.

Kappa is Cohen's (1960, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement
20:37), of right (at least one half) against wrong; its interval is a bootstrap over questions. Labels are a judge's if
their name begins with "judge": a model gave them. Judged quality is as good as the judge, so that it is never shown
without his agreement with reference labels, or the words "unchecked judge".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from escalade.errors import BadInput
from escalade.evals import statistics
from escalade.evals._codes import STATUSES
from escalade.evals.check import Check
from escalade.evals.inference.bootstrap import bootstrap_many
from escalade.evals.inference.clustered import difference
from escalade.evals.tables import Column, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.evidence import Evidence
    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]

__all__ = [
    "Agreement",
    "Changed",
    "agreements",
    "agreements_table",
    "beside",
    "changed",
    "judge_check",
    "kappa",
    "said",
    "turned",
]

JUDGE = "judge"
REPS = 500


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the labels in use with `other`, on the `n` answers of one rung (or of all, `rung` "all") that have both.

    `quality`, `other_quality`: the mean by each. `differ`: answers on which they differ. `kappa`: 1 is perfect, 0 is
    chance, nan where one of them always says the same; with its 95 % interval.
    """

    rung: str
    labels: str
    other: str
    n: int
    quality: float
    other_quality: float
    differ: int
    kappa: float
    kappa_low: float
    kappa_high: float


@dataclass(frozen=True, slots=True)
class Changed:
    """A verdict that becomes another when the very same answers are graded by `other`."""

    policy: str
    other: str
    verdict: str
    other_verdict: str


def kappa(a: Floats, b: Floats) -> float:
    """Cohen's kappa of two columns of qualities, right being 0.5 or more; nan where there is no chance to differ."""
    cells = _cells(np.asarray(a)[:, None], np.asarray(b)[:, None])
    return float(_kappas(cells.sum(axis=0))[0])


def agreements(outcomes: Outcomes, *, seed: int = 0) -> tuple[Agreement, ...]:
    """Of every other grading of this data: of all rungs, and of each. Empty where there is one grading only."""
    others = [other for other in outcomes.gradings if other != outcomes.labels]
    return tuple(one for other in others for one in _with(outcomes, other, seed))


def beside(outcomes: Outcomes, other: Outcomes) -> Outcomes:
    """The outcomes, with the labels of other ones as a second grading, by question and rung; nan where those have none.

    Both are of the same answers: a judge's labels beside a reference. Raises BadInput for labels of the same name,
    and for data that has no question or no rung in common.
    """
    if other.labels in {outcomes.labels, *outcomes.gradings}:
        raise BadInput(f"there are labels named {other.labels!r} already; give the others another name (labels=)")
    keys, rungs = {key: i for i, key in enumerate(other.keys)}, {rung.name: j for j, rung in enumerate(other.rungs)}
    rows = np.array([keys.get(key, -1) for key in outcomes.keys])
    columns = np.array([rungs.get(rung.name, -1) for rung in outcomes.rungs])
    both = (rows >= 0)[:, None] & (columns >= 0)[None, :]
    if not both.any():
        raise BadInput(f"{outcomes.name} and {other.name} have no question and rung in common")
    graded = np.where(both, other.quality[rows[:, None], columns[None, :]], np.nan)
    first = {outcomes.labels: outcomes.quality}
    return replace(outcomes, gradings=first | dict(outcomes.gradings) | {other.labels: graded})


def agreements_table(outcomes: Outcomes, *, seed: int = 0) -> Table | None:
    """The table "graders"; None where there is one grading only."""
    found = agreements(outcomes, seed=seed)
    return Table.of("graders", "Two gradings of the same answers", _COLUMNS, found, about=_ABOUT) if found else None


def changed(evidence: Evidence) -> tuple[Changed, ...]:
    """Verdicts that change when the answers that each policy gave are graded in another way, best policy first.
    Nothing is fitted anew.
    """
    outcomes, base = evidence.outcomes, evidence.base.replayed
    if base is None:
        return ()
    found = []
    for other in (labels for labels in outcomes.gradings if labels != outcomes.labels):
        for name, played in sorted(evidence.played.items(), key=lambda item: -float(item[1].quality.mean())):
            one = played.replayed
            if one is None or name == evidence.baseline or evidence.entry(name).play is None:
                continue
            before, after = (
                _verdict(evidence, one.rows, one.chosen, base.chosen, grading)
                for grading in (outcomes.quality, outcomes.gradings[other])
            )
            if after is not None and before != after:
                found.append(Changed(name, other, str(before), after))
    return tuple(found)


def judge_check(outcomes: Outcomes, *, seed: int = 0) -> Check | None:
    """The agreement of a judge with reference labels; None where no judge gave the labels."""
    if not outcomes.labels.startswith(JUDGE):
        return None
    known = [one for one in agreements(outcomes, seed=seed) if not one.other.startswith(JUDGE) and one.n]
    if not known:
        said = f"unchecked judge: quality is what {outcomes.labels!r} says; grade some answers by reference, too"
        return Check("judge", None, said)
    one = known[0]
    low, high = statistics.wilson(one.n - one.differ, one.n)
    return Check(
        "judge",
        None if math.isnan(one.kappa) else one.kappa_low > 0,
        f"the judge agrees with {one.other!r} on {(one.n - one.differ) / one.n:.1%} of {one.n:,} answers that have "
        f"both [{low:.1%}, {high:.1%}]; kappa {one.kappa:.2f} [{one.kappa_low:.2f}, {one.kappa_high:.2f}]; it finds "
        f"{one.quality:.1%} right, the reference {one.other_quality:.1%}",
    )


_ABOUT = "Where another grading of the very same answers differs from the labels that quality is taken from."

_COLUMNS = (
    Column("rung", "rung", "text", "Whose answers; all is those of every rung together."),
    Column("other", "compared with", "text", "The other labels."),
    Column("n", "answers", "count", "Answers that have both labels."),
    Column("quality", "quality", "share", "Mean by the labels in use."),
    Column("other_quality", "by the other", "share", "Mean by the other labels."),
    Column("differ", "differ", "count", "Answers on which the two differ."),
    Column(
        "kappa",
        "kappa",
        "figure",
        "Cohen's kappa (1960) of right against wrong: 1 is perfect agreement, 0 what chance gives.",
        "kappa_low",
        "kappa_high",
    ),
)


def _with(outcomes: Outcomes, other: str, seed: int) -> Iterator[Agreement]:
    mine, theirs = outcomes.quality, outcomes.gradings[other]
    cells = _cells(mine, theirs)
    cells = np.concatenate([cells.sum(axis=1, keepdims=True), cells], axis=1)
    units = outcomes.group or (outcomes.keys if len(set(outcomes.keys)) < outcomes.n else None)
    flat = cells.reshape(outcomes.n, -1)
    intervals = bootstrap_many(
        lambda weights: _kappas((weights @ flat).reshape(len(weights), -1, 4)),
        outcomes.n,
        reps=REPS,
        seed=seed,
        group=None if units is None else np.asarray(units),
    )
    all_rungs = slice(0, outcomes.k)
    places = [("all", all_rungs), *((rung.name, slice(at, at + 1)) for at, rung in enumerate(outcomes.rungs))]
    for (name, at), interval in list(zip(places, intervals, strict=True))[outcomes.k == 1 :]:
        a, b = mine[:, at], theirs[:, at]
        both = ~np.isnan(a) & ~np.isnan(b)
        n = int(both.sum())
        means = (float(a[both].mean()), float(b[both].mean())) if n else (math.nan, math.nan)
        differ = int((a != b)[both].sum())
        yield Agreement(name, outcomes.labels, other, n, *means, differ, interval.value, interval.low, interval.high)


def _cells(a: Floats, b: Floats) -> Floats:
    """(n, k, 4): right by both, by the first alone, by the second alone, by none; all 0 where one is missing."""
    both, x, y = ~np.isnan(a) & ~np.isnan(b), a >= 0.5, b >= 0.5
    return np.stack([both & one & two for one in (x, ~x) for two in (y, ~y)], axis=-1).astype(np.float64)


def _kappas(cells: Floats) -> Floats:
    """(..., 4) counts as in `_cells` -> (...) kappas; nan without any, or where nothing can differ."""
    share = cells / np.maximum(cells.sum(axis=-1, keepdims=True), 1e-300)
    same = share[..., 0] + share[..., 3]
    right, other = share[..., 0] + share[..., 1], share[..., 0] + share[..., 2]
    chance = right * other + (1.0 - right) * (1.0 - other)
    known = (chance < 1.0 - 1e-12) & (cells.sum(axis=-1) > 0)
    found: Floats = np.divide(same - chance, 1.0 - chance, out=np.full(chance.shape, np.nan), where=known)
    return found


def _verdict(
    evidence: Evidence, rows: NDArray[np.int64], chosen: NDArray[np.int64], base: NDArray[np.int64], grading: Floats
) -> str | None:
    """Of answers as they are, by this grading; None where it lacks some of them."""
    mine, other = (_graded(evidence.outcomes, rows, one, grading) for one in (chosen, base))
    if np.isnan(mine).any() or np.isnan(other).any():
        return None
    asked = evidence.questions
    found = difference(asked.mean(mine), asked.mean(other), asked.group)
    return statistics.judged(found.low, found.high, evidence.margin, asked.n, asked.clusters, floor=found.floor)


def _graded(outcomes: Outcomes, rows: NDArray[np.int64], chosen: NDArray[np.int64], grading: Floats) -> Floats:
    good = (chosen >= 0) & (outcomes.status[rows, chosen] == STATUSES.index("ok"))
    found: Floats = np.where(good, grading[rows, chosen], 0.0)
    return found


def said(found: tuple[Changed, ...]) -> Iterator[str]:
    """One sentence for each other grading that changes a verdict."""
    for other in dict.fromkeys(one.other for one in found):
        yield turned(other, ((one.policy, one.verdict, one.other_verdict) for one in found if one.other == other))


def turned(labels: str, verdicts: Iterable[tuple[str, str, str]]) -> str:
    """What other labels of the same answers make of verdicts: of (policy, verdict, the other verdict), grouped."""
    groups: dict[tuple[str, str], list[str]] = {}
    for policy, before, after in verdicts:
        groups.setdefault((before, after), []).append(policy)
    told = "; ".join(f'"{a}" becomes "{b}" for {", ".join(names)}' for (a, b), names in groups.items())
    return f"These verdicts hang on the labels. With --labels {labels}, {told}."
