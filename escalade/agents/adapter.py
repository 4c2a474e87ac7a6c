"""`dspy.ChatAdapter`, faster: the system message of a signature is written once, not at each call.

DSPy writes it anew for every call, which takes 45 us for two plain fields and over 300 us once a field is a type of its
own, whose JSON schema is made each time. The text is the same; `tests/agents/test_adapter.py` holds that. Attempts of
`Escalate` use it where no adapter was configured; elsewhere it is yours to configure:

    dspy.configure(adapter=escalade.ChatAdapter())
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import dspy

_written: WeakKeyDictionary[type, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


class ChatAdapter(dspy.ChatAdapter):
    """As `dspy.ChatAdapter`, with the same options, callbacks and texts."""

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        """As DSPy writes it, remembered until instructions, fields or descriptions of the signature are others."""
        state = _state(signature)
        found = _written.get(signature)
        if found is None or found[0] != state:
            found = _written[signature] = state, super().format_system_message(signature)
        return found[1]


# `Adapter.__init_subclass__` wraps these in every subclass once more, and callbacks would be called twice.
del ChatAdapter.format, ChatAdapter.parse

_shared = ChatAdapter()


def adapter_here() -> dspy.Adapter:
    """The configured adapter; ours where there is none."""
    return dspy.settings.adapter or _shared


def _state(signature: Any) -> tuple[Any, ...]:
    fields = signature.model_fields
    extra = [(name, field.annotation, *(field.json_schema_extra or {}).values()) for name, field in fields.items()]
    return signature.instructions, extra
