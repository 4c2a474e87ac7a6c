"""The table of contents: what `escalade` exports, and that its three lists agree."""

from __future__ import annotations

import ast

import pytest

import escalade
from tests._house import ROOT, trees


def declared_for_types() -> dict[str, str]:
    """Name -> module, as the type checker sees them."""
    return {
        alias.name: f"escalade.{alias.name}" if node.module == "escalade" else str(node.module)
        for node in ast.walk(trees()["escalade"])
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "escalade"
        for alias in node.names
    }


def test_lists_agree() -> None:
    """`__all__`, the imports for the type checker, and the modules that names are taken from are the same."""
    assert set(escalade.__all__) == set(declared_for_types())
    homes = {name: f"escalade.{escalade._HOME.get(name, 'errors')}" for name in escalade.__all__}
    assert homes == declared_for_types()
    assert len(escalade.__all__) == len(set(escalade.__all__))


@pytest.mark.parametrize("name", escalade.__all__)
def test_every_name_is_there(name: str) -> None:
    """Each exported name can be had, and says what it is."""
    value = getattr(escalade, name)
    assert value.__doc__
    assert getattr(escalade, name) is value


def test_type_checker_sees_every_name() -> None:
    """`tests/typing/api.py` uses all that is exported."""
    nodes = list(ast.walk(ast.parse((ROOT / "tests/typing/api.py").read_text("utf-8"))))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    used |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
    assert set(escalade.__all__) <= used


def test_errors_are_complete() -> None:
    """Every public error is exported."""
    errors = {n.name for n in ast.walk(trees()["escalade.errors"]) if isinstance(n, ast.ClassDef)}
    assert errors <= set(escalade.__all__)


def test_a_module_is_exported_as_itself() -> None:
    """`escalade.telemetry` is there without an import of its own, so that `escalade.telemetry.enable()` works."""
    import escalade.telemetry as module

    assert escalade.telemetry is module
    assert callable(escalade.telemetry.enable)


def test_functions_win_over_modules() -> None:
    """`escalade.climb`, `scope`, `compare` stay functions after the modules of these names were imported."""
    import escalade.agents.climb
    import escalade.evals.compare

    assert all(callable(f) for f in (escalade.climb, escalade.scope, escalade.compare, escalade.tool))


def test_unknown_names_are_attribute_errors() -> None:
    """`hasattr` works, and `dir` shows what there is."""
    assert not hasattr(escalade, "eskalade")
    assert set(escalade.__all__) <= set(dir(escalade))
