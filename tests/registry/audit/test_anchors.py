"""Checkpoints, their signatures, and the places that keep them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from escalade._cli_audit import app
from escalade.errors import BadInput
from escalade.registry.audit import AuditIncomplete, AuditLog, CallAnchor, Checkpoint, FileAnchor
from escalade.registry.audit.keys import HmacKey, load_key
from escalade.registry.audit.verify import verify
from tests.registry.audit.material import use, written

PRIVATE = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
"""  # from RFC 8032, section 7.1, test 1
PUBLIC = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
"""


def until(true: Callable[[], object], seconds: float = 10) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_KEY", "a shared secret of some length")
    monkeypatch.setenv("OTHER_KEY", "another secret of some length")


def test_every_so_many_rows(tmp_path: Path) -> None:
    """A checkpoint each so many rows and one at the end, each naming the one before."""
    written(tmp_path / "audit.sqlite", 50, anchors=[tmp_path / "anchor"], checkpoint_rows=20)
    held = list(FileAnchor(tmp_path / "anchor").read())
    assert [c.number for c in held] == list(range(1, len(held) + 1))
    assert [c.previous for c in held] == ["", *(c.digest() for c in held[:-1])]
    assert 2 <= len(held) <= 6
    assert held[-1].seq == held[-1].count == 103
    assert len({c.chain for c in held}) == 1


def test_every_so_many_seconds(tmp_path: Path) -> None:
    """A row is anchored after `checkpoint_seconds` at the latest; where nothing happens there are no checkpoints."""
    with AuditLog(tmp_path / "audit.sqlite", anchors=[tmp_path / "anchor"], checkpoint_seconds=0.2) as log:
        use(log, 1)
        until(lambda: (tmp_path / "anchor").exists() and verify(log.path, [tmp_path / "anchor"]).unanchored == 0)
        before = len(list(FileAnchor(tmp_path / "anchor").read()))
        time.sleep(0.5)
        assert len(list(FileAnchor(tmp_path / "anchor").read())) == before


def test_signed_by_a_secret(tmp_path: Path) -> None:
    """HMAC: the right key finds nothing, another one finds all, none checks nothing and says so."""
    path = written(tmp_path / "audit.sqlite", 5, anchors=[tmp_path / "anchor"], key="env:AUDIT_KEY")
    found = verify(path, [tmp_path / "anchor"], key="env:AUDIT_KEY")
    assert (found.ok, found.signatures) == (True, "hmac-sha256")
    assert verify(path, [tmp_path / "anchor"]).signatures == "not checked"
    wrong = verify(path, [tmp_path / "anchor"], key="env:OTHER_KEY")
    assert not wrong.ok
    assert "not signed by this key" in str(wrong.findings[0])
    assert "secret" not in path.read_bytes().decode("latin-1")


def test_signed_by_a_pair(tmp_path: Path) -> None:
    """Ed25519: the public half verifies, and can't write."""
    pytest.importorskip("cryptography")
    (tmp_path / "private").write_text(PRIVATE)
    (tmp_path / "public").write_text(PUBLIC)
    private, public = f"file:{tmp_path / 'private'}", f"file:{tmp_path / 'public'}"
    path = written(tmp_path / "audit.sqlite", 5, anchors=[tmp_path / "anchor"], key=private)
    for key in (private, public):
        found = verify(path, [tmp_path / "anchor"], key=key)
        assert (found.ok, found.signatures) == (True, "ed25519")
    assert not verify(path, [tmp_path / "anchor"], key="env:AUDIT_KEY").ok
    with pytest.raises(BadInput, match="can verify the audit log, not write it"):
        written(tmp_path / "other.sqlite", 1, key=public)
    for wrong in (PRIVATE.replace("MC4", "MC5"), "-----BEGIN NONSENSE-----"):
        (tmp_path / "wrong").write_text(wrong)
        with pytest.raises(BadInput):
            load_key(f"file:{tmp_path / 'wrong'}")
    assert public.split(":")[1] not in repr(load_key(public))


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `cryptography` is missing, a PEM is refused with what to install; the rest works."""
    import sys

    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.serialization", None)
    (tmp_path / "private").write_text(PRIVATE)
    with pytest.raises(BadInput, match="pip install cryptography"):
        load_key(f"file:{tmp_path / 'private'}")


@pytest.mark.parametrize(
    ("reference", "match"),
    [
        ("a shared secret of some length", "never as itself"),
        ("env:NO_SUCH_NAME", "the environment has no NO_SUCH_NAME"),
        ("env:", "by reference"),
        ("file:no/such/file", "No such file"),
        ("env:SHORT_KEY", "5 bytes"),
    ],
)
def test_bad_keys(reference: str, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are references to something of 16 bytes or more; the message never holds the key."""
    monkeypatch.setenv("SHORT_KEY", "s3cr3"[:5])
    with pytest.raises(BadInput, match=match) as error:
        load_key(reference)
    assert "s3cr3" not in str(error.value)
    assert "shared secret" not in str(error.value)


