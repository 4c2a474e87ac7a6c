"""The registry served over MCP: who sees and calls what, as the official client finds it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

import escalade
from escalade import Ledger, Principal, Registry, Roles, tool
from escalade.errors import BadInput, NoPolicy, UnknownName
from escalade.registry import messages
from escalade.registry.budgets import Budget
from escalade.registry.journal import Journal
from escalade.registry.serving.principals import Tokens, read_tokens
from escalade.registry.serving.server import ToolServer
from escalade.registry.serving.transports import check_address
from tests.registry.helpers import Clock
from tests.servers.mcp_server import free_port, serving

ANA, BOB = "token-of-ana-0001", "token-of-bob-0002"
POLICY = Roles({"reader": ["crm.*:call"], "clerk": ["crm.*:call", "pay.*:call"]})
TOKENS = Tokens(
    [
        (ANA, Principal("ana", "acme", frozenset({"reader"}))),
        (BOB, Principal("bob", "acme", frozenset({"clerk"}))),
    ]
)
ran: list[tuple[str, Any]] = []


@tool(name="crm.search", version="1.2.0", side_effects="read", cost="0.1")
def search(query: str, limit: int = 10) -> list[str]:
    """Customers whose name contains the query."""
    ran.append(("search", query))
    return [query][:limit]


@tool(name="crm.rare", limits="2/h")
async def rare() -> float:
    """Not often."""
    ran.append(("rare", None))
    return math.nan


@tool(name="crm.broken")
def broken() -> str:
    """Fails."""
    ran.append(("broken", None))
    raise ValueError("password=hunter2hunter2 in /srv/app/db.py")


@tool(name="crm.slow")
async def slow() -> str:
    """Takes its time."""
    await asyncio.sleep(30)
    return "late"


@tool(name="pay.charge", side_effects="irreversible", cost="2")
def charge(amount: int) -> dict[str, int]:
    """Charges a card."""
    ran.append(("charge", amount))
    return {"charged": amount}


class Served:
    """A server on loopback, in a thread of its own, with its record."""

    def __init__(self, **options: Any) -> None:
        self.journal = Journal()
        self.registry = Registry([search, rare, broken, slow, charge], name="served")
        said = {"access": POLICY, "recorder": self.journal, "principal_of": TOKENS, **options}
        self.server = ToolServer(self.registry, **said)
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @contextlib.asynccontextmanager
    async def client(self, token: str = "", **headers: str) -> AsyncIterator[Client]:
        sent = {**({"authorization": f"Bearer {token}"} if token else {}), **headers}
        async with (
            httpx2.AsyncClient(headers=sent, timeout=10) as http,
            Client(streamable_http_client(self.url, http_client=http)) as client,
        ):
            yield client

    def denials(self) -> list[tuple[str, str, str]]:
        """User, tool and outcome of what was refused."""
        return [(one.principal.user, one.resource, one.outcome) for one in self.journal.denials()]


@contextlib.contextmanager
def served(**options: Any) -> Iterator[Served]:
    ran.clear()
    made = Served(**options)
    with serving(made.server.app(), made.port):
        yield made


def text(result: Any) -> str:
    """The one text of a result."""
    (block,) = result.content
    return str(block.text)


async def names(client: Client) -> list[str]:
    return [one.name for one in (await client.list_tools()).tools]


# ------------------------------------------------------------------------------------------------------- who sees what


async def test_two_principals_see_different_tools() -> None:
    """`tools/list` shows each what he may call, with its schema and its effects."""
    with served() as it:
        async with it.client(ANA) as ana, it.client(BOB) as bob:
            assert await names(ana) == ["crm_broken", "crm_rare", "crm_search", "crm_slow"]
            assert await names(bob) == ["crm_broken", "crm_rare", "crm_search", "crm_slow", "pay_charge"]
            described = {one.name: one for one in (await bob.list_tools()).tools}
    shown = described["crm_search"]
    assert shown.description == "Customers whose name contains the query."
    assert shown.input_schema["required"] == ["query"]
    assert shown.input_schema["additionalProperties"] is False
    assert shown.annotations is not None
    assert shown.annotations.read_only_hint is True
    assert described["pay_charge"].annotations.destructive_hint is True  # type: ignore[union-attr]
    assert shown.meta == {"escalade/version": "1.2.0"}


async def test_calls() -> None:
    """Whoever may, calls: the result as text and as an object, recorded in his name, at its price."""
    with served() as it:
        async with it.client(BOB) as bob:
            found = await bob.call_tool("crm_search", {"query": "Kim"})
            assert (text(found), found.structured_content, found.is_error) == ('["Kim"]', {"result": ["Kim"]}, False)
            charged = await bob.call_tool("pay_charge", {"amount": 5})
            assert charged.structured_content == {"charged": 5}
            assert (await bob.call_tool("crm_rare", {})).structured_content == {"result": None}, "NaN isn't JSON"
    entries = [(one.principal.user, one.resource, one.outcome, one.cost) for one in it.journal.entries()]
    assert entries == [
        ("bob", "crm.search", "ok", 100_000_000),
        ("bob", "pay.charge", "ok", 2_000_000_000),
        ("bob", "crm.rare", "ok", 0),
    ]


async def test_a_denied_tool_is_an_unknown_tool() -> None:
    """Ana may not charge: she is told what she is told of a tool that there isn't, whatever the arguments; the record
    tells them apart.
    """
    with served() as it:
        async with it.client(ANA) as ana:
            for name in ("pay_charge", "pay.charge", "no_such_tool"):
                for arguments in ({"amount": 5}, {"wrong": 1}, {}):
                    result = await ana.call_tool(name, arguments)
                    assert result.is_error
                    assert text(result) == messages.unknown(name).line
    assert ran == []
    assert set(it.denials()) == {
        ("ana", "pay.charge", "PermissionDenied"), ("ana", "no_such_tool", "UnknownName"),
    }  # fmt: skip
    assert len(it.denials()) == 9


async def test_who_is_not_known_gets_nothing() -> None:
    """Without a token, with a wrong one, or with a session of somebody else: 401, before anything is looked at."""
    with served() as it:
        async with httpx2.AsyncClient() as http:
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            accept = {"accept": "application/json, text/event-stream"}
            for header in ("", f"Bearer {ANA}x", "Basic YTpi", "Bearer", f"Token {ANA}"):
                sent = {**accept, **({"authorization": header} if header else {})}
                for method in ("POST", "GET", "DELETE"):
                    answer = await http.request(method, it.url, json=body, headers=sent)
                    assert (answer.status_code, answer.json()) == (401, {"error": "unauthorized"})
    assert ran == it.denials() == []


async def test_when_it_can_not_be_told_who_asks() -> None:
    """A look-up that fails lets nobody in."""

    async def broken_lookup(_: Any) -> Principal:
        raise ConnectionError("db://secret")

    with served(principal_of=broken_lookup) as it:
        async with httpx2.AsyncClient() as http:
            answer = await http.post(it.url, json={})
    assert (answer.status_code, "secret" in answer.text) == (503, False)


async def test_asynchronous_look_ups() -> None:
    """`principal_of` may be a coroutine function, and sees all headers."""

    async def by_header(headers: Any) -> Principal | None:
        await asyncio.sleep(0)
        return Principal(headers["x-user"], roles=frozenset({"clerk"})) if "x-user" in headers else None

    with served(principal_of=by_header) as it:
        async with it.client(**{"X-User": "eve"}) as eve:
            await eve.call_tool("pay_charge", {"amount": 1})
    assert it.journal.entries()[0].principal.user == "eve"


async def test_a_role_that_the_policy_does_not_know() -> None:
    """Its bearer sees nothing and calls nothing; why is for the log."""
    with served(principal_of=lambda _: Principal("eve", roles=frozenset({"ghost"}))) as it:
        async with it.client() as eve:
            with pytest.raises(Exception, match="can't be listed now"):
                await eve.list_tools()
            assert text(await eve.call_tool("crm_search", {"query": "x"})).startswith("unavailable: ")
    assert ran == []


# ----------------------------------------------------------------------------------------------------- what holds there


async def test_the_budget_stops() -> None:
    """One ledger for all clients: what Bob has spent is spent in his next session, too, and Ana has a budget of her
    own.
    """
    ledger = Ledger([Budget("user:acme/bob", "4.5"), Budget("user:acme/ana", "0.15")])
    with served(ledger=ledger) as it:
        results = []
        for _ in range(3):
            async with it.client(BOB) as bob:
                results.append(await bob.call_tool("pay_charge", {"amount": 1}))
        async with it.client(ANA) as ana:
            results += [await ana.call_tool("crm_search", {"query": "x"}) for _ in range(2)]
    assert [one.is_error for one in results] == [False, False, True, False, True]
    line = text(results[2])
    assert line.startswith("budget_exceeded: pay.charge@1.0.0 may cost up to $2; budget 'user:acme/bob' of $4.5")
    assert "[retryable=no, budget_left=$0" in line
    assert [name for name, _ in ran] == ["charge", "charge", "search"]
    assert [one[2] for one in it.denials()] == ["BudgetExceeded"] * 2


async def test_a_budget_per_call() -> None:
    """What one call may cost at most."""
    with served(budget="1") as it:
        async with it.client(BOB) as bob:
            assert (await bob.call_tool("pay_charge", {"amount": 1})).is_error
            assert not (await bob.call_tool("crm_search", {"query": "x"})).is_error
    assert [name for name, _ in ran] == ["search"]


async def test_rate_limits_hold() -> None:
    """They count the calls of all clients together, also of many at once."""
    with served() as it:
        async with it.client(ANA) as ana, it.client(BOB) as bob:
            results = await asyncio.gather(*(one.call_tool("crm_rare", {}) for one in (ana, bob) * 5))
    refused = [text(one) for one in results if one.is_error]
    assert len(refused) == 8
    assert len(ran) == 2
    assert all(line.startswith("rate_limited: ") and "retry_after=" in line for line in refused)
    assert [one[1:] for one in it.denials()] == [("crm.rare", "RateLimited")] * 8


async def test_bad_arguments() -> None:
    """They are refused with what is wrong, before anything is debited."""
    with served() as it:
        async with it.client(ANA) as ana:
            for arguments in ({"query": 3}, {}, {"query": "x", "drop": True}):
                result = await ana.call_tool("crm_search", arguments)
                assert result.is_error
                assert text(result).startswith("invalid_arguments: crm_search: ")
    assert ran == it.journal.entries() == []
    assert len(it.denials()) == 3


async def test_failures_are_one_line() -> None:
    """No traceback, no path, no secret; the facts for programs beside it."""
    with served() as it:
        async with it.client(ANA) as ana:
            result = await ana.call_tool("crm_broken", {})
    line = text(result)
    assert result.is_error
    assert line.startswith("tool_failed: ValueError: ")
    assert "hunter2" not in line
    assert "/srv" not in line
    assert len(line.splitlines()) == 1
    assert result.meta is not None
    assert result.meta["escalade/error"] == {"code": "tool_failed", "retryable": False, "retry_after": None}


async def test_the_deadline() -> None:
    """No call lasts longer than the server allows."""
    with served(deadline=0.2) as it:
        start = time.perf_counter()
        async with it.client(ANA) as ana:
            assert text(await ana.call_tool("crm_slow", {})).startswith("deadline_exceeded: ")
    assert time.perf_counter() - start < 8


async def test_an_unexpected_failure_of_the_server_itself() -> None:
    """It is told in general words, and nothing runs."""

    class Full(Journal):
        def intent(self, entry: Any) -> None:
            raise OSError("disk full: /var/log/audit.db")

    with served(recorder=Full()) as it:
        async with it.client(ANA) as ana:
            line = text(await ana.call_tool("crm_search", {"query": "x"}))
    assert "/var" not in line
    assert line.startswith("tool_failed: OSError: ")
    assert ran == []


async def test_two_clients_at_once() -> None:
    """Calls of different principals don't mix."""
    with served() as it:
        async with it.client(ANA) as ana, it.client(BOB) as bob:
            await asyncio.gather(
                *(one.call_tool("crm_search", {"query": who}) for one, who in ((ana, "ana"), (bob, "bob")) * 20)
            )
    for entry in it.journal.entries():
        assert entry.principals == (entry.principal,)
    assert sorted(one.principal.user for one in it.journal.entries()) == ["ana"] * 20 + ["bob"] * 20


