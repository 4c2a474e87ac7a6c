"""What loaders fill in, and how it becomes `Outcomes`: labels, holes, prices, order of the rungs, with notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.climb import OK, Rung
from escalade.errors import BadInput, DataError, one_of
from escalade.evals._codes import form_column
from escalade.evals._costs import cheapest_first, money, price_notes, tariff
from escalade.evals._names import listed as together
from escalade.evals.outcomes import NO_ANSWER, STATUSES, UNKNOWN, Outcomes, rungs_named
from escalade.evals.prices import Listed, prices_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from escalade.registry.prices import Price, PriceTable

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

CHARS_PER_TOKEN = 4
"""The estimate where data has characters and no tokens."""

MOST_NAMED = 4
"""A message names so many rungs and counts the rest."""


@dataclass(frozen=True)
class Choices:
    """What the caller asked for. `prices`: each has to fit a rung. `price_table`: may know more than is needed."""

    labels: str | None = None
    missing: str = "refuse"
    contaminated: str | None = None
    limit: int | None = None
    prices: Mapping[str, Price] | None = None
    price_table: PriceTable | None = None
    rungs: Sequence[str] | None = None

    def __post_init__(self) -> None:
        one_of("labels", self.labels, (None, "recorded", "regraded"))
        one_of("missing", self.missing, ("refuse", "drop", "keep"))
        one_of("contaminated", self.contaminated, (None, "keep", "drop"))
        if self.limit is not None and self.limit < 1:
            raise BadInput(f"a limit of questions is 1 or more, not {self.limit}")


@dataclass(frozen=True)
class Draft:
    """Columns as they were found. Shapes `(n,)` and `(n, k)`; unknown is nan, or UNKNOWN in integer columns.

    `prompt_chars`, `prompt_bytes`: None where unknown. `regraded`: None where there is one grading only. `recorded`:
    `quality` before other labels were asked for. `answer`: objects, None for none. `cost`: nano-dollars as recorded.
    `max_output`: per rung, a bound of its output tokens. `final`: the data is a saved `Outcomes`: its rungs are in
    order, its costs (`price`, `ceiling`: nano-dollars), `features`, `labels` and `tariff` are final, its notes say
    all. `output_column`: the name of the column that gives the lengths of answers. `form`: `(n, k, 4)`, of final data.
    `input_tokens`: of each question, or `(n, k)` as each rung counted them. `listed`: prices that came with the data,
    by the name of a rung; the caller's go before them.
    `spent`: nano-dollars, None where the data doesn't say. `identity`, `responders`: of final data, as in `Outcomes`.
    """

    name: str
    rungs: list[Rung]
    keys: list[str]
    quality: Floats
    answer: NDArray[Any]
    confidence: Floats
    input_tokens: Floats
    output_tokens: Floats
    cost: Ints
    price: Ints
    ceiling: Ints
    latency: Floats
    status: NDArray[np.int8]
    prompt_chars: Ints | None = None
    prompt_bytes: Ints | None = None
    regraded: Floats | None = None
    recorded: Floats | None = None
    contaminated: NDArray[np.bool_] | None = None
    category: list[str] | None = None
    max_output: list[int | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    final: bool = False
    features: dict[str, NDArray[Any]] = field(default_factory=dict)
    labels: str = "recorded"
    tariff: dict[str, Listed] = field(default_factory=dict)
    output_column: str = "output_tokens (or out_chars)"
    form: Floats | None = None
    group: list[str] | None = None
    listed: dict[str, Listed] = field(default_factory=dict)
    spent: Ints | None = None
    identity: dict[str, dict[str, str]] = field(default_factory=dict)
    responders: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def blank(cls, name: str, rungs: Sequence[Rung], keys: list[str]) -> Draft:
        """A table of unknowns, to be filled in."""
        shape = (len(keys), len(rungs))
        nothing = np.full(shape, np.nan)
        return cls(
            name=name,
            rungs=list(rungs),
            keys=keys,
            quality=nothing.copy(),
            answer=np.full(shape, None, dtype=object),
            confidence=nothing.copy(),
            input_tokens=np.full(len(keys), np.nan),
            output_tokens=nothing.copy(),
            cost=np.full(shape, UNKNOWN, dtype=np.int64),
            price=np.full(shape, UNKNOWN, dtype=np.int64),
            ceiling=np.full(shape, UNKNOWN, dtype=np.int64),
            latency=nothing.copy(),
            status=np.zeros(shape, dtype=np.int8),
            max_output=[None] * len(rungs),
        )

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Where anything is known of an attempt, `(n, k)`: everywhere but in the holes."""
        said: NDArray[np.bool_] = (self.answer != None).astype(bool)  # noqa: E711 - element by element
        known = (self.quality, self.confidence, self.latency, self.output_tokens)
        for column in known:
            said |= ~np.isnan(column)
        said |= (self.status != STATUSES.index(OK)) | (self.cost != UNKNOWN)
        return said

    def only(self, rows: NDArray[Any]) -> Draft:
        """These rows (a mask, or indices in order)."""
        at = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        changed: dict[str, Any] = {
            name: value[at] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        changed["keys"] = [self.keys[i] for i in at.tolist()]
        changed["category"] = None if self.category is None else [self.category[i] for i in at.tolist()]
        changed["group"] = None if self.group is None else [self.group[i] for i in at.tolist()]
        changed["features"] = {name: column[at] for name, column in self.features.items()}
        return replace(self, **changed)

    def on(self, rungs: list[int]) -> Draft:
        """These rungs, in this order."""
        changed: dict[str, Any] = {
            name: value[:, rungs]
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray) and value.ndim > 1
        }
        changed["rungs"] = [self.rungs[i] for i in rungs]
        changed["max_output"] = [self.max_output[i] for i in rungs]
        return replace(self, **changed)

    def noted(self, *notes: str) -> Draft:
        """With one more thing to say."""
        return replace(self, notes=[*self.notes, *notes])


