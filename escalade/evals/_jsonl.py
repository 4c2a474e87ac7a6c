"""escalade's own format of outcomes: JSON lines, one question each, checked by the models below.

    {"escalade": "outcomes/1", "name": "my-data", "rungs": [{"name": "small"}, {"name": "large"}], "notes": []}
    {"key": "q1", "prompt_chars": 280, "outcomes": {"small": {"quality": 0, "answer": "B", "confidence": 0.7,
        "output_tokens": 36}, "large": {"quality": 1, "answer": "C", "output_tokens": 66}}}

The first line may be left out: rungs are then those that occur. Figures that aren't known are left out or null.
`Outcomes.save` writes files of this format that are marked as final: they hold prices and bounds as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from escalade.agents.climb import Rung
from escalade.agents.forms import Form
from escalade.errors import DataError
from escalade.evals._codes import fact_column
from escalade.evals._draft import CHARS_PER_TOKEN, Draft, tokens_of
from escalade.evals._files import read_text, stem
from escalade.evals.outcomes import STATUSES, UNKNOWN
from escalade.evals.prices import Listed
from escalade.money import Money
from escalade.registry.prices import Price

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]
Model = TypeVar("Model", bound=BaseModel)


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Dollars = Annotated[Decimal, Field(ge=0)]


class Tariff(_Row):
    """The list price that costs were reckoned with, dollars per million tokens."""

    input: Dollars
    output: Dollars
    cached: Dollars | None = None
    source: str


class RungInfo(_Row):
    """A rung: `model` finds its price; `max_output_tokens` bounds what an answer can cost, `ceiling` does in dollars.

    Of final files: `tariff`, and what its attempts hang on (`identity`) and who answered them (`responders`), where
    that was recorded.
    """

    name: Name
    model: str | None = None
    strategy: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    ceiling: Dollars | None = None
    tier: Annotated[int, Field(ge=1, le=4)] | None = None
    tariff: Tariff | None = None
    identity: dict[str, str] | None = None
    responders: tuple[str, ...] | None = None

    def rung(self) -> Rung:
        """As the ladder has it."""
        ceiling = None if self.ceiling is None else Money.of(self.ceiling)
        return Rung(self.name, self.strategy, self.model, ceiling, self.tier)


class Header(_Row):
    """First line: the version of the format, the rungs, and what has to be said with every result.

    `final`: written by `Outcomes.save`: rungs are in order, figures and notes are all there is, answers are codes.
    """

    escalade: Literal["outcomes/1"]
    name: str | None = None
    rungs: tuple[RungInfo, ...] = ()
    notes: tuple[str, ...] = ()
    final: bool = False
    labels: str = "recorded"


class Answer(_Row):
    """What one rung gave: `quality` and `regraded` in 0..1, `cost` (list price) and `spent` (what was
    really paid) in dollars, `latency` in seconds.

    `price`, `ceiling`: of final files, dollars: what it was expected to cost, and what it can't exceed.
    `form`: of final files, the form of the answer (`agents.forms.Form`).
    `answer` is anything that can be compared: a letter, a number, a hash. Any `status` but "ok" is a failed attempt.
    """

    quality: Share | None = None
    regraded: Share | None = None
    answer: str | int | float | None = None
    confidence: Share | None = None
    output_chars: Count | None = None
    output_tokens: Count | None = None
    cost: Dollars | None = None
    spent: Dollars | None = None
    price: Dollars | None = None
    ceiling: Dollars | None = None
    latency: Annotated[float, Field(ge=0)] | None = None
    status: Literal["ok", "wrong_format", "truncated", "failed", "refused"] = "ok"
    form: tuple[float, float, float, float] | None = None


class Question(_Row):
    """One question: what was known before any attempt, and the answer of each rung by its name.

    `group`: what it has in common with others (a document, a conversation).
    """

    key: Name
    prompt_chars: Count | None = None
    prompt_bytes: Count | None = None
    input_tokens: Count | None = None
    category: str | None = None
    group: Name | None = None
    features: dict[str, bool | int | float | str] = {}
    contaminated: bool = False
    outcomes: dict[str, Answer]


def load(path: Path) -> Draft:
    """A file of JSON lines, gzipped or not. Raises DataError, which names line and field."""
    return parse(read_text(path), str(path), stem(path))


def parse(text: str, where: str, name: str) -> Draft:
    """The draft of a whole text; `where` begins every error."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DataError(f"{where}: an empty data set; there is nothing to compare")
    header = Header(escalade="outcomes/1")
    if '"escalade"' in lines[0][1]:
        header = _checked(Header, lines[0][1], where, lines[0][0])
        lines = lines[1:]
    questions = [(number, _checked(Question, line, where, number)) for number, line in lines]
    infos = header.rungs or tuple(RungInfo(name=n) for n in dict.fromkeys(n for _, q in questions for n in q.outcomes))
    rungs = {info.name: i for i, info in enumerate(infos)}
    _check_names(where, infos, rungs, questions, twice=header.final)
    draft = Draft.blank(header.name or name, [info.rung() for info in infos], [q.key for _, q in questions])
    draft.max_output[:] = [info.max_output_tokens for info in infos]
    draft.notes[:] = header.notes
    draft.tariff.update({info.name: _listed(info.tariff) for info in infos if info.tariff})
    draft.identity.update({info.name: info.identity for info in infos if info.identity is not None})
    draft.responders.update({info.name: info.responders for info in infos if info.responders is not None})
    forms = any(answer.form is not None for _, question in questions for answer in question.outcomes.values())
    blank = np.full((*draft.quality.shape, len(Form._fields)), np.nan) if forms else None
    paid = any(answer.spent is not None for _, question in questions for answer in question.outcomes.values())
    spent = np.full(draft.quality.shape, UNKNOWN, dtype=np.int64) if paid else None
    draft = replace(draft, final=header.final, labels=header.labels, form=blank, spent=spent)
    for i, (_, question) in enumerate(questions):
        for rung, answer in question.outcomes.items():
            _fill(draft, i, rungs[rung], answer)
    return _with_prompts(draft, [question for _, question in questions])


