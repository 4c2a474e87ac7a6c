"""How the rows of runs look: as a tree of few lines, and as a line each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from escalade import events
from escalade.events import Event
from escalade.pipelines.watching import _words
from escalade.pipelines.watching._rows import ITEMS, Row, Rows
from escalade.pipelines.watching._timeline import ENDS

if TYPE_CHECKING:
    from escalade.scopes import Scope

WIDE = 12
"""Nodes beside one another that are shown one by one."""

BAR = 12

_SPIN = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ICONS = {"ok": ("✓", "green"), "failed": ("✗", "red"), "cancelled": ("-", "yellow"), "skipped": ("»", "dim")}
_FIRST = {"failed": 0, "running": 1, "ok": 2, "cancelled": 2, "skipped": 2, "waiting": 3}
_SAID = {"ok": "done"}


def tree(rows: Rows, height: int) -> Table:
    """The nodes, in at most `height` lines."""
    lines = [line for root in rows.roots.values() for line in _branch(root, "", "")]
    shown = lines if len(lines) <= height else lines[: height - 1]
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, overflow="ellipsis", min_width=12)
    for column in (1, 2, 3):
        cells = [line[column] for line in shown if len(line) > column]
        grid.add_column(no_wrap=True, min_width=max(map(len, cells), default=0))
    grid.add_column(no_wrap=True, overflow="ellipsis", style="dim")
    for line in shown:
        grid.add_row(*line)
    if len(lines) > height:
        grid.add_row(Text(f"… {len(lines) - height + 1} more lines", style="dim"))
    return grid


def _branch(row: Row, guide: str, below: str) -> Iterator[tuple[Text | str, ...]]:
    """The lines of a row and of what is in it. `guide`: in front of it; `below`: in front of what is in it."""
    yield _cells(row, guide)
    inside = _inside(row)
    shown, rest = _few(inside)
    for number, child in enumerate(shown):
        last = number == len(shown) - 1 and not rest
        yield from _branch(child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))
    if rest:
        yield (Text(f"{below}└─ … {_summary(rest)}", style="dim"),)


def _inside(row: Row) -> list[Row]:
    """Its rows; the items of a map have no line of their own, what is in them stands under the map."""
    found: list[Row] = []
    for child in row.inside.values():
        found += child.inside.values() if child.name == ITEMS else [child]
    return found


def _few(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """(those that are shown, the others): what failed, then what runs, in their order."""
    if len(rows) <= WIDE:
        return rows, []
    chosen = set(sorted(range(len(rows)), key=lambda i: (_FIRST[rows[i].state], i))[: WIDE - 4])
    return [row for i, row in enumerate(rows) if i in chosen], [row for i, row in enumerate(rows) if i not in chosen]


def _summary(rows: list[Row]) -> str:
    states: dict[str, int] = {}
    for row in rows:
        states[row.state] = states.get(row.state, 0) + 1
    told = ", ".join(f"{_words.count(times)} {_SAID.get(state, state)}" for state, times in states.items())
    money = sum(row.money() for row in rows)
    return f"{_words.count(len(rows))} more: {told}" + (f", {_words.dollars(money)}" if money else "")


def _cells(row: Row, guide: str) -> tuple[Text | str, ...]:
    name = Text(guide, style="dim")
    state = row.state
    if state == "running":
        name.append(_SPIN[int(time.monotonic() * 10) % len(_SPIN)] + " ", "cyan")
    else:
        icon, style = _ICONS.get(state, ("·", "dim"))
        name.append(f"{icon} ", style)
    name.append(row.name, "bold" if not row.path else "dim" if state == "waiting" else "")
    seconds = time.monotonic() - row.since if row.running else row.took
    money = row.money()
    return (
        name,
        _how_far(_counted(row)),
        _words.seconds(seconds) if row.started else "",
        _words.dollars(money) if money else "",
        _notes(row),
    )


def _counted(row: Row) -> Row:
    """The row whose runs are counted in the line: of a map, that of its items."""
    return row.inside.get(row.path + ITEMS, row) if row.path or ITEMS in row.inside else row


def _how_far(row: Row) -> Text:
    """A bar, a count, a rate and how long it will take."""
    text = Text()
    done, total = _progress(row)
    if total:
        full = min(BAR, int(BAR * done / total))
        text.append("━" * full, "green")
        text.append("╌" * (BAR - full), "dim")
        text.append(f" {_words.count(done)}/{_words.count(total)}")
    elif row.started > 1 or (row.name == ITEMS and row.started):
        text.append(_words.count(row.ended))
    elif row.done:
        text.append(_words.count(row.done))
    text.append(_pace(row, done, total), "dim")
    return text


def _progress(row: Row) -> tuple[float, float | None]:
    if row.expected is not None:
        return row.ended, row.expected
    return row.done, row.total


def _pace(row: Row, done: float, total: float | None) -> str:
    """`99/s, 38 s to go`, as fast as it was so far."""
    since = time.monotonic() - row.since
    if not row.started or not done or since < 0.5 or (total is not None and done >= total):
        return ""
    rate = done / since
    if total is None or not rate:
        return ""
    shown = f"{rate:.3g}/s" if rate >= 1 else f"{rate * 60:.3g}/min"
    return f"  {shown}, {_words.seconds((total - done) / rate)} to go"


def _notes(row: Row) -> Text:
    of = _counted(row)
    notes = []
    if of.started > 1 or of.expected is not None or of.name == ITEMS:
        told = (("running", of.running), ("failed", of.failed), ("cancelled", of.cancelled), ("skipped", of.skipped))
        notes += [f"{_words.count(times)} {what}" for what, times in told if times]
    counts = dict(row.counts)
    if of is not row:
        for what, times in of.counts.items():
            counts[what] = counts.get(what, 0) + times
    notes += [f"{times} {what}" if times > 1 else what for what, times in counts.items()]
    notes += [one for one in (row.message, of.why if of.failed or of.skipped else "") if one]
    return Text(_one_line(", ".join(notes)))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def totals(scope: Scope | None, took: float, spent: int, uses: int) -> Text:
    """The last line: time, money and calls, and what is left of them."""
    parts = [_words.seconds(took)]
    left = None if scope is None else scope.left
    if left is not None:
        parts.append(f"{_words.dollars(spent)}, {_words.dollars(int(left))} left of the budget")
    elif spent:
        parts.append(_words.dollars(spent))
    if scope is not None and scope.deadline != math.inf:
        parts.append(f"{_words.seconds(max(0.0, scope.time_left()))} until the deadline")
    if uses:
        parts.append(f"{_words.count(uses)} call{'s' * (uses != 1)}")
    return Text("  ".join(parts), style="bold")


# ---------------------------------------------------------------------------------------------------- one line each


def told_with(row: Row) -> Row:
    """The row whose lines this one's are: of one of many branches, that of the fan-out."""
    around = row.around
    return row if around is None or len(around.inside) <= WIDE else around


