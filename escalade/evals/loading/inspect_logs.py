"""Logs of inspect_ai, `.eval` or `.json`: one per model, or a folder of them, into one matrix.

A rung is the model of a log, a question is `<task>/<sample id>`, epochs are rows of one key. Scores C, P, I, N are 1,
0.5, 0, 0, as inspect_ai's `value_to_float` has it; yes/no, true/false and numbers in 0..1 are taken as they are. Where
a log has several scorers the first is taken, and a note names the others. Token usage of all models of a sample is
priced at list price, tokens of a prompt's cache like all others; where the log itself knows the cost (`total_cost`) of
all of its calls, that is it. Latency is `working_time`: without waiting for rate limits and retries.

A sample that ended in an error is a failed attempt. One that was cut off (`max_tokens`, a limit) or refused
(`content_filter`) and scored 0 has that status; one that was scored right in spite of it stays as it is. A sample that
a log lacks is missing, never zero.

The format is that of EvalLog, version 2 (https://inspect.aisi.org.uk/eval-logs.html), tried on logs of inspect_ai
0.3.285. Its newer `.eval` files are packed with zstandard, see `zipped.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from escalade.agents.climb import FAILED, OK, REFUSED, TRUNCATED
from escalade.errors import DataError
from escalade.evals._draft import Draft
from escalade.evals._files import stem
from escalade.evals.loading.grid import Given, dollars, grid
from escalade.evals.loading.rows import read_records
from escalade.evals.loading.zipped import Zipped

SUFFIXES = {".eval", ".json"}

WORDS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
CUT_OFF = {"max_tokens", "model_length"}


@dataclass(frozen=True)
class Log:
    """One log. `scorers`: by name, the first counts."""

    path: Path
    task: str
    model: str
    scorers: tuple[str, ...]
    samples: Iterable[tuple[str, Mapping[str, Any]]]


def load(path: Path) -> Draft:
    """A log, or a folder of them. Raises DataError, which names the log and the sample."""
    files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no log in this folder; expected .eval or .json files of inspect_ai")
    logs = [_log(file) for file in files]
    seen: dict[tuple[str, str], Log] = {}
    for log in logs:
        other = seen.setdefault((log.task, log.model), log)
        if other is not log:
            told = f"{log.path} and {other.path.name} are both of {log.model!r} on task {log.task!r}"
            raise DataError(f"{told}; leave one of them out")
    draft = grid(path, stem(path), (given for log in logs for given in _answers(log)))
    return replace(draft, output_column="model_usage").noted(*_notes(logs))


def looks_like(record: object) -> bool:
    """Is this JSON a log of inspect_ai?"""
    return isinstance(record, Mapping) and {"version", "status", "eval"} <= set(record)


def _log(file: Path) -> Log:
    if file.suffix == ".eval":
        packed = Zipped(file)
        head = next((name for name in ("header.json", "_journal/start.json") if name in packed.names), None)
        if head is None:
            raise DataError(f"{file}: not a log of inspect_ai; it has no header.json")
        samples = sorted(name for name in packed.names if name.startswith("samples/"))
        return _of(file, packed.json(head), ((f"{file}: {name}", packed.json(name)) for name in samples))
    log = read_records(file)[0]
    if not looks_like(log):
        raise DataError(f"{file}: not a log of inspect_ai; expected version, status and eval")
    found = log.get("samples") or []
    return _of(file, log, ((f"{file}: sample {i}", one) for i, one in enumerate(found, 1)))


def _of(file: Path, head: Any, samples: Iterable[tuple[str, Mapping[str, Any]]]) -> Log:
    try:
        spec = head["eval"]
        scorers = tuple(str(one["name"]) for one in spec.get("scorers") or ())
        return Log(file, str(spec["task"]), str(spec["model"]), scorers, samples)
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{file}: not a log of inspect_ai; expected eval.task and eval.model") from None


def _notes(logs: list[Log]) -> Iterator[str]:
    for scorers in dict.fromkeys(log.scorers for log in logs if len(log.scorers) > 1):
        yield f"graded by the scorer {scorers[0]}; the logs have {', '.join(scorers[1:])}, too"


def _answers(log: Log) -> Iterator[Given]:
    for where, sample in log.samples:
        try:
            yield _given(log, where, sample)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{where}: not a sample of inspect_ai ({type(error).__name__}: {error})") from None


def _given(log: Log, where: str, sample: Mapping[str, Any]) -> Given:
    scored = _score(log, sample)
    quality = None if scored is None else _value(where, scored.get("value"))
    usage = list((sample.get("model_usage") or {}).values())
    costs = [dollars(where, one.get("total_cost")) for one in usage]
    metadata = sample.get("metadata") or {}
    time = sample.get("working_time", sample.get("total_time"))
    status = _status(sample, quality)
    answer = None if scored is None else scored.get("answer")
    counted = bool(usage) or status == FAILED  # what failed without usage came to no call; what was answered did
    return Given(
        where=where,
        key=f"{log.task}/{sample['id']}",
        model=log.model,
        epoch=int(sample.get("epoch", 1)),
        quality=None if status == FAILED else quality,
        answer=answer if isinstance(answer, str | int | float) else None,
        cost=None if not costs or None in costs else sum(cost or 0 for cost in costs),
        input_tokens=float(sum(map(_tokens, usage))) if counted else None,
        output_tokens=float(sum(one.get("output_tokens") or 0 for one in usage)) if counted else None,
        latency=None if time is None else float(time),
        status=status,
        text=_text(sample["input"]),
        category=_label(metadata, "category", "subject", "domain"),
        group=_label(metadata, "group"),
    )


def _tokens(usage: Mapping[str, Any]) -> int:
    """All tokens that went in: inspect_ai counts those of the prompt's cache apart."""
    return sum(int(usage.get(f"input_tokens{kind}") or 0) for kind in ("", "_cache_read", "_cache_write"))


