"""`report.html`: one file that needs nothing else, and that may ask for nothing else.

Its policy (CSP) forbids all requests, and all scripts and styles but its own two, which it names by their hashes. All
that comes from data is escaped: as HTML, or as JSON in which no tag can end. The page says when it can't run scripts;
its tables and pictures are there without them.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from json import dumps
from typing import TYPE_CHECKING, Any

from escalade.evals import _notes
from escalade.evals.report import closing
from escalade.evals.reporting import pictures
from escalade.evals.reporting.cells import is_number, safe, written_cell
from escalade.evals.reporting.charts.categories import categories
from escalade.evals.reporting.charts.frontier import frontier
from escalade.evals.reporting.charts.histogram import histogram
from escalade.evals.reporting.charts.interval import Axis, interval
from escalade.evals.reporting.charts.reliability import reliability
from escalade.evals.reporting.comparing import comparison_table
from escalade.evals.reporting.questions import questions

if TYPE_CHECKING:
    from escalade.evals.compare import Comparison
    from escalade.evals.evidence import Evidence
    from escalade.evals.findings import Check, Findings
    from escalade.evals.reporting.conditions import Checked
    from escalade.evals.tables import Column, Table

__all__ = ["page"]

MARKS = {True: ("ok", "held"), False: ("bad", "failed"), None: ("warn", "can\N{APOSTROPHE}t tell")}
VERDICTS = {"better": "ok", "as good": "ok", "worse": "bad", "can't tell": "warn"}


def page(found: Findings, conditions: Sequence[Checked] = (), *, texts: bool = True) -> str:
    """The whole page. `texts`: with the beginnings of the questions, where they are known."""
    comparison = found.comparison
    css, js = _asset("page.css"), _asset("page.js")
    body = "\n".join(_body(found, conditions, texts=texts))
    title = escape(safe(f"{comparison.dataset}: routing policies compared"))
    rules = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_hash(css)}'",
            f"script-src '{_hash(js)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return (
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{rules}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
            f"<title>{title}</title>\n<style>{css}</style>\n</head>\n<body>\n{body}\n"
            f"<script>{js}</script>\n</body>\n</html>\n"
        )
        .encode("utf-8", "replace")
        .decode()
    )


def _body(found: Findings, conditions: Sequence[Checked], *, texts: bool) -> Iterator[str]:
    comparison, evidence = found.comparison, found.comparison.evidence
    sections = [
        ("policies", "Policies", _policies(comparison)),
        ("frontier", "Quality and cost", _frontier(comparison)),
    ]
    if evidence is not None:
        sections += [
            ("costs", "Cost of a question", _costs(comparison, evidence)),
            ("categories", "By category", _categories(comparison, evidence)),
            ("reliability", "Confidence", _reliability(evidence)),
        ]
    sections += [
        ("checks", "Self-checks", _checks(found.checks)),
        ("figures", "Further figures", "".join(_folded(table) for table in found.tables)),
    ]
    if evidence is not None:
        sections.append(("questions", "Questions", _questions(comparison, evidence, texts=texts)))
    sections.append(("notes", "Notes", _notes_of(comparison)))
    shown = [(name, title, inside) for name, title, inside in sections if inside]
    yield _header(comparison, [(name, title) for name, title, _ in shown])
    yield "<main>"
    yield _summary(found, conditions)
    yield from (f'<section id="{name}"><h2>{title}</h2>{inside}</section>' for name, title, inside in shown)
    yield "</main>"
    digest = _text(comparison.settings.get("data_digest", ""))
    yield f"<footer>escalade {_text(_notes.version())}, data {digest}</footer>"


def _header(comparison: Comparison, sections: Sequence[tuple[str, str]]) -> str:
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in sections)
    facts = (
        f"{comparison.n:,} questions",
        f"{comparison.labels} labels",
        f"baseline {comparison.baseline}",
        f"as good within {100 * comparison.margin:g} points",
        "95 % intervals",
        f"seed {comparison.seed}",
    )
    told = "".join(f"<li>{_text(fact)}</li>" for fact in facts)
    head = f'<h1>{_text(comparison.dataset)}</h1><ul class="facts">{told}</ul>'
    return f'<header>{head}<nav aria-label="Parts">{links}</nav></header>'


def _summary(found: Findings, conditions: Sequence[Checked]) -> str:
    failed = [one for one in conditions if one.holds]
    parts = [f'<p class="closing">{_text(closing(found.comparison))}</p>']
    parts += [f'<p class="said">{_text(sentence)}</p>' for sentence in found.sentences]
    if conditions:
        rows = [
            f'<li class="{"bad" if one.holds else "ok"}"><code>{_text(one.text)}</code> '
            f"{'failed' if one.holds else 'is met'}: {_text(one.said)}</li>"
            for one in [*failed, *(one for one in conditions if not one.holds)]
        ]
        parts.append(f'<ul class="conditions">{"".join(rows)}</ul>')
    return f'<section class="summary">{"".join(parts)}</section>'


# ------------------------------------------------------------------------------------------------------------- tables


def _policies(comparison: Comparison) -> str:
    table = comparison_table(comparison)
    rows = {row.name: row for row in comparison.rows}
    base = rows.get(comparison.baseline)
    axis = Axis.over(
        [v for row in comparison.rows for v in (row.quality, row.quality_low, row.quality_high)],
        None if base is None else base.quality,
    )

    def drawn(row: Mapping[str, Any]) -> str:
        one = rows[row["name"]]
        return interval(one.quality, one.quality_low, one.quality_high, axis, pictures.role(one, comparison.baseline))

    return _grid(table, drawn) + _explained(table)


def _grid(table: Table, drawn: Any = None) -> str:
    """`drawn`: from a row to the picture in a column of its own after the second."""
    columns = [column for column in table.columns if any(row[column.name] not in (None, 0) for row in table.rows)]
    columns = columns or list(table.columns)
    heads = [_head(column, len(table.rows) > 2) for column in columns]
    rows = [[_cell(column, row, column is columns[0]) for column in columns] for row in table.rows]
    if drawn is not None:
        heads.insert(2, '<th scope="col"><span class="visually-hidden">interval of the quality</span></th>')
        for cells, row in zip(rows, table.rows, strict=True):
            cells.insert(2, f'<td class="drawn">{drawn(row)}</td>')
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{_text(table.title)}"><table class="grid">'
        f'<caption class="visually-hidden">{_text(table.title)}</caption>'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _head(column: Column, sorts: bool) -> str:  # noqa: FBT001
    side = ' class="n"' if is_number(column) else ""
    name = f'<button type="button">{_text(column.head)}</button>' if sorts else _text(column.head)
    return f'<th scope="col"{side} title="{_text(column.about)}">{name}</th>'


def _cell(column: Column, row: Mapping[str, Any], first: bool) -> str:  # noqa: FBT001
    told, value = _text(written_cell(column, row)), row[column.name]
    if first:
        return f'<th scope="row">{told}</th>'
    if is_number(column):
        plain, _, bounds = told.partition(" [")
        key = "" if value is None else f"{float(value):.9g}"
        more = f' <span class="bounds">[{bounds}</span>' if bounds else ""
        return f'<td class="n" data-v="{key}">{plain}{more}</td>'
    chip = VERDICTS.get(str(value)) if column.name == "verdict" else None
    return f'<td><span class="chip {chip}">{told}</span></td>' if chip else f"<td>{told}</td>"


def _folded(table: Table) -> str:
    about = f"<p>{_text(table.about)}</p>" if table.about else ""
    notes = "".join(f"<li>{_text(note)}</li>" for note in table.notes)
    return (
        f'<details class="table" id="table-{_text(_slug(table.name))}"><summary>{_text(table.title)}</summary>{about}'
        f"{_grid(table)}{f'<ul>{notes}</ul>' if notes else ''}{_explained(table)}</details>"
    )


def _explained(table: Table) -> str:
    told = "".join(f"<dt>{_text(c.head)}</dt><dd>{_text(c.about)}</dd>" for c in table.columns if c.about)
    return f'<details class="about"><summary>What the columns mean</summary><dl>{told}</dl></details>' if told else ""


# ----------------------------------------------------------------------------------------------------------- pictures


def _frontier(comparison: Comparison) -> str:
    shown = pictures.points(comparison)
    if not shown:
        return "<p>What the policies cost is unknown.</p>"
    roles = {point.role for point in shown}
    told = {
        "baseline": "the baseline",
        "frontier": "on the frontier: nothing has a higher quality for as little money, or as high a one for less",
        "bound": "hindsight: a bound, not a policy",
        "mix": "a random mix",
        "other": "the others",
    }
    keys = "".join(f'<li class="{role}">{words}</li>' for role, words in told.items() if role in roles)
    more = "A point without a name tells it where you point at it; the table above has all of them."
    return f'{_drawn(frontier(shown))}<ul class="keys">{keys}</ul><p class="dim">{more}</p>'


def _costs(comparison: Comparison, evidence: Evidence) -> str:
    drawn = histogram(pictures.costs(comparison, evidence))
    told = "Each bar counts questions; the line is the mean, which stands at the right."
    return f'{_drawn(drawn)}<p class="dim">{told}</p>' if drawn else ""


def _categories(comparison: Comparison, evidence: Evidence) -> str:
    names = tuple(dict.fromkeys((pictures.first(comparison), comparison.baseline)))
    shown, more = pictures.categories(evidence, names)
    if not shown:
        return ""
    keys = "".join(f'<li class="s{at}">{_text(name)}</li>' for at, name in enumerate(names))
    told = f'<p class="dim">and {more} smaller categories</p>' if more else ""
    return f'<ul class="keys">{keys}</ul>{_drawn(categories(shown))}{told}'


def _reliability(evidence: Evidence) -> str:
    drawn = "".join(reliability(curve) for curve in pictures.reliabilities(evidence))
    told = "On the dashed line a rung is as often right as it says. Below: how many answers were that sure."
    return f'<div class="many">{drawn}</div><p class="dim">{told}</p>' if drawn else ""


def _drawn(picture: str) -> str:
    return f'<div class="wide" tabindex="0" role="region" aria-label="picture">{picture}</div>'


# -------------------------------------------------------------------------------------------------------------- words


def _checks(checks: Sequence[Check]) -> str:
    rows = [
        f'<li class="{MARKS[one.held][0]}"><b>{_text(one.name)}</b> <span class="chip {MARKS[one.held][0]}">'
        f"{MARKS[one.held][1]}</span> {_text(one.said)}</li>"
        for one in checks
    ]
    return f'<ul class="checks">{"".join(rows)}</ul>' if rows else ""


def _notes_of(comparison: Comparison) -> str:
    rows = "".join(f"<li>{_text(note)}</li>" for note in (*comparison.excluded, *comparison.notes))
    return f"<ul>{rows}</ul>" if rows else ""


def _questions(comparison: Comparison, evidence: Evidence, *, texts: bool) -> str:
    data = dumps(questions(comparison, evidence, texts=texts), separators=(",", ":"), allow_nan=False)
    for sign in ("<", ">", "&", "\u2028", "\u2029"):
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    return f'{_asset("questions.html")}<script type="application/json" id="data">{data}</script>'


def _text(text: Any) -> str:
    return escape(safe(str(text)))


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _asset(name: str) -> str:
    return files("escalade.evals.reporting").joinpath("assets", name).read_text("utf-8")


def _hash(asset: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(asset.encode()).digest()).decode()}"
