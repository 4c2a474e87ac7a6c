"""Checks when a graph is built, over random graphs of typed functions, half of them broken on purpose.

The same graph is run by a few lines of Python besides, which know nothing of checks: what is refused must fail there,
and what is built must run, given its inputs.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escalade.errors import BadInput
from escalade.pipelines.branch import Branch
from escalade.pipelines.chain import Chain
from escalade.pipelines.checking._types import Items
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.loop import Loop
from escalade.pipelines.map import Map
from escalade.pipelines.race import Race

TYPES: list[Any] = [int, str, list[int], list[str], dict[str, int], tuple[int, str], int | None]
SAMPLES: dict[str, Any] = {
    "int": 1, "str": "s", "list[int]": [1, 2], "list[str]": ["a", "b"], "dict[str, int]": {"k": 1},
    "tuple[int, str]": (1, "s"), "int | None": 2, "dict": {"k": 1},
}  # fmt: skip


class WentWrong(Exception):
    """A function lacked a field, or got a value of another type."""


def sample(type_: Any) -> Any:
    """A value of a type."""
    return SAMPLES[type_.__name__ if isinstance(type_, type) and not get_args(type_) else str(type_)]


def is_of(value: Any, type_: Any) -> bool:
    """Is the value of the type, all through?"""
    origin, args = get_origin(type_), get_args(type_)
    if origin is list:
        return isinstance(value, list) and all(is_of(one, args[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(is_of(one, args[1]) for one in value.values())
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(args) and all(map(is_of, value, args))
    return isinstance(value, type_)


@dataclass
class Leaf:
    """A function: what it takes and gives. `bare`: it returns its one field's value without a name."""

    name: str
    takes: dict[str, Any]
    gives: dict[str, Any]
    bare: bool = False

    def run(self, fields: dict[str, Any]) -> Any:
        for name, type_ in self.takes.items():
            if name not in fields or not is_of(fields[name], type_):
                raise WentWrong(f"{self.name}: {name} as {type_}")
        made = {name: sample(type_) for name, type_ in self.gives.items()}
        return next(iter(made.values())) if self.bare else made

    def function(self, ran: list[str]) -> Callable[..., Any]:
        async def function(**fields: Any) -> Any:
            ran.append(self.name)
            return self.run(fields)

        kind = inspect.Parameter.KEYWORD_ONLY
        function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, kind, annotation=type_) for name, type_ in self.takes.items()]
        )
        given = next(iter(self.gives.values())) if self.bare else TypedDict(f"Of{self.name}", self.gives)  # type: ignore[misc]
        function.__annotations__ = {**self.takes, "return": given}
        function.__name__ = self.name
        return function


@dataclass
class Graph:
    """`kind`: leaf, chain, fan, map, branch, loop, race. `over`, `item`: of a map."""

    kind: str
    parts: dict[str, Graph] = field(default_factory=dict)
    leaf: Leaf | None = None
    over: str = ""
    item: str = ""

    def leaves(self) -> list[Leaf]:
        own = [] if self.leaf is None else [self.leaf]
        return own + [leaf for part in self.parts.values() for leaf in part.leaves()]

    def built(self, ran: list[str], declared: list[str] | None = None) -> Any:  # noqa: PLR0911 (one line per kind)
        parts = {name: part.built(ran) for name, part in self.parts.items()}
        if self.kind == "chain":
            return Chain(**parts, inputs=declared)
        if self.kind == "fan":
            join = parts.pop("join", None)
            return FanOut(parts, join=join)
        if self.kind == "map":
            return Map(parts["worker"], over=self.over, item=self.item)
        if self.kind == "loop":
            return Loop(parts["body"], most=2)
        if self.kind == "branch":
            return Branch(yes, parts)
        if self.kind == "race":
            return Race(parts, stagger=5.0)
        assert self.leaf is not None
        return self.leaf.function(ran)


async def yes() -> bool:
    return True


def named(name: str, result: Any) -> dict[str, Any]:
    return result if isinstance(result, dict) else {name: result}


def reference(graph: Graph, fields: dict[str, Any]) -> Any:
    """What the graph means, without a word of pipelines. Raises WentWrong."""
    if graph.leaf is not None:
        return graph.leaf.run(fields)
    return globals()[f"run_{graph.kind}"](graph, fields)


def run_chain(graph: Graph, fields: dict[str, Any]) -> Any:
    visible, result, name = dict(fields), None, ""
    for name, part in graph.parts.items():
        wanted = [one for one in needed(part) if one not in visible]
        bare = result is not None and not isinstance(result, dict) and len(wanted) == 1
        result = reference(part, {**visible, wanted[0]: result} if bare else visible)
        visible |= named(name, result)
    return named(name, result)


