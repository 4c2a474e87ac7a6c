"""Reading rows back, and the commands."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from escalade._cli_audit import app
from escalade.errors import BadInput, DataError
from escalade.registry.audit import AuditLog, reading
from tests.registry.audit.material import entry, rebuild, tampering, use, written


def command(*arguments: str) -> int:
    """`escalade audit …`: its exit code."""
    code = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    assert isinstance(code, int)
    return code


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 23 rows, anchored."""
    return written(tmp_path / "audit.sqlite", 10, anchors=[tmp_path / "anchor"])


def test_tail(log: Path) -> None:
    """The last rows, oldest first; all where there are fewer."""
    assert [row.seq for row in reading.tail(log, 3)] == [21, 22, 23]
    assert len(reading.tail(log, 100)) == 23
    with pytest.raises(BadInput, match="1 row or more"):
        reading.tail(log, 0)


def test_since(log: Path) -> None:
    """Rows of a time and later."""
    now = datetime.now(UTC)
    assert len(list(reading.rows(log, since=now - timedelta(hours=1)))) == 23
    assert not list(reading.rows(log, since=now + timedelta(hours=1)))
    (tenth,) = [row for row in reading.rows(log) if row.seq == 10]
    since = datetime.fromtimestamp(tenth.at / 1e6, UTC)
    assert next(row.seq for row in reading.rows(log, since=since)) <= 10
    assert [row.seq for row in reading.rows(log, after=20)] == [21, 22, 23]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:30", datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
        ("2026-01-31T12:30+02:00", datetime(2026, 1, 31, 10, 30, tzinfo=UTC)),
    ],
)
def test_times(text: str, moment: datetime) -> None:
    """UTC where no zone is named."""
    assert reading.parse_since(text) == moment
    with pytest.raises(BadInput, match="expected a time such as"):
        reading.parse_since("yesterday")


