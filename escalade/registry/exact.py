"""What a call is known by: its arguments as one exact text, and the types that the text doesn't show.

A refund of 5 is no charge of 5, and Decimal("1.0") is no "1.0", though both pairs are the same as JSON. So whatever may
take one call for another (calls made `once`, caches, cassettes, journals of runs, approvals) knows them by this, and by
nothing less. Arguments that are plain JSON are known by their canonical JSON alone.

A class is known by its qualified name without its module, which depends on how a program was started.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from escalade.registry.canonical import canonical, digest

_SCALARS = frozenset({str, int, float, bool, type(None)})
_PLAIN = _SCALARS | {list, dict}
_TEXTS = str | bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Exact:
    """Arguments to the byte. `text`: their canonical JSON. `kinds`: the types that it doesn't show, each with its
    place.
    """

    text: str
    kinds: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over both, 64 hex digits; of the text alone where that says it all."""
        if self.kinds:
            return digest([self.text, list(self.kinds)])
        return hashlib.sha256(self.text.encode("ascii")).hexdigest()


def exact(arguments: Mapping[str, Any]) -> Exact:
    """Of arguments by name, as validated: Python values or JSON. Raises ValueError, in one line, for what has no exact
    text: NaN and infinities, bytes that are no UTF-8, objects that aren't data.
    """
    try:
        if _is_plain(arguments):
            return Exact(canonical(arguments).decode("ascii"), ())
        text = canonical(_jsonable(arguments)).decode("ascii")
        return Exact(text, tuple(sorted(_kinds(arguments))))
    except (ValueError, TypeError, RecursionError) as error:  # pydantic's own is a ValueError
        raise ValueError(" ".join(str(error).split())) from None


def _is_plain(value: Any) -> bool:
    """Is it JSON as it stands? Most calls are, and this is ten times as fast as the rest."""
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    return type(value) in _SCALARS or (type(value) is list and all(map(_is_plain, value)))


def _jsonable(value: Any) -> Any:  # noqa: PLR0911 - one for each kind of value
    """JSON of an argument that differs wherever the argument does: sets in order, secrets by their digest."""
    from pydantic import BaseModel, SecretBytes, SecretStr
    from pydantic_core import to_jsonable_python

    if type(value) in _SCALARS:
        return value
    if isinstance(value, SecretStr | SecretBytes):
        secret = value.get_secret_value()
        return {"secret": digest(secret if isinstance(secret, str) else secret.hex())}
    if isinstance(value, BaseModel):
        return _jsonable(dict(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _jsonable({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        plain = {str(to_jsonable_python(key)): _jsonable(one) for key, one in value.items()}
        if len(plain) < len(value):
            raise ValueError("two keys of an object are the same as text")
        return plain
    if isinstance(value, Set):
        return sorted((_jsonable(one) for one in value), key=canonical)
    if isinstance(value, Sequence) and not isinstance(value, _TEXTS):
        return [_jsonable(one) for one in value]
    return value if isinstance(value, float) else to_jsonable_python(value)  # which would make null of NaN


def _kinds(value: Any, at: str = "") -> Iterator[str]:
    """The types that the JSON of an argument doesn't show, and where: a refund of 5 is no charge of 5."""
    if type(value) not in _PLAIN:
        yield f"{at}: {type(value).__qualname__}"
    for key, one in _inside(value):
        if type(key) is not str and isinstance(value, Mapping):
            yield f"{at}/{key}: key of {type(key).__qualname__}"
        yield from _kinds(one, f"{at}/{key}")


def _inside(value: Any) -> Iterable[tuple[Any, Any]]:
    """What it consists of, by key, field or number; sets have no order, and so by the text of each."""
    from pydantic import BaseModel

    if type(value) in _SCALARS or isinstance(value, _TEXTS):
        return ()
    if isinstance(value, BaseModel):
        return dict(value).items()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, Set):
        return [(canonical(_jsonable(one)).decode("ascii"), one) for one in value]
    return enumerate(value) if isinstance(value, Sequence) else ()
