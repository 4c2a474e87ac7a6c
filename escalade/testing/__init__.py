"""Testing pipelines, agents and tools: without a network, without waiting, the same on every run.

from escalade.testing import fake_gateway, faults, virtual_time
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from escalade.testing.clock import VirtualClock, virtual_time

__all__ = ["VirtualClock", "virtual_time"]

_HOME = {"VirtualClock": "clock", "virtual_time": "clock"}


def __getattr__(name: str) -> Any:
    """Import a name from its module, once."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
