"""Fake tools: they answer what a test says, and keep what they were asked.

find = fake_tool("web.find", {"Peru": "Lima"}, cost="0.001", latency=2.0)
registry = Registry([find])
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Hashable, Mapping
from typing import Any

from escalade.errors import BadInput
from escalade.registry.tools import tool


def fake_tool(
    name: str,
    answers: Any = "done",
    *,
    latency: float = 0.0,
    parameters: Mapping[str, Any] | None = None,
    description: str = "A fake.",
    asked: list[dict[str, Any]] | None = None,
    **options: Any,
) -> Any:
    """A tool, to be put into a `Registry`.

    `answers`: a dict, from one of its arguments (or `"*"`) to an answer; a list, which is answered in turn; a function
    of its arguments by name; anything else is the answer. An exception is raised. `latency`: seconds. `parameters`:
    their names and types, by default a text `query`. `asked`: takes the arguments of each call. Options are those of
    `escalade.tool`; by default it only reads. Raises BadInput.

    >>> import escalade
    >>> registry = escalade.Registry([fake_tool("web.find", {"Peru": "Lima"})])
    >>> with escalade.scope():
    ...     registry.get_tool("web.find")(query="Peru")
    'Lima'
    """
    types, calls = dict(parameters or {"query": str}), itertools.count(1)

    async def fake(**given: Any) -> Any:
        if asked is not None:
            asked.append(given)
        if latency:
            await asyncio.sleep(latency)
        found = _said(name, answers, given, next(calls))
        if isinstance(found, BaseException):
            raise found
        return found

    kinds = [inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY, annotation=type_) for one, type_ in types.items()]
    described: Any = fake
    described.__signature__ = inspect.Signature(kinds, return_annotation=object)
    described.__annotations__ = {**types, "return": object}
    described.__doc__ = description
    return tool(name=name, **{"side_effects": "read", **options})(described)


def _said(name: str, answers: Any, given: dict[str, Any], turn: int) -> Any:
    if isinstance(answers, Mapping):
        for value in (*given.values(), "*"):
            if isinstance(value, Hashable) and value in answers:
                return answers[value]
        return BadInput(f"fake tool {name!r} has no answer to {given!r}; there are: {', '.join(map(str, answers))}")
    if isinstance(answers, list | tuple):
        if turn > len(answers):
            return BadInput(f"fake tool {name!r}: call {turn}, and its script has {len(answers)} answers")
        return answers[turn - 1]
    return answers(**given) if callable(answers) else answers
