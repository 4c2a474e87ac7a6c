"""The README shows what really comes out: of its code, and of the comparison."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from escalade import compare
from escalade.evals.report import show
from tests._house import ROOT
from tests.test_docs import Block, blocks, execute

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


def test_example_is_short() -> None:
    """The example is about twenty lines, and the first code that a reader meets."""
    first = next(block for block in blocks(README) if block.kind == "python")
    assert len([line for line in first.text.splitlines() if line]) <= 20
    assert not re.search(r"api_key|env:", first.text)
