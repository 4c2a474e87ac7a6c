"""Manifests: tools out of YAML, JSON and TOML, and problems that say where they are."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

import escalade
from escalade import Registry, ToolSpec, tool
from escalade.errors import BadInput
from escalade.money import Money
from escalade.registry.limits import RateLimit
from escalade.registry.manifest import SCHEMA_FILE, manifest_schema, read_manifest


def find(query: str, limit: int = 10) -> list[str]:
    """Customers whose name contains the query."""
    return [query] * limit


@tool(name="mail.send", version="2.0.0", cost="0.01", owner="post", side_effects="irreversible")
def send(to: str) -> None:
    """Send a letter."""


@tool(name="pages.read", cost=lambda args: "0.01" if args["n"] > 1 else "0.001", max_cost="0.01", dry="a page")
def pages(n: int) -> str:
    """Read pages."""
    return "page " * n


class Box:
    """Functions can be inside of something."""

    find = staticmethod(find)


@pytest.fixture(autouse=True)
def _shop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `shop.crm` to name in manifests."""
    package, module = types.ModuleType("shop"), types.ModuleType("shop.crm")
    module.__dict__.update(find=find, send=send, pages=pages, Box=Box, number=3)
    monkeypatch.setitem(sys.modules, "shop", package)
    monkeypatch.setitem(sys.modules, "shop.crm", module)


YAML = """\
registry: shop
defaults:
  owner: shop
  limits: 5/s, 100/min
tools:
  - function: shop.crm:find
    name: crm.search
    version: 1.2.0
    description: Finds customers.
    cost: "0.002"
    side_effects: read
    tags: [crm, search]
    timeout: 5
    deprecated: {message: slow, sunset: 2999-01-31, replacement: crm.find}
  - function: shop.crm:Box.find
    name: crm.search
    version: 1.3.0
    side_effects: read
    cost: "0.002"
    yanked: it lost customers
  - function: shop.crm:send
    limits: 1/min
"""

JSON = json.dumps(
    {
        "registry": "shop",
        "defaults": {"owner": "shop", "limits": "5/s, 100/min"},
        "tools": [
            {
                "function": "shop.crm:find", "name": "crm.search", "version": "1.2.0", "cost": "0.002",
                "description": "Finds customers.", "side_effects": "read", "tags": ["crm", "search"], "timeout": 5,
                "deprecated": {"message": "slow", "sunset": "2999-01-31", "replacement": "crm.find"},
            },
            {
                "function": "shop.crm:Box.find", "name": "crm.search", "version": "1.3.0", "side_effects": "read",
                "cost": "0.002", "yanked": "it lost customers",
            },
            {"function": "shop.crm:send", "limits": "1/min"},
        ],
    },
    indent=1,
)  # fmt: skip

TOML = """\
registry = "shop"

[defaults]
owner = "shop"
limits = "5/s, 100/min"

[[tools]]
function = "shop.crm:find"
name = "crm.search"
version = "1.2.0"
description = "Finds customers."
cost = "0.002"
side_effects = "read"
tags = ["crm", "search"]
timeout = 5
deprecated = {message = "slow", sunset = 2999-01-31, replacement = "crm.find"}

[[tools]]
function = "shop.crm:Box.find"
name = "crm.search"
version = "1.3.0"
side_effects = "read"
cost = "0.002"
yanked = "it lost customers"

[[tools]]
function = "shop.crm:send"
limits = "1/min"
"""


def written(folder: Path, text: str, suffix: str = "yaml") -> Path:
    path = folder / f"tools.{suffix}"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(("suffix", "text"), [("yaml", YAML), ("json", JSON), ("toml", TOML)])
