"""Tables, checks and sentences in a terminal, beside the report of the comparison (`escalade.evals.report`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from escalade.evals.reporting.cells import is_number, safe, written_cell

if TYPE_CHECKING:
    from rich.console import Console

    from escalade.evals.findings import Check, Findings
    from escalade.evals.tables import Table

__all__ = ["said", "show_tables"]

MARKS = {True: ("held", "green"), False: ("FAILED", "bold red"), None: ("can't tell", "yellow")}
SHADE = "dim"


def show_tables(tables: Iterable[Table], console: Console) -> None:
    """One after the other, each with what it answers above and its notes below."""
    for table in tables:
        for part in _parts(table):
            console.print(part)


def said(found: Findings, *, all_checks: bool = True) -> Iterator[RenderableType]:
    """The self-checks, those alone that failed if not `all_checks`, and what has to be said in words."""
    shown = [check for check in found.checks if all_checks or check.held is False]
    if shown:
        yield _checked(shown)
        yield ""
    for sentence in found.sentences:
        yield Text(safe(sentence))
    if found.sentences:
        yield ""


def _parts(table: Table) -> Iterator[RenderableType]:
    yield Text(safe(table.title), style="bold")
    if table.about:
        yield Text(safe(table.about), style=SHADE)
    grid = Grid(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=False)
    for column in table.columns:
        grid.add_column(safe(column.head), justify="right" if is_number(column) else "left")
    for row in table.rows:
        grid.add_row(*(Text(written_cell(column, row)) for column in table.columns))
    yield grid
    for note in table.notes:
        yield Text(f"- {safe(note)}", style=SHADE)
    yield ""


def _checked(checks: Sequence[Check]) -> Grid:
    grid = Grid(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False, expand=False)
    for check in checks:
        word, style = MARKS[check.held]
        grid.add_row(Text(word, style=style), Text(safe(check.name)), Text(safe(check.said), style=SHADE))
    return grid
