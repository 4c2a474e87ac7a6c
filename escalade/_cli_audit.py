"""`escalade audit verify | tail | export`: the audit log from a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from escalade._cli_view import print_

if TYPE_CHECKING:
    from escalade.registry.audit.rows import Row
    from escalade.registry.audit.verify import Verification

app = App(
    name="audit",
    help="Look at the record of every use, and check that it is what it was.",
    suppress_keyboard_interrupt=False,
)

OK, TAMPERED = 0, 100
"""Exit codes; 100 is none that anything else returns."""

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


@app.command
def verify(
    path: str,
    *,
    anchors: Annotated[list[str] | None, Parameter(negative=())] = None,
    key: str | None = None,
    json: Flag = False,
) -> int:
    """Check that every row follows from the one before, and that the chain leads to what the anchors hold.

    Exits with 100 when something was changed, removed, added or made anew, or no anchor holds a checkpoint of it.
    Rows after the last checkpoint of an anchor are counted apart: their end may have been cut off or made anew, and
    nobody could tell.

    Parameters
    ----------
    path
        The log, a SQLite file or postgresql://... It may be in use.
    anchors
        Anchor files, kept where whoever could change the log could not change them. Can be repeated.
    key
        Checks the signatures: env:NAME or file:PATH; for Ed25519 the public key.
    json
        One JSON object instead of a table.
    """
    from escalade.registry.audit.verify import verify as run

    found = run(path, anchors or (), key=key)
    if json:
        from json import dumps

        sys.stdout.write(dumps(found.to_json(), indent=2) + "\n")
    else:
        _show(found)
    return OK if found.ok and found.vouched else TAMPERED


@app.command
def tail(path: str, *, n: Annotated[int, Parameter(name="-n")] = 20, json: Flag = False, follow: Flag = False) -> int:
    """The last rows. They are shown as they stand, not verified.

    Parameters
    ----------
    path
        The log.
    n
        How many rows.
    json
        One JSON object per line instead of a table.
    follow
        Go on with new rows as they come; Ctrl-C ends it.
    """
    from escalade.registry.audit import reading

    last = reading.tail(path, n)
    if json:
        _lines(last)
    else:
        print_(_table(last))
    if follow:
        _follow(path, last[-1].seq if last else 0, json=json)
    return OK


@app.command
def export(path: str, *, since: str | None = None) -> int:
    """All rows as JSON lines on standard output, oldest first.

    Parameters
    ----------
    path
        The log.
    since
        Only rows of this time and later, such as 2026-01-31 or 2026-01-31T12:00+02:00; UTC where no zone is named.
    """
    from escalade.registry.audit import reading

    _lines(reading.rows(path, since=None if since is None else reading.parse_since(since)))
    return OK


def _lines(rows: Iterable[Row]) -> None:
    for row in rows:
        sys.stdout.write(row.to_json() + "\n")


def _follow(path: str, after: int, *, json: bool) -> None:
    from escalade.registry.audit import reading

    for row in reading.follow(path, after):
        if json:
            _lines([row])
        else:
            print_(_table([row], header=False))
        sys.stdout.flush()


def _show(found: Verification) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for name, value in _summary(found):
        table.add_row(f"[bold]{name}[/]", value)
    print_(table)
    for one in found.findings:
        print_(f"[red]{one.kind:<10}[/] {escape(str(one))}")
    if found.problems > len(found.findings):
        print_(f"… and {found.problems - len(found.findings):,} more")
    print_(_verdict(found))


def _verdict(found: Verification) -> str:
    if not found.ok:
        return f"[red]tampered with: {found.problems:,} findings[/]"
    if not found.vouched:
        return "[red]no anchor holds a checkpoint of this log[/]: is it the right file, and was it emptied?"
    if not found.unanchored:
        return "[green]nothing was tampered with[/]"
    loose = f"the last {found.unanchored:,} rows are" if found.anchored else "all rows are"
    return f"[green]no change was found[/], but {loose} not anchored: their end may be missing or made anew"


def _summary(found: Verification) -> list[tuple[str, str]]:
    proven = f"1 to {found.anchored:,}" if found.anchored else "none"
    loose = f"{found.anchored + 1:,} to {found.rows:,}" if found.unanchored else "none"
    rate = f"{found.rows / found.seconds:,.0f} rows/s" if found.seconds else ""
    return [
        ("log", found.path),
        ("rows", f"{found.rows:,} ({rate})"),
        ("anchored", f"{proven}, {found.checkpoints:,} checkpoints held against it"),
        ("unanchored", loose),
        ("signatures", found.signatures),
        ("unfinished", f"{found.unfinished_count:,}" + _some(found.unfinished, found.unfinished_count)),
    ]


def _some(calls: list[str], count: int) -> str:
    shown = ", ".join(calls[:5])
    return f" ({shown}{', …' if count > 5 else ''})" if calls else ""


def _table(rows: Iterable[Row], *, header: bool = True) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", show_header=header)
    for name in ("row", "time (UTC)", "event", "who", "what", "outcome", "cost"):
        table.add_column(name, justify="right" if name in {"row", "cost"} else "left", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    from rich.markup import escape

    from escalade.money import Money

    try:
        said = row.fields()
    except ValueError:
        return [str(row.seq), "", "unreadable", "", "", "", ""]
    who = "/".join(str(said[name]) for name in ("tenant", "user") if name in said)
    what = "@".join(str(said[name]) for name in ("resource", "version") if said.get(name))
    cost = str(Money(said["cost"])) if isinstance(said.get("cost"), int) else ""
    outcome = str(said.get("outcome", ""))
    when = datetime.fromtimestamp(row.at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return [str(row.seq), when, *map(escape, (row.event, who, what, outcome)), cost]
