"""From an OpenAPI description (3.0, 3.1) to operations: what is sent where, and the schema of the arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from escalade.errors import BadInput
from escalade.registry.sources._schema import inlined
from escalade.registry.sources.definitions import Definition

METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
JSON, FORM = "application/json", "application/x-www-form-urlencoded"

_NOT_FOR_MODELS = frozenset({
    "accept", "authorization", "connection", "content-length", "content-type", "cookie", "expect", "forwarded", "host",
    "origin", "proxy-authorization", "referer", "remote-user", "te", "trailer", "transfer-encoding", "upgrade",
    "x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-real-ip", "x-remote-user",
    "x-rewrite-url",
})  # fmt: skip
"""Headers that say who asks, for what, and how: never arguments. Nor are those that begin with `x-forwarded-`."""


class Unsupported(Exception):
    """An operation that can't be a tool, and why."""


@dataclass(frozen=True)
class Parameter:
    """An argument and its place: path, query, header or body. `name`: what it is called there."""

    argument: str
    name: str
    place: str
    deep: bool = False
    explode: bool = True


@dataclass(frozen=True)
class Operation:
    """What a call of an operation is. `media`: of the body, "" without one."""

    method: str
    path: str
    parameters: tuple[Parameter, ...]
    media: str = ""
    server: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it is pinned."""
        return asdict(self) | {"parameters": [asdict(one) for one in self.parameters]}

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Operation:
        """The operation again."""
        return cls(**{**data, "parameters": tuple(Parameter(**one) for one in data["parameters"])})


def operations(document: dict[str, Any], base_url: str) -> tuple[dict[str, Definition], dict[str, str]]:
    """Operation id -> definition, and for those that can't be tools -> why not. `base_url`: "" for the document's own.

    Raises BadInput for what is no OpenAPI 3 document, or has two operations of one id.
    """
    if not isinstance(document, dict) or not str(document.get("openapi", "")).startswith("3."):
        raise BadInput("expected an OpenAPI 3 description: an object that says `openapi: 3.…`")
    found: dict[str, Definition] = {}
    refused: dict[str, str] = {}
    root = modern_root(document)
    for path, method, item, operation in _each(document, refused):
        name = str(operation.get("operationId") or f"{method} {path}")
        if name in found or name in refused:
            raise BadInput(f"two operations are called {name[:100]!r}")
        try:
            server = "" if base_url else _server(document, item, operation)
            found[name] = _definition((document, root), name, (method, path, server), item, operation)
        except (Unsupported, BadInput) as error:
            refused[name] = str(error)
    return found, refused


def _each(
    document: dict[str, Any], refused: dict[str, str]
) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    for path, raw in _mapping(document.get("paths")).items():
        try:
            item = _resolved(document, raw)
        except Unsupported as error:
            refused[str(path)] = str(error)
            continue
        for method in METHODS:
            if isinstance(item.get(method), dict):
                yield str(path), method, item, item[method]


def _definition(
    documents: tuple[dict[str, Any], dict[str, Any]],
    name: str,
    where: tuple[str, str, str],
    item: dict[str, Any],
    operation: dict[str, Any],
) -> Definition:
    (document, root), (method, path, server) = documents, where
    if not path.startswith("/"):  # put behind the address of the server, it could change the host's name
        raise Unsupported("its path doesn't begin with '/'")
    properties: dict[str, Any] = {}
    required: list[str] = []
    places: list[Parameter] = []
    for parameter in _parameters(document, item, operation):
        place = _place(parameter, properties)
        if place is None:
            continue
        properties[place.argument] = _described(parameter)
        places.append(place)
        if parameter.get("required") is True or place.place == "path":
            required.append(place.argument)
    media = _add_body(document, operation, properties, required, places)
    missing = set(re.findall(r"{([^}]*)}", path)) - {one.name for one in places if one.place == "path"}
    if missing:
        raise Unsupported(f"its path has {min(missing)!r}, which no parameter says")
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    description = str(operation.get("description") or operation.get("summary") or f"{method.upper()} {path}")
    made = Operation(method.upper(), path, tuple(places), media, server)
    return Definition(
        name=name,
        description=description,
        input_schema=inlined(modern(schema), name, root=root),
        hints={"readOnlyHint": method in {"get", "head"}, "operation": made.to_json()},
    )


def _parameters(document: dict[str, Any], item: dict[str, Any], operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the operation and of its path; the operation's own win."""
    every = {}
    for raw in [*_sequence(item.get("parameters")), *_sequence(operation.get("parameters"))]:
        one = _resolved(document, raw)
        every[one.get("name"), one.get("in")] = one
    return list(every.values())


