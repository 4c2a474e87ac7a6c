"""A bare engine pair around a transport: DSPy over our transports without the gateway, its scopes and its money."""

from __future__ import annotations

from typing import Any

import dspy


class BareEngine:
    """The sync half."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.supports_function_calling = transport.supports_function_calling
        self.supports_response_schema = transport.supports_response_schema
        self.supports_reasoning = transport.supports_reasoning
        self.supported_params = transport.supported_params

    def __deepcopy__(self, memo):
        return self

    def complete(self, request: Any) -> Any:
        return self.transport.complete(request)

    def stream(self, request: Any) -> Any:
        return self.transport.stream(request)


class BareAsyncEngine(BareEngine):
    """The async half."""

    async def complete(self, request: Any) -> Any:
        return await self.transport.acomplete(request)

    def stream(self, request: Any) -> Any:
        return self.transport.astream(request)


def bare_lm(transport: Any, model: str, **options: Any) -> dspy.LM:
    """A `dspy.LM` straight on the transport, without a cache."""
    options.setdefault("cache", False)
    pair = {"engine": BareEngine(transport), "async_engine": BareAsyncEngine(transport)}
    return dspy.LM(model, **pair, num_retries=0, **options)
