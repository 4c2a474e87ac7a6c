"""Tables, checks and sentences in a terminal, beside the report of the comparison (`escalade.evals.report`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from escalade.evals.reporting.cells import is_number, safe, written_cell

if TYPE_CHECKING:
    from rich.console import Console

    from escalade.evals.findings import Findings
    from escalade.evals.tables import Column, Table

__all__ = ["checks", "show_tables"]

MARKS = {True: ("held", "green"), False: ("FAILED", "bold red"), None: ("can't tell", "yellow")}
SHADE = "dim"


def show_tables(tables: Iterable[Table], console: Console) -> None:
    """One after the other, each with what it answers above and its notes below."""
    for table in tables:
        for part in _parts(table, console.width):
            console.print(part)


def checks(found: Findings) -> RenderableType:
    """All self-checks, how they ended, and what was seen."""
    grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False, expand=False)
    for check in found.checks:
        word, style = MARKS[check.held]
        grid.add_row(Text(word, style=style), Text(safe(check.name)), Text(safe(check.said), style=SHADE))
    return grid


def _parts(table: Table, width: int) -> Iterator[RenderableType]:
    yield Text(safe(table.title), style="bold")
    if table.about:
        yield Text(safe(table.about), style=SHADE)
    for columns in _blocks(table, width):
        grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", expand=False)
        for column in columns:
            grid.add_column(safe(column.head), justify="right" if is_number(column) else "left")
        for row in table.rows:
            grid.add_row(*(Text(written_cell(column, row)) for column in columns))
        yield grid
        yield ""
    for note in table.notes:
        yield Text(f"- {safe(note)}", style=SHADE)
    if table.notes:
        yield ""


def _blocks(table: Table, width: int) -> list[list[Column]]:
    """The columns that have something to say, in blocks that fit; each begins with the first one."""
    first, *rest = table.columns
    blocks, used = [[first]], _wide(first, table)
    for column in rest:
        if not any(row[column.name] not in (None, 0) for row in table.rows):
            continue
        needed = _wide(column, table) + 2
        if used + needed > width and len(blocks[-1]) > 1:
            blocks.append([first])
            used = _wide(first, table)
        blocks[-1].append(column)
        used += needed
    return blocks


def _wide(column: Column, table: Table) -> int:
    cells = (written_cell(column, row) for row in table.rows)
    return max(map(cell_len, (column.head, *cells)))
