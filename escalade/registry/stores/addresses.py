"""What an address says: which kind of store, and what opens it."""

from __future__ import annotations

import os
from typing import Literal
from urllib.parse import unquote, urlsplit

from escalade.errors import BadInput

Kind = Literal["file", "redis", "postgres"]

_KINDS: dict[str, Kind] = {"redis": "redis", "rediss": "redis", "unix": "redis", "postgresql": "postgres",
                           "postgres": "postgres", "sqlite": "file"}  # fmt: skip


def parsed(where: str | os.PathLike[str]) -> tuple[Kind, str]:
    """Which kind of store, and what opens it: a path or a URL. Raises BadInput."""
    scheme, separator, rest = str(where).partition("://")
    if not separator:
        return "file", str(where)
    kind = _KINDS.get(scheme)
    if kind is None or (scheme == "sqlite" and not rest.startswith("/")):
        raise BadInput(
            f"no kind of store has an address like {scheme}://...: expected a path, sqlite:///path, redis://... or "
            "postgresql://..."
        )
    return kind, unquote(rest[1:]) if scheme == "sqlite" else str(where)


def in_tables(where: str | os.PathLike[str], what: str) -> tuple[Kind, str]:
    """`parsed`, for what needs tables. `what`: is kept there. Raises BadInput for a Redis server, too."""
    kind, place = parsed(where)
    if kind == "redis":
        raise BadInput(f"{what} can't be kept in Redis: expected a path, sqlite:///path or postgresql://...")
    return kind, place


def shown(where: str | os.PathLike[str]) -> str:
    """The address without its password and its options; a path as it is."""
    if "://" not in str(where):
        return str(where)
    found = urlsplit(str(where))
    path = "" if found.scheme in {"redis", "rediss"} else found.path
    return f"{found.scheme}://{found.netloc.rpartition('@')[2]}{path}"
