"""A process with 64 threads that all want to make the same calls of a tool that writes, each once.

    python -m tests.registry.stores.writers sqlite calls.db effects.txt 200 seed

It says "ready", waits for a line, and begins. A call appends its number to the file of effects (O_APPEND, one write).
What a thread could not find out is printed.
"""

from __future__ import annotations

import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy

import escalade
from escalade.errors import OutcomeUnknown

THREADS = 64


def open_claims(kind: str, where: str) -> Any:
    """Where calls are claimed."""
    from escalade.registry.stores.claims import RedisClaims, SqliteClaims

    if kind == "postgres":
        from escalade.registry.stores.postgres_claims import PostgresClaims

        return PostgresClaims(where, timeout=10.0)
    return SqliteClaims(where, patience=10.0) if kind == "sqlite" else RedisClaims(where)


def main(kind: str, where: str, effects: str, calls: str, seed: str) -> None:
    """Make all calls, in an order of one's own."""
    file = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @escalade.tool(once=True)
    def write(number: int) -> int:
        """Write."""
        time.sleep(0.05)
        os.write(file, f"{number}\n".encode())
        time.sleep(0.05)
        return number * 2

    tool = escalade.Registry([write], claims=open_claims(kind, where), name="writers").get_tool("write")
    numbers = list(range(int(calls)))
    random.Random(seed).shuffle(numbers)
    print("ready", flush=True)
    sys.stdin.readline()
    with escalade.scope(run_id="shared") as run:

        def make(number: int) -> None:
            with dspy.context(escalade=run):
                try:
                    assert tool(number=number) == number * 2
                except OutcomeUnknown:
                    os.write(1, f"unknown {number}\n".encode())

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(make, numbers))


if __name__ == "__main__":
    main(*sys.argv[1:])
