"""Reading data files: plain or gzipped, with one clear line for what can go wrong."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from escalade.errors import DataError, UnknownName


def read_text(path: Path) -> str:
    """The text of a file, gzipped ones unpacked. Raises DataError."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: a damaged gzip file ({error})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start})") from None


def read_table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(column names, [(line number, cells)]) of a CSV or TSV file; empty lines are left out. Raises DataError.

    Columns are separated by tabs in .tsv files, and where the first line has a tab and no comma.
    """
    text = read_text(path)
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    first = text.partition("\n")[0]
    tabs = ".tsv" in path.suffixes or ("\t" in first and "," not in first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if tabs else ",")
    try:
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from None
    if not header or not any(header):
        raise DataError(f"{path}: an empty data set; there is nothing to compare")
    if len(set(filter(None, header))) < len(list(filter(None, header))):
        twice = next(name for name in header if name and header.count(name) > 1)
        raise DataError(f"{path}: two columns are called {twice!r}")
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(f"{path}: line {line}: {len(row)} cells under {len(header)} columns")
    return header, rows


def column(path: Path, header: Sequence[str], *names: str) -> int:
    """Index of the first of these columns that is there. Raises UnknownName, which names those that are."""
    for name in names:
        if name in header:
            return list(header).index(name)
    raise UnknownName(f"column of {path.name}:", names[0], [name for name in header if name])


def stem(path: Path) -> str:
    """The name of a file without all that comes after the first dot."""
    return path.name.split(".")[0] or path.name


def number(path: Path, line: int, name: str, text: str) -> float:
    """The number in a cell, nan in an empty one. Raises DataError."""
    text = text.strip()
    if not text or text.lower() in {"nan", "none", "null", "na"}:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}: line {line}: column {name!r} has {text[:40]!r}, which is not a number") from None


_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


def verdict(path: Path, line: int, name: str, text: str) -> float:
    """True, False, 1, 0 or a score between them as 0..1; nan in an empty cell. Raises DataError."""
    known = _WORDS.get(text.strip().lower())
    value = number(path, line, name, text) if known is None else known
    if value < 0.0 or value > 1.0:
        raise DataError(f"{path}: line {line}: column {name!r} has {value:g}; a verdict lies between 0 and 1")
    return value
