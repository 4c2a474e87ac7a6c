"""The handle of a durable run."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from escalade.errors import RunError, UnknownName
from escalade.money import Money
from escalade.pipelines.durable.store import ENDED, CallRow, Kept, RunRow, Status, StepRow
from escalade.registry.elsewhere import elsewhere

if TYPE_CHECKING:
    from escalade.pipelines.durable.runs import Runs

POLL = 0.1
"""Seconds between looks at a run that another process executes."""


@dataclass(frozen=True, slots=True)
class StepDone:
    """A node that a run has finished. `path`: as in errors and events, "branch/step", "summaries[3]"."""

    path: str
    result: Any


class Run:
    """One durable run, wherever it is executed. Handles are cheap, and any process may have one."""

    def __init__(self, runs: Runs, run_id: str) -> None:
        self._runs, self.run_id = runs, run_id

    def __repr__(self) -> str:
        return f"Run({self.run_id!r})"

    def row(self) -> RunRow:
        """All that is known of it. Raises UnknownName, StoreUnavailable."""
        found = self._runs.host.store.get(self.run_id)
        if found is None:
            raise UnknownName("run", self.run_id, None)
        return found

    def status(self) -> Status:
        """Where it is: queued, running, waiting, done, failed or cancelled."""
        return self.row().status

    @property
    def spent(self) -> Money:
        """What all attempts cost until the last one ended."""
        return Money(self.row().spent)

    def result(self, timeout: float | None = None) -> Any:
        """Wait until it has ended: its result. Raises RunError when it failed, was cancelled, or waits for a person;
        TimeoutError.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            changed = self._runs.changes.ticket(self.run_id)
            row = self.row()
            if row.status in ENDED or row.status == "waiting":
                return self._outcome(row)
            left = POLL if until is None else min(POLL, until - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"run {self.run_id} is {row.status} after {timeout:g} s")
            changed.wait(left)

    async def aresult(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - as `result`
        """`result`, without blocking the event loop."""
        async with asyncio.timeout(timeout):
            while True:
                changed = self._runs.changes.aticket(self.run_id)
                row = await self._ask(self.row)
                if row.status in ENDED or row.status == "waiting":
                    return await self._ask(partial(self._outcome, row))
                await asyncio.wait([changed], timeout=POLL if row.status == "queued" or not self._here() else 1.0)

    def _here(self) -> bool:
        return self.run_id in self._runs.host.live

    def _outcome(self, row: RunRow) -> Any:
        if row.status == "done":
            return self._runs.host.codec.loads(row.result or b"null")
        if row.status == "waiting":
            waiting = ", ".join(ticket.ticket for ticket in self._runs.host.store.tickets(self.run_id))
            raise RunError(f"run {self.run_id} waits for an answer to {waiting}", run_id=self.run_id, status="waiting")
        if row.status == "cancelled":
            raise RunError(f"run {self.run_id} was cancelled", run_id=self.run_id, status="cancelled")
        said: Mapping[str, str] = json.loads(row.error or "{}")
        message, kind = said.get("message", ""), said.get("kind", "")
        raise RunError(
            f"run {self.run_id} failed: {kind}: {message}", run_id=self.run_id, kind=kind, path=said.get("path", "")
        )

    async def events(self, *, after: int = 0) -> AsyncGenerator[dict[str, Any], None]:
        """Its events as dicts, as they come, until it has ended or waits: from the beginning, from any process. Each
        has a number `n`, which goes on over all attempts; `after`: only later ones.

        A run has events when it was started with `events=True`.
        """
        while True:
            row = await self._ask(self.row)
            for event in await self._ask(partial(self._runs.host.store.events, self.run_id, after)):
                after = event.n
                yield {"n": event.n, **json.loads(event.told)}
            if row.status in ENDED or row.status == "waiting":
                return
            await asyncio.sleep(POLL / 2)

    def cancel(self) -> Status:
        """Cancel it: its status now, "running" while it cleans up. What it holds is settled."""
        return self._runs.cancel(self.run_id)

    def resume(self, *, force: bool = False) -> Run:
        """Go on with a run that failed or was cancelled: what it had finished is not done again. `force`: also when its
        pipeline is arranged in another way now. Raises RunConflict for one that can't be resumed, PipelineChanged.
        """
        return self._runs.resume(self.run_id, force=force)

    def fork(
        self, step: str | None = None, *, new_id: str | None = None, inputs: Mapping[str, Any] | None = None
    ) -> Run:
        """A new run that begins with all that this one had finished before the step at this path, such as
        "branch/step"; it and what comes after is done anew. None: with all that this one has finished. `inputs`: others
        by name. It has the same principal, the same budget, of which nothing is spent yet, and no deadline. Raises
        UnknownName for a step that it never finished.
        """
        return self._runs.fork(self.run_id, step, new_id=new_id, inputs=inputs)

    def steps(self) -> list[StepDone]:
        """The nodes that it has finished, in the order in which they ended."""
        kept = self._runs.host.store.kept(self.run_id)
        return [StepDone(shown(row.path), self._runs.host.codec.loads(row.value)) for row in kept.steps]

    def calls(self) -> list[CallRow]:
        """The calls of models and tools that it has finished, in the order in which they ended."""
        return list(self._runs.host.store.kept(self.run_id).calls)

    async def _ask(self, do: Any) -> Any:
        return await elsewhere(do) if self._runs.host.store.remote else do()


def shown(path: str) -> str:
    """A step's path, JSON in the store, as errors and events have it.

    >>> shown('["views", "facts", 3]')
    'views/facts[3]'
    """
    text = ""
    for name in json.loads(path):
        text += f"[{name}]" if isinstance(name, int) else f"/{name}" if text else str(name)
    return text


def before(kept: Kept, step: str, run_id: str) -> Kept:
    """What was finished before this step, and is no part of it. Raises UnknownName."""
    own = [row for row in kept.steps if shown(row.path) == step]
    if not own:
        raise UnknownName(f"step of run {run_id}", step, sorted({shown(row.path) for row in kept.steps}))
    path = json.loads(own[0].path)
    until = max(row.n for row in own)

    def stays(row: StepRow | CallRow) -> bool:
        return row.n < until and json.loads(row.path)[: len(path)] != path

    return Kept(tuple(filter(stays, kept.steps)), tuple(filter(stays, kept.calls)))
