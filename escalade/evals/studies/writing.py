"""What a run directory says of its study: the resolved study, prices, versions, questions, a summary."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.evals import _notes
from escalade.evals.outcomes import TEXT
from escalade.evals.studies.identity import labels_digest, metric_digest, metric_name, rung_digest, rung_facts
from escalade.evals.studies.rundir import RunDir
from escalade.registry.prices import frozen_prices

if TYPE_CHECKING:
    from escalade.agents.escalate import Escalate
    from escalade.agents.models import Model
    from escalade.evals.studies.plan import Asked
    from escalade.evals.studies.study import Study

__all__ = ["SUMMARY", "lines_of", "prices_json", "question_rows", "study_json", "summarise", "versions"]

SUMMARY = "summary.json"

FORMAT = "study/1"


def study_json(
    study: Study,
    *,
    program: Escalate | None = None,
    metric: Any = None,
    notes: Sequence[str] = (),
    recorded: str | None = None,
) -> dict[str, Any]:
    """The study as it was resolved. `recorded`: digest of the outcomes of one that asks nothing."""
    said = {name: _said(getattr(study, name)) for name in type(study).model_fields}
    told: dict[str, Any] = {"escalade": FORMAT, **said, "folder": str(study.folder.resolve()), "notes": list(notes)}
    if recorded is not None:
        told["recorded"] = recorded
    if program is not None:
        told |= {"ladder": told["rungs"], "rungs": [_rung(program, i) for i in range(len(program.rungs))]}
    if metric is not None:
        told |= {"labels": metric_name(metric), "metric": {"name": metric_name(metric), "said": told["metric"]}}
        told["metric"]["digest"] = metric_digest(metric)
    return told


def prices_json(program: Escalate, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """List prices of all models of the ladder, nano-dollars per million tokens, with their source.

    `before`: what the directory said; prices of models that aren't on the ladder now are kept, as their attempts are.
    """
    table = frozen_prices()
    models = {rung.model or "": program.model_of(i) for i, rung in enumerate(program.rungs)}
    return {
        "unit": "nano-dollars per million tokens",
        "map": {"source": table.source, "date": table.date},
        "models": {**(before or {}).get("models", {}), **{alias: _price(model) for alias, model in models.items()}},
    }


def versions(before: Mapping[str, Any] | None, folder: Path) -> dict[str, Any]:
    """Of everything that takes part, now; those of earlier runs, where they were others, stand under `earlier`."""
    now: dict[str, Any] = {
        "escalade": _notes.version(),
        **{name: _version(name) for name in ("dspy", "litellm", "numpy")},
    }
    now |= {"python": platform.python_version(), "platform": platform.platform(), "commit": _commit(folder)}
    earlier = list((before or {}).get("earlier", ()))
    if before is not None:
        was = {name: before.get(name) for name in now}
        if was != now:
            earlier.append({**was, "at": before.get("at")})
    return {**now, "at": round(time.time(), 3), "earlier": earlier}


def question_rows(asked: Iterable[Asked], study: Study) -> list[dict[str, Any]]:
    """A line for each question."""
    rows = []
    for one in asked:
        facts = one.view.features.items()
        features = {name: _plain(fact) for name, fact in facts if name != TEXT or study.texts}
        row: dict[str, Any] = {"key": one.key, "labels": labels_digest(one.example), "features": features}
        row |= {"prices": one.view.prices, "ceilings": one.view.ceilings}
        for name, what in (("category", study.category), ("group", study.group)):
            if what is not None and one.example.get(what) is not None:
                row[name] = str(one.example.get(what))
        if study.texts:
            row["inputs"] = one.inputs
        rows.append(row)
    return rows


def lines_of(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """JSON lines."""
    import orjson

    return b"".join(orjson.dumps(row, default=str) + b"\n" for row in rows)


def summarise(directory: RunDir, study: Mapping[str, Any], *, done: int, owed: int, spent: int) -> None:
    """For `escalade ls`, which doesn't read a million lines for it: good as long as the files have these sizes."""
    told = {"name": study["name"], "done": done, "owed": owed, "spent": spent, "at": round(time.time(), 3)}
    directory.write(SUMMARY, {**told, "sizes": sizes(directory)})


def sizes(directory: RunDir) -> dict[str, int]:
    """Bytes of the files of attempts."""
    return {part.name: part.stat().st_size for part in directory.parts()}


def _rung(program: Escalate, at: int) -> dict[str, Any]:
    rung = program.rungs[at]
    return {
        "name": rung.name,
        "strategy": rung.strategy,
        "model": rung.model,
        "ceiling": None if rung.ceiling is None else int(rung.ceiling),
        "tier": rung.tier,
        "digest": rung_digest(program, at),
        "facts": rung_facts(program, at),
    }


def _price(model: Model) -> dict[str, Any]:
    price, table = model.price, frozen_prices()
    if price is None:
        return {"id": model.id, "input": None, "output": None, "source": "unknown"}
    source = f"{table.source}, {table.date}" if table.get(model.id) == price else "stated with the model"
    rates = {"input": price.input, "output": price.output, "cached": price.cached, "written": price.written}
    return {"id": model.id, **rates, "source": source}


def _said(value: Any) -> Any:
    """As the study said it; an object of Python by what it is."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple) and all(isinstance(one, str) for one in value):
        return list(value)
    if isinstance(value, list | tuple):
        return f"{len(value)} given in Python"
    return f"{getattr(value, '__name__', type(value).__name__)}, given in Python"


def _plain(fact: Any) -> Any:
    return fact.item() if hasattr(fact, "item") else fact


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit of the repository that the study's file is in, by git's own files."""
    for place in (folder.resolve(), *folder.resolve().parents):
        git = place / ".git"
        if not git.is_dir():
            continue
        try:
            head = (git / "HEAD").read_text("utf-8").strip()
            if not head.startswith("ref: "):
                return head
            ref = head.removeprefix("ref: ")
            if (git / ref).is_file():
                return (git / ref).read_text("utf-8").strip()
            packed = (git / "packed-refs").read_text("utf-8").splitlines()
            return next((line.split()[0] for line in packed if line.endswith(f" {ref}")), None)
        except OSError:
            return None
    return None