def needed(part: Graph) -> list[str]:
    """What a part can't do without. Of a pipeline its own word is taken."""
    if part.leaf is not None:
        return list(part.leaf.takes)
    try:
        inputs = part.built([]).inputs
    except BadInput:
        return []
    return [name for name in inputs if name not in inputs.optional]


def run_fan(graph: Graph, fields: dict[str, Any]) -> Any:
    results = {name: reference(part, fields) for name, part in graph.parts.items() if name != "join"}
    if "join" not in graph.parts:
        return results
    visible = {**fields, **results}
    missing = [one for one in needed(graph.parts["join"]) if one not in visible]
    if len(missing) == 1:
        visible[missing[0]] = results
    return named("join", reference(graph.parts["join"], visible))


def run_map(graph: Graph, fields: dict[str, Any]) -> Any:
    if not isinstance(fields.get(graph.over), list):
        raise WentWrong(f"map over {graph.over}")
    shared = {name: value for name, value in fields.items() if name != graph.over}
    worker = graph.parts["worker"]
    return {"results": [reference(worker, {**shared, graph.item: one}) for one in fields[graph.over]]}


def run_branch(graph: Graph, fields: dict[str, Any]) -> Any:
    return named("result", reference(graph.parts["true"], fields))


def run_race(graph: Graph, fields: dict[str, Any]) -> Any:
    for part in graph.parts.values():
        if any(name not in fields for leaf in part.leaves() for name in leaf.takes):
            raise WentWrong("a branch of a race lacks a field")
    return named("result", reference(next(iter(graph.parts.values())), fields))


def run_loop(graph: Graph, fields: dict[str, Any]) -> Any:
    visible, body = dict(fields), graph.parts["body"]
    for _ in range(2):
        result = reference(body, visible)
        visible |= result
    return result


