"""How a tool server is reached: over stdio, or over HTTP, on loopback unless clients show who they are."""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput
from escalade.registry.serving.principals import PrincipalOf
from escalade.scopes import Principal

if TYPE_CHECKING:
    from escalade.registry.serving.server import ToolServer

logger = logging.getLogger(__name__)

App = Callable[[Any, Any, Any], Awaitable[None]]


def authenticated(app: App, principal_of: PrincipalOf | None, principal: Principal | None) -> App:
    """The app, with each request in the name of who sent it; 401 for who isn't known, 503 when that can't be told."""
    from escalade.registry.serving.server import PRINCIPAL

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":  # start-up and shutdown
            await app(scope, receive, send)
            return
        who = principal
        if principal_of is not None:
            try:
                found = principal_of(_headers(scope))
                who = await found if inspect.isawaitable(found) else found
            except Exception:
                logger.exception("who sent a request could not be found out")
                await _refused(send, 503, "who you are can't be found out now")
                return
        if who is None:
            await _refused(send, 401, "unauthorized")
            return
        await app({**scope, PRINCIPAL: who}, receive, send)

    return guarded


def run_http(server: ToolServer, host: str, port: int, path: str) -> None:
    """Serve until interrupted. Raises BadInput."""
    check_address(host, tokens=server.principal_of is not None)
    app = server.app(path=path, host=host)
    import uvicorn

    config = uvicorn.Config(app, host=host, port=port, log_level="warning", ws="none", server_header=False)
    with _bound(host, port) as listening:
        logger.info("serving tools at http://%s:%d%s", host, port, path)
        uvicorn.Server(config).run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    """Listening there; uvicorn itself would end the process where it can't."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise BadInput(f"{host}:{port} can't be served: {error.strerror or error}") from None


def run_stdio(server: ToolServer) -> None:
    """Serve the process at the other end of the pipes. Raises BadInput."""
    if server.principal is None:
        raise BadInput("over stdio there are no tokens: say who the client is, principal=Principal(...)")
    sdk_server = server.sdk_server()

    async def run() -> None:
        from mcp.server.stdio import stdio_server

        async with stdio_server() as (read, write):
            await sdk_server.run(read, write, sdk_server.create_initialization_options())

    asyncio.run(run())


def check_address(host: str, *, tokens: bool) -> None:
    """Raises BadInput for an address that others reach, unless clients show who they are."""
    if tokens or _is_loopback(host):
        return
    raise BadInput(
        f"{host!r} can be reached from other machines, and whoever reaches it would be the one principal of this "
        f"server: serve on 127.0.0.1, or say who has which token (principal_of=Tokens(...), --principals FILE)"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _headers(scope: Any) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


async def _refused(send: Any, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
