"""The disk is full, the file is gone: uses are refused, what has happened is kept, nothing is silent."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade.errors import Refused
from escalade.registry.audit import AuditIncomplete, AuditLog, AuditUnavailable
from escalade.registry.audit.reading import rows
from escalade.registry.audit.verify import verify
from escalade.registry.guard import Resource, use
from tests.registry.audit.material import ended, entry, tampering

SEARCH = Resource("crm.search", "1.2.0", "tool", "crm.search:call")


def events(log: AuditLog) -> list[str]:
    """Of all rows."""
    return [row.event for row in rows(log.path)]


def full(log: AuditLog, *, yes: bool) -> None:
    """Let SQLite find no more space, or find it again."""
    database = log._writer._store._book._database
    used = database.execute("PRAGMA page_count").fetchone()[0] if yes else 2**30
    database.execute(f"PRAGMA max_page_count={used}")


def until(true: Callable[[], object], seconds: float = 10) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def fill(log: AuditLog, class_: str = "write") -> int:
    """Use it until it refuses. How many uses were accepted."""
    for number in range(1_000_000):
        try:
            log.intent(entry(f"fill-{number}", class_))
        except AuditUnavailable:
            return number
    raise AssertionError("it never refused")


def test_disk_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Full: uses are refused, at once from the second on. What has happened is kept and written when there is space."""
    with AuditLog(tmp_path / "audit.sqlite") as log:
        began = entry("began-before")
        log.intent(began)
        full(log, yes=True)
        accepted = fill(log)
        log.outcome(ended(began))
        for number in range(10):
            log.denied(entry(f"denied-{number}", outcome="AuditUnavailable"))
        until(lambda: log.health().kept >= 11)
        health = log.health()
        assert not health.ok
        assert "full" in health.down
        quick = time.perf_counter()
        with pytest.raises(AuditUnavailable, match="can't be recorded") as refused:
            log.intent(entry("refused"))
        assert time.perf_counter() - quick < 4, "5 s is how long it has patience"
        assert isinstance(refused.value, Refused)
        assert refused.value.retry_after
        full(log, yes=False)
        until(lambda: log.health().ok)
        log.intent(entry("after"))
    found = verify(log.path)
    said = [(row.event, row.call) for row in rows(log.path)]
    assert found.ok
    assert ("outcome", "call-began-before") in said
    assert sum(event == "denied" for event, _ in said) == 10
    assert "gap" in events(log)
    assert sum(call.startswith("call-fill") for event, call in said if event == "intent") == accepted
    assert ("intent", "call-refused") not in said
    assert "every use is refused" in caplog.text
    assert "can be written again" in caplog.text


def test_full_while_nobody_waits(tmp_path: Path) -> None:
    """Reads that didn't wait may have happened before the log knew: their rows are kept, later reads are refused."""
    with AuditLog(tmp_path / "audit.sqlite") as log:
        log.flush()
        full(log, yes=True)
        accepted = fill(log, "read")
        full(log, yes=False)
        until(lambda: log.health().ok)
    assert events(log).count("intent") == accepted


def test_denials_without_end(tmp_path: Path) -> None:
    """While the disk is full, denials are kept up to a number; of more their number is, and stands in the gap's row."""
    with AuditLog(tmp_path / "audit.sqlite", capacity=100) as log:
        log.flush()
        full(log, yes=True)
        fill(log)
        for number in range(300):
            log.denied(entry(number, outcome="AuditUnavailable"))
        until(lambda: log.health().kept + log.health().lost >= 300)
        assert (log.health().kept, log.health().lost) == (100, 200)
        full(log, yes=False)
        until(lambda: log.health().ok)
    gaps = [row.fields() for row in rows(log.path) if row.event == "gap"]
    assert sum(gap["denials"] for gap in gaps) == 200
    assert all(0 < gap["since_us"] < time.time() * 1e6 for gap in gaps)
    assert events(log).count("denied") == 100


def test_closed_while_full(tmp_path: Path) -> None:
    """Closing says how much is missing."""
    log = AuditLog(tmp_path / "audit.sqlite")
    began = entry("began")
    log.intent(began)
    full(log, yes=True)
    fill(log)
    log.outcome(ended(began))
    with pytest.raises(AuditIncomplete, match="rows are not recorded") as lost:
        log.close()
    assert lost.value.unrecorded == 2  # the outcome, and that the log was closed
    found = verify(log.path)
    assert found.ok
    assert "call-began" in found.unfinished


