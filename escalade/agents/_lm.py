"""The `dspy.LM` of the gateway: knows what its calls cost, and refuses candidates that can't all be paid."""

from __future__ import annotations

from typing import Any

import dspy

from escalade.money import NANO


class GatewayLM(dspy.LM):
    """A `dspy.LM` whose history carries what each call really cost; made by `Gateway.lm`."""

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As `dspy.LM`. Raises BudgetExceeded before the first of n candidates when n don't fit the budget."""
        self._check_candidates(prompt, messages, kwargs)
        return super().__call__(prompt, messages=messages, **kwargs)

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As `__call__`."""
        self._check_candidates(prompt, messages, kwargs)
        return await super().acall(prompt, messages=messages, **kwargs)

    def _get_initial_kwargs(self, **options: Any) -> dict[str, Any]:
        """The settings as they are: `dspy.LM` wants others for a model called "gpt-5" or "o3", but here that is an
        alias and the transport knows what its provider wants.
        """
        given: dict[str, Any] = dspy.BaseLM._get_initial_kwargs(self, **options)
        return {name: value for name, value in given.items() if name != "rollout_id" or value is not None}

    def update_history(self, entry: dict[str, Any]) -> None:
        """Put the gateway's bill into the entry; a cache hit costs nothing now."""
        entry = {**entry, "cost": _bill(entry.get("response"), hit=entry.get("usage") == {})}
        super().update_history(entry)

    def _check_candidates(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> None:
        n = kwargs.get("n") or self.kwargs.get("n") or 1
        gateway = getattr(self._engine_spec, "gateway", None)  # None: a copy on another engine
        if isinstance(n, int) and n > 1 and gateway is not None:
            size = len(repr(messages if prompt is None else prompt).encode()) + 64
            limit = kwargs.get("max_tokens") or self.kwargs.get("max_tokens")
            gateway.check_affordable(self.model, size, n, limit)


def _bill(response: Any, *, hit: bool) -> float | None:
    """Dollars of all candidates, as DSPy's history has them (a float); None where the gateway gave no bill."""
    if hit:
        return 0.0
    candidates = response if isinstance(response, tuple | list) else (response,)
    costs = [(getattr(c, "provider_data", None) or {}).get("escalade", {}).get("cost") for c in candidates]
    known = [c for c in costs if c is not None]
    return sum(known) / NANO if known and len(known) == len(costs) else None
