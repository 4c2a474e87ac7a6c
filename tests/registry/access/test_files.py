"""Policies in files: three formats, one meaning, errors that say where; and the published schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given

from escalade.errors import BadInput
from escalade.registry.access import Roles
from escalade.registry.access.files import SCHEMA_FILE
from tests._house import ROOT
from tests.registry.access.policies import made, written

YAML = """
version: 1
roles:
  reader: ["crm.*:read"]
  clerk:
    inherits: [reader]
    tenants: [acme]
    grants:
      - permit: pay.charge:call
        when: {amount: {"<=": 100}, since: {">=": 2026-01-01}}
        needs: approval
      - {deny: "*:irreversible"}
"""
JSON = """
{"version": 1, "roles": {"reader": ["crm.*:read"], "clerk": {"inherits": ["reader"], "tenants": ["acme"], "grants": [
  {"permit": "pay.charge:call", "when": {"amount": {"<=": 100}, "since": {">=": "2026-01-01"}}, "needs": "approval"},
  {"deny": "*:irreversible"}]}}}
"""
TOML = """
version = 1
[roles]
reader = ["crm.*:read"]
[roles.clerk]
inherits = ["reader"]
tenants = ["acme"]
[[roles.clerk.grants]]
permit = "pay.charge:call"
needs = "approval"
when.amount."<=" = 100
when.since.">=" = 2026-01-01
[[roles.clerk.grants]]
deny = "*:irreversible"
"""


def loaded(tmp_path: Path, name: str, text: str) -> Roles:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return Roles.load(path)


def test_three_formats_one_policy(tmp_path: Path) -> None:
    """YAML, JSON and TOML of the same content have the same digest, dates included."""
    files = {"p.yaml": YAML, "p.yml": YAML, "p.json": JSON, "p.toml": TOML}
    assert len({loaded(tmp_path, name, text).digest for name, text in files.items()}) == 1


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.yaml", "roles:\n  a:\n    grant: []\n", "p.yaml:3: role 'a': unknown key 'grant'; did you mean 'grants'?"),
        ("p.yaml", "roles:\n  a: [x:call]\n  a: []\n", "p.yaml:3: the key 'a' occurs twice"),
        ("p.yaml", "roles:\n  a:\n    - {deny: x, deny: y}\n", "p.yaml:3: the key 'deny' occurs twice"),
        ("p.yaml", "roles:\n  a: [b\n", "p.yaml:3: is not YAML: expected ',' or ']'"),
        ("p.yaml", "roles: {a: *x}", "p.yaml:1: is not YAML: found undefined alias"),
        ("p.yaml", "roles: {? [a] : []}", "p.yaml: is not YAML"),
        ("p.yaml", "roles: !!python/object:os.system {}", "is not YAML: could not determine a constructor"),
        ("p.yaml", "- a", "expected a mapping with the key 'roles'"),
        ("p.yaml", "", "expected a mapping with the key 'roles'"),
        ("p.yaml", "roles: {}", "p.yaml:1: expected a mapping of roles, got {}"),
        ("p.yaml", "version: 2\nroles: {a: []}", "p.yaml:1: version 2 is not known (known: 1)"),
        ("p.yaml", "roles: {a: []}\nrules: []", "p.yaml:2: unknown key 'rules'"),
        ("p.json", '{"roles":\n {"a": ["x"],\n  "a": []}}', "p.json:3: the key 'a' occurs twice"),
        ("p.json", '{"roles":\n}', "p.json:2: is not JSON"),
        ("p.toml", "[roles]\na = [b]", "p.toml:2: is not TOML"),
        ("p.toml", "[roles]\na = []\na = []", "is not TOML"),
        ("p.toml", "[roles]\nb = []\na = ['x y']", "p.toml:3: role 'a': 'x y' is not a permission"),
        ("p.ini", "", "p.ini: expected a file in .json, .toml, .yaml, .yml"),
    ],
)
def test_errors_say_where(tmp_path: Path, name: str, text: str, said: str) -> None:
    """One line with file, line where it is known, and what is wrong; a key that occurs twice is never dropped."""
    with pytest.raises(BadInput) as caught:
        loaded(tmp_path, name, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    """A file that isn't there or is no text is bad input."""
    with pytest.raises(BadInput, match=r"none\.yaml: can't be read"):
        Roles.load(tmp_path / "none.yaml")
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="is not UTF-8 text"):
        Roles.load(tmp_path / "p.yaml")


def test_the_schema_takes_the_examples() -> None:
    """The published schema is a schema, and both example policies fit it."""
    schema = json.loads(SCHEMA_FILE.read_text("utf-8"))
    jsonschema_rs.meta.validate(schema)
    for path in sorted((ROOT / "examples/access").glob("policy*.yaml")):
        assert jsonschema_rs.is_valid(schema, Roles.load(path).to_json())


@given(written())
def test_the_schema_takes_what_we_take(roles: dict[str, Any]) -> None:
    """Every policy that can be read fits the schema, in the form that it was written in and in the canonical one."""
    schema = json.loads(SCHEMA_FILE.read_text("utf-8"))
    assert jsonschema_rs.is_valid(schema, {"roles": roles})
    assert jsonschema_rs.is_valid(schema, made(roles).to_json())


@pytest.mark.parametrize(
    "role",
    [
        {"grant": []},
        [5],
        ["a b"],
        ["crm"],
        [{"permit": "x:*", "deny": "y:*"}],
        [{"when": {"x": {"==": 1}}}],
        [{"deny": "x:*", "needs": "approval"}],
        [{"permit": "x:*", "needs": "luck"}],
        [{"permit": "x:*", "when": {}}],
        [{"permit": "x:*", "when": {"x": {"=<": 1}}}],
        [{"permit": "x:*", "when": {"x": {"in": []}}}],
        [{"permit": "x:*", "when": {"x": {"exists": 1}}}],
        [{"permit": []}],
        5,
    ],
)
def test_the_schema_refuses_what_we_refuse(role: Any) -> None:
    """What can't be read doesn't fit the schema either."""
    schema = json.loads(SCHEMA_FILE.read_text("utf-8"))
    assert not jsonschema_rs.is_valid(schema, {"roles": {"a": role}})
    with pytest.raises(BadInput):
        Roles({"a": role})
