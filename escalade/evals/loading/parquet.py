"""Tables in Parquet, by pyarrow (`pip install "escalade[parquet]"`)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from escalade.errors import DataError

SUFFIXES = {".parquet", ".pq"}


def read(path: Path) -> tuple[list[str], list[list[Any]]]:
    """(names of the columns, the columns), as Python's values. Raises DataError."""
    try:
        found = _file(path).read()
    except (OSError, ValueError) as error:  # pyarrow's own errors are one of these
        raise DataError(f"{path}: a damaged Parquet file ({error})") from None
    return list(found.column_names), [column.to_pylist() for column in found.columns]


def read_header(path: Path) -> list[str]:
    """The names of the columns, from the end of the file. Raises DataError."""
    return list(_file(path).schema_arrow.names)


def _file(path: Path) -> Any:
    try:
        return _pyarrow(path).ParquetFile(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a Parquet file ({error})") from None


def _pyarrow(path: Path) -> ModuleType:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise DataError(f'{path}: Parquet is read by pyarrow; pip install "escalade[parquet]", or use CSV') from None
    module: ModuleType = pyarrow.parquet
    return module