def test_the_same_in_three_forms(tmp_path: Path, suffix: str, text: str) -> None:
    """All fields arrive; what `@tool` said counts before the defaults, and what the entry says before both."""
    registry = Registry.load(written(tmp_path, text, suffix))
    assert registry.name == "shop"
    search = registry.spec("crm.search", "1.2.0")
    assert (search.cost, search.limits) == (Money.of("0.002"), (RateLimit(5, 1), RateLimit(100, 60)))
    assert (search.owner, search.tags, search.timeout) == ("shop", ("crm", "search"), 5.0)
    assert (search.description, search.side_effects) == ("Finds customers.", "read")
    assert search.input_schema["required"] == ["query"]
    sent = registry.spec("mail.send")
    assert (sent.version, sent.cost, sent.owner) == ("2.0.0", Money.of("0.01"), "post")
    assert (sent.limits, sent.side_effects) == ((RateLimit(1, 60),), "irreversible")
    assert registry.spec("crm.search", "^1").version == "1.2.0", "1.3.0 is yanked"
    assert registry.status("crm.search", "1.3.0").yanked == "it lost customers"
    deprecated = registry.status("crm.search", "1.2.0").deprecated
    assert deprecated is not None
    assert str(deprecated) == "slow; sunset on 2999-01-31; use crm.find"


def test_functions_that_no_file_can_say_are_kept(tmp_path: Path) -> None:
    """A price by arguments and a dry answer, given to `@tool`, hold for the manifest's version of the tool."""
    text = "tools: [{function: 'shop.crm:pages', owner: press}, {function: 'shop.crm:pages', name: p, cost: '0.5'}]"
    registry = Registry.load(written(tmp_path, text))
    with escalade.scope(budget="1.00") as run:
        registry.resolve("pages.read")(n=3)
        assert run.spent == Money.of("0.01")
        registry.resolve("p")(n=3)
        assert run.spent == Money.of("0.51")
    with escalade.scope(mode="dry-run"):
        assert registry.resolve("pages.read")(n=3) == "a page"
    assert registry.spec("pages.read").owner == "press"


BAD = """\
defaults:
  colour: red
tools:
  - function: shop.crm:find
    name: crm.search
    version: 1.2
    cost: 0.002
  - function: shop.crm:missing
    name: gone
  - name: nothing
  - function: nowhere.at:all
  - function: shop.crm:number
  - just a text
  - function: shop.crm:find
    name: Bad Name
    sise_effects: read
  - function: shop.crm:find
    name: fine
    deprecated:
      sunset: soon
  - function: shop.crm:find
    name: twice
  - function: shop.crm:find
    name: twice
  - function: no entry point
  - function: shop.crm:find
    name: dear
    cost: "0.001"
    max_cost: "0.0001"
"""


def test_every_problem_says_where(tmp_path: Path) -> None:
    """File, line, key and what to do, for each problem; what is fine is there all the same."""
    path = written(tmp_path, BAD)
    registry, problems = read_manifest(path)
    said = [str(problem).removeprefix(f"{path}:") for problem in problems]
    expected = [
        "2: defaults.colour: unknown key (known: approval, ",
        "6: tools[0].version: Input should be a valid string (quote it: \"1.2\")",
        "7: tools[0].cost: not an amount of dollars: 0.002",
        "8: tools[1].function: module 'shop.crm' has no 'missing'",
        "10: tools[2].function: is missing; write it like 'module:function'",
        "11: tools[3].function: module 'nowhere.at' can't be imported (ModuleNotFoundError: ",
        "12: tools[4].function: 'shop.crm:number' is no function",
        "13: tools[5]: expected a mapping with the key 'function', got 'just a text'",
        "16: tools[6].sise_effects: unknown key (known: approval, ",
        "20: tools[7].deprecated.sunset: expected a date like '2026-12-31', got 'soon'",
        "23: tools[9]: tool twice@1.0.0 is registered already; versions are immutable, publish a new one",
        "25: tools[10].function: expected 'module:function', got 'no entry point'",
        "26: tools[11]: a cost of $0.001 is more than the max_cost of $0.0001",
    ]  # fmt: skip
    assert len(said) == len(expected)
    for one, start in zip(said, expected, strict=True):
        assert one.startswith(start)
    assert [spec.name for spec in registry.specs()] == ["twice"]
    with pytest.raises(BadInput, match=r"tools.yaml:2: defaults.colour: unknown key .* \(and 12 more"):
        Registry.load(path)


