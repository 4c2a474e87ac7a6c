"""Names that people choose (of users, tenants, roles, runs) where records, spans and errors have to name somebody.

    alias("ana")                 # "ana"
    alias("ana@example.com")     # "<email:3k7f2qa5h2b4x>", here, tomorrow and on every other host

An alias tells two people apart and ties the rows of one together; whoever knows a name finds its rows by asking for its
alias. Without a key, whoever has the record and a list of likely names can try them: `alias_key("env:ALIAS_KEY")`
before the first scope, the same in all processes, rules that out.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac

from escalade.errors import BadInput
from escalade.registry import secrets
from escalade.registry.privacy.patterns import Span
from escalade.registry.privacy.redactor import Redactor, default

_key = b""


def alias(name: str) -> str:
    """The name itself; where personal data or a secret is found in it, with a token in its place."""
    return _aliased(name, default(), len(secrets.known_values()), _key)


def alias_key(key: secrets.Secret | str) -> None:
    """Derive aliases from a key, in this process from now on. A reference, or 16 characters or more.

    Raises BadInput.
    """
    global _key  # noqa: PLW0603 - one per process, as the record is
    value = secrets.Secret.of(key).reveal().encode()
    if len(value) < 16:
        raise BadInput("the key of aliases needs 16 characters or more, such as secrets.token_hex(16)")
    _key = value


@functools.lru_cache(4096)
def _aliased(name: str, redactor: Redactor, _known: int, key: bytes) -> str:
    return redactor.replace(name, lambda span, value: token(key, span, value))


def token(key: bytes, span: Span, value: str) -> str:
    """`<email:3k7f2qa5h2b4x>`: 64 bits of HMAC-SHA-256, which no redactor takes for a find."""
    return f"<{span.type}:{_letters(key, f'{span.type}{chr(0)}{value}')}>"


def fingerprint(text: str) -> str:
    """13 letters that stand for a text, by the key of aliases: equal texts have equal ones."""
    return _letters(_key, text)


def _letters(key: bytes, text: str) -> str:
    digest = hmac.digest(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return base64.b32encode(digest[:8]).decode().rstrip("=").lower()
