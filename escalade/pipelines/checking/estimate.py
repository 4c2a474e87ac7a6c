"""Estimates: what a pipeline may cost, and how long it may take, before it is run.

    estimate = pipeline.estimate(question="...", sizes={"documents": 40})
    estimate.usual, estimate.most, estimate.seconds     # nano-dollars, nano-dollars, seconds; None for unbounded
    estimate.require(budget="0.05", deadline=30)        # raises where it can't fit

`most` counts every node at its bound: the dearest prompt that can reach it, the longest answer, all attempts, hedges,
fallbacks, rounds and items, and nobody left out. It does not count what a gateway does about failures of its own: a
request that is sent again after a timeout, another model that answers for one, an answer that is asked for again in
another format. The guard holds each of them against the budget before it is made, so the budget is kept all the same.

What is unknown is None and has a note that says why; it is never taken for nothing. A function whose code uses a model
or a tool is unknown (`_reach.py`); one that uses none, as far as one can look, is taken to cost nothing, which its note
says. A node's own `budget=` in dollars bounds it, whatever is in it, since the guard holds it to that; `budget="0"` is
for code that is surely free.

Nobody asks for an estimate by himself, neither a call nor a durable run: a bound of the worst case would refuse runs
that usually fit, and the guard keeps the budget without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, BudgetExceeded
from escalade.money import Money, money_or_none
from escalade.pipelines import _errors
from escalade.pipelines._bridge import THREADS
from escalade.pipelines._node import Prepared
from escalade.pipelines.checking._bills import bill_of
from escalade.pipelines.checking._fields import gives_of, plan_of
from escalade.pipelines.shape import SEGMENTS

if TYPE_CHECKING:
    from rich.table import Table

    from escalade.pipelines.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class NodeEstimate:
    """A leaf, for all its calls in one run. `times`: how often it is called at the most, None for unknown. `required`:
    the run can't end without it. The others as in `Estimate`; `note`: what is unknown, or taken for granted.
    """

    path: str
    times: int | None
    required: bool
    needed: int
    usual: int | None
    most: int | None
    seconds: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one run. `usual`, `most`: nano-dollars, None where unknown. `seconds`: at the most, None where nothing ends
    it. `needed`: nano-dollars with less than which a node that the run can't do without would be refused. `nodes`: the
    leaves, in the order in which they stand.
    """

    usual: int | None
    most: int | None
    seconds: float | None
    needed: int
    nodes: tuple[NodeEstimate, ...]

    @property
    def notes(self) -> list[str]:
        """What is unknown, or taken for granted: `path: why`."""
        return [f"{node.path}: {node.note}" for node in self.nodes if node.note]

    def require(self, budget: str | Decimal | Money | None = None, deadline: float | None = None) -> Estimate:
        """Itself, where a run can fit: `budget` in dollars, `deadline` in seconds.

        Raises BudgetExceeded where a node would be refused for sure, and where the most doesn't fit, or isn't known,
        and no node may be left out; BadInput where that is so of the deadline. Where nodes are optional, the run makes
        do with less.
        """
        limit = money_or_none(budget)
        if limit is not None:
            self._check_money(int(limit))
        if deadline is not None and not self.flexible and (self.seconds is None or self.seconds > deadline):
            took = "nothing ends it" if self.seconds is None else f"it may take {self.seconds:g} s"
            raise BadInput(f"the run doesn't fit a deadline of {deadline:g} s: {took}, and no node is optional")
        return self

    @property
    def flexible(self) -> bool:
        """May a node be left out?"""
        return not all(node.required for node in self.nodes)

    def _check_money(self, limit: int) -> None:
        if self.needed > limit:
            worst = max(self.nodes, key=lambda node: node.needed if node.required else -1)
            raise BudgetExceeded(
                f"node {worst.path!r} alone holds {Money(worst.needed)} before it is asked, and the budget is "
                f"{Money(limit)}: raise the budget, or lower its max_tokens"
            )
        if self.flexible or (self.most is not None and self.most <= limit):
            return
        if self.most is None:
            unknown = next(node for node in self.nodes if node.most is None)
            raise BudgetExceeded(
                f"nobody knows what the run may cost at the most: node {unknown.path!r}: {unknown.note}; give it a "
                f"budget=, or mark what can be left out with optional=True"
            )
        dear = max(self.nodes, key=lambda node: node.most or 0)
        raise BudgetExceeded(
            f"the run may cost {Money(self.most)}, and the budget is {Money(limit)}; most of it is node {dear.path!r} "
            f"with {Money(dear.most or 0)}: give it a budget=, or mark what can be left out with optional=True"
        )

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        names = NodeEstimate.__slots__
        nodes = [{name: getattr(node, name) for name in names} for node in self.nodes]
        return {"usual": self.usual, "most": self.most, "seconds": self.seconds, "needed": self.needed, "nodes": nodes}

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table("node", "calls", "usual", "at the most", "seconds", "note", box=None, header_style="bold")
        for node in self.nodes:
            times = "?" if node.times is None else f"{node.times:,}"
            path = node.path if node.required else f"{node.path} (optional)"
            table.add_row(path, times, _money(node.usual), _money(node.most), _seconds(node.seconds), node.note)
        table.add_row("all", "", _money(self.usual), _money(self.most), _seconds(self.seconds), "")
        return table


