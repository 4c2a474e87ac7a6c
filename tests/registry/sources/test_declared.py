"""Sources that a manifest declares: asked by nobody when it is loaded, shown, accepted, quarantined, in a terminal."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

import escalade
from escalade import Registry, cli
from escalade.errors import BadInput, Quarantined
from escalade.registry.manifest import manifest_schema, read_manifest
from escalade.registry.sources import _clients
from tests._house import ROOT
from tests.servers.mcp_server import McpServer
from tests.servers.openapi_server import OpenApiServer

SERVER = Path(__file__).parents[2] / "servers" / "mcp_server.py"
COMMAND = [sys.executable, str(SERVER)]


@pytest.fixture
def server() -> Iterator[McpServer]:
    with McpServer() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, server: McpServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest that takes two tools of an MCP server, in which one stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(_clients, "_allowed", set())
    write(tmp_path, crm(server))
    return tmp_path


def crm(server: McpServer, **said: Any) -> dict[str, Any]:
    """An import of `search` and `book`, on terms of ours."""
    return {
        "crm": {
            "mcp": server.url,
            "allow": ["127.0.0.1"],
            "recheck": 0,
            "tools": {"search": {"side_effects": "read", "timeout": 5}, "book": None},
            "defaults": {"limits": "5/s", "cost": "0.001", "owner": "partner"},
            "permissions": "partner",
            **said,
        }
    }


def write(folder: Path, imports: Any, **more: Any) -> Path:
    """The manifest."""
    path = folder / "tools.yaml"
    path.write_text(yaml.safe_dump({"registry": "shop", "imports": imports, **more}, sort_keys=False))
    return path


def run(*argv: str) -> int:
    """As the terminal does."""
    return cli.main(["tools", *argv])


def accepted(*sources: str) -> None:
    for source in sources:
        assert run("accept", source, "--manifest", "tools.yaml") == 0


# ------------------------------------------------------------------------------------------------------------- loading


def test_loading_asks_nobody(folder: Path, server: McpServer) -> None:
    """What nobody accepted is a problem of the manifest, with its line and what to do; the server isn't asked."""
    registry, problems = read_manifest("tools.yaml")
    assert (registry.specs(), server.headers) == ([], [])
    assert not (folder / "escalade.pins.json").exists(), "loading pins nothing"
    assert [str(problem).partition(" is not accepted yet; ")[::2] for problem in problems] == [
        (
            f"tools.yaml:8: imports.crm.tools: '{tool}'",
            f"look at it and accept it: escalade tools accept crm/{tool} --manifest tools.yaml",
        )
        for tool in ("search", "book")
    ]
    with pytest.raises(BadInput, match="'search' is not accepted yet"):
        Registry.load("tools.yaml")


def test_accepted_is_registered(folder: Path, server: McpServer) -> None:
    """On the terms of the manifest: the source's for all, a tool's own before them; and again nobody is asked."""
    accepted("crm")
    asked = len(server.headers)
    registry = Registry.load("tools.yaml")
    search, book = registry.spec("crm.search"), registry.spec("crm.book")
    assert len(server.headers) == asked
    assert (search.side_effects, book.side_effects) == ("read", "irreversible")
    assert (search.timeout, book.timeout) == (5, 30)
    assert {(str(spec.cost), spec.owner, str(spec.limits[0])) for spec in (search, book)} == {
        ("$0.001", "partner", "5/s")
    }
    assert (search.permission, book.permission) == ("partner.crm.search:call", "partner.crm.book:call")
    access = escalade.Roles({"guest": ["partner.*:read"]})
    with escalade.scope(principal=escalade.Principal("ana", roles=frozenset({"guest"})), access=access):
        assert [tool.name for tool in registry.tools_for()] == ["crm_search"]
        assert registry.get_tool("crm.search")(query="Kim")["found"] == ["Kim & Sons"]
    assert list(registry.sources) == ["crm"]
    registry.sources["crm"].close()


