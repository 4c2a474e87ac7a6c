"""A small log, tampered with in every way there is: each row deleted, put in anywhere, swapped with each other one, cut
off from, changed with all that follows made anew; and each byte of its numbers, times and checkpoints changed.
"""

# ruff: noqa: S608 - an intruder writes SQL as he likes

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from escalade.registry.audit import FileAnchor
from escalade.registry.audit.verify import Verification, verify
from tests.registry.audit.material import copied, rebuild, tampering, written

USES, ROWS = 14, 31  # two rows each, and three of the log itself
COLUMNS = "at, event, call, body, hash"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 31 rows with a checkpoint after each ten, anchored to its end."""
    folder = tmp_path_factory.mktemp("small")
    return written(folder / "log.sqlite", USES, anchors=[folder / "anchor"], checkpoint_rows=10)


@contextmanager
def tampered(log: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A copy, and the hands of an intruder in it."""
    path = copied(log, "copy.sqlite")
    with tampering(path) as database:
        yield path, database


def found(path: Path, *, anchored: bool = True) -> Verification:
    """Verified, with the anchor or without."""
    return verify(path, [FileAnchor(path.with_name("anchor"))] if anchored else [])


def test_as_it_is(log: Path) -> None:
    """Untouched, it has no finding, and all of it is anchored."""
    said = found(log)
    assert (said.ok, said.rows, said.anchored, said.unanchored) == (True, ROWS, ROWS, 0)


def test_each_row_deleted(log: Path) -> None:
    """The gap is found without the anchor; the last row, and a number closed up, with it."""
    for seq in range(1, ROWS + 1):
        with tampered(log) as (path, database):
            database.execute("DELETE FROM entries WHERE seq = ?", (seq,))
        assert not found(path, anchored=seq == ROWS).ok, seq
        with tampering(path) as database:
            database.execute("UPDATE entries SET seq = seq - 1 WHERE seq > ?", (seq,))
        assert not found(path).ok, seq


def test_each_pair_swapped(log: Path) -> None:
    """All 465 pairs, without the anchor."""
    pairs = list(itertools.combinations(range(1, ROWS + 1), 2))
    for one, two in pairs:
        with tampered(log) as (path, database):
            database.execute("UPDATE entries SET seq = -1 WHERE seq = ?", (one,))
            database.execute("UPDATE entries SET seq = ? WHERE seq = ?", (one, two))
            database.execute("UPDATE entries SET seq = ? WHERE seq = -1", (two,))
        assert not found(path, anchored=False).ok, (one, two)
    assert len(pairs) == 465


def test_each_row_put_in_anywhere(log: Path) -> None:
    """A copy of each row at each place, all later ones pushed up, and behind the end: 992 ways."""
    for source, place in itertools.product(range(1, ROWS + 1), range(1, ROWS + 2)):
        with tampered(log) as (path, database):
            row = database.execute(f"SELECT {COLUMNS} FROM entries WHERE seq = ?", (source,)).fetchone()
            database.execute("UPDATE entries SET seq = -seq - 1 WHERE seq >= ?", (place,))
            database.execute("UPDATE entries SET seq = -seq WHERE seq < 0")
            database.execute(f"INSERT INTO entries (seq, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", (place, *row))
        assert not found(path, anchored=False).ok, (source, place)


def test_each_tail_cut(log: Path) -> None:
    """Cut off after each row, checkpoints too: by the anchor, which says how many rows are gone."""
    for last in range(ROWS):
        with tampered(log) as (path, database):
            database.execute("DELETE FROM entries WHERE seq > ?", (last,))
            database.execute("DELETE FROM checkpoints WHERE CAST(json_extract(body, '$.seq') AS INT) > ?", (last,))
        said = found(path)
        assert "cut" in {one.kind for one in said.findings}, last
        assert f"{last + 1}" in " ".join(map(str, said.findings)), last


def test_rebuilt_from_each_row(log: Path) -> None:
    """Changed at each row, with all hashes and checkpoints from there made anew, all consistent: by the anchor."""
    for start in range(1, ROWS + 1):
        path = copied(log, "copy.sqlite")
        rebuild(path, start, lambda said: said.update(user="mallory"))
        assert found(path, anchored=False).ok, start  # hence the anchor
        said = found(path)
        assert "rewritten" in {one.kind for one in said.findings}, start
        assert said.anchored < ROWS, start


def test_each_bit_of_numbers_and_times(log: Path) -> None:
    """Each of 62 bits of each row's time, and of its number, one row at a time."""
    for column, seq, bit in itertools.product(("at", "seq"), range(1, ROWS + 1), range(0, 62, 3)):
        with tampered(log) as (path, database):
            try:
                flipped = f"({column} | {1 << bit}) - ({column} & {1 << bit})"  # SQLite has no XOR
                database.execute(f"UPDATE entries SET {column} = {flipped} WHERE seq = ?", (seq,))
            except sqlite3.IntegrityError:
                continue  # there is a row of that number
        assert not found(path).ok, (column, seq, bit)


def test_each_byte_of_the_checkpoints(log: Path) -> None:
    """Each byte of each checkpoint in the file that says something else then, against the anchor."""
    with closing(sqlite3.connect(log)) as database:
        bodies = database.execute("SELECT number, body FROM checkpoints").fetchall()
    assert len(bodies) >= 2
    tried = 0
    for number, body in bodies:
        text = body if isinstance(body, str) else body.decode()
        for position in range(len(text)):
            other = text[:position] + chr(ord(text[position]) ^ 1) + text[position + 1 :]
            try:
                if json.loads(other) == json.loads(text):
                    continue
            except ValueError:
                pass
            with tampered(log) as (path, database):
                database.execute("UPDATE checkpoints SET body = ? WHERE number = ?", (other, number))
            assert not found(path).ok, (number, position, other)
            tried += 1
    print(f"{tried} bytes of {len(bodies)} checkpoints changed, each found")
    assert tried > 400