def finish(draft: Draft, choices: Choices) -> Outcomes:
    """The outcomes that the caller asked for. Raises DataError, UnknownName, BadInput."""
    listed = prices_of(draft.rungs, choices.prices, choices.price_table, draft.listed)
    at = _named(draft, choices)
    draft, listed = (draft if len(at) == len(draft.rungs) else draft.on(at)), [listed[i] for i in at]
    draft = _complete(_graded(_clean(draft, choices), choices), choices)
    if draft.final:
        price, ceiling, order = draft.price, draft.ceiling, list(range(len(draft.rungs)))
        how = ["costs are as recorded: --price changes nothing"] if choices.prices else []
    else:
        price, ceiling, costs = money(draft, listed)
        how, order = price_notes(draft, listed), cheapest_first(draft, listed)
        draft = replace(draft, cost=costs, tariff=tariff(draft, listed))
    draft = replace(draft, price=price, ceiling=ceiling).noted(*how, *_left_out(draft, choices))
    draft = draft.on(order).only(np.arange(min(len(draft.keys), choices.limit or len(draft.keys))))
    chars = {} if draft.prompt_chars is None else {"prompt_chars": draft.prompt_chars}
    return Outcomes(
        name=draft.name,
        rungs=tuple(draft.rungs),
        keys=tuple(draft.keys),
        features=chars | draft.features,
        quality=draft.quality,
        answer=_as_they_are(draft.answer) if draft.final else _codes(draft.answer),
        confidence=draft.confidence,
        cost=draft.cost,
        price=draft.price,
        ceiling=draft.ceiling,
        latency=draft.latency,
        status=draft.status,
        labels=choices.labels or draft.labels,
        category=None if draft.category is None else tuple(draft.category),
        group=None if draft.group is None else tuple(draft.group),
        notes=tuple(draft.notes),
        gradings=_gradings(draft),
        tariff={rung.name: draft.tariff[rung.name] for rung in draft.rungs if rung.name in draft.tariff},
        form=draft.form if draft.final else form_column(draft.answer.tolist()),
        spent=draft.spent,
        identity={rung.name: draft.identity[rung.name] for rung in draft.rungs if rung.name in draft.identity},
        responders={rung.name: draft.responders[rung.name] for rung in draft.rungs if rung.name in draft.responders},
    )


def _named(draft: Draft, choices: Choices) -> list[int]:
    """Indices of the rungs asked for."""
    return list(range(len(draft.rungs))) if choices.rungs is None else rungs_named(_names(draft), choices.rungs)


def _left_out(draft: Draft, choices: Choices) -> list[str]:
    """Notes on what was asked for and isn't all."""
    notes = [] if choices.rungs is None else [f"the ladder is {together(_names(draft))} (--rungs)"]
    if choices.limit is not None and choices.limit < len(draft.keys):
        notes.append(f"the first {choices.limit} of {len(draft.keys)} questions only (--limit)")
    return notes


