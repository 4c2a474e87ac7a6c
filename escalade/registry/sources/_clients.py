"""Clients of the MCP SDK, opened in the background loop: over HTTP, and over stdio for commands that are allowed."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from escalade.errors import BadInput
from escalade.registry.secrets import Secret
from escalade.registry.sources._connection import Answering
from escalade.registry.sources._wire import Wire

Opened = Callable[[], AbstractAsyncContextManager[Any]]

_allowed: set[tuple[str, ...]] = set()
_lock = threading.Lock()


def allow_stdio(*command: str) -> None:
    """Let this process start exactly this command, with exactly these arguments, as an MCP server.

    For whoever runs the application: a manifest that names a command doesn't allow it. Raises BadInput when there is no
    such program.
    """
    found = _resolved(command)
    with _lock:
        _allowed.add(found)


def over_http(wire: Wire) -> Opened:
    """A client of a server at a URL."""
    _check_sdk()
    wire.check()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        sdk = await _sdk("mcp.client.streamable_http")
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        async with wire.client(httpx2, Answering) as http:
            transport = streamable_http_client(wire.url, http_client=http, max_sse_event_size=wire.largest)
            async with sdk.Client(transport, cache=None) as client:
                yield client

    return opened


def over_stdio(command: Sequence[str], env: Mapping[str, Any]) -> Opened:
    """A client of a program. `env`: its environment besides PATH, HOME and their like; secrets by reference."""
    if isinstance(command, str) or not command:
        raise BadInput(f"command: expected a list of a program and its arguments, got {command!r}")
    _check_sdk()
    argv = _resolved(command)
    secrets = {name: value if isinstance(value, Secret) else Secret.of(str(value)) for name, value in env.items()}
    _check_allowed(argv)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        sdk = await _sdk("mcp.client.stdio")
        from mcp.client.stdio import stdio_client

        _check_allowed(argv)
        revealed = {name: value.reveal() for name, value in secrets.items()}
        parameters = sdk.StdioServerParameters(command=argv[0], args=list(argv[1:]), env=revealed)
        with Path(os.devnull).open("w") as nowhere:  # noqa: ASYNC230 - what it says there may hold anything
            async with sdk.Client(stdio_client(parameters, errlog=nowhere), cache=None) as client:
                yield client

    return opened


def _check_allowed(argv: tuple[str, ...]) -> None:
    if argv not in _allowed:
        raise BadInput(
            f"the command {Path(argv[0]).name!r} is not allowed as an MCP server: whoever runs this process allows it, "
            f"with all its arguments, by allow_stdio({', '.join(map(repr, [Path(argv[0]).name, '…']))})"
        )


def _resolved(command: Sequence[str]) -> tuple[str, ...]:
    if not command or not all(isinstance(part, str) and part and "\0" not in part for part in command):
        raise BadInput("a command is a program and its arguments, all of them text")
    program = shutil.which(command[0])
    if program is None:
        raise BadInput(f"there is no program {Path(command[0]).name!r}")
    return str(Path(program).absolute()), *command[1:]


def _check_sdk() -> None:
    """Raises BadInput where there is none."""
    if importlib.util.find_spec("mcp") is None:
        raise BadInput("MCP needs the SDK: pip install 'escalade[mcp]'")


async def _sdk(part: str) -> Any:
    """The SDK, with a part of it: imported for the first connection, since it takes 1.5 s, and who only lists what is
    pinned connects to nobody.
    """
    await asyncio.to_thread(importlib.import_module, part)
    return importlib.import_module("mcp")