async def test_our_own_import_of_our_own_server(tmp_path: Path) -> None:
    """What is served can be imported, and its refusals arrive as lines."""
    from escalade.registry.sources.mcp import import_mcp

    with served() as it:
        registry = Registry(name="client")
        options: dict[str, Any] = {"url": it.url, "token": ANA, "allow": ["127.0.0.1"], "tools": "*"}
        source = await asyncio.to_thread(lambda: import_mcp(registry, "far", **options))
        async with escalade.scope():
            assert await registry.get_tool("far.crm_search").acall(query="x") == {"result": ["x"]}
            with pytest.raises(escalade.ToolError, match="tool_failed: tool_failed: ValueError"):
                await registry.get_tool("far.crm_broken").acall()
        await asyncio.to_thread(source.close)


async def test_approvals_count_when_asked_again() -> None:
    """A call that needs a person ends with that; approved, the same call of the same principal runs, once."""
    from escalade.registry.approvals.desk import Approvals

    policy = Roles({"clerk": [{"permit": "pay.*:call", "needs": "approval"}], "boss": ["pay.*:approve"]})
    desk = Approvals(access=policy)
    with served(access=policy, approvals=desk) as it:
        async with it.client(BOB) as bob:
            assert text(await bob.call_tool("pay_charge", {"amount": 5})).startswith("approval_required: ")
            (request,) = desk.requests()
            desk.approve(request.id, Principal("boss", "acme", frozenset({"boss"})), "fine")
            assert (await bob.call_tool("pay_charge", {"amount": 6})).is_error
            assert not (await bob.call_tool("pay_charge", {"amount": 5})).is_error
            assert (await bob.call_tool("pay_charge", {"amount": 5})).is_error
    assert ran == [("charge", 5)]


