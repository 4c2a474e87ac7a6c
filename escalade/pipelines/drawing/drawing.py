"""A drawing: one pipeline, as it is now, in every form that it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from escalade.errors import BadInput
from escalade.events import Event
from escalade.pipelines.drawing.figure import Figure, figure_of
from escalade.pipelines.shape import shape_of
from escalade.pipelines.watching.profile import Profile

if TYPE_CHECKING:
    from rich.tree import Tree

    from escalade.pipelines.pipeline import Pipeline

FORMS = (".svg", ".mmd", ".mermaid", ".md", ".txt")


class Drawing:
    """A picture of a pipeline, made by `pipeline.draw()`: as `svg` (notebooks show it), as `mermaid`, as a tree (for
    `rich.print`), or in a file.

    Frames are pipelines in the pipeline; boxes with round corners are modules, others functions; dashed are optional
    nodes, ways back and fallbacks. With a run, each node says what it took and cost, those that never ran are faint,
    and the critical path is marked.
    """

    def __init__(self, pipeline: Pipeline, run: Profile | Iterable[Event] | None = None) -> None:
        profile = run if run is None or isinstance(run, Profile) else Profile.of(run)
        self.figure: Figure = figure_of(shape_of(pipeline), profile)

    @property
    def mermaid(self) -> str:
        """A Mermaid flowchart, for a ```` ```mermaid ```` block of a Markdown page."""
        from escalade.pipelines.drawing.mermaid import mermaid

        return mermaid(self.figure)

    @property
    def svg(self) -> str:
        """An `<svg>` element, which is also a file."""
        from escalade.pipelines.drawing.svg import svg

        return svg(self.figure)

    def save(self, path: str | Path) -> Path:
        """Write it, in the form that the name ends with: .svg, .mmd or .mermaid, .md (a page with Mermaid), .txt (a
        tree). Raises BadInput for other names, OSError for the file.
        """
        path = Path(path)
        form = path.suffix.lower()
        if form not in FORMS:
            raise BadInput(f"a drawing is saved as one of {', '.join(FORMS)}; got {path.name!r}")
        if form == ".svg":
            text = self.svg
        elif form == ".txt":
            text = f"{self}\n"
        else:
            text = f"```mermaid\n{self.mermaid}```\n" if form == ".md" else self.mermaid
        path.write_text(text, "utf-8")
        return path

    def _repr_svg_(self) -> str:
        return self.svg

    def __rich__(self) -> Tree:
        from escalade.pipelines.drawing.terminal import tree

        return tree(self.figure)

    def __str__(self) -> str:
        """The tree as plain text."""
        from escalade.pipelines.drawing.terminal import plain

        return plain(self.figure)