class Maker:
    """Makes graphs that are sound."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def fresh(self, stem: str) -> str:
        return f"{stem}_" + "".join(self.rng.choices("abcdefghijklmnopqrstuvwxyz", k=10))  # none is like another

    def leaf(self, env: dict[str, Any], must: dict[str, Any], *, bare: bool | None = None) -> Graph:
        names = self.rng.sample(sorted(env), k=min(len(env), self.rng.randint(0, 2)))
        if must:
            names.append(self.rng.choice(sorted(must)))
        takes = {name: env[name] for name in dict.fromkeys(names)}
        bare = self.rng.random() < 0.2 if bare is None else bare
        gives = {self.fresh("f"): self.rng.choice(TYPES) for _ in range(1 if bare else self.rng.randint(1, 2))}
        if bare and next(iter(gives.values())) == dict[str, int]:
            bare = False  # a dict is no bare value
        return Graph("leaf", leaf=Leaf(self.fresh("n"), takes, gives, bare))

    def node(self, env: dict[str, Any], must: dict[str, Any], depth: int) -> tuple[Graph, dict[str, Any]]:
        """A node that takes of what is there, and something of `must`; and what it gives, by name and type."""
        lists = {name: type_ for name, type_ in (must or env).items() if get_origin(type_) is list}
        kinds = ["leaf", "leaf", "loop", "race", "branch"] + ["map"] * bool(lists)
        kind = self.rng.choice(kinds + ["fan", "chain"] * (depth > 0))
        if kind == "chain":
            return self.chain(env, must, depth - 1)
        if kind == "map":
            over = self.rng.choice(sorted(lists))
            item = self.fresh("i")
            worker = self.leaf({item: get_args(lists[over])[0], **without(env, over)}, {})
            return Graph("map", {"worker": worker}, over=over, item=item), {}
        if kind == "fan":
            return self.fan(env, must, depth)
        if kind in ("race", "branch"):
            names = ("one", "two") if kind == "race" else ("true", "false")
            first = self.leaf(env, must, bare=False)
            assert first.leaf is not None
            # Of a branch both cases break: one that doesn't might be the one that is taken, so nothing is certain.
            second = Graph("leaf", leaf=replace(first.leaf, name=self.fresh("n")) if kind == "race" else first.leaf)
            return Graph(kind, dict(zip(names, (first, second), strict=True))), dict(first.leaf.gives)
        leaf = self.leaf(env, must, bare=False if kind == "loop" else None)
        assert leaf.leaf is not None
        if kind == "loop":
            leaf.leaf.gives |= leaf.leaf.takes if self.rng.random() < 0.5 else {}
            return Graph("loop", {"body": leaf}), dict(leaf.leaf.gives)
        return leaf, {} if leaf.leaf.bare else dict(leaf.leaf.gives)

    def fan(self, env: dict[str, Any], must: dict[str, Any], depth: int) -> tuple[Graph, dict[str, Any]]:
        branches = {self.fresh("b"): self.node(env, must, depth - 1)[0] for _ in range(self.rng.randint(1, 3))}
        typed = {
            name: next(iter(part.leaf.gives.values())) if part.leaf.bare else dict
            for name, part in branches.items()
            if part.leaf is not None
        }
        if not typed or self.rng.random() < 0.5:
            return Graph("fan", branches), {}
        join = self.leaf({**env, **typed}, typed, bare=False)
        assert join.leaf is not None
        return Graph("fan", {**branches, "join": join}), dict(join.leaf.gives)

    def chain(self, env: dict[str, Any], must: dict[str, Any], depth: int) -> tuple[Graph, dict[str, Any]]:
        parts: dict[str, Graph] = {}
        there, last = dict(env), dict(must)
        for _ in range(self.rng.randint(1, 4)):
            name = self.fresh("s")
            part, given = self.node(there, last, depth)
            parts[name] = part
            if part.leaf is not None and part.leaf.bare:
                given = {name: next(iter(part.leaf.gives.values()))}
            there |= given
            last = given
        return Graph("chain", parts), last


def without(env: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in env.items() if key != name}


def broken(graph: Graph, rng: random.Random) -> None:
    """One thing that a function takes gets another name, or another type."""
    leaf = rng.choice([leaf for leaf in graph.leaves() if leaf.takes])
    name = rng.choice(sorted(leaf.takes))
    type_ = leaf.takes.pop(name)
    if rng.random() < 0.5:
        leaf.takes[rng.choice(["zz9zz", name[:-1] + "x" + name[-1:]])] = type_
    else:
        leaf.takes[name] = rng.choice([one for one in TYPES if one != type_])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.integers(0, 2**48), st.booleans(), st.booleans())
def test_what_is_built_runs_and_what_is_refused_fails(seed: int, breaks: bool, declares: bool) -> None:
    """Sound graphs are built and run. Of broken ones, a refused one would have failed; one that is built lacks
    nothing when its inputs are there, and refuses a call that lacks one before anything runs.
    """
    rng = random.Random(seed)
    env = {name: rng.choice(TYPES) for name in ("alpha", "beta", "gamma")}
    graph, _ = Maker(rng).chain(env, env, depth=2)
    if breaks:
        if not any(leaf.takes for leaf in graph.leaves()):
            return
        broken(graph, rng)
    inputs = {name: sample(type_) for name, type_ in env.items()}
    ran: list[str] = []
    try:
        pipeline = graph.built(ran, list(env) if declares else None)
    except BadInput:
        assert breaks
        with pytest.raises(WentWrong):
            reference(graph, inputs)
        return
    check_built(pipeline, graph, inputs, ran)


def check_built(pipeline: Any, graph: Graph, inputs: dict[str, Any], ran: list[str]) -> None:
    wanted = {name: sample(type_) if type_ is not Any else 1 for name, type_ in pipeline.inputs.items() if known(type_)}
    full = {**{name: [] for name in pipeline.inputs}, **wanted}
    result = asyncio.run(pipeline.acall(**full))
    assert not pipeline.outputs.open
    assert set(pipeline.outputs) - pipeline.outputs.optional <= set(result.keys()) <= set(pipeline.outputs)
    ran.clear()
    lacking = pipeline.inputs.keys() - pipeline.inputs.optional - inputs.keys()
    if lacking:
        with pytest.raises(BadInput, match=f"needs '({'|'.join(lacking)})'"):
            asyncio.run(pipeline.acall(**inputs))
        assert not ran
    elif all(name in inputs and agrees(inputs[name], type_) for name, type_ in pipeline.inputs.items()):
        expected = reference(graph, inputs)
        assert dict(asyncio.run(pipeline.acall(**inputs)).items()).keys() == expected.keys()


def agrees(value: Any, type_: Any) -> bool:
    """Is the value what the pipeline says that it takes?"""
    if isinstance(type_, Items):
        return isinstance(value, list) and all(agrees(one, type_.item) for one in value)
    return not known(type_) or is_of(value, type_)


def known(type_: Any) -> bool:
    return type_ is not Any and (str(type_) in SAMPLES or getattr(type_, "__name__", "") in SAMPLES)