def _names(draft: Draft) -> list[str]:
    return [rung.name for rung in draft.rungs]


def _gradings(draft: Draft) -> dict[str, Floats]:
    """Both gradings where both are complete, else none: there is nothing to choose."""
    both = {"recorded": draft.recorded, "regraded": draft.regraded}
    complete = {name: q for name, q in both.items() if q is not None and not np.isnan(q).any()}
    return complete if len(complete) > 1 else {}


def tokens_of(chars: Floats) -> Floats:
    """Estimated, rounded up; nan stays nan."""
    return np.ceil(chars / CHARS_PER_TOKEN)


def _clean(draft: Draft, choices: Choices) -> Draft:
    if not draft.keys or not draft.rungs:
        raise DataError(f"{draft.name}: an empty data set; there is nothing to compare")
    if draft.contaminated is None or choices.contaminated != "drop" or not draft.contaminated.any():
        return draft
    count = int(draft.contaminated.sum())
    if count == len(draft.keys):
        raise DataError(f"{draft.name}: all {count} questions are listed as contaminated; nothing is left")
    return draft.only(~draft.contaminated).noted(f"{count} contaminated questions are left out")


def _graded(draft: Draft, choices: Choices) -> Draft:
    """With the labels asked for; a failed attempt without a label is an attempt of quality 0."""
    failed = draft.status != STATUSES.index(OK)
    gradings = {
        name: np.where(failed & np.isnan(quality), 0.0, quality)
        for name, quality in (("recorded", draft.quality), ("regraded", draft.regraded))
        if quality is not None
    }
    wanted = choices.labels or (draft.labels if draft.labels in gradings else "recorded")
    if wanted not in gradings:
        raise DataError(f"{draft.name}: it has no re-graded labels; use --labels recorded")
    return replace(draft, quality=gradings[wanted], regraded=gradings.get("regraded"), recorded=gradings["recorded"])


def _complete(draft: Draft, choices: Choices) -> Draft:
    holes = np.isnan(draft.quality)
    if not holes.any():
        return draft
    counts = sorted(zip(holes.sum(axis=0).tolist(), _names(draft), strict=True), key=lambda pair: -pair[0])
    most = [f"{name} lacks {count:,}" for count, name in counts if count]
    lacking = ", ".join(most[:MOST_NAMED]) + (f", {len(most) - MOST_NAMED} more" if len(most) > MOST_NAMED else "")
    affected, n = int(holes.any(axis=1).sum()), len(draft.keys)
    told = f"{affected:,} of {n:,} questions without an outcome on every rung ({lacking})"
    whole = [name for count, name in counts if not count]
    or_without = (
        f", or compare the rungs that lack none with --rungs {','.join(whole)}"
        if 2 <= len(whole) <= MOST_NAMED
        else ", or name the rungs that are to be compared with --rungs A,B,C"
    )
    if choices.missing == "refuse":
        raise DataError(
            f"{draft.name}: {told}; leave these questions out with --missing drop, or keep them with --missing keep "
            f"and judge only policies that stay within what was recorded{or_without}"
        )
    if choices.missing == "keep":
        return draft.noted(f"{told}: only policies that stay within what was recorded are judged (--missing keep)")
    if affected == n:
        raise DataError(f"{draft.name}: {told}; no question is left{or_without}")
    why = "what is missing may not be missing by chance, and what is left not be a fair sample"
    return draft.only(np.flatnonzero(~holes.any(axis=1))).noted(f"{told} are dropped: {why}")


def _as_they_are(codes: NDArray[Any]) -> Ints:
    return np.where(codes == None, NO_ANSWER, codes).astype(np.int64)  # noqa: E711 - element by element


def _codes(answers: NDArray[Any]) -> Ints:
    """Equal answers get equal codes within one question: 26.00 and 26 are equal, and so are "B" and "b "."""
    same: dict[Any, Any] = {}
    codes = np.full(answers.shape, NO_ANSWER, dtype=np.int64)
    for i, row in enumerate(answers.tolist()):
        seen: dict[Any, int] = {}
        for rung, answer in enumerate(row):
            if answer is not None:
                if answer not in same:
                    same[answer] = _canonical(answer)
                codes[i, rung] = seen.setdefault(same[answer], len(seen))
    return codes


def _canonical(answer: Any) -> Any:
    text = str(answer).strip()
    try:
        number = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return text.casefold()
    return number if number.is_finite() else text.casefold()
