"""One attempt at a run: open its scope, run its pipeline under its journal, keep what came of it.

How an attempt can end:

    done, failed, cancelled    for good: kept with its result or its error
    waiting                    for a person: it holds no thread, no task, no connection, and goes on in another attempt
    Interrupted                the store went away, or the process is asked to stop: another attempt goes on
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from escalade import scopes
from escalade.errors import (
    DeadlineExceeded,
    EscaladeError,
    PipelineChanged,
    StoreUnavailable,
    UnknownName,
)
from escalade.pipelines.durable.accounts import Accounts
from escalade.pipelines.durable.journal import Journal, Keeper
from escalade.pipelines.durable.shapes import changes, digest_of
from escalade.pipelines.durable.store import RunRow, Status, Store, Superseded, TicketRow
from escalade.pipelines.pipeline import Pipeline
from escalade.pipelines.values import Codec
from escalade.registry.elsewhere import elsewhere, is_remote
from escalade.registry.ledger import Ledger
from escalade.registry.opening import run_scope
from escalade.scopes import Access, Desk, Principal, Recorder, Scope

_FAILURES = (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit)
"""What a node raises is its failure. Other BaseExceptions are the process's: the run goes on with the next one."""

T = TypeVar("T")


class Interrupted(EscaladeError):
    """This attempt has ended without an end of the run: another one goes on. `retry_after`: seconds."""

    retry_after: float = 1.0


@dataclass
class Live:
    """An attempt that is on its way here."""

    run: RunRow
    journal: Journal
    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Any] | None = None
    stopping: bool = False
    superseded: bool = False


@dataclass
class Host:
    """What an execution needs, wherever it is. `shapes`: how the pipelines are arranged. `owner`: who executes, as the
    store shows it. `ledger`, `access`, `recorder`, `approvals`: of the scopes of runs; `book`: the ledger where none is
    given and no scope is configured.
    """

    store: Store
    keeper: Keeper
    codec: Codec
    pipelines: dict[str, Pipeline]
    shapes: dict[str, str] = field(default_factory=dict)
    ledger: Ledger | None = None
    book: Ledger | None = None
    access: Access | None = None
    recorder: Recorder | None = None
    approvals: Desk | None = None
    owner: str = ""
    changed: Callable[[str], object] = str
    live: dict[str, Live] = field(default_factory=dict)
    accounts: Accounts = field(init=False)

    def __post_init__(self) -> None:
        self.accounts = Accounts(self.store, self.books)

    def books(self) -> Ledger | None:
        """The ledger in which runs have their accounts; None in memory, where each scope has its own."""
        configured = scopes.configured()
        if self.ledger is not None or configured is None:
            return self.ledger or self.book
        return getattr(configured.purse, "ledger", None)

    async def ask_books(self, do: Callable[[], T]) -> T:
        """Ask for what takes the ledger, and the store, without blocking the event loop."""
        return await elsewhere(do) if self.store.remote or is_remote(self.books()) else do()

    async def ask(self, do: Callable[[], T]) -> T:
        """Ask the store, without blocking the event loop."""
        return await elsewhere(do) if self.store.remote else do()

    def pipeline(self, name: str) -> Pipeline:
        """Raises UnknownName."""
        if name not in self.pipelines:
            raise UnknownName("pipeline", name, list(self.pipelines))
        return self.pipelines[name]

    def stop(self, run_id: str) -> None:
        """End the attempt, if it is here: it was cancelled."""
        live = self.live.get(run_id)
        if live is not None:
            live.stopping = True
            _cancel(live)

    def supersede(self, run_id: str, attempt: int) -> None:
        """End that attempt: another one has begun elsewhere."""
        live = self.live.get(run_id)
        if live is not None and live.run.attempts == attempt:
            live.superseded = True
            _cancel(live)

    async def open(self, ticket: TicketRow) -> TicketRow:
        """Keep a question."""
        return await self.ask(partial(self.store.ask, ticket))

    async def look(self, ticket: str) -> TicketRow | None:
        """A question as it stands."""
        return await self.ask(partial(self.store.ticket, ticket))

    def answered(self, run_id: str, ticket: str) -> None:
        """Tell an attempt that its question was answered, if it is here."""
        live = self.live.get(run_id)
        if live is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                live.loop.call_soon_threadsafe(_resolve, live.journal, ticket)