async def test_an_approval_that_has_expired() -> None:
    """It is worth nothing: the call asks for a new one."""
    from escalade.registry.approvals.desk import Approvals

    policy = Roles({"clerk": [{"permit": "pay.*:call", "needs": "approval"}], "boss": ["pay.*:approve"]})
    clock = Clock(1_000.0)
    desk = Approvals(access=policy, expires=60, clock=clock)
    with served(access=policy, approvals=desk) as it:
        async with it.client(BOB) as bob:
            await bob.call_tool("pay_charge", {"amount": 5})
            desk.approve(desk.requests()[0].id, Principal("boss", "acme", frozenset({"boss"})), "fine")
            clock.forward(61)
            assert text(await bob.call_tool("pay_charge", {"amount": 5})).startswith("approval_required: ")
    assert ran == []
    assert [one[2] for one in it.denials()] == ["ApprovalRequired"] * 2


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_protocols(mode: str) -> None:
    """Clients of the older protocol, with a handshake, are served under the same rules."""
    with served() as it:
        sent = {"authorization": f"Bearer {ANA}"}
        async with (
            httpx2.AsyncClient(headers=sent, timeout=10) as http,
            Client(streamable_http_client(it.url, http_client=http), mode=mode) as ana,
        ):
            assert await names(ana) == ["crm_broken", "crm_rare", "crm_search", "crm_slow"]
            assert not (await ana.call_tool("crm_search", {"query": "x"})).is_error
            assert text(await ana.call_tool("pay_charge", {"amount": 1})) == messages.unknown("pay_charge").line
    assert [one.principal.user for one in it.journal.entries()] == ["ana"]


