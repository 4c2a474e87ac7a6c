"""Where in a file something stands: what is wrong in one is said with its line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Place = tuple[str | int, ...]
"""Where in the file: ("tools", 0, "cost")."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong in a file. `line`: from 1, 0 where it isn't known."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


def key_of(place: Place) -> str:
    """A place as people write it: tools[0].cost."""
    return "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in place).removeprefix(".")


def lines_of(file: Path, text: str) -> Callable[[Place], int]:
    """Place -> the line that it stands in: of the nearest place around it where it isn't there, 0 for not known."""
    if file.suffix.lower() == ".toml":
        return lambda place: _toml_line(text, place)
    root: Any = None
    with contextlib.suppress(ImportError):
        import yaml

        with contextlib.suppress(yaml.YAMLError):  # JSON with tabs, say, which is no YAML
            root = yaml.compose(text, Loader=yaml.SafeLoader)
    return lambda place: _yaml_line(root, place)


def _yaml_line(node: Any, place: Place) -> int:
    line = 0
    for step in place:
        if node is None:
            break
        if isinstance(step, int):
            items = node.value if isinstance(node.value, list) else []
            node = items[step] if step < len(items) else None
            line = node.start_mark.line + 1 if node is not None else line
        else:
            pairs = [pair for pair in node.value if isinstance(pair, tuple) and pair[0].value == step]
            line = pairs[0][0].start_mark.line + 1 if pairs else line
            node = pairs[0][1] if pairs else None
    return line


def _toml_line(text: str, place: Place) -> int:
    """By the headings of tables: good for what is written as [[tools]] or [[models]]."""
    start, table = 0, re.escape(str(place[0])) if place else ""
    names = [step for step in place if isinstance(step, str) and (step != place[0] or len(place) == 1)]
    if place[:1] == ("imports",) and len(place) > 1:
        heading = re.search(rf"^\s*\[imports\.{re.escape(str(place[1]))}\b", text, re.MULTILINE)
        start = 0 if heading is None else heading.end() - len(heading[0].lstrip())
        names = [step for step in place[2:] if isinstance(step, str)]
    elif len(place) > 1 and isinstance(place[1], int):
        headings = [match.start() for match in re.finditer(rf"^\s*\[\[{table}\]\]", text, re.MULTILINE)]
        if place[1] >= len(headings):
            return 0
        start = headings[place[1]]
        start += len(text[start:]) - len(text[start:].lstrip())
    for step in reversed(names):
        found = re.compile(rf"^\s*(\[+{table}\.)?{re.escape(step)}\b", re.MULTILINE).search(text, start)
        if found:
            start = found.start() + len(found[0]) - len(found[0].lstrip())
            break
    return text.count("\n", 0, start) + 1 if start or place else 0
