"""Reading data files: plain or gzipped, with one clear line for what can go wrong."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from escalade.errors import DataError

GZIP = b"\x1f\x8b"
MOST_NAMED = 8
"""A message names so many columns and counts the rest."""


def read_text(path: Path) -> str:
    """The text of a file, gzipped ones unpacked. Raises DataError."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == GZIP else raw).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: a damaged gzip file ({error})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start})") from None


@dataclass(frozen=True)
class Table:
    """A file of lines and columns. `rows`: cells of each line, without the header and without empty lines."""

    path: Path
    header: list[str]
    rows: list[list[str]]

    def need(self, *names: str) -> str:
        """The first of these columns that is there. Raises DataError, which names those that are."""
        found = next((name for name in names if name in self.header), None)
        if found is None:
            raise DataError(f"{self.path} has no column {names[0]!r}; it has {some([n for n in self.header if n])}")
        return found

    def cells(self, name: str) -> list[str]:
        """The column of this name."""
        at = self.header.index(name)
        return [row[at] for row in self.rows]

    def parsed(self, name: str, parse: Callable[[str], float | int]) -> list[Any]:
        """The column, each different text parsed once. `parse` raises ValueError with what is wrong; DataError here."""
        column = self.cells(name)
        values: dict[str, Any] = {}
        for text in dict.fromkeys(column):
            try:
                values[text] = parse(text)
            except ValueError as error:
                raise self.wrong(column.index(text), f"column {name!r} {error}") from None
        return [values[text] for text in column]

    def wrong(self, row: int, told: str) -> DataError:
        """The error to raise for what stands in this row, with its line in the file."""
        return DataError(f"{self.path}: line {self.line(row)}: {told}")

    def line(self, row: int) -> int:
        """The line on which a row ends. Read anew: only errors ask for it."""
        reader = _reader(self.path, io.StringIO(read_text(self.path), newline=""))
        next(reader)
        return int(next(itertools.islice((reader.line_num for cells in reader if cells), row, None)))


def read_table(path: Path) -> Table:
    """A CSV or TSV file, gzipped or not. Raises DataError.

    Columns are separated by tabs in .tsv files, and where the first line has a tab and no comma.
    """
    reader = _reader(path, io.StringIO(read_text(path), newline=""))
    header = _header(path, reader)
    try:
        rows = list(filter(None, reader))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from None
    table = Table(path, header, rows)
    for i, length in enumerate(map(len, rows)):
        if length != len(header):
            raise table.wrong(i, f"{length} cells under {len(header)} columns")
    return table


def read_header(path: Path) -> list[str]:
    """The names of the columns, without reading the rest of a plain file. Raises DataError."""
    try:
        with path.open("rb") as raw, gzip.open(raw) if raw.peek(2)[:2] == GZIP else raw as file:
            text = io.TextIOWrapper(cast("BinaryIO", file), "utf-8-sig", newline="")
            return _header(path, _reader(path, text))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        read_text(path)  # says what is wrong
        raise


def _reader(path: Path, text: TextIO) -> Any:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    first = text.readline()
    tabs = ".tsv" in path.suffixes or ("\t" in first and "," not in first)
    return csv.reader(itertools.chain([first] if first else [], text), delimiter="\t" if tabs else ",")


def _header(path: Path, reader: Any) -> list[str]:
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from None
    if not header or not any(header):
        raise DataError(f"{path}: an empty data set; there is nothing to compare")
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called {twice!r}")
    return header


def some(names: Sequence[str]) -> str:
    """The first of these, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"


def stem(path: Path) -> str:
    """The name of a file without all that comes after the first dot."""
    return path.name.split(".")[0] or path.name


def number(low: float = 0.0, high: float = math.inf) -> Callable[[str], float]:
    """A parser of numbers in this range; nan for an empty cell."""

    def parse(text: str) -> float:
        text = text.strip()
        if not text or text.lower() in {"nan", "none", "null", "na"}:
            return math.nan
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"has {text[:40]!r}, which is not a number") from None
        if value < low or value > high:
            raise ValueError(f"has {value:g}, outside {low:g} to {high:g}")
        return value

    return parse


_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
_any_number = number(-math.inf)


def verdict(text: str) -> float:
    """True, False, 1, 0 or a score between them as 0..1; nan in an empty cell. Raises ValueError."""
    known = _WORDS.get(text.strip().lower())
    value = _any_number(text) if known is None else known
    if value < 0.0 or value > 1.0:
        raise ValueError(f"has {value:g}; a verdict lies between 0 and 1")
    return value
