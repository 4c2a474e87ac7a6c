"""Operations of web APIs: imported, called, and kept from going where they shouldn't."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import Principal, Registry, Roles
from escalade.errors import (
    BadInput,
    BudgetExceeded,
    EscaladeError,
    InvalidArguments,
    Quarantined,
    ToolError,
    ToolFailed,
)
from escalade.registry.journal import Journal
from escalade.registry.sources._net import Net
from escalade.registry.sources.openapi import OpenApiSource, import_openapi
from tests.servers.openapi_server import OpenApiServer, operation, parameter


@pytest.fixture(scope="module")
def running() -> Iterator[OpenApiServer]:
    with OpenApiServer() as server:
        yield server


@pytest.fixture
def server(running: OpenApiServer) -> OpenApiServer:
    running.seen.clear()
    running.orders.clear()
    return running


def imported(server: OpenApiServer, operations: Any = "*", **said: Any) -> tuple[Registry, OpenApiSource]:
    registry = Registry(name="shop")
    options = {"base_url": server.url, "allow": ["127.0.0.1"], **said}
    return registry, registry.import_openapi("shop", server.document(), operations=operations, **options)


# -------------------------------------------------------------------------------------------------------------- import


def test_operations_become_tools(server: OpenApiServer) -> None:
    """Each operation is a tool with a name of ours; reading and writing are told apart by the method."""
    registry, source = imported(server)
    specs = {spec.name: spec for spec in registry.specs()}
    assert source.tools["getOrder"] == "shop.get_order@1.0.0"
    effects = {name: specs[f"shop.{name}"].side_effects for name in ("list_orders", "create_order", "delete_order")}
    assert effects == {"list_orders": "read", "create_order": "write", "delete_order": "write"}
    assert specs["shop.list_orders"].description == "Orders, newest first."
    assert specs["shop.delete_order"].description == "Deletes an order."
    assert source.skipped == {"upload": "its body is multipart/form-data; supported are JSON and forms"}
    assert server.seen == [], "importing asks nobody"


def test_arguments(server: OpenApiServer) -> None:
    """Parameters are arguments with Python names; what isn't required isn't; credentials are no arguments."""
    registry, _ = imported(server)
    schema = registry.spec("shop.list_orders").input_schema
    assert list(schema["properties"]) == ["status", "page_size", "tags", "ids", "filter", "urgent", "X_Trace"]
    assert "required" not in schema
    order = registry.spec("shop.create_order").input_schema
    assert order["required"] == ["body"]
    body = order["properties"]["body"]
    assert body["properties"]["count"] == {"type": "integer", "exclusiveMinimum": 0}
    assert body["properties"]["note"]["type"] == ["string", "null"]
    assert body["properties"]["parts"]["items"] == {"description": "again a Order"}


def test_where_arguments_go(server: OpenApiServer) -> None:
    """Into the query, a header, the path or the body, as the description says."""
    registry, _ = imported(server)
    with escalade.scope():
        listed = registry.get_tool("shop.list_orders")(
            status="open", page_size=5, tags=["a", "b c"], ids=[1, 2], filter={"from": "x"}, urgent=True, X_Trace="t-1"
        )
        assert listed == [{"id": 1}]
        seen = server.seen[-1]
        assert seen["query"] == [
            ("status", "open"), ("page[size]", "5"), ("tags", "a"), ("tags", "b c"), ("ids", "1,2"),
            ("filter[from]", "x"), ("urgent", "true"),
        ]  # fmt: skip
        assert seen["headers"]["x-trace"] == "t-1"
        assert registry.get_tool("shop.get_order")(order_id="a/b?c") == {"id": "a/b?c"}
        assert server.seen[-1]["path"] == "/orders/a%2Fb%3Fc"
        order = {"item": "book", "note": None, "count": 2}
        assert registry.get_tool("shop.create_order")(body=order) == {"created": True}
        assert json.loads(server.orders[-1]) == order
        registry.get_tool("shop.send_form")(body={"a": 1, "b": True})
        assert server.seen[-1]["body"] == "a=1&b=true"
        assert registry.get_tool("shop.list_orders")() == [{"id": 1}]
        assert server.seen[-1]["query"] == []


@pytest.mark.parametrize(
    ("tool", "args"),
    [
        ("shop.list_orders", {"status": "lost"}),
        ("shop.list_orders", {"page_size": "five"}),
        ("shop.create_order", {}),
        ("shop.create_order", {"body": {}}),
        ("shop.create_order", {"body": {"item": "x", "count": 0}}),
        ("shop.get_order", {"order_id": ".."}),
        ("shop.get_order", {"order_id": ""}),
        ("shop.list_orders", {"X_Trace": "a\r\nAuthorization: b"}),
        ("shop.list_orders", {"Authorization": "Bearer x"}),
    ],
)
def test_bad_arguments(server: OpenApiServer, tool: str, args: dict[str, Any]) -> None:
    """What doesn't fit the description, leads out of the path or smuggles a header never leaves the process."""
    registry, _ = imported(server)
    with escalade.scope(), pytest.raises(InvalidArguments, match="^invalid_arguments: "):
        registry.get_tool(tool)(**args)
    assert server.seen == []


