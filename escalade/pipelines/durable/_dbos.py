"""DBOS Transact, as much of it as we use: queues in a database, and who has taken what from them.

Work is known to DBOS by an id and has no steps there: what was done is in our own journal, by step path, so nothing
hangs on the order in which steps happen to run. DBOS's defaults that would lose or repeat work are set here:

- the version is a constant unless the application says otherwise, so that new code finishes old runs;
- what is stored is JSON, and a row that says it is a pickle is refused, not read;
- queues are set up in each process before it takes anything from them: as rows of the database, the last process to
  write one would change it for all, and one that is early would take all there is;
- a SQLite file has a write-ahead log and doesn't wait for the disk at each commit.

It is one per process, and is imported when it is needed: that takes more than a second.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from escalade.errors import BadInput, StoreUnavailable
from escalade.registry.stores.persist import persist

T = TypeVar("T")
Work = Callable[[str, int], Awaitable[None]]

NAME, WORKFLOW, SCHEMA = "escalade", "escalade_run", "escalade_engine"
VERSION = "escalade"
"""Of the application, as DBOS counts: it gives work to executors of the version that it was queued by."""

_UNFINISHED = "PENDING"
_FINISHED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


@dataclass(frozen=True, slots=True)
class Taken:
    """Work that an executor has taken and not ended."""

    work_id: str
    queue: str
    executor: str


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    """The database's errors as ours, without what was in the statement."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or type(error).__name__).partition("\n")[0]
        raise StoreUnavailable(f"the queue of runs can't be used: {said}", 1.0) from None


class Client:
    """Puts work into queues, and sees who has taken it. `url`: sqlite:///PATH or postgresql://... Methods block.

    Raises BadInput without DBOS, StoreUnavailable.
    """

    def __init__(self, url: str, version: str = VERSION) -> None:
        dbos = _imported()
        self.url, self.version = url, version
        self._engine = _engine(url, 4)
        with _unavailable():
            _quietly(lambda: dbos.DBOS.migrate(url, schema=SCHEMA))
            self._client = dbos.DBOSClient(
                system_database_engine=self._engine,
                dbos_system_schema=SCHEMA,
                serializer=dbos.DBOSPortableJSONSerializer(),
                application_name=NAME,
                retry_connection_errors=False,
                lazy=True,
            )

    def put(self, work_id: str, queue: str, priority: int, number: int) -> None:
        """Queue work, once for each id. `priority`: from 1, the least first. `number`: told with the work."""
        options = {"queue_name": queue, "workflow_name": WORKFLOW, "workflow_id": work_id, "priority": priority}
        with _unavailable():
            self._client.enqueue({**options, "app_version": self.version}, work_id, number)

    def taken(self) -> list[Taken]:
        """All work that has an executor and hasn't ended."""
        rows = self._list(status=_UNFINISHED)
        return [Taken(row.workflow_id, row.queue_name, row.executor_id) for row in rows]

    def known(self, work_ids: Sequence[str]) -> set[str]:
        """Those that were queued, be it that they have ended."""
        return {row.workflow_id for row in self._list(workflow_ids=list(work_ids))} if work_ids else set()

    def unfinished(self, work_ids: Sequence[str]) -> set[str]:
        """Those that wait for an executor, or have one."""
        found = self._list(workflow_ids=list(work_ids), status=["ENQUEUED", _UNFINISHED]) if work_ids else []
        return {row.workflow_id for row in found}

    def put_back(self, taken: Sequence[Taken]) -> None:
        """Queue work again that nobody works at any more."""
        for queue in sorted({one.queue for one in taken}):
            ids = [one.work_id for one in taken if one.queue == queue]
            with _unavailable():
                self._client.resume_workflows(ids, queue_name=queue)

    def withdraw(self, work_ids: Sequence[str]) -> None:
        """Nobody takes it any more."""
        with _unavailable():
            self._client.cancel_workflows(list(work_ids))

    def forget_finished(self, executor: str, most: int = 500) -> int:
        """Delete what this executor has ended: what came of it is kept elsewhere. Returns how many rows."""
        done = [row.workflow_id for row in self._list(status=_FINISHED, executor_id=executor, limit=most)]
        if done:
            with _unavailable():
                self._client.delete_workflows(done)
        return len(done)

    def close(self) -> None:
        self._client.destroy()
        self._engine.dispose()

    def _list(self, **wanted: Any) -> list[Any]:
        with _unavailable():
            return list(
                self._client.list_workflows(
                    **wanted, name=WORKFLOW, application_name=NAME, load_input=False, load_output=False
                )
            )


_running: list[Executor] = []
_lock = threading.Lock()


