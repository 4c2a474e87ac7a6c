"""Runs: pipelines that are started by name and run id, and outlive the process that started them.

    runs = Runs("sqlite:///var/runs.sqlite", pipelines={"report": report})
    run = runs.start("report", run_id="acme-2026-11", budget="2.00", topic="batteries")
    run.result()

Without a URL, all of it is in memory: the same code, and nothing is left when the process ends.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from escalade.errors import BadInput, RunConflict, StoreUnavailable, UnknownName
from escalade.events import new_run_id
from escalade.money import Money, money_or_none
from escalade.pipelines.ask import Question
from escalade.pipelines.durable.changes import Changes
from escalade.pipelines.durable.execution import Host, principal_as_json
from escalade.pipelines.durable.inline import Inline
from escalade.pipelines.durable.memory_store import MemoryRuns
from escalade.pipelines.durable.port import Engine
from escalade.pipelines.durable.run import Run, before, shown
from escalade.pipelines.durable.shapes import digest_of, told
from escalade.pipelines.durable.sqlite_store import SqliteRuns
from escalade.pipelines.durable.store import ENDED, STATUSES, Kept, RunRow, Status, Store, TicketRow
from escalade.pipelines.durable.writer import Direct, Writer
from escalade.pipelines.pipeline import Pipeline
from escalade.pipelines.shape import shape_of
from escalade.pipelines.values import Codec, NotPlain, declared
from escalade.registry.elsewhere import elsewhere
from escalade.registry.ledger import Ledger
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from escalade.scopes import Access, Desk, Principal, Recorder

__all__ = ["Run", "Runs"]


class Runs:
    """Durable runs of pipelines, in a store that outlives the process.

    `url`: `sqlite:///path` (or a path) for the processes of one host, None for memory; or a `store`. `pipelines`: by
    the names that runs know them by. `engine`: who executes: "inline", "dbos", or an engine, like
    `Inline(concurrency=8)`. `ledger`: of budgets, in which each run has an account of its own that outlives
    attempts; beside the store by default. `access`, `recorder`, `approvals`: as for `escalade.scope`; what is
    not given is that of `escalade.configure`, where it was called. `types`: classes that inputs and results are made
    of, besides those that the pipelines' nodes declare. `patience`: seconds for which a store that is away is waited
    for.

    The runs that a dead process left are taken up when the first run is started, or by `recover()`. Raises BadInput.
    """

    def __init__(
        self,
        url: str | Path | None = None,
        *,
        pipelines: Mapping[str, Pipeline] | None = None,
        engine: Engine | Literal["inline", "dbos"] = "inline",
        store: Store | None = None,
        ledger: Ledger | None = None,
        access: Access | None = None,
        recorder: Recorder | None = None,
        approvals: Desk | None = None,
        types: Iterable[Any] = (),
        patience: float = 30.0,
    ) -> None:
        if url is not None and store is not None:
            raise BadInput("Runs: a url or a store, not both")
        if not isinstance(pipelines, Mapping | None):
            raise BadInput(f'pipelines: expected them by name, {{"report": report}}, got {pipelines!r:.80}')
        kept = _store(url) if store is None else store
        self.changes = Changes()
        self.engine: Engine = _engine(engine, url)
        self._writer = Writer(kept, patience=patience) if kept.remote else None
        self.host = Host(
            store=kept,
            keeper=Direct(kept) if self._writer is None else self._writer,
            codec=Codec(types),
            pipelines={},
            ledger=ledger,
            book=_ledger(kept, url) if ledger is None else None,
            access=access,
            recorder=recorder,
            approvals=approvals,
            changed=self.changes.tell,
        )
        if self._writer is not None:
            self._writer.gone = self.host.supersede
        self._recovered = self._closed = False
        for name, pipeline in (pipelines or {}).items():
            self.add(name, pipeline)
        self.engine.attach(self.host)

    def add(self, name: str, pipeline: Pipeline) -> None:
        """One more pipeline. Raises BadInput for what is none, and for a name that is taken."""
        if not isinstance(pipeline, Pipeline):
            raise BadInput(f"pipeline {name!r}: expected a Chain, a FanOut or another pipeline, got {pipeline!r:.80}")
        if not name or self.host.pipelines.get(name, pipeline) is not pipeline:
            raise BadInput(f"pipeline {name!r}: a name is not empty, and stands for one pipeline")
        for shape in shape_of(pipeline).walk():
            self.host.codec.allow(*declared(shape.target))
        self.host.pipelines[name], self.host.shapes[name] = pipeline, told(pipeline)

    def start(
        self,
        pipeline: str | Pipeline,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        run_id: str | None = None,
        budget: str | Decimal | Money | None = None,
        deadline: float | None = None,
        principal: Principal | None = None,
        priority: int = 0,
        tenant: str | None = None,
        events: bool = False,
        **named: Any,
    ) -> Run:
        """Start a run, or find the one of that id. It is accepted, and will end, when this returns.

        `run_id`: makes it idempotent: the same id with the same inputs for the same principal is the same run.
        `budget`: dollars, for all attempts together. `deadline`: seconds from now, over restarts. `principal`: in whose
        name. `priority`: larger first. `tenant`: whose run; the principal's, where there is one. `events`: keep them,
        for `run.events()`. `inputs`: a dict, for fields that are named like these options.

        Raises RunConflict when the run of that id was asked for something else; UnknownName, BadInput,
        StoreUnavailable.
        """
        name, given = self._name(pipeline), {**(inputs or {}), **named}
        self._check_ready(name, given)
        row = self._row(name, run_id, budget, deadline, principal, priority, tenant, given, keep_events=events)
        return self._started(row, self.host.shapes[name])

    async def astart(self, pipeline: str | Pipeline, inputs: Mapping[str, Any] | None = None, /, **options: Any) -> Run:
        """`start`, without blocking the event loop."""
        do = partial(self.start, pipeline, inputs, **options)
        return await elsewhere(do) if self.host.store.remote else do()

    def _check_ready(self, name: str, given: Mapping[str, Any]) -> None:
        """What is missing is told now, and not by the run."""
        pipeline = self.host.pipelines[name]
        try:
            pipeline._ready(given)
        except BadInput as error:
            options = inspect.signature(self.start).parameters
            hidden = [field for field in pipeline.inputs if field in options and field not in given]
            if not hidden:
                raise
            said = f"{hidden[0]!r} is an option of start(), too; as an input it goes into a dict"
            raise BadInput(f"{error}; {said}: start({name!r}, {{{hidden[0]!r}: ...}})") from None

    def _started(self, row: RunRow, shape: str, kept: Kept = Kept()) -> Run:  # noqa: B008 - frozen
        self._check_open()
        self._recover_once()
        found = self.host.store.create(row, kept, shape)
        what = _differs(found, row)
        if what:
            raise RunConflict(f"there is a run {row.run_id!r} already, of {what}; a run id stands for one run")
        if found.status == "queued":
            self.engine.submit(found)
        return Run(self, row.run_id)

    def _row(
        self,
        name: str,
        run_id: str | None,
        budget: Any,
        deadline: float | None,
        principal: Principal | None,
        priority: int,
        tenant: str | None,
        inputs: Mapping[str, Any],
        *,
        keep_events: bool,
    ) -> RunRow:
        run_id = new_run_id() if run_id is None else run_id
        limit = money_or_none(budget)
        if not isinstance(run_id, str) or not run_id or "*" in run_id:
            raise BadInput(f"run id {run_id!r}: expected a name without '*'")
        if limit is not None and limit < 0:
            raise BadInput(f"budget: expected dollars, 0 or more, got {budget!r}")
        if deadline is not None and not (isinstance(deadline, int | float) and deadline > 0):
            raise BadInput(f"deadline: expected seconds > 0, got {deadline!r}")
        if not isinstance(priority, int):
            raise BadInput(f"priority: expected a whole number, the larger first, got {priority!r}")
        if not isinstance(principal, Principal | None):
            raise BadInput(f"principal: expected a Principal, such as Principal('ana'), got {principal!r}")
        if principal is not None and tenant not in (None, principal.tenant):
            raise BadInput(
                f"tenant {tenant!r}: a run in the name of a principal is of his tenant, {principal.tenant!r}"
            )
        try:
            text, digest = self.host.codec.dumps(dict(inputs)), self.host.codec.digest(dict(inputs))
        except NotPlain as error:
            names = ", ".join(name for name, value in inputs.items() if not self._plain(value))
            raise BadInput(f"the inputs of a durable run must be plain data; {names}: {error}") from None
        now = time.time()
        return RunRow(
            run_id=run_id,
            pipeline=name,
            shape=digest_of(self.host.shapes[name]),
            inputs=text,
            digest=digest,
            principal=principal_as_json(principal),
            tenant=(principal.tenant if principal else "") if tenant is None else tenant,
            budget=None if limit is None else int(limit),
            deadline=None if deadline is None else now + deadline,
            priority=priority,
            created=now,
            keep_events=keep_events,
        )

    def _plain(self, value: Any) -> bool:
        try:
            self.host.codec.dumps(value)
        except NotPlain:
            return False
        return True

    def _name(self, pipeline: str | Pipeline) -> str:
        if isinstance(pipeline, str):
            self.host.pipeline(pipeline)
            return pipeline
        for name, known in self.host.pipelines.items():
            if known is pipeline:
                return name
        raise BadInput('a durable run is started of a pipeline with a name: Runs(..., pipelines={"report": report})')

    # -- runs that are there

    def get(self, run_id: str) -> Run:
        """The handle of a run. Raises UnknownName."""
        run = Run(self, run_id)
        run.row()
        return run

    def list(
        self,
        *,
        status: Status | Sequence[Status] = (),
        pipeline: str | None = None,
        tenant: str | None = None,
        since: float = 0.0,
        limit: int | None = 100,
    ) -> list[RunRow]:
        """Runs, the latest first. `since`: created at or after, seconds since the epoch. Raises BadInput."""
        wanted = (status,) if isinstance(status, str) else tuple(status)
        for one in wanted:
            if one not in STATUSES:
                raise BadInput(f"unknown status {one!r}; there is: {', '.join(STATUSES)}")
        return self.host.store.select(status=wanted, pipeline=pipeline, tenant=tenant, since=since, limit=limit)

    def cancel(self, run_id: str) -> Status:
        """Cancel a run: its status now. Raises UnknownName."""
        found = self.host.store.stop(run_id, time.time())
        if found is None:
            raise UnknownName("run", run_id, None)
        self.engine.cancel(run_id)
        if found.status == "cancelled":
            with contextlib.suppress(StoreUnavailable):  # the run is cancelled all the same; its account is pruned
                self.host.accounts.close(found)
        self.changes.tell(run_id)
        return found.status

    def resume(self, run_id: str, *, force: bool = False) -> Run:
        """See `Run.resume`."""
        self._check_open()
        row = self.get(run_id).row()
        shape = None
        if row.pipeline in self.host.pipelines and force:
            now = self.host.shapes[row.pipeline]
            shape = digest_of(now)
        queued = self.host.store.queue(run_id, ("failed", "cancelled"), shape=shape)
        if queued is None:
            raise RunConflict(f"run {run_id} is {row.status}: one that failed or was cancelled can be resumed")
        self.engine.submit(queued)
        return Run(self, run_id)

    def fork(
        self,
        run_id: str,
        step: str | None = None,
        *,
        new_id: str | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Run:
        """See `Run.fork`."""
        old = self.get(run_id).row()
        self.host.pipeline(old.pipeline)
        kept = self.host.store.kept(run_id)
        kept = kept if step is None else before(kept, step, run_id)
        kept = Kept(kept.steps, tuple(replace(call, cost=0) for call in kept.calls))  # paid by the other run
        given = {**self.host.codec.loads(old.inputs), **(inputs or {})}
        asked = self._row(old.pipeline, new_id, None, None, None, old.priority, old.tenant, given, keep_events=False)
        row = replace(
            asked,
            principal=old.principal,
            budget=old.budget,
            keep_events=old.keep_events,
            forked_from=run_id,
        )
        return self._started(row, self.host.shapes[old.pipeline], kept)

    # -- people

    def questions(self, run_id: str | None = None) -> Sequence[Question]:
        """What runs ask people and nobody has answered yet, the oldest first."""
        return [self._of_tenant(_question(row)) for row in self.host.store.tickets(run_id)]

    def _of_tenant(self, question: Question) -> Question:
        """That of a run which was started for a tenant, and for no principal of his, is his too."""
        run = None if question.tenant else self.host.store.get(question.run_id)
        return question if run is None else replace(question, tenant=run.tenant)

    def answer(self, ticket: str, decision: Any, *, by: Principal | str, edited: Any = None) -> None:
        """Answer a question; its run goes on. `decision`: True or False, one of the options, or words; `edited`: the
        field that may be changed, as it is to be. `by`: who answers, which is kept. From any process. Raises
        UnknownName; BadInput for what is no answer to it, and when it was answered or has expired; PermissionDenied.
        """
        self._check_open()
        row = self.host.store.ticket(ticket)
        if row is None:
            raise UnknownName("ticket", ticket, None)
        who = Principal(by) if isinstance(by, str) else by
        question, now = self._of_tenant(_question(row)), time.time()
        question.check_who(replace(who, tenant=question.tenant) if isinstance(by, str) and question.tenant else who)
        answer = question.checked(decision, edited)
        if row.expires is not None and row.expires <= now:
            raise BadInput(f"question {ticket} has expired; its run has gone on without an answer")
        status = self.get(row.run_id).status()
        if row.answer is None and status in ENDED:
            raise BadInput(f"question {ticket} needs no answer any more: run {row.run_id} is {status}")
        if not self.host.store.answer(ticket, answer.as_json(), who.user, now):
            raise BadInput(f"question {ticket} was answered before; an answer is given once")
        self.host.answered(row.run_id, ticket)
        queued = self.host.store.queue(row.run_id, ("waiting",))
        if queued is not None:
            self.engine.submit(queued)

    def prune(self, *, older_than: float, status: Sequence[Status] = ENDED) -> int:
        """Forget runs that ended more than `older_than` seconds ago, and their accounts: their number. One that still
        holds money stays until that is settled. Raises BadInput, StoreUnavailable.
        """
        if not (isinstance(older_than, int | float) and older_than >= 0):
            raise BadInput(f"older_than: expected seconds, 0 or more, got {older_than!r}")
        old = self.host.store.select(status=status, before=time.time() - older_than)
        closed = [row.run_id for row in old if self.host.accounts.close(row)]
        for at in range(0, len(closed), 100):
            self.host.store.delete(closed[at : at + 100])
        return len(closed)

    # -- the process

    def recover(self) -> int:
        """Take up what a dead process left unfinished: the number of runs. Done by itself before the first start."""
        self._recovered = True
        return self.engine.recover()

    def _check_open(self) -> None:
        """Before anything is written: a run that is refused must not be there for others to execute."""
        if self._closed:
            raise BadInput("this Runs is closed")

    def _recover_once(self) -> None:
        if not self._recovered:
            self.recover()

    def close(self, timeout: float | None = None) -> None:
        """End: runs that don't finish within `timeout` seconds (None: 0) are put back, for whoever takes them up."""
        self._closed = True
        self.engine.close(timeout)
        with contextlib.suppress(StoreUnavailable):
            self.host.accounts.tidy()
        if self._writer is not None:
            self._writer.close()
        self.host.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _differs(found: RunRow, asked: RunRow) -> str:
    """What a run that is there has of its own; "" where it is the same. Nobody gets what was made in another's name."""
    if found.pipeline != asked.pipeline:
        return "another pipeline"
    if found.digest != asked.digest:
        return "other inputs"
    return "" if (found.principal, found.tenant) == (asked.principal, asked.tenant) else "another principal or tenant"


