"""What the tests of the audit share: entries, logs of some rows, and hands that tamper."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from escalade.registry.audit import AuditLog, _schema
from escalade.registry.audit.anchors import Checkpoint
from escalade.registry.audit.chain import ZERO, link
from escalade.scopes import Entry, Principal
from tests._house import ROOT

ANA = Principal("ana", "acme", frozenset({"analyst", "admin"}))


def entry(number: int | str, side_effects: str = "write", **changed: Any) -> Entry:
    """A use of a tool, admitted."""
    known = {
        "call_id": f"call-{number}",
        "run_id": "run-1",
        "principal": ANA,
        "resource": "crm.search",
        "version": "1.2.0",
        "kind": "tool",
        "rule": "analyst: crm.*:call",
        "held": 2_000_000,
        "started": time.time(),
        "side_effects": side_effects,
    }
    return Entry(**{**known, **changed})


def ended(used: Entry) -> Entry:
    """The same use, when it has ended well."""
    used.outcome, used.cost, used.seconds = "ok", 1_500_000, 0.25
    return used


def use(log: AuditLog, number: int | str, side_effects: str = "read") -> None:
    """An intent and its outcome."""
    used = entry(number, side_effects)
    log.intent(used)
    log.outcome(ended(used))


def written(path: Path, uses: int = 500, **options: Any) -> Path:
    """A log of `uses` uses, closed."""
    with AuditLog(path, **options) as log:
        for number in range(uses):
            use(log, number)
            if number % 10 == 9:
                log.flush()  # or all are one batch, with one checkpoint
    return path


def copied(path: Path, name: str) -> Path:
    """A copy of a log that is not in use."""
    return Path(shutil.copy(path, path.with_name(name)))


@contextmanager
def tampering(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as an intruder has it: without triggers, which he puts back in the end."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA synchronous=OFF")
    database.execute("BEGIN")
    triggers = [name for name in _schema.TABLES if name.endswith(("_update", "_delete"))]
    for name in triggers:
        database.execute(f"DROP TRIGGER {name}")
    yield database
    for name in triggers:
        database.execute(_schema.TABLES[name])
    database.execute("COMMIT")
    database.close()


def rebuild(path: Path, start: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the body of row `start`, and make all hashes and checkpoints from there on anew, all consistent."""
    with tampering(path) as database:
        before = ZERO
        for seq, at, event, call, body, digest in database.execute("SELECT * FROM entries ORDER BY seq").fetchall():
            if seq == start:
                said = json.loads(body)
                change(said)
                body = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()  # noqa: PLW2901
            before = link(before, seq, at, event, call, body) if seq >= start else digest
            database.execute("UPDATE entries SET body = ?, hash = ? WHERE seq = ?", (body, before, seq))
        previous = ""
        for number, text in database.execute("SELECT * FROM checkpoints ORDER BY number").fetchall():
            old = json.loads(text)
            (head,) = database.execute("SELECT hash FROM entries WHERE seq = ?", (old["seq"],)).fetchone()
            new = Checkpoint(**{**old, "head": head.hex(), "previous": previous})
            previous = new.digest()
            database.execute("UPDATE checkpoints SET body = ? WHERE number = ?", (new.to_json(), number))


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that runs `code` in the repository."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
