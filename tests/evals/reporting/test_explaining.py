"""The documentation explains every column, in the words of the column itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from escalade.errors import BadInput
from escalade.evals.reporting.conditions import FIGURES, WORDS
from escalade.evals.reporting.explaining import every_table, explained, rewritten
from tests._house import ROOT

PAGE, REPORTS = ROOT / "docs" / "metrics.md", ROOT / "docs" / "reports.md"


@pytest.fixture(scope="module")
def tables():
    return every_table()


def test_every_column_is_explained(tables) -> None:
    """No column of any room's table is without a sentence."""
    assert not [f"{table.name}.{column.name}" for table in tables for column in table.columns if not column.about]


def test_the_page_has_them(tables) -> None:
    """The page is what the tables say: `python -m escalade.evals.reporting.explaining docs/metrics.md` writes it."""
    text = Path(PAGE).read_text("utf-8")
    assert explained(tables) in text
    assert rewritten(text, tables) == text


def test_the_page_names_what_conditions_may_hang_on() -> None:
    """Each metric of `--fail-if`."""
    text = Path(REPORTS).read_text("utf-8")
    assert not [name for name in [*FIGURES, *WORDS] if f"`{name}`" not in text]


def test_a_page_without_marks() -> None:
    """There is no place to write to."""
    with pytest.raises(BadInput, match="lacks the marks"):
        rewritten("nothing", [])
