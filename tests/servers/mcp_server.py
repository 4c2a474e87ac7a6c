"""An MCP server written with the official SDK, over streamable HTTP in a thread or over stdio in a process of its own.

with McpServer() as server:          # server.url; server.ran; server.describe("search", "other words")
python tests/servers/mcp_server.py   # stdio
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations


class McpServer:
    """`ran`: the calls that were executed. `headers`: of each request. `latency`: seconds that `slow` takes."""

    def __init__(self, *, legacy: bool = False) -> None:
        self.ran: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.latency = 5.0
        self.legacy, self.port = legacy, 0
        self.mcp = MCPServer("tests", log_level="CRITICAL")
        for function in (self.search, self.book, self.slow, self.big, self.broken, self.picture):
            self.mcp.tool(structured_output=function.__name__ == "search")(function)
        self.mcp.tool(name="getUser", annotations=ToolAnnotations(read_only_hint=True))(self.get_user)

    # ------------------------------------------------------------------------------------------------------ its tools

    def search(self, query: str, limit: int = 10, kind: str | None = None) -> dict[str, Any]:
        """Customers whose name contains the query."""
        self.ran.append(("search", query))
        return {"found": [f"{query} & Sons"][:limit], "kind": kind}

    def book(self, city: str) -> str:
        """Books a flight."""
        self.ran.append(("book", city))
        return f"booked {city}"

    async def slow(self) -> str:
        """Takes its time."""
        self.ran.append(("slow", None))
        await asyncio.sleep(self.latency)
        return "at last"

    def big(self, size: int) -> str:
        """Answers with so many characters."""
        self.ran.append(("big", size))
        return "x" * size

    def broken(self) -> str:
        """Fails."""
        self.ran.append(("broken", None))
        raise ValueError("no such table in /srv/app/db.sqlite\nsecond line")

    def picture(self) -> list[Any]:
        """Text and a picture."""
        from mcp.server.mcpserver import Image

        self.ran.append(("picture", None))
        return ["a picture:", Image(data=b"\x89PNG1234", format="png")]

    def get_user(self, user_id: int) -> str:
        """A user."""
        self.ran.append(("getUser", user_id))
        return f"user {user_id}"

    # -------------------------------------------------------------------------------------------- behind one's back

    def describe(self, tool: str, words: str) -> None:
        """Change what the server says of a tool."""
        self.mcp._tool_manager._tools[tool].description = words

    def reshape(self, tool: str, schema: dict[str, Any]) -> None:
        """Change the schema of its arguments."""
        self.mcp._tool_manager._tools[tool].parameters = schema

    def remove(self, tool: str) -> None:
        """Take it away."""
        self.mcp.remove_tool(tool)

    # ------------------------------------------------------------------------------------------------------- serving

    def __enter__(self) -> McpServer:
        self.port = self.port or free_port()
        self._serving = serving(self._app(), self.port)
        self._serving.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._serving.__exit__(None, None, None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def _app(self) -> Any:
        app = self.mcp.streamable_http_app(stateless_http=not self.legacy)

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
            await app(scope, receive, send)

        return watched


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(app: Any, port: int) -> Iterator[None]:
    """An ASGI app on loopback, in a thread of its own."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)


if __name__ == "__main__":
    McpServer().mcp.run("stdio")
