"""What an attempt hangs on, as digests: a recorded attempt stands for another one only where they are equal.

rung     strategy and its code, signature with instructions, demonstrations, model and its settings, source of
         confidence, calibrator, adapter
metric   its code, without comments and formatting; what it calls elsewhere isn't looked at
labels   what of an example isn't an input: what the metric compares with
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import math
import textwrap
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from escalade.agents.adapter import adapter_here

if TYPE_CHECKING:
    from escalade.agents.escalate import Escalate

__all__ = ["answer_code", "labels_digest", "metric_digest", "metric_name", "rung_digest", "rung_facts"]

_ADDRESS = " at 0x"


def rung_digest(program: Escalate, rung: int) -> str:
    """12 hex digits."""
    return _digest(rung_facts(program, rung))


def rung_facts(program: Escalate, rung: int) -> dict[str, str]:
    """What the digest is made of, by name, each as a text or a digest of its own: to say what differs."""
    own, source, model = program.programs[rung], program.sources[rung], program.model_of(rung)
    lm = program._lms[rung]
    helpers = [(key, alias) for _, key, _, alias, _ in program._helpers[rung]]
    calibrator = program.calibrators.get(program.rungs[rung].name)
    return {
        "strategy": str(program.rungs[rung].strategy),
        "code": code_digest(type(own)),
        "prompt": _digest([own.dump_state(), [_fields(predictor.signature) for predictor in own.predictors()]]),
        "model": model.id,
        "settings": _text({name: value for name, value in lm.kwargs.items() if not name.startswith("api_")}),
        "confidence": _text(None if source is None else source.dump()),
        "helpers": _digest(
            [[key, program._gateway.model(m).id, program.judges[key].dump_state()] for key, m in helpers]
        ),
        "calibrator": _text(None if calibrator is None else calibrator.dump()),
        "adapter": type(adapter_here()).__name__,
    }


def metric_digest(metric: Any) -> str:
    """12 hex digits of the metric's code and of what it was given beforehand."""
    given: list[Any] = []
    while isinstance(metric, functools.partial):
        given.append([metric.args, metric.keywords])
        metric = metric.func
    own = inspect.unwrap(metric) if inspect.isroutine(metric) else type(metric)
    state = {} if inspect.isroutine(metric) else _state(metric)
    return _digest([metric_name(metric), code_digest(own), given, state])


def metric_name(metric: Any) -> str:
    """What it is called in reports."""
    while isinstance(metric, functools.partial):
        metric = metric.func
    return str(getattr(metric, "__name__", None) or getattr(metric, "name", None) or type(metric).__name__)


def labels_digest(example: Any) -> str:
    """12 hex digits of what of an example isn't an input."""
    return _digest(dict(example.labels().items()))


def answer_code(answer: Any) -> int | None:
    """48 bits that are equal for equal answers: numbers by their value, all else by type and text. None for none, and
    for nan, which equals nothing.
    """
    if answer is None or answer != answer:  # noqa: PLR0124 - nan
        return None
    return int.from_bytes(blake2b(_canonical(answer).encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big")


def code_digest(what: Any) -> str:
    """12 hex digits of the source of a function or class, comments and formatting aside; DSPy's own and what has no
    source go by their name.
    """
    name = f"{getattr(what, '__module__', '')}.{getattr(what, '__qualname__', what)}"
    if name.startswith("dspy."):
        return name
    try:
        source = textwrap.dedent(inspect.getsource(what))
    except (OSError, TypeError):
        return name
    try:
        return _digest([what.__qualname__, ast.dump(ast.parse(source))])
    except (SyntaxError, ValueError):  # a lambda in the middle of a call
        return _digest([what.__qualname__, source.split()])


def _canonical(answer: Any) -> str:
    if isinstance(answer, bool | int | float):
        return f"n:{int(answer)}" if math.isfinite(answer) and answer == int(answer) else f"n:{answer!r}"
    if isinstance(answer, tuple | list):
        return f"({','.join(_canonical(one) for one in answer)})"
    return f"{type(answer).__name__}:{answer!r}"


def _fields(signature: Any) -> list[Any]:
    return [
        [name, str(field.annotation), _text(getattr(field, "json_schema_extra", None))]
        for name, field in signature.fields.items()
    ]


def _state(metric: Any) -> dict[str, Any]:
    held = getattr(metric, "__dict__", {})
    return {name: value for name, value in held.items() if isinstance(value, str | int | float | bool | None)}


def _digest(what: Any) -> str:
    return blake2b(_text(what).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _text(what: Any) -> str:
    return json.dumps(what, sort_keys=True, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """What JSON doesn't know: mappings as such, else its text, without the address that differs in each process."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return str(value).partition(_ADDRESS)[0]