@pytest.mark.parametrize(
    ("suffix", "text", "wrong"),
    [
        ("toml", TOML.replace('cost = "0.002"\nside_effects = "read"\ntags', "cost = 0.002\ntags"), "cost = 0.002"),
        ("json", JSON.replace('"limits": "1/min"', '"limits": "often"'), '"limits": "often"'),
        ("toml", TOML.replace('limits = "1/min"', 'limits = "often"'), 'limits = "often"'),
    ],
)
def test_lines_in_the_other_forms(tmp_path: Path, suffix: str, text: str, wrong: str) -> None:
    """JSON and TOML have lines, too."""
    line = text[: text.index(wrong)].count("\n") + 1
    path = written(tmp_path, text, suffix)
    _, problems = read_manifest(path)
    assert [problem.line for problem in problems] == [line]
    assert f"{path}:{line}: " in str(problems[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tools: [", "tools.yaml:1: is not YAML"),
        ("tools: {}", "tools.yaml: expected a mapping with the key 'tools', and a list of tools in it"),
        ("- 1", "tools.yaml: expected a mapping"),
        ("tools: []\ntools: []", "tools.yaml:2: the key 'tools' occurs twice"),
        ("tools: []\nmore: 1", "tools.yaml:2: more: unknown key"),
        ("manifest: 2\ntools: []", "tools.yaml:1: manifest: version 2 of manifests is not known"),
        ("registry: 3\ntools: []", "tools.yaml:1: registry: expected a name, got 3"),
        ("defaults: 3\ntools: []", "tools.yaml:1: defaults: expected a mapping, got 3"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, text: str, message: str) -> None:
    """Broken files are refused in one line."""
    with pytest.raises(BadInput) as caught:
        Registry.load(written(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_gate_holds_for_manifests(tmp_path: Path) -> None:
    """A version in a manifest that breaks what the one before promises is a problem of the manifest, with its line."""
    text = """\
tools:
  - {function: "shop.crm:find", name: crm.search, version: 1.0.0, side_effects: read}
  - {function: "shop.crm:find", name: crm.search, version: 1.1.0, side_effects: write}
"""
    path = written(tmp_path, text)
    with pytest.raises(BadInput, match=r"tools.yaml:3: tools\[1\]: crm.search@1.1.0 breaks callers of 1.0.0"):
        Registry.load(path)
    assert len(Registry.load(path, gate="off").specs()) == 2


def test_the_published_schema_is_up_to_date() -> None:
    """The file that ships is what `manifest_schema` makes; `escalade tools schema > FILE` writes it anew."""
    assert json.loads(SCHEMA_FILE.read_text("utf-8")) == manifest_schema()


def test_the_schema_knows_every_field() -> None:
    """A new field of `ToolSpec` is a new key of manifests, without a change here."""
    properties = manifest_schema()["properties"]["tools"]["items"]["properties"]
    fields = set(ToolSpec.model_fields) - {"input_schema", "output_schema"}
    assert set(properties) == fields | {"function", "deprecated", "yanked"}


def test_the_schema_takes_what_loads() -> None:
    """Editors accept the manifest above and mark what is wrong in others."""
    validator = jsonschema_rs.Draft202012Validator(manifest_schema())
    assert validator.is_valid(json.loads(JSON))

    def entry(**said: Any) -> dict[str, Any]:
        return {"tools": [{"function": "a:b", **said}]}

    assert validator.is_valid(entry(cost=None, approval="always", tags=["x"]))
    for wrong in (
        entry(cost=0.1), entry(colour="red"), entry(version="1.2"), entry(name="A"), {"tools": [{}]}, {},
        entry(side_effects="some"), entry(deprecated={"why": "x"}), {"tools": [], "more": 1},
    ):  # fmt: skip
        assert not validator.is_valid(wrong), wrong
