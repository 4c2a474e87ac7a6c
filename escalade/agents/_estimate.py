"""What a rung would cost for a question, before it is asked: an expected price and an upper bound.

The size of a prompt is that of the rendered one. Rendering takes 70-100 us, so for inputs of plain strings only the
part that doesn't depend on them is rendered, once per predictor, signature, demos and adapter.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping
from typing import Any

import dspy

from escalade.agents.models import Model

_FRAMING = 16
_SAFETY = 128
"""Bytes beyond the text that `prompt_size` counts for a message and for the request."""

_static: weakref.WeakKeyDictionary[dspy.Predict, tuple[Any, int]] = weakref.WeakKeyDictionary()
"""Predictor -> (what its static size depends on, the size)."""


def estimate(program: dspy.Module, model: Model, inputs: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(expected price, upper bound) of one call of the program, nano-dollars.

    None where it can't be known: an unpriced model, or a program other than a `Predict` or a `ChainOfThought`.
    """
    predictor = _only_predictor(program)
    if predictor is None or model.price is None:
        return None, None
    size = _size(predictor, inputs)
    return model.expected(size), model.ceiling(size, predictor.config.get("max_tokens"))


def _only_predictor(program: dspy.Module) -> dspy.Predict | None:
    if type(program) is dspy.Predict:
        return program
    return program.predict if type(program) is dspy.ChainOfThought else None


def _size(predictor: dspy.Predict, inputs: Mapping[str, Any]) -> int:
    adapter = dspy.settings.adapter or _default_adapter()
    asked = {name: inputs.get(name, "") for name in predictor.signature.input_fields}
    if not all(isinstance(v, str) for v in asked.values()):
        return _rendered(adapter, predictor, asked)
    key = (adapter, predictor.signature, tuple(map(id, predictor.demos)))
    known = _static.get(predictor)
    if known is None or known[0] != key:
        known = _static[predictor] = key, _rendered(adapter, predictor, dict.fromkeys(asked, ""))
    return known[1] + sum(len(v.encode()) for v in asked.values())


def _rendered(adapter: Any, predictor: dspy.Predict, inputs: Mapping[str, Any]) -> int:
    messages = adapter.format(predictor.signature, predictor.demos, dict(inputs))
    size = sum(len(_content(m).encode()) + _FRAMING for m in messages) + _SAFETY
    if isinstance(adapter, dspy.JSONAdapter):
        # The response schema travels beside the prompt; its text is about what the instructions say of the outputs.
        size += 512 * len(predictor.signature.output_fields)
    return size


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else repr(content)


@functools.cache
def _default_adapter() -> Any:
    return dspy.ChatAdapter()