def _question(row: TicketRow) -> Question:
    said = json.loads(row.asked)
    return Question(
        said["question"],
        said["shown"],
        tuple(said["options"]),
        said["text"],
        said["edit"],
        said["role"],
        ticket=row.ticket,
        run_id=row.run_id,
        path=shown(row.path),
        tenant=said["tenant"],
        expires=row.expires,
    )


def _engine(engine: Engine | str, url: str | Path | None) -> Engine:
    if engine == "inline":
        return Inline()
    if engine == "dbos":
        from escalade.pipelines.durable.dbos_engine import DbosEngine

        if url is None:
            raise BadInput("engine='dbos' needs a url: Runs('sqlite:///runs.sqlite', engine='dbos')")
        return DbosEngine(str(url))
    if isinstance(engine, str) or not hasattr(engine, "attach"):
        raise BadInput(f"unknown engine {engine!r}; write 'inline', 'dbos', or an engine")
    return engine


def _store(url: str | Path | None) -> Store:
    if url is None:
        return MemoryRuns()
    text = str(url)
    if text.startswith("sqlite://"):
        return SqliteRuns(text.removeprefix("sqlite:///").removeprefix("sqlite://"))
    if text.startswith(("postgresql://", "postgres://")):
        from escalade.pipelines.durable.postgres_store import PostgresRuns

        return PostgresRuns(text)
    if "://" in text:
        raise BadInput(f"runs are kept in sqlite:///path or postgresql://..., got {text.split('://', 1)[0]}://...")
    return SqliteRuns(text)


def _ledger(store: Store, url: str | Path | None) -> Ledger | None:
    """Beside the store; None for memory, where each scope has its own."""
    if str(url).startswith(("postgresql://", "postgres://")):
        from escalade.registry.stores.postgres_ledger import PostgresLedger

        return PostgresLedger(str(url))
    path = getattr(store, "path", None)
    return None if path is None else SqliteLedger(f"{path}.ledger")
