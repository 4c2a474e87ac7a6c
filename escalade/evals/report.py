"""A comparison as a table for people: what is best, what it costs, and how sure that is.

The interval of each quality is drawn on one axis for all rows. Columns follow the width of the console: where it is
narrow differences are shortened to "+1.6 ±1.6", then the axis is left out, then the relative cost. Heads are never cut.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from escalade.evals._terminal import Terminal
from escalade.evals.checking.agreeing import turned
from escalade.evals.findings import QUICK, findings
from escalade.evals.reporting.cells import safe
from escalade.evals.statistics import AS_GOOD, BETTER, CANT_TELL

if TYPE_CHECKING:
    from escalade.evals.check import Check
    from escalade.evals.compare import Comparison, Row
    from escalade.evals.findings import Findings

WIDE = 100
"""Columns where nobody says how many there are."""

DIFF, NARROW_DIFF, BAR = "vs baseline", "vs base", "bar"
"""Columns of the differences, in points, in full and where there is little room; of the drawn intervals."""

COUNTS = {
    "err": "questions left without a usable answer; they count as wrong",
    "no $": "questions that no rung fitted the budget for; they count as wrong",
    "over": "questions, and runs, that cost more than their budget",
}
"""Columns that are shown where there is something to count."""

LEFT = ("", "policy", BAR, "verdict")
"""Columns that begin at the left."""

LEAST_BAR, MOST_BAR, LEAST_NAME, LEAST_METRICS = 7, 44, 8, 80
TOO_LARGE, TOO_FEW = 0.5, 10
"""Where only differences like this would be found, or with fewer questions, nothing can be told."""

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
    double: str = "‡"
    plus_minus: str = "±"


PLAIN = Glyphs("|", "-", "o", "|", "!", "?", "~")
"""For terminals that know ASCII only."""


def show(comparison: Comparison, console: Console | None = None, found: Findings | None = None) -> None:
    """Print the report. Without a terminal it is plain text of 100 columns (or `COLUMNS`).

    `found`: what the rooms found; by default, what those have to say that speak every time. Checks that failed come
    first, sentences before the closing one.
    """
    console = console or new_console()
    for part in parts(comparison, console.width, console.encoding, found):
        console.print(part)


def parts(
    comparison: Comparison, width: int, encoding: str = "utf-8", found: Findings | None = None
) -> Iterator[RenderableType]:
    """What is printed, in order, for a console of this width and encoding."""
    glyphs = Glyphs() if _can_draw(encoding) else PLAIN
    if found is None and comparison.evidence is not None:
        found = findings(comparison, only=QUICK)
    yield _title(comparison)
    yield ""
    yield from _failed(() if found is None else found.checks, width)
    cells = [_cells(row, comparison, glyphs) for row in comparison.rows]
    layout = _Layout.fitting(cells, width)
    yield from _table(comparison, layout, cells, glyphs)
    yield ""
    if comparison.metrics:
        yield from _metrics(comparison, width)
    for mark, note in (*_legend(comparison, glyphs, layout.widths), *(("-", note) for note in comparison.notes)):
        yield _item(mark, note, width)
    yield ""
    if (found is None or "metrics" not in found.rooms) and (unlucky := _unlucky(comparison)):  # else it says so
        yield _sentence(unlucky, width, "yellow")
        yield ""
    if found is not None:
        yield from _said(found, width)
    elif comparison.changed:  # else one of the sentences says so
        yield _sentence(_relabelled(comparison), width, "yellow")
        yield ""
    yield _sentence(closing(comparison), width, "bold")


def _unlucky(comparison: Comparison) -> str:
    """Which policies chance might have done for the same money."""
    names = [_short(row.name, comparison) for row in comparison.rows if row.beats_random is False]
    if not names:
        return ""
    told = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{told} {'is' if len(names) == 1 else 'are'} not shown to beat a random mix that costs the same."


def _failed(checks: Iterable[Check], width: int) -> Iterator[RenderableType]:
    """Whoever reads no further than the table has read these."""
    for check in checks:
        if check.held is False:
            yield _sentence(f"FAILED {safe(check.name)}: {safe(check.said)}", width, "bold red")
            yield ""


def _said(found: Findings, width: int) -> Iterator[RenderableType]:
    """What has to be said in words."""
    for sentence in found.sentences:
        yield _sentence(safe(sentence), width, "yellow")
    if found.sentences:
        yield ""


def closing(comparison: Comparison) -> str:
    """What difference this sample can resolve, and which cheapest policy is as good as the baseline."""
    told = _power(comparison)
    base = _short(comparison.baseline, comparison)
    if all(row.cost_per_1k_usd is None for row in comparison.rows):
        return f"{told} What the policies cost is unknown."
    best = comparison.cheapest_as_good
    margin = f"{100 * comparison.margin:g} points"
    wrong = [_short(name, comparison) for name in comparison.doubted]
    if len(wrong) == len(comparison.rows):
        return f"{told} No policy is recommended: a self-check failed."
    unless = f" Not counted, since a self-check failed: {', '.join(wrong)}." if wrong else ""
    if best is None:
        return f"{told} No cheaper policy is shown to be as good as {base} within {margin}.{unless}"
    ratio = f"{100 * (best.cost_ratio or 0):.3g} % of the cost of {base}"
    by = "By these labels the" if best.name in {change.name for change in comparison.changed} else "The"
    name = _short(best.name, comparison)
    return f"{told} {by} cheapest policy that is as good within {margin} is {name}, at {ratio}.{unless}"


def _power(comparison: Comparison) -> str:
    """What this sample can tell, for the policies that one would choose."""
    base, n = _short(comparison.baseline, comparison), f"{comparison.n:,} question{'s' * (comparison.n != 1)}"
    found = {row.name: row.detectable for row in comparison.candidates if row.detectable is not None}
    if not found:
        return f"With {n} no difference to {base} can be told from chance."
    least, most = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
    if found[most] >= TOO_LARGE or comparison.n < TOO_FEW:
        return f"{n[0].upper()}{n[1:]} are too few to tell policies apart: hardly any difference to {base} would show."
    names = dict.fromkeys((least, most))
    points = " or ".join(f"{100 * found[name]:.1f} points ({_short(name, comparison)})" for name in names)
    return f"With {n}, a true difference to {base} of {points} is found 4 times in 5, a smaller one may stay hidden."


def new_console() -> Console:
    """The terminal; plain text of 100 columns (or `COLUMNS`) where there is none."""
    console = Terminal(highlight=False)
    if console.is_terminal or "COLUMNS" in console._environ:
        return console
    return Terminal(highlight=False, width=WIDE)


def _can_draw(encoding: str) -> bool:
    try:
        "".join(vars(Glyphs()).values()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _title(comparison: Comparison) -> Text:
    title = Text(comparison.dataset, style="bold")
    title.append(f": {comparison.n:,} questions, {comparison.labels} labels", style="default not bold")
    title.append(", 95 % intervals", style="default not bold")
    return title


LAYOUTS = (
    ("", "policy", "quality", BAR, "$/1k", DIFF, "cost", "verdict", *COUNTS),
    ("", "policy", "quality", BAR, "$/1k", NARROW_DIFF, "cost", "verdict", *COUNTS),
    ("", "policy", "quality", "$/1k", NARROW_DIFF, "cost", "verdict", *COUNTS),
    ("", "policy", "quality", "$/1k", NARROW_DIFF, "verdict", *COUNTS),
    ("", "policy", "quality", "$/1k", "verdict"),
)
"""Columns. The first of these that fits is taken; the last one cuts names where it must."""


@dataclass(frozen=True)
class _Layout:
    """The columns that are shown, and their widths."""

    widths: dict[str, int]

    @classmethod
    def fitting(cls, cells: list[dict[str, Text]], width: int) -> _Layout:
        """The columns that have room. Counts of nothing aren't shown."""
        for columns in LAYOUTS:
            shown = [name for name in columns if name not in COUNTS or any(c[name] for c in cells)]
            widths = {name: max(1, len(name), *(c[name].cell_len for c in cells)) for name in shown}
            widths |= {BAR: LEAST_BAR} if BAR in shown else {}
            spare = width - sum(widths.values()) - len(widths) + 1
            if spare >= 0:
                break
        if spare < 0:
            widths["policy"] = max(LEAST_NAME, widths["policy"] + spare)
        widths |= {BAR: min(MOST_BAR, LEAST_BAR + spare)} if BAR in widths else {}
        return cls(widths)


