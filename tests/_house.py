"""The source of escalade as syntax trees, for the tests that look at its shape."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "escalade"


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Dotted module name -> its tree."""
    return {_dotted(path): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(module: str, *, types: bool = True) -> set[str]:
    """Modules of escalade that it imports, anywhere in it; `types=False` leaves out those under TYPE_CHECKING."""
    tree = trees()[module]
    found = _found(tree, module)
    if not types:
        guarded = [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ]
        only = set().union(*(_found(part, module) for node in guarded for part in node.body))
        found -= only
    return found


def _found(tree: ast.AST, module: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import; write it out"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in trees() else str(node.module))
    return {name for name in names if name.split(".")[0] == "escalade"} - {module}
