"""Outcomes to JSON lines that `_jsonl` reads again: the same table, figure by figure.

Answers are codes, as they are in `Outcomes`: nothing that was said is in the file, nor what was asked unless that is
wanted. Amounts are exact decimal dollars.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.errors import DataError
from escalade.evals._codes import NO_ANSWER, STATUSES, UNKNOWN
from escalade.money import Money

if TYPE_CHECKING:
    from escalade.agents.climb import Rung
    from escalade.evals.outcomes import Outcomes


def save(outcomes: Outcomes, path: Path, *, texts: bool = False) -> Path:
    """Write the file and return its path. Raises DataError for a name that isn't one of JSON lines."""
    if not {".jsonl", ".ndjson"} & set(path.suffixes):
        raise DataError(f"{path}: outcomes are saved as JSON lines; call the file something.jsonl, or .jsonl.gz")
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in _rows(outcomes, texts=texts))
    raw = text.encode("utf-8")
    try:
        path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    return path


def _rows(outcomes: Outcomes, *, texts: bool) -> Iterator[dict[str, Any]]:
    yield {
        "escalade": "outcomes/1",
        "name": outcomes.name,
        "final": True,
        "labels": outcomes.labels,
        "rungs": [_rung(rung, outcomes) for rung in outcomes.rungs],
        "notes": list(outcomes.notes),
    }
    recorded = outcomes.gradings.get("recorded", outcomes.quality)
    for i, key in enumerate(outcomes.keys):
        features = {name: fact for name, fact in outcomes.facts(i).items() if texts or name != "text"}
        row: dict[str, Any] = {"key": key}
        if "prompt_chars" in features:
            row["prompt_chars"] = features.pop("prompt_chars")
        if features:
            row["features"] = features
        if outcomes.category is not None:
            row["category"] = outcomes.category[i]
        if outcomes.group is not None:
            row["group"] = outcomes.group[i]
        answers = [_answer(outcomes, i, rung, float(recorded[i, rung])) for rung in range(outcomes.k)]
        yield row | {"outcomes": dict(zip([rung.name for rung in outcomes.rungs], answers, strict=True))}


def _rung(rung: Rung, outcomes: Outcomes) -> dict[str, Any]:
    listed = outcomes.tariff.get(rung.name)
    row: dict[str, Any] = {"name": rung.name, "strategy": rung.strategy, "model": rung.model}
    row["ceiling"] = None if rung.ceiling is None else _dollars(rung.ceiling)
    row["tier"] = rung.tier
    if listed is not None:
        price = listed.price
        row["tariff"] = {"input": _dollars(price.input), "output": _dollars(price.output), "source": listed.source}
        row["tariff"]["cached"] = None if price.cached is None else _dollars(price.cached)
    row["identity"], row["responders"] = outcomes.identity.get(rung.name), outcomes.responders.get(rung.name)
    return {name: value for name, value in row.items() if value is not None}


def _answer(outcomes: Outcomes, i: int, rung: int, quality: float) -> dict[str, Any]:
    at = i, rung
    code, status = int(outcomes.answer[at]), STATUSES[int(outcomes.status[at])]
    regraded = outcomes.gradings.get("regraded")
    row: dict[str, Any] = {
        "quality": _known(quality),
        "regraded": None if regraded is None else _known(float(regraded[at])),
        "answer": None if code == NO_ANSWER else code,
        "confidence": _known(float(outcomes.confidence[at])),
        "latency": _known(float(outcomes.latency[at])),
        "status": None if status == STATUSES[0] else status,
        "form": None if outcomes.form is None or math.isnan(outcomes.form[at][0]) else outcomes.form[at].tolist(),
    }
    columns = ("cost", "price", "ceiling") if outcomes.spent is None else ("cost", "spent", "price", "ceiling")
    amounts = {name: int(getattr(outcomes, name)[at]) for name in columns}
    row |= {name: None if nanos == UNKNOWN else _dollars(nanos) for name, nanos in amounts.items()}
    return {name: value for name, value in row.items() if value is not None}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _dollars(nanos: int) -> str:
    return format(Money(nanos).dollars.normalize(), "f")