def test_from_a_file(server: OpenApiServer, tmp_path: Path) -> None:
    """A description may be JSON or YAML in a file; what it says about references elsewhere is not fetched."""
    json_file, yaml_file = tmp_path / "shop.json", tmp_path / "shop.yaml"
    json_file.write_text(json.dumps(server.document()))
    yaml_file.write_text(
        "openapi: 3.1.0\ninfo: {title: x, version: '1'}\npaths:\n  /words:\n    get: {summary: Words.}\n"
        "  /other:\n    get:\n      parameters:\n      - {name: a, in: query, schema: {$ref: 'http://127.0.0.1:1/x'}}\n"
    )
    for file, name in ((json_file, "shop.words"), (yaml_file, "shop.get_words")):
        registry = Registry()
        source = import_openapi(registry, "shop", file, operations="*", base_url=server.url, allow=["127.0.0.1"])
        with escalade.scope():
            assert registry.get_tool(name)() == "schöne Worte"
    assert "refers to another document" in source.skipped["get /other"]
    for text in ("{", "a: [", "- 1", "openapi: 2.0"):
        yaml_file.write_text(text)
        with pytest.raises(BadInput):
            import_openapi(Registry(), "shop", yaml_file, operations="*", base_url=server.url)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (operation("x", parameter("a", "query", style="spaceDelimited")), "isn't supported"),
        (operation("x", parameter("a", "cookie", required=True)), "needs a cookie"),
        (operation("x", {"$ref": "#/components/parameters/none"}), "leads nowhere"),
        (operation("x", {"$ref": "other.yaml#/a"}), "another document"),
        (operation("x", parameter("a", "query", {"$dynamicRef": "#x"})), "dynamic references"),
        (operation("x", parameter("a", "query", {"type": "string", "pattern": "("})), "can't be used"),
        (operation("x", {"name": 3, "in": "query"}), "can't be read"),
    ],
)
def test_operations_that_can_not_be_tools(server: OpenApiServer, made: dict[str, Any], reason: str) -> None:
    """They are skipped with the reason; asked for by name, they are refused, with the reason again."""
    document = {"openapi": "3.1.0", "paths": {"/x": {"get": made}}}
    if reason == "can't be used":
        with pytest.raises(BadInput, match=reason):
            import_openapi(Registry(), "shop", document, operations="*", base_url=server.url)
        return
    source = import_openapi(Registry(), "shop", document, operations="*", base_url=server.url)
    assert reason in source.skipped["x"]
    with pytest.raises(BadInput, match=rf"'x' can't be a tool: .*{reason}"):
        import_openapi(Registry(), "shop", document, operations=["x"], base_url=server.url)
    with pytest.raises(BadInput, match=rf"shop: 'x' can't be a tool: .*{reason}.*; there is nothing to accept"):
        source.accept("x")


