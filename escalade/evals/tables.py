"""Tables of figures: made once, and shown alike in a terminal, a page, Markdown, CSV and JSON.

Whoever finds something out makes a `Table` of it: rows by column name, and columns that say what they hold, where the
formula comes from and between which bounds the truth lies. Renderers know nothing but these kinds of columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from escalade.errors import BadInput

__all__ = ["Column", "Kind", "Table"]

Kind = Literal["text", "share", "points", "usd", "seconds", "count", "figure", "ratio", "p", "yes"]
"""What a cell holds and how it is written:

    text      as it is                          share     0..1, shown in percent
    points    a difference of two shares        usd       dollars
    seconds   seconds                           count     a whole number
    figure    any other number                  ratio     a multiple of the baseline's, 1 is equal
    p         a p value                         yes       true or false
"""


@dataclass(frozen=True)
class Column:
    """`name`: of the key in a row. `head`: what stands above it. `about`: one sentence: what it is, with its formula
    and source. `low`, `high`: keys of the bounds of its 95 % interval, shown with it.
    """

    name: str
    head: str
    kind: Kind
    about: str = ""
    low: str | None = None
    high: str | None = None


@dataclass(frozen=True)
class Table:
    """`name`: a word, which it has in JSON and as a file. `about`: what it answers, one sentence. `rows`: by the names
    of the columns and their bounds; None is unknown, never zero. `notes`: one line each, to be shown with it.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    about: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keys = {key for column in self.columns for key in (column.name, column.low, column.high) if key is not None}
        for row in self.rows:
            if missing := keys - row.keys():
                raise BadInput(f"table {self.name!r}: a row lacks {', '.join(sorted(missing))}")

    @classmethod
    def of(
        cls,
        name: str,
        title: str,
        columns: Sequence[Column],
        found: Iterable[Any],
        *,
        about: str = "",
        notes: Sequence[str] = (),
    ) -> Table:
        """`found`: dataclasses or mappings, one for each row; nan becomes None."""
        return cls(name, title, tuple(columns), tuple(_row(one) for one in found), about, tuple(notes))

    def to_json(self) -> dict[str, Any]:
        """Its rows as plain values, rounded to 6 digits after the point."""
        keys = dict.fromkeys(
            key for column in self.columns for key in (column.name, column.low, column.high) if key is not None
        )
        return {
            "title": self.title,
            "about": self.about,
            "columns": {column.name: column.about for column in self.columns},
            "rows": [{key: _plain(row[key]) for key in keys} for row in self.rows],
            "notes": list(self.notes),
        }


def _row(one: Any) -> Mapping[str, Any]:
    if is_dataclass(one):
        one = {field.name: getattr(one, field.name) for field in fields(one)}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in one.items()}


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return round(value, 6) if isinstance(value, float) else value