def _resolve(journal: Journal, ticket: str) -> None:
    future = journal.tickets.get(ticket)
    if future is not None and not future.done():
        future.set_result(None)


def _cancel(live: Live) -> None:
    with contextlib.suppress(RuntimeError):  # its loop is closed
        live.loop.call_soon_threadsafe(lambda: None if live.task is None else live.task.cancel())


async def execute(host: Host, run_id: str) -> Status:
    """Execute a run: its status afterwards, which was there already where there is nothing to do.

    Raises Interrupted, which asks for another attempt; CancelledError when this task is cancelled: then the run is
    queued again, for whoever takes it up.
    """
    try:
        run = await host.ask(partial(host.store.begin, run_id, host.owner, time.time()))
        if run is None:
            return await _status(host, run_id)
        return await _attempt(host, run)
    except StoreUnavailable as error:
        raise _interrupted(error) from error
    finally:
        host.changed(run_id)


async def _status(host: Host, run_id: str) -> Status:
    found = await host.ask(partial(host.store.get, run_id))
    if found is None:
        raise UnknownName("run", run_id, None)
    return found.status


async def _attempt(host: Host, run: RunRow) -> Status:
    kept = await host.ask(partial(host.store.kept, run.run_id))
    journal = Journal(run.run_id, run.attempts, kept, host.keeper, host.codec, host, run.deadline)
    live = host.live[run.run_id] = Live(run, journal, asyncio.get_running_loop(), stopping=run.stopping)
    opened: list[Scope] = []
    try:
        live.task = task = asyncio.create_task(_course(host, run, journal, opened))
        if live.stopping:
            task.cancel()
        try:
            await _followed(task, journal)
        except asyncio.CancelledError:
            await _ended(host, live, task, opened, asked=True)
            raise
        return await _ended(host, live, task, opened, asked=journal.stuck.is_set())
    finally:
        del host.live[run.run_id]


async def _followed(task: asyncio.Task[Any], journal: Journal) -> None:
    """Until the pipeline has ended, or can't go on without a person and was stopped."""
    stuck = asyncio.create_task(journal.stuck.wait())
    try:
        await asyncio.wait([task, stuck], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stuck.cancel()
        if not task.done():
            task.cancel()
        while not task.done():  # also when we are cancelled again: it cleans up
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])


async def _course(host: Host, run: RunRow, journal: Journal, opened: list[Scope]) -> Any:
    """The pipeline's result."""
    pipeline = host.pipeline(run.pipeline)
    await _check_shape(host, run, begun=run.attempts > 1 or run.forked_from is not None)
    inputs = host.codec.loads(run.inputs)
    scope = await host.ask(partial(_scope, host, run, journal))
    opened.append(scope)
    journal.root()
    async with scopes.Entered(lambda: scope, check=False):
        return await pipeline.acall(**inputs)


async def _check_shape(host: Host, run: RunRow, *, begun: bool) -> None:
    """Raises PipelineChanged for a run that began with another arrangement."""
    now = host.shapes[run.pipeline]
    if begun and digest_of(now) != run.shape:
        was = await host.ask(partial(host.store.shape, run.shape)) or ""
        raise PipelineChanged(
            f"run {run.run_id} began when pipeline {run.pipeline!r} was another one: {changes(was, now)}; resume it "
            f"with force=True to go on with what it is now, or fork it"
        )


def _scope(host: Host, run: RunRow, journal: Journal) -> Scope:
    """The scope of the attempt: who, what is left of budget and time. Raises DeadlineExceeded, NoPolicy."""
    left = None if run.deadline is None else run.deadline - time.time()
    if left is not None and left <= 0:
        raise DeadlineExceeded(f"the deadline of run {run.run_id} has passed")
    scope = run_scope(
        run.run_id,
        principal=principal_of(run.principal),
        budget=run.budget,
        spent=max(run.spent, journal.spent),
        deadline=left,
        ledger=host.ledger,
        book=host.book,
        access=host.access,
        recorder=host.recorder,
        approvals=host.approvals,
        listen=(journal.listen,) if run.keep_events else (),
    )
    return replace(scope, journal=journal)