@pytest.mark.parametrize(
    "header",
    [
        "Authorization", "authorization ", "Remote-User", "X_Remote_User", "X-Forwarded-User", "X-Original-URL",
        "X-HTTP-Method-Override", "X_HTTP_METHOD",
    ],
)  # fmt: skip
def test_headers_that_are_no_arguments(server: OpenApiServer, header: str) -> None:
    """Who asks, for what, and by which method is not the model's to say: a read can't be made a write by a header."""
    made = operation("x", parameter(header, "header"), parameter("X-Trace", "header"))
    registry = Registry()
    import_openapi(
        registry, "shop", {"openapi": "3.1.0", "paths": {"/x": {"get": made}}}, operations="*", base_url=server.url
    )
    assert list(registry.spec("shop.x").input_schema["properties"]) == ["X_Trace"]


@pytest.mark.parametrize("path", ["@elsewhere.example/x", ".elsewhere.example/x", "x", ""])
def test_a_path_that_leads_to_another_host(server: OpenApiServer, path: str) -> None:
    """A description can't change where its importer said that the API is."""
    document = {"openapi": "3.1.0", "paths": {path: {"get": operation("x")}}}
    source = import_openapi(Registry(), "shop", document, operations="*", base_url=server.url)
    assert source.skipped == {"x": "its path doesn't begin with '/'"}


@pytest.mark.parametrize("reference", ["file:///etc/passwd", "http://127.0.0.1:1/x", "other.yaml#/x", "#/nowhere"])
def test_a_path_that_is_a_reference(server: OpenApiServer, reference: str) -> None:
    """A path that stands in another document is skipped, and nothing is fetched; the others are imported."""
    paths = {"/x": {"$ref": reference}, "/y": {"get": operation("y")}}
    registry = Registry()
    source = import_openapi(registry, "shop", {"openapi": "3.1.0", "paths": paths}, operations="*", base_url=server.url)
    assert list(source.skipped) == ["/x"]
    assert [spec.name for spec in registry.specs()] == ["shop.y"]


def test_a_path_without_its_parameter(server: OpenApiServer) -> None:
    """A hole in the path that nothing fills can't be called; two operations of one name can't be told apart."""
    document = {"openapi": "3.1.0", "paths": {"/x/{id}": {"get": operation("x")}}}
    source = import_openapi(Registry(), "shop", document, operations="*", base_url=server.url)
    assert source.skipped == {"x": "its path has 'id', which no parameter says"}
    document["paths"]["/y"] = {"get": operation("x")}  # type: ignore[index]
    with pytest.raises(BadInput, match="two operations are called 'x'"):
        import_openapi(Registry(), "shop", document, operations="*", base_url=server.url)


def test_the_descriptions_own_server(server: OpenApiServer) -> None:
    """Without base_url the description says where the server is, and then it gets no credentials."""
    document = {**server.document(), "servers": [{"url": f"{server.url}/{{v}}", "variables": {"v": {"default": "."}}}]}
    registry = Registry()
    import_openapi(registry, "shop", document, operations=["words"], allow=["127.0.0.1"])
    with escalade.scope():
        assert registry.get_tool("shop.words")() == "schöne Worte"
    with pytest.raises(BadInput, match="credentials need a base_url"):
        import_openapi(Registry(), "shop", document, operations=["words"], token="env:X")
    del document["servers"]
    source = import_openapi(Registry(), "shop", document, operations="*")
    assert "doesn't say where its server is" in source.skipped["words"]


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("down", 'tool_failed: HTTP 500: {"error": "Traceback: <path> line 3, key <api_key>"} [retryable=yes]'),
        ("busy", "tool_failed: HTTP 429: {} [retryable=yes, retry_after=7s]"),
        ("wrong", "tool_failed: the server's answer says that it is JSON, and isn't [retryable=yes]"),
        ("huge", "tool_failed: the server answered with more than 50,000 bytes; ask for less [retryable=no]"),
        ("announced", "tool_failed: the server answered with more than 50,000 bytes; ask for less [retryable=no]"),
        ("zipped", "tool_failed: the server sent a compressed answer although none was asked for [retryable=no]"),
        ("broken", "tool_failed: the connection to the server failed (RemoteProtocolError) [retryable=yes]"),
    ],
)
def test_answers_that_are_none(server: OpenApiServer, tool: str, said: str) -> None:
    """Each failure is one line: what happened, whether to try again, and nothing of the server's inside."""
    registry, _ = imported(server, [tool], largest=50_000)
    with escalade.scope(), pytest.raises(ToolError) as caught:
        registry.get_tool(f"shop.{tool}")()
    assert str(caught.value) == said