def test_what_is_pinned_needs_no_sdk(folder: Path) -> None:
    """Who only looks at the tools doesn't wait for the MCP SDK to be imported."""
    accepted("crm")
    code = (
        "import sys; from escalade import Registry; "
        "print(len(Registry.load('tools.yaml').specs()), 'mcp' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"


def test_terms_of_the_manifest_are_for_its_own_tools(folder: Path, server: McpServer) -> None:
    """`defaults: {side_effects: read}` says nothing of tools that others run."""
    write(folder, crm(server), defaults={"side_effects": "read", "owner": "us"})
    accepted("crm")
    spec = Registry.load("tools.yaml").spec("crm.book")
    assert (spec.side_effects, spec.owner) == ("irreversible", "partner")


@pytest.mark.slow
def test_a_whole_server_over_stdio(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A manifest that names a command doesn't allow it; with "*", all that was accepted is there."""
    write(folder, {"files": {"command": COMMAND, "tools": "*"}})
    allowed = ("--allow-stdio", shlex.join(COMMAND))
    assert run("sources", "tools.yaml") == 100
    assert "tools.yaml:3: imports.files: the command 'python" in capsys.readouterr().out
    assert run("accept", "files", "--manifest", "tools.yaml") == 2
    assert "is not allowed as an MCP server" in capsys.readouterr().err
    assert run("sources", "tools.yaml", *allowed) == 0, "new tools are there to be accepted, nothing is wrong"
    assert run("accept", "files/book", "--manifest", "tools.yaml", *allowed) == 0
    registry = Registry.load("tools.yaml")
    assert [spec.name for spec in registry.specs()] == ["files.book"]
    with escalade.scope():
        assert registry.get_tool("files.book")(city="Rome") == "booked Rome"
    registry.sources["files"].close()


def test_a_web_api(folder: Path) -> None:
    """The description is found from the manifest's folder; the pins file has the name that the manifest says."""
    with OpenApiServer() as api:
        (folder / "shop.json").write_text(json.dumps(api.document()))
        source = {"openapi": "shop.json", "base_url": api.url, "allow": ["127.0.0.1"], "tools": ["listOrders"]}
        write(folder, {"shop": source}, pins="kept/shop.pins.json")
        accepted("shop/listOrders")
        assert (folder / "kept" / "shop.pins.json").exists()
        registry = Registry.load(folder / "tools.yaml")
        with escalade.scope(mode="live-read-only"):
            assert registry.get_tool("shop.list_orders")(status="open") == [{"id": 1}]
        registry.sources["shop"].close()


# -------------------------------------------------------------------------------------------------- bad declarations


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"mcp": "http://x", "command": ["a"]}, "imports.crm: expected one of mcp (an address), command (a list) and"),
        ({"tools": []}, "imports.crm: expected one of mcp"),
        ({"mcp": "http://x", "tools": None}, 'imports.crm.tools: expected "*", a list of names, or a mapping'),
        ({"mcp": "http://x", "tools": {"a": {"prise": 1}}}, "imports.crm.tools: unknown key 'prise' (known: approval"),
        ({"mcp": "http://x", "defaults": {"version": "1"}}, "imports.crm.defaults: unknown key 'version'"),
        ({"mcp": "http://x", "tokn": "env:A"}, "imports.crm.tokn: unknown key (known: allow, base_url"),
        ({"mcp": "http://x", "base_url": "http://y"}, "imports.crm: base_url is not for mcp, but for openapi"),
        ({"command": ["a"], "token": "env:A"}, "imports.crm: token is not for command, but for mcp and openapi"),
        ({"mcp": "ftp://x"}, "imports.crm: expected an address that begins with http:// or https://"),
        ({"mcp": "http://x", "allow": ["here"]}, "imports.crm: not an address or a network"),
        ({"command": ["no-such-program"]}, "imports.crm: there is no program 'no-such-program'"),
    ],
)
def test_what_is_wrong(folder: Path, said: dict[str, Any], message: str) -> None:
    """Each mistake in one line, with the source and the key."""
    path = write(folder, {"crm": {"tools": ["search"], **said}})
    _, problems = read_manifest(path)
    assert message in str(problems[0])
    assert str(problems[0]).startswith(f"{path}:")


@pytest.mark.parametrize("said", [{"token": "hunter2-hunter2"}, {"headers": {"X-Api-Key": "hunter2-hunter2"}}])
def test_secrets_stand_elsewhere(folder: Path, server: McpServer, said: dict[str, Any]) -> None:
    """A token or key in the manifest itself is refused, and not shown; a reference is taken."""
    _, problems = read_manifest(write(folder, crm(server, **said)))
    assert "not a reference to a secret: write it like 'env:NAME'" in str(problems[0])
    assert "hunter2" not in str(problems)
    by_name = {key: "env:A" if key == "token" else {"X-Api-Key": "env:A"} for key in said}
    _, problems = read_manifest(write(folder, crm(server, **by_name)))
    assert {problem.key for problem in problems} == {"imports.crm.tools"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"imports": ["crm"]}, "tools.yaml:2: imports: expected sources by their names"),
        ({"pins": 3}, "pins: expected the name of a file"),
        ({"pins": "tools.yaml"}, "pins: pins tools.yaml: can't be read"),
    ],
)
def test_broken_sections(folder: Path, server: McpServer, more: dict[str, Any], message: str) -> None:
    """`imports` is a mapping, and `pins` a file that has pins."""
    _, problems = read_manifest(write(folder, **{"imports": crm(server), **more}).name)
    assert message in str(problems[0])


