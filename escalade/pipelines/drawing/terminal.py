"""A picture as a tree, for the terminal."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from escalade.pipelines.drawing.figure import Figure


def tree(whole: Figure) -> Tree:
    """The nodes in those that they are in. The critical path is in bold orange, with a mark; what never ran is dim."""
    root = Tree(_label(whole), guide_style="dim")
    _grow(root, whole)
    return root


def plain(whole: Figure) -> str:
    """The same as text, without colours."""
    console = Console(file=io.StringIO(), width=200, color_system=None, force_terminal=False)
    console.print(tree(whole))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def _grow(branch: Tree, figure: Figure) -> None:
    parts = [*figure.inside, *([] if figure.fallback is None else [figure.fallback])]
    for part in parts:
        _grow(branch.add(_label(part)), part)


def _label(figure: Figure) -> Text:
    name = "bold dark_orange" if figure.critical else "dim" if figure.ran is False else "bold"
    text = Text()
    if figure.label and figure.label != figure.title:
        text.append(f"{figure.label}: ", "cyan")
    elif figure.role in ("fallback", "join"):
        text.append(f"{figure.role}: " if figure.title != figure.role else "", "cyan")
    text.append(figure.title, name)
    if figure.lines:
        text.append(f"  {', '.join(figure.lines)}", "dim")
    if figure.run:
        text.append(f"  {figure.run}", "yellow")
    if figure.critical:
        text.append(" ●", "dark_orange")
    return text
