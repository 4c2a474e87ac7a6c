"""`escalade show`, `plot` and `export`: what was found, in a terminal, as a page, and for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from escalade._cli_chosen import Chosen, compared, names
from escalade._cli_view import printing, tell
from escalade.errors import BadInput

if TYPE_CHECKING:
    from escalade.evals.compare import Comparison
    from escalade.evals.findings import Findings
    from escalade.evals.tables import Table

OK, CHECK_FAILED = 0, 100

OWN = ("comparison", "questions")
"""Tables that no room makes: they are the comparison's own."""

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
EVERYTHING = Chosen()


def show(
    data: str | None = None,
    *,
    tables: str | None = None,
    chosen: Chosen = EVERYTHING,
    metrics: Flag = False,
    json: Flag = False,
) -> int:
    """Everything that was found out: the comparison, its self-checks, and further tables.

    Parameters
    ----------
    data
        A run directory, PATH or LOADER:PATH; the data that ships by default.
    tables
        Names, separated by commas, of tables or of rooms that make some, such as metrics,gap; all by default.
    metrics
        Show APGR and CPT of the policies that have a score, too.
    json
        One JSON object instead of text.
    """
    from escalade.evals import report
    from escalade.evals.reporting.exporting import as_json
    from escalade.evals.reporting.terminal import checks, show_tables

    found = _found(compared(data, chosen, metrics=metrics), tables)
    shown = _tables(found, tables, comparing=False)
    if json:
        sys.stdout.write(as_json(found, shown))
        return OK
    terminal = report.new_console()
    show_tables(shown, terminal)
    if found.checks:
        terminal.print(checks(found))
        terminal.print()
    report.show(found.comparison, terminal, found)
    return OK


def plot(
    data: str | None = None,
    *,
    out: str = "report.html",
    chosen: Chosen = EVERYTHING,
    texts: Annotated[bool, Parameter(negative="--no-texts", show_default=False)] = True,
) -> int:
    """Write everything that was found as one page: pictures, tables, and each question with every policy's path.

    The page needs no network and asks for none.

    Parameters
    ----------
    data
        A run directory, PATH or LOADER:PATH; the data that ships by default.
    out
        The file.
    texts
        With the beginnings of the questions, where they are known; --no-texts leaves them out.
    """
    from escalade.evals.reporting.page import page

    _write(Path(out), page(_found(compared(data, chosen), None), texts=texts))
    return OK


def export(
    data: str | None = None,
    *,
    to: Literal["json", "csv", "parquet", "md"],
    out: str,
    tables: str | None = None,
    chosen: Chosen = EVERYTHING,
) -> int:
    """Write what was found to files that programs read.

    Parameters
    ----------
    data
        A run directory, PATH or LOADER:PATH; the data that ships by default.
    to
        json: one object; md: Markdown for a pull request; csv, parquet: a folder with a file per table.
    out
        The file or folder; with csv and parquet a file, where one table is named.
    tables
        Names, separated by commas, of tables or of rooms that make some; all by default. Named only: questions, with a
        line per question and policy.
    """
    from escalade.evals.reporting import exporting
    from escalade.evals.reporting.markdown import markdown

    found, path = _found(compared(data, chosen), tables), Path(out)
    shown = _tables(found, tables)
    if to in {"csv", "parquet"}:
        write = exporting.write_csv if to == "csv" else exporting.write_parquet
        for one in write(shown, path):
            sys.stdout.write(f"{one}\n")
        return OK
    _write(path, exporting.as_json(found, shown) if to == "json" else markdown(found))
    return OK


def said(comparison: Comparison) -> None:
    """The report: the same whichever command prints it, and to whoever stops reading it."""
    with printing():
        comparison.show()


def as_object(comparison: Comparison) -> dict[str, Any]:
    """The same as one JSON object, as `compare --json` prints it."""
    from json import loads

    told: dict[str, Any] = loads(Reports(comparison, ()).json())
    return told


class Reports:
    """What `compare` shows and writes beside its table: each is made when it is first asked for.

    `fail_if`: conditions, which are judged at once. `policies`: whom they call `policy`, None for all that choose.
    """

    def __init__(
        self,
        comparison: Comparison,
        fail_if: Sequence[str],
        policies: Sequence[str] | None = None,
        tables: str | None = None,
    ) -> None:
        from escalade.evals.reporting.conditions import checks

        self.comparison, self.tables = comparison, tables
        self.checked = checks(comparison, fail_if, policies) if fail_if else []

    def show(self) -> None:
        """The report, and the tables that were asked for."""
        from escalade.evals.report import new_console
        from escalade.evals.reporting.terminal import show_tables

        further = self._further()
        said(self.comparison)
        if further:
            terminal = new_console()
            terminal.print()
            show_tables(further, terminal)

    def json(self) -> str:
        """One object with all of that: the comparison, its checks and sentences, and the tables that were asked for."""
        from escalade.evals.findings import QUICK, findings
        from escalade.evals.reporting.exporting import as_json

        return as_json(findings(self.comparison, only=QUICK), self._further())

    def write(self, *, html: str | None, markdown: str | None) -> None:
        """The files that were asked for."""
        if html is not None:
            from escalade.evals.reporting.page import page

            _write(Path(html), page(self._all, self.checked))
        if markdown is not None:
            from escalade.evals.reporting import markdown as md

            _write(Path(markdown), md.markdown(self._all, self.checked))

    def code(self) -> int:
        """100 where a condition holds or a self-check failed, which is said on the error output; else 0."""
        from escalade.evals.reporting.cells import safe

        wrong = [f"{one.text}: {one.said}" for one in self.checked if one.holds]
        wrong += [f"self-check {safe(one.name)}: {safe(one.said)}" for one in self.comparison.failed]
        for line in wrong:
            tell(f"failed: {line}")
        return CHECK_FAILED if wrong else OK

    def _further(self) -> list[Table]:
        """The tables that were asked for."""
        return _tables(_found(self.comparison, self.tables), self.tables) if self.tables else []

    @cached_property
    def _all(self) -> Findings:
        return _found(self.comparison, None)


def _found(comparison: Comparison, tables: str | None) -> Findings:
    """Of the rooms that are named alone, where all names are those of rooms: none of the others has to work."""
    from escalade.evals.findings import BUILDERS, findings

    wanted = None if tables is None else [name for name in names(tables) or [] if name not in OWN]
    rooms = wanted is not None and all(name in BUILDERS for name in wanted)
    return findings(comparison, only=wanted if rooms else None)


def _tables(found: Findings, named: str | None, *, comparing: bool = True) -> list[Table]:
    """Those that are named, by room or by name; all where none is. Raises UnknownName."""
    own = _own(found, named)
    wanted = names(named)
    if wanted is None:
        return [*own, *found.tables] if comparing else list(found.tables)
    return found.named(wanted, own)


def _own(found: Findings, named: str | None) -> list[Table]:
    """The comparison's own tables; the questions are many, and made where they are named."""
    from escalade.evals.reporting.comparing import comparison_table

    own = [comparison_table(found.comparison)]
    if "questions" in (names(named) or []) and found.comparison.evidence is not None:
        from escalade.evals.reporting.courses import questions_table

        own.append(questions_table(found.comparison.evidence))
    return own


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise BadInput(f"{path} can't be written: {error.strerror or error}") from None
    sys.stdout.write(f"{path}\n")
