"""RouterBench's wide tables: a line per question, three columns per model.

    sample_id, prompt, eval_name, <model>, <model>|model_response, <model>|total_cost, …, oracle_model_to_route_to

`<model>`: a score in 0..1. `total_cost`: dollars. `prompt`: a text, or a Python list of messages as one. `eval_name` is
the category. Of the format as withmartian/routerbench writes it (`convertors/common.py`; Hu et al. 2024, arXiv
2403.12031). CSV, TSV, Parquet, JSON (a list of records) or JSON lines, gzipped or not. The data set is published as
Python pickles, which run whatever they hold when they are read: convert them once, where that may happen:

    python -c "import pandas; pandas.read_pickle('routerbench_0shot.pkl').to_parquet('routerbench_0shot.parquet')"
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from escalade.errors import DataError
from escalade.evals._draft import Draft
from escalade.evals._files import Table, stem, verdict
from escalade.evals.loading.grid import Given, dollars, grid
from escalade.evals.loading.rows import read_rows

COLUMNS = ("sample_id", "eval_name")
"""By these a table of RouterBench is known."""

COST, RESPONSE = "|total_cost", "|model_response"


def load(path: Path) -> Draft:
    """Raises DataError."""
    table = read_rows(path)
    for name in (*COLUMNS, "prompt"):
        table.need(name)
    models = [name.removesuffix(COST) for name in table.header if name.endswith(COST)]
    models = [name for name in models if name in table.header and "willingness_to_pay" not in name]
    if not models:
        raise DataError(f"{path}: no model has both a column of scores and <model>{COST}")
    return grid(path, stem(path), _answers(table, models))


def _answers(table: Table, models: list[str]) -> Iterator[Given]:
    keys, categories = table.cells("sample_id"), table.cells("eval_name")
    if "" in keys:
        raise table.wrong(keys.index(""), "a sample_id is needed")
    texts = [_text(prompt) for prompt in table.cells("prompt")]
    for model in models:
        scores, costs = table.parsed(model, verdict), table.cells(model + COST)
        said = table.cells(model + RESPONSE) if model + RESPONSE in table.header else [""] * len(keys)
        for i, key in enumerate(keys):
            where = f"{table.path}: row {i + 1}"
            yield Given(
                where=where,
                key=key,
                model=model,
                quality=scores[i],
                answer=_text(said[i]) or None,
                cost=dollars(f"{where}: {model}{COST}", costs[i].strip()),
                text=texts[i],
                category=categories[i] or None,
            )


def _text(cell: str) -> str:
    """The messages of a Python list as one text; a text as it is."""
    if cell.startswith("[") and cell.endswith("]"):
        try:
            parts = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return cell
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            return "\n".join(parts)
    return cell