def test_exported_lines_can_be_verified(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`export` writes JSON lines from which the chain can be worked out again, by ten lines of anybody's code."""
    assert command("export", str(log)) == 0
    before = bytes(32)
    lines = capsys.readouterr().out.splitlines()
    for line in lines:
        row = json.loads(line)
        body = json.dumps(row["body"], sort_keys=True, separators=(",", ":"))
        head = f"{row['seq']} {row['at']} {row['event']} {len(row['call'])} {row['call']}\n"
        before = hashlib.sha256(before + head.encode() + body.encode()).digest()
        assert before.hex() == row["hash"]
    assert len(lines) == 23


def test_export_since(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--since` in the future exports nothing."""
    assert command("export", str(log), "--since", "2999-01-01") == 0
    assert capsys.readouterr().out == ""
    with pytest.raises(BadInput):
        command("export", str(log), "--since", "soon")


def test_verify_command(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Anchored: 0 and "nothing was tampered with". Without an anchor: 0, and that nobody could tell."""
    anchor = str(log.with_name("anchor"))
    assert command("verify", str(log), "--anchors", anchor) == 0
    said = capsys.readouterr().out
    assert "nothing was tampered with" in said
    assert "1 to 23" in said
    assert command("verify", str(log)) == 0
    assert "all rows are not anchored" in " ".join(capsys.readouterr().out.split())
    assert command("verify", str(log), "--anchors", anchor, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["rows"], found["anchored"], found["unanchored"]) == (True, 23, 23, 0)


def test_verify_says_what_is_loose(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows after the last checkpoint are counted; calls without an outcome are named."""
    running = AuditLog(log, anchors=[tmp_path / "anchor"])
    running.intent(entry("open-end"))
    assert command("verify", str(log), "--anchors", str(tmp_path / "anchor")) == 0
    said = " ".join(capsys.readouterr().out.split())
    running.close()
    assert "the last 2 rows are not anchored" in said
    assert "call-open-end" in said


def test_tampered(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 100, and what was found, in the table and in JSON."""
    anchor = str(log.with_name("anchor"))
    rebuild(log, 5, lambda said: said.update(user="[bold]mallory"))
    assert command("verify", str(log)) == 0
    assert command("verify", str(log), "--anchors", anchor) == 100
    assert "don't lead to its checkpoint's head" in capsys.readouterr().out
    with tampering(log) as database:
        database.execute("UPDATE entries SET body = x'00' WHERE seq BETWEEN 2 AND 22")
    assert command("verify", str(log), "--json") == 100
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == 21
    assert found["findings"][0]["seq"] == 2
    assert command("tail", str(log)) == 0
    assert "unreadable" in capsys.readouterr().out
    assert command("export", str(log)) == 0


def test_tail_command(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table, or JSON lines."""
    with AuditLog(log) as running:
        use(running, "[red]x")
        running.denied(entry("denied", outcome="PermissionDenied"))
    assert command("tail", str(log), "-n", "4") == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("acme/ana", "crm.search@1.2.0", "ok", "$0.0015", "PermissionDenied", "closed"))
    assert command("tail", str(log), "-n", "2", "--json") == 0
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == ["denied", "closed"]


@pytest.mark.parametrize("arguments", [("--json",), ()])
def test_follow(
    log: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--follow` goes on with new rows until it is interrupted."""
    turns = iter(range(3))

    def sleep(_: float) -> None:
        if next(turns, None) is None:
            raise KeyboardInterrupt
        with AuditLog(log):
            pass

    monkeypatch.setattr(reading.time, "sleep", sleep)
    with contextlib.suppress(KeyboardInterrupt):
        command("tail", str(log), "-n", "1", "--follow", *arguments)
    said = capsys.readouterr().out
    assert said.count("opened") >= 2


def test_bad_input(tmp_path: Path) -> None:
    """Files that are no logs, and options that there are not, are errors in one line."""
    (tmp_path / "text").write_text("hello")
    for name in ("text", "missing"):
        for sub in ("verify", "tail", "export"):
            with pytest.raises(BadInput) as error:
                command(sub, str(tmp_path / name))
            assert "\n" not in str(error.value)
    with pytest.raises(CycloptsError):
        command("verify")


def test_damaged(log: Path) -> None:
    """Reading what can't be read is a DataError."""
    data = bytearray(log.read_bytes())
    data[4096 * 1 + 0 : 4096 * 2] = bytes(4096)
    broken = log.with_name("broken.sqlite")
    broken.write_bytes(data)
    with pytest.raises(DataError):
        list(reading.rows(broken))


def test_read_only_media(log: Path) -> None:
    """A log in a folder that nobody may write to can be verified and read."""
    from escalade.registry.audit.verify import verify

    folder = log.with_name("media")
    folder.mkdir()
    copy = folder / "audit.sqlite"
    copy.write_bytes(log.read_bytes())
    copy.chmod(0o400)
    folder.chmod(0o500)
    try:
        assert verify(copy).ok
        assert len(list(reading.rows(copy))) == 23
    finally:
        folder.chmod(0o700)


@pytest.mark.slow
def test_verified_while_it_is_written(tmp_path: Path) -> None:
    """Verification sees one state of a log that others write to, with anchors that are never ahead of it."""
    from escalade.registry.audit.verify import verify

    stop = threading.Event()
    with AuditLog(tmp_path / "audit.sqlite", anchors=[tmp_path / "anchor"], checkpoint_rows=20) as log:
        use(log, 0, "write")
        log.checkpoint()

        def work() -> None:
            while not stop.is_set():
                use(log, "x", "write")

        writing = threading.Thread(target=work)
        writing.start()
        try:
            while log.health().rows < 500:
                found = verify(log.path, [tmp_path / "anchor"] if (tmp_path / "anchor").exists() else [])
                assert found.ok, found.findings
        finally:
            stop.set()
            writing.join()
    assert found.rows > 100


def test_nothing_heavy() -> None:
    """The audit needs nothing but the standard library: no DSPy, no cryptography, until a key asks for it."""
    from tests.registry.audit.material import python

    code = "import sys, escalade.registry.audit.log, escalade.registry.audit.verify\n"
    code += "print({'dspy', 'litellm', 'cryptography', 'rich'} & set(sys.modules))"
    assert python(code).communicate() == ("set()\n", "")
    assert "escalade" in sys.modules
