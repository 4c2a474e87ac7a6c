"""A web API of our own, with its OpenAPI description, and with all the bad manners that a foreign one may have.

with OpenApiServer() as server:   # server.url, server.document(), server.seen
"""

from __future__ import annotations

import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

INTEGER = {"type": "integer"}
STRING = {"type": "string"}


def operation(name: str, *parameters: dict[str, Any], body: Any = None, **fields: Any) -> dict[str, Any]:
    """An operation as a description has it."""
    made: dict[str, Any] = {"operationId": name, "responses": {"200": {"description": "ok"}}, **fields}
    if parameters:
        made["parameters"] = list(parameters)
    if body is not None:
        made["requestBody"] = body
    return made


def parameter(name: str, place: str, schema: Any = STRING, *, required: bool = False, **fields: Any) -> dict[str, Any]:
    """A parameter as a description has it."""
    return {"name": name, "in": place, "schema": schema, **({"required": True} if required else {}), **fields}


DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Shop", "version": "1"},
    "servers": [{"url": "http://127.0.0.1:1/never"}],
    "paths": {
        "/orders": {
            "get": operation(
                "listOrders",
                parameter("status", "query", {"type": "string", "enum": ["open", "paid"]}),
                parameter("page[size]", "query", INTEGER),
                parameter("tags", "query", {"type": "array", "items": STRING}),
                parameter("ids", "query", {"type": "array", "items": INTEGER}, explode=False),
                parameter("filter", "query", {"type": "object"}, style="deepObject"),
                parameter("urgent", "query", {"type": "boolean"}),
                parameter("X-Trace", "header", STRING),
                parameter("Authorization", "header", STRING),
                parameter("session", "cookie", STRING),
                description="Orders, newest first.",
            ),
            "post": operation(
                "createOrder",
                body={
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
                },
            ),
        },
        "/orders/{order-id}": {
            "parameters": [parameter("order-id", "path", STRING, required=True)],
            "get": operation("getOrder"),
            "delete": operation("deleteOrder", summary="Deletes an order."),
        },
        "/form": {
            "post": operation(
                "sendForm",
                body={"content": {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}},
            )
        },
        "/upload": {
            "post": operation("upload", body={"required": True, "content": {"multipart/form-data": {}}}),
        },
        **{f"/{name}": {"get": operation(name)} for name in (
            "slow", "drip", "huge", "announced", "zipped", "inside", "elsewhere", "moved", "loop", "cookie", "down",
            "busy", "flaky", "wrong", "words", "picture", "broken", "empty",
        )},
    },
    "components": {
        "schemas": {
            "Order": {
                "type": "object",
                "required": ["item"],
                "properties": {
                    "item": STRING,
                    "count": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
                    "note": {"type": "string", "nullable": True},
                    "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Order"}},
                },
            }
        }
    },
}  # fmt: skip


class OpenApiServer:
    """`seen`: the requests, as dicts of method, path, query, headers and body."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.orders: list[Any] = []

    def __enter__(self) -> OpenApiServer:
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @staticmethod
    def document() -> dict[str, Any]:
        """A copy of its description."""
        made: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
        return made


class _Handler(BaseHTTPRequestHandler):
    server_of: OpenApiServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        seen = {"method": self.command, "path": url.path, "query": parse_qsl(url.query), "body": body}
        self.server_of.seen.append({**seen, "headers": {k.lower(): v for k, v in self.headers.items()}})
        name = url.path.strip("/")
        act = getattr(self, f"do_{name}", None) if name.isalpha() else None
        if act is not None:
            act()
        else:
            self.orders(url.path, body)

    do_POST = do_DELETE = do_GET  # noqa: N815 - names that http.server prescribes

    def orders(self, path: str, body: str) -> None:
        if self.command == "POST":
            self.server_of.orders.append(body)
            self.answer({"created": True}, status=201)
        elif path == "/orders":
            self.answer([{"id": 1}])
        elif path.startswith("/orders/"):
            self.answer({"id": unquote(path.removeprefix("/orders/"))})
        else:
            self.answer({"error": f"no {path} in /srv/shop/app.py"}, status=404)

    def do_slow(self) -> None:
        time.sleep(9)
        self.answer("late")

    def do_drip(self) -> None:
        self.begin(200, {"content-type": "text/plain", "content-length": "100"})
        for _ in range(100):
            self.wfile.write(b".")
            self.wfile.flush()
            time.sleep(0.1)

    def do_huge(self) -> None:
        self.begin(200, {"content-type": "text/plain", "connection": "close"})
        for _ in range(200):
            self.wfile.write(b"x" * 10_000)
        self.close_connection = True

    def do_announced(self) -> None:
        self.begin(200, {"content-type": "text/plain", "content-length": "999999999"})
        self.close_connection = True

    def do_zipped(self) -> None:
        self.send(gzip.compress(b"x" * 1_000_000), {"content-encoding": "gzip", "content-type": "text/plain"})

    def do_inside(self) -> None:
        self.begin(302, {"location": "http://169.254.169.254/latest/meta-data", "content-length": "0"})

    def do_elsewhere(self) -> None:
        self.begin(307, {"location": f"http://localhost:{self.server_of.port}/orders", "content-length": "0"})

    def do_moved(self) -> None:
        self.begin(307, {"location": "/orders", "content-length": "0"})

    def do_loop(self) -> None:
        self.begin(307, {"location": "/loop", "content-length": "0"})

    def do_cookie(self) -> None:
        self.answer({"cookie": self.headers.get("cookie")}, extra={"set-cookie": "session=ana; Path=/"})

    def do_down(self) -> None:
        self.answer({"error": "Traceback: /srv/shop/app.py line 3, key sk-proj-Qm9v3XKfTz81LbWcRd0aYp47"}, status=500)

    def do_flaky(self) -> None:
        if len(self.server_of.seen) < 3:
            self.answer({}, status=503, extra={"retry-after": "0"})
        else:
            self.answer("at last")

    def do_busy(self) -> None:
        self.answer({}, status=429, extra={"retry-after": "7"})

    def do_wrong(self) -> None:
        self.send(b"{not json", {"content-type": "application/json"})

    def do_words(self) -> None:
        self.send("schöne Worte".encode(), {"content-type": "text/plain; charset=utf-8"})

    def do_picture(self) -> None:
        self.send(b"\x89PNG", {"content-type": "image/png"})

    def do_empty(self) -> None:
        self.begin(204, {})

    def do_broken(self) -> None:
        self.close_connection = True  # without a word

    # -------------------------------------------------------------------------------------------------------- helpers

    def answer(self, value: Any, status: int = 200, extra: dict[str, str] | None = None) -> None:
        self.send(json.dumps(value).encode(), {"content-type": "application/json", **(extra or {})}, status)

    def send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.begin(status, {"content-length": str(len(body)), **headers})
        self.wfile.write(body)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""
