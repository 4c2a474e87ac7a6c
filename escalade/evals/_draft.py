"""What loaders fill in, and how it becomes `Outcomes`: labels, holes, prices, order of the rungs, with notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.climb import OK, Rung
from escalade.errors import BadInput, DataError
from escalade.evals.outcomes import NO_ANSWER, STATUSES, UNKNOWN, Outcomes
from escalade.evals.prices import Listed, prices_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from escalade.registry.prices import Price, PriceTable

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

CHARS_PER_TOKEN = 4
"""The estimate where data has characters and no tokens."""

BYTES_PER_CHAR = 4
"""UTF-8 never takes more: bounds the bytes of a prompt of which only the characters are known."""


@dataclass(frozen=True)
class Choices:
    """What the caller asked for. `prices`: each has to fit a rung. `price_table`: may know more than is needed."""

    labels: str = "recorded"
    missing: str = "refuse"
    contaminated: str | None = None
    limit: int | None = None
    prices: Mapping[str, Price] | None = None
    price_table: PriceTable | None = None

    def __post_init__(self) -> None:
        _one_of("labels", self.labels, ("recorded", "regraded"))
        _one_of("missing", self.missing, ("refuse", "drop"))
        _one_of("contaminated", self.contaminated, (None, "keep", "drop"))
        if self.limit is not None and self.limit < 1:
            raise BadInput(f"a limit of questions is 1 or more, not {self.limit}")


@dataclass(frozen=True)
class Draft:
    """Columns as they were found. Shapes `(n,)` and `(n, k)`; unknown is nan, or UNKNOWN in integer columns.

    `prompt_chars`, `prompt_bytes`: None where unknown. `regraded`: None where there is one grading only. `recorded`:
    `quality` before other labels were asked for. `answer`: objects, None for none. `cost`: nano-dollars as recorded.
    `max_output`: per rung, a bound of its output tokens.
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
            latency=nothing.copy(),
            status=np.zeros(shape, dtype=np.int8),
            max_output=[None] * len(rungs),
        )

    def only(self, rows: NDArray[Any]) -> Draft:
        """These rows (a mask, or indices in order)."""
        at = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        changed: dict[str, Any] = {
            name: value[at] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        changed["keys"] = [self.keys[i] for i in at.tolist()]
        changed["category"] = None if self.category is None else [self.category[i] for i in at.tolist()]
        return replace(self, **changed)

    def noted(self, *notes: str) -> Draft:
        """With one more thing to say."""
        return replace(self, notes=[*self.notes, *notes])


def finish(draft: Draft, choices: Choices) -> Outcomes:
    """The outcomes that the caller asked for. Raises DataError, UnknownName, BadInput."""
    draft = _complete(_graded(_clean(draft, choices), choices), choices)
    listed = prices_of(draft.rungs, choices.prices, choices.price_table)
    prices, ceilings, costs = _money(draft, listed)
    order, how = _order(draft, listed)
    notes = [*draft.notes, *([how] if how else []), *_price_notes(draft, listed)]
    if choices.limit is not None and choices.limit < len(draft.keys):
        notes.append(f"the first {choices.limit} of {len(draft.keys)} questions only (--limit)")
    rows = np.arange(min(len(draft.keys), choices.limit or len(draft.keys)))
    draft = draft.only(rows)
    features = {"prompt_chars": draft.prompt_chars} if draft.prompt_chars is not None else {}
    at = np.ix_(rows, np.array(order))
    return Outcomes(
        name=draft.name,
        rungs=tuple(draft.rungs[i] for i in order),
        keys=tuple(draft.keys),
        features=features,
        quality=draft.quality[:, order],
        answer=_codes(draft.answer[:, order]),
        confidence=draft.confidence[:, order],
        cost=costs[at],
        price=prices[at],
        ceiling=ceilings[at],
        latency=draft.latency[:, order],
        status=draft.status[:, order],
        labels=choices.labels,
        category=None if draft.category is None else tuple(draft.category),
        notes=tuple(notes),
        gradings=_gradings(draft, order),
    )


def _gradings(draft: Draft, order: list[int]) -> dict[str, Floats]:
    """Both gradings where both are complete, else none: there is nothing to choose."""
    both = {"recorded": draft.recorded, "regraded": draft.regraded}
    complete = {name: q[:, order] for name, q in both.items() if q is not None and not np.isnan(q).any()}
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
    if choices.labels not in gradings:
        raise DataError(f"{draft.name}: it has no re-graded labels; use --labels recorded")
    return replace(
        draft, quality=gradings[choices.labels], regraded=gradings.get("regraded"), recorded=gradings["recorded"]
    )


def _complete(draft: Draft, choices: Choices) -> Draft:
    holes = np.isnan(draft.quality)
    if not holes.any():
        return draft
    lacking = ", ".join(
        f"{rung.name} lacks {count:,}"
        for rung, count in zip(draft.rungs, holes.sum(axis=0).tolist(), strict=True)
        if count
    )
    affected, n = int(holes.any(axis=1).sum()), len(draft.keys)
    told = f"{affected:,} of {n:,} questions without an outcome on every rung ({lacking})"
    if choices.missing == "refuse":
        raise DataError(f"{draft.name}: {told}; leave these questions out with --missing drop")
    if affected == n:
        raise DataError(f"{draft.name}: {told}; no question is left")
    return draft.only(np.flatnonzero(~holes.any(axis=1))).noted(f"{told} are dropped")


def _money(draft: Draft, listed: list[Listed | None]) -> tuple[Ints, Ints, Ints]:
    """(expected price, ceiling, cost), `(n, k)` nano-dollars, UNKNOWN where unknown.

    Expected: input tokens at list price, and for the output the mean of the rung, the same for all its questions, in
    whole tokens: what a row's own answer adds to that is less than it shows. Ceiling: a token for each byte of the
    prompt, and for the output what the rung can't exceed (its limit; where none is known, the power of two above its
    longest answer). Where costs were recorded: their mean, and their maximum.
    """
    prices, ceilings, costs = (np.full(draft.quality.shape, UNKNOWN, dtype=np.int64) for _ in range(3))
    prompt = _prompt_bound(draft)
    for rung, found in enumerate(listed):
        recorded, out = draft.cost[:, rung], draft.output_tokens[:, rung]
        if (recorded != UNKNOWN).all():
            costs[:, rung] = recorded
            prices[:, rung], ceilings[:, rung] = -(-int(recorded.sum()) // len(recorded)), recorded.max()
        elif found is not None and prompt is not None and not np.isnan(out).any():
            longest = int(out.max())
            bound = max(draft.max_output[rung] or 1 << max(0, longest - 1).bit_length(), longest)
            into = draft.input_tokens.astype(np.int64)
            costs[:, rung] = _cost(found.price, into, out.astype(np.int64))
            prices[:, rung] = _cost(found.price, into, np.full_like(into, int(np.ceil(out.mean()))))
            ceilings[:, rung] = _cost(found.price, prompt, np.full_like(into, bound))
    return prices, ceilings, costs


def _prompt_bound(draft: Draft) -> Ints | None:
    """Upper bound of the input tokens, `(n,)`: one for each byte. None where the input tokens are unknown."""
    if np.isnan(draft.input_tokens).any():
        return None
    tokens = draft.input_tokens.astype(np.int64)
    if draft.prompt_bytes is not None:
        return np.maximum(tokens, draft.prompt_bytes)
    return tokens if draft.prompt_chars is None else np.maximum(tokens, draft.prompt_chars * BYTES_PER_CHAR)


def _cost(price: Price, into: Ints, out: Ints) -> Ints:
    """As `Price.cost`, in columns."""
    nanos: Ints = -(-(into * price.input + out * price.output) // 1_000_000)
    return nanos


def _order(draft: Draft, listed: list[Listed | None]) -> tuple[list[int], str]:
    """Rungs, cheapest first; equal ones stay in the order of the data."""
    rungs = range(len(draft.rungs))
    if (draft.cost != UNKNOWN).all():
        return sorted(rungs, key=draft.cost.mean(axis=0).tolist().__getitem__), ""
    if all(found is not None for found in listed):
        return sorted(rungs, key=[f.price.input + f.price.output for f in listed if f].__getitem__), ""
    order = sorted(rungs, key=draft.quality.mean(axis=0).tolist().__getitem__)
    return order, "not every price is known: rungs are ordered by mean quality, the weakest first"


def _price_notes(draft: Draft, listed: list[Listed | None]) -> list[str]:
    if (draft.cost != UNKNOWN).all():
        return ["costs are as recorded in the data"]
    if np.isnan(draft.input_tokens).any() or np.isnan(draft.output_tokens).any():
        return ["cost unknown: the data has neither costs nor the lengths of all prompts and answers"]
    by_source: dict[tuple[str, str], list[str]] = {}
    unknown = []
    for rung, found in zip(draft.rungs, listed, strict=True):
        if found is None:
            unknown.append(rung.name)
        else:
            figures = f"${_dollars(found.price.input)} in, ${_dollars(found.price.output)} out"
            by_source.setdefault((figures, found.source), []).append(rung.name)
    notes = [
        f"price per million tokens of {_listed(names)}: {f} ({source})" for (f, source), names in by_source.items()
    ]
    if unknown:
        notes.append(f"price unknown: {_listed(unknown)}; set it with --price NAME=IN/OUT")
    return notes


def _listed(names: list[str]) -> str:
    """Like "qwen-1.5b@96, @160, @224" for rungs of one model."""
    said: list[str] = []
    for name in names:
        model, _, budget = name.partition("@")
        said.append(f"@{budget}" if budget and said and names[0].startswith(f"{model}@") else name)
    return ", ".join(said)


def _dollars(nanos: int) -> str:
    return format((Decimal(nanos) / 10**9).normalize(), "f")


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


def _one_of(what: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        raise BadInput(f"{what} {value!r} is none of {', '.join(a for a in allowed if a)}")
