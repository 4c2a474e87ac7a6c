"""Which loader reads a file that nobody has named one for: by its name, by its columns, by its first record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from escalade.errors import DataError
from escalade.evals._files import read_text
from escalade.evals.loading import inspect_logs, llmrouter, mmlu_pro, routerarena, routerbench
from escalade.evals.loading.rows import JSON_LINES, read_header, read_records

PICKLES = {".pkl", ".pickle"}

DECISION = {"ladder", "path", "answered", "stop"}
"""What a line of `online.DecisionLog` has."""


def guess(path: Path) -> str:
    """The name of a loader. Raises DataError where it can't be told, and for pickles."""
    if path.is_dir():
        return _of_folder(path)
    if PICKLES & set(path.suffixes):
        told = (
            "a pickle runs whatever it holds when it is read, so it isn't read here; convert it where that may happen"
        )
        raise DataError(f"{path}: {told}: pandas.read_pickle({path.name!r}).to_parquet('{path.stem}.parquet')")
    if path.suffix == ".eval":
        return "inspect"
    if JSON_LINES & set(path.suffixes):
        record = _first(path)
        if isinstance(record, Mapping) and set(record) >= DECISION:
            told = "a log of decisions; it has no answers but those of the rungs that were asked"
            raise DataError(
                f"{path}: {told}: estimate(DecisionLog({str(path)!r}).lines(), policy) judges policies on it"
            )
        return _of_record(record) or "jsonl"
    if ".json" in path.suffixes:
        return _of_json(path)
    return _of_columns(path)


def _of_folder(path: Path) -> str:
    files = sorted(path.iterdir())
    if mmlu_pro.is_folder(path):
        return "mmlu_pro"
    if any(file.suffix == ".eval" for file in files):
        return "inspect"
    if (path / llmrouter.PRICES).is_file():
        return "llmrouter"
    first = next((file for file in files if JSON_LINES & set(file.suffixes)), None)
    if first is not None and _of_record(_first(first)) == "routerarena":
        return "routerarena"
    if not any(".csv" in file.suffixes for file in files):
        one = next((file for file in files if file.suffix == ".json"), None)
        if one is not None and inspect_logs.looks_like(read_records(one)[0]):
            return "inspect"
    return "routellm"


def _of_json(path: Path) -> str:
    record = read_records(path)[0]
    found = "inspect" if inspect_logs.looks_like(record) else _of_record(record)
    if found is None:
        raise DataError(
            f"{path}: can't tell what this is; expected a log of inspect_ai, records of RouterBench or predictions of "
            f"RouterArena; found {', '.join(list(record)[:8])}; name the loader, like long:{path.name}"
        )
    return found


def _of_record(record: object) -> str | None:
    if not isinstance(record, Mapping):
        return None
    if routerarena.looks_like(record):
        return "routerarena"
    return "routerbench" if set(routerbench.COLUMNS) <= set(record) else None


def _first(path: Path) -> Any:
    """The first line as JSON; None where it isn't: the loader says what is wrong."""
    line = next((line for line in read_text(path).split("\n") if line.strip()), "")
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _of_columns(path: Path) -> str:
    header = read_header(path)
    if set(routerbench.COLUMNS) <= set(header):
        return "routerbench"
    if {"question_id", "model"} <= set(header):
        return "long"
    if {"prompt", "question"} & set(header):
        return "llmrouter" if (path.parent / llmrouter.PRICES).is_file() else "routellm"
    raise DataError(
        f"{path}: can't tell what this is; expected the columns question_id, model, correct (long), or prompt and "
        f"one per model (routellm); found {', '.join(header[:8])}; name the loader, like long:{path.name}"
    )
