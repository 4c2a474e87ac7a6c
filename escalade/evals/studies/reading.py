"""A run directory as Outcomes, in columns: 1,000,000 attempts in some 3 s (`benchmarks/studies.py` has the figure).

A row for each question and epoch, in the order of `questions.jsonl`; rows of one key are epochs of one question. Of
several lines of one attempt the last counts. Lines of another program than the study's, which have another digest, are
not read as its own.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.climb import Rung
from escalade.agents.forms import Form
from escalade.errors import BadInput, DataError, one_of
from escalade.evals._codes import NO_ANSWER, STATUSES, UNKNOWN, fact_column
from escalade.evals.outcomes import Outcomes
from escalade.evals.prices import Listed
from escalade.evals.studies.blocks import blocks
from escalade.evals.studies.references import beside
from escalade.evals.studies.rundir import PRICES, QUESTIONS, STUDY, RunDir
from escalade.money import Money
from escalade.registry.prices import Price

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals._draft import Choices

__all__ = ["Filled", "chosen", "outcomes_of", "read_run", "replayed"]


@dataclass(frozen=True)
class Filled:
    """Outcomes, and the rows of them that are complete: `(n,)` bool. `owed`: attempts that are missing."""

    outcomes: Outcomes
    complete: NDArray[np.bool_]
    owed: int


def read_run(path: str | Path, *, missing: str = "refuse") -> Outcomes:
    """The outcomes in a run directory. `missing`: "refuse" one whose attempts aren't complete, "drop" those questions,
    or "keep" them: their quality is nan. Raises DataError, BadInput.
    """
    one_of("missing", missing, ("refuse", "drop", "keep"))
    found = outcomes_of(RunDir(path))
    if not found.owed or missing == "keep":
        return found.outcomes
    n, whole = found.outcomes.n, int(found.complete.sum())
    if missing != "drop" or not whole:
        raise DataError(
            f"{path}: {found.owed:,} of {n * found.outcomes.k:,} attempts are owed, {whole:,} of {n:,} rows are "
            f"complete; run the study again, which goes on where it stopped"
            + (", or drop what is incomplete (missing='drop', --missing drop)" if whole else "")
        )
    return whole_rows(found)


def chosen(path: Path, choices: Choices) -> Outcomes:
    """As `load_outcomes` was asked for it. Raises DataError, BadInput, UnknownName."""
    if choices.prices or choices.price_table is not None:
        raise BadInput(f"{path}: a run has the prices that it was recorded at; `reprice(outcomes, prices)` puts others")
    outcomes = read_run(path, missing=choices.missing)
    if choices.labels not in {None, "recorded", outcomes.labels}:
        outcomes = outcomes.graded(str(choices.labels))
    if choices.limit is not None:
        keys = set(list(dict.fromkeys(outcomes.keys))[: choices.limit])
        outcomes = rows_at(outcomes, np.flatnonzero([key in keys for key in outcomes.keys]))
    return outcomes if choices.rungs is None else outcomes.only_rungs(choices.rungs)


def untimed(outcomes: Outcomes) -> Outcomes:
    """Without latencies: they are unknown."""
    return replace(outcomes, latency=np.full_like(outcomes.latency, np.nan))


def rows_at(outcomes: Outcomes, at: NDArray[np.int64]) -> Outcomes:
    """Some rows of them."""
    columns: dict[str, Any] = {
        name: value[at] for name, value in vars(outcomes).items() if isinstance(value, np.ndarray)
    }
    lists: dict[str, Any] = {
        name: tuple(value[i] for i in at.tolist())
        for name in ("keys", "category", "group")
        if (value := getattr(outcomes, name)) is not None
    }
    return replace(
        outcomes,
        features={name: column[at] for name, column in outcomes.features.items()},
        gradings={labels: quality[at] for labels, quality in outcomes.gradings.items()},
        **lists,
        **columns,
    )


def replayed(path: Path) -> tuple[str, int | None, str] | None:
    """(PATH or LOADER:PATH, limit, digest) of the outcomes that a study replays; None of one that made attempts."""
    study = RunDir(path).read(STUDY) or {}
    if "recorded" not in study:
        return None
    return beside(Path(study["folder"]), study["data"]), study["limit"], study["recorded"]


def whole_rows(found: Filled) -> Outcomes:
    """Those that are complete, with a note on the others."""
    outcomes = found.outcomes
    if not found.owed:
        return outcomes
    at = np.flatnonzero(found.complete)
    note = f"{outcomes.n - len(at):,} of {outcomes.n:,} rows lack attempts and are left out ({found.owed:,} are owed)"
    return replace(rows_at(outcomes, at), notes=(*outcomes.notes, note))


def outcomes_of(run: RunDir) -> Filled:
    """All that is there. Raises DataError."""
    study = run.read(STUDY)
    if study is None:
        raise DataError(f"{run.path}: no run directory: it has no {STUDY}")
    with _no_collector():
        questions = [one for rows in blocks(run.path / QUESTIONS) for one in rows]
        if not questions:
            raise DataError(f"{run.path}: no questions in it yet; run the study")
        table = _Table(questions, [rung["digest"] for rung in study["rungs"]], int(study["epochs"]))
        for rows in run.attempts():
            table.add(rows)
        outcomes = _outcomes(run, study, questions, table)
    outcomes = untimed(outcomes) if study.get("latency") == "none" else outcomes
    return Filled(outcomes, np.asarray(table.filled().all(axis=1)), table.owed())


class _Table:
    """Columns of `n * epochs * k` cells, filled block by block."""

    def __init__(self, questions: Sequence[Mapping[str, Any]], digests: Sequence[str], epochs: int) -> None:
        self.k, self.epochs = len(digests), epochs
        self.n = len(questions) * epochs
        width = epochs * self.k
        self._row = _Places({one["key"]: i * width for i, one in enumerate(questions)})
        self._rung = {digest: i for i, digest in enumerate(digests)}
        cells = self.n * self.k
        self.quality = np.full(cells, np.nan)
        self.confidence, self.latency = np.full(cells, np.nan), np.full(cells, np.nan)
        self.answer, self.cost, self.spent = (np.full(cells, UNKNOWN, dtype=np.int64) for _ in range(3))
        self.status = np.full(cells, -1, dtype=np.int8)
        self.form = np.full((cells, len(Form._fields)), np.nan)
        self.models: set[tuple[str, str | None]] = set()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """The lines of one block. Those that aren't of this study are passed over."""
        at = self._cells(rows)
        if (at < 0).any():
            rows = [row for row, place in zip(rows, at.tolist(), strict=True) if place >= 0]
            at = at[at >= 0]
        if not rows:
            return
        self.quality[at] = list(map(itemgetter("quality"), rows))
        self.status[at] = [_STATUS[status] for status in map(itemgetter("status"), rows)]
        self.spent[at] = list(map(itemgetter("spent"), rows))
        self.cost[at] = _told(rows, "cost", UNKNOWN)
        self.answer[at] = _told(rows, "answer", NO_ANSWER)
        self.confidence[at] = _told(rows, "confidence", np.nan)
        self.latency[at] = _told(rows, "latency", np.nan)
        self.form[at] = _told(rows, "form", _NO_FORM)
        self.models.update(zip(map(itemgetter("of"), rows), _told(rows, "model", None), strict=True))

    def _cells(self, rows: list[dict[str, Any]]) -> NDArray[np.int64]:
        """The cell of each line; below zero for what isn't of this study."""
        row, rungs = self._row.of(list(map(itemgetter("key"), rows))), list(map(itemgetter("of"), rows))
        epoch = np.array(list(map(itemgetter("epoch"), rows)), dtype=np.int64)
        rung = np.array([self._rung.get(of, _NEVER) for of in rungs], dtype=np.int64)
        return np.where(epoch < self.epochs, row + epoch * self.k + rung, _NEVER)

    def filled(self) -> NDArray[np.bool_]:
        return np.asarray(self.shaped(self.status) >= 0)

    def owed(self) -> int:
        return int((self.status < 0).sum())

    def responders(self, digest: str) -> tuple[str, ...]:
        """Who answered for a rung."""
        return tuple(sorted(model for of, model in self.models if of == digest and model))

    def shaped(self, column: NDArray[Any]) -> NDArray[Any]:
        return column.reshape(self.n, self.k, *column.shape[1:])


