"""Rows read back as entries: the same, but for what a log never holds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from escalade.errors import BadInput
from escalade.registry.audit import AuditLog, reading
from escalade.registry.audit.entries import decisions, ended
from escalade.registry.audit.verify import verify
from escalade.scopes import Principal
from tests.registry.audit.material import ANA, entry, tampering, written
from tests.registry.audit.material import ended as ended_well

FULL = entry(
    1, started=1_700_000_000.25, permission="crm.search:call", schema_digest="sha256:1", args_digest="sha256:2",
    result_digest="sha256:3", policy_digest="4", approval_id="5", redactions={"email": 2}, unchecked="limits",
    principals=(Principal("boss", "acme", frozenset({"lead"})), ANA), source="once",
)  # fmt: skip
REFUSED = replace(entry(2, principals=(ANA,)), outcome="InvalidArguments", error="a: 5", invalid=("amount", "to"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A use with everything that an entry has, and a refusal."""
    with AuditLog(tmp_path / "audit.sqlite") as log:
        log.intent(FULL)
        log.outcome(ended_well(replace(FULL)))
        log.denied(REFUSED)
    assert verify(tmp_path / "audit.sqlite").ok
    return tmp_path / "audit.sqlite"


def test_what_was_recorded_comes_back(log: Path) -> None:
    """Field by field; of a refusal the message is left out, which may quote an argument."""
    used, refused = ended(log)
    assert used == ended_well(replace(FULL))
    assert replace(refused, started=0.0) == replace(REFUSED, started=0.0, error="InvalidArguments")
    assert [one.call_id for one in decisions(log)] == ["call-1", "call-2"]
    assert [one.outcome for one in decisions(log)] == ["", "InvalidArguments"]


def test_the_last_decisions(tmp_path: Path) -> None:
    """Of a log, and of what was exported of it: the last ones, oldest first; outcomes are none."""
    log, lines = written(tmp_path / "audit.sqlite", 10), tmp_path / "audit.jsonl"
    lines.write_text("".join(f"{row.to_json()}\n" for row in reading.rows(log)))
    for record in (log, lines):
        assert [one.call_id for one in decisions(record, 3)] == ["call-7", "call-8", "call-9"]
        assert len(decisions(record, 100)) == len(decisions(record)) == 10
        with pytest.raises(BadInput, match="expected 1 decision or more, got 0"):
            decisions(record, 0)


@pytest.mark.parametrize("body", ["3", "{", '{"user": ""}', '{"roles": 5}', '{"behalf": [1]}', '{"cost": "x"}'])
def test_rows_that_no_log_has(log: Path, tmp_path: Path, body: str) -> None:
    """A body that somebody made is an error of the data, with its file; so is one in an export."""
    lines = tmp_path / "audit.jsonl"
    lines.write_text(f'{{"event": "denied", "call": "c", "body": {body}}}')
    with tampering(log) as database:
        database.execute("UPDATE entries SET body = ? WHERE event = 'denied'", (body.encode(),))
    for record in (log, lines):
        with pytest.raises(BadInput, match=re.escape(str(record))):
            decisions(record)