def _table(comparison: Comparison, layout: _Layout, cells: list[dict[str, Text]], glyphs: Glyphs) -> Iterator[Text]:
    axis = _Axis.over(comparison.rows, layout.widths.get(BAR, LEAST_BAR))
    yield _line({name: axis.head() if name == BAR else Text(name) for name in layout.widths}, layout, "bold")
    for row, cell in zip(comparison.rows, cells, strict=True):
        cell[BAR] = axis.draw(row, glyphs)
        yield _line(cell, layout, SHADE if row.hindsight else "")


def _line(cells: dict[str, Text], layout: _Layout, style: str) -> Text:
    """One line of the table, with nothing behind its last word."""
    line = Text(style=style)
    for name, width in layout.widths.items():
        cell = cells[name].copy()
        cell.truncate(width, overflow="ellipsis")
        cell.align("left" if name in LEFT else "right", width)
        line.append_text(cell).append(" ")
    line.rstrip()
    return line


def _metrics(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    """RouteLLM's metrics of the policies that have a score, best first; nothing where none has."""
    rows = sorted((row for row in comparison.rows if row.apgr is not None), key=lambda row: -(row.apgr or 0.0))
    if not rows:
        return
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=False)
    for name in ("score of", "APGR", "CPT50", "CPT80", "weak", "strong"):
        table.add_column(name, justify="right" if name[0] in "AC" else "left", no_wrap=width >= LEAST_METRICS)
    for row in rows:
        shares = ("never" if x is None else f"{100 * x:.1f}%" for x in (row.cpt50, row.cpt80))
        names = (_short(name or "", comparison) for name in (row.weak, row.strong))
        table.add_row(_short(row.name, comparison), f"{row.apgr:.3f}", *shares, *names)
    yield table
    yield ""
    yield _item("-", "APGR: mean share of the gap between weak and strong that the score recovers (random: 0.5)", width)
    yield _item("-", "CPT50, CPT80: share of calls to strong with which 50, 80 % of the gap is recovered", width)


