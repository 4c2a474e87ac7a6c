"""A comparison as a table for people: what is best, what it costs, and how sure that is.

The interval of each quality is drawn on one axis for all rows. Widths follow the console: below 100 columns differences
are shortened to "+1.6 ±1.6" and the relative cost is left out, so that nothing wraps from 80 columns on.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from escalade.evals.statistics import AS_GOOD, BETTER, CANT_TELL

if TYPE_CHECKING:
    from escalade.evals.compare import Comparison, Row

WIDE = 100
"""Columns from which on a row has room for full intervals and the relative cost."""

DIFF = "vs baseline"
"""Column of the differences, in points."""

LEAST_BAR, MOST_BAR = 7, 44
STYLES = {BETTER: "bold green", AS_GOOD: "green", CANT_TELL: "yellow"}
SHADE = "dim"


@dataclass(frozen=True)
class Glyphs:
    """What intervals and marks are drawn with."""

    left: str = "├"
    line: str = "─"
    dot: str = "●"
    right: str = "┤"
    dagger: str = "†"
    plus_minus: str = "±"


PLAIN = Glyphs("|", "-", "o", "|", "!", "~")
"""For terminals that know ASCII only."""


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Print the report. Without a terminal it is plain text of 100 columns (or `COLUMNS`)."""
    console = console or _console()
    glyphs = Glyphs() if _can_draw(console) else PLAIN
    console.print(_title(comparison))
    console.print()
    console.print(_table(comparison, console.width, glyphs))
    console.print()
    for mark, note in (*_legend(comparison, glyphs), *(("-", note) for note in comparison.notes)):
        console.print(_item(mark, note, console.width))
    console.print()
    if comparison.changed:
        console.print(_sentence(_relabelled(comparison), console.width, "yellow"))
        console.print()
    console.print(_sentence(closing(comparison), console.width, "bold"))


def closing(comparison: Comparison) -> str:
    """One sentence: what difference this sample can resolve, and which cheapest policy is as good as the baseline."""
    base, n = _short(comparison.baseline, comparison), f"{comparison.n:,} questions"
    if comparison.detectable is None:
        told = f"With {n} no difference to {base} can be told from chance"
    else:
        told = (
            f"With {n}, a true difference to {base} of {100 * comparison.detectable:.1f} points is found 4 times in 5 "
            f"({_range(comparison)}), smaller ones may stay hidden"
        )
    if all(row.cost_per_1k_usd is None for row in comparison.rows):
        return f"{told}; what the policies cost is unknown."
    best = comparison.cheapest_as_good
    margin = f"{100 * comparison.margin:g} points"
    if best is None:
        return f"{told}; no cheaper policy is shown to be as good as {base} within {margin}."
    ratio = f"{100 * (best.cost_ratio or 0):.3g} % of its cost"
    by = "by these labels " if best.name in {change.name for change in comparison.changed} else ""
    name = _short(best.name, comparison)
    return f"{told}; {by}the cheapest policy that is as good within {margin} is {name}, at {ratio}."