def _money(amount: int | None) -> str:
    return "unknown" if amount is None else str(Money(amount))


def _seconds(seconds: float | None) -> str:
    return "unbounded" if seconds is None else f"{seconds:g}"


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of one call of a node with all that is in it."""

    usual: int | None = 0
    most: int | None = 0
    seconds: float | None = 0.0

    def times(self, usual: float | None, most: int | None) -> _Cost:
        return _Cost(_product(self.usual, usual), _product(self.most, most), _product(self.seconds, most))


def estimate(pipeline: Pipeline, inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> Estimate:
    """The estimate of one run with these inputs, as far as they are known. `sizes`: items of a map, by the name of its
    input or by its path. Raises BadInput for a size of no map, and for what is no number of items.
    """
    if not isinstance(sizes, Mapping):
        raise BadInput(f'sizes: expected numbers of items by name, like {{"documents": 40}}, got {sizes!r:.80}')
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 0:
            raise BadInput(f"sizes: expected how many items {name!r} has, 0 or more, got {size!r:.80}")
    walk = _Walk(sizes)
    whole = walk.pipeline(pipeline, _Here("", dict(inputs), 1, required=True))
    unknown = set(sizes) - walk.used
    if unknown:
        known = ", ".join(sorted(walk.maps)) or "none"
        raise BadInput(f"sizes: no map runs over {min(unknown)!r}; those that are: {known}")
    needed = max((node.needed for node in walk.nodes if node.required), default=0)
    return Estimate(whole.usual, whole.most, whole.seconds, needed, tuple(walk.nodes))


def ahead(node: Prepared, known: Mapping[str, Any]) -> tuple[int, int | None, int | None]:
    """Of one call of a node, without its fallback: what its dearest use holds at the least, what it usually costs, and
    the most; None where unknown. `known`: the values of fields that are known.
    """
    walk, here = _Walk({}), _Here(node.name, dict(known), 1, required=True)
    cost = walk._leaf(node, here) if plan_of(node.target) is None else walk.pipeline(node.target, here)
    needed = max((leaf.needed for leaf in walk.nodes if leaf.required), default=0)
    budget = None if node.options.budget is None else int(node.options.budget)
    return _least(needed, budget), _least(cost.usual, budget), _least(cost.most, budget)


@dataclass(frozen=True, slots=True)
class _Here:
    """Where a pipeline stands. `known`: inputs whose values are known. `calls`: of it in one run, None for unknown.
    `sure`: there is no other way for a node, a fallback or a kept result, when it is refused.
    """

    path: str
    known: dict[str, Any]
    calls: int | None
    required: bool
    sure: bool = True


class _Walk:
    """Through the nodes, from the outermost in. `nodes`: the leaves that were met."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self.nodes: list[NodeEstimate] = []
        self.used: set[str] = set()
        self.maps: set[str] = set()

    def pipeline(self, target: Any, here: _Here) -> _Cost:
        """One call of a pipeline."""
        ways = {
            "fan-out": self._fan_out, "race": self._race, "map": self._map, "branch": self._branch, "loop": self._loop,
        }  # fmt: skip
        return ways.get(target.kind, self._chain)(target, here)

    def _node(self, owner: Any, node: Prepared, here: _Here) -> _Cost:
        """One call of a node, with its attempts, its fallback, and the bounds that it was given."""
        options = node.options
        retries, beside = options.retry.retries if options.retry else 0, 2 if options.hedge else 1
        tries = (1 + retries) * beside
        path = _errors.join(here.path, SEGMENTS.get(owner._part(node.name), node.name))
        sure = here.sure and node.fallback is None and options.cache is None
        inside = _Here(path, here.known, _product(here.calls, tries), here.required and not options.optional, sure)
        once = self._leaf(node, inside) if plan_of(node.target) is None else self.pipeline(node.target, inside)
        seconds = None if options.group else _product(_least(once.seconds, options.timeout), 1 + retries)
        if options.retry is not None:
            seconds = _sum([seconds, retries * max(options.retry.cap, options.retry.patience)])
        budget = None if options.budget is None else int(options.budget)
        cost = _Cost(_least(once.usual, budget), _least(_product(once.most, tries), budget), seconds)
        if node.fallback is None:
            return cost
        other = self._node(owner, node.fallback, replace(here, required=False))
        return _Cost(cost.usual, _sum([cost.most, other.most]), _sum([cost.seconds, other.seconds]))

    def _leaf(self, node: Prepared, here: _Here) -> _Cost:
        bill, options = bill_of(node.target, here.known), node.options
        budget = None if options.budget is None else int(options.budget)
        usual, most, seconds = _least(bill.usual, budget), _least(bill.most, budget), bill.seconds
        note = bill.note
        if here.calls is None and most != 0:
            note = "; ".join(filter(None, [note, "called as often as there are items: say how many with sizes="]))
        money = bill.needed if here.sure else 0, _product(usual, here.calls), _product(most, here.calls)
        limit = _least(seconds, options.timeout)
        self.nodes.append(NodeEstimate(here.path, here.calls, here.required, *money, limit, note))
        return _Cost(usual, most, seconds)

    def _chain(self, chain: Any, here: _Here) -> _Cost:
        costs, known = [], dict(here.known)
        for node in chain._plan().values():
            costs.append(self._node(chain, node, replace(here, known=known)))
            known = hidden_by(known, node)
        return _in_turn(costs)

    def _fan_out(self, fan: Any, here: _Here) -> _Cost:
        plan, facts = fan._plan(), fan._facts()
        branches = [node for node in plan.values() if fan._part(node.name) == "branch"]
        some = any(facts.get(name) for name in ("quorum", "first", "until", "partial", "keep"))
        spread = replace(here, required=here.required and not some)
        both = _at_once([self._node(fan, node, spread) for node in branches], _limit(facts["concurrency"], branches))
        both = _Cost(both.usual, both.most, _least(both.seconds, facts.get("within")))
        given = {node.name for node in branches}
        after = replace(here, known={name: value for name, value in here.known.items() if name not in given})
        joins = [node for node in plan.values() if node not in branches]
        return _in_turn([both, *(self._node(fan, node, after) for node in joins)])

    def _race(self, race: Any, here: _Here) -> _Cost:
        nodes = list(race._plan().values())
        inside = replace(here, required=here.required and len(nodes) == 1)
        costs = [self._node(race, node, inside) for node in nodes]
        stagger = float(race._facts().get("stagger") or 0)
        both = _at_once(costs, None)
        seconds = _largest([_sum([cost.seconds, turn * stagger]) for turn, cost in enumerate(costs)])
        return _Cost(both.usual, both.most, seconds)

    def _map(self, over: Any, here: _Here) -> _Cost:
        facts, (worker, *rest) = over._facts(), over._plan().values()
        name = facts["over"]
        count = self._size(name, here)
        shared = {field: value for field, value in here.known.items() if field not in {name, over.item}}
        # Without item= an item may be a dict, whose fields hide the others.
        known = {} if over.item is None else shared
        some = any(facts.get(one) for one in ("quorum", "first", "until", "partial", "keep"))
        required = here.required and count != 0 and not some
        inside = _Here(here.path, known, _product(here.calls, count), required, here.sure)
        cost = self._node(over, worker, inside)
        rounds = None if count is None else math.ceil(count / over._limit(worker))
        seconds = _least(_product(cost.seconds, rounds), facts.get("within"))
        folds = [self._node(over, node, replace(inside, known={})).times(count, count) for node in rest]
        return _in_turn([_Cost(_product(cost.usual, count), _product(cost.most, count), seconds), *folds])

    def _size(self, name: str, here: _Here) -> int | None:
        self.maps.add(name)
        for key in (here.path, name):
            if key in self._sizes:
                self.used.add(key)
                return self._sizes[key]
        items = here.known.get(name)
        return len(items) if isinstance(items, Sized) else None

    def _branch(self, branch: Any, here: _Here) -> _Cost:
        plan = branch._plan()
        cases = [node for node in plan.values() if branch._part(node.name) in {"case", "otherwise"}]
        before = [self._node(branch, node, here) for node in plan.values() if node not in cases]
        inside = replace(here, required=here.required and len(cases) == 1)
        costs = [self._node(branch, node, inside) for node in cases]
        usual = _sum([cost.usual for cost in costs])
        mean = None if usual is None else usual // max(1, len(costs))
        dear = _Cost(mean, _largest([cost.most for cost in costs]), _largest([cost.seconds for cost in costs]))
        return _in_turn([*before, dear])

    def _loop(self, loop: Any, here: _Here) -> _Cost:
        facts, nodes, known = loop._facts(), list(loop._plan().values()), dict(here.known)
        most = facts["most"]
        for node in nodes:  # what it gave in the round before hides the inputs
            known = hidden_by(known, node)
        hidden = {*facts["carry"], *facts["carry"].values()}
        known = {name: value for name, value in known.items() if name not in hidden}
        inside = _Here(here.path, known, _product(here.calls, most), here.required, here.sure)
        return _in_turn([self._node(loop, node, inside) for node in nodes]).times((1 + most) / 2, most)