# -------------------------------------------------------------------------------------------------- starting a server


def test_a_server_needs_to_know_who_asks() -> None:
    """Either tokens or one principal; and a policy."""
    registry = Registry([search])
    for given in ({}, {"principal_of": TOKENS, "principal": Principal("ana")}):
        with pytest.raises(BadInput, match="needs to know who asks"):
            ToolServer(registry, access=POLICY, **given)
    with pytest.raises(BadInput, match="needs access="):
        ToolServer(registry, principal_of=TOKENS)
    with pytest.raises(NoPolicy):
        ToolServer(registry, principal_of=TOKENS, access=Roles({"nobody": []}))
    with pytest.raises(UnknownName, match="unknown role 'ghost'"):
        ToolServer(registry, principal=Principal("ana", roles=frozenset({"ghost"})), access=POLICY)
    with pytest.raises(BadInput, match="say who the client is"):
        ToolServer(registry, principal_of=TOKENS, access=POLICY).run_stdio()


async def test_in_a_configured_process() -> None:
    """Without a policy of its own, the server's clients are nested in what was configured."""
    journal = Journal()
    escalade.configure(access=POLICY, recorder=journal)
    with pytest.raises(BadInput, match="needs access="):
        Served(access=None)
    with served(access=None, recorder=None) as it:
        async with it.client(ANA) as ana:
            assert not (await ana.call_tool("crm_search", {"query": "x"})).is_error
            assert (await ana.call_tool("pay_charge", {"amount": 1})).is_error
    assert [one.principal.user for one in journal.entries()] == ["ana"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])  # noqa: S104
