"""A pipeline as a Mermaid flowchart, for Markdown pages; ids are ours, texts are quoted and escaped."""

from __future__ import annotations

from escalade.pipelines.drawing.figure import Figure, bound, joined

_STYLES = (
    "classDef critical stroke:#d9730d,stroke-width:3px",
    "classDef idle opacity:0.55",
    "classDef optional stroke-dasharray:4 3",
)


def mermaid(whole: Figure) -> str:
    """The text of the flowchart."""
    writer = _Writer()
    writer.lines.append("flowchart TD")
    starts, ends = writer.draw(whole, 1)
    writer.line(1, 'begin(("begin"))')
    writer.line(1, 'finish(("end"))')
    for start in starts:
        writer.arrow("begin", start)
    for end in ends:
        writer.arrow(end, "finish", label=whole.run)
    writer.lines += writer.arrows
    writer.lines += [f"    {style}" for style in _STYLES]
    critical = ",".join(str(number) for number in writer.critical)
    if critical:
        writer.line(1, f"linkStyle {critical} stroke:#d9730d,stroke-width:3px")
    return "\n".join(writer.lines) + "\n"


def quoted(text: str) -> str:
    """As Mermaid takes any text: in quotes, with entities for what ends them or means something inside.

    >>> quoted('say "a < b" #1')
    '"say #quot;a #lt; b#quot; #35;1"'
    """
    entities = {'"': "#quot;", "<": "#lt;", ">": "#gt;", "#": "#35;", "&": "#amp;", "`": "#96;", "\\": "#92;"}
    clean = "".join(entities.get(c, c) if c.isprintable() else " " for c in text)
    return f'"{clean}"'


class _Writer:
    """Lines so far, and the numbers of those arrows that are on the critical path."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.arrows: list[str] = []
        self.critical: list[int] = []
        self._of: dict[str, Figure] = {}

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def arrow(self, start: str, end: str, label: str = "", style: str = "-->") -> None:
        """One more. It is on the critical path where both ends are."""
        of = self._of
        if all(one not in of or of[one].critical for one in (start, end)) and (start in of or end in of):
            self.critical.append(len(self.arrows))
        said = f"|{quoted(label)}|" if label else ""
        self.arrows.append(f"    {start} {style}{said} {end}")

    def draw(self, figure: Figure, depth: int) -> tuple[list[str], list[str]]:
        """Write a node; (where arrows to it go, where those from it come from)."""
        self._of[figure.key] = figure
        if not figure.cluster:
            self._leaf(figure, depth)
            starts, ends = [figure.key], [figure.key]
        else:
            title = ": ".join((figure.title, ", ".join(figure.lines)) if figure.lines else (figure.title,))
            self.line(depth, f"subgraph {figure.key}[{quoted(title)}]")
            self.line(depth + 1, "direction TB")
            starts, ends = self._inside(figure, depth + 1)
            self.line(depth, "end")
            self._classes(figure, depth)
        if figure.fallback is not None:
            begin, done = self.draw(figure.fallback, depth)
            for end in ends:
                for start in begin:
                    self.arrow(end, start, "fails", "-.->")
            ends = ends + done
        return starts, ends

    def _leaf(self, figure: Figure, depth: int) -> None:
        words = "<br/>".join(quoted(line)[1:-1] for line in (figure.title, *figure.lines))
        left, right = {"function": ("[", "]"), "rest": ("([", "])")}.get(figure.kind, ("(", ")"))
        self.line(depth, f'{figure.key}{left}"{words}"{right}')
        self._classes(figure, depth)

    def _classes(self, figure: Figure, depth: int) -> None:
        names = (("critical", figure.critical), ("idle", figure.ran is False), ("optional", figure.optional))
        for name, holds in names:
            if holds:
                self.line(depth, f"class {figure.key} {name}")

    def _inside(self, figure: Figure, depth: int) -> tuple[list[str], list[str]]:
        draw = {"chain": self._chain, "loop": self._loop, "branch": self._branch}.get(figure.kind, self._beside)
        return draw(figure, depth)

    def _chain(self, figure: Figure, depth: int) -> tuple[list[str], list[str]]:
        return self._row(figure.inside, depth)

    def _row(self, parts: list[Figure], depth: int) -> tuple[list[str], list[str]]:
        first: list[str] = []
        before: list[tuple[str, str]] = []
        for part in parts:
            starts, ends = self.draw(part, depth)
            for end, told in before:
                for start in starts:
                    self.arrow(end, start, told)
            first = first or starts
            before = [(end, part.run) for end in ends]
        return first, [end for end, _ in before]

    def _beside(self, figure: Figure, depth: int) -> tuple[list[str], list[str]]:
        """Branches, those of a race, the worker of a map; between two dots where there are several, or to a join."""
        joins = figure.of_role("join")
        branches = [part for part in figure.inside if part not in joins]
        if len(branches) == 1:
            return self._row(figure.inside, depth)
        fork, merge = self._dot(figure, "f", " ", depth), joins[0].key if joins else ""
        if joins:
            starts, ends = self.draw(joins[0], depth)
        else:
            merge = self._dot(figure, "m", joined(figure), depth)
            starts, ends = [merge], [merge]
        for part in branches:
            begin, done = self.draw(part, depth)
            for start in begin:
                self.arrow(fork, start)
            for end in done:
                for start in starts:
                    self.arrow(end, start, part.run)
        return [fork], ends

    def _dot(self, figure: Figure, suffix: str, text: str, depth: int) -> str:
        key = f"{figure.key}{suffix}"
        self.line(depth, f"{key}(({quoted(text)}))")
        self._of[key] = figure
        return key

    def _branch(self, figure: Figure, depth: int) -> tuple[list[str], list[str]]:
        choosers = figure.of_role("chooser", "predicate")
        self.line(depth, f"{figure.key}c{{{quoted('?')}}}")
        self._of[f"{figure.key}c"] = figure
        starts, ends = self._row(choosers, depth)
        for end in ends:
            self.arrow(end, f"{figure.key}c")
        merge = self._dot(figure, "m", " ", depth)
        for part in figure.inside:
            if part not in choosers:
                begin, last = self.draw(part, depth)
                for start in begin:
                    self.arrow(f"{figure.key}c", start, part.label or part.title)
                for end in last:
                    self.arrow(end, merge, part.run)
        return starts or [f"{figure.key}c"], [merge]

    def _loop(self, figure: Figure, depth: int) -> tuple[list[str], list[str]]:
        starts, ends = self._row(figure.inside, depth)
        for end in ends:
            for start in starts:
                self.arrow(end, start, bound(figure), "-.->")
        return starts, ends