def test_answers(server: OpenApiServer) -> None:
    """JSON is a value, text is text, what is neither is described, nothing is an empty text."""
    registry, _ = imported(server)
    with escalade.scope():
        assert registry.get_tool("shop.words")() == "schöne Worte"
        assert registry.get_tool("shop.picture")() == {"type": "image/png", "bytes": 4}
        assert registry.get_tool("shop.empty")() == ""


def test_who_is_to_blame(server: OpenApiServer) -> None:
    """A server that fails opens the breaker; one that says that we are wrong doesn't."""
    document = server.document()
    document["paths"]["/none"] = {"get": operation("none")}
    registry = Registry()
    import_openapi(registry, "s", document, operations=["down", "none"], base_url=server.url, allow=["127.0.0.1"])
    with escalade.scope():
        for name, outcome in (("s.none", ToolError), ("s.down", escalade.CircuitOpen)):
            for _ in range(5):
                with pytest.raises(ToolError):
                    registry.get_tool(name)()
            with pytest.raises(outcome):
                registry.get_tool(name)()


def test_another_try(server: OpenApiServer) -> None:
    """A server that fails is asked again where the importer says so, as soon as it says that it may be."""
    registry, _ = imported(server, ["flaky"], retries=3)
    with escalade.scope():
        assert registry.get_tool("shop.flaky")() == "at last"
    assert len(server.seen) == 3


@pytest.mark.parametrize("tool", ["slow", "drip"])
def test_slow_answers(server: OpenApiServer, tool: str) -> None:
    """A timeout counts for the whole answer, also for one that comes a byte at a time."""
    registry, _ = imported(server, [tool], timeout=0.3)
    start = time.perf_counter()
    with escalade.scope(), pytest.raises(escalade.ToolTimeout):
        asyncio.run(registry.get_tool(f"shop.{tool}").acall())
    assert time.perf_counter() - start < 6


def test_cookies_are_not_kept(server: OpenApiServer) -> None:
    """What a server gave one caller to remember is not shown again for another."""
    registry, _ = imported(server, ["cookie"])
    with escalade.scope():
        assert registry.get_tool("shop.cookie")() == {"cookie": None}
        assert registry.get_tool("shop.cookie")() == {"cookie": None}


# ----------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize("redirects", [False, True])
@pytest.mark.parametrize("tool", ["inside", "elsewhere", "loop"])
def test_redirects_that_are_not_followed(server: OpenApiServer, tool: str, *, redirects: bool) -> None:
    """Not to a private address, not to another origin, not for ever."""
    registry, _ = imported(server, [tool], redirects=redirects, token="env:SHOP")
    with escalade.scope(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP", "secret-of-shop")
        with pytest.raises(ToolError, match="isn't followed|more than 3 times"):
            registry.get_tool(f"shop.{tool}")()
    assert {seen["path"] for seen in server.seen} == {f"/{tool}"}


def test_redirects_within_the_origin(server: OpenApiServer) -> None:
    """By choice, and only then."""
    for redirects in (False, True):
        registry, _ = imported(server, ["moved"], redirects=redirects)
        with escalade.scope(), nullcontext() if redirects else pytest.raises(ToolError, match="isn't followed"):
            assert registry.get_tool("shop.moved")() == [{"id": 1}]


def test_private_addresses(server: OpenApiServer) -> None:
    """Loopback needs to be allowed, as any private address does."""
    registry, _ = imported(server, ["words"], allow=())
    with escalade.scope(), pytest.raises(ToolError, match="not a public one"):
        registry.get_tool("shop.words")()
    assert server.seen == []


def test_a_name_that_moves(server: OpenApiServer) -> None:
    """The address that was judged is the one that is connected to: a name that first leads outside and then inside
    gains nothing, and is refused as soon as it leads inside.
    """
    answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "10.0.0.1"], []]

    async def lookup(host: str, port: int) -> list[str]:
        assert host == "api.shop.example"
        return answers.pop(0)

    net = Net(["127.0.0.1"], lookup)
    registry, _ = imported(server, ["words"], base_url=f"http://api.shop.example:{server.port}", net=net)
    words = registry.get_tool("shop.words")
    with escalade.scope():
        assert words() == "schöne Worte"
        assert server.seen[-1]["headers"]["host"] == f"api.shop.example:{server.port}"
        for reason in ("not a public one", "not a public one", "leads nowhere"):
            with pytest.raises(ToolError, match=reason):
                words()
    assert len(server.seen) == 1