def test_guard_fails_closed(tmp_path: Path) -> None:
    """Through the guard: nothing runs, nothing is debited, the refusal is a `Refused`, and is recorded later."""
    with AuditLog(tmp_path / "audit.sqlite") as log, escalade.scope(recorder=log, budget="1") as scope:
        log.flush()
        full(log, yes=True)
        fill(log)
        ran: list[int] = []
        for _ in range(3):
            with pytest.raises(Refused, match="can't be recorded"):
                use(SEARCH, lambda: ran.append(1), ceiling=1000)
        assert (ran, scope.spent, scope.purse.held) == ([], 0, 0)
        full(log, yes=False)
        until(lambda: log.health().ok)
        use(SEARCH, lambda: ran.append(1), ceiling=1000)
    assert ran == [1]
    denied = [row.fields() for row in rows(log.path) if row.event == "denied"]
    assert [row["outcome"] for row in denied] == ["AuditUnavailable"] * 3


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = hasattr(os, "geteuid") and os.geteuid() == 0
    if (
        not mounted
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_really_full(tiny: Path) -> None:
    """A file system without space: refused, kept, and all is well when somebody makes space."""
    ballast = tiny / "ballast"
    ballast.write_bytes(bytes(500_000))
    log = AuditLog(tiny / "audit.sqlite", checkpoint_rows=100)
    began = entry("began")
    log.intent(began)
    accepted = fill(log)
    log.outcome(ended(began))
    assert not log.health().ok
    ballast.unlink()
    until(lambda: log.health().ok)
    log.intent(entry("after"))
    log.close()
    found = verify(log.path)
    assert found.ok
    assert found.unfinished_count == accepted + 1
    print(f"{accepted} uses fitted")


@pytest.mark.parametrize("what", ["removed", "replaced", "the write-ahead log removed"])
def test_file_gone(tmp_path: Path, what: str) -> None:
    """A file that was removed or replaced under the log: SQLite would write on to nowhere, the log refuses."""
    log = AuditLog(tmp_path / "audit.sqlite")
    log.intent(entry("before"))
    name = tmp_path / ("audit.sqlite-wal" if "write-ahead" in what else "audit.sqlite")
    name.rename(tmp_path / "away")
    if what == "replaced":
        name.write_bytes((tmp_path / "away").read_bytes())
    with pytest.raises(AuditUnavailable):
        log.intent(entry("after"))
    with pytest.raises(AuditIncomplete):
        log.close()


@pytest.mark.parametrize(
    "statement", ["DELETE FROM entries WHERE seq > 2", "UPDATE entries SET hash = x'00' WHERE seq = 3"]
)
def test_changed_while_it_runs(tmp_path: Path, statement: str) -> None:
    """A running log sees that what it wrote last was changed, and refuses to go on from there."""
    log = AuditLog(tmp_path / "audit.sqlite")
    log.intent(entry("before"))
    with tampering(Path(log.path)) as database:
        database.execute(statement)
    with pytest.raises(AuditUnavailable) as refused:
        log.intent(entry("after"))
    assert "behind the log's back" in refused.value.reason
    assert "behind the log's back" in log.health().down
    assert str(tmp_path) not in str(refused.value)  # models are shown it
    assert refused.value.retry_after is None
    with pytest.raises(AuditIncomplete):
        log.close()


def test_locked(tmp_path: Path) -> None:
    """A stranger who holds the file's lock for longer than `patience`: refused, then all is well again."""
    with AuditLog(tmp_path / "audit.sqlite", patience=0.2) as log:
        log.flush()
        stranger = sqlite3.connect(log.path, isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(AuditUnavailable):
            log.intent(entry(1))
        stranger.execute("ROLLBACK")
        stranger.close()
        until(lambda: log.health().ok)
        log._patience = 5
        log.intent(entry(2))
    assert verify(log.path).ok


def test_unexpected(tmp_path: Path) -> None:
    """Even an error that nobody thought of refuses uses instead of ending the thread that all wait for."""
    with AuditLog(tmp_path / "audit.sqlite") as log:
        log.flush()
        store, working = log._writer._store, log._writer._store.append

        def broken(*args: Any, **options: Any) -> Any:
            raise MemoryError("no more")

        store.append = broken
        with pytest.raises(AuditUnavailable) as refused:
            log.intent(entry(1))
        assert refused.value.reason == "no more"
        store.append = working
        until(lambda: log.health().ok)
        log.intent(entry(2))


def test_can_not_be_opened(tmp_path: Path) -> None:
    """A log that is damaged, or held by somebody, is not opened."""
    AuditLog(tmp_path / "audit.sqlite").close()
    data = bytearray((tmp_path / "audit.sqlite").read_bytes())
    data[100:108] = bytes(8)
    (tmp_path / "damaged.sqlite").write_bytes(data)
    with pytest.raises(AuditUnavailable, match="can't be opened"):
        AuditLog(tmp_path / "damaged.sqlite")
    stranger = sqlite3.connect(tmp_path / "audit.sqlite", isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(AuditUnavailable, match="locked"):
        AuditLog(tmp_path / "audit.sqlite", patience=0.1)
    stranger.close()


def test_loud_at_exit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is down is in the log of the program, once, not once per use."""
    with caplog.at_level(logging.ERROR), contextlib.suppress(AuditIncomplete):
        log = AuditLog(tmp_path / "audit.sqlite")
        log.flush()
        full(log, yes=True)
        fill(log)
        for _ in range(20):
            with pytest.raises(AuditUnavailable):
                log.intent(entry(1))
        log.close()
    assert caplog.text.count("every use is refused") == 1
