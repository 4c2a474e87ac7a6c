"""How a pipeline is arranged, as a text that can be kept and compared: one line per node.

What the nodes do is not in it: better prompts or mended code may go on with an earlier run. Other nodes may not.
"""

from __future__ import annotations

import hashlib
from typing import Any

from escalade.pipelines.pipeline import Pipeline
from escalade.pipelines.shape import Shape, shape_of


def told(pipeline: Pipeline) -> str:
    """The arrangement."""
    return "\n".join(_line(shape) for shape in shape_of(pipeline).walk())


def digest_of(text: str) -> str:
    """32 hex digits."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def changes(was: str, now: str) -> str:
    """What differs, for people."""
    before, after = was.splitlines(), now.splitlines()
    gone = [f"-{line}" for line in before if line not in after]
    new = [f"+{line}" for line in after if line not in before]
    return "; ".join([*gone, *new][:6]) or "its nodes are in another order"


def _line(shape: Shape) -> str:
    wants = shape.wants
    fields = ", ".join([*wants.required, *(f"{name}?" for name in wants.optional), *(("*",) if wants.rest else ())])
    facts = ", ".join(f"{name}={_plain(value)}" for name, value in sorted(shape.facts.items()))
    name = _named(shape.target) if not shape.children else ""
    return f"{shape.path or '.'} {shape.role} {shape.kind} {name}({fields}) {facts}".rstrip()


def _named(target: Any) -> str:
    """The function or the class of the module; where it is defined may change."""
    return getattr(target, "__qualname__", None) or type(target).__qualname__


def _plain(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | bool | None) else _named(value)
