"""What a rung would cost for a question, before it is asked: an expected price and an upper bound.

The size of a prompt is that of the rendered one. Rendering takes 70-100 us, so for inputs of plain strings only the part
that doesn't depend on them is rendered, once per predictor, signature, demos and adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy

from escalade.agents.models import Model

_FRAMING = 16
_SAFETY = 128
"""Bytes beyond the text that `prompt_size` counts for a message and for the request."""


class Estimator:
    """Estimates for one program (a rung's module). Programs of more than one predictor, or of an unknown kind, have none."""

    def __init__(self, program: dspy.Module, model: Model | None) -> None:
        self._model = model
        self._predictor = _only_predictor(program)
        self._static: tuple[Any, int] | None = None

    def estimate(self, inputs: Mapping[str, Any]) -> tuple[int | None, int | None]:
        """(expected price, upper bound) of one call, nano-dollars; None where it can't be known."""
        model, predictor = self._model, self._predictor
        if model is None or predictor is None or model.price is None:
            return None, None
        size = self._size(predictor, inputs)
        limit = predictor.config.get("max_tokens")
        return model.expected(size), model.ceiling(size, limit)

    def _size(self, predictor: dspy.Predict, inputs: Mapping[str, Any]) -> int:
        adapter = dspy.settings.adapter or _default_adapter()
        asked = {name: inputs.get(name, "") for name in predictor.signature.input_fields}
        if not all(isinstance(v, str) for v in asked.values()):
            return _rendered(adapter, predictor, asked)
        key = (adapter, predictor.signature, tuple(map(id, predictor.demos)))
        if self._static is None or self._static[0] != key:
            self._static = key, _rendered(adapter, predictor, dict.fromkeys(asked, ""))
        return self._static[1] + sum(len(v.encode()) for v in asked.values())


def _only_predictor(program: dspy.Module) -> dspy.Predict | None:
    if type(program) is dspy.Predict:
        return program
    if type(program) is dspy.ChainOfThought:
        return program.predict
    return None


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


_adapter: Any = None


def _default_adapter() -> Any:
    global _adapter
    if _adapter is None:
        _adapter = dspy.ChatAdapter()
    return _adapter
