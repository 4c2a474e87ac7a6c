"""Operations of a web API, imported from its OpenAPI description.

    source = import_openapi(registry, "shop", "shop.yaml", base_url="https://api.shop.example/v1",
                            token="env:SHOP_TOKEN", operations={"listOrders": {}, "createOrder": {"cost": "0.01"}})

GET and HEAD read, all others write, unless said otherwise. Where the API is comes from whoever imports it; the
description's own word is taken only without `base_url`, and then without credentials. Private addresses are refused;
redirects aren't followed, or, by choice, within the same origin only. Arguments go where the description says, never
into a header that says who asks, and never out of their place in the path.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from escalade.errors import BadInput, InvalidArguments, ToolError, ToolFailed
from escalade.registry.nesting import TooDeep, parsed, shallow
from escalade.registry.secrets import Secret
from escalade.registry.sources._background import shared
from escalade.registry.sources._net import Net, origin
from escalade.registry.sources._operations import FORM, Operation, Parameter, operations
from escalade.registry.sources._wire import LARGEST, TooLarge, Wire, secret_headers
from escalade.registry.sources.definitions import Definition, Said
from escalade.registry.sources.pins import Pins
from escalade.registry.sources.source import Source, Terms
from escalade.registry.tools import SideEffects

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry

_HOPS = 3


class OpenApiSource(Source):
    """A web API whose operations are in a registry. Made by `import_openapi`.

    `skipped`: operations that can't be tools, and why.
    """

    def __init__(
        self, registry: Registry, name: str, description: Any, pins: Pins, wire: Wire, *, redirects: bool
    ) -> None:
        where = wire.url or ("" if isinstance(description, Mapping) else str(description))
        super().__init__(registry, name, pins, where=where, recheck=math.inf)
        self._description, self._wire, self._redirects = description, wire, redirects
        self._clients: dict[str, Any] = {}

    async def _listing(self) -> dict[str, Definition]:
        found, self.skipped = await asyncio.to_thread(
            lambda: operations(_document(self._description), self._wire.url)  # large ones take seconds
        )
        return found

    def _effect(self, definition: Definition) -> SideEffects:
        return "read" if definition.hints["operation"]["method"] in {"GET", "HEAD"} else "write"

    async def _invoke(self, definition: Definition, arguments: dict[str, Any], check: Any) -> Any:
        import httpx

        operation = Operation.of_json(definition.hints["operation"])
        base = self._wire.url or operation.server
        client = self._client(httpx, base)
        try:
            request = client.build_request(**_request(operation, base, arguments))
            response = await self._sent(client, request)
            try:
                body = await response.aread()
            finally:
                await response.aclose()
        except TooLarge as error:
            raise ToolError(str(error)) from error
        except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError) as error:
            raise InvalidArguments(f"{operation.method} {operation.path}: an argument can't be sent") from error
        except httpx.HTTPError as error:
            raise ToolFailed(f"the connection to the server failed ({type(error).__name__})") from error
        return _result(response, body)

    def _client(self, http: Any, base: str) -> Any:
        if base not in self._clients:
            shared.at_exit(self._close)
            self._clients[base] = Wire(base, self._wire.net, self._wire.headers, self._wire.largest).client(http)
        return self._clients[base]

    def close(self) -> None:
        """End the connections; the next call opens new ones."""
        shared.wait(self._close())

    async def _close(self) -> None:
        clients, self._clients = self._clients, {}
        shared.forget(self._close)
        for client in clients.values():
            await client.aclose()

    async def _sent(self, client: Any, request: Any) -> Any:
        for _ in range(_HOPS + 1):
            response = await client.send(request, stream=True)
            following = response.next_request
            if following is None:
                return response
            await response.aclose()
            same = origin(following.url) == origin(request.url) and following.method == request.method
            if not (self._redirects and same):
                raise ToolError(f"the server answered {response.status_code} and wants us elsewhere; it isn't followed")
            request = following
        raise ToolError(f"the server sent us on more than {_HOPS} times")


def import_openapi(
    registry: Registry,
    name: str,
    description: str | Path | Mapping[str, Any],
    *,
    operations: Iterable[str] | Mapping[str, Said] | str = (),
    base_url: str = "",
    prefix: str | None = None,
    permissions: str = "",
    pins: Pins | str | Path | None = None,
    headers: Mapping[str, Any] | None = None,
    token: Secret | str | None = None,
    allow: Iterable[str] = (),
    largest: int = LARGEST,
    redirects: bool = False,
    net: Net | None = None,
    ask: bool = True,
    **said: Any,
) -> OpenApiSource:
    """Register operations of a web API. `name`: of the source, in the pins file and before each tool's name.

    `description`: a file (JSON or YAML) or what it says. `operations`: ids ("GET /path" where there is none), with
    fields of a ToolSpec of their own, or "*" for all that can be tools. `redirects`: follow them within the same
    origin. The rest as for `import_mcp`.

    Runs nothing and connects nowhere. Raises BadInput, UnknownName (an operation that isn't described).
    """
    wire = Wire(base_url.rstrip("/"), net or Net(allow), secret_headers(headers, token), largest)
    if base_url:
        wire.check()
    elif wire.headers:
        raise BadInput("credentials need a base_url: a description must not say where they are sent")
    source = OpenApiSource(registry, name, description, Pins.of_path(pins), wire, redirects=redirects)
    source._import(operations, Terms(name if prefix is None else prefix, said, permissions), ask=ask)
    return source


def _document(description: Any) -> dict[str, Any]:
    if isinstance(description, Mapping):
        try:
            return dict(shallow(description))
        except TooDeep as error:
            raise BadInput(f"the description: {error}") from None
    try:
        text = Path(description).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{description}: can't be read ({type(error).__name__})") from None
    try:
        made = parsed(text, json.loads if text.lstrip().startswith("{") else _yaml)
    except TooDeep as error:
        raise BadInput(f"{description}: {error}") from None
    except ValueError as error:
        raise BadInput(f"{description}: neither JSON nor YAML ({error})") from None
    return made if isinstance(made, dict) else {}


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None


# ------------------------------------------------------------------------------------------------ requests and results


def _request(operation: Operation, base: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `AsyncClient.build_request`."""
    path = operation.path
    query: list[tuple[str, str]] = []
    headers: dict[str, str] = {"accept": "application/json, text/plain;q=0.9, */*;q=0.1"}
    made: dict[str, Any] = {"method": operation.method, "params": query, "headers": headers}
    for parameter in operation.parameters:
        if parameter.argument not in arguments:
            continue
        value = arguments[parameter.argument]
        if parameter.place == "path":
            path = path.replace(f"{{{parameter.name}}}", _segment(parameter, value))
        elif parameter.place == "query":
            query += _query(parameter, value)
        elif parameter.place == "header":
            headers[parameter.name] = _header(parameter, value)
        elif operation.media == FORM:
            made["data"] = {key: _text(one) for key, one in _object(parameter, value).items()}
        else:
            made["content"] = json.dumps(value).encode()
            headers["content-type"] = operation.media
    return {**made, "url": f"{base}{path}"}


def _segment(parameter: Parameter, value: Any) -> str:
    """One segment of the path: what is in it can't end it, and can't lead out of it."""
    text = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
    if text.strip(".") == "":
        raise InvalidArguments(f"argument {parameter.argument!r}: {text!r} can't be part of a path")
    return quote(text, safe="")


def _header(parameter: Parameter, value: Any) -> str:
    text = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
    if not text.isascii() or not text.isprintable():
        raise InvalidArguments(f"argument {parameter.argument!r}: a header takes printable ASCII only")
    return text


def _query(parameter: Parameter, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        if parameter.deep:
            return [(f"{parameter.name}[{key}]", _text(one)) for key, one in value.items()]
        if parameter.explode:
            return [(str(key), _text(one)) for key, one in value.items()]
        return [(parameter.name, ",".join(f"{key},{_text(one)}" for key, one in value.items()))]
    if isinstance(value, list):
        if parameter.explode:
            return [(parameter.name, _text(one)) for one in value]
        return [(parameter.name, ",".join(map(_text, value)))]
    return [(parameter.name, _text(value))]


def _object(parameter: Parameter, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArguments(f"argument {parameter.argument!r}: a form is an object")
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value)
    return "" if value is None else str(value)


def _result(response: Any, body: bytes) -> Any:
    """The answer as a value: JSON where it says so, else text. Raises ToolError (the caller's fault), ToolFailed."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    status = response.status_code
    if status >= 400:
        words = (
            body[:500].decode("utf-8", "replace")
            if kind in {"text/plain", "application/json"} or "+json" in kind
            else ""
        )
        text = f"HTTP {status}{': ' if words else ''}{' '.join(words.split())}"
        if status < 500 and status != 429:
            raise ToolError(text)
        failed, after = ToolFailed(text), response.headers.get("retry-after", "")
        failed.retry_after = float(after) if after.isdigit() else None
        raise failed
    if kind.endswith("json") and body:
        try:
            return parsed(body)
        except ValueError:
            raise ToolFailed("the server's answer says that it is JSON, and isn't") from None
    if kind and not kind.startswith("text/") and not kind.endswith(("json", "xml")) and body:
        return {"type": kind, "bytes": len(body)}
    return body.decode("utf-8", "replace")