def _limit(concurrency: int | None, branches: list[Prepared]) -> int | None:
    """How many branches run at once, None for all."""
    if concurrency is None and sum(node.threaded for node in branches) > THREADS:
        return THREADS
    return concurrency


def hidden_by(known: Mapping[str, Any], node: Prepared) -> dict[str, Any]:
    """The known fields that what the node gives doesn't hide; none where nobody knows what it gives."""
    gives = gives_of(node)
    if gives.open:
        return {}
    hidden = {*gives.fields, node.name}
    return {name: value for name, value in known.items() if name not in hidden}


def _in_turn(costs: list[_Cost]) -> _Cost:
    return _Cost(
        _sum([cost.usual for cost in costs]), _sum([cost.most for cost in costs]), _sum([one.seconds for one in costs])
    )


def _at_once(costs: list[_Cost], limit: int | None) -> _Cost:
    """Side by side. With a limit the last one begins at the latest when the others' work, shared, is done (Graham)."""
    together = _in_turn(costs)
    longest = _largest([cost.seconds for cost in costs])
    if longest is None or together.seconds is None or limit is None or limit >= len(costs):
        return _Cost(together.usual, together.most, longest)
    return _Cost(together.usual, together.most, (together.seconds - longest) / limit + longest)


def _sum(numbers: list[Any]) -> Any:
    return None if None in numbers else sum(numbers)


def _product(number: Any, times: Any) -> Any:
    if number == 0 or times == 0:
        return 0
    if number is None or times is None:
        return None
    made = number * times
    return math.ceil(made) if isinstance(number, int) else made


def _least(number: Any, bound: Any) -> Any:
    if number is None or bound is None:
        return bound if number is None else number
    return min(number, bound)


def _largest(numbers: list[Any]) -> Any:
    return None if None in numbers else max(numbers, default=0)
