"""`a >> b` and `a | b`: pipelines out of nodes, without a word.

At least one side is a pipeline or made by `node(...)`, since a function has no operators; the other may be anything
that can be a node. Both make a new pipeline and leave their sides as they are. What they made is continued by the next
one: `a >> b >> c` is one `Chain` of three and `a | b | c` one `FanOut` of three; a pipeline that was built by its own
name stays one node.
"""

from __future__ import annotations

from typing import Any

from escalade.errors import BadInput
from escalade.pipelines._node import Node, default_name, free_name, unwrap
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.options._fallbacks import restored


def chain_of(left: Any, right: Any) -> Chain:
    """`left >> right`."""
    parts = [*_parts(left, Chain), *_parts(right, Chain)]
    chain = Chain(*parts)
    chain._given = {name: part.name for name, part in zip(chain.steps, parts, strict=True)}
    return chain


def fan_out_of(left: Any, right: Any) -> FanOut:
    """`left | right`."""
    parts = [*_parts(left, FanOut), *_parts(right, FanOut)]
    branches: dict[str, Node] = {}
    for part in parts:
        if part.name in branches:
            raise BadInput(f"two branches are named {part.name!r}; name one of them with node(..., name=...)")
        branches[part.name or free_name(_result_name(part.target, len(branches) + 1), branches)] = part
    fan_out = FanOut(branches)
    fan_out._given = {name: part.name for name, part in branches.items()}
    return fan_out


def _parts(side: Any, kind: type) -> list[Node]:
    """The nodes of one side: several where an operator made it, with the names that people gave them."""
    given = getattr(side, "_given", None) if type(side) is kind else None
    if given is None:
        return [unwrap(side)]
    targets, options = side._targets(), side._options
    return [Node(targets[name], own, restored(options[name], name, side.fallbacks)) for name, own in given.items()]


def _result_name(target: Any, index: int) -> str:
    """What a branch is called by: a chain that was made by an operator by its last step, which gives the result."""
    given = getattr(target, "_given", None)
    return next(reversed(given)) if given and hasattr(target, "steps") else default_name(target, index, "branch")
