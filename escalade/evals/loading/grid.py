"""A matrix of questions and rungs, filled from answers that come one by one, in any order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from escalade.agents.climb import OK, Rung
from escalade.errors import BadInput, DataError
from escalade.evals._codes import MOST_COST, fact_column
from escalade.evals._draft import Draft, tokens_of
from escalade.evals.outcomes import STATUSES, UNKNOWN
from escalade.money import Money

Place = tuple[str, int]
"""Key of a question and its epoch."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a model gave for a question, as a file has it; None is unknown. `cost`: nano-dollars. `latency`: seconds.

    `where`: file and line, for errors. `text`, `category`, `group`: of the question.
    """

    where: str
    key: str
    model: str
    epoch: int = 1
    quality: float | None = None
    answer: Any = None
    cost: int | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    latency: float | None = None
    status: str = OK
    text: str | None = None
    category: str | None = None
    group: str | None = None


def grid(path: Path, name: str, answers: Iterable[Given]) -> Draft:
    """The draft of these answers. Questions are in the order of the data, rungs in that of their names.

    Rows of one key are epochs. What nobody answered stays unknown: `finish` refuses or drops it. The same answer twice
    counts once, with a note. Raises DataError for two different answers of one model in one epoch, and for a question
    that isn't the same in all of its answers.
    """
    found: dict[tuple[Place, str], Given] = {}
    again = 0
    for given in answers:
        before = found.setdefault(((given.key, given.epoch), given.model), given)
        if before is not given and replace(before, where=given.where) != given:
            raise DataError(f"{given.where}: {given.model!r} has another answer to {given.key!r} at {before.where}")
        again += before is not given
    places = list(dict.fromkeys(place for place, _ in found))
    models = sorted({model for _, model in found})
    if not places:
        raise DataError(f"{path}: an empty data set; there is nothing to compare")
    draft = Draft.blank(name, [Rung(model, None, model) for model in models], [key for key, _ in places])
    draft = replace(draft, input_tokens=np.full(draft.quality.shape, np.nan))
    row, rung = {place: i for i, place in enumerate(places)}, {model: i for i, model in enumerate(models)}
    for (place, model), given in found.items():
        _fill(draft, (row[place], rung[model]), given)
    noted = draft.noted(f"{again} answers that are in the data twice count once") if again else draft
    return _with_questions(noted, row, list(found.values()))


def _fill(draft: Draft, at: tuple[int, int], given: Given) -> None:
    for column in ("quality", "latency", "input_tokens", "output_tokens"):
        value = getattr(given, column)
        getattr(draft, column)[at] = math.nan if value is None else value
    draft.answer[at] = given.answer
    draft.cost[at] = UNKNOWN if given.cost is None else given.cost
    draft.status[at] = STATUSES.index(given.status)


def _with_questions(draft: Draft, row: dict[Place, int], answers: Sequence[Given]) -> Draft:
    of = [row[given.key, given.epoch] for given in answers]
    texts = _facts("text", of, answers, len(draft.keys))
    categories = _facts("category", of, answers, len(draft.keys))
    groups = _facts("group", of, answers, len(draft.keys))
    into = draft.input_tokens
    known: dict[str, Any] = {}
    if all(text is not None for text in texts):
        chars = np.array([len(text or "") for text in texts], dtype=np.int64)
        sizes = [len((text or "").encode("utf-8", "surrogatepass")) for text in texts]
        known = {"prompt_chars": chars, "prompt_bytes": np.array(sizes, dtype=np.int64)}
        known["features"] = {"text": fact_column(texts)}
        if np.isnan(into).all():
            into = tokens_of(chars.astype(np.float64))
    return replace(
        draft,
        input_tokens=into,
        category=None if all(c is None for c in categories) else [c or "" for c in categories],
        group=None if all(g is None for g in groups) else [g or key for g, key in zip(groups, draft.keys, strict=True)],
        **known,
    )


def _facts(name: str, of: Sequence[int], answers: Sequence[Given], n: int) -> list[str | None]:
    """What all answers say of their question: None where none says anything."""
    facts: list[str | None] = [None] * n
    for i, given in zip(of, answers, strict=True):
        said = getattr(given, name)
        if said is None:
            continue
        if facts[i] is not None and facts[i] != said:
            raise DataError(f"{given.where}: the {name} of {given.key!r} is another one elsewhere; keys name questions")
        facts[i] = said
    return facts


def dollars(where: str, amount: object) -> int | None:
    """Nano-dollars of an amount in dollars as files have it, a number or a text; None for none. Raises DataError."""
    if amount is None or amount == "" or (isinstance(amount, float) and math.isnan(amount)):
        return None
    try:
        cost = int(Money.of(str(amount)))
    except BadInput as error:
        raise DataError(f"{where}: {error}") from None
    if cost < 0:
        raise DataError(f"{where}: a cost of {amount}; a cost isn't negative")
    if cost >= MOST_COST:
        raise DataError(f"{where}: a cost of {amount}; no attempt costs a million: costs are dollars")
    return cost


def score(where: str, value: object) -> float | None:
    """A quality in 0..1; None for none. Raises DataError for anything else."""
    if value is None or value == "":
        return None
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        raise DataError(f"{where}: a score of {value!r}; expected a number between 0 and 1")
    return float(value)