def test_keys_do_not_show() -> None:
    """The `repr` of a key is its id."""
    assert "secret" not in repr(HmacKey(b"a shared secret of some length"))


def test_stripped_signatures(tmp_path: Path) -> None:
    """Checkpoints that were made anew without a signature are no checkpoints of a signed log."""
    path = written(tmp_path / "audit.sqlite", 5, anchors=[tmp_path / "anchor"], key="env:AUDIT_KEY")
    place = tmp_path / "anchor"
    bare = [dataclasses.replace(c, algorithm="none", key_id="", signature="") for c in FileAnchor(place).read()]
    place.write_text("".join(c.to_json() + "\n" for c in bare))
    found = verify(path, [place], key="env:AUDIT_KEY")
    assert sum("not signed" in str(one) for one in found.findings) == len(bare)


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "env:AUDIT_KEY"])
def test_each_byte_of_an_anchor(tmp_path: Path, key: str | None) -> None:
    """Each byte of an anchor file: changed, it is found."""
    place = tmp_path / "anchor"
    path = written(tmp_path / "audit.sqlite", 30, anchors=[place], key=key, checkpoint_rows=20)
    data = place.read_bytes()
    end = len(data) - 1  # without the last newline the last line counts as unfinished
    for position in range(end):
        place.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert not verify(path, [place]).ok, position
    place.write_bytes(data[:end])
    found = verify(path, [place])
    assert found.ok
    assert found.unanchored > 0


def test_lines_taken_from_an_anchor(tmp_path: Path) -> None:
    """A line that is missing is found, if it is not the last one; two that changed places are."""
    place = tmp_path / "anchor"
    path = written(tmp_path / "audit.sqlite", 100, anchors=[place], checkpoint_rows=20)
    lines = place.read_text().splitlines(keepends=True)
    assert len(lines) >= 3
    for broken in (lines[1:], [lines[0], *lines[2:]], [lines[1], lines[0], *lines[2:]], [lines[0], *lines]):
        place.write_text("".join(broken))
        assert not verify(path, [place]).ok
    place.write_text("".join(lines[:-1]))
    assert verify(path, [place]).anchored < verify(path).rows


def test_a_slow_anchor(tmp_path: Path) -> None:
    """An anchor that takes its time holds up nobody but itself."""
    go = threading.Event()
    got: list[int] = []

    def send(checkpoint: Checkpoint) -> None:
        go.wait()
        got.append(checkpoint.number)

    with AuditLog(tmp_path / "audit.sqlite", anchors=[send, tmp_path / "anchor"], checkpoint_rows=10) as log:
        began = time.perf_counter()
        for number in range(50):
            use(log, number, "write")
        assert time.perf_counter() - began < 5
        until((tmp_path / "anchor").exists)
        assert not got
        assert log.health().undelivered > 0
        go.set()
    assert got == list(range(1, len(got) + 1))


