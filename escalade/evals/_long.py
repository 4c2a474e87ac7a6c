"""Long tables: one line per question and model.

    question_id, model, correct [, answer | pred] [, confidence] [, cost] [, latency] [, category] [, group] [, split]
    [, prompt_chars] [, text | question | prompt] [, input_tokens] [, out_chars | output_chars]
    [, output_tokens] [, status]

`correct`: True, False, 1, 0 or a score between. `cost`: dollars. `latency`: seconds. `category` and `group` (a
document, a conversation) are of the question: its lines may leave them empty, and may not differ. Other columns are
named in a note. CSV, TSV, JSON, JSON lines or Parquet.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from escalade.agents.climb import Rung
from escalade.errors import BadInput
from escalade.evals._codes import MOST_COST, fact_column
from escalade.evals._draft import Draft, tokens_of
from escalade.evals._files import Table, number, some, stem, verdict
from escalade.evals.loading.rows import read_rows
from escalade.evals.outcomes import STATUSES, UNKNOWN
from escalade.money import Money

ANSWER, TEXT = ("answer", "pred"), ("text", "question", "prompt")
INPUT, OUTPUT = ("input_tokens", "prompt_tokens"), ("output_tokens", "out_tokens")
CHARS = ("out_chars", "output_chars")
"""Names that a column may have; the first of them that is there is read."""

READ = {
    *("question_id", "model", "correct", "status", "confidence", "cost", "latency", "prompt_chars"),
    *("category", "group", "split", *ANSWER, *TEXT, *INPUT, *OUTPUT, *CHARS),
}
"""All of them. Other columns are named in a note."""

Places = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Row and rung of each line."""


def load(path: Path, split: str | None = None) -> Draft:
    """A long table; only the rows of this split, where one is named. Raises DataError."""
    table = read_rows(path)
    for name in ("question_id", "model", "correct"):
        table.need(name)
    if split is not None:
        splits = table.cells(table.need("split"))
        table = replace(table, rows=[row for row, its in zip(table.rows, splits, strict=True) if its == split])
    questions, models = table.cells("question_id"), table.cells("model")
    for i in (column.index("") for column in (questions, models) if "" in column):
        raise table.wrong(i, "a question_id and a model are needed")
    keys, names = list(dict.fromkeys(questions)), sorted(set(models))  # the order of lines decides nothing
    row, rung = {key: i for i, key in enumerate(keys)}, {name: i for i, name in enumerate(names)}
    at = np.array([row[key] for key in questions], np.int64), np.array([rung[name] for name in models], np.int64)
    _unique(table, at, keys, names)
    return _filled(table, at, Draft.blank(stem(path), [Rung(name, None, name) for name in names], keys))


def _filled(table: Table, at: Places, draft: Draft) -> Draft:
    draft.quality[at] = table.parsed("correct", verdict)
    answers = next((name for name in ANSWER if name in table.header), None)
    if answers is not None:
        draft.answer[at] = [text or None for text in table.cells(answers)]
    if "cost" in table.header:
        draft.cost[at] = table.parsed("cost", _cost)
    if "status" in table.header:
        draft.status[at] = table.parsed("status", _status)
    _numbers(table, draft.confidence, at, "confidence", high=1.0)
    _numbers(table, draft.latency, at, "latency")
    chars = np.full(len(draft.keys), np.nan)
    if not _numbers(table, draft.output_tokens, at, *OUTPUT) and _numbers(table, draft.output_tokens, at, *CHARS):
        draft = replace(draft, output_tokens=tokens_of(draft.output_tokens))
    known = _numbers(table, chars, at[0], "prompt_chars") and not np.isnan(chars).any()
    if not _numbers(table, draft.input_tokens, at[0], *INPUT) and known:
        draft = replace(draft, input_tokens=tokens_of(chars))
    category, group = (_of_questions(table, name, at[0], draft.keys) for name in ("category", "group"))
    unread = [name for name in table.header if name and name not in READ]
    return replace(
        draft,
        prompt_chars=chars.astype(np.int64) if known else None,
        features=_texts(table, at[0], len(draft.keys)),
        category=[category.get(key, "") for key in draft.keys] if category else None,
        group=[group.get(key, key) for key in draft.keys] if group else None,  # who names none is a group of his own
    ).noted(*([f"columns that are not read: {some(unread)}"] if unread else []))


def _of_questions(table: Table, name: str, at: NDArray[np.int64], keys: list[str]) -> dict[str, str]:
    """What lines say of their questions in this column, by key; {} without it. Raises DataError for a contradiction."""
    found: dict[str, str] = {}
    for line, (i, said) in enumerate(zip(at.tolist(), table.cells(name), strict=True) if name in table.header else ()):
        if said and found.setdefault(keys[i], said) != said:
            told = f"the {name} of question {keys[i]!r} is {found[keys[i]]!r} on an earlier line and {said!r} here"
            raise table.wrong(line, f"{told}; it is one for all of its lines")
    return found


def _texts(table: Table, at: NDArray[np.int64], n: int) -> dict[str, NDArray[Any]]:
    """The texts of the questions, where every question has one on one of its lines at least."""
    name = next((name for name in TEXT if name in table.header), None)
    found = {} if name is None else {i: text for i, text in zip(at.tolist(), table.cells(name), strict=True) if text}
    return {"text": fact_column([found[i] for i in range(n)])} if len(found) == n > 0 else {}


def _numbers(table: Table, target: Any, at: Any, *names: str, high: float = np.inf) -> bool:
    """Fill the first of these columns in; is it there?"""
    name = next((name for name in names if name in table.header), None)
    if name is None:
        return False
    target[at] = table.parsed(name, number(0.0, high))
    return True


def _unique(table: Table, at: Places, keys: list[str], names: list[str]) -> None:
    place = at[0] * len(names) + at[1]
    _, first = np.unique(place, return_index=True)
    if len(first) < len(place):
        again = int(np.setdiff1d(np.arange(len(place)), first)[0])
        raise table.wrong(again, f"question {keys[at[0][again]]!r} has two lines for {names[at[1][again]]!r}")


def _cost(text: str) -> int:
    if not text.strip():
        return UNKNOWN
    try:
        cost = int(Money.of(text))
    except BadInput as error:
        raise ValueError(f"has {text[:40]!r}: {error}") from None
    if cost < 0:
        raise ValueError(f"has {text}; a cost isn't negative")
    if cost >= MOST_COST:
        raise ValueError(f"has {text}; no attempt costs a million: costs are dollars")
    return cost


def _status(text: str) -> int:
    status = text.strip() or STATUSES[0]
    if status not in STATUSES:
        raise ValueError(f"has {text!r}; it is one of {', '.join(STATUSES)}")
    return STATUSES.index(status)
