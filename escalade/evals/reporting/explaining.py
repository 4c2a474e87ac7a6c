"""Each column of each table, as the documentation has it: `python -m escalade.evals.reporting.explaining PAGE`.

The page has a part between two marks, which is written anew from the tables themselves; a test holds them equal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from escalade.errors import BadInput
from escalade.evals.reporting.markdown import escaped

if TYPE_CHECKING:
    from escalade.evals.tables import Table

__all__ = ["BEGIN", "END", "every_table", "explained", "rewritten"]

BEGIN, END = "<!-- columns: written by escalade.evals.reporting.explaining -->", "<!-- end of columns -->"


def every_table() -> list[Table]:
    """All tables of a small comparison that has whatever a table may ask for: labels of two gradings, categories,
    budgets, texts.
    """
    from escalade.evals._codes import fact_column
    from escalade.evals.compare import compare
    from escalade.evals.findings import findings
    from escalade.evals.loaders import load_outcomes
    from escalade.evals.outcomes import TEXT
    from escalade.evals.reporting.comparing import comparison_table

    outcomes = load_outcomes(limit=200)
    facts = {**outcomes.features, TEXT: fact_column([f"question {i} has five words" for i in range(outcomes.n)])}
    outcomes = replace(outcomes, features=facts, category=tuple("ab"[i % 2] for i in range(outcomes.n)))
    found = findings(compare(outcomes, ["threshold-0.8", "agreement-3+budget"]))
    return [comparison_table(found.comparison), *found.tables]


def explained(tables: Iterable[Table]) -> str:
    """A list per table: the head of each column, its name in files, and what it is."""
    return "\n".join(line for table in tables for line in _lines(table))


def rewritten(page: str, tables: Iterable[Table]) -> str:
    """The page with that part written anew. Raises BadInput where it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(f"the page lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{explained(tables)}\n{END}{after}"


def _lines(table: Table) -> Iterator[str]:
    yield f"**{escaped(table.name)}**"
    yield ""
    for column in table.columns:
        bounds = f", `{column.low}`, `{column.high}`" if column.low and column.high else ""
        about = f": {escaped(column.about)}" if column.about else ""
        yield f"- {escaped(column.head)} (`{column.name}`{bounds}){about}"
    yield ""


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(rewritten(path.read_text("utf-8"), every_table()), "utf-8")
