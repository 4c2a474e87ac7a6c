"""What is nested too deeply is refused by whoever reads it, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from escalade import Gateway, Registry, Roles
from escalade._cli_view import json_object
from escalade.errors import BadInput
from escalade.registry.lock import Lock
from escalade.registry.manifest import read_manifest
from escalade.registry.nesting import DEEPEST, TooDeep, parsed, shallow
from escalade.registry.sources.openapi import import_openapi
from escalade.registry.sources.pins import Pins

TEXTS = {
    "json": '{"%s": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "yaml": "%s: " + "[" * 5_000 + "]" * 5_000,
    "toml": "%s = " + "[" * 5_000 + "]" * 5_000,
}
READERS: dict[str, Callable[[Path], object]] = {
    "tools": read_manifest,
    "roles": Roles.load,
    "models": Gateway.from_file,
    "openapi": lambda path: import_openapi(Registry(), "shop", path, operations="*", base_url="https://a.example"),
}


@pytest.mark.parametrize("key", READERS)
@pytest.mark.parametrize("suffix", TEXTS)
def test_files(tmp_path: Path, suffix: str, key: str) -> None:
    """Of tools, roles, models and web APIs, in any format: the error names the file."""
    if (key, suffix) == ("openapi", "toml"):
        return
    path = tmp_path / f"deep.{suffix}"
    path.write_text(TEXTS[suffix] % key)
    with pytest.raises(BadInput, match=rf"deep\.{suffix}: nested too deeply: 100 levels at most"):
        READERS[key](path)


def test_what_programs_wrote(tmp_path: Path) -> None:
    """A lock and pins, and arguments on a command line."""
    path = tmp_path / "deep.json"
    path.write_text(TEXTS["json"] % "tools")
    with pytest.raises(BadInput, match="deep.json: is no lock file .*nested too deeply"):
        Lock.load(path)
    with pytest.raises(BadInput, match="deep.json: can't be read"):
        Pins(path).of("shop")
    with pytest.raises(BadInput, match="--args: nested too deeply"):
        json_object(TEXTS["json"] % "tools", "--args", "{}")


def test_a_description_in_memory() -> None:
    """As a mapping it is looked at all the same, one that contains itself too."""
    description: dict[str, Any] = {"openapi": "3.0.3"}
    description["paths"] = description
    with pytest.raises(BadInput, match="the description: nested too deeply"):
        import_openapi(Registry(), "shop", description, operations="*", base_url="https://a.example")


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def test_the_limit() -> None:
    """A hundred levels pass, one more doesn't; text and numbers have none."""
    assert shallow(nested(DEEPEST)) == nested(DEEPEST)
    assert parsed(json.dumps(nested(DEEPEST))) == nested(DEEPEST)
    assert (shallow("text"), shallow([]), shallow({})) == ("text", [], {})
    for value in (nested(DEEPEST + 1), nested(100_000)):
        with pytest.raises(TooDeep):
            shallow(value)


def test_the_same_list_many_times_is_looked_at_once() -> None:
    """A few aliases of YAML that stand for 2 ** 90 values."""
    value: Any = [1]
    for _ in range(90):
        value = [value, value]
    assert shallow(value) is value
