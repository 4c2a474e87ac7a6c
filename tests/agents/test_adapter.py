"""The faster ChatAdapter writes what DSPy's writes."""

from __future__ import annotations

import gc
from typing import Literal

import dspy
import pydantic
import pytest
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import AdapterParseError

import escalade
from escalade.agents import adapter as module
from escalade.agents.adapter import ChatAdapter, adapter_here
from escalade.agents.confidence import Confidence


class Row(pydantic.BaseModel):
    """Something with a schema."""

    name: str
    size: int


class Typed(dspy.Signature):
    """Sort it."""

    text: str = dspy.InputField(desc="what to sort")
    history: dspy.History = dspy.InputField()
    rows: list[Row] = dspy.OutputField(desc="all of them")
    kind: Literal["a", "b"] = dspy.OutputField()
    confidence: Confidence = dspy.OutputField()


SIGNATURES = [dspy.Signature("question -> answer"), dspy.Signature("a: int, b: list[str] -> c: float", "Do it."), Typed]


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda s: s.signature)
def test_messages_are_dspys(signature):
    """The first time, and from memory."""
    inputs = {name: "3" for name in signature.input_fields if name != "history"}
    for _ in range(2):
        assert ChatAdapter().format(signature, [], inputs) == dspy.ChatAdapter().format(signature, [], inputs)


def test_changes_of_a_signature_are_seen():
    """A new instruction, a new description, a field more: also when they were changed in place."""
    signature = dspy.Signature("question -> answer")
    for change in (
        lambda s: s.with_instructions("Otherwise."),
        lambda s: s.with_updated_fields("answer", desc="one word"),
        lambda s: s.append("why", dspy.OutputField(), str),
        lambda s: (s.model_fields["answer"].json_schema_extra.update(desc="in place"), s)[1],
    ):
        ChatAdapter().format_system_message(signature)
        signature = change(signature)
        assert ChatAdapter().format_system_message(signature) == dspy.ChatAdapter().format_system_message(signature)


def test_signatures_that_are_gone_are_forgotten():
    """Optimisers make thousands of them."""
    before = len(module._written)
    for n in range(50):
        ChatAdapter().format_system_message(dspy.Signature("question -> answer", f"Try {n}."))
    gc.collect()
    assert len(module._written) <= before + 1


def test_callbacks_are_called_once():
    """For each reading and writing, as DSPy's."""
    calls: list[str] = []

    class Noting(BaseCallback):
        def on_adapter_format_start(self, call_id, instance, inputs):
            calls.append("format")

        def on_adapter_parse_start(self, call_id, instance, inputs):
            calls.append("parse")

    with dspy.context(callbacks=[Noting()]):
        ChatAdapter().format(SIGNATURES[0], [], {"question": "q"})
        ChatAdapter().parse(SIGNATURES[0], "[[ ## answer ## ]]\n42")
    assert calls == ["format", "parse"]


def test_it_is_a_chat_adapter_by_name_too():
    """DSPy's streams look adapters up by the name of their class, and errors name them."""
    assert isinstance(ChatAdapter(use_json_adapter_fallback=False), dspy.ChatAdapter)
    assert escalade.ChatAdapter.__name__ == dspy.ChatAdapter.__name__
    with pytest.raises(AdapterParseError, match="ChatAdapter"):
        ChatAdapter().parse(SIGNATURES[0], "nothing")


def test_a_configured_adapter_comes_first():
    """Ours is used where nobody chose one."""
    assert isinstance(adapter_here(), ChatAdapter)
    with dspy.context(adapter=(mine := dspy.JSONAdapter())):
        assert adapter_here() is mine
