"""A study that is killed goes on where it stopped, and comes to what it would have come to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from tests._house import ROOT
from tests.evals.studies.killing import CONCURRENCY, KILLS, TOTAL
from tests.servers.fault_server import FaultServer

pytestmark = pytest.mark.slow


def asked(server: FaultServer) -> Counter[str]:
    """How often each request was made."""
    return Counter(json.dumps([one["body"]["model"], one["body"]["messages"]]) for one in server.requests)


def test_killed_ten_times(tmp_path):
    """`kill -9` at ten random points: table and JSON are the same byte for byte, and no request was made again but
    those that were in flight at a kill.
    """
    with FaultServer() as server:
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.evals.studies.killing"]
        done = subprocess.run(
            [*command, str(tmp_path), server.base, "5"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        counted = asked(server)
    kills = json.loads(done.stdout)["kills"]
    assert kills == KILLS
    for name in ("table.txt", "compare.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    lines = (tmp_path / "killed" / "attempts.jsonl").read_bytes().splitlines()
    assert len(lines) == TOTAL
    # each request is made for two epochs, in both directories
    once = 2 * TOTAL
    again = counted.total() - once
    print(f"{kills} kills, {TOTAL} attempts, {again} requests again (at most {kills * CONCURRENCY})")
    assert min(counted.values()) >= 4
    assert again <= kills * CONCURRENCY
    assert max(counted.values()) <= 4 + kills
