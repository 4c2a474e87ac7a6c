"""Two processes and one approval: exactly one of them runs the call."""

from __future__ import annotations

import contextlib
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from escalade.errors import ApprovalRequired
from escalade.registry.stores.opened import open_requests
from tests.registry.approvals.calls import BOSS, desk, governed, only, ran, scope

ROUNDS, PROCESSES = 10, 2


def racer(path: str, start: Any, results: Any) -> None:
    """Call the approved tool as soon as all are ready, round by round."""
    tool, at = governed(), desk(open_requests(path))
    for n in range(ROUNDS):
        ran.clear()
        with scope(at, run_id=f"run-{n}"):
            start.wait(60)
            with contextlib.suppress(ApprovalRequired):
                tool(amount=n)
        results.put((n, len(ran)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "postgres"])
def test_one_of_two_processes_wins(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """In each of ten rounds both make the same approved call at once; it runs once."""
    path = str(tmp_path / "approvals.db") if kind == "file" else request.getfixturevalue("postgres_url")
    at, tool = desk(open_requests(path)), governed()
    for n in range(ROUNDS):
        with scope(at, run_id=f"run-{n}"), pytest.raises(ApprovalRequired):
            tool(amount=n)
        at.approve(only(at).id, BOSS)
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(PROCESSES), spawn.Queue()
    processes = [spawn.Process(target=racer, args=(path, start, results)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    found = [results.get(timeout=100) for _ in range(ROUNDS * PROCESSES)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    runs = [sum(count for n, count in found if n == round_) for round_ in range(ROUNDS)]
    assert runs == [1] * ROUNDS
    assert len(at.requests("used")) == ROUNDS
