"""The fixtures of `escalade.testing.plugin`, and what the kit costs those who don't test."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

import escalade
import escalade.testing
from escalade import Chain, events
from escalade.testing.clock import VirtualClock
from escalade.testing.plugin import heard, no_leaks, scoped, virtual_time

__all__ = ["heard", "no_leaks", "scoped", "virtual_time"]


async def late(x: int) -> int:
    """A node that takes an hour."""
    await asyncio.sleep(3600)
    return x


@pytest.mark.usefixtures("no_leaks")
def test_fixtures(virtual_time: VirtualClock, scoped: escalade.Scope, heard: list[events.Event]) -> None:
    """Time, a scope, events, and nothing left behind."""
    with escalade.scope(listen=heard.append):
        assert Chain(late=late)(x=1).late == 1
    assert virtual_time.elapsed == pytest.approx(3600)
    assert isinstance(heard[-1], events.RunFinished)
    assert scoped.left == escalade.Money.of("10.00")


def test_every_name_is_there() -> None:
    """The table of contents is true."""
    assert all(getattr(escalade.testing, name) is not None for name in escalade.testing.__all__)
    assert set(escalade.testing._HOME) == set(escalade.testing.__all__)


def test_it_is_imported_by_those_who_test() -> None:
    """And the package alone imports next to nothing."""
    code = "import sys, escalade.testing; assert 'dspy' not in sys.modules, 'dspy'"
    subprocess.run([sys.executable, "-c", code], check=True)
