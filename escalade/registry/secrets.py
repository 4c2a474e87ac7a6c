"""Secrets by reference: what is written down says where a secret is, and never what it is.

    Secret("env:CRM_TOKEN")        an environment variable
    Secret("file:/run/secrets/crm")  a file, without its last line break
    Secret("vault:crm/token")      whatever `register_secret_manager("vault", ...)` said

A `Secret` is resolved by `reveal()`, when it is needed and each time, so that rotated secrets are picked up. Nothing
else shows the value: not `repr`, `str`, `format`, pickles, copies or pydantic dumps, which all have the reference.
Values that were revealed are remembered, for the life of the process: `known_values` is what redaction looks for.

A plain value is wrapped by `Secret.of(...)`. Its reference, `given:…`, means something in this process only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import threading
import urllib.parse
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from escalade.errors import BadInput, UnknownName

T = TypeVar("T")
Manager = Callable[[str], str | None]
"""What stands behind the scheme -> the secret, None when there is none."""

SHORTEST = 8
"""Characters: shorter values are not looked for in texts, of which they would leave nothing legible."""

_REFERENCE = re.compile(r"[a-z][a-z0-9_+.-]*:\S.*", re.DOTALL)
_SCHEME = re.compile(r"[a-z][a-z0-9_+.-]*")
_LARGEST = 1 << 20
_KEY = os.urandom(32)
_lock = threading.RLock()  # re-entrant: a manager may use a secret of its own
_managers: dict[str, Manager] = {}
_given: weakref.WeakValueDictionary[str, Secret] = weakref.WeakValueDictionary()


class Secret:
    """Where a secret is. Immutable; equal to another one with the same reference.

    Raises BadInput for what is no reference. Whether it leads anywhere shows when it is revealed.
    """

    __slots__ = ("__weakref__", "_reference", "_value")

    _reference: str
    _value: Callable[[], str] | None

    def __init__(self, reference: str) -> None:
        if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
            # What was handed in may be the secret itself: it isn't shown.
            raise BadInput("not a reference to a secret: write it like 'env:NAME' or 'file:/path'")
        object.__setattr__(self, "_reference", reference)
        object.__setattr__(self, "_value", None)

    @staticmethod
    def of(value: Secret | str) -> Secret:
        """A secret from what people pass as a key: a `Secret`, a reference with a known scheme, or the plain value."""
        if isinstance(value, Secret):
            return value
        scheme, colon, _ = value.partition(":")
        if colon and scheme in known_schemes() and _REFERENCE.fullmatch(value):
            return _given.get(value) or Secret(value)
        return _wrapped(value)

    @property
    def reference(self) -> str:
        """What it is written as, such as `env:NAME`."""
        return self._reference

    def reveal(self) -> str:
        """The value. Raises BadInput, which names the reference, when there is none; UnknownName for the scheme."""
        value = self._value() if self._value is not None else _look_up(self._reference)
        remember(value)
        return value

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self!r} is immutable")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._reference == self._reference

    def __hash__(self) -> int:
        return hash(self._reference)

    def __repr__(self) -> str:
        return f"Secret({self._reference!r})"

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._reference,)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            _validated, serialization=core_schema.plain_serializer_function_ser_schema(lambda secret: secret.reference)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> NoReturn:
        # Or it could be the parameter of a tool, and a model that may name references could read every variable.
        from pydantic.errors import PydanticInvalidForJsonSchema

        raise PydanticInvalidForJsonSchema("a secret has no JSON schema: models don't hand over secrets")


def resolve_secret(secret: Secret | str | None) -> str | None:
    """The value of a secret, of a reference, or of a plain value, which is itself; None for None.

    Raises as `Secret.reveal`.
    """
    return None if secret is None else Secret.of(secret).reveal()


def register_secret_manager(scheme: str, manager: Manager) -> None:
    """Look up what `scheme:rest` refers to with `manager(rest)`, which gives the value or None. The newest one wins.

    Raises BadInput for a scheme that is no word, or is one of ours.
    """
    if not _SCHEME.fullmatch(scheme) or scheme in {"env", "file", "given"}:
        raise BadInput(f"{scheme!r} can't be the scheme of a secret manager: expected a new word, like 'vault'")
    if not callable(manager):
        raise BadInput(f"the secret manager of {scheme!r} must be callable with what follows the colon")
    with _lock:
        _managers[scheme] = manager


def known_schemes() -> frozenset[str]:
    """What a reference can begin with at present."""
    return frozenset({"env", "file", "given", *_managers})


def sealed(value: T) -> T:
    """The value with plain secrets wrapped: strings under names like `api_key` or `Authorization`, nested too."""
    made: Any = value
    if isinstance(value, Mapping):
        made = {
            name: Secret.of(item) if isinstance(item, str) and item and names_secret(str(name)) else sealed(item)
            for name, item in value.items()
        }
    elif isinstance(value, list | tuple):
        made = [sealed(item) for item in value] if isinstance(value, list) else tuple(map(sealed, value))
    return made  # type: ignore[no-any-return]


def revealed(value: T) -> T:
    """The value with each `Secret` in it revealed, nested too: for what is handed to a provider this instant."""
    made: Any = value
    if isinstance(value, Secret):
        made = value.reveal()
    elif isinstance(value, Mapping):
        made = {name: revealed(item) for name, item in value.items()}
    elif isinstance(value, list | tuple):
        made = [revealed(item) for item in value] if isinstance(value, list) else tuple(map(revealed, value))
    return made  # type: ignore[no-any-return]


_SECRET_NAME = re.compile(
    r"(?:^|[_.\- ])(?:pass(?:word|wd|phrase|code)?|pwd|senha|secret|token|credential|authorization|cookie)$"
    r"|(?:password|passwd|passphrase|secret|token|cookie)$"
    r"|(?:^|[_.\- ])(?:api|access|private|secret|auth|signing|encryption|client|account|master)[_.\- ]?key$"
    r"|(?:api|access|private|secret|signing|encryption|account)key$|_key$",
    re.IGNORECASE,
)


def names_secret(name: str) -> bool:
    """Is this what a secret's field is called? `max_tokens` and `key` are not."""
    return len(name) <= 128 and _SECRET_NAME.search(name) is not None


