"""What a node can be told: `node(target, timeout=, retry=, ...)`, checked where it is written.

The parts nest in a fixed order, from the outside in: journal, cache, once, fallback, retry, hedge, group, timeout. So
a finished step of a durable run asks no cache; what is cached is not waited for; a fallback answers when all attempts
have failed; each attempt waits for its place in the group, and its timeout begins when it has one. `budget` holds for
all attempts of the node together, and not for its fallback, which may have one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from escalade.agents.lanes.priority import PRIORITIES, Priority
from escalade.errors import BadInput, UnknownName
from escalade.money import Money
from escalade.pipelines._operators import Operators
from escalade.scopes import Principal, Scope

if TYPE_CHECKING:  # what a node isn't told is not imported either: together they take longer than all of pipelines
    from escalade.agents._route import Retry
    from escalade.pipelines.options.groups import Group
    from escalade.pipelines.options.hedge import Hedge
    from escalade.pipelines.options.retry import NodeRetry
    from escalade.pipelines.options.reuse import NodeCache
    from escalade.registry.cache import Cache


@dataclass(frozen=True, slots=True)
class Options:
    """How one node is run. `timeout`: seconds. `budget`: nano-dollars, or `share` of what the scope has left (0 to
    1). `principal`: in whose name. `fallback`: the name and the options of the node that answers when this one has
    failed; its module or function is the pipeline's. For the others see `node`.
    """

    timeout: float | None = None
    budget: Money | None = None
    share: float | None = None
    principal: Principal | None = None
    retry: NodeRetry | None = None
    hedge: Hedge | None = None
    fallback: Node | None = None
    cache: NodeCache | None = None
    once: bool = False
    group: Group | None = None
    priority: int | None = None
    tags: frozenset[str] = frozenset()
    optional: bool = False
    empty: bool = field(init=False, repr=False, compare=False)
    """Nothing of it makes a difference to how the node is called. Worked out once: each node asks for it."""
    layered: bool = field(init=False, repr=False, compare=False)
    """Is there more to it than a timeout and a scope of its own?"""

    def __post_init__(self) -> None:
        layers = (self.retry, self.hedge, self.fallback, self.group)
        object.__setattr__(self, "layered", self.optional or any(layer is not None for layer in layers))
        simple = self.timeout is None and self.priority is None and not self.reusable
        object.__setattr__(self, "empty", simple and not self.layered and not self.narrows)

    def __deepcopy__(self, memo: dict[int, Any]) -> Options:
        return self  # nothing of it changes, and a group or a cache is shared by the copies of a pipeline

    @property
    def narrows(self) -> bool:
        """Does it need a scope of its own?"""
        return self.budget is not None or self.share is not None or self.principal is not None

    def granted(self, scope: Scope, base: Money | None = None) -> Money | None:
        """What the node may spend, of what the scope has left now, or of `base`; None without a budget of its own."""
        left = scope.left if base is None else base
        if self.share is None or left is None:
            return self.budget
        return left.__class__(int(left * self.share))

    @property
    def own_scope(self) -> bool:
        """Would it be of use to have one, though none is needed?"""
        return self.layered or self.reusable

    @property
    def reusable(self) -> bool:
        """May a result come from another call?"""
        return self.cache is not None or self.once


NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Node(Operators):
    """A module or function with options, made by `node(...)`."""

    target: Any
    name: str | None = None
    options: Options = NO_OPTIONS


def node(
    target: Any,
    *,
    name: str | None = None,
    timeout: float | None = None,
    budget: str | Decimal | Money | float | None = None,
    principal: Principal | None = None,
    retry: int | Retry | None = None,
    hedge: float | str | Hedge | None = None,
    fallback: Any = None,
    cache: bool | float | Cache | NodeCache | None = None,
    once: bool = False,
    group: str | Group | None = None,
    priority: int | Priority | None = None,
    tags: str | Iterable[str] = (),
    optional: bool = False,
) -> Node:
    """`target`, a module or function, with options, to be put into a pipeline.

    `name`: its name in paths and, in a `Chain`, the field that takes a bare value. `timeout`: seconds from its start,
    then `NodeTimeout`; the scope's deadline holds besides. `budget`: what it may spend, as dollars (`"0.05"`) or as a
    float share of what the scope has left when it starts (`0.25`). `principal`: whose agent it is; it may do what both
    the caller and the principal may.

    `retry`: further attempts after a failure that may pass, or a `NodeRetry`. `hedge`: seconds, or "p95" of the node's
    own last runs, after which a second attempt begins beside the first, or a `Hedge`: not for what changes the world.
    `fallback`: a node that takes the same fields, run when this one has failed for good; it may have a fallback, too.

    `cache`: its results are used again for equal inputs, for an hour in memory (True), so many seconds, in a store such
    as `DiskCache`, or as a `NodeCache` says. `once`: equal calls at the same time run once. Both only within a tenant
    and for the same rights.

    `group`: a `Group`, or the name of one: so many at once in the whole process. `priority`: a number, the higher goes
    first, or "interactive" (0) or "batch" (-1): in groups, and in the lanes of models for all that the node calls.
    `tags`: words to find it by, also in its events. `optional`: the pipeline may do without it: when it fails, or when
    there is too little money or time. Raises BadInput.

    >>> node(len, timeout=2.0, retry=2).options.retry.retries
    2
    """
    where = repr(name or "node")
    if isinstance(target, Node):
        raise BadInput(f"{where}: this is a node already; say all of its options in one node(...)")
    if not isinstance(principal, Principal | None):
        raise BadInput(f"principal of {where}: expected a Principal, such as Principal('ana'), got {principal!r:.80}")
    checked = options(timeout, budget, name or "node")
    return Node(
        target,
        name,
        Options(
            timeout=checked.timeout,
            budget=checked.budget,
            share=checked.share,
            principal=principal,
            retry=_retry(retry, where),
            hedge=_hedge(hedge, where, target),
            fallback=None if fallback is None else _fallback(fallback),
            cache=_cache(cache, where),
            once=_flag(once, "once", where),
            group=None if group is None else _group(group),
            priority=_priority(priority, where),
            tags=_tags(tags, where),
            optional=_flag(optional, "optional", where),
        ),
    )


def options(timeout: float | None, budget: object, name: str) -> Options:
    """Checked options. Raises BadInput."""
    if timeout is not None and not (isinstance(timeout, int | float) and timeout is not True and timeout > 0):
        raise BadInput(f"timeout of {name!r}: expected more than 0 seconds, got {timeout!r}")
    if isinstance(budget, float):
        if not 0 < budget <= 1:
            raise BadInput(
                f"budget of {name!r}: a float is a share between 0 and 1, got {budget!r}; write dollars as text"
            )
        return Options(timeout, None, budget)
    dollars = None if budget is None else Money.of(budget)
    if dollars is not None and dollars < 0:
        raise BadInput(f"budget of {name!r}: expected 0 dollars or more, got {budget!r}")
    return Options(timeout, dollars, None)


def unwrap(item: Any) -> Node:
    """A Node for whatever was handed in."""
    return item if isinstance(item, Node) else Node(item)


def _retry(given: Any, where: str) -> NodeRetry | None:
    if given is None:
        return None
    from escalade.agents._route import Retry
    from escalade.pipelines.options.retry import NodeRetry

    if isinstance(given, NodeRetry):
        return given
    if isinstance(given, Retry):
        return NodeRetry(given.retries, given.base, given.cap, given.patience)
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise BadInput(f"retry of {where}: expected a number of further attempts, 1 or more, or a NodeRetry: {given!r}")
    return NodeRetry(given)


def _hedge(given: Any, where: str, target: Any) -> Hedge | None:
    if given is None:
        return None
    from escalade.pipelines.options.hedge import Hedge

    found = given if isinstance(given, Hedge) else Hedge(given)
    found.check(target, where)
    return found


def _fallback(given: Any) -> Node:
    found = unwrap(given)
    if found.options.optional:
        raise BadInput("a fallback can't be optional; the node that it stands in for can")
    return found


def _cache(given: Any, where: str) -> NodeCache | None:
    if given is None or given is False:
        return None
    from escalade.pipelines.options.reuse import NodeCache

    if isinstance(given, NodeCache):
        return given
    if given is True:
        return NodeCache()
    if isinstance(given, int | float):
        return NodeCache(seconds=given)
    if not (hasattr(given, "get") and hasattr(given, "set")):
        raise BadInput(
            f"cache of {where}: expected True, seconds, a store such as DiskCache, or a NodeCache: {given!r}"
        )
    return NodeCache(given)


def _group(given: Any) -> Group:
    from escalade.pipelines.options.groups import Group

    return Group.of(given)


def _flag(given: Any, option: str, where: str) -> bool:
    if not isinstance(given, bool):
        raise BadInput(f"{option} of {where}: expected True or False, got {given!r}")
    return given


def _priority(given: Any, where: str) -> int | None:
    if isinstance(given, str):
        if given not in PRIORITIES:
            raise UnknownName("priority", given, list(PRIORITIES))
        return 0 if given == "interactive" else -1
    if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
        raise BadInput(f"priority of {where}: expected a whole number or one of {', '.join(PRIORITIES)}, got {given!r}")
    return given


def _tags(given: Any, where: str) -> frozenset[str]:
    words = {given} if isinstance(given, str) else set(given)
    if not all(isinstance(word, str) and len(word.split()) == 1 for word in words):
        raise BadInput(f"tags of {where}: expected words without blanks, got {given!r}")
    return frozenset(words)
