"""What an attempt hangs on, as digests: a recorded attempt stands for another one only where they are equal.

rung     strategy and its code, what it was made with, signature with instructions, demonstrations, model (by alias and
         id: two aliases may have two prices) and its settings, source of confidence, calibrator, adapter
metric   its code, without comments and formatting, its defaults, what it closes over and holds, as far as that can't
         change (numbers, texts, tuples, functions); what it calls elsewhere isn't looked at
labels   what of an example isn't an input: what the metric compares with
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import math
import re
import textwrap
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from escalade.agents.adapter import adapter_here

if TYPE_CHECKING:
    from escalade.agents.escalate import Escalate

__all__ = ["answer_code", "labels_digest", "metric_digest", "metric_name", "rung_digest", "rung_facts"]

_ADDRESS = " at 0x"

_SECRET = re.compile(r"^api_|key|secret|passw|auth|credential|cookie|token$", re.IGNORECASE)
_USERINFO = re.compile(r"//[^/@\s]*@")
"""A name and a password in front of a host."""


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
        "made with": _text({name: fact for name, fact in _state(own).items() if name != "stage"}),
        "prompt": _digest([own.dump_state(), [_fields(predictor.signature) for predictor in own.predictors()]]),
        "model": f"{model.name}, {model.id}",
        "settings": _text(_sayable(lm.kwargs)),
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
    if inspect.isroutine(metric):
        own, state = inspect.unwrap(metric), _state(getattr(metric, "__self__", None))  # type: Any, Any
    else:
        own, state = type(metric), _state(metric)
    return _digest([metric_name(metric), code_digest(own), given, state, _enclosed(own)])


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
        return _digest([name, _compiled(what)]) if _compiled(what) else name
    try:
        found = ast.dump(ast.parse(source))
    except (SyntaxError, ValueError):  # a lambda in the middle of a call
        found = " ".join(source.split())
    # of two lambdas in one line the source is the same
    return _digest([what.__qualname__, found, *([_compiled(what)] if what.__qualname__.endswith("<lambda>") else [])])


def _canonical(answer: Any) -> str:
    if isinstance(answer, bool | int | float):
        return f"n:{int(answer)}" if math.isfinite(answer) and answer == int(answer) else f"n:{answer!r}"
    if isinstance(answer, tuple | list):
        return f"({','.join(_canonical(one) for one in answer)})"
    return f"{type(answer).__name__}:{answer!r}"


def _sayable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without what nobody else may read: these facts are written down. Of headers only the names are told."""
    told: dict[str, Any] = {}
    for name, value in settings.items():
        if _SECRET.search(name):
            continue
        if isinstance(value, Mapping):
            told[name] = (
                sorted(map(str, value)) if "header" in name else _sayable({str(k): v for k, v in value.items()})
            )
        else:
            told[name] = _USERINFO.sub("//", value) if isinstance(value, str) else value
    return told


def _fields(signature: Any) -> list[Any]:
    return [
        [name, str(field.annotation), _text(getattr(field, "json_schema_extra", None))]
        for name, field in signature.fields.items()
    ]


def _compiled(what: Any) -> str:
    """Of a function without a source of its own: what was compiled, "" for all else."""
    code = getattr(what, "__code__", None)
    if code is None:
        return ""
    known = [one for one in code.co_consts if not inspect.iscode(one)]
    return f"{code.co_code.hex()} {known!r} {code.co_names!r}"


def _enclosed(what: Any) -> list[Any]:
    """What a function has from where it was made: defaults, and variables that it closes over."""
    own: Any = inspect.unwrap(what) if inspect.isroutine(what) else None
    if not hasattr(own, "__code__"):
        return []
    given = (*(own.__defaults__ or ()), *(own.__kwdefaults__ or {}).items())
    names = own.__code__.co_freevars
    return [_fixed(given), *([name, _cell(cell)] for name, cell in zip(names, own.__closure__ or (), strict=True))]


def _cell(cell: Any) -> Any:
    try:
        return _fixed(cell.cell_contents)
    except ValueError:  # not filled yet
        return None


def _fixed(value: Any, depth: int = 3) -> Any:
    """A value as far as it can't change between two runs: lists and objects may hold what a run leaves behind."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if inspect.isfunction(value):
        return code_digest(value)
    if isinstance(value, tuple | frozenset) and depth:
        told = [_fixed(one, depth - 1) for one in value]
        return told if isinstance(value, tuple) else sorted(map(repr, told))
    return type(value).__qualname__


def _state(held: Any) -> dict[str, Any]:
    """What an object holds, as far as it can't change; names that begin with a line below are its own business."""
    told = getattr(held, "__dict__", {})
    kinds = (str, int, float, bool, type(None), tuple, frozenset)
    return {name: _fixed(value) for name, value in told.items() if isinstance(value, kinds) and name[0] != "_"}


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
