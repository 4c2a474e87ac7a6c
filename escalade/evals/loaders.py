"""Recorded outcomes from files: `load_outcomes("routellm:answers.csv")`.

    routellm      a table, or a folder of them: prompt, a column of verdicts per model, maybe <model>_response
    long          a table with a line per question and model: question_id, model, correct, …
    jsonl         escalade's own format: one question per line (`_jsonl.py` describes it)
    routerbench   a table: sample_id, prompt, eval_name, <model>, <model>|total_cost, …
    routerarena   graded answers as JSON lines, one file per model, or a router's predictions
    llmrouter     a table of scores: question, a column per model; prices in default_llm.json
    mmlu_pro      a folder: outcomes_long.csv and questions.csv
    inspect       logs of inspect_ai, .eval or .json: one per model, or a folder of them
    run           a run directory of a study (`studies/rundir.py`)

Tables are CSV, TSV, JSON lines or Parquet (`pip install escalade[parquet]`). Any but Parquet may be gzipped. Without a
loader's name it is guessed, by the name of the file, its columns and its first record. Each of `loading/` says which
version of a format it reads.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from escalade.errors import DataError, UnknownName
from escalade.evals._draft import Choices, Draft, finish
from escalade.evals.loading.guessing import guess
from escalade.evals.loading.leaks import with_notes
from escalade.evals.studies.rundir import is_run

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
    "refuse" a data set in which a rung lacks outcomes, "drop" those questions, or "keep" the holes: policies that never
    go there can be judged (`inference.censored`). `contaminated`: "keep" or "drop" questions that are marked as leaked;
    None drops them for routellm, as RouteLLM does, and keeps them otherwise. `limit`: the first so many questions.
    `prices`: by name of a rung or model, each must fit one; `price_table`: may know more than is needed.

    What was left out or assumed stands in `Outcomes.notes`, and so do duplicates (`loading/leaks.py`). Raises
    DataError, UnknownName and BadInput.
    """
    loader, path = _loader_and_path(data) if data is not None else ("bundled", Path())
    if contaminated is None and loader == "routellm":
        contaminated = "drop"
    choices = Choices(labels, missing, contaminated, limit, prices, price_table, rungs)
    if loader == RUN:
        return _of_run(path, choices)
    return with_notes(finish(LOADERS[loader](path), choices))


def loader_of(data: str | Path) -> str:
    """The name of the loader that reads it: as it says, else as it looks. Raises DataError, UnknownName."""
    return _loader_and_path(data)[0]


def _loader_and_path(data: str | Path) -> tuple[str, Path]:
    loader, path = None, Path(data)
    name, colon, rest = str(data).partition(":")
    if colon and rest and not path.exists():
        if name in {*NAMED, RUN}:
            loader, path = name, Path(rest)
        elif name == "dspy":
            raise DataError(f"{data}: questions without answers; load_examples() loads them, record() asks them")
        elif name.isidentifier() and len(name) > 1:  # one letter is a drive
            raise UnknownName("loader", name, [*NAMED, RUN])
    if not path.exists():
        raise DataError(f"no such data file: {path}")
    return loader or (RUN if is_run(path) else guess(path)), path


def _of_run(path: Path, choices: Choices) -> Outcomes:
    """Of a run directory: what was recorded there, or the data that its study replays."""
    from escalade.evals.studies.reading import chosen, replayed

    again = replayed(path)
    if again is None:
        return chosen(path, choices)
    data, limit, digest = again
    if load_outcomes(data, limit=limit).digest != digest:
        raise DataError(f"{path}: the data of this study, {data}, have changed; run it in another directory")
    loader, place = _loader_and_path(data)
    return with_notes(finish(LOADERS[loader](place), replace(choices, limit=choices.limit or limit)))


def _by(module: str) -> Callable[[Path], Draft]:
    """The function `load` of a module, which is imported when it is wanted."""

    def load(path: Path) -> Draft:
        loaded: Draft = importlib.import_module(f"escalade.evals.{module}").load(path)
        return loaded

    return load


def _bundled(_: Path) -> Draft:
    from escalade.evals import bundled

    return bundled.draft()


NAMED: dict[str, Callable[[Path], Draft]] = {
    "routellm": _by("_routellm"),
    "long": _by("_long"),
    "jsonl": _by("_jsonl"),
    "routerbench": _by("loading.routerbench"),
    "routerarena": _by("loading.routerarena"),
    "llmrouter": _by("loading.llmrouter"),
    "mmlu_pro": _by("loading.mmlu_pro"),
    "inspect": _by("loading.inspect_logs"),
}
"""Loader by the name that a user gives."""

RUN = "run"
"""The name of run directories, which hold Outcomes and no draft of them."""

LOADERS = {**NAMED, "bundled": _bundled}
