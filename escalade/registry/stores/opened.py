"""A store by its address, so that one process or many is a matter of configuration:

"var/budgets.db", "sqlite:///var/budgets.db"    a file (sqlite:////var/... from the root on), for one host
"redis://host:6379/0"                           a Redis server, as are rediss:// and unix://
"postgresql://user:password@host/database"      a PostgreSQL server
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from escalade.errors import BadInput, StoreUnavailable
from escalade.registry.approvals.requests import Requests
from escalade.registry.budgets import Budget
from escalade.registry.cache import Cache
from escalade.registry.ledger import Crossing
from escalade.registry.limits import RateLimiter
from escalade.registry.stores.addresses import Kind, in_tables, parsed, shown
from escalade.registry.stores.claims import Claims, RedisClaims, SqliteClaims
from escalade.registry.stores.shared import OnDeath, SharedLedger, Store


def open_ledger(
    where: str,
    budgets: Iterable[Budget] = (),
    *,
    listen: Callable[[Crossing], object] | None = None,
    lease: float = 60.0,
    on_death: OnDeath = "settle",
) -> SharedLedger:
    """`SqliteLedger`, `RedisLedger` or `PostgresLedger`, as the address says. Raises BadInput, StoreUnavailable."""
    from escalade.registry.stores.postgres_ledger import PostgresLedger
    from escalade.registry.stores.redis_ledger import RedisLedger
    from escalade.registry.stores.sqlite_ledger import SqliteLedger

    made: dict[Kind, Any] = {"file": SqliteLedger, "redis": RedisLedger, "postgres": PostgresLedger}
    kind, place = parsed(where)
    ledger: SharedLedger = made[kind](place, budgets, listen=listen, lease=lease, on_death=on_death)
    return ledger


def open_limiter(where: str) -> RateLimiter:
    """`SqliteLimiter`, `RedisLimiter` or `PostgresLimiter`, as the address says. Raises BadInput, StoreUnavailable."""
    from escalade.registry.stores.postgres_limits import PostgresLimiter
    from escalade.registry.stores.redis_limits import RedisLimiter
    from escalade.registry.stores.sqlite_limits import SqliteLimiter

    made: dict[Kind, Any] = {"file": SqliteLimiter, "redis": RedisLimiter, "postgres": PostgresLimiter}
    kind, place = parsed(where)
    limiter: RateLimiter = made[kind](place)
    return limiter


def open_claims(where: str) -> Claims:
    """`SqliteClaims`, `RedisClaims` or `PostgresClaims`, as the address says. Raises BadInput, StoreUnavailable."""
    from escalade.registry.stores.postgres_claims import PostgresClaims

    made: dict[Kind, Any] = {"file": SqliteClaims, "redis": RedisClaims, "postgres": PostgresClaims}
    kind, place = parsed(where)
    claims: Claims = made[kind](place)
    return claims


def open_cache(where: str) -> Cache:
    """`DiskCache` (in a folder), `RedisCache` or `PostgresCache`, as the address says. Raises BadInput."""
    from escalade.registry.stores.disk_cache import DiskCache
    from escalade.registry.stores.postgres_cache import PostgresCache
    from escalade.registry.stores.redis_cache import RedisCache

    made: dict[Kind, Any] = {"file": DiskCache, "redis": RedisCache, "postgres": PostgresCache}
    kind, place = parsed(where)
    cache: Cache = made[kind](place)
    return cache


def open_requests(where: str | os.PathLike[str], *, create: bool = True) -> Requests:
    """Calls that wait for a person: `SqliteRequests` or `PostgresRequests`, as the address says. `create`: make the
    store if there is none. Raises BadInput, StoreUnavailable.
    """
    from escalade.registry.approvals.postgres import PostgresRequests
    from escalade.registry.approvals.sqlite import SqliteRequests

    kind, place = in_tables(where, "a store of approvals")
    return PostgresRequests(place, create=create) if kind == "postgres" else SqliteRequests(place, create=create)


def open_store(where: str, *, prefix: str = "escalade", create: bool = False) -> Store:
    """The store of budgets there, for those who look at it from outside of any program. `prefix`: of the keys in Redis,
    or the schema in PostgreSQL. `create`: make it if there is none.

    Nothing that anybody holds is ended by it. Raises BadInput where there is none, StoreUnavailable.
    """
    kind, place = parsed(where)
    if kind == "redis":
        return _redis(place, prefix)
    if kind == "postgres":
        return _postgres(place, prefix, create=create)
    from escalade.registry.stores.sqlite_ledger import SqliteStore

    if not Path(place).exists():
        if not create:
            raise BadInput(f"there is no store of budgets at {place!r}; escalade budget set --create makes one")
    elif not _is_store(place):
        raise BadInput(f"{place!r} is no store of budgets: expected a file that SqliteLedger made")
    return SqliteStore(place)


def _redis(where: str, prefix: str) -> Store:
    from escalade.registry.stores.redis import Server
    from escalade.registry.stores.redis_ledger import RedisStore

    server = Server(where)
    try:
        server.command("PING")
    except StoreUnavailable as error:
        raise StoreUnavailable(f"no Redis server answers at {shown(where)}: is it up, and reachable?") from error
    return RedisStore(server, prefix)


def _postgres(where: str, schema: str, *, create: bool) -> Store:
    from escalade.registry.stores.postgres import has_table
    from escalade.registry.stores.postgres_ledger import PostgresStore

    try:
        there = has_table(where, "accounts", schema=schema)
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{error} ({shown(where)}): is it up, and reachable?") from error
    if not there and not create:
        place = f"schema {schema!r} at {shown(where)}"
        raise BadInput(f"there is no store of budgets in {place}; escalade budget set --create makes one")
    return PostgresStore(where, schema=schema, timeout=5.0)


def _is_store(where: str) -> bool:
    try:
        with closing(sqlite3.connect(f"{Path(where).absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('accounts', 'holds')")
            return bool(found.fetchone()[0] == 2)
    except sqlite3.Error:
        return False