def test_lines_in_toml(folder: Path) -> None:
    """A problem of a source has the line of its key, or of its table."""
    text = '[imports.one]\nmcp = "https://a.example"\ntools = ["x"]\n\n[imports.two]\ntools = []\nmcp = 3\n'
    (folder / "tools.toml").write_text(text)
    _, problems = read_manifest("tools.toml")
    assert [(problem.key, problem.line) for problem in problems] == [("imports.one.tools", 3), ("imports.two.mcp", 7)]


def test_the_schema_knows_imports(folder: Path, server: McpServer) -> None:
    """Editors take what loads, and mark what doesn't."""
    validator = jsonschema_rs.Draft202012Validator(manifest_schema())
    good = {"imports": crm(server)}
    assert validator.is_valid(good)
    assert validator.is_valid({"imports": {"s": {"openapi": "s.yaml", "tools": "*"}}, "pins": "x.json"})
    for wrong in ({"tokn": "x"}, {"command": ["a"]}, {"defaults": {"colour": "red"}}, {"tools": 3}, {"recheck": -1}):
        assert not validator.is_valid({"imports": crm(server, **wrong)}), wrong
    assert not validator.is_valid({"imports": {"crm": {"mcp": "http://x"}}}), "which tools"


# ------------------------------------------------------------------------------------------------------- the terminal


def test_sources_and_accept(folder: Path, server: McpServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Not accepted, as pinned, changed, accepted as a new version: each is shown, and only what is pinned is called."""
    assert run("sources", "tools.yaml", "--json") == 100
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], [one["state"] for one in found["sources"][0]["tools"]]) == (False, ["not accepted"] * 2)
    accepted("crm/search", "crm/book")
    capsys.readouterr()
    assert run("sources", "tools.yaml") == 0
    assert capsys.readouterr().out.count("as pinned") == 2

    server.describe("search", "Customers, [red]and all[/red] that they bought.")
    assert run("sources", "tools.yaml", "--diff") == 100
    out = capsys.readouterr().out
    assert "changed" in out
    assert "description" in out
    assert '+  "description": "Customers, [red]and all[/red] that they bought.",' in out
    registry = Registry.load("tools.yaml")
    with escalade.scope(), pytest.raises(Quarantined):
        registry.get_tool("crm.search")(query="x")
    registry.sources["crm"].close()

    assert run("accept", "crm", "--manifest", "tools.yaml", "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["tool"], one["accepted"], one["changed"]) == ("search", "crm.search@1.0.1", ["description"])
    assert run("accept", "crm", "--manifest", "tools.yaml") == 0
    assert capsys.readouterr().out == "nothing to accept: all is as pinned\n"
    assert [spec.label for spec in Registry.load("tools.yaml").specs()] == ["crm.book@1.0.0", "crm.search@1.0.1"]
    assert server.ran == [], "looking and accepting calls nothing"


def test_a_tool_that_is_gone(folder: Path, server: McpServer, capsys: pytest.CaptureFixture[str]) -> None:
    """It is shown as gone, and can't be accepted."""
    accepted("crm")
    del server.mcp._tool_manager._tools["book"]
    capsys.readouterr()
    assert run("sources", "tools.yaml", "--json") == 100
    states = {one["tool"]: one["state"] for one in json.loads(capsys.readouterr().out)["sources"][0]["tools"]}
    assert states == {"search": "as pinned", "book": "gone"}
    assert run("accept", "crm/book", "--manifest", "tools.yaml") == 2
    assert "crm: 'book' isn't offered any more" in capsys.readouterr().err


def test_a_server_that_is_away(folder: Path, server: McpServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One line in the table, and the exit code that says so."""
    write(folder, crm(server, mcp="http://127.0.0.1:1/mcp"))
    assert run("sources", "tools.yaml", "--json") == 100
    (one,) = json.loads(capsys.readouterr().out)["sources"]
    assert "the connection to the server failed" in one["error"]
    assert run("sources", "tools.yaml") == 100
    assert "can't be asked" in capsys.readouterr().out
    assert run("accept", "crm", "--manifest", "tools.yaml") == 1
    assert capsys.readouterr().err.startswith("error: the connection to the server failed")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("accept", "crn/search", "--manifest", "tools.yaml"), "unknown source 'crn'; did you mean 'crm'?"),
        (("accept", "crm/serch", "--manifest", "tools.yaml"), "unknown imported tool 'serch'; did you mean 'search'?"),
        (("accept", "crm/search"), "--manifest"),
        (("sources", "nowhere.yaml"), "nowhere.yaml: can't be read"),
        (("sources", "tools.yaml", "--allow-stdio", "no-such-program x"), "there is no program 'no-such-program'"),
        (("sources", "tools.yaml", "--allow-stdio", "'open"), "--allow-stdio: No closing quotation"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], message: str
) -> None:
    """And exit with 2."""
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_no_sources(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A manifest without imports has nothing to compare."""
    (folder / "tools.yaml").write_text("tools: []\n")
    assert run("sources", "tools.yaml") == 0
    assert capsys.readouterr().out == "no sources\n"
