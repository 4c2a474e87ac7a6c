"""`module:name`: what a study takes from Python. It imports, and so runs, the code that it names: run no study of a
stranger.

A module is looked for beside the study's file first, then where Python looks.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from escalade.errors import BadInput
from escalade.registry.privacy.outlets import error_line

__all__ = ["beside", "is_reference", "resolve"]


def is_reference(text: str) -> bool:
    """Is it written `module:name`?"""
    module, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def resolve(text: str, folder: Path, what: str) -> Any:
    """The object of that name. `what`: the field that names it, for the error. Raises BadInput."""
    module, _, name = text.partition(":")
    if not is_reference(text):
        raise BadInput(f"{what}: expected a reference like module:name, got {text!r}")
    with _importing_from(folder):
        try:
            found: Any = importlib.import_module(module)
        except Exception as error:
            raise BadInput(f"{what}: {text!r} can't be imported: {error_line(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise BadInput(f"{what}: {text!r}: module {module!r} has no {name!r}")
        found = getattr(found, part)
    return found


def beside(folder: Path, data: str) -> str:
    """A path, or LOADER:PATH, in that folder; as it is where nothing of that name is there."""
    loader, colon, rest = data.partition(":")
    if (folder / data).exists():
        return str(folder / data)
    if colon and (folder / rest).exists():
        return f"{loader}:{folder / rest}"
    return data if colon else str(folder / data)


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    path = str(folder.resolve())
    sys.path.insert(0, path)
    try:
        yield
    finally:
        if path in sys.path:
            sys.path.remove(path)
