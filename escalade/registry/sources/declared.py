"""Sources that a manifest declares: whose tools it takes, and on which terms.

    pins: escalade.pins.json                 # what each of these tools was when somebody accepted it
    imports:
      crm:
        mcp: https://crm.example/mcp         # streamable HTTP
        token: env:CRM_TOKEN
        tools: {search: {side_effects: read}, book: {approval: always}}
        defaults: {limits: 5/s, cost: "0.001"}
        permissions: partner                 # roles grant partner.crm.search:call
      files:
        command: [files-server, --read-only]   # stdio, if whoever runs this process allows it: `allow_stdio`
        tools: "*"                           # all that were accepted
      shop:
        openapi: shop.yaml                   # a file, found from the manifest's folder
        base_url: https://api.shop.example/v1
        tools: [listOrders]

Loading a manifest asks nobody, starts nothing and pins nothing: what is pinned is registered as pinned, what isn't is a
problem of the manifest until somebody accepts it. `escalade tools sources` shows what there is to accept, and
`escalade tools accept crm/search` accepts it. The manifest's `defaults` are for its own tools: what others' tools do to
the world is said for each source.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from escalade.errors import BadInput
from escalade.registry.secrets import Secret, names_secret
from escalade.registry.sources._wire import LARGEST
from escalade.registry.sources.pins import Pins
from escalade.registry.sources.source import Source
from escalade.registry.tools import ToolSpec

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry

PINS = "escalade.pins.json"
"""The pins file of a manifest that names none, in the manifest's folder."""

TERMS = frozenset(ToolSpec.model_fields) - {"name", "version", "input_schema", "output_schema"}
"""What can be said of all tools of a source."""

_ONLY = {
    "base_url": "openapi",
    "redirects": "openapi",
    "env": "command",
    "token": "mcp openapi",
    "headers": "mcp openapi",
    "allow": "mcp openapi",
    "recheck": "mcp command",
    "trust_hints": "mcp command",
}
"""Kinds of sources that a key is for, where it isn't for all."""


def _terms(said: Any) -> Any:
    return _known(said, TERMS)


def _tools(said: Any) -> Any:
    """Names, names with fields of their own, or all."""
    if said == "*" or (isinstance(said, list) and all(isinstance(one, str) for one in said)):
        return said
    if not isinstance(said, Mapping):
        raise BadInput('expected "*", a list of names, or a mapping of names to what is special about each')
    return {str(name): _known({} if own is None else own, TERMS | {"name"}) for name, own in said.items()}


def _known(said: Any, known: frozenset[str]) -> Any:
    if not isinstance(said, Mapping):
        raise BadInput(f"expected a mapping of fields of a tool, got {said!r}")
    for key in said:
        if key not in known:
            raise BadInput(f"unknown key {key!r} (known: {', '.join(sorted(known))})")
    return dict(said)


def _reference(text: str) -> str:
    return Secret(text).reference


def _no_secrets(said: dict[str, str]) -> dict[str, str]:
    """What a header or variable holds that is named like a secret must be a reference to one."""
    for name, value in said.items():
        if names_secret(name):
            Secret(value)
    return said


class Declared(BaseModel):
    """One source of a manifest. `tools`: the source's names of those that are wanted, with fields of their own, or "*"
    for all that were accepted. `defaults`: fields for all of them. `prefix`: before their names, the source's name by
    default. `permissions`: before their names in what a role must grant. All else as of `import_mcp` and
    `import_openapi`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mcp: str | None = Field(None, description="Where an MCP server is, over streamable HTTP.")
    command: list[str] | None = Field(
        None, description="An MCP server to start; it must be allowed, too.", min_length=1
    )
    openapi: str | None = Field(None, description="The file that describes a web API.")
    base_url: str = Field("", description="Where the web API is.")
    tools: Annotated[
        Any,
        BeforeValidator(_tools),
        WithJsonSchema(
            {
                "anyOf": [{"const": "*"}, {"type": "array", "items": {"type": "string"}}, {"type": "object"}],
                "description": "Which: names, names with fields of their own, or * for all that were accepted.",
            }
        ),
    ]
    defaults: Annotated[dict[str, Any], BeforeValidator(_terms)] = Field({}, description="For all tools of the source.")
    prefix: str | None = Field(None, description="Before their names; the name of the source by default.")
    permissions: str = Field("", description="Before their names in what a role must grant.")
    token: Annotated[str, AfterValidator(_reference)] | None = Field(None, description="A reference, such as env:NAME.")
    headers: Annotated[dict[str, str], AfterValidator(_no_secrets)] = {}
    env: Annotated[dict[str, str], AfterValidator(_no_secrets)] = {}
    allow: list[str] = Field([], description="Networks that may be reached although they aren't public.")
    largest: int = Field(LARGEST, gt=0, description="Bytes of an answer.")
    recheck: float = Field(60.0, ge=0, description="Seconds for which the server is taken to be unchanged.")
    trust_hints: bool = Field(default=False, description="Believe what the server says of side effects.")
    redirects: bool = Field(default=False, description="Follow them, within the same origin.")

    @model_validator(mode="after")
    def _one_kind(self) -> Declared:
        kinds = [kind for kind in ("mcp", "command", "openapi") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise BadInput("expected one of mcp (an address), command (a list) and openapi (a file)")
        for key in sorted(self.model_fields_set & set(_ONLY)):
            if kinds[0] not in _ONLY[key].split():
                raise BadInput(f"{key} is not for {kinds[0]}, but for {_ONLY[key].replace(' ', ' and ')}")
        return self

    def open(self, registry: Registry, name: str, folder: Path, pins: Pins) -> Source:
        """Register what is pinned. Raises BadInput, UnknownName."""
        from escalade.registry.sources.mcp import import_mcp
        from escalade.registry.sources.openapi import import_openapi

        options: dict[str, Any] = {
            key: getattr(self, key) for key in ("prefix", "permissions", "token", "headers", "allow", "largest")
        }
        options |= {"pins": pins, "ask": False, **self.defaults}
        if self.openapi is not None:
            return import_openapi(
                registry,
                name,
                folder / self.openapi,
                operations=self.tools,
                base_url=self.base_url,
                redirects=self.redirects,
                **options,
            )
        server = {"url": self.mcp, "command": self.command, "env": self.env, "tools": self.tools}
        return import_mcp(registry, name, recheck=self.recheck, trust_hints=self.trust_hints, **server, **options)
