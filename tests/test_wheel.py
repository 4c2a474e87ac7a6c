"""What people install: the built wheel, not the tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests._house import PACKAGE, ROOT

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Its output. The environment is the caller's without what would lead Python back into the tree."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out, ROOT, cwd=out)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin/` of an empty environment with the wheel; what it depends on is borrowed (`scripts/wheel` installs it)."""
    home = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    inside: dict[str, Any] = {"base": str(home), "platbase": str(home)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=inside))
    # Its own .pth files, one of which leads into the tree, aren't read when a directory is added by a .pth file.
    site.joinpath("borrowed.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=home)
    return python.parent


def test_contents(wheel: Path) -> None:
    """The package with its data and py.typed, its licence, and nothing else."""
    names = set(zipfile.ZipFile(wheel).namelist())
    meta = f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info/"
    files = {p.relative_to(ROOT).as_posix() for p in PACKAGE.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert {name for name in names if not name.startswith(meta)} == files
    assert {"escalade/py.typed", f"{meta}licenses/LICENSE", f"{meta}entry_points.txt"} <= names
    assert any(name.startswith("escalade/evals/data/") for name in names)


def test_is_typed_and_versioned(installed: Path, tmp_path: Path) -> None:
    """The installed package is the one that is imported, and agrees about its version."""
    code = "import escalade as e, importlib.metadata as m; print(e.__file__, e.__version__, m.version('escalade'))"
    where, own, declared = run(installed / "python", "-c", code, cwd=tmp_path).split()
    assert Path(where).is_relative_to(installed.parent)
    assert own == declared


def test_compare_runs_anywhere(installed: Path, tmp_path: Path) -> None:
    """`escalade compare --json` works from another directory, on the data that ships with it."""
    report = json.loads(run(installed / "escalade", "compare", "--json", "--limit", "60", cwd=tmp_path))
    assert {"dataset", "baseline", "labels", "policies"} <= set(report)
    assert not list(tmp_path.iterdir())
