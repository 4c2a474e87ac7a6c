"""Whatever is done to a log is found; what only an anchor can find is found back to the last checkpoint."""

# ruff: noqa: S608 - an intruder writes SQL as he likes

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from escalade.errors import BadInput
from escalade.registry.audit import AuditLog, FileAnchor
from escalade.registry.audit.verify import Verification, verify
from tests.registry.audit.material import copied, rebuild, tampering, use, written

USES = 500  # two rows each, and three of the log itself


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 1,003 rows, anchored up to its end."""
    folder = tmp_path_factory.mktemp("log")
    return written(folder / "log.sqlite", USES, anchors=[folder / "anchor"], checkpoint_rows=100)


@pytest.fixture
def copy(log: Path, tmp_path: Path) -> Path:
    """A copy of it, to tamper with."""
    return Path(copied(log, f"{tmp_path.name}.sqlite"))


def anchor(path: Path) -> FileAnchor:
    """The anchor of the log in this folder."""
    return FileAnchor(path.with_name("anchor"))


def checked(path: Path) -> Verification:
    """Verified against the anchor."""
    return verify(path, [anchor(path)])


def kinds(found: Verification) -> set[str]:
    """What kinds of findings there are."""
    return {one.kind for one in found.findings}


def test_untouched(log: Path) -> None:
    """An untouched log has no findings, with its anchor and without."""
    found = checked(log)
    assert (found.ok, found.rows, found.anchored, found.unanchored) == (True, 2 * USES + 3, 2 * USES + 3, 0)
    alone = verify(log)
    assert (alone.ok, alone.anchored, alone.unanchored) == (True, 0, 2 * USES + 3)


@pytest.mark.slow
def test_each_byte_of_each_row(copy: Path) -> None:
    """Each byte of each text and blob of each of 1,003 rows: changed, it is found, in each row that has it."""
    tried = 0
    for column in ("body", "hash", "event", "call"):
        longest = sqlite3.connect(copy).execute(f"SELECT max(length({column})) FROM entries").fetchone()[0]
        for position in range(longest):
            hit = flip(copy, column, position)
            assert verify(copy).problems >= hit, (column, position)
            tried += hit
            flip(copy, column, position)
    assert checked(copy).ok  # all were flipped back
    print(f"{tried:,} bytes changed, each found")
    assert tried > 300_000


def flip(path: Path, column: str, position: int) -> int:
    """Another byte at this position of this column, in each row that has one. How many these are."""

    def other(value: str | bytes) -> str | bytes:
        data = bytearray(value.encode() if isinstance(value, str) else value)
        data[position] ^= 1
        return data.decode() if isinstance(value, str) else bytes(data)

    with tampering(path) as database:
        database.create_function("other", 1, other)
        changed = database.execute(
            f"UPDATE entries SET {column} = other({column}) WHERE length({column}) > ?", (position,)
        )
        return changed.rowcount


@pytest.mark.parametrize(
    "change",
    [
        "at = at + 1",
        "at = CAST(at AS REAL)",
        "at = -at",
        "call = CAST(call AS BLOB)",
        "event = CAST(event AS BLOB)",
        "body = CAST(body AS TEXT)",
        "hash = CAST(hash AS TEXT)",
        "hash = x''",
        "body = x''",
        "call = call || char(0)",
        "event = 'outcome'",
        "body = body || x'20'",
    ],
)
def test_columns(copy: Path, change: str) -> None:
    """Another number, another type of the same bytes, nothing at all, a bit more: found in each row."""
    for seq in (1, 2, 500, 1002, 1003):
        path = copied(copy, f"{copy.stem}-{seq}.sqlite")
        with tampering(path) as database:
            look = "SELECT typeof(at), typeof(call), typeof(event), typeof(body), typeof(hash), quote(at), "
            look += "hex(event), hex(call), hex(body), hex(hash) FROM entries WHERE seq = ?"
            same = database.execute(look, (seq,)).fetchone()
            database.execute(f"UPDATE entries SET {change} WHERE seq = ?", (seq,))
            unchanged = database.execute(look, (seq,)).fetchone() == same  # a column may refuse another type
        assert verify(path).ok == unchanged, (seq, change)


@pytest.mark.slow
def test_random_bytes_of_the_file(log: Path) -> None:
    """A byte of the file that changes what any row says is found, wherever it is."""
    chance, data = random.Random(7), log.read_bytes()
    whole, hits = dump(log), 0
    for number in range(400):
        path = log.with_name(f"byte-{number}.sqlite")
        position = chance.randrange(100, len(data))
        path.write_bytes(data[:position] + bytes([data[position] ^ (1 << chance.randrange(8))]) + data[position + 1 :])
        if dump(path) != whole:
            hits += 1
            assert not found_ok(path), position
        path.unlink()
    print(f"{hits} of 400 random bytes changed what the log says; each was found")
    assert hits > 300


def dump(path: Path) -> list[str]:
    """All that a log says; what it no longer says, when it can't be read."""
    database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    database.text_factory = bytes
    try:
        tables = ("entries", "checkpoints", "sqlite_master")
        return [repr(row) for table in tables for row in database.execute(f"SELECT *, typeof(1) FROM {table}")]
    except sqlite3.Error as error:
        return [repr(error)]
    finally:
        database.close()


