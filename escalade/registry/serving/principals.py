"""Who a client of the server is: its bearer token says so, or whoever started the server.

    principals:
      - {user: ana, tenant: acme, roles: [analyst], token: env:ANA_TOKEN}
      - {user: bot, roles: [reader], token_sha256: 9f86d0…}

The file has references to tokens, or their digests, never tokens.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from escalade.errors import BadInput
from escalade.registry.access.files import read_file
from escalade.registry.secrets import Secret
from escalade.scopes import Principal

PrincipalOf = Callable[[Mapping[str, str]], "Principal | Awaitable[Principal | None] | None"]
"""Headers of a request, by lower-case name -> who asks; None for nobody that is known."""

SHORTEST = 16
"""Characters that a token has at least."""

_FIELDS = {"user", "tenant", "roles", "token", "token_sha256"}


class Tokens:
    """Who has which bearer token; a `PrincipalOf`. Keeps digests only.

    Raises BadInput for a token that is too short, or is given to two principals.
    """

    def __init__(self, tokens: Iterable[tuple[Secret | str, Principal]] = ()) -> None:
        self._known: dict[bytes, Principal] = {}
        for token, principal in tokens:
            value = Secret.of(token).reveal()
            if len(value) < SHORTEST:
                raise BadInput(f"the token of {principal.user!r} is too short: {SHORTEST} characters at least")
            self.add_digest(_digest(value).hex(), principal)

    def add_digest(self, sha256: str, principal: Principal) -> None:
        """Know a token by its SHA-256, in hex."""
        try:
            key = bytes.fromhex(sha256)
        except (ValueError, TypeError):
            key = b""
        if len(key) != 32:
            raise BadInput(f"token_sha256 of {principal.user!r}: expected 64 hex digits")
        if self._known.setdefault(key, principal) != principal:
            raise BadInput(f"{principal.user!r} and {self._known[key].user!r} have the same token")

    def __call__(self, headers: Mapping[str, str]) -> Principal | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        given = _digest(token.strip())
        found = None
        for key, principal in self._known.items():  # all of them, whichever it is: the time tells nothing
            if hmac.compare_digest(key, given):
                found = principal
        return found


def read_tokens(path: str | Path) -> Tokens:
    """Tokens from a YAML, JSON or TOML file. Raises BadInput."""
    file = Path(path)
    _, written = read_file(file)
    listed = written.get("principals") if isinstance(written, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise BadInput(f"{file}: expected a mapping with the key 'principals', and a list of them in it")
    tokens = Tokens()
    for number, one in enumerate(listed, 1):
        _add(tokens, one, f"{file}: principal {number}")
    return tokens


def _add(tokens: Tokens, one: Any, where: str) -> None:
    roles = one.get("roles", []) if isinstance(one, Mapping) else None
    if not isinstance(one, Mapping) or set(one) - _FIELDS or not isinstance(one.get("user"), str):
        raise BadInput(f"{where}: expected a mapping of {', '.join(sorted(_FIELDS))}")
    if not isinstance(roles, list) or ("token" in one) == ("token_sha256" in one):
        raise BadInput(f"{where}: expected roles as a list, and either token or token_sha256")
    principal = Principal(one["user"], str(one.get("tenant", "default")), frozenset(map(str, roles)))
    if "token_sha256" in one:
        tokens.add_digest(str(one["token_sha256"]), principal)
        return
    try:
        value = Secret(str(one["token"])).reveal()
    except BadInput as error:
        raise BadInput(f"{where}: token: {error}") from None
    if len(value) < SHORTEST:
        raise BadInput(f"{where}: its token is too short: {SHORTEST} characters at least")
    tokens.add_digest(_digest(value).hex(), principal)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