def _fill(draft: Draft, i: int, rung: int, answer: Answer) -> None:
    at = i, rung
    draft.quality[at] = _known(answer.quality)
    draft.answer[at] = answer.answer
    draft.confidence[at] = _known(answer.confidence)
    if answer.output_tokens is not None:
        draft.output_tokens[at] = answer.output_tokens
    elif answer.output_chars is not None:
        draft.output_tokens[at] = -(-answer.output_chars // CHARS_PER_TOKEN)
    draft.latency[at] = _known(answer.latency)
    draft.status[at] = STATUSES.index(answer.status)
    if answer.form is not None and draft.form is not None:
        draft.form[at] = answer.form
    amounts = (
        (draft.cost, answer.cost),
        (draft.spent, answer.spent),
        (draft.price, answer.price),
        (draft.ceiling, answer.ceiling),
    )
    for column, dollars in amounts:
        if column is not None and dollars is not None:
            column[at] = int(Money.of(dollars))


def _with_prompts(draft: Draft, questions: list[Question]) -> Draft:
    chars = _column([q.prompt_chars for q in questions])
    into = _column([q.input_tokens for q in questions])
    known = bool(questions) and not np.isnan(chars).any()
    sizes = _column([q.prompt_bytes for q in questions])
    regraded = np.array(
        [
            [_known(q.outcomes[r.name].regraded) if r.name in q.outcomes else np.nan for r in draft.rungs]
            for q in questions
        ]
    )
    categories, groups = [q.category for q in questions], [q.group for q in questions]
    changed: dict[str, Any] = {
        "input_tokens": np.where(np.isnan(into), tokens_of(chars), into),
        "prompt_chars": chars.astype(np.int64) if known else None,
        "prompt_bytes": sizes.astype(np.int64) if questions and not np.isnan(sizes).any() else None,
        "regraded": regraded if questions and not np.isnan(regraded).all() else None,
        "contaminated": np.array([q.contaminated for q in questions], dtype=bool),
        "category": None if all(c is None for c in categories) else [c or "" for c in categories],
        # who names no group is a group of his own
        "group": None
        if all(g is None for g in groups)
        else [g or q.key for g, q in zip(groups, questions, strict=True)],
        "features": {name: fact_column([q.features[name] for q in questions]) for name in _shared(questions)},
    }
    return Draft(**{**vars(draft), **changed})


def _shared(questions: list[Question]) -> list[str]:
    """Features that every question has."""
    names = list(questions[0].features) if questions else []
    return [name for name in names if all(name in q.features for q in questions)]


def _listed(tariff: Tariff) -> Listed:
    return Listed(Price.of(tariff.input, tariff.output, tariff.cached), tariff.source)


def _checked(model: type[Model], line: str, where: str, number: int) -> Model:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise DataError(f"{where}: line {number}: {f'field {field}: ' if field else ''}{first['msg']}{more}") from None


def _check_names(
    where: str,
    infos: tuple[RungInfo, ...],
    rungs: dict[str, int],
    questions: list[tuple[int, Question]],
    *,
    twice: bool,
) -> None:
    if len(rungs) < len(infos):
        raise DataError(f"{where}: two rungs have the same name")
    seen: dict[str, int] = {}
    for number, question in questions:
        stranger = next((name for name in question.outcomes if name not in rungs), None)
        if stranger is not None:
            raise DataError(f"{where}: line {number}: field outcomes: no rung {stranger!r} in the first line")
        if seen.setdefault(question.key, number) != number and not twice:
            raise DataError(f"{where}: line {number}: field key: {question.key!r} was on line {seen[question.key]}")


def _column(values: Sequence[int | None]) -> Any:
    return np.array([_known(v) for v in values], dtype=np.float64)


def _known(value: float | None) -> float:
    return np.nan if value is None else value
