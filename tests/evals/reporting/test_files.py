"""Markdown, JSON, CSV and Parquet: what was found, whole and harmless."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.errors import BadInput, UnknownName
from escalade.evals.compare import compare
from escalade.evals.findings import Check, Findings
from escalade.evals.loaders import load_outcomes
from escalade.evals.report import show
from escalade.evals.reporting.cells import written, written_cell
from escalade.evals.reporting.comparing import comparison_table
from escalade.evals.reporting.conditions import checks
from escalade.evals.reporting.courses import questions_table
from escalade.evals.reporting.exporting import as_csv, as_json, write_csv, write_parquet
from escalade.evals.reporting.markdown import LIMIT, code, escaped, markdown
from escalade.evals.reporting.terminal import checks as shown_checks
from escalade.evals.reporting.terminal import show_tables
from escalade.evals.tables import Column, Table

HOSTILE = (
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "a|b",
    "<b>x</b>",
    "`x`",
    "[x](http://y)",
    "@you",
    "\x1b[31m",
)


def table(rows: list[dict], *columns: Column) -> Table:
    return Table.of("some", "Some", columns or (Column("name", "name", "text"),), rows)


@pytest.fixture(scope="module")
def found() -> Findings:
    """A small comparison, with what rooms might add."""
    comparison = compare(load_outcomes(limit=60), ["threshold-0.8", "agreement-3"])
    rows = table(
        [{"name": name, "share": 0.5} for name in HOSTILE], Column("name", "a|b", "text"), Column("share", "%", "share")
    )
    return Findings(
        comparison, (rows,), (Check("<x>", False, "a|b"), Check("y", True, "z")), ("@you = |",), {"room": ("some",)}
    )


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        (0.857, "share", "85.7%"),
        (-0.0206, "points", "-2.1"),
        (3.7512, "usd", "$3.75"),
        (-0.0474, "usd", "-$0.0474"),
        (0, "usd", "$0"),
        (1234.0, "count", "1,234"),
        (1.5, "count", "1.5"),
        (0.25, "ratio", "0.25x"),
        (0.0001, "p", "< 0.001"),
        (12.0, "seconds", "12.0 s"),
        (True, "yes", "yes"),
        (False, "yes", "no"),
        (None, "usd", "\N{EN DASH}"),
        (float("nan"), "share", "\N{EN DASH}"),
        (float("inf"), "share", "never"),
        ("a\x1b[31m\nb", "text", "a\N{REPLACEMENT CHARACTER}[31m b"),
    ],
)
def test_cells(value, kind, told) -> None:
    """Each kind has its way of writing; unknown is never zero, and nothing steers a terminal."""
    assert written(value, kind) == told


def test_an_interval_stands_with_its_value() -> None:
    """And where its bounds are unknown, the value alone."""
    column = Column("q", "q", "share", low="l", high="h")
    assert written_cell(column, {"q": 0.5, "l": 0.4, "h": 0.625}) == "50.0% [40.0%, 62.5%]"
    assert written_cell(column, {"q": 0.5, "l": None, "h": None}) == "50.0%"


def test_markdown(found) -> None:
    """Failed conditions first, then the policies; every row has the cells of its head, and nobody is mentioned."""
    text = markdown(found, checks(found.comparison, ["threshold-0.8.quality < 100", "baseline.quality < 1"]))
    assert text.index("1 of 2 conditions failed") < text.index("`threshold-0.8` |")
    assert text.count("<details>") == text.count("</details>") == 4
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        widths = {line.replace(r"\|", "").count("|") for line in lines}
        assert len(widths) <= 1, block
    assert "<b>" not in text.replace("`<b>x</b>`", "")
    assert "@\N{WORD JOINER}you" in text
    assert len(text) < LIMIT


def test_markdown_fits_a_comment(found) -> None:
    """What has no room is named instead."""
    large = replace(found, tables=(replace(found.tables[0], title="huge", rows=found.tables[0].rows * 2000),))
    text = markdown(large)
    assert len(text) <= LIMIT
    assert "Left out, for want of room: huge." in text


@given(st.text(max_size=30))
def test_code_spans_hold_anything(text) -> None:
    """A name ends neither its span nor its cell nor its line."""
    span = code(text)
    assert "\n" not in span
    assert "|" not in span.replace(r"\|", "")
    fence = len(span) - len(span.lstrip("`"))
    assert "`" * fence not in span[fence:-fence]


@given(st.text(max_size=30))
def test_escaped_text_is_one_harmless_line(text) -> None:
    """No tag, no row, no cell."""
    told = escaped(text)
    assert "<" not in told
    assert "\n" not in told
    assert "|" not in told.replace(r"\|", "")


def test_csv_is_harmless_to_spreadsheets() -> None:
    """No text begins like a formula; numbers are numbers; unknown is empty."""
    columns = (Column("name", "name", "text"), Column("diff", "diff", "points", low="low", high="high"))
    rows = [{"name": name, "diff": -0.25, "low": None, "high": 0.5} for name in HOSTILE]
    read = list(csv.reader(io.StringIO(as_csv(table(rows, *columns)))))
    assert read[0] == ["name", "diff", "low", "high"]
    assert [row[1:] for row in read[1:]] == [["-0.25", "", "0.5"]] * len(HOSTILE)
    assert all(row[0][0] not in "=+-@\t\r" for row in read[1:])
    assert [row[0].removeprefix("'") for row in read[1:]] == list(HOSTILE)


def test_files(found, tmp_path) -> None:
    """One table to a file, several to a folder; several to one file are refused."""
    both = [comparison_table(found.comparison), *found.tables]
    assert [path.name for path in write_csv(both, tmp_path / "all")] == ["comparison.csv", "some.csv"]
    (one,) = write_csv(both[:1], tmp_path / "deep" / "one.csv")
    assert one.read_text("utf-8") == (tmp_path / "all" / "comparison.csv").read_text("utf-8")
    with pytest.raises(BadInput, match="one file holds one table"):
        write_csv(both, tmp_path / "two.csv")
    with pytest.raises(BadInput, match="can't be written"):
        write_csv(both, tmp_path / "deep" / "one.csv" / "more")


def test_parquet(found, tmp_path) -> None:
    """The same rows, with what each column means in its metadata."""
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = comparison_table(found.comparison)
    (path,) = write_parquet([rows], tmp_path / "one.parquet")
    read = parquet.read_table(path)
    assert read.column("name").to_pylist() == [row["name"] for row in rows.rows]
    assert read.column("quality").to_pylist() == [row["quality"] for row in rows.rows]
    assert read.column("apgr").to_pylist() == [row["apgr"] for row in rows.rows]
    assert b"Mean quality" in read.schema.field("quality").metadata[b"about"]


def test_json(found) -> None:
    """Strict JSON of the comparison and the tables."""
    read = json.loads(as_json(found, found.tables), parse_constant=pytest.fail)
    assert read["tables"]["some"]["rows"][0]["name"] == HOSTILE[0]
    assert read["policies"][0]["name"] == found.comparison.rows[0].name


def test_tables_by_name_or_room(found) -> None:
    """Each once, in the order asked for; a misspelt name is told what there is."""
    own = comparison_table(found.comparison)
    assert [one.name for one in found.named(["comparison", "room", "some"], [own])] == ["comparison", "some"]
    with pytest.raises(UnknownName, match="did you mean 'some'"):
        found.named(["som"])


def test_terminal(found) -> None:
    """Tables and checks are shown as text; names that look like markup are names."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=120)
    show_tables([*found.tables, table([{"name": "[bold]x"}])], console)
    console.print(shown_checks(found))
    show(found.comparison, console, found)
    text = out.getvalue()
    assert "[bold]x" in text
    assert re.search("FAILED +<x> +a.b", text)
    assert "\x1b" not in text
    report = text[text.index("questions,") :]
    assert "FAILED <x>: a|b" in report
    assert "held" not in report
    assert report.index("@you = |") < report.index("true difference")


def test_questions(found) -> None:
    """A row per question and policy, with the path and the reasons."""
    evidence = found.comparison.evidence
    rows = questions_table(evidence).rows
    assert len(rows) == 60 * len(evidence.entries)
    climbed = [row for row in rows if row["policy"] == "agreement-3" and " > " in row["path"]]
    assert climbed
    assert all("; " in row["why"] for row in climbed)