def _cells(row: Row, comparison: Comparison, glyphs: Glyphs) -> dict[str, Text]:
    is_base = row.name == comparison.baseline
    marks = ("*" if row.frontier else " ") + (glyphs.dagger if row.beats_random is False else "")
    ratio = "" if row.cost_ratio is None or is_base else _relative(row.cost_ratio)
    word = row.verdict + (f" {glyphs.double}" if row.better_adjusted is False else "")
    return {
        "": Text(marks.rstrip(), style="bold cyan"),
        "policy": Text(_short(row.name, comparison), style="bold" if row.frontier or is_base else ""),
        "quality": Text(f"{100 * row.quality:.1f}%"),
        "$/1k": Text("?" if row.cost_per_1k_usd is None else _money(row.cost_per_1k_usd)),
        BAR: Text(),
        DIFF: Text("" if is_base else _difference(row, glyphs, wide=True)),
        NARROW_DIFF: Text("" if is_base else _difference(row, glyphs, wide=False)),
        "cost": Text(ratio),
        "verdict": Text(word, style=STYLES.get(row.verdict, "red") if row.judged else SHADE),
        "err": Text(str(row.errors - row.unpaid or ""), style="red"),
        "no $": Text(str(row.unpaid or ""), style="red"),
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


def _legend(comparison: Comparison, glyphs: Glyphs, shown: Container[str]) -> Iterator[tuple[str, str]]:
    """(mark, what it means), and what every reader of such a table should know."""
    rows = comparison.rows
    if any(row.frontier for row in rows):
        yield "*", "on the frontier: nothing here has a higher quality for as little money, or as high a one for less"
    if any(row.beats_random is False for row in rows):
        yield glyphs.dagger, "not shown to beat a random mix of its cheap and the strongest rung at the same cost"
    yield from _family(comparison, glyphs)
    if any(row.hindsight for row in rows):
        yield "-", "the oracle knows the right answers: a bound, not a policy"
    yield from (("-", f"{name}: {told}") for name, told in COUNTS.items() if name in shown)


def _family(comparison: Comparison, glyphs: Glyphs) -> Iterator[tuple[str, str]]:
    """How many looks were taken, and which claims survive that."""
    judged = sum(row.judged and row.name not in comparison.yardsticks for row in comparison.rows)
    better = [row for row in comparison.rows if row.better_adjusted is not None]
    if judged < 2:
        return
    if not better:
        luck = (
            "each interval is for one comparison; one in 40 policies that are just as good as the baseline looks better"
        )
        yield "-", luck
    if any(not row.better_adjusted for row in better):
        told = f"better on its own, but not when all {judged} comparisons are counted (Holm, 2.5 % one-sided)"
        yield glyphs.double, told
    if any(row.better_adjusted for row in better):
        names = ", ".join(_short(row.name, comparison) for row in better if row.better_adjusted)
        yield "-", f"better also when all {judged} comparisons are counted (Holm, 2.5 % one-sided): {names}"


def _relabelled(comparison: Comparison) -> str:
    """Which verdicts another grading of the same answers turns round, grouped."""
    verdicts = ((_short(change.name, comparison), change.verdict, change.other) for change in comparison.changed)
    return turned(comparison.other_labels or "", verdicts)


def _item(mark: str, text: str, width: int) -> Text:
    """A note with a hanging indent."""
    lines = textwrap.wrap(text, width - 2, break_long_words=False, break_on_hyphens=False) or [""]
    item = Text(mark, style=SHADE if mark == "-" else "bold cyan")
    return item.append(" " + "\n  ".join(lines), style="not bold dim default")


def _sentence(text: str, width: int, style: str) -> Text:
    return Text("\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)), style=style)


def _short(name: str, comparison: Comparison) -> str:
    """A rung's name without its provider ("mistralai/"), where that stays unique."""
    short = name.rsplit("/", 1)[-1] if name.count("/") == 1 and not name.rsplit("/", 1)[-1].isdigit() else name
    short = name if "+budget" in short or "@" in short else short
    alike = [row.name for row in comparison.rows if row.name == short or row.name.endswith("/" + short)]
    return short if len(alike) <= 1 else name


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
