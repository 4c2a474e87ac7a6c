"""Fixtures for pytest: `pytest_plugins = ["escalade.testing.plugin"]` in the top `conftest.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from escalade import scopes
from escalade.events import Event
from escalade.testing.claims import assert_no_leaks
from escalade.testing.clock import VirtualClock
from escalade.testing.clock import virtual_time as _virtual_time


@pytest.fixture
def virtual_time() -> Iterator[VirtualClock]:
    """The test goes by a virtual clock. For plain functions: `virtual_time.run(...)` runs what is async."""
    with _virtual_time() as clock:
        yield clock


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """The test leaves no task and no thread behind."""
    with assert_no_leaks():
        yield


@pytest.fixture
def scoped() -> Iterator[scopes.Scope]:
    """The test runs in a scope of ten dollars."""
    from escalade.registry.opening import scope

    with scope(budget="10.00") as opened:
        yield opened


@pytest.fixture
def heard() -> list[Event]:
    """A list for events: `escalade.scope(listen=heard.append)`."""
    return []
