"""Coroutines and a store of approvals that another process has locked: the event loop goes on."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

import escalade
from escalade import Approvals, Principal, Registry, Roles, SqliteRequests, tool
from escalade.errors import ApprovalRequired, StoreUnavailable

ANA = Principal("ana", "acme", frozenset({"user"}))
BOSS = Principal("bo", "acme", frozenset({"boss"}))
POLICY = Roles({"user": ["*:call"], "boss": ["*:approve"]})
GAP = 0.3


async def longest_gap(stop: asyncio.Event) -> float:
    """Seconds that the loop stood still at the most."""
    worst, last = 0.0, time.perf_counter()
    while not stop.is_set():
        await asyncio.sleep(0.005)
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
    return worst


@tool(name="pay", version="1.0.0", cost="0", approval="always")
async def pay(amount: int) -> int:
    """Pay."""
    return amount


def test_a_locked_store_stops_nobody_else(tmp_path: Path) -> None:
    """While the store of approvals can't be written, calls wait for it in a thread and are refused in the end."""
    file = tmp_path / "approvals.db"
    desk = Approvals(SqliteRequests(file, wait=1.0), access=POLICY)
    governed = Registry([pay]).get_tool("pay")

    async def main() -> float:
        stop = asyncio.Event()
        gap = asyncio.create_task(longest_gap(stop))
        async with escalade.scope(principal=ANA, access=POLICY, approvals=desk):
            with pytest.raises(StoreUnavailable):
                await governed.acall(amount=1)
        stop.set()
        return await gap

    stranger = sqlite3.connect(file, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    try:
        assert asyncio.run(main()) < GAP
    finally:
        stranger.execute("ROLLBACK")
        stranger.close()


def test_waiting_for_a_person_looks_into_the_store_in_a_thread(tmp_path: Path) -> None:
    """A coroutine that waits is woken by the decision; an approval whose call is cancelled before is kept."""
    desk = Approvals(SqliteRequests(tmp_path / "approvals.db"), access=POLICY, wait=True, poll=0.02)
    governed = Registry([pay]).get_tool("pay")

    async def main() -> None:
        async with escalade.scope(principal=ANA, access=POLICY, approvals=desk):
            left = asyncio.create_task(governed.acall(amount=1))
            while not desk.requests("pending"):  # noqa: ASYNC110 - a thread writes it
                await asyncio.sleep(0.02)
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
            (request,) = desk.requests("pending")
            waiting = asyncio.create_task(governed.acall(amount=1))
            desk.approve(request.id, by=BOSS)
            assert await waiting == 1
            assert desk.get(request.id).state == "used"

    asyncio.run(main())


def test_without_a_decision_the_request_is_named(tmp_path: Path) -> None:
    """A desk that doesn't wait refuses coroutines as it refuses everybody."""
    desk = Approvals(SqliteRequests(tmp_path / "approvals.db"), access=POLICY)

    async def main() -> str:
        async with escalade.scope(principal=ANA, access=POLICY, approvals=desk):
            with pytest.raises(ApprovalRequired) as refusal:
                await Registry([pay]).get_tool("pay").acall(amount=2)
        return refusal.value.request_id

    assert desk.get(asyncio.run(main())).state == "pending"
