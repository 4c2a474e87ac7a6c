"""The README shows what really comes out: of its code, and of the comparison."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from escalade import compare
from escalade.evals.report import show
from tests._house import ROOT
from tests.test_docs import BLOCKED, Block, blocks, execute

README = ROOT / "README.md"


def shown(after: int, listed: list[Block]) -> str | None:
    """The text block right behind block number `after`, None if there is none."""
    follower = listed[after + 1] if after + 1 < len(listed) else None
    gap = follower.line - listed[after].line - len(listed[after].text.splitlines()) if follower else 99
    return follower.text if follower is not None and follower.kind == "text" and gap <= 3 else None


def test_code_prints_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a text block follows a block of code, it is what the code prints, to the letter."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    listed, checked = blocks(README), 0
    for number, block in enumerate(listed):
        if block.kind != "python" or block.skip is not None:
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            execute(block, README, names)
        expected = shown(number, listed)
        if expected is not None:
            assert printed.getvalue() == expected, f"the block at line {block.line} prints something else"
            checked += 1
    assert checked >= 2


def test_table_is_what_compare_prints() -> None:
    """The table of policies, and the closing sentences, are those of `escalade compare`, 100 columns wide."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    show(compare(), console)
    real = [line.rstrip() for line in console.file.getvalue().splitlines()]
    table = next(block.text for block in blocks(README) if block.text.startswith("gsm8k-ladder"))
    lines = [line for line in table.splitlines() if line.strip() not in {"", "[…]"}]
    assert len(lines) > 25
    missing = [line for line in lines if line not in real]
    assert not missing, "paste the output of `COLUMNS=100 escalade compare` anew"


def test_the_study_prints_what_is_shown(tmp_path: Path) -> None:
    """Its file, as shown, runs without a network in less than 30 s, and prints the table to the byte."""
    listed = blocks(README)
    at = next(number for number, block in enumerate(listed) if block.kind == "yaml" and "study.yaml" in block.text)
    assert listed[at + 1].text.split() == ["$", "escalade", "run", "study.yaml"]
    (tmp_path / "study.yaml").write_text(listed[at].text, "utf-8")
    begun = time.monotonic()
    done = _run("run study.yaml", tmp_path)
    assert time.monotonic() - begun < 30
    assert done.returncode == 0, done.stderr
    assert "1,200/1,200 attempts" in done.stderr
    assert [line.rstrip() for line in done.stdout.splitlines()] == listed[at + 2].text.splitlines()


def _run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command of ours, without the network, where lines are 100 columns wide."""
    start = f"sys.argv[1:] = {command.split()!r}; runpy.run_module('escalade', run_name='__main__')"
    code = BLOCKED.format(root=str(ROOT), run=start)
    environment = {**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_example_is_short() -> None:
    """The example is about twenty lines, and the first code that a reader meets."""
    first = next(block for block in blocks(README) if block.kind == "python")
    assert len([line for line in first.text.splitlines() if line]) <= 20
    assert not re.search(r"api_key|env:", first.text)