def often(event: Event, row: Row) -> bool:
    """May there be many lines like this? The last one of all items is not one of those."""
    if isinstance(event, events.Progress):
        return event.done != event.total
    return (row.started > 1 or row.expected is not None) and row.ended != row.expected


def summary(row: Row) -> str:
    """A line on all that is in a row."""
    return f"{row.path or row.name}: {_summary(list(row.inside.values())).replace(' more', '', 1)}"


def line(event: Event, row: Row) -> str:
    """What there is to say of an event, "" for nothing."""
    say = _SAYINGS.get(type(event))
    return "" if say is None else f"{_where(row)}{say(event, row)}"


def _where(row: Row) -> str:
    return f"{row.path.removesuffix(ITEMS) or row.name}: "


def _progressed(event: Any, _: Row) -> str:
    total = "" if event.total is None else f"/{_words.count(event.total)}"
    return f"{_words.count(event.done)}{total} {_one_line(event.message)}".rstrip()


def _ended(event: Any, row: Row) -> str:
    money = row.money()
    cost = f", {_words.dollars(money)}" if money else ""
    if row.started > 1 or row.expected is not None:
        of = "" if row.expected is None else f"/{_words.count(row.expected)}"
        failed = f", {_words.count(row.failed)} failed" if row.failed else ""
        return f"{_words.count(row.ended)}{of}{failed}{cost}"
    error = getattr(event, "error", "")
    how = "failed after" if error else "done in" if row.ok else "cancelled after"
    return f"{how} {_words.seconds(event.seconds)}{cost}{': ' * bool(error)}{_one_line(error)}"


_SAYINGS: dict[type[Event], Callable[[Any, Row], str]] = {
    **dict.fromkeys(ENDS, _ended),
    events.RunStarted: lambda *_: "begins",
    events.Progress: _progressed,
    events.NodeSkipped: lambda event, _: f"skipped: {_one_line(event.why)}",
    events.NodeRetried: lambda event, _: f"attempt {event.attempt} after {_one_line(event.error)}",
    events.NodeFellBack: lambda event, _: f"{event.fallback} stands in after {_one_line(event.error)}",
    events.Escalated: lambda event, _: f"{event.from_rung} -> {event.to_rung}",
    events.ToolDenied: lambda event, _: f"{event.tool} denied: {_one_line(event.rule)}",
    events.Paused: lambda event, _: f"waits for a person: {_one_line(event.question)}",
}
