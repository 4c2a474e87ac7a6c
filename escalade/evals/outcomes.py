"""Outcomes: what each rung really gave for each question, as columns of numbers.

The one input of every replay. Shapes are `(n questions, k rungs)`, rungs cheapest first. Nothing in it is text of an
answer: answers are codes that only mean "same" or "different" within one question. The text of a question is there
where it is known (the feature `text`), for policies that look at it; it isn't saved unless that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.agents.climb import OK, Attempt, Rung, View
from escalade.agents.forms import Form
from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals._codes import NO_ANSWER, STATUSES, UNKNOWN
from escalade.evals._names import listed, shortened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from escalade.evals.prices import Listed

__all__ = ["COLUMNS", "NO_ANSWER", "STATUSES", "UNKNOWN", "Outcomes", "rungs_named"]


COLUMNS = ("quality", "answer", "confidence", "cost", "price", "ceiling", "latency", "status")
"""The columns of shape (n, k)."""

TEXT = "text"
"""The feature that holds the question itself."""


def rungs_named(known: Sequence[str], names: Sequence[str]) -> list[int]:
    """Indices of these rungs in ascending order; a name may lack its provider. Raises UnknownName, BadInput."""
    if not names:
        raise BadInput("no rung is named; name those that are the ladder, or none at all for all of them")
    found = set()
    for name in names:
        fits = [i for i, rung in enumerate(known) if rung == name] or [
            i for i, rung in enumerate(known) if shortened(rung) == name
        ]
        if len(fits) != 1:
            raise UnknownName("rung", name, list(known))
        found.add(fits[0])
    return sorted(found)


class _Origin:
    """Says which outcomes a part for training was cut from, to whoever keeps what was fitted; it holds nothing."""


@dataclass(frozen=True)
class Outcomes:
    """Recorded outcomes of every rung on every question. Its columns are read-only. Raises DataError for a quality or
    an amount of money that can't be.

    `keys`: n question ids. `features`: name -> n values known before any attempt (`prompt_chars` always).
    `quality`: (n, k) float in 0..1, nan where it is missing. `answer`: (n, k) int codes, NO_ANSWER for none.
    `confidence`: (n, k) float, nan where unknown. `cost`, `price`, `ceiling`: (n, k) int64 nano-dollars: what it cost
    at list price, what one would have expected it to cost, and a bound that it can't exceed; UNKNOWN where unknown.
    `latency`: (n, k) seconds, nan where unknown. `status`: (n, k) int8 codes into STATUSES. `category`: n labels.
    `group`: n names of what questions have in common (a document, a conversation): questions of one group are never on
    both sides of a split, and their differences don't count as independent. Rows of one key are epochs of one question.
    `notes`: one line each on what the loader left out or assumed, to be shown with every result. `gradings`: name of
    the labels -> (n, k) quality by them, where the data has more than one grading; `quality` is that of `labels`.
    `form`: (n, k, 4) float, the form of each answer (`forms.Form`), nan for none; None where it isn't known.
    `tariff`: name of a rung -> the list price that its costs were reckoned with, where they were.
    `spent`: (n, k) int64 nano-dollars that each attempt really took, 0 for one that a cache answered, UNKNOWN where
    unknown; None where the data doesn't say. `cost` is the list price whoever paid it. `identity`: name of a rung ->
    what its attempts hang on (prompt, model, settings, ...) as texts, where that was recorded. `responders`: name of a
    rung -> the models that answered for it, as providers name them, where they did.
    """

    name: str
    rungs: tuple[Rung, ...]
    keys: tuple[str, ...]
    features: Mapping[str, NDArray[Any]] = field(repr=False)  # texts don't belong into logs
    quality: NDArray[np.float64]
    answer: NDArray[np.int64]
    confidence: NDArray[np.float64]
    cost: NDArray[np.int64]
    price: NDArray[np.int64]
    ceiling: NDArray[np.int64]
    latency: NDArray[np.float64]
    status: NDArray[np.int8]
    labels: str = "recorded"
    category: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())
    gradings: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    tariff: Mapping[str, Listed] = field(default_factory=dict)
    form: NDArray[np.float64] | None = None
    group: tuple[str, ...] | None = None
    spent: NDArray[np.int64] | None = None
    identity: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    responders: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """What policies are judged on is written by nobody: not even by a policy that is fitted on it. Raises DataError
        for a figure that can't be.
        """
        for name, quality in (("quality", self.quality), *((f"quality by {n!r}", q) for n, q in self.gradings.items())):
            self._check(name, quality, (quality < 0) | (quality > 1), "0 to 1, nan where it is missing")
        for name in ("cost", "price", "ceiling", "spent"):
            if (column := getattr(self, name)) is not None:
                self._check(name, column, column < UNKNOWN, f"nano-dollars, 0 or more, {UNKNOWN} where it is unknown")
        for name in (*COLUMNS, "form", "spent"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))
        for name in ("features", "gradings"):
            columns: Mapping[str, NDArray[Any]] = getattr(self, name)
            object.__setattr__(self, name, {key: _read_only(column) for key, column in columns.items()})

    @property
    def n(self) -> int:
        return len(self.keys)

    @property
    def k(self) -> int:
        return len(self.rungs)

    @cached_property
    def origin(self) -> object:
        """The same for all parts that `training` cuts from these outcomes, and for no others."""
        return _Origin()

    @cached_property
    def asked(self) -> NDArray[np.bool_]:
        """(n, k) where anything is known of an attempt: not where a cascade, say, never came to this rung."""
        import numpy as np

        said: NDArray[np.bool_] = (
            (self.answer != NO_ANSWER) | (self.status != STATUSES.index(OK)) | (self.cost != UNKNOWN)
        )
        for column in (self.quality, self.confidence, self.latency):
            said |= ~np.isnan(column)
        return said

    @cached_property
    def whole(self) -> bool:
        """Is the quality known of every answer of every rung?"""
        import numpy as np

        return not bool((np.isnan(self.quality) & (self.status == STATUSES.index(OK))).any())

    @property
    def priced(self) -> bool:
        """Is every cost known?"""
        return bool((self.cost >= 0).all())

    @cached_property
    def digest(self) -> str:
        """16 hex digits that change when any figure, key or rung does: which data a result was found on."""
        found = blake2b(digest_size=8)
        found.update(repr(([rung.name for rung in self.rungs], self.keys, self.labels)).encode())
        if self.group is not None:
            found.update(repr(self.group).encode())
        facts = {f"={f}": c for f, c in self.features.items() if f != TEXT}  # the keys stand for the texts
        for name, column in ({name: getattr(self, name) for name in COLUMNS} | facts).items():
            found.update(
                name.encode() + (repr(column.tolist()).encode() if column.dtype == object else column.tobytes())
            )
        return found.hexdigest()

    def only_rungs(self, names: Sequence[str]) -> Outcomes:
        """The same questions on a ladder of these rungs only, in their order here. Raises UnknownName, BadInput."""
        at = rungs_named([rung.name for rung in self.rungs], names)
        left = [rung.name for i, rung in enumerate(self.rungs) if i not in at]
        named = listed([self.rungs[i].name for i in at])
        columns: dict[str, Any] = {name: getattr(self, name)[:, at] for name in COLUMNS}
        return replace(
            self,
            rungs=tuple(self.rungs[i] for i in at),
            notes=(*self.notes, *([f"the ladder is {named} (--rungs)"] if left else [])),
            gradings={labels: quality[:, at] for labels, quality in self.gradings.items()},
            tariff={name: price for name, price in self.tariff.items() if name not in left},
            form=None if self.form is None else self.form[:, at],
            spent=None if self.spent is None else self.spent[:, at],
            **columns,
        )

    def save(self, path: str | Path, *, texts: bool = False) -> Path:
        """Write them as JSON lines, gzipped if the name ends with ".gz"; `load_outcomes(path)` gives the same again.

        `texts`: write the texts of the questions, too, where they are known.
        """
        from escalade.evals._saving import save

        return save(self, Path(path), texts=texts)

    def graded(self, labels: str) -> Outcomes:
        """The same outcomes by another grading. Raises UnknownName."""
        if labels not in self.gradings:
            raise UnknownName("labels", labels, list(self.gradings))
        return replace(self, labels=labels, quality=self.gradings[labels])

    def _check(self, name: str, column: NDArray[Any], wrong: NDArray[np.bool_], expected: str) -> None:
        if wrong.any():
            row, rung = divmod(int(wrong.argmax()), self.k)
            where = f"{self.name}: {name} of question {self.keys[row]!r} on {self.rungs[rung].name!r}"
            raise DataError(f"{where} is {column[row, rung]}; expected {expected}")

    def training(self, rows: NDArray[np.int64]) -> Outcomes:
        """The same outcomes as a fit on these rows may see them: what attempts gave on the others is unknown, by every
        grading, as if nobody had asked. Questions, prices and bounds are known of all, as they are to a live policy.
        """
        import numpy as np

        hidden = np.ones(self.n, dtype=bool)
        hidden[rows] = False
        if not hidden.any():
            return self

        def without(column: Any, unknown: float) -> Any:
            if column is None:
                return None
            left = column.copy()
            left[hidden] = unknown
            return left

        seen = replace(
            self,
            quality=without(self.quality, math.nan),
            gradings={labels: without(quality, math.nan) for labels, quality in self.gradings.items()},
            answer=without(self.answer, NO_ANSWER),
            confidence=without(self.confidence, math.nan),
            cost=without(self.cost, UNKNOWN),
            spent=without(self.spent, UNKNOWN),
            latency=without(self.latency, math.nan),
            status=without(self.status, STATUSES.index(OK)),
            form=without(self.form, math.nan),
        )
        object.__setattr__(seen, "origin", self.origin)
        return seen

    def facts(self, i: int) -> dict[str, Any]:
        """What is known about question i before any attempt, by name."""
        return {name: _scalar(column[i]) for name, column in self.features.items()}

    def view(self, i: int, *, budget_left: int | None = None) -> View:
        """The first View on question i, exactly as a live climb would see it."""
        return View(
            key=self.keys[i],
            features=self.facts(i),
            rungs=self.rungs,
            prices=tuple(_known(p) for p in self.price[i].tolist()),
            ceilings=tuple(_known(c) for c in self.ceiling[i].tolist()),
            budget_left=budget_left,
        )

    def attempt(self, i: int, rung: int) -> Attempt:
        """What rung number `rung` gave for question i.

        Where its cost is unknown it counts at its ceiling: live, what isn't known settles at what was reserved.
        """
        code, cost = int(self.answer[i, rung]), int(self.cost[i, rung])
        return Attempt(
            rung=rung,
            answer=None if code == NO_ANSWER else code,
            confidence=float(self.confidence[i, rung]),
            cost=cost if cost >= 0 else max(0, int(self.ceiling[i, rung])),
            latency=float(self.latency[i, rung]),
            status=STATUSES[int(self.status[i, rung])],
            form=None if self.form is None else _form(self.form[i, rung]),
        )


def _read_only(column: Any) -> Any:
    """A view that can't be written; whoever made the column may do as before."""
    if column is None or not column.flags.writeable:
        return column
    view = column.view()
    view.setflags(write=False)
    return view


def _scalar(value: Any) -> Any:
    """A plain Python value; texts are kept as such already."""
    return value.item() if hasattr(value, "item") else value


def _form(figures: NDArray[np.float64]) -> Form | None:
    form = Form(*figures.tolist())
    return None if math.isnan(form.chars) else form


def _known(nanos: int) -> int | None:
    return None if nanos == UNKNOWN else nanos
