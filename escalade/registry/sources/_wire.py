"""The HTTP client that imported tools use, for httpx and for httpx2 (which the MCP SDK brings along).

Each request goes to an address that `_net` has judged, with the name in the Host header and in TLS. Credentials are put
in here, at the last moment and for one origin only, from secrets that are looked up each time. Answers are counted.
"""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any

from escalade.errors import BadInput, ToolError
from escalade.registry.secrets import Secret, known_schemes, names_secret
from escalade.registry.sources._net import Net, origin

LARGEST = 1_000_000
"""Bytes of an answer, unless said otherwise."""


TOO_LARGE = "the server answered with more than"


class TooLarge(ToolError):
    """A server answered with more than was allowed."""


@dataclass(frozen=True)
class Wire:
    """How to talk to one server. `url`: where it is. `headers`: for its origin only. `largest`: bytes of an answer."""

    url: str
    net: Net
    headers: Mapping[str, Secret | str] = field(default_factory=dict)
    largest: int = LARGEST

    def client(self, http: Any, kind: Any = None) -> Any:
        """An AsyncClient of that module (httpx or httpx2). It waits for connections, and for nothing else: calls have
        timeouts of their own.
        """
        transport: Any = _transport(http, kind or Judged)
        client = http.AsyncClient(
            transport=transport(self),
            timeout=http.Timeout(None, connect=10.0, pool=10.0),
            trust_env=False,
            follow_redirects=False,
        )
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))  # one caller's are no other caller's
        return client

    def check(self) -> None:
        """Raises BadInput for a URL that can't be one."""
        from httpx import URL, InvalidURL

        try:
            url = URL(self.url)
        except (InvalidURL, TypeError):
            raise BadInput("url: not an address") from None
        origin(url)
        if url.userinfo:
            raise BadInput("url: credentials don't belong into an address; pass token='env:NAME' or headers")

    def credentials(self) -> dict[str, str]:
        """The headers with their secrets. Raises BadInput when one isn't there."""
        return {name: value.reveal() if isinstance(value, Secret) else value for name, value in self.headers.items()}


def secret_headers(headers: Mapping[str, Any] | None, token: Secret | str | None) -> dict[str, Secret | str]:
    """Headers as people write them: "env:NAME" refers to a secret, and what a header like `X-Api-Key` says is kept as
    one. `token`: sent as `Authorization: Bearer …`.
    """
    made: dict[str, Secret | str] = {}
    for name, value in (headers or {}).items():
        if not isinstance(value, Secret | str):
            raise BadInput(f"header {name!r}: expected text or a reference to a secret like 'env:NAME'")
        refers = isinstance(value, Secret) or value.partition(":")[0] in known_schemes()
        made[name] = Secret.of(value) if refers or names_secret(name) else value
    if token is not None:
        made["Authorization"] = _Bearer(Secret.of(token))
    return made


class _Bearer(Secret):
    """`Bearer ` and a secret."""

    __slots__ = ("_token",)

    def __init__(self, token: Secret) -> None:
        super().__init__(token.reference)
        object.__setattr__(self, "_token", token)

    def reveal(self) -> str:
        token: Secret = self._token  # type: ignore[attr-defined]
        return f"Bearer {token.reveal()}"


@functools.cache
def _transport(http: Any, kind: Any) -> Any:
    """The transport as a class of that module."""
    too_large = type("TooLarge", (TooLarge, http.StreamError), {"__str__": lambda self: str(self.args[0])})
    counted = type("Counted", (_Counted, http.AsyncByteStream), {"too_large": too_large})
    return type(kind.__name__, (kind, http.AsyncBaseTransport), {"http": http, "counted": counted})


class _Counted:
    """Bytes of an answer, up to a limit. `announced`: how many it says they are."""

    too_large: Any

    def __init__(self, stream: Any, largest: int, announced: int) -> None:
        self.stream, self.largest, self.announced = stream, largest, announced

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.announced > self.largest:
            raise self._refusal()
        total = 0
        async for chunk in self.stream:
            total += len(chunk)
            if total > self.largest:
                raise self._refusal()
            yield chunk

    def _refusal(self) -> Exception:
        refusal: Exception = self.too_large.__new__(self.too_large)
        refusal.args = (f"{TOO_LARGE} {self.largest:,} bytes; ask for less",)
        return refusal

    async def aclose(self) -> None:
        await self.stream.aclose()


class Judged:
    """Connects to addresses that were judged."""

    http: Any
    counted: Any

    def __init__(self, wire: Wire) -> None:
        self.wire, self.home = wire, origin(self.http.URL(wire.url))
        self.inner = self.http.AsyncHTTPTransport(verify=_tls(), trust_env=False)

    async def handle_async_request(self, request: Any) -> Any:
        scheme, host, port = origin(request.url)
        headers = self.http.Headers(request.headers)
        headers["accept-encoding"] = "identity"  # compressed, a small answer could be a large one
        if (scheme, host, port) == self.home:
            headers.update(self.wire.credentials())
        addresses = await self.wire.net.addresses(host, port)
        return self._checked(await self._sent(request, headers, addresses, host))

    async def _sent(self, request: Any, headers: Any, addresses: list[str], host: str) -> Any:
        for address in addresses:
            direct = self.http.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await self.inner.handle_async_request(direct)
            except (self.http.ConnectError, self.http.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        raise AssertionError("a host has at least one address")

    def _checked(self, response: Any) -> Any:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ToolError("the server sent a compressed answer although none was asked for")
        length = response.headers.get("content-length", "0")
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            announced = int(length) if length.isdigit() else 0
            response.stream = self.counted(response.stream, self.wire.largest, announced)
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


@functools.cache
def _tls() -> Any:
    """One context for all: building it reads a few hundred certificates."""
    import ssl

    import certifi

    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
