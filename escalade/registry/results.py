"""Results of tools as bytes of JSON: what caches and cassettes keep. Never a pickle: reading one executes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import to_jsonable_python


class Results:
    """Of one tool. `output`: the type of its results, which are read back as such; anything JSON without one."""

    def __init__(self, output: Any) -> None:
        self._adapter = _adapter(output)

    def dump(self, result: Any) -> bytes | None:
        """As JSON; None for what isn't JSON or would not come back as it was."""
        try:
            if _lazy(result):  # writing it would use it up
                return None
            kept = json.dumps(to_jsonable_python(result), separators=(",", ":"), allow_nan=False).encode()
            return kept if self.load(kept) == result else None
        except Exception:  # noqa: BLE001 - whatever somebody's class raises when it is written or compared
            return None

    def load(self, kept: bytes) -> Any:
        """The result, a new one each time. Raises ValueError for what is none."""
        try:
            plain = json.loads(kept)
        except RecursionError:
            raise ValueError("a kept result is nested too deeply") from None
        return self.read(plain)

    def read(self, plain: Any) -> Any:
        """The result that this JSON value stands for. Raises ValueError for what is none."""
        if self._adapter is None:
            return plain
        try:
            return self._adapter.validate_python(plain)
        except ValidationError as error:
            raise ValueError(f"a kept result doesn't fit the tool: {error.error_count()} errors") from None

    @staticmethod
    def plain(kept: bytes) -> Any:
        """As a JSON value."""
        return json.loads(kept)


def _lazy(result: Any) -> bool:
    """Is it, or is there in it, something that can be read only once?"""
    if isinstance(result, str | bytes | int | float | None):
        return False
    if isinstance(result, dict):
        return any(map(_lazy, result.values()))
    if isinstance(result, list | tuple | set | frozenset):
        return any(map(_lazy, result))
    return isinstance(result, Iterator)


def _adapter(output: Any) -> TypeAdapter[Any] | None:
    import inspect

    if output is inspect.Signature.empty or output is Any:
        return None
    try:
        return TypeAdapter(output)
    except (PydanticUserError, NameError, TypeError):
        return None
