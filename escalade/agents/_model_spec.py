"""What a file says of a model: its fields, as pydantic checks them, and their JSON schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from escalade.agents.lanes.lane import Lane
from escalade.agents.lanes.spec import LaneSpec, lane_schema
from escalade.agents.models import FallbackTiers, Kind, Model
from escalade.errors import BadInput
from escalade.registry.limits import parse_limits
from escalade.registry.prices import Price, frozen_prices, listed_price
from escalade.registry.secrets import known_schemes, names_secret

if TYPE_CHECKING:
    from escalade.agents.transports import Transport

NAME = r"^[A-Za-z][A-Za-z0-9_.-]*$"
_DOLLARS = r"^\d+(\.\d{1,9})?$"
KEY_LIKE = re.compile(
    r"\b(?:sk|pk|rk|xai|gsk|AIza|key)[-_][-_A-Za-z0-9*.]{6,}|\bAIza[-_A-Za-z0-9]{6,}|\b(?:bearer|basic) +[^\s{]{8,}",
    re.IGNORECASE,
)
"""What keys of providers look like, and headers that carry them."""

_ENV = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
_WITH_LOGIN = re.compile(r"//[^/@]*@|[?&][^=]*(key|token|secret)[^=]*=", re.IGNORECASE)


def _quoted(value: object) -> object:
    if isinstance(value, float):
        raise ValueError(f'quote it: "{value}"')  # noqa: TRY004 - pydantic collects these
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(_DOLLARS, text):
        raise ValueError('expected dollars per million tokens, 0 or more in quotes, like "0.15"')
    return text


def _reference(value: str) -> str:
    """A key is never written down: what is no reference may be the key itself, and isn't shown."""
    scheme, colon, rest = value.partition(":")
    known = known_schemes() - {"given"}
    if not colon or scheme not in known or not rest or (scheme == "env" and not _ENV.fullmatch(value)):
        raise ValueError(
            f"expected a reference to the key, like env:NAME (known: {', '.join(sorted(known))}), not the key itself; "
            f"what stands there is not shown, and if it was a key, replace it at the provider"
        )
    return value


def _address(value: str) -> str:
    if _WITH_LOGIN.search(value):
        raise ValueError("an address without login and key; write `api_key: env:NAME` instead")
    return _no_key(value)


def _no_key(value: str) -> str:
    if KEY_LIKE.search(value):
        raise ValueError("looks like a key; write `api_key: env:NAME`, and replace the key at the provider")
    return value


def _without_keys(value: dict[str, Any]) -> dict[str, Any]:
    for name, one in value.items():
        _check_option(str(name), one)
    return value


def _check_option(name: str, value: object) -> None:
    """`name`: that of the nearest field around it, which also says what the items of a list are."""
    if isinstance(value, Mapping):
        _without_keys(dict(value))
    elif isinstance(value, list | tuple):
        for one in value:
            _check_option(name, one)
    elif names_secret(name):
        try:
            _reference(str(value))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    elif isinstance(value, str):
        _no_key(value)


def _limits(value: Any) -> Any:
    try:
        parse_limits(value)
    except BadInput as error:
        raise ValueError(str(error)) from None
    return value


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Dollars = Annotated[str, BeforeValidator(_quoted)]
Names = Annotated[tuple[str, ...], BeforeValidator(_list)]
Reference = Annotated[str, AfterValidator(_reference)]


