"""A run directory: what a study was, what it paid for, and what came of it.

    study.json       the study as it was resolved: rungs with their digests, metric, epochs, budget
    prices.json      the list price of each model, its source and date
    versions.json    of escalade, DSPy, LiteLLM, Python, the platform; the commit, if there is one
    grades.json      digests of the metric and of the labels that each question was graded by
    questions.jsonl  one line per question: key, facts, price bounds; no text unless the study says `texts: true`
    attempts.jsonl   one line per attempt, appended as it ends; `attempts-NAME.jsonl` are those of a worker

A line is written as soon as its attempt is graded, and is on the disk a second later: a process that is killed loses
the calls that were in flight, and nothing else. A last line that is torn counts as not there and is cut off when the
file is opened again. While somebody writes to a file he holds a lock on it, which the system takes back when he dies.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from escalade.errors import BadInput, DataError
from escalade.evals.studies.attempts import attempts

__all__ = ["ATTEMPTS", "QUESTIONS", "STUDY", "Line", "Lines", "RunDir", "is_run", "paid"]

STUDY, PRICES, VERSIONS = "study.json", "prices.json", "versions.json"
QUESTIONS, ATTEMPTS = "questions.jsonl", "attempts.jsonl"

_TAIL = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One attempt. `key` (of the question's inputs), `of` (digest of the rung) and `epoch` are its identity. One
    whose `of` is empty was paid for and came to nothing: its grade failed; it is owed.

    `status`: a word of `climb`. `error`: class of what was raised; `finish`: why the model stopped. `answer`: 48 bits
    that only mean "same" or "different" within a question. `cost`: nano-dollars at list price, None for unknown;
    `spent`: what was really paid now; they differ by what a cache saved. `grading`: what a metric that asks models
    paid. `hits`: calls that a cache answered.
    `latency`: seconds, None where unknown (or a cache answered). `input`, `output`: tokens. `model`: as the provider
    names the one that answered. `form`: see `agents.forms`. `at`: seconds since the epoch. `regraded`: the same
    attempt once more, with another grade. `outputs`: of studies that keep texts.
    """

    key: str
    rung: str
    of: str
    epoch: int = 0
    status: str = "ok"
    quality: float = 0.0
    error: str | None = None
    finish: str | None = None
    answer: int | None = None
    confidence: float | None = None
    cost: int | None = None
    spent: int = 0
    grading: int | None = None
    hits: int | None = None
    latency: float | None = None
    input: int | None = None
    output: int | None = None
    model: str | None = None
    form: list[float] | None = None
    at: float = 0.0
    regraded: bool | None = None
    outputs: Mapping[str, Any] | None = None

    def told(self) -> dict[str, Any]:
        """Its fields by name; what is None is left out."""
        return {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}

    def dumped(self) -> bytes:
        """As JSON with its end of line."""
        import orjson

        return orjson.dumps(self.told(), default=str) + b"\n"


_FIELDS = tuple(field.name for field in fields(Line))


class Lines:
    """A file of JSON lines that is appended to, by one writer at a time. Raises BadInput while another one writes.

    `add` hands a line to the system at once: it survives this process. `sync` waits until the disk has all of them.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.dirty = path, False
        try:
            self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror or error}") from None
        if not _locked(self._file):
            os.close(self._file)
            raise BadInput(f"{path}: another process writes there; wait for it, or name another directory")
        self.torn = _mended(self._file)

    def add(self, line: bytes) -> None:
        """Append one line, with its end; whole or not at all. Raises DataError where the disk takes no more."""
        left = memoryview(line)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            self._take_back(len(line) - len(left))
            raise DataError(f"{self.path}: can't be written: {error.strerror or error}; what it has is kept") from error
        self.dirty = True

    def _take_back(self, size: int) -> None:
        """The begin of a line that found no room, so that others can follow."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, os.fstat(self._file).st_size - size)

    def sync(self) -> None:
        """Blocks until what was added is on the disk."""
        if self.dirty:
            self.dirty = False
            os.fsync(self._file)

    def close(self) -> None:
        """On the disk, and free for others."""
        self.sync()
        os.close(self._file)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RunDir:
    """The directory at `path`; it is made when something is written."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    def writer(self, part: str = "") -> Lines:
        """Appends attempts, those of a worker under the name `part`. Raises BadInput while somebody else does."""
        return Lines(self.file(f"attempts-{part}.jsonl" if part else ATTEMPTS))

    def parts(self) -> tuple[Path, ...]:
        """The files of attempts that are there, that of the study itself first."""
        own, others = self.path / ATTEMPTS, sorted(self.path.glob("attempts-*.jsonl"))
        return (*((own,) if own.exists() else ()), *others)

    def file(self, name: str) -> Path:
        """The path of a file; the directory is there. Raises BadInput."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{self.path}: can't be a run directory: {error.strerror or error}") from None
        return self.path / name

    def write(self, name: str, what: Any) -> None:
        """One JSON document, whole or not at all."""
        import orjson

        self.put(name, orjson.dumps(what, option=orjson.OPT_INDENT_2, default=str) + b"\n")

    def put(self, name: str, content: bytes) -> None:
        """The content of a file, whole or not at all."""
        path = self.file(name)
        beside = path.with_name(f".{name}.{os.getpid()}")
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON document, None where there is none. Raises DataError for what is no JSON object."""
        import orjson

        try:
            found = orjson.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path / name}: {error}") from None
        if not isinstance(found, dict):
            raise DataError(f"{self.path / name}: expected a JSON object")
        return found

    def attempts(self) -> Iterator[list[dict[str, Any]]]:
        """All attempts that are there, block by block, in the order of the files. Raises DataError."""
        for part in self.parts():
            yield from attempts(part)

    def lines(self) -> Iterator[dict[str, Any]]:
        """As `attempts`, one by one."""
        for rows in self.attempts():
            yield from rows


def paid(line: Mapping[str, Any]) -> int:
    """Nano-dollars that were paid for what a line says: a grade of today doesn't pay for the answer again."""
    if line.get("regraded"):
        return int(line.get("regrading", 0))
    return int(line["spent"] + line.get("grading", 0))


def is_run(path: str | os.PathLike[str]) -> bool:
    """Is this a run directory?"""
    return (Path(path) / STUDY).is_file()


def _locked(file: int) -> bool:
    try:
        import fcntl
    except ImportError:  # no locks of files on this system: who starts two runs in one directory isn't stopped
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _mended(file: int) -> int:
    """Cut off a last line that has no end; how many bytes it had."""
    size = at = os.fstat(file).st_size
    while at > 0:
        begin = max(0, at - _TAIL)
        found = os.pread(file, at - begin, begin).rfind(b"\n")
        if found >= 0:
            at = begin + found + 1
            break
        at = begin
    if at < size:
        os.ftruncate(file, at)
    return size - at
