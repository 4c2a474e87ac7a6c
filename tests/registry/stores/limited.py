"""A process with 64 threads that take places of a shared rate limit until they are told to stop, or killed.

    python -m tests.registry.stores.limited sqlite limits.db log.txt 10
    python -m tests.registry.stores.limited redis redis://127.0.0.1:6390/0 log.txt 10

Each use writes its moment to the log (O_APPEND, one write) when it was taken.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from escalade.registry.limits import Taken, parse_limits
from tests.registry.stores.crowd import THREADS

AT_ONCE, SECONDS, IN_ALL = 20, 0.5, 150
WINDOWS = tuple(("k", one) for one in parse_limits(f"{AT_ONCE}/{SECONDS}s, {IN_ALL}/1000s"))


def open_limiter(kind: str, where: str, **options: Any) -> Any:
    """The limiter that is shared."""
    if kind == "sqlite":
        from escalade.registry.stores.sqlite_limits import SqliteLimiter

        return SqliteLimiter(where, **{"patience": 10.0, **options})
    if kind == "postgres":
        from escalade.registry.stores.postgres_limits import PostgresLimiter

        return PostgresLimiter(where, **{"timeout": 10.0, **options})
    from escalade.registry.stores.redis_limits import RedisLimiter

    return RedisLimiter(where, **{"timeout": 10.0, **options})


def work(limiter: Any, log: int, until: float) -> None:
    """Uses until the time is up. Every third one is given back: it did not happen."""
    number = 0
    while time.monotonic() < until:
        taken = limiter.take_all(WINDOWS)
        if not isinstance(taken, Taken):
            time.sleep(min(taken, 0.05))
            continue
        number += 1
        if number % 3 == 0:
            limiter.give_back(taken)
        else:
            os.write(log, f"{taken.at!r}\n".encode())


def main(kind: str, where: str, log: str, seconds: str) -> None:
    """Open the limiter, say so, and let the threads work."""
    limiter = open_limiter(kind, where)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    until = time.monotonic() + float(seconds)
    print("ready", flush=True)
    threads = [threading.Thread(target=work, args=(limiter, file, until)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
