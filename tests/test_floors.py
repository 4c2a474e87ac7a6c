"""The floors: nothing imports upward, and no module imports itself by way of others."""

from __future__ import annotations

import graphlib

from tests._house import imports, trees

BASE = {"clock", "errors", "money", "protocols", "scopes", "events", "telemetry"}
FLOORS = ("registry", "agents", "pipelines", "evals")


def floor(module: str) -> int:
    """0 for base modules, 1 to 4 for the rooms, 5 for the roof: `cli`, `demo`, and the table of contents itself."""
    name = f"{module}.".split(".")[1]
    return 0 if name in BASE else FLOORS.index(name) + 1 if name in FLOORS else 5


def test_nothing_imports_upward() -> None:
    """A module imports its own floor and those below, in functions and for types too."""
    upward = [
        f"{module} imports {name}"
        for module in trees()
        if module != "escalade"
        for name in imports(module)
        if floor(name) > floor(module)
    ]
    assert not upward


def test_no_cycles() -> None:
    """The imports of modules form no cycle; imports for types only don't count."""
    # The table of contents is imported by all and imports nothing: its names come when they are asked for.
    graph = {module: imports(module, types=False) - {"escalade"} for module in trees() if module != "escalade"}
    graphlib.TopologicalSorter(graph).prepare()


def test_every_room_is_there() -> None:
    """The four rooms keep their names."""
    assert set(FLOORS) <= {module.split(".")[1] for module in trees() if "." in module}


def test_nobody_needs_the_testing_kit() -> None:
    """It may import everything; what runs in production imports nothing of it."""
    found = [module for module in trees() for name in imports(module) if f"{name}.".startswith("escalade.testing.")]
    assert all(module.startswith("escalade.testing") for module in found), found
    assert found