def test_public_addresses_need_tokens(host: str) -> None:
    """A server with one principal for everybody is bound to loopback."""
    one = ToolServer(Registry([search]), access=POLICY, principal=Principal("ana", roles=frozenset({"reader"})))
    with pytest.raises(BadInput, match="can be reached from other machines"):
        one.run_http(host, 0)
    check_address(host, tokens=True)
    for local in ("127.0.0.1", "localhost", "::1"):
        check_address(local, tokens=False)


async def test_requests_for_other_hosts() -> None:
    """On loopback, a page in a browser that was led here under another name gets nothing."""
    one = {"principal_of": None, "principal": Principal("ana", roles=frozenset({"reader"}))}
    with served(**one) as it:
        async with httpx2.AsyncClient() as http:
            sent = {"accept": "application/json, text/event-stream", "host": "evil.example"}
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            assert (await http.post(it.url, json=body, headers=sent)).status_code == 421
        async with it.client() as ana:
            assert await names(ana) == ["crm_broken", "crm_rare", "crm_search", "crm_slow"]


def test_tokens_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By reference or by digest; what is wrong in the file is said."""
    monkeypatch.setenv("ANA_TOKEN", ANA)
    file = tmp_path / "people.yaml"
    bob = "f" * 64
    file.write_text(
        f"principals:\n- {{user: ana, tenant: acme, roles: [reader], token: 'env:ANA_TOKEN'}}\n"
        f"- {{user: bob, roles: [clerk], token_sha256: {bob}}}\n"
    )
    tokens = read_tokens(file)
    assert tokens({"authorization": f"bearer {ANA}"}) == Principal("ana", "acme", frozenset({"reader"}))
    assert tokens({"authorization": f"Bearer {BOB}"}) is None
    for text_, reason in (
        ("principals: []", "expected a mapping"),
        ("principals: [{user: ana}]", "either token or token_sha256"),
        ("principals: [{user: ana, token: plain-text-token-1}]", "not a reference to a secret"),
        ("principals: [{user: ana, token: 'env:NOT_SET_ANYWHERE'}]", "is not there"),
        ("principals: [{user: ana, token_sha256: abc}]", "64 hex digits"),
        ("principals: [{user: ana, roles: x, token_sha256: abc}]", "roles as a list"),
        ("principals: [{user: ana, age: 3}]", "expected a mapping of"),
        (f"principals: [{{user: a, token_sha256: {bob}}}, {{user: b, token_sha256: {bob}}}]", "have the same token"),
    ):
        file.write_text(text_)
        with pytest.raises(BadInput, match=reason):
            read_tokens(file)
    with pytest.raises(BadInput, match="too short"):
        Tokens([("short", Principal("ana"))])


# ------------------------------------------------------------------------------------------------------------- stdio

STDIO = """
import escalade
from escalade import Principal, Registry, Roles, tool
from escalade.registry.serving.server import ToolServer

@tool(name="crm.search", side_effects="read")
def search(query: str) -> str:
    "Finds."
    print("what a tool prints doesn't disturb the protocol")
    return query

@tool(name="pay.charge")
def charge() -> str:
    "Charges."
    raise SystemExit("never")

policy = Roles({"reader": ["crm.*:call"]})
ToolServer(Registry([search, charge]), access=policy, principal=Principal("ana", roles={"reader"})).run_stdio()
"""


@pytest.mark.slow
async def test_stdio(tmp_path: Path) -> None:
    """Over pipes, whoever started the process is the one principal."""
    script = tmp_path / "serve.py"
    script.write_text(STDIO)
    root = str(Path(escalade.__file__).parents[1])
    parameters = StdioServerParameters(command=sys.executable, args=[str(script)], env={"PYTHONPATH": root})
    async with Client(parameters) as client:
        assert await names(client) == ["crm_search"]
        assert text(await client.call_tool("crm_search", {"query": "x"})) == "x"
        assert text(await client.call_tool("pay_charge", {})) == messages.unknown("pay_charge").line


def test_it_is_all_lazy() -> None:
    """Nobody pays for the SDK or for an HTTP client before he imports or serves something."""
    code = (
        "import sys, threading, escalade, escalade.registry.catalogue, escalade.registry.serving.server, "
        "escalade.registry.sources.mcp, escalade.registry.sources.openapi\n"
        "print(sorted({'mcp', 'httpx2', 'uvicorn', 'starlette'} & set(sys.modules)), threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 1\n"
