"""A live confirmation in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from escalade.evals._terminal import Terminal
from escalade.evals.studies.promise import CONFIRMED, INSIDE, OUTSIDE, TOO_FEW, Promise, figure, interval

if TYPE_CHECKING:
    from rich.console import Console

    from escalade.evals.studies.confirmation import Confirmation

WIDE, SHOWN = 100, 5
STYLES = {CONFIRMED: "green", INSIDE: "yellow", TOO_FEW: "yellow", OUTSIDE: "bold red"}


def show(done: Confirmation, console: Console | None = None) -> None:
    """Print it: promised and live, what differs most, one closing sentence."""
    console = console or _console()
    asked = f"{done.n:,} questions" + (f", {done.owed:,} not asked" if done.owed else "")
    console.print(f"[bold]{done.dataset}[/]: {done.policy}, live, {asked}", highlight=False)
    console.print(_table(done))
    if done.causes:
        console.print("\nwhat differs, the most important first", highlight=False)
    for cause in done.causes[:SHOWN]:
        console.print(f"  {cause.said}", highlight=False)
    console.print()
    for note in done.notes:
        console.print(f"  {note}", style="dim", highlight=False)
    paid = f"spent now {done.spent}" + (f", earlier {done.before}" if int(done.before) else "")
    console.print(f"  errors: {done.errors[0]} live, {done.errors[1]} replayed; {paid}", style="dim", highlight=False)
    console.print(f"\n{done.sentence}", highlight=False)


def _table(done: Confirmation) -> Table:
    table = Table("", "replayed", "its interval", "live", "difference", "", box=None, header_style="bold")
    for column in table.columns[1:5]:
        column.justify = "right"
    for promise in (done.quality, done.cost):
        table.add_row(*_cells(promise), style="")
    return table


def _cells(promise: Promise) -> list[str]:
    verdict = promise.verdict
    style = STYLES.get(verdict)
    return [
        promise.what,
        figure(promise, promise.replayed),
        interval(promise),
        figure(promise, promise.live),
        figure(promise, promise.diff, signed=True),
        f"[{style}]{verdict}[/]" if style else verdict,
    ]


def _console() -> Console:
    import sys

    return Terminal(width=None if sys.stdout.isatty() else WIDE)
