"""Markdown for a pull request: the sentence that counts, the table of policies, and all else folded away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from escalade.evals.report import closing
from escalade.evals.reporting.cells import is_number, safe, written_cell
from escalade.evals.reporting.comparing import comparison_table

if TYPE_CHECKING:
    from escalade.evals.compare import Comparison
    from escalade.evals.findings import Check, Findings
    from escalade.evals.reporting.conditions import Checked
    from escalade.evals.tables import Column, Table

__all__ = ["LIMIT", "code", "escaped", "markdown"]

LIMIT = 60_000
"""Characters. GitHub takes 65,536 for a comment; what doesn't fit is named instead."""

MAIN = ("name", "quality", "cost_per_1k_usd", "diff", "cost_ratio", "verdict", "errors")
"""Columns of the table that isn't folded away."""

_SIGNS = re.compile(r"[\\`*_\[\]|~$]")
_LEADING = re.compile(r"^([-+>#=]|\d+(?=[.)]))")
_LINKING = re.compile(r"(@|#(?=\d)|://|\bwww\.)")
_JOINER = "\N{WORD JOINER}"
"""Nobody is mentioned and nothing is linked where it stands behind such a sign."""


def markdown(found: Findings, conditions: Sequence[Checked] = ()) -> str:
    """The whole of it. `conditions`: what was asked for by `--fail-if`; those that hold come first."""
    comparison = found.comparison
    parts = [*_head(comparison), *_failed(conditions), _grid(comparison_table(comparison), MAIN)]
    parts += [f"- {escaped(sentence)}" for sentence in found.sentences]
    parts += _checks(found.checks)
    parts += [_folded("Notes", [f"- {escaped(note)}" for note in (*comparison.excluded, *comparison.notes)])]
    details = [_details(table) for table in (comparison_table(comparison), *found.tables)]
    return _fitting([part for part in parts if part], details) + "\n"


def escaped(text: str) -> str:
    """As it is, whatever Markdown, HTML or GitHub would make of it."""
    plain = escape(safe(text), quote=False)
    plain = _LEADING.sub(rf"{_JOINER}\1", _SIGNS.sub(lambda sign: f"\\{sign[0]}", plain))
    return _LINKING.sub(rf"\1{_JOINER}", plain)


def code(text: str) -> str:
    """As it is, in letters of one width: a name that people copy."""
    plain = safe(text).replace("|", "\\|").strip() or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    pad = " " if plain[0] == "`" or plain[-1] == "`" else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _head(comparison: Comparison) -> Iterator[str]:
    yield f"### {escaped(comparison.dataset)}: {comparison.n:,} questions, {escaped(comparison.labels)} labels"
    yield f"**{escaped(closing(comparison))}**"


def _failed(conditions: Sequence[Checked]) -> Iterator[str]:
    held = [one for one in conditions if one.holds]
    if held:
        lines = [f"> - {code(one.text)}: {escaped(one.said)}" for one in held]
        yield "\n".join(["> [!CAUTION]", f"> {len(held)} of {len(conditions)} conditions failed.", *lines])
    elif conditions:
        yield f"All {len(conditions)} conditions are met." if len(conditions) > 1 else "The condition is met."


def _checks(checks: Sequence[Check]) -> list[str]:
    told = {True: "held", False: "**failed**", None: "can't tell"}
    lines = [f"- {told[check.held]}: {escaped(check.name)}: {escaped(check.said)}" for check in checks]
    failed = sum(check.held is False for check in checks)
    title = f"Self-checks: {failed} of {len(checks)} failed" if failed else f"Self-checks: {len(checks)}, none failed"
    return [_folded(title, lines)] if lines else []


def _details(table: Table) -> tuple[str, str]:
    """(title, the table folded away)."""
    lines = [escaped(table.about)] if table.about else []
    lines += [_grid(table), *(["\n".join(f"- {escaped(note)}" for note in table.notes)] if table.notes else [])]
    explained = [f"- **{escaped(column.head)}**: {escaped(column.about)}" for column in table.columns if column.about]
    return table.title, _folded(
        table.title, ["\n\n".join(lines), *(["\n" + "\n".join(explained)] if explained else [])]
    )


def _folded(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    inside = "\n".join(lines)
    return f"<details>\n<summary>{escape(safe(title))}</summary>\n\n{inside}\n\n</details>"


def _grid(table: Table, only: Sequence[str] | None = None) -> str:
    columns = [column for column in table.columns if only is None or column.name in only]
    columns = [column for column in columns if column.name != "errors" or any(row["errors"] for row in table.rows)]
    rule = ["--:" if is_number(column) else ":--" for column in columns]
    rows = [[_cell(column, row, column is table.columns[0]) for column in columns] for row in table.rows]
    return "\n".join(_line(cells) for cells in ([escaped(column.head) for column in columns], rule, *rows))


def _cell(column: Column, row: Mapping[str, Any], first: bool) -> str:  # noqa: FBT001
    told = written_cell(column, row)
    if is_number(column):
        return told.replace("$", r"\$")
    return code(told) if first else escaped(told)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fitting(parts: Sequence[str], details: Sequence[tuple[str, str]]) -> str:
    """As many of the folded tables as have room, and the names of the others."""
    text, left = "\n\n".join(parts), []
    for title, detail in details:
        if len(text) + len(detail) + 2 > LIMIT - 500:
            left.append(title)
        else:
            text += f"\n\n{detail}"
    return text + (f"\n\nLeft out, for want of room: {escaped(', '.join(left)[:300])}." if left else "")
