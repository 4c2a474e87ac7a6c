"""Four processes of 64 threads on one store, and somebody who kills them at random."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests._house import ROOT
from tests.registry.stores.crowd import MOST, THREADS, open_ledger
from tests.registry.stores.limited import AT_ONCE, IN_ALL, SECONDS, open_limiter

PROCESSES = 4


class Crowd:
    """Starts the processes and keeps their number; `deaths` counts those that were killed."""

    def __init__(self, worker: str, kind: str, where: str, log: Path) -> None:
        self.command = [sys.executable, "-m", f"tests.registry.stores.{worker}", kind, where, str(log)]
        self.log, self.deaths = log, 0
        self.running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *error: object) -> None:
        """A test that fails leaves nobody at work behind: he would be told of in another test."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def start(self, seconds: float) -> None:
        """One more process, which works for so many seconds."""
        process = subprocess.Popen([*self.command, f"{seconds:.2f}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.running.append(process)

    def gather(self, seconds: float, chance: random.Random) -> None:
        """All of them at work: on a busy machine it takes seconds until they are."""
        for _ in range(PROCESSES):
            self.start(seconds)
        self.kill_one(chance)
        self.start(seconds)

    def kill_one(self, chance: random.Random) -> None:
        """Kill one that has begun to work, in the middle of whatever it does."""
        victim = chance.choice(self.running)
        assert victim.stdout is not None
        victim.stdout.readline()
        time.sleep(0.15 + chance.random() * 0.2)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        victim.stdout.close()
        self.running.remove(victim)
        self.deaths += 1

    def finish(self) -> None:
        """Wait for those that are left."""
        for process in self.running:
            _, _ = process.communicate(timeout=90)
            assert process.returncode == 0

    def bills(self) -> list[int]:
        """What was settled by processes that lived to tell."""
        return [int(line) for line in self.log.read_text("ascii").split() if line.isdigit()]


def kill_at_random(kind: str, where: str, log: Path, limit: int, seconds: float = 3.5) -> dict[str, Any]:
    """The budget is never passed at any moment that is looked at; what the dead held is booked once, and counts.

    For so many seconds, and on until some have died and most is used: on a busy machine that takes longer.
    """
    ledger, chance = open_ledger(kind, where), random.Random(7)
    with Crowd("crowd", kind, where, log) as crowd:
        crowd.gather(seconds, chance)
        until, worst, looks, used = time.monotonic() + seconds, 0, 0, 0
        while (left := until - time.monotonic()) > 1.0 or crowd.deaths < 3 or used <= limit * 0.8:
            crowd.kill_one(chance)
            crowd.start(left if left > 0.5 else seconds)
            for _ in range(20):
                account = ledger.account("tenant:acme")
                worst, looks, used = max(worst, account.settled + account.held), looks + 1, account.settled
        crowd.finish()
    ledger.sweep()
    account, bills = ledger.account("tenant:acme"), crowd.bills()
    assert worst <= limit
    assert ledger.store.held() == []
    assert account.held == 0
    assert sum(bills) <= account.settled <= limit
    assert account.settled - sum(bills) <= crowd.deaths * THREADS * MOST, "what the dead held, and nothing else"
    assert account.overrun == 0
    return {"deaths": crowd.deaths, "looks": looks, "uses": len(bills), "settled": account.settled, "worst": worst}


def limits_under_kills(kind: str, where: str, log: Path, seconds: float = 3.5) -> dict[str, Any]:
    """No window ever has more uses than it allows: neither of those that processes lived to tell, nor of those that the
    store knows, which has those of the dead, too.
    """
    limiter, chance = open_limiter(kind, where), random.Random(11)
    with Crowd("limited", kind, where, log) as crowd:
        crowd.gather(seconds, chance)
        until = time.monotonic() + seconds
        while time.monotonic() < until - 1.0 or crowd.deaths < 3:
            crowd.kill_one(chance)
            crowd.start(max(0.5, until - time.monotonic()))
        crowd.finish()
    told, known = sorted(float(line) for line in log.read_text("ascii").split()), _known(kind, limiter)
    for times in (told, known):
        assert len(times) <= IN_ALL
        gaps = [later - earlier for earlier, later in zip(times, times[AT_ONCE:], strict=False)]
        assert all(gap >= SECONDS - 1e-5 for gap in gaps)
    assert not Counter(told) - Counter(known), "none was forgotten"
    assert len(known) - len(told) <= crowd.deaths * THREADS, "what the dead took, and nothing else"
    return {"deaths": crowd.deaths, "told": len(told), "known": len(known)}


def _known(kind: str, limiter: Any) -> list[float]:
    """When each use was, as the store has it."""
    if kind == "sqlite":
        return [at for (at,) in limiter.database.read("SELECT at FROM uses ORDER BY at")]
    if kind == "postgres":
        return [at for (at,) in limiter.server.ask("SELECT at FROM uses ORDER BY at")]
    (key,) = limiter.server.command("KEYS", "*:uses:*")
    return sorted(float(at) / 1e6 for _, at in limiter.server.command("ZRANGE", key, 0, -1, "WITHSCORES"))