def test_an_anchor_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An anchor that fails is tried again, is told by `health`, and gets everything in order in the end."""
    failing, got = [True], list[Checkpoint]()

    def send(checkpoint: Checkpoint) -> None:
        if failing[0]:
            raise ConnectionError("no route")
        got.append(checkpoint)

    with AuditLog(tmp_path / "audit.sqlite", anchors=[send], checkpoint_rows=4) as log:
        for number in range(20):
            use(log, number, "write")
        until(lambda: log.health().anchors)
        assert not log.health().ok
        assert "ConnectionError: no route" in next(iter(log.health().anchors.values()))
        assert log.health().down == ""  # uses go on: they are recorded, and will be anchored
        failing[0] = False
        until(lambda: log.health().ok)
    assert [c.number for c in got] == list(range(1, len(got) + 1))
    assert "takes no checkpoints" in caplog.text


def test_an_anchor_that_never_works(tmp_path: Path) -> None:
    """Closing a log whose anchor lacks checkpoints says so; the next one brings them."""
    place = tmp_path / "no" / "anchor"
    log = AuditLog(tmp_path / "audit.sqlite", anchors=[place])
    use(log, 1)
    with pytest.raises(AuditIncomplete, match="checkpoints not delivered") as lacking:
        log.close()
    assert (lacking.value.unrecorded, lacking.value.undelivered) == (0, 1)
    place.parent.mkdir()
    AuditLog(log.path, anchors=[place]).close()
    found = verify(log.path, [place])
    assert (found.ok, found.unanchored) == (True, 0)


def test_an_anchor_for_a_log_that_has_none(tmp_path: Path) -> None:
    """A log that gets its first anchor later brings it all its checkpoints."""
    path = written(tmp_path / "audit.sqlite", 10, checkpoint_rows=5)
    AuditLog(path, anchors=[tmp_path / "anchor"]).close()
    assert verify(path, [tmp_path / "anchor"]).ok


def test_several_anchors(tmp_path: Path) -> None:
    """Each is held against the log; what one lost, the other one has."""
    places = [tmp_path / "one", tmp_path / "two"]
    path = written(tmp_path / "audit.sqlite", 50, anchors=places, checkpoint_rows=10)
    assert places[0].read_text() == places[1].read_text()
    places[0].write_text("")
    found = verify(path, places)
    assert (found.ok, found.anchors, found.unanchored) == (True, 2, 0)


def test_an_anchor_of_another_log(tmp_path: Path) -> None:
    """An anchor belongs to one log: another one can't use it, and is not verified by it."""
    written(tmp_path / "one.sqlite", 1, anchors=[tmp_path / "anchor"])
    with pytest.raises(BadInput, match="another log"):
        AuditLog(tmp_path / "two.sqlite", anchors=[tmp_path / "anchor"])
    assert not verify(written(tmp_path / "three.sqlite", 1), [tmp_path / "anchor"]).ok


def test_functions_and_objects(tmp_path: Path) -> None:
    """An anchor is a path, a function, a CallAnchor that can be read, or anything with `append` and `read`."""
    kept: list[Checkpoint] = []
    anchor = CallAnchor(kept.append, lambda: kept)
    path = written(tmp_path / "audit.sqlite", 5, anchors=[anchor])
    assert verify(path, [anchor]).unanchored == 0
    assert CallAnchor(print).read() == ()
    with pytest.raises(BadInput, match="an anchor is"):
        AuditLog(tmp_path / "other.sqlite", anchors=[3])  # type: ignore[list-item]


def checkpoint(number: int, head: str = "00") -> Checkpoint:
    """One of some log."""
    return Checkpoint(number, "chain", number, head, number, "", 0)


def test_file_takes_each_once(tmp_path: Path) -> None:
    """A checkpoint that comes twice stands once; another one of the same number is refused."""
    anchor = FileAnchor(tmp_path / "anchor")
    for number in (1, 1, 2, 1, 2, 3):
        anchor.append(checkpoint(number))
    assert [c.number for c in anchor.read()] == [1, 2, 3]
    with pytest.raises(BadInput, match="another log"):
        anchor.append(checkpoint(3, "11"))
    assert "FileAnchor" in repr(anchor)


