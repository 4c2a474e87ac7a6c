"""What the documentation shows works: its Python runs, so do docstrings, commands exit with 0, links lead somewhere.

Blocks of one page share a namespace, in order. A block is left out only by `<!-- skip: reason -->` right before it,
for snippets that need a real provider.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import importlib
import inspect
import io
import itertools
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
PRINTED = {"text", "mermaid"}
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+\.svg)\)")
BLOCKED = "import runpy, sys; sys.path.insert(0, {root!r}); from tests import _network; _network.block(); {run}"


@dataclass(frozen=True)
class Block:
    """A fenced block. `skip`: the reason to leave it out, None to run it. `line`: of its first line of text. `shows`:
    the block of `text` or `mermaid` that follows it at once, which is what it prints; None for none.
    """

    kind: str
    text: str
    skip: str | None
    line: int
    shows: str | None = None


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text("utf-8")
    found = list(FENCE.finditer(text))
    return [
        Block(m["kind"], m["text"], m["skip"], text.count("\n", 0, m.start("text")) + 1, _shown(text, m, follower))
        for m, follower in itertools.zip_longest(found, found[1:])
    ]


def _shown(text: str, block: re.Match[str], follower: re.Match[str] | None) -> str | None:
    if follower is None or follower["kind"] not in PRINTED or text[block.end() : follower.start()].strip():
        return None
    return follower["text"]


def commands(page: Path) -> dict[str, str | None]:
    """Commands of ours in the shell blocks of a page: lines that begin with `$ `, or all where none does; and what the
    page says that the only command of a block prints.
    """
    found: dict[str, str | None] = {}
    for block in blocks(page):
        if block.kind in SHELLS and block.skip is None:
            lines = [line.strip() for line in block.text.replace("\\\n", "").splitlines()]
            prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            shown = block.shows if len(prompted or lines) == 1 else None
            found |= dict.fromkeys(prompted or lines, shown)
    return {line: shown for line, shown in found.items() if line.split()[:1] in (["escalade"], ["scripts/compare"])}


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


class Fresh:
    """Finds no module, but has the others look again: a page imports what it has just written, and they believe what
    they know of a folder until its time stamp changes, which within a few milliseconds it doesn't.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if path is None:
            sys.path_importer_cache.pop(str(Path.cwd()), None)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of the page runs, top to bottom, in an empty directory, and prints what the page shows; the
    pictures that the page shows are those that it saved.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "meta_path", [Fresh(), *sys.meta_path])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the programs that a page starts
    before = set(sys.modules)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.kind == "python" and block.skip is None:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                execute(block, page, names)
            if block.shows is not None:
                assert printed.getvalue() == block.shows, f"{page}:{block.line} prints something else"
    for picture in PICTURE.findall(page.read_text("utf-8")):
        shown = (page.parent / picture).read_text("utf-8")
        assert Path(Path(picture).name).read_text("utf-8") == shown, f"{picture}: save it again"
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]  # another page writes a module of the same name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_skips_have_reasons(page: Path) -> None:
    """A block that is left out says why."""
    assert all(block.skip is None or len(block.skip.strip()) > 10 for block in blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "shown"), sorted({c: s for page in PAGES for c, s in commands(page).items()}.items())
)
def test_commands_exit_with_zero(command: str, shown: str | None) -> None:
    """`escalade …` and `scripts/compare …` as shown, without the network; pipes and `#` comments are cut off. Where the
    page shows what one prints, it does.
    """
    parts = shlex.split(command, comments=True)
    words = list(itertools.takewhile(lambda part: not part.startswith(("|", ">")), parts))
    words = words[1:] if words[0] == "escalade" else ["compare", *words[1:]]
    start = f"sys.argv[1:] = {words!r}; runpy.run_module('escalade', run_name='__main__')"
    code = BLOCKED.format(root=str(ROOT), run=start)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if shown is not None:
        assert [line.rstrip() for line in done.stdout.splitlines()] == shown.splitlines()


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
