"""The key of an answer: whose it is, who was asked where, and all that was asked. A digest, so that it tells nothing.

Tenants are in it, so that none finds another's; users, too, if the cache is per user. Roles and policies are not: they
are asked each time. DSPy's own key has neither a tenant nor an endpoint, and tells sync from async calls.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from escalade.agents.models import Model
    from escalade.scopes import Scope

_FORMAT = "answer/1"
"""What the values are: a later format must not find those of an earlier one."""


def whose(scope: Scope, per: str) -> list[list[str]]:
    """Everybody on whose behalf a call is, as far as answers are theirs alone."""
    return [[one.tenant, one.user if per == "user" else ""] for one in scope.principals]


def place_of(gateway: str, model: Model) -> list[str]:
    """Who answers: the gateway, the model, how and where it is reached."""
    transport: Any = model.transport
    where = getattr(transport, "address", None) or getattr(transport, "_api_base", None) or ""
    return [gateway, model.name, model.id, f"{type(transport).__module__}.{type(transport).__qualname__}", str(where)]


def key_of(owners: list[list[str]], place: list[str], asked: Any) -> str | None:
    """64 hex digits; None for what has no exact text, such as a function among the settings."""
    import orjson

    try:
        told = orjson.dumps([_FORMAT, owners, place, asked], default=_plain, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # orjson's errors are subclasses
        return None
    return hashlib.sha256(told).hexdigest()


def word(kind: str, name: str) -> str:
    """A word of a tag: what is to be forgotten together, without the names of tenants."""
    return kind[0] + hashlib.blake2b(f"{kind}:{name}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def tag_of(owners: list[list[str]], model: str, kind: str) -> str:
    """The words that an answer can be forgotten by."""
    tenants = [word("tenant", tenant) for tenant, _ in owners]
    users = [word("user", f"{tenant}/{user}") for tenant, user in owners if user]
    return " ".join([*tenants, *users, word("model", model), word("kind", kind)])


def _plain(value: Any) -> Any:
    """What pydantic knows, as JSON: adapters hand on the classes of answers."""
    import pydantic

    if isinstance(value, type) and issubclass(value, pydantic.BaseModel):
        return value.model_json_schema()
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(type(value).__name__)
