"""Shapes: what a pipeline is made of, as plain data, for whoever draws, checks, estimates or reports on it.

    >>> from escalade.pipelines.chain import Chain
    >>> shape = shape_of(Chain(a=lambda x: x, b=lambda a: a))
    >>> [node.path for node in shape.walk()]
    ['', 'a', 'b']

A node that is a pipeline has its nodes as children; any other module or function is a leaf.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escalade.pipelines import _errors
from escalade.pipelines._node import NO_OPTIONS, Options, Prepared, Wants

if TYPE_CHECKING:
    from escalade.pipelines.pipeline import Pipeline

ITEM = "[*]"
"""The segment of a path that stands for every item of a map, and for every round of a loop."""

SEGMENTS = {"worker": ITEM, "body": ITEM, "until": f"until{ITEM}"}


@dataclass(frozen=True, slots=True)
class Shape:
    """One node. `kind`: that of a pipeline ("chain", "fan-out", "map", ...), else "module" or "function". `path`: from
    the outermost pipeline, as events have it, with `[*]` for the items of a map; "" for the pipeline itself. `role`:
    what it is to its parent, such as "step", "branch", "join", "worker", "fallback". `facts`: of its kind, such as
    {"concurrency": 8} of a map or {"most": 5} of a loop. `fallback`: the node that answers when this one has failed.
    """

    kind: str
    path: str
    name: str
    role: str
    target: Any
    options: Options
    wants: Wants
    facts: dict[str, Any]
    children: tuple[Shape, ...] = ()
    fallback: Shape | None = None

    def walk(self) -> Iterator[Shape]:
        """This node and all below, each before its children, and after those its fallback."""
        yield self
        for child in self.children:
            yield from child.walk()
        if self.fallback is not None:
            yield from self.fallback.walk()


def shape_of(pipeline: Pipeline) -> Shape:
    """The shape of a pipeline, as it is now: optimisers put other modules in place of its nodes."""
    whole = Prepared("", pipeline, pipeline._wants(), NO_OPTIONS, module=True, threaded=False)
    return _shape(whole, "", "pipeline")


def _shape(node: Prepared, path: str, role: str) -> Shape:
    from escalade.pipelines.pipeline import Pipeline

    target, fallback, name = node.target, None, node.shown or node.name
    if node.fallback is not None:
        fallback = _shape(node.fallback, _errors.join(path, node.fallback.name), "fallback")
    if not isinstance(target, Pipeline):
        kind = "module" if node.module else "function"
        return Shape(kind, path, name, role, target, node.options, node.wants, {}, (), fallback)
    children = []
    for own, inner in target._plan().items():
        part = target._part(own)
        segment = SEGMENTS.get(part, own)
        children.append(_shape(inner, _errors.join(path, segment), part))
    facts, inner_nodes = target._facts(), tuple(children)
    return Shape(target.kind, path, name, role, target, node.options, node.wants, facts, inner_nodes, fallback)
