"""RouterArena's files of graded answers: JSON lines, one per question and model, or a router's predictions in JSON.

    cached_results/<model>.jsonl    {"global_index": "AIME_112", "question": …, "llm_selected": <model>,
                                     "generated_answer": …, "token_usage": {"input_tokens": 1, "output_tokens": 1},
                                     "success": true, "error": null, "run_number": 1,
                                     "evaluation_result": {"score": 1.0, "inference_cost": 0.0003, …}}
    predictions/<router>.json       [{"global_index" | "global index": …, "prompt": …, "prediction": <model>,
                                      "generated_result": {"token_usage": …, "success": …}, "accuracy": 1.0,
                                      "cost": 0.0003}]

A file, or a folder of the first kind: one per model. As RouteWorks/RouterArena writes them (`llm_inference/run.py`,
`llm_evaluation/run.py`; Lu et al. 2025, arXiv 2510.00202). The category is what stands before the number of the index:
its data set. A `cost.json` or `model_cost.json` beside the files (or in `model_cost/` beside their folder) prices the
models. Answers are only measured: free texts seldom agree. Of a router's own predictions each question has one model
unless its entries for optimality are there: what nobody answered is missing, and never zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from escalade.agents.climb import FAILED, OK
from escalade.errors import BadInput, DataError
from escalade.evals._draft import Draft
from escalade.evals._files import stem
from escalade.evals.loading.grid import Given, dollars, grid, score
from escalade.evals.loading.rows import read_records
from escalade.evals.prices import Listed
from escalade.registry.prices import Price

PRICES = ("cost.json", "model_cost.json")
IN, OUT = "input_token_price_per_million", "output_token_price_per_million"


def load(path: Path) -> Draft:
    """Raises DataError, which names file and record."""
    files = sorted(p for p in path.iterdir() if ".jsonl" in p.suffixes) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no file of JSON lines in this folder; expected <model>.jsonl")
    below: list[str] = []
    draft = grid(path, stem(path), (given for file in files for given in _answers(file, below)))
    if below:
        draft = draft.noted(f"{len(below)} scores below 0 ({', '.join(sorted(set(below)))}) count as 0")
    prices = _prices(path if path.is_dir() else path.parent)
    return replace(draft, listed={rung.name: prices[rung.name] for rung in draft.rungs if rung.name in prices})


def looks_like(record: Mapping[str, Any]) -> bool:
    """Is this record one of RouterArena's?"""
    return bool({"global_index", "global index"} & set(record)) and bool({"llm_selected", "prediction"} & set(record))


def _answers(file: Path, below: list[str]) -> Iterator[Given]:
    for number, record in enumerate(read_records(file), 1):
        where = f"{file}: record {number}"
        if not looks_like(record):
            raise DataError(f"{where}: expected global_index and llm_selected (or prediction)")
        yield _given(where, record, below)


def _given(where: str, record: Mapping[str, Any], below: list[str]) -> Given:
    index = str(record.get("global_index") or record.get("global index"))
    result = _mapping(where, "generated_result", record.get("generated_result")) or record
    verdict = _mapping(where, "evaluation_result", record.get("evaluation_result"))
    usage = _mapping(where, "token_usage", result.get("token_usage"))
    failed = result.get("success") is False
    cost = dollars(f"{where}: cost", verdict.get("inference_cost", record.get("cost")))
    run, graded = record.get("run_number"), verdict.get("score", record.get("accuracy"))
    if isinstance(graded, float) and graded < 0:  # METEOR as it is reckoned there can be: a penalty above the match
        below.append(str(verdict.get("metric", "of a metric")))
        graded = 0.0
    return Given(
        where=where,
        key=index,
        model=str(record.get("llm_selected") or record.get("prediction")),
        epoch=run if isinstance(run, int) else 1,
        quality=None if failed else score(where, graded),
        cost=cost,
        input_tokens=_tokens(where, usage.get("input_tokens")),
        output_tokens=_tokens(where, usage.get("output_tokens")),
        status=FAILED if failed else OK,
        text=record.get("question") or record.get("prompt") or None,
        category=index.rpartition("_")[0] or None,
    )


def _mapping(where: str, name: str, value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: {name} is {value!r}; expected an object")
    return value


def _tokens(where: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise DataError(f"{where}: {value!r} tokens; expected a whole number")
    return float(value)


def _prices(folder: Path) -> dict[str, Listed]:
    beside = [folder / name for name in PRICES] + [folder.parent / "model_cost" / name for name in PRICES]
    file = next((file for file in beside if file.is_file()), None)
    if file is None:
        return {}
    found = {}
    for name, figures in read_records(file)[0].items():
        try:
            found[name] = Listed(Price.of(str(figures[IN]), str(figures[OUT])), f"RouterArena's {file.name}")
        except (KeyError, TypeError, BadInput) as error:
            raise DataError(f"{file}: {name}: expected {IN} and {OUT}, dollars ({error})") from None
    return found