def _place(parameter: dict[str, Any], taken: dict[str, Any]) -> Parameter | None:
    name, place = parameter.get("name"), parameter.get("in")
    needed = parameter.get("required") is True
    if not isinstance(name, str) or place not in {"path", "query", "header", "cookie"}:
        raise Unsupported("a parameter can't be read")
    if place == "cookie" or (place == "header" and _not_for_models(name)):
        if needed and place == "cookie":
            raise Unsupported("it needs a cookie")
        return None  # credentials and the like are given to the import, not to models
    style = parameter.get("style", "form" if place == "query" else "simple")
    if style not in {"form", "simple", "deepObject"} or "content" in parameter:
        raise Unsupported(f"parameter {name!r} is written in a way that isn't supported")
    argument = name if name not in taken else f"{place}_{name}"
    return Parameter(argument, name, place, style == "deepObject", parameter.get("explode", style == "form") is True)


def _not_for_models(header: str) -> bool:
    plain = header.strip().lower().replace("_", "-")  # which many servers can't tell apart
    return plain in _NOT_FOR_MODELS or plain.startswith("x-forwarded-")


def _described(parameter: dict[str, Any]) -> dict[str, Any]:
    schema = parameter.get("schema", {})
    if not isinstance(schema, dict):
        raise Unsupported("the schema of a parameter can't be read")
    text = parameter.get("description")
    return {**schema, "description": text} if isinstance(text, str) and "description" not in schema else schema


def _add_body(
    document: dict[str, Any],
    operation: dict[str, Any],
    properties: dict[str, Any],
    required: list[str],
    places: list[Parameter],
) -> str:
    """The body as one argument, `body`; its media type, "" for none."""
    if "requestBody" not in operation:
        return ""
    body = _resolved(document, operation["requestBody"])
    content = {str(kind).partition(";")[0].strip(): one for kind, one in _mapping(body.get("content")).items()}
    media = next((kind for kind in content if kind == JSON or kind.endswith("+json")), FORM if FORM in content else "")
    if not media:
        if body.get("required") is True:
            raise Unsupported(f"its body is {', '.join(content) or 'unknown'}; supported are JSON and forms")
        return ""
    argument = "body" if "body" not in properties else "request_body"
    schema = content[media].get("schema", {}) if isinstance(content[media], dict) else {}
    properties[argument] = schema if isinstance(schema, dict) else {}
    places.append(Parameter(argument, "", "body"))
    if body.get("required") is True:
        required.append(argument)
    return media


def _server(document: dict[str, Any], item: dict[str, Any], operation: dict[str, Any]) -> str:
    for one in (operation, item, document):
        servers = _sequence(one.get("servers"))
        if servers:
            url = str(_mapping(servers[0]).get("url", ""))
            for name, variable in _mapping(_mapping(servers[0]).get("variables")).items():
                url = url.replace(f"{{{name}}}", str(_mapping(variable).get("default", "")))
            if url.startswith(("http://", "https://")):
                return url
    raise Unsupported("the description doesn't say where its server is; pass base_url")


# ------------------------------------------------------------------------------------------------- the document itself


def _resolved(document: dict[str, Any], value: Any) -> dict[str, Any]:
    """What a reference refers to, within the document."""
    for _ in range(20):
        if not isinstance(value, dict):
            break
        if "$ref" not in value:
            return value
        reference, value = str(value["$ref"]), document
        if not reference.startswith("#/"):
            raise Unsupported("it refers to another document, which nobody fetches")
        for part in reference[2:].split("/"):
            value = value.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(value, dict) else None
    raise Unsupported("a reference leads nowhere")


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def modern_root(document: dict[str, Any]) -> dict[str, Any]:
    """The schemas of the document, where references look for them."""
    schemas = _mapping(_mapping(document.get("components")).get("schemas"))
    return {"components": {"schemas": {name: modern(one) for name, one in schemas.items()}}}


def modern(schema: Any, depth: int = 0) -> Any:
    """OpenAPI 3.0's dialect of JSON schema as the standard's: `nullable`, and bounds that say whether they are open."""
    if depth > 60:
        raise BadInput("its schema is too deep")
    if isinstance(schema, list):
        return [modern(one, depth + 1) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: value if key in {"enum", "default", "example", "const"} else modern(value, depth + 1)
            for key, value in schema.items()}  # fmt: skip
    if made.get("nullable") is True and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
        if isinstance(made.get("enum"), list) and None not in made["enum"]:
            made["enum"] = [*made["enum"], None]
    if isinstance(made.get("nullable"), bool):
        del made["nullable"]
    for bound, open_bound in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if made.get(open_bound) is True and bound in made:
            made[open_bound] = made.pop(bound)
        elif isinstance(made.get(open_bound), bool):
            del made[open_bound]
    return made
