"""The live answers of a run directory: one line each, known by policy and by what the answer hangs on."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from os import PathLike
from typing import Any, Self

from escalade.errors import DataError
from escalade.evals.studies.asking import Answered, Tried
from escalade.evals.studies.rundir import Lines, RunDir
from escalade.evals.studies.unanswered import unanswered

__all__ = ["LIVE", "Kept"]

LIVE = "live.jsonl"

EVERY = 1.0
"""Seconds after which lines are on the disk at the latest, while others come."""


class Kept:
    """Answers of this policy that were paid for already, by key, and the file that further ones are added to.

    `of`: what an answer hangs on; lines of others stay as they are and aren't used. `labels`: digest by key of what it
    is graded by; one that was graded by others isn't known, nor what nobody answered: they are asked again. Without a
    directory nothing is kept. `spent`: nano-dollars of all lines, known or not.
    Raises BadInput while another process writes there, DataError for a file that is none of ours.
    """

    def __init__(self, path: str | PathLike[str] | None, policy: str, of: str, labels: Mapping[str, str]) -> None:
        self._policy, self._of, self._labels = policy, of, labels
        self._lines = None if path is None else Lines(RunDir(path).file(LIVE))
        self._synced = time.monotonic()
        self.spent = 0
        self.known: dict[str, Answered] = {} if self._lines is None else self._read(self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines is not None:
            self._lines.close()

    def add(self, answer: Answered) -> None:
        """One more."""
        if self._lines is None:
            return
        import orjson

        path = [(t.rung, t.status, t.cost, None if math.isnan(t.confidence) else t.confidence) for t in answer.path]
        told = {
            name: getattr(answer, name) for name in ("key", "chosen", "quality", "cost", "seconds", "error", "model")
        }
        labels = self._labels.get(answer.key, "")
        line = {
            "policy": self._policy,
            "of": self._of,
            "labels": labels,
            **told,
            "path": path,
            "at": round(time.time(), 3),
        }
        self._lines.add(orjson.dumps(line) + b"\n")
        if time.monotonic() - self._synced > EVERY:
            self._lines.sync()
            self._synced = time.monotonic()

    def _read(self, lines: Lines) -> dict[str, Answered]:
        import orjson

        found: dict[str, Answered] = {}
        for number, text in enumerate(lines.path.read_bytes().splitlines(), 1):
            try:
                row = orjson.loads(text)
                if (row["policy"], row["of"]) != (self._policy, self._of):
                    continue
                answer = _answer(row)
                self.spent += answer.cost
                regraded = row["labels"] != self._labels.get(answer.key, row["labels"])
                if not regraded and not unanswered(answer.error):
                    found[answer.key] = answer
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{lines.path}, line {number}: no live answer ({error})") from None
        return found


def _answer(row: dict[str, Any]) -> Answered:
    path = tuple(
        Tried(rung, status, cost, math.nan if sure is None else sure) for rung, status, cost, sure in row["path"]
    )
    return Answered(
        key=row["key"],
        path=path,
        chosen=row["chosen"],
        quality=row["quality"],
        cost=row["cost"],
        seconds=row["seconds"],
        error=row["error"],
        model=row.get("model"),
    )