# ---------------------------------------------------------------------------------------------------------------- pins


def test_changed_behind_our_back(server: OpenApiServer, tmp_path: Path) -> None:
    """An operation that the file describes otherwise than when it was pinned is refused until it is accepted."""
    file, pins = tmp_path / "shop.json", tmp_path / "pins.json"
    options: dict[str, Any] = {"base_url": server.url, "allow": ["127.0.0.1"], "pins": pins}
    file.write_text(json.dumps(server.document()))
    import_openapi(Registry(), "shop", file, operations=["words", "empty"], **options)
    document = server.document()
    document["paths"]["/picture"]["get"]["operationId"] = "words"
    document["paths"]["/words"]["get"]["operationId"] = "picture"
    file.write_text(json.dumps(document))
    registry = Registry()
    source = import_openapi(registry, "shop", file, operations=["words", "empty"], **options)
    with escalade.scope():
        with pytest.raises(Quarantined, match=r"\(description, hints\)"):
            registry.get_tool("shop.words")()
        assert registry.get_tool("shop.empty")() == ""
        assert '"/picture"' in source.changes()[0].difference
        assert source.accept("words").version == "1.0.1"
    with escalade.scope():
        assert registry.get_tool("shop.words")() == {"type": "image/png", "bytes": 4}


# ------------------------------------------------------------------------------------------------------------ refusals

GUEST = {"principal": Principal("ana", roles=frozenset({"guest"})), "access": Roles({"guest": ["model.*:call"]})}


@pytest.mark.parametrize(
    ("refusal", "options", "said", "args"),
    [
        ("PermissionDenied", GUEST, {}, {"body": {"item": "x"}}),
        ("NoScope", None, {}, {"body": {"item": "x"}}),
        ("RateLimited", {}, {"limits": "1/h"}, {"body": {"item": "x"}}),
        ("BudgetExceeded", {"budget": "1"}, {"cost": "2"}, {"body": {"item": "x"}}),
        ("InvalidArguments", {}, {}, {"body": 3}),
    ],
)
def test_a_refused_operation_is_not_sent(
    server: OpenApiServer, refusal: str, options: Any, said: Any, args: Any
) -> None:
    """Refused, it never reaches the server, and the denial is recorded."""
    registry, _ = imported(server, ["createOrder"], **said)
    governed, journal = registry.get_tool("shop.create_order"), Journal()
    if refusal == "RateLimited":
        governed._registered.resource.limiter.take("shop.create_order@1.0.0", governed._registered.resource.limits)
    scope = nullcontext() if options is None else escalade.scope(recorder=journal, **options)
    on_exit = pytest.raises(BudgetExceeded) if refusal == "BudgetExceeded" else nullcontext()
    with on_exit, scope, pytest.raises(EscaladeError):
        governed(**args)
    assert server.seen == []
    assert [denial.outcome for denial in journal.denials()] == ([] if options is None else [refusal])


def test_failed_is_failed() -> None:
    """A server that isn't there: one line, and the failure counts."""
    registry = Registry()
    document = {"openapi": "3.1.0", "paths": {"/x": {"get": operation("x")}}}
    import_openapi(registry, "s", document, operations="*", base_url="http://127.0.0.1:9", allow=["127.0.0.1"])
    with escalade.scope(), pytest.raises(ToolFailed, match=r"failed \(ConnectError\)"):
        registry.get_tool("s.x")()
