"""One node after the other: what a `Branch` and a `Loop` do with each of theirs."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Mapping
from typing import Any

import dspy

from escalade.errors import BadInput
from escalade.pipelines import _node, _run
from escalade.pipelines._errors import failed

RESULT = "result"
"""The field of a bare value that has no better name."""

ASIDE = frozenset({"reasoning", "confidence"})


async def call(
    node: _node.Prepared, visible: Mapping[str, Any], frame: _run.Frame, path: str = "", number: int | None = None
) -> Any:
    """What the node returns for its part of the visible fields. `path`: its segment, its name if empty. `number`: of
    the round or the item, which is its step then. Raises what the node raises, with its path.
    """
    path = path or node.name
    try:
        fields = _fields(node, visible)
        if frame.direct(node):
            return await _run.plain(node, fields, (frame.step, path if number is None else number), frame)
        return await _run.supervise(node, fields, frame, path, None, number)
    except BaseException as error:
        failure = failed(path, error)
        if failure is error:
            raise
    raise failure  # outside of the except block, which would add the original a second time, as context


def _fields(node: _node.Prepared, visible: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return node.select(visible)
    except KeyError as missing:
        field = missing.args[0]
    raise BadInput(f"it needs {field!r}; visible are: {', '.join(visible) or 'no fields'}")


def said(result: Any) -> Any:
    """The one value of a chooser or a predicate: of several fields the last, besides `reasoning` and `confidence`."""
    fields = _node.fields_of(result)
    if fields is None:
        return result
    names = [name for name in fields if name not in ASIDE] or list(fields)
    return fields[names[-1]] if names else None


def prediction(result: Any, fields: Mapping[str, Any]) -> dspy.Prediction:
    """The result as it is where it is a Prediction, else one of its fields."""
    return result if isinstance(result, dspy.Prediction) else dspy.Prediction(**fields)


def plain(key: Any) -> Any:
    """A key as cases are found by it: True is not 1, and no case but "true"."""
    return str(key).lower() if isinstance(key, bool) else key


def meanings(choice: Any) -> list[Any]:
    """What a choice may mean, the exact thing first."""
    meanings = [plain(choice)]
    if isinstance(choice, enum.Enum):
        meanings += [plain(choice.value), choice.name]
    return [key for key in meanings if isinstance(key, Hashable)]
