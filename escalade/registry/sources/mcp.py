"""Tools of MCP servers, imported: over streamable HTTP, or over stdio for commands that were allowed.

    source = import_mcp(registry, "github", url="https://…/mcp", token="env:GITHUB_TOKEN", pins="escalade.pins.json",
                        tools={"search_issues": {"side_effects": "read"}, "create_issue": {"approval": "always"}})
    source.changes()               # what the server changed since it was pinned: refused until then
    source.accept("create_issue")  # a person has looked at it: a new version of the tool

The first import asks the server what it offers and pins it; a later one takes what is pinned and asks nobody. No tool
runs until somebody calls it. Before a call, and every `recheck` seconds, what the server offers is compared with the
pin: a tool whose name, description, schema or hints changed is quarantined. Models only see what is pinned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput
from escalade.registry.secrets import Secret
from escalade.registry.sources import _clients
from escalade.registry.sources._background import shared
from escalade.registry.sources._clients import allow_stdio
from escalade.registry.sources._connection import Connection
from escalade.registry.sources._net import Net
from escalade.registry.sources._result import plain
from escalade.registry.sources._wire import LARGEST, Wire, secret_headers
from escalade.registry.sources.definitions import Definition, Said
from escalade.registry.sources.pins import Pins
from escalade.registry.sources.source import Source, Terms
from escalade.registry.tools import SideEffects

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry

__all__ = ["McpSource", "allow_stdio", "import_mcp"]


class McpSource(Source):
    """An MCP server whose tools are in a registry. Made by `import_mcp`."""

    def __init__(
        self,
        registry: Registry,
        name: str,
        connection: Connection,
        pins: Pins,
        *,
        where: str,
        recheck: float,
        largest: int,
        trust_hints: bool,
    ) -> None:
        super().__init__(registry, name, pins, where=where, recheck=recheck)
        self._connection, self._largest, self._trust_hints = connection, largest, trust_hints

    def close(self) -> None:
        """End the connection; the next call opens it anew."""
        shared.wait(self._connection.close())

    async def _listing(self) -> dict[str, Definition]:
        return await self._connection.listing()

    async def _invoke(self, definition: Definition, arguments: dict[str, Any], check: Any) -> Any:
        return plain(await self._connection.call(definition.name, arguments), check, self._largest)

    def _effect(self, definition: Definition) -> SideEffects:
        return definition.effect(trusted=self._trust_hints)


def import_mcp(
    registry: Registry,
    name: str,
    *,
    url: str | None = None,
    command: Sequence[str] | None = None,
    tools: Iterable[str] | Mapping[str, Said] | str = (),
    prefix: str | None = None,
    permissions: str = "",
    pins: Pins | str | Path | None = None,
    trust_hints: bool = False,
    headers: Mapping[str, Any] | None = None,
    token: Secret | str | None = None,
    env: Mapping[str, Any] | None = None,
    allow: Iterable[str] = (),
    largest: int = LARGEST,
    recheck: float = 60.0,
    net: Net | None = None,
    ask: bool = True,
    **said: Any,
) -> McpSource:
    """Register tools of an MCP server. `name`: of the source, in the pins file and before each tool's name.

    `url`: streamable HTTP; or `command`: a program to start, which `allow_stdio` must have allowed. `tools`: the
    server's names of those that are wanted, with fields of a ToolSpec of their own, or "*" for all that it offers now.
    `said`: fields for all of them, such as `side_effects`, `cost`, `limits`, `timeout` (30 s by default). Side effects
    are "irreversible" unless said otherwise; `trust_hints`: believe the server's. `permissions`: before each tool's
    name in what a role must grant, as "partner" for "partner.github.search_issues:call". `headers`, `token`, `env`:
    secrets by reference, "env:NAME". `allow`: networks that may be reached although they aren't public. `largest`:
    bytes of an answer. `recheck`: seconds for which the server is taken to be unchanged; 0 asks before each call.
    `ask=False`: take what is pinned and ask nobody; the rest waits for `source.accept`.

    Blocks while it asks the server, which it does for what isn't pinned. Raises BadInput, UnknownName (a tool that the
    server doesn't offer), ToolError when it can't be reached.
    """
    if (url is None) == (command is None):
        raise BadInput("import_mcp takes either a url or a command")
    opened = (
        _clients.over_http(Wire(url, net or Net(allow), secret_headers(headers, token), largest))
        if url is not None
        else _clients.over_stdio(command or (), env or {})
    )
    source = McpSource(
        registry,
        name,
        Connection(opened),
        Pins.of_path(pins),
        where=url if url is not None else " ".join(command or ()),
        recheck=recheck,
        largest=largest,
        trust_hints=trust_hints,
    )
    source._import(tools, Terms(name if prefix is None else prefix, said, permissions), ask=ask)
    return source
