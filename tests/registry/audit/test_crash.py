"""Killed processes, several processes, and any order of writing, crashing and opening again."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from escalade.registry.audit import AuditIncomplete, AuditLog
from escalade.registry.audit.reading import rows
from escalade.registry.audit.verify import verify
from escalade.registry.stores.postgres import Server
from tests.registry.audit.material import ended, entry, python, use

WORKER = """
import os, sys, threading
from escalade.registry.audit import AuditLog
from tests.registry.audit.material import ended, entry
path, anchor, name, uses, threads = sys.argv[1:]
log = AuditLog(path, anchors=[anchor], checkpoint_rows=50, patience=60)  # the disk may be busy
print("open", flush=True)
def work(thread):
    for number in range(int(uses)):
        used = entry(f"{name}-{thread}-{number}")
        log.intent(used)
        os.write(1, f"{used.call_id}\\n".encode())  # acknowledged
        log.outcome(ended(used))
crowd = [threading.Thread(target=work, args=(n,)) for n in range(int(threads))]
for one in crowd: one.start()
for one in crowd: one.join()
log.close()
"""


def calls(path: Path | str, event: str) -> list[str]:
    """Calls with a row of this event."""
    return [row.call for row in rows(path) if row.event == event]


@pytest.mark.slow
def test_killed(where: str, tmp_path: Path) -> None:
    """Killed in the middle, five times: the log verifies, every acknowledged intent is there, the gap is visible."""
    place, chance = tmp_path / "anchor", random.Random(11)
    acknowledged: set[str] = set()
    for number in range(5):
        worker = python(WORKER, where, str(place), f"w{number}", "100000", "8")
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"
        time.sleep(0.2 + chance.random() / 3)
        worker.send_signal(signal.SIGKILL)
        acknowledged |= {line for line in worker.communicate()[0].splitlines(keepends=True) if line.endswith("\n")}
        found = verify(where, [place] if place.exists() else [])
        assert found.ok, found.findings
    acknowledged = {line.strip() for line in acknowledged if line.strip() != "open"}
    intents, outcomes = set(calls(where, "intent")), set(calls(where, "outcome"))
    assert len(acknowledged) > 100
    assert acknowledged <= intents
    assert outcomes <= intents
    assert found.unfinished_count == len(intents - outcomes) > 0
    print(f"{len(intents):,} intents, {len(acknowledged):,} acknowledged, {found.unfinished_count} unfinished")
    AuditLog(where, anchors=[place]).close()
    last = verify(where, [place])
    assert (last.ok, last.unanchored) == (True, 0)  # what the killed ones didn't bring, the next one brought


@pytest.mark.slow
def test_processes(where: str, tmp_path: Path) -> None:
    """Four processes write to one log, one of them is killed: one chain, every row of the others, one anchor."""
    place = tmp_path / "anchor"
    workers = [python(WORKER, where, str(place), f"w{n}", "50", "4") for n in range(3)]
    victim = python(WORKER, where, str(place), "victim", "100000", "4")
    assert victim.stdout is not None
    assert victim.stderr is not None
    assert victim.stdout.readline() == "open\n", victim.stderr.read()
    time.sleep(0.3)
    victim.kill()
    victim.communicate()
    for worker in workers:
        _, errors = worker.communicate()
        assert (worker.returncode, errors) == (0, "")
    found = verify(where, [place])
    assert found.ok, found.findings
    for event in ("intent", "outcome"):
        done = calls(where, event)
        assert len(done) == len(set(done))
        assert {f"call-w{n}-{thread}-{use}" for n in range(3) for thread in range(4) for use in range(50)} <= set(done)
    assert all("victim" in call for call in found.unfinished)
    AuditLog(where, anchors=[place]).close()
    assert verify(where, [place]).unanchored == 0


class Log(RuleBasedStateMachine):
    """Write, checkpoint, close, crash, open again, in any order, on one log."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="audit-"))
        self.generation, self.uses = 0, 0
        self.durable: list[str] = []
        self.running: set[str] = set()
        self.log = self.opened()

    def opened(self) -> AuditLog:
        return AuditLog(self.where, anchors=[self.place], checkpoint_rows=7, checkpoint_seconds=3600)

    @property
    def where(self) -> str:
        return str(self.folder / f"{self.generation}.sqlite")

    @property
    def place(self) -> Path:
        return self.folder / f"{self.generation}.anchor"

    @rule(write=st.booleans(), finished=st.booleans())
    def use(self, *, write: bool, finished: bool) -> None:
        """Writes are on the disk when `intent` returns."""
        self.uses += 1
        used = entry(self.uses, "write" if write else "read")
        self.log.intent(used)
        if write:
            self.durable.append(used.call_id)
        if finished:
            self.log.outcome(ended(used))

    @rule()
    def deny(self) -> None:
        self.uses += 1
        self.log.denied(entry(self.uses, outcome="PermissionDenied"))

    @rule()
    def flush(self) -> None:
        self.log.flush()

    @rule()
    def checkpoint(self) -> None:
        self.log.checkpoint()

    @rule()
    def close_and_open(self) -> None:
        self.log.close()
        assert verify(self.where, [self.place]).unanchored == 0
        self.log = self.opened()

    @rule()
    def crash(self) -> None:
        """What a killed process leaves: the files as they are at this moment, the anchor a little older."""
        here, there = (self.where, self.place), self.generation + 1
        if here[1].exists():
            shutil.copy(here[1], self.folder / f"{there}.anchor")
        shutil.copy(here[0], self.folder / f"{there}.sqlite")
        shutil.copy(f"{here[0]}-wal", self.folder / f"{there}.sqlite-wal")
        with contextlib.suppress(AuditIncomplete):
            self.log.close()
        self.generation = there
        self.log = self.opened()

    @invariant()
    def whole(self) -> None:
        """It verifies, and what was acknowledged as durable is there, in order."""
        found = verify(self.where, [self.place] if self.place.exists() else [])
        assert found.ok, found.findings
        known = set(self.durable)
        assert [call for call in calls(self.where, "intent") if call in known] == self.durable

    def teardown(self) -> None:
        self.log.close()
        assert verify(self.where, [self.place]).unanchored == 0
        shutil.rmtree(self.folder)


