"""What a rung would cost for a question, before it is asked: an expected price and an upper bound.

What its source of confidence may spend is part of both: k samples, the judge that reads the answer, the peers.

The size of a prompt is that of the rendered one. Rendering takes 70-100 us, so for inputs of plain strings only the
part that doesn't depend on them is rendered, once per predictor, signature, demos and adapter.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import dspy
from dspy.adapters.decision import resolve_adapter
from dspy.adapters.json_adapter import _get_structured_outputs_response_format

from escalade.agents.confidence.source import Draws
from escalade.agents.models import Model

_FRAMING = 16
_SAFETY = 128
"""Bytes beyond the text that `prompt_size` counts for a message and for the request."""

_static: weakref.WeakKeyDictionary[dspy.Predict, tuple[Any, int]] = weakref.WeakKeyDictionary()
"""Predictor -> (what its static size depends on, the size)."""


Bill = tuple[int | None, int | None]
"""(expected price, upper bound) in nano-dollars, None where it can't be known."""

USUAL = 80
"""Bytes of a usual answer, as a judge gets to see it: for its expected price."""


def estimate(program: dspy.Module, model: Model, inputs: Mapping[str, Any]) -> Bill:
    """The bill of one call of the program.

    Unknown for an unpriced model, and for a program other than a `Predict` or a `ChainOfThought`, unless it says itself
    what it may cost, by a method `bill(model, inputs)`.
    """
    if hasattr(type(program), "bill"):
        own: Bill = program.bill(model, inputs)
        return own
    predictor = predictor_of(program)
    if predictor is None or model.price is None:
        return None, None
    size = _size(predictor, inputs)
    return model.expected(size), model.ceiling(size, predictor.config.get("max_tokens"))


def bill_of(answer: Bill, draws: Draws | None, helpers: Iterable[Bill]) -> Bill:
    """The bill of a rung: its answer, as often as it may be drawn, and its source's helpers once each.

    Samples are expected to be all drawn; that they may stop early isn't counted on.
    """
    n = 1 if draws is None else draws.k
    prices, ceilings = zip(*[answer] * n, *helpers, strict=True)
    return _sum(prices), _sum(ceilings)


def helper_bill(program: dspy.Module, model: Model, inputs: Mapping[str, Any], shown: int) -> Bill:
    """The bill of a source's helper. `shown`: bytes that each output of the rung takes in its prompt at most."""
    predictor = predictor_of(program)
    if predictor is None:
        return None, None
    outputs = [name for name in predictor.signature.input_fields if name not in inputs]
    if not outputs:
        return estimate(program, model, inputs)
    usual = estimate(program, model, {**inputs, **dict.fromkeys(outputs, "x" * min(USUAL, shown))})
    most = estimate(program, model, {**inputs, **dict.fromkeys(outputs, "x" * shown)})
    return usual[0], most[1]


def _sum(amounts: Iterable[int | None]) -> int | None:
    total = 0
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total


def model_on(lm: Any) -> Model | None:
    """The governed model behind a language model, None for none."""
    gateway = getattr(getattr(lm, "_engine_spec", None), "gateway", None)
    return None if gateway is None else gateway.model(lm.model)


def predictor_of(program: dspy.Module) -> dspy.Predict | None:
    """The one predictor of a program whose prompt bounds its price, None for other programs."""
    if type(program) is dspy.Predict:
        return program
    return program.predict if type(program) is dspy.ChainOfThought else None


def _size(predictor: dspy.Predict, inputs: Mapping[str, Any], same: Any = None) -> int:
    """Bytes of the prompt. `same`: equal as long as the inputs that are no texts are rendered the same, None if nobody
    knows.
    """
    adapter = dspy.settings.adapter or _default_adapter()
    asked = {name: inputs.get(name, "") for name in predictor.signature.input_fields}
    texts = {name: value for name, value in asked.items() if isinstance(value, str)}
    if len(texts) < len(asked) and same is None:
        return _rendered(adapter, predictor, asked)
    key = (adapter, predictor.signature, tuple(map(id, predictor.demos)), same)
    known = _static.get(predictor)
    if known is None or known[0] != key:
        known = _static[predictor] = key, _rendered(adapter, predictor, {**asked, **dict.fromkeys(texts, "")})
    return known[1] + sum(len(text.encode()) for text in texts.values())


def _rendered(adapter: Any, predictor: dspy.Predict, inputs: Mapping[str, Any]) -> int:
    signature, demos = _translated(adapter, predictor)
    messages = adapter.format(signature, demos, dict(inputs))
    size = sum(len(_content(m).encode()) + _FRAMING for m in messages) + _SAFETY
    if isinstance(adapter, dspy.JSONAdapter):
        size += _schema_size(signature)
    return size


def _schema_size(signature: Any) -> int:
    """The response schema travels beside the prompt; what it refers to may be written out at each place on its way.

    Where there is no schema for these types, 512 bytes for each output.
    """
    try:
        schema = _get_structured_outputs_response_format(signature).model_json_schema()
    except Exception:  # noqa: BLE001 - whatever it is, DSPy then asks for JSON without a schema
        return 512 * len(signature.output_fields)
    text = repr(schema)
    written_out = (text.count(f"#/$defs/{name}'") * len(repr(part)) for name, part in schema.get("$defs", {}).items())
    return len(text.encode()) + sum(written_out) + _SAFETY


def _translated(adapter: Any, predictor: dspy.Predict) -> tuple[Any, Any]:
    """Signature and demos as they are sent: decision types are asked for as probabilities, with their criteria."""
    found = resolve_adapter(None, adapter, predictor.signature, predictor.fields, predictor.signature)
    if found is adapter:
        return predictor.signature, predictor.demos
    with dspy.context(send_stream=None):
        asked = found._prepare(predictor.signature, predictor.demos, {}, {})
    return asked["signature"], asked["demos"]


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else repr(content)


@functools.cache
def _default_adapter() -> Any:
    return dspy.ChatAdapter()
