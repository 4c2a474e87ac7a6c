"""The `dspy.LM` of the gateway: knows what its calls cost, and refuses candidates that can't all be paid."""

from __future__ import annotations

from typing import Any

import dspy
from dspy.clients._deprecation import warn_openai_messages
from dspy.clients.execution import execute, finalize, prepare
from dspy.utils.callback import with_callbacks

from escalade.agents._engines import AsyncEngine, Engine
from escalade.agents._execution import aexecuted, aprepared
from escalade.money import NANO

HEARD = "escalade_heard"
"""The key of `dspy.context` with a function that is told each `CallResult`: of calls and of cache hits."""


class GatewayLM(dspy.LM):
    """A `dspy.LM` whose history carries what each call really cost; made by `Gateway.lm`."""

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As `dspy.LM`. Raises BudgetExceeded before the first of n candidates when n don't fit the budget."""
        if self._answers is not None:
            return self._ask(prompt, messages=messages, **kwargs)
        self._check_candidates(prompt, messages, kwargs)
        return super().__call__(prompt, messages=messages, **kwargs)

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As `__call__`, and without DSPy's threads: see `_execution.py`."""
        if type(self._engine_spec) is Engine and type(self._async_engine_spec) is AsyncEngine:
            return await self._aask(prompt, messages=messages, **kwargs)
        return await super().acall(prompt, messages=messages, **kwargs)

    @property
    def _answers(self) -> Any:
        """The gateway's cache of responses, None where it has none (or this is a copy on another engine)."""
        return getattr(getattr(self._engine_spec, "gateway", None), "cache", None)

    @with_callbacks
    def _ask(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """`dspy.LM.__call__` with our cache instead of DSPy's."""
        from escalade.agents.cache.answering import answered

        call, gateway = prepare(self, prompt, messages, kwargs), self._engine_spec.gateway
        warn_openai_messages(self, messages)

        def make(call: Any) -> Any:
            self._check_candidates(prompt, messages, kwargs)
            return execute(self, call)

        result = answered(self._answers, gateway, gateway.model(self.model), call, make)
        return finalize(self, call, result)

    @with_callbacks
    async def _aask(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As `_ask`, with DSPy's cache where the gateway has none."""
        call = await aprepared(self, prompt, messages, kwargs)
        warn_openai_messages(self, messages)

        async def make(call: Any) -> Any:
            self._check_candidates(prompt, messages, kwargs)
            return await aexecuted(self, call)

        if self._answers is None:
            return finalize(self, call, _heard(await make(call)))
        from escalade.agents.cache.answering import aanswered

        gateway = self._engine_spec.gateway
        result = await aanswered(self._answers, gateway, gateway.model(self.model), call, make)
        return finalize(self, call, _heard(result))

    def _get_initial_kwargs(self, **options: Any) -> dict[str, Any]:
        """The settings as they are: `dspy.LM` wants others for a model called "gpt-5" or "o3", but here that is an
        alias and the transport knows what its provider wants.
        """
        given: dict[str, Any] = dspy.BaseLM._get_initial_kwargs(self, **options)
        return {name: value for name, value in given.items() if name != "rollout_id" or value is not None}

    def update_history(self, entry: dict[str, Any]) -> None:
        """Put the gateway's bill into the entry; a cache hit costs nothing now."""
        hit = entry.get("usage") == {}
        entry = {**entry, "cost": _bill(entry.get("response"), hit=hit), "cache_hit": hit}
        super().update_history(entry)

    def _check_candidates(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> None:
        n = kwargs.get("n") or self.kwargs.get("n") or 1
        gateway = getattr(self._engine_spec, "gateway", None)  # None: a copy on another engine
        if isinstance(n, int) and n > 1 and gateway is not None:
            size = len(repr(messages if prompt is None else prompt).encode()) + 64
            limit = kwargs.get("max_tokens") or self.kwargs.get("max_tokens")
            gateway.check_affordable(self.model, size, n, limit)


def _heard(result: Any) -> Any:
    """The result; whoever records attempts is told of it."""
    hear = dspy.settings.get(HEARD)
    if hear is not None:
        hear(result)
    return result


def _bill(response: Any, *, hit: bool) -> float | None:
    """Dollars of all candidates, as DSPy's history has them (a float); None where the gateway gave no bill."""
    if hit:
        return 0.0
    candidates = response if isinstance(response, tuple | list) else (response,)
    costs = [(getattr(c, "provider_data", None) or {}).get("escalade", {}).get("cost") for c in candidates]
    known = [c for c in costs if c is not None]
    return sum(known) / NANO if known and len(known) == len(costs) else None
