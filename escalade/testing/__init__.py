"""Testing pipelines, agents and tools: without a network, without waiting, the same on every run.

    from escalade.testing import fake_gateway, faults, virtual_time

Nothing in escalade imports it. Under pytest, `pytest_plugins = ["escalade.testing.plugin"]` brings fixtures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from escalade.testing.cassettes import record, replay
    from escalade.testing.claims import assert_no_leaks, assert_spent
    from escalade.testing.clock import VirtualClock, virtual_time
    from escalade.testing.failing import Fault, Faults, Injected, faults, faulty
    from escalade.testing.models import FakeModel, Reply, fake_gateway
    from escalade.testing.tools import fake_tool

__all__ = [
    "FakeModel",
    "Fault",
    "Faults",
    "Injected",
    "Reply",
    "VirtualClock",
    "assert_no_leaks",
    "assert_spent",
    "fake_gateway",
    "fake_tool",
    "faults",
    "faulty",
    "record",
    "replay",
    "virtual_time",
]

_NAMES = {
    "cassettes": ("record", "replay"),
    "claims": ("assert_no_leaks", "assert_spent"),
    "clock": ("VirtualClock", "virtual_time"),
    "failing": ("Fault", "Faults", "Injected", "faults", "faulty"),
    "models": ("FakeModel", "Reply", "fake_gateway"),
    "tools": ("fake_tool",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name from its module, once."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
