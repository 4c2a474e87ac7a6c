"""Which run directories there are, and how far each is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from escalade.errors import BadInput, DataError
from escalade.evals.studies.reading import outcomes_of
from escalade.evals.studies.rundir import STUDY, RunDir, is_run
from escalade.evals.studies.writing import SUMMARY, sizes
from escalade.money import Money

__all__ = ["Listed", "listed"]

DEEP = 2
"""Folders below the one that is named, in which run directories are looked for."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A run directory. `done`, `owed`: attempts. `at`: of its last attempt, seconds since the epoch. `wrong`: why it
    can't be read, "" for nothing.
    """

    path: Path
    name: str
    done: int = 0
    owed: int = 0
    spent: Money | None = None
    at: float = 0.0
    wrong: str = ""


def listed(folder: Path) -> list[Listed]:
    """Those in a folder, or the folder itself, the latest first. Raises BadInput where there is no such folder."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder")
    return sorted((_listed(path) for path in _runs(folder, DEEP)), key=lambda one: (-one.at, str(one.path)))


def _runs(folder: Path, deep: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    elif deep:
        for inner in sorted(folder.iterdir()):
            if inner.is_dir() and not inner.name.startswith("."):
                yield from _runs(inner, deep - 1)


def _listed(path: Path) -> Listed:
    run = RunDir(path)
    try:
        study = run.read(STUDY) or {}
        if "recorded" in study:
            return Listed(path, str(study.get("name")), spent=Money(0), at=(path / STUDY).stat().st_mtime)
        told = run.read(SUMMARY)
        if told is None or told.get("sizes") != sizes(run):
            told = _counted(run, study)
        return Listed(path, told["name"], told["done"], told["owed"], Money(told["spent"]), told["at"])
    except (DataError, KeyError, TypeError) as error:
        return Listed(path, path.name, wrong=str(error))


def _counted(run: RunDir, study: Mapping[str, Any]) -> dict[str, Any]:
    """By the lines: a run that goes on, or was killed."""
    filled = outcomes_of(run)
    spent = sum(_paid(run.lines()))
    at = max(part.stat().st_mtime for part in run.parts()) if run.parts() else (run.path / STUDY).stat().st_mtime
    total = filled.outcomes.n * filled.outcomes.k
    return {"name": study["name"], "done": total - filled.owed, "owed": filled.owed, "spent": spent, "at": at}


def _paid(lines: Iterable[Mapping[str, Any]]) -> Iterator[int]:
    for line in lines:
        if not line.get("regraded"):
            yield line["spent"] + line.get("grading", 0)
