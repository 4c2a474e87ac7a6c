"""`escalade tools serve`: a manifest and a policy, served to the official client."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

import escalade
from escalade._cli_kept import Kept
from escalade._cli_serve import serve
from escalade.errors import BadInput
from escalade.registry.audit import reading
from escalade.registry.audit.verify import verify
from escalade.registry.serving.server import ToolServer
from tests.servers.mcp_server import free_port

ROOT = str(Path(escalade.__file__).parents[1])
MODULE = """
def search(query: str) -> list[str]:
    "Finds customers."
    return [query]

def charge(amount: int) -> str:
    "Charges a card."
    return f"charged {amount}"
"""
MANIFEST = """
tools:
  - {function: "shop_of_tests:search", name: crm.search, side_effects: read}
  - {function: "shop_of_tests:charge", name: pay.charge, cost: "2"}
"""
POLICY = """
version: 1
roles:
  reader: ["crm.*:call"]
  clerk: ["crm.*:call", "pay.*:call"]
"""
PEOPLE = """
principals:
  - {user: ana, tenant: acme, roles: [reader], token: "env:ANA_TOKEN"}
  - {user: bob, tenant: acme, roles: [clerk], token: "env:BOB_TOKEN"}
"""
ENV = {"PYTHONPATH": ROOT, "ANA_TOKEN": "token-of-ana-0001", "BOB_TOKEN": "token-of-bob-0002"}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    files = {"shop_of_tests.py": MODULE, "tools.yaml": MANIFEST, "policy.yaml": POLICY, "people.yaml": PEOPLE}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def command(shop: Path, *more: str) -> list[str]:
    run = "from escalade._cli_serve import serve; from cyclopts import App; a = App(); a.default(serve); a()"
    files = ["--manifest", str(shop / "tools.yaml"), "--policy", str(shop / "policy.yaml")]
    return ["-c", run, *files, *more]


@pytest.mark.slow
def test_over_http(shop: Path) -> None:
    """Two clients with tokens: each sees his tools, budgets hold across them, and all of it is in the audit log."""
    port = free_port()
    argv = command(
        shop, "--http", f"127.0.0.1:{port}", "--principals", str(shop / "people.yaml"), "--budget", "tenant:acme=3/day",
        "--ledger", str(shop / "budgets.db"), "--audit", str(shop / "audit.db"), "--anchor", str(shop / "anchor"),
    )  # fmt: skip
    with subprocess.Popen([sys.executable, *argv], env={**ENV, "PYTHONPATH": f"{ROOT}:{shop}"}) as process:
        try:
            until_it_listens(port)
            ana = asyncio.run(as_client(port, "token-of-ana-0001", ["crm_search", "pay_charge"]))
            bob = asyncio.run(as_client(port, "token-of-bob-0002", ["pay_charge", "pay_charge"]))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
    assert ana[0] == ["crm_search"]
    assert bob[0] == ["crm_search", "pay_charge"]
    assert [one.is_error for one in ana[1]] == [False, True]
    assert [one.is_error for one in bob[1]] == [False, True]
    assert bob[1][1].content[0].text.startswith("budget_exceeded: ")

    assert verify(shop / "audit.db", [shop / "anchor"]).ok
    told = str([row.fields() for row in reading.tail(shop / "audit.db", 100)])
    assert "PermissionDenied" in told
    assert "BudgetExceeded" in told


async def as_client(port: int, token: str, calls: list[str]) -> tuple[list[str], list[Any]]:
    """What the client sees, and the results of its calls."""
    arguments = {"crm_search": {"query": "x"}, "pay_charge": {"amount": 1}}
    url = f"http://127.0.0.1:{port}/mcp"
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        seen = [one.name for one in (await client.list_tools()).tools]
        return seen, [await client.call_tool(name, arguments[name]) for name in calls]


def until_it_listens(port: int) -> None:
    """Wait for the server, at most 30 s."""
    start = time.monotonic()
    while time.monotonic() - start < 30:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise AssertionError("it never listened")


@pytest.mark.slow
async def test_over_stdio(shop: Path) -> None:
    """The client starts the command, and is the user that the command names."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=command(shop, "--stdio", "--user", "ana", "--role", "reader"),
        env={**ENV, "PYTHONPATH": f"{ROOT}:{shop}"},
    )
    async with Client(parameters) as client:
        assert [one.name for one in (await client.list_tools()).tools] == ["crm_search"]
        assert not (await client.call_tool("crm_search", {"query": "x"})).is_error
        assert (await client.call_tool("pay_charge", {"amount": 1})).is_error


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "say how to serve"),
        ({"stdio": True, "http": "127.0.0.1:1", "user": "a"}, "say how to serve"),
        ({"stdio": True}, "say who the clients are"),
        ({"http": "127.0.0.1:1", "user": "a", "principals": "x"}, "say who the clients are"),
        ({"http": "8000", "user": "a"}, "expected ADDRESS:PORT"),
        ({"http": "127.0.0.1:x", "user": "a"}, "expected ADDRESS:PORT"),
        ({"http": "0.0.0.0:8000", "user": "a", "role": ["reader"]}, "can be reached from other machines"),
        ({"stdio": True, "user": "a", "budget": ["x"]}, "expected ACCOUNT=DOLLARS"),
        ({"stdio": True, "user": "a", "kept": Kept(anchor=["x"])}, "say --audit FILE"),
        ({"stdio": True, "user": "a", "role": ["ghost"]}, "unknown role 'ghost'"),
        ({"stdio": True, "user": "a", "manifest": "none.yaml"}, "none.yaml"),
    ],
)
def test_what_is_wrong_is_said(
    shop: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], reason: str
) -> None:
    """Before anything is served."""
    monkeypatch.syspath_prepend(str(shop))
    files = {"manifest": str(shop / "tools.yaml"), "policy": str(shop / "policy.yaml")}
    with pytest.raises(BadInput, match=reason):
        serve(**{**files, **options})


