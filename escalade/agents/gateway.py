"""The gateway: the one way to a model, as an engine pair under `dspy.LM`.

    gateway = Gateway([
        Model("small", "openai/gpt-4o-mini", transport=LM15(), fallbacks="big"),
        Model("big", "openai/gpt-4o", transport=LM15()),
    ])
    dspy.configure(lm=gateway.lm("small"))

An engine is the only place that sees every physical attempt: sync, async, streams, n > 1, adapter fallbacks, ReAct,
optimisers. Cache hits never reach it, so that they cost nothing. Each attempt is one pass through the guard; retries,
fallbacks and breakers live here once (`_route.py` has the table), never also in DSPy or in the transport.

The pair survives deepcopy and pickle by the gateway's name, so that budgets and breakers are never split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from escalade.agents._allowed import check_allowed, regions_of
from escalade.agents._chains import crossing
from escalade.agents._engines import AsyncEngine, Engine
from escalade.agents._gateways import PREFIX, find_gateway, remember
from escalade.agents._route import Retry, Route
from escalade.agents.lanes.priority import Priority, checked
from escalade.agents.models import TIERS, Model
from escalade.agents.transports import preload
from escalade.errors import BadInput, BudgetExceeded, NoScope, PermissionDenied, UnknownName
from escalade.registry.breaker import Breaker
from escalade.registry.dspy_errors import for_dspy
from escalade.registry.usage import ToolUsage
from escalade.scopes import Scope, current

if TYPE_CHECKING:
    import dspy
    from dspy.lm15 import Request

    from escalade.agents.cache import ResponseCache
    from escalade.agents.embedding import GovernedEmbedder

__all__ = ["PREFIX", "AsyncEngine", "Engine", "Gateway", "find_gateway"]


class Gateway:
    """Models by alias, and the LMs that reach them. `name` finds it again after pickling; the newest of a name wins.

    `regions`: who may use models of certain regions only, such as {"tenant:acme": "eu"}; see `_allowed.py`. `cache`: of
    responses, see `cache/`; LMs use it unless they are made, or called, with `cache=False`. A library that takes
    seconds to import (litellm) is imported in a thread from now on, so that no event loop waits for it.
    """

    def __init__(
        self,
        models: Iterable[Model],
        *,
        name: str = "default",
        retry: Retry | None = None,
        regions: Mapping[str, str | Iterable[str]] | None = None,
        cache: ResponseCache | None = None,
    ) -> None:
        self.name, self.retry, self.cache = name, retry or Retry(), cache
        self.regions = regions_of(regions)
        self._models: dict[str, Model] = {}
        if isinstance(models, Model | str):
            raise BadInput(f"a gateway takes a list of models, or Gateway.from_file('models.yaml'); got {models!r}")
        if cache is not None and not hasattr(cache, "asked"):
            raise BadInput(f"cache: expected ResponseCache('answers') or None, got {cache!r}")
        for model in models:
            if model.name in self._models:
                raise BadInput(f"model {model.name!r} is there twice; aliases are unique in a gateway")
            self._models[model.name] = model
        if not self._models:
            raise BadInput("a gateway needs at least one model")
        self._routes = {name: self._with_fallbacks(name) for name in self._models}
        for route in self._routes.values():
            if wrong := crossing(route):
                raise BadInput(f"model {route[0].name!r}: {wrong}")
        preload(model.transport for model in self._models.values())
        remember(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Gateway:
        return self

    def __copy__(self) -> Gateway:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return find_gateway, (self.name,)

    @property
    def models(self) -> tuple[str, ...]:
        """Aliases, in the order in which they were given."""
        return tuple(self._models)

    def model(self, name: str) -> Model:
        """The model of an alias. Raises UnknownName."""
        found = self._models.get(name.removeprefix(PREFIX))
        if found is None:
            raise UnknownName("model", name.removeprefix(PREFIX), list(self._models))
        return found

    def usage(self) -> list[ToolUsage]:
        """What each model was used for, in the order in which they were given: every attempt, fallbacks too."""
        return [model.meter.usage() for model in self._models.values()]

    def breakers(self) -> list[tuple[str, str, Breaker]]:
        """(alias, "", breaker) of each model."""
        return [(model.name, "", model.breaker) for model in self._models.values()]

    def tier(self, tier: int) -> tuple[Model, ...]:
        """The models of a tier, 1 to 4, in the order in which they were given; may be none. Raises BadInput."""
        if tier not in TIERS:
            raise BadInput(f"expected a tier from 1 to 4, got {tier!r}")
        return tuple(model for model in self._models.values() if model.tier == tier)

    def allows(self, name: str, scope: Scope) -> bool:
        """May the model be used in this scope, by policy, roles and regions? Raises UnknownName."""
        model = self.model(name)
        try:
            check_allowed(model, scope, self.regions)
        except PermissionDenied:
            return False
        return scope.permits(model.resource.permission).allowed

    @classmethod
    def from_file(cls, *paths: str | PathLike[str], name: str = "default", **options: Any) -> Gateway:
        """The gateway that `models.yaml` describes; see `models_file.py`. Of several files, later ones override.

        `options`: `transport=` carries all models instead of what the files say; the others as for `Gateway`. Raises
        BadInput: `FILE:LINE: KEY: what is wrong`.
        """
        from escalade.agents.models_file import load_models

        models, settings = load_models(*paths, transport=options.pop("transport", None))
        return cls(models, name=name, **{**settings, **options})

    def lm(self, name: str, *, priority: Priority | None = None, **options: Any) -> dspy.LM:
        """A `dspy.LM` on the model; `options` are its generation settings, like `temperature`. `priority`: of its calls
        where the model's lane is full, instead of what is around them; see `lanes/priority.py`. Raises UnknownName.

        Without a cache of the gateway, `cache=True` is DSPy's own, whose key knows no tenant; it is off by default.
        """
        from escalade.agents._lm import GatewayLM

        model = self.model(name)
        if model.kind != "chat":
            raise BadInput(f"model {model.name!r} gives vectors, not answers: use `gateway.embedder({model.name!r})`")
        options.setdefault("cache", None)  # ours, if there is one; a program that is saved so never asks for DSPy's
        options.setdefault("max_tokens", model.max_output)
        priority = None if priority is None else checked(priority)
        pair = {"engine": Engine(self, name, priority), "async_engine": AsyncEngine(self, name, priority)}
        return GatewayLM(PREFIX + name, **pair, num_retries=0, **options)

    def embedder(self, name: str, *, batch_size: int = 200) -> GovernedEmbedder:
        """A `dspy.Embedder` on a model of kind embedding. Raises UnknownName, BadInput for a model of another kind."""
        from escalade.agents.embedding import GovernedEmbedder

        return GovernedEmbedder(self, name, batch_size)

    def route(self, request: Request) -> tuple[Route, Scope]:
        """The attempts for this request, and the scope that pays. Raises NoScope, UnknownName in DSPy's form."""
        scope = current()
        if scope is None:
            raise for_dspy(NoScope(f"calling model {request.model.removeprefix(PREFIX)!r}"))
        try:
            models = self._routes[self.model(request.model).name]
        except UnknownName as unknown:
            raise for_dspy(unknown) from None
        return Route(models, self.retry, scope), scope

    def check_affordable(self, name: str, size: int, n: int, max_tokens: int | None) -> None:
        """Raise BudgetExceeded for n > 1 candidates that don't fit together: the first would be paid and lost."""
        scope, model = current(), self.model(name)
        ceiling = model.ceiling(size, max_tokens)
        if scope is None or ceiling is None or n < 2:
            return
        try:
            scope.purse.reserve(n * ceiling, f"{n} candidates of {name}").release()
        except BudgetExceeded as refusal:
            raise for_dspy(refusal) from None

    def _with_fallbacks(self, name: str) -> tuple[Model, ...]:
        chain, todo = [], [name]
        while todo:
            model = self.model(todo.pop(0))
            if model not in chain:
                chain.append(model)
                todo.extend(model.fallbacks)
        return tuple(chain)
