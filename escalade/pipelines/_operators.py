"""The operators of pipelines and nodes; what they do is in `_sugar`, which needs both."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from escalade.pipelines.chain import Chain
    from escalade.pipelines.fan_out import FanOut


class Operators:
    """`a >> b` is a `Chain`, `a | b` a `FanOut`, see `_sugar`."""

    __slots__ = ()

    def __rshift__(self, after: Any) -> Chain:
        chain: Chain = _sugar().chain_of(self, after)
        return chain

    def __rrshift__(self, before: Any) -> Chain:
        chain: Chain = _sugar().chain_of(before, self)
        return chain

    def __or__(self, other: Any) -> FanOut:
        fan_out: FanOut = _sugar().fan_out_of(self, other)
        return fan_out

    def __ror__(self, other: Any) -> FanOut:
        fan_out: FanOut = _sugar().fan_out_of(other, self)
        return fan_out


def _sugar() -> Any:
    """Asked for when an operator is used: it is made of the classes that have the operators."""
    return importlib.import_module("escalade.pipelines._sugar")