@pytest.mark.parametrize("audit", [None, "audit.db"])
def test_a_server_without_a_record_says_so(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], audit: str | None
) -> None:
    """On standard error, since over stdio the other one is the protocol's."""
    monkeypatch.syspath_prepend(str(shop))
    monkeypatch.setattr(ToolServer, "run_stdio", lambda _: None)
    files = {"manifest": str(shop / "tools.yaml"), "policy": str(shop / "policy.yaml")}
    kept = Kept(audit=audit and str(shop / audit))
    assert serve(**files, stdio=True, user="ana", role=["reader"], kept=kept) == 0
    captured = capsys.readouterr()
    assert ("warning: calls are recorded nowhere; --audit FILE keeps a record" in captured.err) is (audit is None)
    assert captured.out == ""


def test_a_port_that_is_taken(shop: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is said in one line, and the process isn't ended from within."""
    monkeypatch.syspath_prepend(str(shop))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BadInput, match=rf"^{where} can't be served: Address already in use"):
            serve(manifest=str(shop / "tools.yaml"), policy=str(shop / "policy.yaml"), http=where, user="a", role=[])


def test_the_manifest_may_start_a_server(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a command that was allowed here; the tools of others are served as our own are."""
    from escalade.registry.sources import _clients

    monkeypatch.syspath_prepend(str(shop))
    monkeypatch.setattr(_clients, "_allowed", set())
    (shop / "tools.yaml").write_text(f"imports: {{files: {{command: ['{sys.executable}', '-V'], tools: '*'}}}}\n")
    files = {"manifest": str(shop / "tools.yaml"), "policy": str(shop / "policy.yaml"), "http": "127.0.0.1:1"}
    with pytest.raises(BadInput, match="is not allowed as an MCP server"):
        serve(**files, user="a", role=["reader"])
    with pytest.raises(BadInput, match="nothing of it is accepted"):
        serve(**files, user="a", role=["reader"], allow_stdio=[f"{sys.executable} -V"])
