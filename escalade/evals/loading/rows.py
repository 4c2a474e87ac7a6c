"""Tables in any of the forms that people keep them in, as one `Table` of texts, so that loaders read all of them alike.

CSV and TSV, JSON (a list of objects) and JSON lines, all of them plain or gzipped, and Parquet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from escalade.errors import DataError
from escalade.evals._files import Table, read_table, read_text
from escalade.evals._files import read_header as read_csv_header
from escalade.evals.loading import parquet

JSON_LINES = {".jsonl", ".ndjson"}
JSON = {".json", *JSON_LINES}


def read_rows(path: Path) -> Table:
    """All rows; cells are texts as those of a CSV file. Raises DataError."""
    if path.suffix.lower() in parquet.SUFFIXES:
        header, columns = parquet.read(path)
        return _table(path, header, [[cell(value) for value in column] for column in columns])
    if JSON & set(path.suffixes):
        records = read_records(path)
        header = list(dict.fromkeys(name for record in records for name in record))
        return Table(path, header, [[cell(record.get(name)) for name in header] for record in records])
    return read_table(path)


def read_header(path: Path) -> list[str]:
    """The names of the columns; of a plain CSV and of a Parquet file without reading the rest. Raises DataError."""
    if path.suffix.lower() in parquet.SUFFIXES:
        return parquet.read_header(path)
    if JSON & set(path.suffixes):
        return list(read_records(path)[0])
    return read_csv_header(path)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Objects, one a line or all in one list. Raises DataError, which names the line."""
    text = read_text(path)
    found: list[Any] = []
    if JSON_LINES & set(path.suffixes):
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        found = [_parsed(f"{path}: line {number}", line) for number, line in lines]
    elif text.strip():
        whole = _parsed(str(path), text)
        found = whole if isinstance(whole, list) else [whole]
    if not found:
        raise DataError(f"{path}: an empty data set; there is nothing to compare")
    wrong = next((i for i, one in enumerate(found) if not isinstance(one, dict)), None)
    if wrong is not None:
        raise DataError(f"{path}: record {wrong + 1}: expected a JSON object, found {type(found[wrong]).__name__}")
    return found


def cell(value: Any) -> str:
    """A value as a CSV file would have it: empty for none, exact for numbers."""
    if value is None or value != value:  # noqa: PLR0124 - nan
        return ""
    if isinstance(value, str):
        return value
    plain = isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, bytes))
    return repr(value) if plain else str(value)


def _table(path: Path, header: list[str], columns: list[list[str]]) -> Table:
    if not columns or not columns[0]:
        raise DataError(f"{path}: an empty data set; there is nothing to compare")
    return Table(path, header, [list(row) for row in zip(*columns, strict=True)])


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from None
    except RecursionError:
        raise DataError(f"{where}: JSON that is nested too deep") from None
