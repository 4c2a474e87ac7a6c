"""What the documentation shows works: its Python runs, so do docstrings, commands exit with 0, links lead somewhere.

Blocks of one page share a namespace, in order. A block is left out only by `<!-- skip: reason -->` right before it,
for snippets that need a real provider.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests._house import ROOT, trees

PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FENCE = re.compile(
    r"(?:<!--\s*skip:(?P<skip>[^>]*)-->\s*\n)?^```(?P<kind>[a-z]+)[^\n]*\n(?P<text>.*?)^```\s*$",
    re.MULTILINE | re.DOTALL,
)
SHELLS = {"console", "sh", "bash", "shell"}
BLOCKED = "import runpy, sys; sys.path.insert(0, {root!r}); from tests import _network; _network.block(); {run}"


@dataclass(frozen=True)
class Block:
    """A fenced block. `skip`: the reason to leave it out, None to run it. `line`: of its first line of text."""

    kind: str
    text: str
    skip: str | None
    line: int


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text("utf-8")
    return [
        Block(m["kind"], m["text"], m["skip"], text.count("\n", 0, m.start("text")) + 1) for m in FENCE.finditer(text)
    ]


def commands(page: Path) -> list[str]:
    """Commands of ours in the shell blocks of a page: lines that begin with `$ `, or all where none does."""
    found: list[str] = []
    for block in blocks(page):
        if block.kind in SHELLS and block.skip is None:
            lines = [line.strip() for line in block.text.replace("\\\n", "").splitlines()]
            prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            found += prompted or lines
    return [line for line in found if line.split()[:1] in (["escalade"], ["scripts/compare"])]


def docstrings(tree: ast.Module) -> list[str]:
    """All of them in a module."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, owners)]


def name_of(page: Path) -> str:
    """For the ids of tests."""
    return page.relative_to(ROOT).as_posix()


def execute(block: Block, page: Path, names: dict[str, Any]) -> None:
    """Run it as a notebook would: `await` is allowed at the top."""
    tree = ast.parse(block.text, str(page))
    ast.increment_lineno(tree, block.line - 1)  # tracebacks point into the page
    code = compile(tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, names))  # noqa: S307  # our own documentation
    else:
        exec(code, names)  # noqa: S102  # as above


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of the page runs, top to bottom, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.kind == "python" and block.skip is None:
            execute(block, page, names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_skips_have_reasons(page: Path) -> None:
    """A block that is left out says why."""
    assert all(block.skip is None or len(block.skip.strip()) > 10 for block in blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({c for page in PAGES for c in commands(page)}))
def test_commands_exit_with_zero(command: str, tmp_path: Path) -> None:
    """`escalade …` and `scripts/compare …` as shown, without the network; pipes and `#` comments are cut off."""
    words = shlex.split(re.split(r"\s[|#>]", command)[0])
    words = words[1:] if words[0] == "escalade" else ["compare", *words[1:]]
    start = f"sys.argv[1:] = {words!r}; runpy.run_module('escalade', run_name='__main__')"
    code = BLOCKED.format(root=str(ROOT), run=start)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_examples_run(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example runs as it is, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")


@pytest.mark.parametrize(
    "module", [name for name, tree in trees().items() if any(">>> " in d for d in docstrings(tree))]
)
def test_docstrings_run(module: str) -> None:
    """Examples in docstrings give what they show."""
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links of a page point at files of the repository."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []
