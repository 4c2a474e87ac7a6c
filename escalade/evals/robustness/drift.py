"""A model that isn't what it was, behind the same name: by who says he answered, and by how he answers.

    drift(older, newer)             each rung, on the same questions or on others: what changed, with p values
    changed_at(values)              where in a series, such as the lengths of answers over time, the level changed
    responders("runs/monday")       who answered for each rung of a recorded study, as the provider names him

`drift` compares per rung what doesn't need the old answers: quality, confidence, length of the answer, share of the
other rungs that agree, latency, cost, failed attempts. On the same questions the differences are paired and their signs
are flipped at random; on others the labels "older" and "newer" are dealt out anew. Both are permutation tests: whatever
the distribution, a false alarm is as rare as its level says, for questions that are independent (questions of a group
move together). All p values are adjusted together by Holm. A rung's agreement falls when another one changes, too: look
at all of its figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.climb import OK
from escalade.errors import BadInput, DataError
from escalade.evals.outcomes import NO_ANSWER, STATUSES, UNKNOWN
from escalade.evals.statistics import holm
from escalade.money import NANO

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]

__all__ = ["Change", "ChangePoint", "Responder", "changed_at", "drift", "responders", "swapped"]

DRAWS, LEVEL, LEAST = 4_999, 0.05, 8
"""Permutations, the level of an alarm, and the fewest questions that are compared."""

CELLS = 4_000_000
"""So many signs are drawn at once."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one rung, before and after. `what`: its name; "usd" and "seconds" say their units.

    `n`: questions compared; where `paired`, the same ones. `p`: of the permutation test, two-sided; `p_holm`: adjusted
    for all figures of all rungs together.
    """

    rung: str
    what: str
    older: float
    newer: float
    n: int
    paired: bool
    p: float
    p_holm: float = math.nan

    @property
    def alarm(self) -> bool:
        """Is it unlikely, at 5 % for all of them together, to be chance?"""
        return self.p_holm <= LEVEL


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """`at`: the first index after the likeliest change; `before`, `after`: means; `p`: that there is none."""

    at: int
    before: float
    after: float
    p: float


@dataclass(frozen=True, slots=True)
class Responder:
    """`model`: as the provider names who answered. `first`, `last`: seconds since the epoch. `count`: attempts."""

    rung: str
    model: str
    count: int
    first: float
    last: float


def drift(older: Outcomes, newer: Outcomes, *, seed: int = 0, draws: int = DRAWS) -> tuple[Change, ...]:
    """Every figure that both have, of every rung that both have by name; the least likely first.

    Paired on the questions of the same key where both have at least half of their questions in common, else unpaired.
    Raises DataError without a common rung, or with fewer than LEAST questions to compare.
    """
    if draws < 99:
        raise BadInput(f"draws: 99 or more, so that a p value can be small, not {draws}")
    rungs = [rung.name for rung in older.rungs if rung.name in {other.name for other in newer.rungs}]
    if not rungs:
        raise DataError("no rung is in both data sets by name; nothing can be compared")
    before, after = _Told(older), _Told(newer)
    common = [key for key in before.keys if key in after.at]
    paired = 2 * len(common) >= max(len(before.keys), len(after.keys))
    least = len(common) if paired else min(len(before.keys), len(after.keys))
    if least < LEAST:
        raise DataError(f"{least} questions are too few to tell chance from change; it takes {LEAST} at least")
    figures = [(rung, what) for rung in rungs for what in FIGURES]
    old, new = (np.column_stack([told.figure(rung, what) for rung, what in figures]) for told in (before, after))
    rng = np.random.default_rng(seed)
    if paired:
        old, new = old[[before.at[key] for key in common]], new[[after.at[key] for key in common]]
        unit = [before.group[before.at[key]] for key in common]
        p = _flipped(new - old, _codes(unit), rng, draws)
    else:
        p = _dealt(old, new, _codes(before.group), _codes(after.group), rng, draws)
    found = list(_changes(figures, old, new, p, paired=paired))
    adjusted = holm([change.p for change in found])
    whole = [replace(change, p_holm=one) for change, one in zip(found, adjusted, strict=True)]
    return tuple(sorted(whole, key=lambda change: (change.p_holm, change.p)))


def changed_at(values: ArrayLike, *, seed: int = 0, draws: int = 1_999) -> ChangePoint:
    """The likeliest change of level in a series, and how likely so large a one is by chance.

    The statistic is the largest standardised CUSUM, max over t of |S_t - t/n S_n| / sqrt(t (n - t) / n), over all t
    that leave LEAST values on either side; the values are dealt out anew for its distribution, which holds for values
    that are exchangeable where nothing changes. Raises DataError for fewer than 2 * LEAST values, or unknown ones.
    """
    series = np.asarray(values, dtype=np.float64)
    n = len(series)
    if series.ndim != 1 or n < 2 * LEAST or np.isnan(series).any():
        raise DataError(f"changed_at takes {2 * LEAST} known values or more, in the order of time")
    centred = series - series.mean()
    t = np.arange(LEAST, n - LEAST + 1)
    scale = np.sqrt(t * (n - t) / n)

    def largest(rows: Floats) -> Floats:
        moved: Floats = np.abs(np.cumsum(rows, axis=1)[:, t - 1]) / scale
        found: Floats = moved.max(axis=1)
        return found

    path = np.abs(np.cumsum(centred)[t - 1]) / scale
    at = int(t[np.argmax(path)])
    rng, above = np.random.default_rng(seed), 0
    for size in _blocks(draws, n):
        drawn = rng.permuted(np.broadcast_to(centred, (size, n)), axis=1)
        above += int((largest(drawn) >= path.max() * (1 - 1e-12)).sum())
    return ChangePoint(at, float(series[:at].mean()), float(series[at:].mean()), (1 + above) / (1 + draws))


def responders(run: str | Path) -> tuple[Responder, ...]:
    """Who answered for each rung of a run directory, in the order of first appearance. Raises DataError."""
    from escalade.evals.studies.rundir import RunDir, is_run

    if not is_run(run):
        raise DataError(f"{run}: not a run directory; it has no study.json")
    found: dict[tuple[str, str], list[float]] = {}
    for line in RunDir(run).lines():
        if line.get("model"):
            found.setdefault((str(line["rung"]), str(line["model"])), []).append(float(line.get("at", 0.0)))
    known = [Responder(rung, model, len(at), min(at), max(at)) for (rung, model), at in found.items()]
    return tuple(sorted(known, key=lambda one: (one.rung, one.first)))


def swapped(older: str | Path, newer: str | Path | None = None) -> tuple[str, ...]:
    """One sentence for each rung behind which another model answers than before: within one run, or since an older one.

    What a provider doesn't tell, or changes without another name, isn't seen here: `drift` looks at the answers.
    """
    runs = [responders(older)] + ([] if newer is None else [responders(newer)])
    told = []
    for rung in dict.fromkeys(one.rung for run in runs for one in run):
        names = [list(dict.fromkeys(one.model for one in run if one.rung == rung)) for run in runs]
        if any(len(models) > 1 for models in names):
            most = max((models for models in names), key=len)
            told.append(f"{rung}: answered by {' and '.join(most)} within one run")
        elif len(names) == 2 and all(names) and names[0] != names[1]:
            told.append(f"{rung}: answered by {names[1][0]}, before by {names[0][0]}")
    return tuple(told)


def _changes(
    figures: Sequence[tuple[str, str]], old: Floats, new: Floats, p: Floats, *, paired: bool
) -> Iterator[Change]:
    for at, (rung, what) in enumerate(figures):
        a, b = old[:, at], new[:, at]
        known = ~np.isnan(a - b) if paired else None
        a, b = (a[known], b[known]) if known is not None else (a[~np.isnan(a)], b[~np.isnan(b)])
        if min(len(a), len(b)) >= LEAST and not (np.ptp(a) == 0 == np.ptp(b) and a[0] == b[0]):
            yield Change(rung, what, float(a.mean()), float(b.mean()), min(len(a), len(b)), paired, float(p[at]))


class _Told:
    """Outcomes by distinct question: figures are means over its epochs."""

    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes
        self.keys = list(dict.fromkeys(outcomes.keys))
        self.at = {key: i for i, key in enumerate(self.keys)}
        self._row = np.array([self.at[key] for key in outcomes.keys], dtype=np.int64)
        named = dict(zip(outcomes.keys, outcomes.group or outcomes.keys, strict=True))
        self.group = [named[key] for key in self.keys]
        self._rung = {rung.name: i for i, rung in enumerate(outcomes.rungs)}

    def figure(self, rung: str, what: str) -> Floats:
        values = FIGURES[what](self.outcomes, self._rung[rung])
        known = ~np.isnan(values)
        total = np.bincount(self._row[known], values[known], minlength=len(self.keys))
        count = np.bincount(self._row[known], minlength=len(self.keys))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _agreement(outcomes: Outcomes, rung: int) -> Floats:
    """Share of the other rungs with an answer that have the same one; nan where nobody else has one."""
    answer = outcomes.answer
    others = [other for other in range(outcomes.k) if other != rung]
    answered = answer[:, others] != NO_ANSWER
    same = (answer[:, others] == answer[:, [rung]]) & answered
    known = answered.any(axis=1) & (answer[:, rung] != NO_ANSWER)
    return np.where(known, same.sum(axis=1) / np.maximum(answered.sum(axis=1), 1), np.nan)


def _chars(outcomes: Outcomes, rung: int) -> Floats:
    return np.full(outcomes.n, np.nan) if outcomes.form is None else outcomes.form[:, rung, 0]


def _usd(outcomes: Outcomes, rung: int) -> Floats:
    cost = outcomes.cost[:, rung]
    return np.where(cost == UNKNOWN, np.nan, cost / NANO)


FIGURES: Mapping[str, Callable[[Outcomes, int], Floats]] = {
    "quality": lambda outcomes, rung: outcomes.quality[:, rung],
    "confidence": lambda outcomes, rung: outcomes.confidence[:, rung],
    "answer chars": _chars,
    "agreement": _agreement,
    "latency seconds": lambda outcomes, rung: outcomes.latency[:, rung],
    "cost usd": _usd,
    "failed": lambda outcomes, rung: (outcomes.status[:, rung] != STATUSES.index(OK)).astype(np.float64),
}
"""What is compared, `(n,)` of a rung, by name."""


def _codes(names: Sequence[str]) -> NDArray[np.int64]:
    known = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names], dtype=np.int64)


def _flipped(differences: Floats, unit: NDArray[np.int64], rng: np.random.Generator, draws: int) -> Floats:
    """Two-sided p value of each column's mean under random signs, one sign for each unit."""
    d = np.nan_to_num(differences)
    sums = np.zeros((int(unit.max()) + 1, d.shape[1]))
    np.add.at(sums, unit, d)
    seen, above = np.abs(sums.sum(axis=0)), np.zeros(d.shape[1])
    for size in _blocks(draws, len(sums)):
        signs = rng.integers(0, 2, (size, len(sums)), dtype=np.int8).astype(np.float64) * 2 - 1
        above += (np.abs(signs @ sums) >= seen * (1 - 1e-9)).sum(axis=0)
    return (1 + above) / (1 + draws)


