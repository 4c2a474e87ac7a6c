"""Where the tests' logs are: what holds for a file holds for a database."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["file", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a log, a path or an address."""
    found = tmp_path / "audit.sqlite" if request.param == "file" else request.getfixturevalue("postgres_url")
    return str(found)
