"""Long tables: one line per question and model.

    question_id, model, correct [, answer | pred] [, confidence] [, cost] [, latency] [, category] [, split]
    [, prompt_chars] [, input_tokens] [, out_chars | output_chars] [, output_tokens] [, status]

`correct`: True, False, 1, 0 or a score between. `cost`: dollars. `latency`: seconds. CSV or TSV, gzipped or not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from escalade.agents.climb import Rung
from escalade.errors import BadInput, DataError
from escalade.evals._draft import Draft, tokens_of
from escalade.evals._files import column, number, read_table, stem, verdict
from escalade.evals.outcomes import STATUSES
from escalade.money import Money

Cells = list[tuple[int, list[str]]]


def load(path: Path, split: str | None = None) -> Draft:
    """A long table; only the rows of this split, where one is named. Raises DataError, UnknownName."""
    header, lines = read_table(path)
    question, model = column(path, header, "question_id"), column(path, header, "model")
    column(path, header, "correct")
    if split is not None:
        at = column(path, header, "split")
        lines = [(line, cells) for line, cells in lines if cells[at] == split]
    keys = {key: i for i, key in enumerate(dict.fromkeys(cells[question] for _, cells in lines))}
    models = {name: i for i, name in enumerate(dict.fromkeys(cells[model] for _, cells in lines))}
    if "" in keys or "" in models:
        line = next(line for line, cells in lines if not cells[question] or not cells[model])
        raise DataError(f"{path}: line {line}: a question_id and a model are needed")
    draft = Draft.blank(stem(path), [Rung(name, None, name) for name in models], list(keys))
    places = [(keys[cells[question]], models[cells[model]]) for _, cells in lines]
    _unique(path, lines, places, list(keys), list(models))
    return _filled(_Table(path, header, lines, places), draft)


class _Table:
    """Cells by column, and where on the draft each line belongs."""

    def __init__(self, path: Path, header: list[str], lines: Cells, places: list[tuple[int, int]]) -> None:
        self.path, self.header, self.lines, self.places = path, header, lines, places

    def cells(self, *names: str) -> list[tuple[int, tuple[int, int], str]] | None:
        """[(line, place, text)] of the first of these columns, None where there is none."""
        name = next((n for n in names if n in self.header), None)
        if name is None:
            return None
        at = self.header.index(name)
        return [(line, place, cells[at]) for (line, cells), place in zip(self.lines, self.places, strict=True)]

    def numbers(self, target: Any, *names: str, low: float = 0.0, high: float = np.inf) -> bool:
        """Fill a column of numbers in; is it there?"""
        name = next((n for n in names if n in self.header), names[0])
        for line, place, text in self.cells(*names) or []:
            value = number(self.path, line, name, text)
            if value < low or value > high:
                raise DataError(f"{self.path}: line {line}: column {name!r} has {value:g}, outside {low:g} to {high:g}")
            target[place if target.ndim == 2 else place[0]] = value
        return name in self.header


def _filled(table: _Table, draft: Draft) -> Draft:
    for line, place, text in table.cells("correct") or []:
        draft.quality[place] = verdict(table.path, line, "correct", text)
    for _, place, text in table.cells("answer", "pred") or []:
        draft.answer[place] = text or None
    for line, place, text in table.cells("cost") or []:
        if text.strip():
            draft.cost[place] = _cost(table.path, line, text)
    for line, place, text in table.cells("status") or []:
        draft.status[place] = _status(table.path, line, text)
    table.numbers(draft.confidence, "confidence", high=1.0)
    table.numbers(draft.latency, "latency")
    chars = np.full(len(draft.keys), np.nan)
    if not table.numbers(draft.output_tokens, "output_tokens", "out_tokens") and table.numbers(
        draft.output_tokens, "out_chars", "output_chars"
    ):
        draft = replace(draft, output_tokens=tokens_of(draft.output_tokens))
    known = table.numbers(chars, "prompt_chars") and not np.isnan(chars).any()
    if not table.numbers(draft.input_tokens, "input_tokens", "prompt_tokens") and known:
        draft = replace(draft, input_tokens=tokens_of(chars))
    category: dict[int, str] = {place[0]: text for _, place, text in table.cells("category") or []}
    return replace(
        draft,
        prompt_chars=chars.astype(np.int64) if known else None,
        category=[category[i] for i in range(len(draft.keys))] if category else None,
    )


def _unique(path: Path, lines: Cells, places: list[tuple[int, int]], keys: list[str], models: list[str]) -> None:
    if len(set(places)) == len(places):
        return
    seen: set[tuple[int, int]] = set()
    for (line, _), place in zip(lines, places, strict=True):
        if place in seen:
            raise DataError(f"{path}: line {line}: question {keys[place[0]]!r} has two lines for {models[place[1]]!r}")
        seen.add(place)


def _cost(path: Path, line: int, text: str) -> int:
    try:
        cost = int(Money.of(text))
    except BadInput as error:
        raise DataError(f"{path}: line {line}: column 'cost': {error}") from None
    if cost < 0:
        raise DataError(f"{path}: line {line}: column 'cost' has {text}; a cost isn't negative")
    return cost


def _status(path: Path, line: int, text: str) -> int:
    status = text.strip() or STATUSES[0]
    if status not in STATUSES:
        raise DataError(f"{path}: line {line}: column 'status' has {text!r}; it is one of {', '.join(STATUSES)}")
    return STATUSES.index(status)
