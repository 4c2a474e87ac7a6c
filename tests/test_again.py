"""A test that failed is forgiven only if it passes alone, each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import _again

TESTS = """
from pathlib import Path
import pytest

def ran():
    with open("ran", "a+") as file:
        file.write("x")
        file.seek(0)
        return len(file.read())

def test_good():
    pass

def test_first_time_only():
    assert ran() > 1

def test_twice():
    assert ran() not in (1, 4)

@pytest.mark.parametrize("name", ["a b", "c::d"])
def test_always(name):
    assert name == "other"
"""

MANY = """
import pytest

@pytest.mark.parametrize("n", range(6))
def test_it(n):
    assert open("ran", "a").close()
"""


@pytest.mark.parametrize(
    ("run", "code", "said"),
    [
        ("test_first_time_only", 0, "== FLAKY: test_it.py::test_first_time_only failed above and then passed alone"),
        ("test_twice", 1, "== FAILED: test_it.py::test_twice"),
        ("test_always or test_good", 1, "== FAILED: test_it.py::test_always[c::d]"),
        ("test_good", 1, "== 0 tests failed"),  # whoever calls it was told of a failure: of something else, then
    ],
)
def test_what_fails_again_stays_a_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], run: str, code: int, said: str
) -> None:
    """Nor is a run that failed by something else than a test made good."""
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", ".", "-k", run]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert first.returncode == (run != "test_good"), first.stdout
    assert _again.main(tmp_path) == code
    assert said in capfd.readouterr().out


def test_many_failures_are_not_tried_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """That is no busy moment of the machine."""
    (tmp_path / "test_it.py").write_text(MANY, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, check=False)
    (tmp_path / "ran").unlink()
    assert _again.main(tmp_path) == 1
    assert "== 6 tests failed: none is tried again (up to 5 are)" in capfd.readouterr().out
    assert not (tmp_path / "ran").exists()
