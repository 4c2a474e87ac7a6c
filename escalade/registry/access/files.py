"""Policies in files: YAML, JSON or TOML of one form, which `policy.schema.json` describes.

    version: 1
    roles:
      reader: ["crm.*:read"]
      clerk:
        inherits: [reader]
        grants:
          - {permit: "payments.charge:call", when: {amount: {"<=": 100}}}

A key that occurs twice is an error: most parsers would silently drop the first one, which may have been a denial.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput
from escalade.registry.nesting import TooDeep, parsed

if TYPE_CHECKING:
    from escalade.registry.access.policy import Roles

SCHEMA_FILE = Path(__file__).with_name("policy.schema.json")
"""JSON schema of policy files, for editors and other programs."""


def load_policy(path: str | Path) -> Roles:
    """A policy from a file; by its suffix .yaml, .yml, .json or .toml. Raises BadInput: `FILE:LINE: what is wrong`."""
    from escalade.registry.access.policy import Roles

    file = Path(path)
    text, written = read_file(file)
    if not isinstance(written, Mapping) or "roles" not in written:
        raise BadInput(f"{file}: expected a mapping with the key 'roles', and roles in it")
    for key in written:
        if key not in {"version", "roles", "$schema"}:
            raise BadInput(f"{_at(file, text, [str(key)])}: unknown key {key!r} (known: version, roles)")
    if written.get("version", 1) != 1:
        raise BadInput(f"{_at(file, text, ['version'])}: version {written['version']!r} is not known (known: 1)")
    roles = written["roles"]
    if not isinstance(roles, Mapping) or not roles:
        raise BadInput(f"{_at(file, text, ['roles'])}: expected a mapping of roles, got {roles!r}")
    try:
        return Roles(roles)
    except BadInput as error:
        raise BadInput(f"{_at(file, text, _named(str(error)))}: {error}") from None


def read_file(file: Path) -> tuple[str, Any]:
    """The text of a YAML, JSON or TOML file, and what it says. Raises BadInput: `FILE:LINE: what is wrong`."""
    parse = _PARSERS.get(file.suffix.lower())
    if parse is None:
        raise BadInput(f"{file}: expected a file in {', '.join(sorted(_PARSERS))}")
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise BadInput(f"{file}: can't be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise BadInput(f"{file}: is not UTF-8 text") from None
    try:
        return text, parsed(text, parse)
    except _Malformed as error:
        where = f"{file}:{error.line}" if error.line else f"{file}"
        raise BadInput(f"{where}: {error}") from None
    except TooDeep as error:
        raise BadInput(f"{file}: {error}") from None


class _Malformed(Exception):
    """What a parser said, and the line, from 1; 0 where it is not known."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(" ".join(message.split()))
        self.line = line


def _json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise _Malformed(f"the key {key!r} occurs twice", _line(text, [key, key]))
            seen[key] = value
        return seen

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise _Malformed(f"is not JSON: {error.msg}", error.lineno) from None


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise _Malformed(f"is not TOML: {error}", int(found[1]) if found else 0) from None


def _yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses keys that occur twice."""

    def once(loader: Any, node: Any) -> dict[Any, Any]:
        loader.flatten_mapping(node)
        seen: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            if key in seen:
                raise _Malformed(f"the key {key!r} occurs twice", key_node.start_mark.line + 1)
            seen[key] = loader.construct_object(value_node, deep=True)
        return seen

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, once)
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise _Malformed(f"is not YAML: {error.problem}", mark.line + 1 if mark else 0) from None
    except (yaml.YAMLError, TypeError) as error:
        raise _Malformed(f"is not YAML: {error}") from None


_PARSERS: dict[str, Callable[[str], Any]] = {".yaml": _yaml, ".yml": _yaml, ".json": _json, ".toml": _toml}


def _named(message: str) -> list[str]:
    """What an error quotes, in order: it stands in the file, one thing after the other."""
    return [quoted for pair in re.findall(r"'([^']*)'|\"([^\"]*)\"", message.partition("(known")[0]) for quoted in pair]


def _at(file: Path, text: str, names: list[str]) -> str:
    line = _line(text, names)
    return f"{file}:{line}" if line else f"{file}"


def _line(text: str, names: list[str]) -> int:
    """The line in which the last of these names stands, each sought after the one before; 0 if the first doesn't."""
    place = -1
    for name in names:
        found = re.compile(rf"(?<![\w.*-]){re.escape(name)}(?![\w.*-])").search(text, place + 1) if name else None
        place = found.start() if found else place
    return text.count("\n", 0, place) + 1 if place >= 0 else 0
