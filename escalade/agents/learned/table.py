"""What policies are fitted on: a table of questions and of what each rung gave for them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol

from escalade.agents.climb import Attempt, Rung, View
from escalade.errors import BadInput, DataError

LEAST = 20
"""Fewer rows than these are no sample."""


class Table(Protocol):
    """n questions on a ladder of k rungs; `escalade.evals.outcomes.Outcomes` is one.

    `quality`: array (n, k) of floats in 0..1. `view(i)`: the first View on question i. `attempt(i, rung)`: what that
    rung gave for it. Both are exactly what a live policy sees.
    """

    @property
    def rungs(self) -> tuple[Rung, ...]: ...
    @property
    def quality(self) -> Any: ...
    @property
    def n(self) -> int: ...
    def view(self, i: int) -> View: ...
    def attempt(self, i: int, rung: int) -> Attempt: ...


def rows_of(table: Table, rows: Sequence[int] | None) -> list[int]:
    """The rows to fit on, None is all. Raises DataError for fewer than LEAST, BadInput as `checked_rows`."""
    at = checked_rows(table, rows)
    if len(at) < LEAST:
        raise DataError(f"{len(at)} questions are too few to learn from; it takes {LEAST} at least, better hundreds")
    return at


def checked_rows(table: Table, rows: Sequence[int] | None) -> list[int]:
    """Numbers of rows of the table, None is all. Raises BadInput for one that it doesn't have, or has been given twice.

    A row that is there twice would be predicted from itself where it is left out.
    """
    if rows is None:
        return list(range(table.n))
    try:
        at = [operator.index(i) for i in rows]
    except TypeError:
        raise BadInput(f"rows: expected numbers of rows, like range(600), got {rows!r}") from None
    wrong = next((i for i in at if not 0 <= i < table.n), None)
    if wrong is not None or len(set(at)) < len(at):
        got = f"{len(at) - len(set(at))} of them again" if wrong is None else str(wrong)
        raise BadInput(f"rows: expected numbers from 0 to {table.n - 1}, each of them once, got {got}")
    return at


def graded(table: Table, row: int, rung: int) -> float:
    """Quality of this rung's answer, 0 for a failed attempt."""
    return float(table.quality[row, rung]) if table.attempt(row, rung).ok else 0.0


def after(table: Table, row: int, rungs: Sequence[int]) -> View:
    """The View on this question after these rungs have been tried in this order."""
    first = table.view(row)
    return View(
        first.key,
        first.features,
        first.rungs,
        first.prices,
        first.ceilings,
        tuple(table.attempt(row, rung) for rung in rungs),
    )