def found_ok(path: Path) -> bool:
    """Did verification find nothing? A file that is no log any more is a finding."""
    try:
        return verify(path).ok
    except BadInput:
        return False


def test_deleted_rows(copy: Path) -> None:
    """Any rows that are taken out from before the end are found, without an anchor, and named."""
    chance = random.Random(3)
    for number in range(40):
        path = copied(copy, f"{copy.stem}-{number}.sqlite")
        first = chance.randrange(1, 1000)
        last = min(1001, first + chance.choice([0, 0, 1, 50]))
        with tampering(path) as database:
            database.execute("DELETE FROM entries WHERE seq BETWEEN ? AND ?", (first, last))
        found = verify(path)
        assert "missing" in kinds(found), (first, last)
        assert f"rows {first} to {last} are missing" in str([str(one) for one in found.findings])


def test_deleted_and_renumbered(copy: Path) -> None:
    """To close the gap by new numbers doesn't help: each number is in its row's hash."""
    with tampering(copy) as database:
        database.execute("DELETE FROM entries WHERE seq = 400")
        database.execute("UPDATE entries SET seq = -seq WHERE seq > 400")
        database.execute("UPDATE entries SET seq = -seq - 1 WHERE seq < 0")
    assert verify(copy).problems >= 600


def test_swapped_rows(copy: Path) -> None:
    """Two rows that change places are found, with their hashes or without."""
    chance = random.Random(5)
    for number in range(40):
        path = copied(copy, f"{copy.stem}-{number}.sqlite")
        one, two = chance.sample(range(1, 1004), 2)
        columns = chance.choice(["at, event, call, body", "at, event, call, body, hash", "body", "hash"])
        with tampering(path) as database:
            rows = {
                seq: database.execute(f"SELECT {columns} FROM entries WHERE seq = ?", (seq,)).fetchone()
                for seq in (one, two)
            }
            for seq, row in ((one, rows[two]), (two, rows[one])):
                targets = ", ".join(f"{name} = ?" for name in columns.split(", "))
                database.execute(f"UPDATE entries SET {targets} WHERE seq = ?", (*row, seq))
        assert "changed" in kinds(verify(path)), (one, two, columns)


@pytest.mark.parametrize("seq", [-5, 0])
def test_inserted_before_the_first(copy: Path, seq: int) -> None:
    """A row where none can be is found."""
    with tampering(copy) as database:
        database.execute(f"INSERT INTO entries SELECT {seq}, at, event, call, body, hash FROM entries WHERE seq = 9")
    assert "inserted" in kinds(verify(copy))


def test_inserted_between(copy: Path) -> None:
    """A row that is put in, with all later ones pushed up, is found."""
    with tampering(copy) as database:
        database.execute("UPDATE entries SET seq = -seq - 1 WHERE seq >= 300")
        database.execute("UPDATE entries SET seq = -seq WHERE seq < 0")
        database.execute("INSERT INTO entries SELECT 300, at, event, call, body, hash FROM entries WHERE seq = 299")
    assert verify(copy).problems > 700


def test_tail_cut(copy: Path) -> None:
    """A tail that was cut off, with the checkpoints about it, is found by the anchor, and by nothing else."""
    for rows in (1, 3, 150, 1002):
        path = copied(copy, f"{copy.stem}-{rows}.sqlite")
        with tampering(path) as database:
            database.execute("DELETE FROM entries WHERE seq > ?", (1003 - rows,))
            database.execute(
                "DELETE FROM checkpoints WHERE CAST(json_extract(body, '$.seq') AS INT) > ?", (1003 - rows,)
            )
        found = checked(path)
        assert {"cut", "checkpoint"} <= kinds(found)
        assert f"rows {1004 - rows} to 1003 are missing" in str([str(one) for one in found.findings])
        alone = verify(path)
        assert (alone.ok, alone.anchored) == (True, 0)  # hence the anchor


