"""Checkpoints, and the outside places that they are put in.

A chain alone finds what was changed inside of it. It doesn't find that its tail was cut off, or that all of it was made
anew: both leave a chain that is right. A checkpoint is what the log said of itself at one moment, put where whoever
changes the log can't change it. `verify` holds the log against it: up to the last checkpoint of an anchor everything is
proven, after it nothing but the links.

An anchor belongs to one log. That it holds checkpoints of another one is a finding: the log was replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Protocol

from escalade.errors import BadInput
from escalade.registry.audit.keys import Signer
from escalade.registry.audit.rows import canonical

UNSIGNED = "none"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log said of itself: row `seq` has the hash `head`, and `count` rows lead to it.

    `number`: 1, 2, 3 … `chain`: which log, a random name from its first row. `previous`: digest of the checkpoint
    before this one. `at`: microseconds since 1970. `signature`: hex, of everything else.
    """

    number: int
    chain: str
    seq: int
    head: str
    count: int
    previous: str
    at: int
    algorithm: str = UNSIGNED
    key_id: str = ""
    signature: str = ""

    def message(self) -> bytes:
        """What is signed: all fields but the signature."""
        return canonical({k: v for k, v in asdict(self).items() if k != "signature"})

    def digest(self) -> str:
        """What the next checkpoint calls `previous`: SHA-256, hex."""
        return sha256(self.to_json().encode()).hexdigest()

    def signed(self, key: Signer | None) -> Checkpoint:
        """The same, signed; as it is without a key."""
        if key is None:
            return self
        named = replace(self, algorithm=key.algorithm, key_id=key.key_id)
        return replace(named, signature=key.sign(named.message()).hex())

    def signed_by(self, key: Signer) -> bool:
        """Is the signature that of this key? One by another algorithm is not, nor is none."""
        try:
            signature = bytes.fromhex(self.signature)
        except ValueError:
            return False
        return self.algorithm == key.algorithm and key.verify(self.message(), signature)

    def to_json(self) -> str:
        return canonical(asdict(self)).decode()

    @classmethod
    def from_json(cls, line: str | bytes) -> Checkpoint:
        """The inverse of `to_json`, and of nothing else. Raises ValueError."""
        try:
            made = cls(**json.loads(line))
        except TypeError as error:
            raise ValueError(str(error)) from error
        numbers = (made.number, made.seq, made.count, made.at)
        if not all(type(n) is int for n in numbers) or made.to_json().encode() != _bytes(line):
            raise ValueError("not a checkpoint as it is written")
        return made


_BEGINS = b'{"algorithm":"'
"""How each begins: its keys are sorted."""

UNREADABLE = Checkpoint(0, "", 0, "", 0, "", 0)
"""Stands for a line that is no checkpoint."""


class Anchor(Protocol):
    """An outside place for checkpoints. May raise anything: the log tries again, and says so in its health."""

    def append(self, checkpoint: Checkpoint) -> None:
        """Keep it. May come twice: after a crash the log doesn't know what arrived."""
        ...

    def read(self) -> Iterable[Checkpoint]:
        """All of them, oldest first; none where it can't be read back."""
        ...


class FileAnchor:
    """An append-only JSONL file, on another disk or machine, best with append-only rights (`chattr +a`).

    Each checkpoint is on the disk when `append` returns. Several processes may append: a lock keeps their order.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"FileAnchor({str(self.path)!r})"

    def append(self, checkpoint: Checkpoint) -> None:
        """Does nothing for what is there already. Raises BadInput where another one of that number is, OSError."""
        with self.path.open("ab+") as file:
            _lock(file)
            last = _last(file)
            if last is None or last.number < checkpoint.number:
                _write(file, checkpoint.to_json().encode() + b"\n")
            elif last.number == checkpoint.number and last != checkpoint:
                raise BadInput(f"{self.path} holds another checkpoint {last.number}: it belongs to another log")

    def read(self) -> Iterator[Checkpoint]:
        """All of them, UNREADABLE for a line that is none. A last line without its end was never finished: left out.

        Raises FileNotFoundError, BadInput for a file in which no line is a checkpoint.
        """
        good = bad = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n") and (line.startswith(_BEGINS) or _BEGINS.startswith(line)):
                    break
                try:
                    yield Checkpoint.from_json(line.removesuffix(b"\n"))
                    good += 1
                except ValueError:
                    bad += 1
                    yield UNREADABLE
        if bad and not good:
            raise BadInput(f"{self.path}:1: is no checkpoint; expected the file of an anchor, which holds nothing else")


class CallAnchor:
    """A function that takes checkpoints: an HTTP POST, a queue, a SIEM. `read`: how to get them back, if at all."""

    def __init__(
        self, send: Callable[[Checkpoint], object], read: Callable[[], Iterable[Checkpoint]] | None = None
    ) -> None:
        self._send, self._read = send, read

    def append(self, checkpoint: Checkpoint) -> None:
        self._send(checkpoint)

    def read(self) -> Iterable[Checkpoint]:
        return () if self._read is None else self._read()


def as_anchor(given: Anchor | Callable[[Checkpoint], object] | str | os.PathLike[str]) -> Anchor:
    """A path is a FileAnchor, a function a CallAnchor. Raises BadInput."""
    if isinstance(given, str | os.PathLike):
        return FileAnchor(given)
    if hasattr(given, "append") and hasattr(given, "read"):
        return given
    if callable(given):
        return CallAnchor(given)
    raise BadInput(f"an anchor is a path, a function, or has `append` and `read`; got {type(given).__name__}")


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _lock(file: BinaryIO) -> None:
    """Released when the file is closed, by the kernel if need be. Windows has none: there, one process per anchor."""
    with contextlib.suppress(ImportError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


def _last(file: BinaryIO) -> Checkpoint | None:
    """The newest readable checkpoint; looks at the last 64 KB, some hundred of them."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 65_536))
    for line in reversed(file.read().split(b"\n")[:-1]):
        with contextlib.suppress(ValueError):
            return Checkpoint.from_json(line)
    return None


def _write(file: BinaryIO, line: bytes) -> None:
    """All of it or nothing. What a power cut left of an unfinished line is taken away first."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 65_536))
    tail = file.read()
    whole = size - (len(tail) - (tail.rfind(b"\n") + 1))
    try:
        if whole != size:
            file.truncate(whole)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(whole)
        raise
