"""A store of budgets by its address, for those who look at it from outside of any program."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from escalade.errors import BadInput, StoreUnavailable
from escalade.registry.stores.shared import Store

_SERVERS = ("redis://", "rediss://", "unix://")


def open_store(where: str, *, prefix: str = "escalade", create: bool = False) -> Store:
    """The store in a file, or at the URL of a Redis server with this prefix. `create`: make the file if there is none.

    Nothing that anybody holds is ended by it. Raises BadInput where there is none, StoreUnavailable.
    """
    if where.startswith(_SERVERS):
        from escalade.registry.stores.redis import Server
        from escalade.registry.stores.redis_ledger import RedisStore

        server = Server(where)
        try:
            server.command("PING")
        except StoreUnavailable as error:
            raise StoreUnavailable(f"no Redis server answers at {_shown(where)}: is it up, and reachable?") from error
        return RedisStore(server, prefix)
    from escalade.registry.stores.sqlite_ledger import SqliteStore

    if not Path(where).exists():
        if not create:
            raise BadInput(f"there is no store of budgets at {where!r}; escalade budget set --create makes one")
    elif not _is_store(where):
        raise BadInput(f"{where!r} is no store of budgets: expected a file that SqliteLedger made")
    return SqliteStore(where)


def _shown(url: str) -> str:
    """The address without its password."""
    found = urlsplit(url)
    return f"{found.scheme}://{found.netloc.rpartition('@')[2]}{found.path if found.scheme == 'unix' else ''}"


def _is_store(where: str) -> bool:
    try:
        with closing(sqlite3.connect(f"{Path(where).absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('accounts', 'holds')")
            return bool(found.fetchone()[0] == 2)
    except sqlite3.Error:
        return False
