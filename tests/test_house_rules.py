"""Rules of the house that a linter doesn't know: sizes, docstrings, words that don't belong into a repository."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
from pathlib import Path

import pytest

from tests._house import PACKAGE, ROOT, trees

MAX_MODULE = 500
MAX_FUNCTION = 40
Function = ast.FunctionDef | ast.AsyncFunctionDef


def repository_files() -> list[Path]:
    """Files that git knows or would add; all of them where there is no git (an unpacked archive)."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        names = [ROOT / name for name in listed.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = [path for path in ROOT.rglob("*") if not any(p.startswith((".", "__")) for p in path.parts)]
    return [path for path in names if path.is_file()]


def functions(tree: ast.AST) -> list[Function]:
    """All functions and methods in it."""
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def is_overload(node: ast.AST) -> bool:
    """Only a further signature of the function that follows."""
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in getattr(node, "decorator_list", ()))


def test_modules_are_short() -> None:
    """No module is longer than 500 lines."""
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert not {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MAX_MODULE}


def test_functions_are_short() -> None:
    """95 % of the functions fit in 40 lines, docstrings included."""
    lengths = {
        f"{module}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module, tree in trees().items()
        for node in functions(tree)
    }
    *_, p95 = statistics.quantiles(lengths.values(), n=20)
    print(f"functions: {len(lengths)}, median {statistics.median(lengths.values())} lines, 95 % within {p95:.0f}")
    longest = sorted(lengths.items(), key=lambda item: -item[1])[:10]
    assert p95 <= MAX_FUNCTION, longest


def test_public_names_have_docstrings() -> None:
    """Every module, and every public class and function at the top of one, says what it is."""
    silent = []
    for module, tree in trees().items():
        tops = [
            n for n in tree.body if isinstance(n, (ast.ClassDef, *Function.__args__)) and not n.name.startswith("_")
        ]
        silent += [module] if not ast.get_docstring(tree) else []
        silent += [f"{module}.{n.name}" for n in tops if not ast.get_docstring(n) and not is_overload(n)]
    assert not silent


def test_tests_have_docstrings() -> None:
    """Every test says the behaviour that it holds."""
    silent = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in functions(ast.parse(path.read_text("utf-8")))
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert not silent


def test_tests_fork_in_processes_of_their_own() -> None:
    """No test forks the process of the tests: threads of others may hold locks then, for which the child would wait."""
    forks = [
        f"{path.relative_to(ROOT)}:{node.lineno}: take tests/_forks.py"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path.name != "_forks.py" and "fork()" in path.read_text("utf-8")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.fork"
    ]
    assert not forks


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?<![\w.~>-])/(?:wo" + r"rk|ro" + r"ot)/",  # absolute paths of somebody's machine
        r"py" + r"pi\.org",  # hosts of package indexes: a mirror is everybody's own choice
        r"files\.python" + r"hosted",
    ],
)
def test_no_words_of_one_machine(pattern: str) -> None:
    """No file names a path or a package host that only one machine has."""
    found = []
    for path in repository_files():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in re.finditer(pattern, text)]
    assert not found