# -------------------------------------------------------------------------------------------- values that were seen

_known: dict[str, None] = {}


def remember(value: str) -> None:
    """Let redaction replace this value wherever it appears, also quoted for URLs, JSON and as base64."""
    if len(value) >= SHORTEST and value not in _known:
        with _lock:
            known = {**_known, **dict.fromkeys(_guises(value))}
            _replace(known)


def remember_environment() -> None:
    """Remember environment variables with a secret's name, which libraries below us read for themselves."""
    for name, value in os.environ.items():
        if len(value) >= 12 and names_secret(name) and any(c.isdigit() for c in value):
            remember(value)


def known_values() -> tuple[str, ...]:
    """All guises of all values that were remembered, longest first. For redaction: never show them."""
    return _longest_first


_longest_first: tuple[str, ...] = ()


def _replace(known: dict[str, None]) -> None:
    """Swap, not change: readers hold no lock."""
    global _known, _longest_first
    _known, _longest_first = known, tuple(sorted(known, key=len, reverse=True))


def _guises(value: str) -> set[str]:
    raw = value.encode("utf-8", "surrogatepass")
    guises = {
        value,
        value.strip(),
        " ".join(value.split()),
        urllib.parse.quote(raw, safe=""),
        json.dumps(value)[1:-1],
        repr(value)[1:-1],
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    }
    return {guise for guise in guises if len(guise) >= SHORTEST}


# --------------------------------------------------------------------------------------------------------- look-ups


def _look_up(reference: str) -> str:
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        return _present(os.environ.get(rest), reference, f"set the environment variable {rest}")
    if scheme == "file":
        return _read(reference, rest)
    if scheme == "given":
        raise BadInput(
            f"secret {reference} was given as plain text in another process, and plain text doesn't travel; "
            f"refer to it instead, as in Secret('env:NAME')"
        )
    manager = _managers.get(scheme)
    if manager is None:
        raise UnknownName("secret manager", scheme, sorted(known_schemes() - {"given"}))
    try:
        value = manager(rest)
    except Exception as error:  # noqa: BLE001 - whatever it says may hold what it was asked for
        raise BadInput(f"secret {reference}: its manager failed with {type(error).__name__}") from None
    return _present(value, reference, f"put it into {scheme!r}")


def _read(reference: str, path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            raw = file.read(_LARGEST)
        value = raw.decode("utf-8").rstrip("\r\n")
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"secret {reference} can't be read ({type(error).__name__}): check the path") from None
    return _present(value, reference, "write it into that file")


def _present(value: str | None, reference: str, remedy: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadInput(f"secret {reference} is not there: {remedy}, or refer to another place")
    return value


def _wrapped(value: str) -> Secret:
    """The same reference for the same value in this process, and one that tells nothing of it outside."""
    if not value:
        raise BadInput("an empty text is no secret: write a reference like 'env:NAME', or None for none")
    digest = hmac.new(_KEY, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:12]
    reference = f"given:{digest}"
    with _lock:
        found = _given.get(reference)
        if found is None:
            found = Secret(reference)
            object.__setattr__(found, "_value", lambda: value)
            _given[reference] = found
    remember(value)
    return found


def _unpickled(reference: str) -> Secret:
    return _given.get(reference) or Secret(reference)


def _validated(value: Any) -> Secret:
    """For pydantic. A plain value is wrapped, not refused: the refusal would quote it."""
    if isinstance(value, Secret | str) and value:
        return Secret.of(value)
    raise ValueError("expected a reference to a secret, like 'env:NAME' or 'file:/path'")