class _Places:
    """The number of each key, `_NEVER` of one that has none.

    By hashes of 64 bits, sorted: these stay in the processor's cache, where a dict of 100,000 strings doesn't, which
    takes more than twice as long (measured).
    """

    def __init__(self, numbers: Mapping[str, int]) -> None:
        hashes = np.fromiter(map(hash, numbers), dtype=np.int64, count=len(numbers))
        order = np.argsort(hashes)
        self._hashes = hashes[order]
        self._numbers = np.fromiter(numbers.values(), dtype=np.int64, count=len(numbers))[order]
        self._exact = numbers if (np.diff(self._hashes) == 0).any() else None

    def of(self, keys: list[str]) -> NDArray[np.int64]:
        """One for each of them: `(len(keys),)`."""
        if self._exact is not None:  # two keys have one hash
            return np.array([self._exact.get(key, _NEVER) for key in keys], dtype=np.int64)
        hashes = np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys))
        at = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return np.where(self._hashes[at] == hashes, self._numbers[at], _NEVER)


_NEVER = -(1 << 40)
"""Where lines go that aren't of this study: below zero, whatever is added."""


def _told(rows: list[dict[str, Any]], name: str, otherwise: Any) -> list[Any]:
    """A field of each line. Mostly all lines of a block have it: then none is asked twice."""
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name, otherwise) for row in rows]


