"""How deeply nested what we read may be. Parsers, and whoever walks what they made, call themselves once per level: a
file of 100,000 brackets would end in a RecursionError somewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

DEEPEST = 100
"""Levels. What people write has less than ten, schemas of web APIs a few dozen."""


class TooDeep(ValueError):
    """What was read is nested deeper than `DEEPEST`."""

    def __init__(self) -> None:
        super().__init__(f"nested too deeply: {DEEPEST} levels at most")


def shallow(value: Any) -> Any:
    """The value, lists and mappings in lists and mappings. Raises TooDeep, also for one that contains itself."""
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, list | tuple | Mapping)]:
        depth += 1
        if depth > DEEPEST:
            raise TooDeep
        unlike = {id(one): one for one in level}.values()  # YAML's aliases: the same list, many times
        level = [part for one in unlike for part in (one.values() if isinstance(one, Mapping) else one)]
    return value


def parsed(text: str | bytes, parse: Callable[[Any], Any] = json.loads) -> Any:
    """What a parser makes of a text. Raises TooDeep, and what the parser raises."""
    try:
        return shallow(parse(text))
    except RecursionError:
        raise TooDeep from None