def _score(log: Log, sample: Mapping[str, Any]) -> Mapping[str, Any] | None:
    scores: Mapping[str, Any] = sample.get("scores") or {}
    name = next((name for name in log.scorers if name in scores), next(iter(scores), None))
    return None if name is None else scores[name]


def _value(where: str, value: object) -> float:
    """As inspect_ai's `value_to_float`, but for what it would take for 0 with a warning. Raises DataError."""
    if isinstance(value, str):
        word = value if value in WORDS else value.strip().lower()
        try:
            value = WORDS[word] if word in WORDS else float(word)
        except ValueError:
            raise DataError(f"{where}: a score of {value!r}; expected C, P, I, N, yes, no or a number") from None
    if not isinstance(value, bool | int | float) or math.isnan(value) or not 0 <= value <= 1:
        raise DataError(f"{where}: a score of {value!r}; expected one figure between 0 and 1")
    return float(value)


def _status(sample: Mapping[str, Any], quality: float | None) -> str:
    if sample.get("error"):
        return FAILED
    choices = (sample.get("output") or {}).get("choices") or []
    why = choices[0].get("stop_reason") if choices else None
    if quality:
        return OK
    if why == "content_filter":
        return REFUSED
    return TRUNCATED if why in CUT_OFF or sample.get("limit") else OK


def _text(asked: object) -> str:
    """What was asked: a text, or what the user says in the messages."""
    if isinstance(asked, str):
        return asked
    parts = [message.get("content") for message in asked if message.get("role") == "user"]  # type: ignore[attr-defined]
    texts = [
        piece if isinstance(piece, str) else str(piece.get("text", ""))
        for part in parts
        for piece in ([part] if isinstance(part, str) else part or [])
    ]
    return "\n".join(texts)


def _label(metadata: Mapping[str, Any], *names: str) -> str | None:
    found = next((metadata[name] for name in names if metadata.get(name) not in (None, "")), None)
    return None if found is None or isinstance(found, list | dict) else str(found)
