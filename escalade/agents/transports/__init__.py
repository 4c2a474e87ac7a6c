"""What carries one request to a provider and one answer back: one attempt, no retry, no fallback, no cache, no money.

    LiteLLM     every provider, through litellm
    LM15        DSPy's native route: fewer providers, several times faster
    Recorded    answers from a recording, for replays without a network
    Simulated   a `World` of simulated models

A transport raises `dspy.lm15` errors and nothing else for what providers and networks do; the gateway classifies them.
The classes are imported on first use, so that this package costs nothing and litellm is never imported in passing.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from escalade.errors import BadInput
from escalade.registry.secrets import Secret, resolve_secret

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response, Usage

    from escalade.agents.transports.litellm import LiteLLM
    from escalade.agents.transports.lm15 import LM15
    from escalade.agents.transports.recorded import Recorded
    from escalade.agents.transports.simulated import Simulated

__all__ = [
    "CHAT_PARAMS",
    "LM15",
    "Embedded",
    "LiteLLM",
    "Recorded",
    "Simulated",
    "Transport",
    "preload",
    "resolve_secret",
    "revealed_key",
]

CHAT_PARAMS = frozenset(
    {
        "temperature",
        "max_tokens",
        "top_p",
        "stop",
        "seed",
        "logprobs",
        "top_logprobs",
        "response_format",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
    }
)
"""Generation settings that a chat model usually takes, as DSPy's adapters ask for them."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a transport's `embed(model, texts)` and `aembed` bring, where it has them: a vector per text, in their
    order, all of one length; `usage` as the provider counted, None where it didn't.
    """

    vectors: Sequence[Sequence[float]]
    usage: Usage | None = None


class Transport(Protocol):
    """One attempt each. `request.model` is the provider's own model string already.

    All four raise `dspy.lm15` errors. A stream yields one start event, deltas and one end event; one that breaks off
    raises `StreamAssemblyError` instead of ending. Usage is in OpenAI's convention on every route: input tokens
    include cached ones, output tokens include reasoning.

    The `support…` attributes are what DSPy's adapters read before they write a prompt. Plain attributes will do.
    """

    @property
    def name(self) -> str:
        """Shown in messages."""
        ...

    @property
    def supports_function_calling(self) -> bool:
        """Native tool calls."""
        ...

    @property
    def supports_response_schema(self) -> bool:
        """Structured outputs by JSON schema."""
        ...

    @property
    def supports_reasoning(self) -> bool:
        """Reasoning as a part of its own."""
        ...

    @property
    def supported_params(self) -> Collection[str]:
        """Generation settings, in OpenAI's words."""
        ...

    def complete(self, request: Request) -> Response:
        """One answer. Blocks."""
        ...

    async def acomplete(self, request: Request) -> Response:
        """One answer. Safe on any number of event loops; cancelling it closes the connection."""
        ...

    def stream(self, request: Request) -> Generator[Any, None, None]:
        """The `dspy.lm15` stream events of one answer. Closing the iterator early closes the connection."""
        ...

    def astream(self, request: Request) -> AsyncGenerator[Any, None]:
        """As `stream`."""
        ...


def revealed_key(secret: Secret | None) -> str | None:
    """The key of a provider, at the moment of a call. Raises `lm15.NotConfiguredError`, which names the reference, when
    it isn't there: the gateway then tries the next model.
    """
    try:
        return resolve_secret(secret)
    except BadInput as missing:
        from dspy import lm15

        scheme, _, name = (secret.reference if secret else "").partition(":")
        raise lm15.NotConfiguredError(str(missing), env_keys=(name,) if scheme == "env" else ()) from None


def preload(transports: Iterable[Any]) -> None:
    """Begin, in threads, to import what transports need and what would hold up an event loop for seconds."""
    for kind in {type(transport) for transport in transports}:
        if hasattr(kind, "preload"):
            kind.preload()


_HOME = {"LiteLLM": "litellm", "LM15": "lm15", "Recorded": "recorded", "Simulated": "simulated"}


def __getattr__(name: str) -> Any:
    """Import a transport from its module, once."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