async def _ended(host: Host, live: Live, task: asyncio.Task[Any], opened: list[Scope], *, asked: bool) -> Status:
    """Keep how the attempt ended. `asked`: was it told to end? Raises Interrupted, CancelledError."""
    run, journal = live.run, live.journal
    error = _error(task, asked=asked or live.stopping or live.superseded)
    ended = replace(run, spent=int(opened[0].spent) if opened else run.spent, ended=time.time())
    if live.superseded or _caused(error, Superseded):
        return await _status(host, run.run_id)
    if _caused(error, StoreUnavailable):
        raise _interrupted(error)
    await host.keeper.awrite((run.run_id, run.attempts))  # all that the attempt has finished is in the store then
    if task.cancelled() and error is None:
        if journal.stuck.is_set() and not live.stopping:
            return await _parked(host, ended, journal)
        if not live.stopping:  # the process is asked to stop, or the engine changed its mind
            await host.ask(partial(host.store.queue, run.run_id, ("running",), attempt=run.attempts))
            raise asyncio.CancelledError
        ended = replace(ended, status="cancelled")
    elif error is not None:
        if not isinstance(error, _FAILURES):
            raise error
        ended = replace(ended, status="failed", error=as_json(error))
    else:
        ended = _done(host, ended, task.result())
    if not await host.ask_books(partial(host.accounts.end, ended)):
        return await _status(host, run.run_id)
    return ended.status


def _error(task: asyncio.Task[Any], *, asked: bool) -> BaseException | None:
    """What it failed with. A cancellation that nobody asked for is a node's own: else the run would never end."""
    if not task.cancelled():
        return task.exception()
    return None if asked else asyncio.CancelledError("a node raised CancelledError, and nobody had cancelled the run")


def _done(host: Host, ended: RunRow, result: Any) -> RunRow:
    try:
        return replace(ended, status="done", result=host.codec.dumps(result))
    except EscaladeError as error:
        return replace(ended, status="failed", error=as_json(error, "the result of the run: "))


async def _parked(host: Host, run: RunRow, journal: Journal) -> Status:
    waiting = [ticket for ticket, future in journal.tickets.items() if not future.done()]
    spent = await host.ask_books(partial(host.accounts.spent, run))
    if await host.ask(partial(host.store.park, run.run_id, run.attempts, waiting, spent, time.time())):
        return "waiting"
    error = Interrupted(f"run {run.run_id}: the answer came while it was put aside")
    error.retry_after = 0.0
    raise error


def _interrupted(error: BaseException | None) -> Interrupted:
    after = getattr(error, "retry_after", None)
    interrupted = Interrupted(f"the attempt was interrupted: {error}")
    interrupted.retry_after = max(1.0, after or 0.0)
    return interrupted


def _caused(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Is it, or was it caused by, one of this kind?"""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, kind):
            return True
        seen.add(id(error))
        error = error.__cause__
    return False


def as_json(error: BaseException, before: str = "") -> str:
    """An error as it is kept: its class, message and path."""
    cause = error.__cause__ if type(error).__name__ in {"Failure", "NodeError"} and error.__cause__ else error
    return json.dumps(
        {"kind": type(cause).__name__, "message": before + str(error), "path": getattr(error, "path", "")}
    )


def principal_as_json(principal: Principal | None) -> str | None:
    """A principal as it is kept."""
    if principal is None:
        return None
    return json.dumps({"user": principal.user, "tenant": principal.tenant, "roles": sorted(principal.roles)})


def principal_of(kept: str | None) -> Principal | None:
    """The principal that was kept."""
    if kept is None:
        return None
    said: Mapping[str, Any] = json.loads(kept)
    return Principal(said["user"], said["tenant"], frozenset(said["roles"]))