def _dealt(
    old: Floats,
    new: Floats,
    units_old: NDArray[np.int64],
    units_new: NDArray[np.int64],
    rng: np.random.Generator,
    draws: int,
) -> Floats:
    """Two-sided p value of each column's difference of means with the labels dealt out anew, unit by unit."""
    unit = np.append(units_old, units_new + int(units_old.max()) + 1)
    count_old, units = int(units_old.max()) + 1, int(unit.max()) + 1
    pooled = np.vstack([old, new])
    known = ~np.isnan(pooled)
    sums, counts = np.zeros((units, pooled.shape[1])), np.zeros((units, pooled.shape[1]))
    np.add.at(sums, unit, np.where(known, pooled, 0.0))
    np.add.at(counts, unit, known.astype(np.float64))

    def gaps(label: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            a, n = label @ sums, label @ counts
            apart: Floats = np.abs(a / n - (sums.sum(axis=0) - a) / (counts.sum(axis=0) - n))
        return apart

    first = (np.arange(units) < count_old).astype(np.float64)
    seen, above = gaps(first[None])[0], np.zeros(pooled.shape[1])
    for size in _blocks(draws, units):
        labels = rng.permuted(np.broadcast_to(first, (size, units)), axis=1)
        above += (gaps(labels) >= seen * (1 - 1e-9)).sum(axis=0)
    return (1 + above) / (1 + draws)


def _blocks(draws: int, n: int) -> Iterator[int]:
    size = max(1, CELLS // max(1, n))
    for begin in range(0, draws, size):
        yield min(size, draws - begin)