class PriceSpec(BaseModel):
    """Dollars per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Dollars
    output: Dollars
    cached: Dollars | None = Field(None, description="Of input tokens read from the provider's cache.")
    written: Dollars | None = Field(None, description="Of input tokens written to the provider's cache.")

    @property
    def price(self) -> Price:
        return Price.of(self.input, self.output, self.cached, self.written)


class ModelSpec(BaseModel):
    """What a file says of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME, max_length=64, description="The alias that programs use.")
    model: Annotated[str, AfterValidator(_no_key)] = Field(
        min_length=1, description="The provider's name of it, like openai/gpt-4o-mini."
    )
    transport: Literal["litellm", "lm15", "recorded", "simulated"] = "litellm"
    kind: Kind = Field("chat", description="Whether it answers or turns texts into vectors.")
    tier: int | None = Field(None, ge=1, le=4, description="1 fast, 2 balanced, 3 advanced, 4 premium.")
    price: PriceSpec | Literal["unknown"] | None = Field(
        None,
        description="Dollars per million tokens; without it that of the frozen map; unknown: refused under a budget.",
    )
    context: int | None = Field(None, ge=1, description="Tokens that prompt and answer may have together.")
    max_output: int = Field(1024, ge=1, description="Tokens that one answer may have.")
    expected_output: int = Field(200, ge=1, description="Tokens of a usual answer.")
    media_tokens: int | None = Field(None, ge=1, description="Tokens that an image, recording or document has at most.")
    timeout: float = Field(60.0, gt=0, description="Seconds for one attempt; for a stream between two events.")
    rpm: int | None = Field(None, ge=1, description="Requests per minute.")
    tpm: int | None = Field(None, ge=1, description="Tokens per minute.")
    lane: str | None = Field(None, min_length=1, description="The account that it shares, one of `lanes`.")
    limits: Annotated[str | dict[str, str] | None, AfterValidator(_limits)] = Field(
        None, description="More rate limits: 5/s, 100/min; or by whose uses count: {user: 5/s, tenant: 100/min}"
    )
    region: Annotated[str, AfterValidator(_no_key)] = Field("", description="Where it runs, such as eu.")
    roles: Names = Field((), description="Who may use it, of those whom the policy lets; empty: all of them.")
    permission: str = Field("", description="What a role must grant; model.NAME:call by default.")
    fallbacks: Names = Field((), description="Aliases to try when this one fails, in order.")
    fallback_tiers: FallbackTiers = Field("same", description="Tiers that may stand in for it.")
    api_base: Annotated[str, StringConstraints(pattern=r"^https?://"), AfterValidator(_address)] | None = Field(
        None, description="The address of the API."
    )
    api_key: Reference | None = Field(None, description="Where the key is, like env:NAME; never the key.")
    options: Annotated[dict[str, Any], AfterValidator(_without_keys)] = Field(
        default_factory=dict, description="More arguments of litellm, like api_version; keys by reference."
    )
    recording: str | None = Field(None, description="The file that `transport: recorded` replays.")

    def priced(self) -> tuple[Price | None, str]:
        """The price, and where it comes from: yours, the frozen map of a date, unknown."""
        if isinstance(self.price, PriceSpec):
            return self.price.price, "yours"
        found = None if self.price == "unknown" else listed_price(self.model, self.kind)
        return found, "unknown" if found is None else f"map of {frozen_prices().date}"

    def built(self, transport: Transport, lanes: Mapping[str, Lane]) -> Model:
        """The model, carried by a transport, in its lane: one of `lanes`, or of its own. Raises BadInput."""
        limited = self.rpm is not None or self.tpm is not None
        own = Lane(self.name, rpm=self.rpm, tpm=self.tpm) if limited else None
        return Model(
            self.name,
            self.model,
            transport,
            price=self.priced()[0],
            limits=parse_limits(self.limits),
            lane=own if self.lane is None else lanes[self.lane],
            **{name: getattr(self, name) for name in _SAME},
        )


_SAME = (
    "tier",
    "context",
    "max_output",
    "expected_output",
    "media_tokens",
    "timeout",
    "tpm",
    "region",
    "roles",
    "kind",
    "permission",
    "fallbacks",
    "fallback_tiers",
)
"""Fields that `ModelSpec` and `Model` have in common."""


class ModelsFile(BaseModel):
    """All that the files say together. `routing`: a routing table, see `routing/`. `lanes`: see `lanes/`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[ModelSpec, ...]
    regions: Mapping[str, tuple[str, ...]] = {}
    routing: Mapping[str, Any] | None = None
    lanes: Mapping[str, LaneSpec] = {}


def models_schema() -> dict[str, Any]:
    """The JSON schema of files of models."""
    spec = ModelSpec.model_json_schema(mode="validation")
    fields = {
        name: {key: one for key, one in each.items() if key != "title"} for name, each in spec["properties"].items()
    }
    for name in ("roles", "fallbacks"):
        fields[name] = {
            "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}],
            "description": fields[name]["description"],
        }
    fields["api_key"] = {
        "type": "string",
        "pattern": "^[a-z][a-z0-9_+.-]*:.+",
        "description": fields["api_key"]["description"],
    }
    dollars = {"anyOf": [{"type": "string", "pattern": _DOLLARS}, {"type": "integer", "minimum": 0}]}
    price = spec["$defs"]["PriceSpec"]
    price["properties"] = {name: {**dollars} for name in price["properties"]}
    names = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}
    entry = {"type": "object", "additionalProperties": False, "properties": fields}
    defaults = {name: one for name, one in fields.items() if name not in {"name", "model"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Models of escalade",
        "type": "object",
        "additionalProperties": False,
        "required": ["models"],
        "properties": {
            "$schema": {"type": "string"},
            "version": {"const": 1, "description": "The version of this form."},
            "defaults": {"type": "object", "additionalProperties": False, "properties": defaults},
            "regions": {
                "type": "object",
                "propertyNames": {"pattern": r"^(\*|(tenant|role|user):.+)$"},
                "additionalProperties": names,
                "description": "Who may use models of certain regions only.",
            },
            "lanes": {
                "type": "object",
                "additionalProperties": lane_schema(),
                "description": "Accounts at providers, with their limits, by name.",
            },
            "routing": {"type": "object", "description": "A routing table, as in routing.schema.json."},
            "models": {"type": "array", "minItems": 1, "items": entry},
        },
        "$defs": spec.get("$defs", {}),
    }
