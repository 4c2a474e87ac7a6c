"""`route(text)`: which tier should answer, and why.

    routed = route("our pods are OOM-killed", principal)
    routed.tier, routed.segment            # 4, "vip"
    print(routed.explain())                # which words made it complex, which rule decided
    gateway.lm(routed.model(gateway).name)

A `Router` has a table and a classifier of yours. It plugs into a climb as `Escalate(..., features=router.features,
policy=TierTable())`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

from escalade.agents.routing.local import Classified, LocalClassifier
from escalade.agents.routing.table import RoutingTable, default_table
from escalade.errors import BadInput, UnknownName
from escalade.money import Money
from escalade.scopes import Principal, current

if TYPE_CHECKING:
    from escalade.agents.gateway import Gateway
    from escalade.agents.models import Model
    from escalade.registry.prices import Price


class Classifier(Protocol):
    """Says of a text how complex it is and what is wanted. One that asks a model may have an `aclassify`, too."""

    def classify(self, text: str) -> Classified: ...


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a text should go. `tier`: 1 to 4. `path`: how that came about, a line each. `cost`: of the classifier."""

    tier: int
    complexity: str
    intent: str
    segment: str
    path: tuple[str, ...]
    cost: Money = field(default_factory=Money)

    def explain(self) -> str:
        """The path: which words made it complex, what spoke for the intent, which rule decided."""
        return "\n".join(self.path)

    def model(self, gateway: Gateway) -> Model:
        """The cheapest model of the tier that the scope may use; of the next dearer tier that has one, else of the
        dearest. A model whose price is unknown counts as the dearest of its tier. Raises BadInput.
        """
        scope = current()
        allowed = (name for name in gateway.models if scope is None or gateway.allows(name, scope))
        models = (gateway.model(name) for name in allowed)
        return gateway.model(cheapest(((model.name, model.tier, model.price) for model in models), self.tier))


def cheapest(models: Iterable[tuple[str, int | None, Price | None]], tier: int) -> str:
    """The name, of (name, tier, price), that `Routed.model` takes. Prices are compared at five tokens in for two out.

    Raises BadInput where no model has a tier.
    """
    known = list(models)
    for one in (*range(tier, 5), *range(tier - 1, 0, -1)):
        if found := [(name, price) for name, at, price in known if at == one]:
            return min(found, key=lambda model: (model[1] is None, 0 if model[1] is None else model[1].cost(5, 2)))[0]
    raise BadInput("no model that may be used here has a tier; give them one, as in Model(..., tier=1)")


class Router:
    """A table and a classifier. `table`: the one that ships by default; `classifier`: its word lists by default."""

    def __init__(self, table: RoutingTable | None = None, classifier: Classifier | None = None) -> None:
        self.table = table or default_table()
        self.classifier: Classifier = classifier or LocalClassifier(self.table)

    @classmethod
    def load(cls, path: str | PathLike[str], classifier: Classifier | None = None) -> Router:
        """With the table of a file, `routing.yaml` or a file of models. Raises BadInput."""
        return cls(RoutingTable.load(path), classifier)

    def route(self, text: str, principal: Principal | None = None, *, segment: str | None = None) -> Routed:
        """Where it should go. `principal`: whose segment counts, by default the one of the scope; or the `segment`
        itself. Raises UnknownName (a segment), BadInput.
        """
        return self._routed(self.classifier.classify(_text(text)), principal, segment)

    async def aroute(self, text: str, principal: Principal | None = None, *, segment: str | None = None) -> Routed:
        """As `route`, for classifiers that ask a model."""
        aclassify = getattr(self.classifier, "aclassify", None)
        if aclassify is None:
            return self.route(text, principal, segment=segment)
        return self._routed(await aclassify(_text(text)), principal, segment)

    def features(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Facts for policies: complexity, intent, segment and tier of all inputs together, in the scope's name.

        Blocks, where the classifier does: give an async climb a router that classifies by word lists.
        """
        _check_loop(self.classifier)
        routed = self.route("\n".join(str(value) for value in inputs.values()))
        names = ("complexity", "intent", "segment", "tier")
        return {name: getattr(routed, name) for name in names}

    def _routed(self, said: Classified, principal: Principal | None, segment: str | None) -> Routed:
        if segment is not None and segment not in {"standard", *self.table.segments}:
            raise UnknownName("segment", segment, ["standard", *self.table.segments])
        if segment is None:
            who = principal or _asking()
            segment = self.table.segment(who)
            because = "nobody in particular" if who is None else f"user {who.user!r} of tenant {who.tenant!r}"
        else:
            because = "as said"
        number, rule = self.table.rule(said.complexity, said.intent, segment)
        path = (*said.path, f"segment {segment}: {because}", f"rule {number}: {rule}")
        return Routed(rule.tier, said.complexity, said.intent, segment, path, said.cost)


def route(text: str, principal: Principal | None = None, *, segment: str | None = None) -> Routed:
    """Where a text should go, by the table and the word lists that ship; see `Router` for your own.

    >>> route("hello").tier
    1
    """
    return _default().route(text, principal, segment=segment)


@functools.cache
def _default() -> Router:
    return Router()


def _text(text: object) -> str:
    if not isinstance(text, str):
        raise BadInput(f"expected the text of a question to route, got {text!r}")
    return text


def _asking() -> Principal | None:
    scope = current()
    return None if scope is None else scope.principal


def _check_loop(classifier: Classifier) -> None:
    if not hasattr(classifier, "aclassify"):
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise BadInput(
        "this classifier asks a model, which would block the event loop: route first (`await router.aroute(text)`) and "
        "hand the facts in, or use the word lists"
    )
