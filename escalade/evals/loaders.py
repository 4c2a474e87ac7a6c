"""Recorded outcomes from files: `load_outcomes("routellm:answers.csv")`.

    routellm   a CSV, or a folder of them: prompt, a column of verdicts per model, maybe <model>_response
    long       a CSV or TSV with a line per question and model: question_id, model, correct, …
    jsonl      escalade's own format: one question per line (`_jsonl.py` describes it)

Any of them may be gzipped. Without a loader's name it is guessed, by the name of the file and by its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from escalade.errors import DataError, UnknownName
from escalade.evals import _files
from escalade.evals._draft import Choices, Draft, finish

if TYPE_CHECKING:
    from escalade.evals.outcomes import Outcomes
    from escalade.registry.prices import Price, PriceTable


def load_outcomes(
    data: str | Path | None = None,
    *,
    rungs: Sequence[str] | None = None,
    labels: str | None = None,
    missing: str = "refuse",
    contaminated: str | None = None,
    limit: int | None = None,
    prices: Mapping[str, Price] | None = None,
    price_table: PriceTable | None = None,
) -> Outcomes:
    """Outcomes from `PATH` or `LOADER:PATH`; None is the GSM8K ladder that ships with the package.

    `rungs`: names of those that are the ladder, None is all; what the others lack doesn't matter. `labels`: "recorded"
    or "regraded" (where the data has both); None is "recorded", and for saved outcomes what they had. `missing`:
    "refuse" a data set in which a rung lacks outcomes, or "drop" those questions. `contaminated`: "keep" or "drop"
    questions that are marked as leaked; None drops them for routellm, as RouteLLM does, and keeps them otherwise.
    `limit`: the first so many questions. `prices`: by name of a rung or model, each must fit one; `price_table`: may
    know more than is needed.

    What was left out or assumed stands in `Outcomes.notes`. Raises DataError, UnknownName and BadInput.
    """
    loader, path = _loader_and_path(data) if data is not None else ("bundled", Path())
    if contaminated is None and loader == "routellm":
        contaminated = "drop"
    choices = Choices(labels, missing, contaminated, limit, prices, price_table, rungs)
    return finish(LOADERS[loader](path), choices)


def loader_of(data: str | Path) -> str:
    """The name of the loader that reads it: as it says, else as it looks. Raises DataError, UnknownName."""
    return _loader_and_path(data)[0]


def _loader_and_path(data: str | Path) -> tuple[str, Path]:
    loader, path = None, Path(data)
    name, colon, rest = str(data).partition(":")
    if colon and rest and not path.exists():
        if name in NAMED:
            loader, path = name, Path(rest)
        elif name.isidentifier() and len(name) > 1:  # one letter is a drive
            raise UnknownName("loader", name, list(NAMED))
    if not path.exists():
        raise DataError(f"no such data file: {path}")
    return loader or _guessed(path), path


def _guessed(path: Path) -> str:
    if path.is_dir():
        return "routellm"
    if {".jsonl", ".ndjson"} & set(path.suffixes):
        return "jsonl"
    header = _files.read_header(path)
    if {"question_id", "model"} <= set(header):
        return "long"
    if {"prompt", "question"} & set(header):
        return "routellm"
    raise DataError(
        f"{path}: can't tell what this is; expected the columns question_id, model, correct (long), or prompt and "
        f"one per model (routellm); found {', '.join(header[:8])}; name the loader, like long:{path.name}"
    )


def _jsonl(path: Path) -> Draft:
    from escalade.evals import _jsonl

    return _jsonl.load(path)


def _long(path: Path) -> Draft:
    from escalade.evals import _long

    return _long.load(path)


def _routellm(path: Path) -> Draft:
    from escalade.evals import _routellm

    return _routellm.load(path)


def _bundled(_: Path) -> Draft:
    from escalade.evals import bundled

    return bundled.draft()


NAMED: dict[str, Callable[[Path], Draft]] = {"routellm": _routellm, "long": _long, "jsonl": _jsonl}
"""Loader by the name that a user gives."""

LOADERS = {**NAMED, "bundled": _bundled}
