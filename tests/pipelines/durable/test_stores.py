"""Stores of runs: the same promises in memory, in a SQLite file and in PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from escalade.pipelines.durable.memory_store import MemoryRuns
from escalade.pipelines.durable.postgres_store import PostgresRuns
from escalade.pipelines.durable.sqlite_store import SqliteRuns
from escalade.pipelines.durable.store import CallRow, EventRow, RunRow, StepRow, Store, TicketRow, Written

KINDS = ("memory", "sqlite", "postgres")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        made: Store = MemoryRuns()
    elif request.param == "sqlite":
        made = SqliteRuns(tmp_path / "runs.sqlite")
    else:
        made = PostgresRuns(request.getfixturevalue("postgres_url"))
    yield made
    made.close()


def row(run_id: str = "a", **more: object) -> RunRow:
    said = {"pipeline": "p", "shape": "s", "inputs": b'{"\\u0000":1}', "digest": "d", "created": 10.0, **more}
    return RunRow(run_id, **said)  # type: ignore[arg-type]


def begun(store: Store, run_id: str = "a") -> RunRow:
    store.create(row(run_id))
    run = store.begin(run_id, "me", 11.0)
    assert run is not None
    return run


def test_a_row_comes_back_as_it_was(store: Store) -> None:
    """Every field of a run survives; the second of one id is the first."""
    whole = row(principal='{"user": "ü"}', tenant="t", budget=2**60, deadline=1.5, priority=-3, keep_events=True)
    assert store.create(whole, shape="text") == whole
    assert store.create(row(digest="other")) == whole
    assert store.get("a") == whole
    assert store.get("b") is None
    assert store.shape("s") == "text"


def test_one_attempt_at_a_time(store: Store) -> None:
    """What an earlier attempt writes is refused, and what the last one writes is kept, in one go."""
    assert begun(store).attempts == 1
    again = store.begin("a", "you", 12.0)
    assert again is not None
    assert (again.attempts, again.owner, again.started) == (2, "you", 11.0)
    late, good = StepRow("k", 1, "[]", b"late"), StepRow("k", 1, "[]", b"good")
    assert store.write([Written("a", 1, late), Written("a", 2, good)]) == {("a", 1)}
    assert store.kept("a").steps == (good,)
    assert not store.finish(row(status="done", attempts=1))
    assert store.finish(row(status="done", attempts=2, result=b"1", ended=13.0))
    assert store.write([Written("a", 2, good)]) == {("a", 2)}
    assert store.begin("a", "me", 14.0) is None


def test_of_many_who_begin_one_is_last(store: Store) -> None:
    """Attempts that begin at once have numbers of their own."""
    store.create(row())
    with ThreadPoolExecutor(8) as pool:
        numbers = [run.attempts for run in pool.map(lambda _: store.begin("a", "me", 1.0), range(40)) if run]
    assert sorted(numbers) == list(range(1, 41))


def test_a_call_that_ended_replaces_its_beginning(store: Store) -> None:
    """One row, be it that both are written together or one after the other."""
    begun(store)
    first = CallRow("k", 1, "[]", "tool", "send", b"", state="begun")
    last = CallRow("k", 1, "[]", "tool", "send", b"\x00\xff", 5, 1.0, "done")
    store.write([Written("a", 1, first)])
    assert store.kept("a").calls == (first,)
    store.write([Written("a", 1, first), Written("a", 1, last)])
    assert store.kept("a").calls == (last,)


def test_many_rows_at_once(store: Store) -> None:
    """More rows than go into one statement, in their order."""
    begun(store)
    rows = [StepRow(f"k{n}", n, "[]", b"x" * (n % 7)) for n in range(1200)]
    store.write([Written("a", 1, one) for one in rows])
    assert store.kept("a").steps == tuple(rows)
    store.write([Written("a", 1, EventRow(n, b"{}")) for n in range(5)])
    assert [event.n for event in store.events("a", after=2)] == [3, 4]


def test_waiting_and_answers(store: Store) -> None:
    """A run is put aside unless its question was answered meanwhile; an answer is given once."""
    begun(store)
    ticket = TicketRow("t", "a", "[]", "{}", created=1.0, expires=100.0)
    assert store.ask(ticket) == store.ask(TicketRow("t", "a", "[]", "other")) == ticket
    assert store.tickets() == [ticket]
    assert store.park("a", 1, ["t"], 7, now=50.0)
    assert store.due(now=50.0) == []
    assert store.due(now=100.0) == ["a"]
    assert store.answer("t", "{}", "ana", 60.0)
    assert not store.answer("t", "[]", "bob", 61.0)
    assert store.due(now=61.0) == ["a"]
    queued = store.queue("a", ("waiting",))
    assert queued is not None
    assert (queued.turn, queued.spent, queued.status) == (2, 7, "queued")
    assert store.queue("a", ("waiting",)) is None
    store.begin("a", "me", 62.0)
    assert not store.park("a", 2, ["t"], 7, now=62.0)
    assert store.tickets("a") == []
    assert store.ticket("t") is not None


def test_cancelling(store: Store) -> None:
    """What doesn't run is cancelled at once, what runs is told."""
    store.create(row("b"))
    begun(store)
    stopped, told = store.stop("b", 1.0), store.stop("a", 1.0)
    assert stopped is not None
    assert told is not None
    assert (stopped.status, told.status, told.stopping) == ("cancelled", "running", True)
    assert store.stopped() == ["a"]
    assert not store.park("a", 1, [], 0, now=1.0)
    assert store.stop("nope", 1.0) is None


def test_finding_and_forgetting(store: Store) -> None:
    """Runs are found by what they are; the larger priority is ready first; what is forgotten is gone as a whole."""
    for number, run_id in enumerate("abc"):
        store.create(row(run_id, created=float(number), priority=number % 2, tenant="x" if run_id == "c" else ""))
    assert [run.run_id for run in store.ready(10)] == ["b", "a", "c"]
    assert [run.run_id for run in store.select(limit=2)] == ["c", "b"]
    assert [run.run_id for run in store.select(tenant="x", pipeline="p", status=("queued", "done"))] == ["c"]
    assert store.select(since=5.0) == store.select(status=("failed",)) == []
    store.stop("a", 50.0)
    assert [run.run_id for run in store.select(before=51.0)] == ["a"]
    store.delete(["a", "b"])
    assert [run.run_id for run in store.select()] == ["c"]


def test_readers_and_writers_at_once(store: Store) -> None:
    """Threads share a store: nothing is lost, nobody is refused."""
    runs = [begun(store, f"r{n}") for n in range(4)]
    failures: list[BaseException] = []

    def work(run: RunRow) -> None:
        try:
            for n in range(25):
                store.write([Written(run.run_id, 1, StepRow(f"k{n}", n, "[]", b"1"))])
                store.kept(run.run_id)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(len(store.kept(run.run_id).steps) == 25 for run in runs)


def test_a_file_survives_being_closed(tmp_path: Path) -> None:
    """What is in a file is there for the next one who opens it, and for nobody else's eyes."""
    path = tmp_path / "runs.sqlite"
    store = SqliteRuns(path)
    store.create(row(created=time.time()))
    store.close()
    assert SqliteRuns(path).get("a") is not None
    assert path.stat().st_mode & 0o077 == 0