def test_an_unfinished_line(tmp_path: Path) -> None:
    """A line that a power cut left half-written is left out, and taken away by the next append."""
    anchor = FileAnchor(tmp_path / "anchor")
    anchor.append(checkpoint(1))
    with anchor.path.open("ab") as file:
        file.write(checkpoint(2).to_json().encode()[:50])
    assert [c.number for c in anchor.read()] == [1]
    anchor.append(checkpoint(2))
    assert [c.number for c in anchor.read()] == [1, 2]


@pytest.mark.parametrize("text", ["hello", "hello\n", "hello\nagain\n", "{}\n", "{"], ids=repr)
def test_a_file_that_is_no_anchor(tmp_path: Path, text: str) -> None:
    """It is neither read nor written to: the error names file and line. One that was only begun is an empty one."""
    place = tmp_path / "people.yaml"
    place.write_text(text)
    path = written(tmp_path / "audit.sqlite", 5)
    if text == "{":
        assert list(FileAnchor(place).read()) == []
        return
    for use_it in (lambda: verify(path, [place]), lambda: AuditLog(path, anchors=[place])):
        with pytest.raises(BadInput, match="people.yaml:1: is no checkpoint; expected the file of an anchor"):
            use_it()
    assert place.read_text() == text


def test_a_log_is_no_anchor_of_its_own(tmp_path: Path) -> None:
    """Its own file is refused, new or old, and stays what it was."""
    path = tmp_path / "audit.sqlite"
    for _ in range(2):
        with pytest.raises(BadInput, match="audit.sqlite:1: is no checkpoint"):
            AuditLog(path, anchors=[path])
        written(path, 5)
    assert verify(path).ok


def test_an_emptied_anchor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Anchors that hold nothing vouch for nothing: no change was found, and whoever asked for them is told, by a code
    that isn't 0, too.
    """
    place = tmp_path / "anchor"
    path = written(tmp_path / "audit.sqlite", 20, anchors=[place], checkpoint_rows=5)
    command = ["verify", str(path), "--anchors", str(place)]
    assert app(command, result_action="return_value") == 0
    assert verify(path, [place]).vouched
    place.write_text("")
    found = verify(path, [place])
    assert (found.ok, found.vouched, found.to_json()["vouched"]) == (True, False, False)
    assert verify(path).vouched, "none was asked"
    capsys.readouterr()
    assert app(command, result_action="return_value") == 100
    assert "no anchor holds a checkpoint of this log" in capsys.readouterr().out


def test_many_append(tmp_path: Path) -> None:
    """Threads that append the same checkpoints to one file leave each once, in order."""
    threads = [
        threading.Thread(target=lambda: [FileAnchor(tmp_path / "anchor").append(checkpoint(n)) for n in range(1, 50)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [c.number for c in FileAnchor(tmp_path / "anchor").read()] == list(range(1, 50))


def test_append_only_rights(tmp_path: Path) -> None:
    """A file that can only be appended to (`chattr +a`) is enough."""
    place = tmp_path / "anchor"
    place.touch()
    if os.geteuid() or subprocess.run(["chattr", "+a", place], check=False, capture_output=True).returncode:
        pytest.skip("only root can make a file append-only, and not on every file system")
    try:
        path = written(tmp_path / "audit.sqlite", 50, anchors=[place], checkpoint_rows=10)
        assert verify(path, [place]).unanchored == 0
    finally:
        subprocess.run(["chattr", "-a", place], check=True)


@pytest.mark.parametrize("line", ["", "{}", "[]", "null", '{"number": 1}', "\udcff", checkpoint(1).to_json() + " "])
def test_only_what_is_written_is_read(line: str) -> None:
    """`from_json` is the inverse of `to_json` and of nothing else."""
    with pytest.raises(ValueError):
        Checkpoint.from_json(line)
    assert Checkpoint.from_json(checkpoint(1).to_json()) == checkpoint(1)