class _Terminal(Console):
    """Leaves it to the command what a reader that stops reading means; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console() -> Console:
    console = _Terminal(highlight=False)
    if console.is_terminal or "COLUMNS" in console._environ:
        return console
    return _Terminal(highlight=False, width=WIDE)


def _can_draw(console: Console) -> bool:
    try:
        "".join(vars(Glyphs()).values()).encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _title(comparison: Comparison) -> Text:
    title = Text(comparison.dataset, style="bold")
    title.append(f": {comparison.n:,} questions, {comparison.labels} labels", style="default not bold")
    title.append(", 95 % intervals", style="default not bold")
    return title


def _table(comparison: Comparison, width: int, glyphs: Glyphs) -> Table:
    wide, errors = width >= WIDE, any(row.errors for row in comparison.rows)
    violations = any(row.budget_violations for row in comparison.rows)
    cells = [_cells(row, comparison, wide=wide, glyphs=glyphs) for row in comparison.rows]
    heads = {"": "left", "policy": "left", "quality": "right", "bar": "left", "$/1k": "right", DIFF: "right"}
    heads |= {"cost": "right"} if wide else {}
    heads |= {"verdict": "left"} | ({"err": "right"} if errors else {}) | ({"over": "right"} if violations else {})
    fixed = {name: max(1, len(name), *(c[name].cell_len for c in cells)) for name in heads if name != "bar"}
    spare = width - sum(fixed.values()) - len(heads)
    bar = min(MOST_BAR, max(LEAST_BAR, spare))
    fixed["policy"] = min(fixed["policy"], max(12, fixed["policy"] + min(0, spare - bar)))
    axis = _Axis.over(comparison.rows, bar)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=False)
    for name, justify in heads.items():
        head = axis.head() if name == "bar" else name
        space = bar if name == "bar" else fixed[name]
        table.add_column(head, justify=justify, width=space, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    for row, cell in zip(comparison.rows, cells, strict=True):
        cell["bar"] = axis.draw(row, glyphs)
        table.add_row(*(cell[name] for name in heads), style=SHADE if row.hindsight else None)
    return table


def _cells(row: Row, comparison: Comparison, *, wide: bool, glyphs: Glyphs) -> dict[str, Text]:
    is_base = row.name == comparison.baseline
    word = "baseline" if is_base else "hindsight" if row.hindsight else row.verdict
    marks = ("*" if row.frontier else " ") + (glyphs.dagger if row.beats_random is False else "")
    ratio = "" if row.cost_ratio is None or is_base else _relative(row.cost_ratio)
    return {
        "": Text(marks.rstrip(), style="bold cyan"),
        "policy": Text(_short(row.name, comparison), style="bold" if row.frontier or is_base else ""),
        "quality": Text(f"{100 * row.quality:.1f}%"),
        "$/1k": Text("?" if row.cost_per_1k_usd is None else _money(row.cost_per_1k_usd)),
        DIFF: Text("" if is_base else _difference(row, glyphs, wide=wide)),
        "cost": Text(ratio),
        "verdict": Text(word, style=SHADE if is_base or row.hindsight else STYLES.get(row.verdict, "red")),
        "err": Text(str(row.errors or ""), style="red"),
        "over": Text(str(row.budget_violations or ""), style="bold red"),
    }


def _difference(row: Row, glyphs: Glyphs, *, wide: bool) -> str:
    if row.diff_low is None or row.diff_high is None:
        return f"{100 * row.diff:+.1f}"
    if wide:
        return f"{100 * row.diff:+.1f} [{100 * row.diff_low:+5.1f},{100 * row.diff_high:+6.1f}]"
    half = max(row.diff - row.diff_low, row.diff_high - row.diff)
    return f"{100 * row.diff:+.1f} {glyphs.plus_minus}{100 * half:.1f}"


@dataclass(frozen=True)
class _Axis:
    """Quality from `low` to `high` (0..1) on `width` characters."""

    low: float
    high: float
    width: int

    @classmethod
    def over(cls, rows: tuple[Row, ...], width: int) -> _Axis:
        """From the lowest to the highest bound, in whole points."""
        low = min(row.quality if row.quality_low is None else row.quality_low for row in rows)
        high = max(row.quality if row.quality_high is None else row.quality_high for row in rows)
        bottom = math.floor(low * 100) / 100
        return cls(bottom, max(math.ceil(high * 100) / 100, bottom + 0.01), width)

    def at(self, quality: float) -> float:
        """Where a quality falls, in characters; one is kept free at either end for the bounds around a dot."""
        share = (quality - self.low) / (self.high - self.low)
        return 1 + min(1.0, max(0.0, share)) * (self.width - 3)

    def head(self) -> Text:
        left, right = f"{100 * self.low:.0f}%", f"{100 * self.high:.0f}%"
        return Text(left + " " * max(1, self.width - len(left) - len(right)) + right)

    def draw(self, row: Row, glyphs: Glyphs) -> Text:
        """The interval: ├──●──┤, shaded, rounded outwards: it is never drawn narrower than it is."""
        cells, at = [" "] * self.width, round(self.at(row.quality))
        if row.quality_low is not None and row.quality_high is not None:
            low = min(at - 1, math.floor(self.at(row.quality_low)))
            high = max(at + 1, math.ceil(self.at(row.quality_high)))
            cells[low : high + 1] = [glyphs.line] * (high + 1 - low)
            cells[low], cells[high] = glyphs.left, glyphs.right
        cells[at] = glyphs.dot
        text = Text("".join(cells), style=SHADE)
        text.stylize("not dim bold cyan" if row.frontier else "not dim", at, at + 1)
        return text


def _legend(comparison: Comparison, glyphs: Glyphs) -> Iterator[tuple[str, str]]:
    """(mark, what it means), and what every reader of such a table should know."""
    if any(row.frontier for row in comparison.rows):
        yield "*", "no other policy is as good and cheaper, or as cheap and better"
    if any(row.beats_random is False for row in comparison.rows):
        yield glyphs.dagger, "not shown to beat a random mix of its cheap and the strongest rung at the same cost"
    if any(row.hindsight for row in comparison.rows):
        yield "-", "the oracle knows the right answers: a bound, not a policy"
    if any(row.errors for row in comparison.rows):
        yield "-", "err: questions left without a usable answer; they count as wrong"
    yield (
        "-",
        "each interval is for one comparison; of 20 policies that are no better than the baseline, one may seem so",
    )


def _relabelled(comparison: Comparison) -> str:
    """Which verdicts another grading of the same answers turns round, grouped."""
    groups: dict[tuple[str, str], list[str]] = {}
    for change in comparison.changed:
        groups.setdefault((change.verdict, change.other), []).append(_short(change.name, comparison))
    told = "; ".join(f'"{a}" becomes "{b}" for {", ".join(names)}' for (a, b), names in groups.items())
    return f"These verdicts hang on the labels. With --labels {comparison.other_labels}, {told}."


def _item(mark: str, text: str, width: int) -> Text:
    """A note with a hanging indent."""
    lines = textwrap.wrap(text, width - 2, break_long_words=False, break_on_hyphens=False) or [""]
    item = Text(mark, style=SHADE if mark == "-" else "bold cyan")
    return item.append(" " + "\n  ".join(lines), style="not bold dim default")


def _sentence(text: str, width: int, style: str) -> Text:
    return Text("\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)), style=style)


def _range(comparison: Comparison) -> str:
    told = [row.detectable for row in comparison.rows if row.detectable is not None and not row.hindsight]
    low, high = f"{100 * min(told):.1f}", f"{100 * max(told):.1f}"
    return "by any of them" if low == high else f"{low} to {high}, by policy"


def _short(name: str, comparison: Comparison) -> str:
    """A rung's name without its provider ("mistralai/"), where that stays unique."""
    short = name.rsplit("/", 1)[-1] if name.count("/") == 1 and not name.rsplit("/", 1)[-1].isdigit() else name
    short = name if "+budget" in short or "@" in short else short
    return short if [row.name.endswith("/" + short) for row in comparison.rows].count(True) <= 1 else name


def _relative(ratio: float) -> str:
    """Against the baseline's cost; what isn't free is never "-100%"."""
    percent = 100 * (ratio - 1)
    return f"{percent:+.1f}%" if -100 < percent < -99.5 else f"{percent:+.0f}%"


def _money(dollars: float) -> str:
    """Three significant digits: 3.75, 0.0474, 0."""
    if dollars <= 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(dollars)))
    return f"{dollars:,.{min(digits, 9)}f}"
