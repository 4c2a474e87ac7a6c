"""What is drawn: the nodes of a pipeline with the words that stand on them, short enough to be read.

Wide fan-outs and long chains are drawn by their first and last nodes, with a box that says how many are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from escalade.pipelines.shape import Shape
from escalade.pipelines.watching import _words
from escalade.pipelines.watching.profile import NodeProfile, Profile

WIDE, LONG = 10, 30
"""Branches beside one another, and steps one after the other, that are all drawn."""

NAME, LINE = 36, 46
"""Characters of a name and of a line."""


@dataclass(slots=True, eq=False)
class Figure:
    """One node. `title`, `lines`: on it. `full`: all that was cut, for who points at it. `key`: of the id, unique.
    `label`: on the line that leads to it. `run`: what its runs took and cost. `critical`: is it on the critical path?
    `ran`: did it run at all, None where no run is drawn. `optional`: may be left out. `left_out`: stands for so many.
    """

    kind: str
    role: str
    path: str
    title: str
    key: str = ""
    lines: list[str] = field(default_factory=list)
    full: str = ""
    label: str = ""
    run: str = ""
    critical: bool = False
    ran: bool | None = None
    optional: bool = False
    left_out: int = 0
    inside: list[Figure] = field(default_factory=list)
    fallback: Figure | None = None

    @property
    def cluster(self) -> bool:
        """Has it nodes inside?"""
        return bool(self.inside)

    def walk(self) -> Iterator[Figure]:
        """This and all below."""
        yield self
        for part in self.inside:
            yield from part.walk()
        if self.fallback is not None:
            yield from self.fallback.walk()

    def of_role(self, *roles: str) -> list[Figure]:
        """Those inside that are this to it."""
        return [part for part in self.inside if part.role in roles]


def figure_of(shape: Shape, run: Profile | None = None) -> Figure:
    """What is drawn of a shape."""
    critical = None if run is None else _critical(run)
    made = _figure(shape, run, critical or set())
    for number, one in enumerate(made.walk()):
        one.key = f"n{number}"
    return made


def _critical(run: Profile) -> set[str]:
    """Paths of the nodes on the critical path, and of those around them."""
    found = set()
    for node in run.nodes:
        if node.critical > 0:
            path = node.path
            while path:
                found.add(path)
                path = path.rpartition("[")[0] if path.endswith("]") else path.rpartition("/")[0]
    return found


def _figure(shape: Shape, run: Profile | None, critical: set[str]) -> Figure:
    name = shape.name or type(shape.target).__name__
    what = _what(shape)
    if not shape.name:
        what = what.partition(", ")[2]  # a Chain needn't say that it is a chain
    lines = [line for line in (what, _options(shape)) if line]
    made = Figure(
        kind=shape.kind,
        role=shape.role,
        path=shape.path,
        title=cut(name, NAME),
        lines=[cut(line, LINE) for line in lines],
        full="\n".join((shape.path or name, *lines)),
        optional=bool(getattr(shape.options, "optional", False)),
        critical=shape.path in critical,
    )
    inside = [_figure(child, run, critical) for child in shape.children]
    _label(shape, inside)
    made.inside = _few(inside, LONG if shape.kind == "chain" else WIDE)
    if shape.fallback is not None:
        made.fallback = _figure(shape.fallback, run, critical)
    if run is not None:
        node = run.node(shape.path)
        made.ran = node is not None
        made.run = "" if node is None else said(node)
    return made


def said(node: NodeProfile) -> str:
    """`1.20 s, $0.0012`; of many runs with their number and a percentile."""
    parts = [_words.seconds(node.percentile(0.5) if node.runs > 1 else node.seconds)]
    if node.runs > 1:
        parts = [f"{_words.count(node.runs)} x {parts[0]}", f"p95 {_words.seconds(node.percentile(0.95))}"]
    if node.cost:
        parts.append(_words.dollars(node.cost))
    return ", ".join(part for part in parts if part)


def _few(parts: list[Figure], most: int) -> list[Figure]:
    """Those that are drawn. A join is drawn in any case, and so is what determined the end."""
    drawn = [part for part in parts if part.role in ("branch", "step", "case")]
    if len(drawn) <= most:
        return parts
    keep = {id(part) for part in (*drawn[: most - 2], drawn[-1])} | {id(p) for p in drawn if p.critical}
    gone = [part for part in drawn if id(part) not in keep]
    if not gone:
        return parts
    rest = Figure("rest", gone[0].role, "", f"… {_words.count(len(gone))} more", left_out=len(gone))
    rest.full = ", ".join(part.title for part in gone[:50])
    at = parts.index(gone[0])
    kept = [part for part in parts if part.role not in ("branch", "step", "case") or id(part) in keep]
    before = sum(1 for part in parts[:at] if part in kept)
    return [*kept[:before], rest, *kept[before:]]


def _label(shape: Shape, inside: list[Figure]) -> None:
    """What a branch says when it means a case."""
    keys: Mapping[Any, str] = shape.facts.get("keys") or {}
    said_of: dict[str, list[str]] = {}
    for key, name in keys.items():
        said_of.setdefault(name, []).append(str(key))
    for part, child in zip(inside, shape.children, strict=True):
        if part.role == "case":
            part.label = cut(" | ".join(said_of.get(child.name, [child.name])), NAME)


def bound(figure: Figure) -> str:
    """`at most 5 rounds`, as it stands on a loop."""
    return next((part for line in figure.lines for part in line.split(", ") if part.startswith("at most")), "again")


def joined(figure: Figure) -> str:
    """Which of its branches are waited for."""
    if figure.kind == "race":
        return "first"
    told = (part for line in figure.lines for part in line.split(", ") if part.startswith(("any ", "the first ")))
    return next(told, "all")


def cut(text: str, most: int) -> str:
    """On one line, and no longer than that.

    >>> cut("a long  story", 7)
    'a long…'
    """
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


# ------------------------------------------------------------------------------------------------- what stands on it


def _what(shape: Shape) -> str:
    """The kind, and what there is to know about it: `map, for each of pages, 8 at once`; `Predict: q -> a`."""
    if shape.kind == "module":
        fields = _signature(shape.target)
        return type(shape.target).__name__ + (f": {fields}" if fields else "")
    if shape.kind == "function":
        name = getattr(shape.target, "__name__", type(shape.target).__name__)
        return "function" if name in (shape.name, "<lambda>") else f"function {name}"
    return ", ".join((shape.kind, *_facts(shape.facts)))


def _signature(module: Any) -> str:
    signature: Any = getattr(module, "signature", None)
    if signature is None:
        signature = getattr(getattr(module, "predict", None), "signature", None)
    if not hasattr(signature, "input_fields"):
        return str(getattr(getattr(module, "question", None), "text", ""))  # an Ask
    return f"{', '.join(signature.input_fields)} -> {', '.join(signature.output_fields)}"


def _short(seconds: float) -> str:
    """`5 s`, where `_words.seconds` says `5.00 s`."""
    return _words.seconds(seconds).replace(".00 ", " ")


_SAID: dict[str, Callable[[Any], str]] = {
    "over": lambda name: f"for each of {name}",
    "concurrency": lambda most: f"{_words.count(most)} at once",
    "most": lambda most: f"at most {_words.count(most)} rounds",
    "stagger": lambda gap: f"one every {_short(gap)}",
    "within": lambda limit: f"within {_short(limit)}",
    "quorum": lambda k: f"any {k}",
    "first": lambda k: f"the first {k}",
    "field": lambda name: f"by {name}",
    "until": lambda _: "until it is enough",
    "partial": lambda _: "what is there in time",
    "least": lambda k: f"at least {k}",
    "keep": lambda _: "failures are kept",
}


def _facts(facts: Mapping[str, Any]) -> list[str]:
    return [_SAID[name](value) for name, value in facts.items() if name in _SAID and value not in (None, False)]


def _options(shape: Shape) -> str:
    """`5 s at most, 3 retries, cached`."""
    options = shape.options
    said_of: dict[str, Callable[[Any], str]] = {
        "timeout": lambda limit: f"{_short(limit)} at most",
        "budget": lambda money: f"{_words.dollars(int(money))} at most",
        "share": lambda share: f"{share:.0%} of the money at most",
        "principal": lambda who: f"as {who.user}",
        "retry": lambda retry: f"{retry.retries} retries",
        "hedge": lambda hedge: f"hedged after {hedge.after}",
        "cache": lambda _: "cached",
        "once": lambda _: "equal calls once",
        "group": lambda group: f"{group.limit} at once in {group.name}",
        "priority": lambda rank: f"priority {rank}",
        "optional": lambda _: "optional",
    }
    found = ((say, getattr(options, name, None)) for name, say in said_of.items())
    return ", ".join(say(value) for say, value in found if value not in (None, False))
