"""What was found, for programs: JSON, CSV (a folder or one table), Parquet.

A text that a spreadsheet would take for a formula (it begins with =, +, -, @, a tab or a carriage return) is written
with an apostrophe before it. Unknown is an empty cell in CSV, null in JSON and Parquet.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput
from escalade.evals.reporting.cells import is_number

if TYPE_CHECKING:
    from escalade.evals.findings import Findings
    from escalade.evals.tables import Table

__all__ = ["as_csv", "as_json", "write_csv", "write_parquet"]

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_json(found: Findings, tables: Sequence[Table]) -> str:
    """One object: the comparison's JSON, with these tables, the checks and the sentences."""
    from json import dumps

    whole = found.to_json() | {"tables": {table.name: table.to_json() for table in tables}}
    return dumps(whole, indent=2, allow_nan=False) + "\n"


def as_csv(table: Table) -> str:
    """The header has the names of the columns and of their bounds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = _keys(table)
    writer.writerow(_cell(key) for key in keys)
    writer.writerows([_cell(row[key]) for key in keys] for row in table.rows)
    return out.getvalue()


def write_csv(tables: Sequence[Table], out: Path) -> list[Path]:
    """To one file, `out`, where its name ends with .csv; else a file each in the folder `out`.

    Raises BadInput for several tables in one file.
    """
    return _write(tables, out, ".csv", lambda table, path: path.write_text(as_csv(table), "utf-8"))


def write_parquet(tables: Sequence[Table], out: Path) -> list[Path]:
    """As `write_csv`, in Parquet; what a column means stands in its metadata. Raises BadInput without pyarrow."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise BadInput("Parquet needs pyarrow: pip install 'escalade[parquet]'") from None

    def write(table: Table, path: Path) -> None:
        parquet.write_table(_arrow(table, pa), path)

    return _write(tables, out, ".parquet", write)


def _write(tables: Sequence[Table], out: Path, suffix: str, write: Callable[[Table, Path], object]) -> list[Path]:
    if out.suffix == suffix and len(tables) != 1:
        names = ", ".join(table.name for table in tables)
        raise BadInput(f"{out}: one file holds one table, and there are {len(tables)}: name one ({names}) or a folder")
    paths = [out] if out.suffix == suffix else [out / f"{_file(table.name)}{suffix}" for table in tables]
    try:
        for table, path in zip(tables, paths, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(table, path)
    except OSError as error:
        raise BadInput(f"{out} can't be written: {error.strerror or error}") from None
    return paths


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


def _arrow(table: Table, pa: Any) -> Any:
    columns: dict[str, Any] = {}
    fields: list[Any] = []
    for column in table.columns:
        numeric = is_number(column)
        kind = pa.float64() if numeric else pa.bool_() if column.kind == "yes" else pa.string()
        for key in (column.name, column.low, column.high):
            if key is not None and key not in columns:
                columns[key] = pa.array([_plain(row[key], numeric) for row in table.rows], kind)
                fields.append(pa.field(key, kind, metadata={"about": column.about}))
    return pa.table(list(columns.values()), schema=pa.schema(fields, metadata={"about": table.about}))


def _plain(value: Any, numeric: bool) -> Any:  # noqa: FBT001
    if value is None or isinstance(value, bool):
        return value
    return float(value) if numeric else str(value)


def _keys(table: Table) -> list[str]:
    keys = (key for column in table.columns for key in (column.name, column.low, column.high))
    return list(dict.fromkeys(key for key in keys if key is not None))


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str):
        text = value.encode("utf-8", "replace").decode()
        return f"'{text}" if text.startswith(FORMULA) else text
    return round(value, 9) if isinstance(value, float) else value