_STATUS = {status: code for code, status in enumerate(STATUSES)}
_NO_FORM = (np.nan,) * len(Form._fields)


def _outcomes(run: RunDir, study: Mapping[str, Any], questions: Sequence[Mapping[str, Any]], table: _Table) -> Outcomes:
    epochs, shaped = table.epochs, table.shaped
    features = _features(questions)
    prices, ceilings = ([one[name] for one in questions] for name in ("prices", "ceilings"))
    form = shaped(table.form)
    return Outcomes(
        name=study["name"],
        rungs=tuple(_rung(rung) for rung in study["rungs"]),
        keys=tuple(key for one in questions for key in (one["key"],) * epochs),
        features={name: np.repeat(column, epochs, axis=0) for name, column in features.items()},
        quality=shaped(table.quality),
        answer=_codes(shaped(table.answer)),
        confidence=shaped(table.confidence),
        cost=shaped(table.cost),
        price=np.repeat(_amounts(prices), epochs, axis=0),
        ceiling=np.repeat(_amounts(ceilings), epochs, axis=0),
        latency=shaped(table.latency),
        status=np.maximum(shaped(table.status), 0),
        labels=study.get("labels", "metric"),
        category=_repeated(questions, "category", epochs),
        group=_repeated(questions, "group", epochs),
        notes=tuple(study.get("notes", ())),
        tariff=_tariff(run, study["rungs"]),
        form=None if np.isnan(form).all() else form,
        spent=shaped(table.spent),
        identity={rung["name"]: rung["facts"] for rung in study["rungs"] if "facts" in rung},
        responders={rung["name"]: table.responders(rung["digest"]) for rung in study["rungs"]},
    )


def _features(questions: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    names = dict.fromkeys(name for one in questions for name in one["features"])
    return {
        name: fact_column([one["features"][name] for one in questions])
        for name in names
        if all(name in one["features"] for one in questions)
    }


def _amounts(rows: list[list[int | None]]) -> NDArray[np.int64]:
    try:
        return np.array(rows, dtype=np.int64)
    except TypeError:  # some are None
        return np.array([[UNKNOWN if amount is None else amount for amount in row] for row in rows], dtype=np.int64)


def _repeated(questions: Sequence[Mapping[str, Any]], name: str, epochs: int) -> tuple[str, ...] | None:
    if all(one.get(name) is None for one in questions):
        return None
    otherwise = "" if name == "category" else None  # who names no group is a group of his own
    told = [one.get(name) or (one["key"] if otherwise is None else otherwise) for one in questions]
    return tuple(one for one in told for _ in range(epochs))


def _codes(answers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Equal answers of a row get equal codes, counted from 0 in the order of the rungs."""
    n, k = answers.shape
    first = np.empty((n, k), dtype=np.int64)
    for rung in range(k):
        first[:, rung] = (answers[:, : rung + 1] == answers[:, rung : rung + 1]).argmax(axis=1)
    known = answers != NO_ANSWER
    new = known & (first == np.arange(k))
    rank = new.cumsum(axis=1) - 1
    return np.where(known, np.take_along_axis(rank, first, axis=1), NO_ANSWER)


def _rung(told: Mapping[str, Any]) -> Rung:
    ceiling = told.get("ceiling")
    bound = None if ceiling is None else Money(ceiling)
    return Rung(told["name"], told.get("strategy"), told.get("model"), bound, told.get("tier"))


def _tariff(run: RunDir, rungs: Sequence[Mapping[str, Any]]) -> dict[str, Listed]:
    known = (run.read(PRICES) or {}).get("models", {})
    listed = {}
    for rung in rungs:
        told = known.get(rung.get("model"))
        if told is not None and told.get("input") is not None:
            price = Price(told["input"], told["output"], told.get("cached"), told.get("written"))
            listed[rung["name"]] = Listed(price, told["source"])
    return listed


@contextmanager
def _no_collector() -> Iterator[None]:
    """A million small dicts without a cycle: looking for one among them costs as much again as to parse them."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