class TablesLog(Log):
    """The same in PostgreSQL."""

    url: ClassVar[str] = ""

    def opened(self) -> AuditLog:
        if not hasattr(self, "log"):
            with Server(self.url, "", create=False, timeout=10).transaction() as ask:
                ask("DROP SCHEMA IF EXISTS escalade CASCADE")
        return super().opened()

    @property
    def where(self) -> str:
        return self.url

    @rule()
    def crash(self) -> None:
        """A killed process writes nothing more, and its connection ends."""
        store = self.log._writer._store
        store._book.turn = killed  # type: ignore[method-assign]
        store._book.close()
        with contextlib.suppress(AuditIncomplete):
            self.log.close()
        self.log = self.opened()


def killed(*, durable: bool) -> Any:
    """No turn of a process that is dead."""
    raise ConnectionError(f"dead (durable={durable})")


TestLog = Log.TestCase
TestLog.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TablesLog.TestCase.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)


class TestTablesLog(TablesLog.TestCase):
    """What holds for the file holds for the tables."""

    @pytest.fixture(autouse=True)
    def _server(self, postgres_url: str) -> None:
        TablesLog.url = postgres_url

    @pytest.mark.timeout(120)
    def runTest(self) -> None:
        super().runTest()


def test_a_crash_between_commit_and_anchor(where: str, tmp_path: Path) -> None:
    """A checkpoint that was written and not delivered when the process died is delivered by the next one."""
    place = tmp_path / "anchor"
    with AuditLog(where, checkpoint_rows=5) as log:  # without its anchor: as if it had been killed before delivering
        for number in range(10):
            use(log, number, "write")
    assert not place.exists()
    with AuditLog(where, anchors=[place]):
        until = time.monotonic() + 30
        while not place.exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert verify(where, [place]).ok
    assert verify(where, [place]).unanchored == 0