class Executor:
    """Takes work from queues and does it, on an event loop of its own thread, until it is closed.

    `queues`: how much of each at once. `poll`: seconds between two looks into a queue. Raises BadInput for a second one
    in a process, StoreUnavailable.
    """

    def __init__(
        self,
        url: str,
        work: Work,
        *,
        name: str,
        queues: Mapping[str, int],
        version: str = VERSION,
        poll: float = 0.1,
    ) -> None:
        self.name, self._url = name, url
        self._dbos = _imported()
        with _lock:
            self._check_alone()
            _running.append(self)
        try:
            with _unavailable():
                _elsewhere(lambda: self._launch(work, dict(queues), version, poll))
        except BaseException:
            self.close()
            raise

    def _check_alone(self) -> None:
        from dbos import _dbos

        if _running:
            raise BadInput(
                f"this process executes the runs of another store already ({_shown(_running[0]._url)}): the engine "
                "'dbos' is one per process; start the other one with `escalade worker`, or give it workers=0 here"
            )
        if _dbos._dbos_global_instance is not None:
            raise BadInput("this process uses DBOS by itself: execute runs in another one, with `escalade worker`")

    def _launch(self, work: Work, queues: dict[str, int], version: str, poll: float) -> None:
        dbos = self._dbos
        self._engine = _engine(self._url, 10)
        _quietly(lambda: dbos.DBOS.migrate(self._url, schema=SCHEMA))
        _working.append(work)
        instance = _quietly(
            lambda: dbos.DBOS(
                config={
                    "name": NAME,
                    "system_database_url": self._url,
                    "system_database_engine": self._engine,
                    "dbos_system_schema": SCHEMA,
                    "application_version": version,
                    "executor_id": self.name,
                    "serializer": dbos.DBOSPortableJSONSerializer(),
                    "log_level": "WARNING",
                    "enable_otlp": False,
                    "use_listen_notify": False,
                }
            )
        )
        self._instance, self._registry = instance, instance._registry
        self._queues = [
            self._registry._register_internal_queue(name, worker_concurrency=most, polling_interval_sec=poll)
            for name, most in queues.items()
        ]
        _workflow()
        dbos.DBOS.launch()

    def stop_taking(self) -> None:
        """Take nothing more; what was taken goes on. Returns when it is so."""
        for queue in self._queues:
            queue._worker_concurrency = 0
        for event in self._instance.background_thread_stop_events:
            event.set()
        for thread in threading.enumerate():
            if thread.name.startswith("queue-worker-") and thread is not threading.current_thread():
                thread.join(timeout=10)

    def close(self) -> None:
        """End, whatever it is doing: what it had taken stays taken by its name, to be put back."""
        if self not in _running:
            return
        _elsewhere(self._dbos.DBOS.destroy)
        for queue in getattr(self, "_queues", ()):
            self._registry.internal_queue_map.pop(queue.name, None)
        _working.clear()
        with contextlib.suppress(AttributeError):
            self._engine.dispose()
        _running.remove(self)


_working: list[Work] = []
"""What to do with work; DBOS's registry of functions outlives the executor."""

_registered: list[Any] = []


def _workflow() -> None:
    from dbos import DBOS

    async def escalade_run(work_id: str, number: int) -> None:
        await _working[0](work_id, number)

    if not _registered:
        # Attempts are counted by the store of runs, which can say what became of a run.
        _registered.append(DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(escalade_run))


def _imported() -> Any:
    """The module. Raises BadInput."""
    try:
        import dbos
        from dbos import _serialization
    except ImportError:
        raise BadInput("the engine 'dbos' needs DBOS: pip install 'escalade[durable]'") from None
    _serialization.DBOSDefaultSerializer.deserialize = _refuse  # type: ignore[method-assign, assignment]
    return dbos


def _refuse(_: str) -> Any:
    """DBOS reads a row as what the row says that it is, whatever serializer it was given."""
    raise StoreUnavailable("a row of the queue says that it is a pickle: nothing of ours is, so it isn't read")


def _engine(url: str, size: int) -> Any:
    import sqlalchemy
    from sqlalchemy import event

    if not url.startswith("sqlite:"):
        address = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
        return sqlalchemy.create_engine(
            address, pool_size=size, max_overflow=size, pool_pre_ping=True, connect_args={"connect_timeout": 3}
        )
    engine = sqlalchemy.create_engine(url, pool_size=size, max_overflow=size)

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("busy_timeout=30000", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        persist(lambda: connection.execute("PRAGMA journal_mode=WAL"), 30.0)  # no timeout of SQLite's covers that

    return engine


def _quietly(function: Callable[[], T]) -> T:
    """DBOS writes to the console, unless its logger has a handler already: ours leaves it to the application."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return function()


def _elsewhere(function: Callable[[], object]) -> None:
    """In a thread without an event loop: DBOS would make the caller's loop its own."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    thread = threading.Thread(target=run, name="escalade-dbos")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _shown(url: str) -> str:
    """Without login and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