def test_all_rows_gone(copy: Path) -> None:
    """An empty table is a finding, with an anchor or without."""
    with tampering(copy) as database:
        database.execute("DELETE FROM entries")
        database.execute("DELETE FROM checkpoints")
    assert not verify(copy).ok
    assert "cut" in kinds(checked(copy))


def test_rebuilt_chain(copy: Path) -> None:
    """A chain that was made anew from any row on, checkpoints included, is found by the anchor, and by nothing else."""
    for start in (1, 2, 57, 500, 1000, 1003):
        path = copied(copy, f"{copy.stem}-{start}.sqlite")
        rebuild(path, start, lambda said: said.update(user="mallory"))
        assert verify(path).ok  # hence the anchor
        found = checked(path)
        assert {"rewritten", "checkpoint"} <= kinds(found), start
        good = (start - 1) // 100 * 100
        assert found.anchored <= max(0, good + 100), start


def test_another_log_in_its_place(copy: Path) -> None:
    """A whole new log with the same uses is not the log that the anchor knows."""
    other = written(copy.with_name(f"{copy.stem}-other.sqlite"))
    found = verify(other, [anchor(copy)])
    assert not found.ok
    assert "rewritten" in kinds(found)


def test_what_is_not_anchored_is_said(log: Path, tmp_path: Path) -> None:
    """Rows after the last checkpoint can be cut or made anew; the report says which rows these are."""
    path = tmp_path / "log.sqlite"
    running = AuditLog(path, anchors=[tmp_path / "anchor"], checkpoint_rows=10_000)
    for number in range(10):
        use(running, number)
    running.checkpoint()
    covered = running.health().rows
    for number in range(10):
        use(running, f"later-{number}")
    running.flush()
    while running.health().undelivered:
        pass
    found = verify(path, [tmp_path / "anchor"])  # while it is in use
    assert found.ok
    assert (found.anchored, found.unanchored, found.rows) == (covered, 20, covered + 20)
    running.close()


def test_restored_from_an_old_copy(tmp_path: Path) -> None:
    """Yesterday's copy in place of the log lacks what the anchor knows. Nothing is written to it any more."""
    from escalade.registry.audit import AuditUnavailable

    path, place = tmp_path / "log.sqlite", tmp_path / "anchor"
    written(path, 10, anchors=[place])
    old = path.read_bytes()
    written(path, 10, anchors=[place])
    path.write_bytes(old)
    assert kinds(verify(path, [place])) == {"cut", "checkpoint"}
    with pytest.raises(AuditUnavailable, match="doesn't lead to what"):
        AuditLog(path, anchors=[place])


@pytest.mark.parametrize("statement", ["DELETE FROM entries", "UPDATE entries SET at = 0", "DELETE FROM checkpoints"])
def test_accidents_are_stopped(copy: Path, statement: str) -> None:
    """Whoever just has a SQL prompt is told that the log is append-only."""
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        sqlite3.connect(copy).execute(statement)


def test_a_view_that_lies(copy: Path) -> None:
    """The view for people is checked too."""
    database = sqlite3.connect(copy)
    assert database.execute("SELECT user, cost FROM audit WHERE event = 'outcome'").fetchone() == ("ana", 1_500_000)
    database.execute("DROP VIEW audit")
    database.execute("CREATE VIEW audit AS SELECT 'nobody' AS user")
    database.close()
    assert kinds(verify(copy)) == {"schema"}


def test_damaged_pages(log: Path) -> None:
    """Pages of zeros are findings, not an exception, and what can be read beyond them is read."""
    path, data = log.with_name("zeros.sqlite"), bytearray(log.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    data[20 * size : 22 * size] = bytes(2 * size)
    path.write_bytes(data)
    found = verify(path)
    assert "damaged" in kinds(found)


def test_no_log_at_all(tmp_path: Path) -> None:
    """What is no audit log is bad input, said in one line."""
    (tmp_path / "text").write_text("hello")
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE t (x)")
    other.execute("PRAGMA application_id=7")
    other.close()
    for name in ("text", "other.sqlite", "missing", "no/folder", "."):
        with pytest.raises(BadInput, match=name.split("/")[0]):
            verify(tmp_path / name)
    with pytest.raises(BadInput, match="anchor"):
        verify(written(tmp_path / "log.sqlite", 1), [tmp_path / "no-anchor"])
