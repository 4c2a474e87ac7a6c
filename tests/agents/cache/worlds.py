"""What the tests of caches share: a gateway over a scripted model, a clock that is set by hand, people of tenants."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy

import escalade
from escalade.agents.cache import ResponseCache
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.registry.access import Roles
from escalade.registry.prices import Price
from escalade.registry.stores.disk_cache import DiskCache
from escalade.scopes import Principal
from tests.agents.scripted import Scripted

PRICE = Price.of("0.10", "0.40")
COST = int(PRICE.cost(100, 20))
ANA, BOB, EVE = (Principal(*who, "user") for who in (("ana", "acme"), ("bob", "acme"), ("eve", "evil")))
ACCESS = Roles({"user": ["model.*:call"]})
MODES = ("sync", "async")


class Clock:
    """Seconds, moved by hand."""

    def __init__(self, at: float = 1_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class World:
    """A cache, a model behind a gateway, and a program that asks it. `path`: of a cache on disk, which waits for those
    who write; by itself it waits for 0.1 s, and what it then doesn't keep is a miss.
    """

    def __init__(self, script: Any = (), *, name: str = "cached", transport: Any = None, **options: Any) -> None:
        self.clock = Clock()
        if (path := options.pop("path", None)) is not None:
            size = {"size_limit": options.pop("size_limit")} if "size_limit" in options else {}
            options["store"] = DiskCache(path, patience=10.0, **size)
        self.cache = ResponseCache(**{"now": self.clock, **options})
        self.model = Scripted(script) if transport is None else transport
        self.gateway = Gateway([Model("small", "sim/small", self.model, price=PRICE)], cache=self.cache, name=name)
        self.predict = dspy.Predict("question -> answer")

    def ask(self, question: str = "q", mode: str = "sync", who: Principal = ANA, **settings: Any) -> Any:
        """One question in a scope of its own."""
        with scope_of(who, budget="1.00"):
            return self.here(question, mode, **settings)

    def here(self, question: str = "q", mode: str = "sync", **settings: Any) -> Any:
        """One question in the scope that is open."""
        return self.with_lm(self.lm(**settings), question, mode)

    def with_lm(self, lm: Any, question: str = "q", mode: str = "sync") -> Any:
        """One question through this LM, sync or async."""
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
            if mode == "sync":
                return self.predict(question=question)
            return asyncio.run(self.predict.acall(question=question))

    def lm(self, **settings: Any) -> Any:
        return self.gateway.lm("small", **{"temperature": 0.0, **settings})

    @property
    def calls(self) -> int:
        """How often the model was asked."""
        return len(self.model.requests)

    def row(self) -> Any:
        """The figures of the only tenant and model."""
        (row,) = self.cache.stats().usage
        return row


def scope_of(who: Principal, **options: Any) -> Any:
    """A scope of that person, who may use all models."""
    return escalade.scope(principal=who, access=ACCESS, **options)


def answering(text: str) -> str:
    """The text as an answer that DSPy's chat adapter can parse."""
    return f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]"
