"""The engine over DBOS: runs that one process starts and others execute."""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from escalade import Chain, DbosEngine, RunQueue
from escalade.errors import BadInput, StoreUnavailable, UnknownName
from escalade.pipelines.durable import _dbos, keeper
from escalade.pipelines.durable.runs import Runs
from escalade.pipelines.durable.slots import _key, _Session
from escalade.pipelines.durable.sqlite_store import SqliteRuns
from escalade.pipelines.durable.worker import Worker
from escalade.registry.limits import Taken
from escalade.registry.stores.sqlite_limits import SqliteLimiter
from tests.pipelines.durable import app
from tests.pipelines.durable.workers import ROOT, WorkerProcess, until

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/runs.sqlite"


@pytest.fixture
def runs(url, tmp_path, monkeypatch):
    """Started here, executed elsewhere."""
    monkeypatch.setenv("ESCALADE_USES", f"{tmp_path}/uses.jsonl")
    opened = app.opened(url, workers=0)
    yield opened
    opened.close()


@contextlib.contextmanager
def executing(url, **options):
    """Runs that this process executes."""
    with Runs(url, engine=DbosEngine(url, poll=0.05, **options), pipelines={"nap": app.nap}) as opened:
        opened.recover()
        yield opened


def naps(runs, count, seconds=0.5, **options):
    return [runs.start("nap", run_id=f"nap-{number}", seconds=seconds, **options) for number in range(count)]


def test_a_second_worker_executes_nothing_again_until_the_first_one_dies(url, tmp_path, runs):
    """It takes what nobody has taken. By DBOS's own default both would have one name, and it would take all at once.

    The name of a live worker is refused. When it is killed, its runs go on in the other one, within seconds.
    """
    with contextlib.ExitStack() as workers:
        first = workers.enter_context(WorkerProcess(url, tmp_path, "--name", "blue")).ready()
        live = naps(runs, 8, 60.0)
        until(lambda: len(runs.list(status="running")) == 8)
        with pytest.raises(BadInput, match="worker 'blue' is alive: another process has that name"):
            Runs(url, engine=DbosEngine(url, name="blue"), pipelines={"nap": app.nap}).recover()
        workers.enter_context(WorkerProcess(url, tmp_path)).ready()
        more = [runs.start("nap", seconds=0.3) for _ in range(8)]
        assert [one.result(timeout=60) for one in more]
        assert {one.row().attempts for one in (*live, *more)} == {1}
        assert {one.row().owner for one in live} == {"blue"}
        assert "blue" not in {one.row().owner for one in more}
        first.kill()
        killed = time.monotonic()
        until(lambda: all(one.row().attempts == 2 for one in live))
        assert time.monotonic() - killed < 10  # about one, on a machine that has nothing else to do
        assert "blue" not in {one.row().owner for one in live}


def test_told_to_stop_a_worker_finishes_what_it_can_and_hands_back_the_rest(url, tmp_path, runs):
    """It takes nothing more; what is handed back is queued, and another worker begins it at once."""
    with WorkerProcess(url, tmp_path, "--drain", "3", concurrency=2) as worker:
        worker.ready()
        long = runs.start("nap", seconds=60.0)
        until(lambda: long.status() == "running")
        short = runs.start("nap", seconds=1.5)
        until(lambda: len(runs.list(status="running")) == 2)
        later = runs.start("nap", seconds=0.1)
        worker.signal()
        assert worker.ended() == 0
        assert worker.said("takes nothing more; 2 runs have 3 s to end")
        assert worker.said("ended; 1 runs were handed back"), worker.lines
    assert (short.status(), long.status(), later.status()) == ("done", "queued", "queued")
    with executing(url):
        later.result(timeout=30)
        until(lambda: long.status() == "running")
        long.cancel()
        until(lambda: long.status() == "cancelled")


@pytest.mark.parametrize("engine", ["dbos", "inline"])
def test_a_worker_ends_though_a_node_blocks(tmp_path, engine):
    """Its thread isn't waited for; the run is put back, and what is to be done at the end of the program is done."""
    (tmp_path / "here.py").write_text(
        "import atexit, pathlib\nfrom tests.pipelines.durable.app import stuck\n"
        "atexit.register(pathlib.Path('closed').touch)\n"
    )
    (tmp_path / "escalade.yaml").write_text(
        f"engine: {engine}\nurl: sqlite:///runs.sqlite\nworkers: 0\npipelines: {{stuck: here:stuck}}\n"
    )
    store = SqliteRuns(tmp_path / "runs.sqlite")
    with WorkerProcess("", tmp_path, "--drain", "0", target="escalade.yaml") as worker:
        worker.ready()
        engine_of = DbosEngine(f"sqlite:///{tmp_path}/runs.sqlite", workers=0) if engine == "dbos" else "inline"
        with Runs(tmp_path / "runs.sqlite", engine=engine_of, pipelines={"stuck": app.stuck}) as runs:
            runs.start("stuck", run_id="one", path=f"{tmp_path}/begun")
            until((tmp_path / "begun").exists)
            worker.signal()
            assert worker.ended() == 0, worker.lines
    assert store.get("one").status == "queued"
    assert (tmp_path / "closed").exists()


def test_told_twice_a_worker_ends_at_once(url, tmp_path, runs):
    """As if it had been killed: its runs go on elsewhere. What it executes stands in a file."""
    (tmp_path / "escalade.yaml").write_text(
        "engine: dbos\nurl: sqlite:///runs.sqlite\npipelines: {nap: tests.pipelines.durable.app:nap}\n"
    )
    with WorkerProcess(url, tmp_path, target="escalade.yaml") as worker:
        worker.ready()
        nap = runs.start("nap", seconds=60.0)
        until(lambda: nap.status() == "running")
        worker.signal()
        until(lambda: worker.said("takes nothing more"))
        worker.signal(signal.SIGINT)
        assert worker.ended(20) == 130, "it had a minute for its run"
    assert nap.status() == "running"


def test_cancelled_elsewhere_a_run_ends_soon_and_holds_nothing(url, tmp_path, runs):
    """The process that executes it looks by itself, twice a second; its call of a model, which would take half a
    minute, is ended, and its money is settled.
    """
    from tests.servers.fault_server import FaultServer

    with FaultServer() as server, WorkerProcess(url, tmp_path, base=server.base, seconds=30).ready():
        run = runs.start("report", key="0001", principal=app.CLERK, budget="0.50")
        until(lambda: server.requests)
        assert runs.host.ledger.account("everything").held > 0
        since = time.monotonic()
        assert run.cancel() == "running"
        until(lambda: run.status() == "cancelled")
        assert time.monotonic() - since < 10
        assert runs.host.ledger.account("everything").held == 0


def test_the_same_run_id_twice_is_one_run(url, tmp_path, runs):
    """However often it is started, before, while and after it is executed."""
    first = runs.start("nap", run_id="once", seconds=1.0)
    again = runs.start("nap", run_id="once", seconds=1.0)
    with executing(url):
        until(lambda: first.status() == "running")
        runs.start("nap", run_id="once", seconds=1.0)
        assert first.result(timeout=30) == again.result(timeout=30)
        runs.start("nap", run_id="once", seconds=1.0)
        time.sleep(0.5)
    assert (first.row().attempts, first.row().turn) == (1, 1)


def test_a_run_whose_starter_died_before_it_was_queued_is_executed_all_the_same(url, tmp_path, runs):
    """It was accepted by the store: a worker finds it."""
    runs.engine._put = lambda run: None  # dies here
    run = runs.start("nap", seconds=0.1)
    with sqlite3.connect(f"{tmp_path}/runs.sqlite") as connection:
        connection.execute("UPDATE runs SET created = created - 60")
    connection.close()
    with executing(url) as others:
        run.result(timeout=30)
        assert others.recover() == 0


def test_nothing_that_says_it_is_a_pickle_is_read(url, tmp_path, runs):
    """DBOS would read a row as what the row says that it is; whoever can write the queue could run code."""
    runs.start("nap", run_id="planted", seconds=0.1)
    planted = tmp_path / "planted"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(planted),)

    told = base64.b64encode(pickle.dumps({"args": (Evil(),), "kwargs": {}})).decode()
    connection = sqlite3.connect(f"{tmp_path}/runs.sqlite.queue")
    kinds = connection.execute("SELECT DISTINCT serialization FROM workflow_status").fetchall()
    connection.execute("UPDATE workflow_status SET inputs = ?, serialization = 'py_pickle'", (told,))
    connection.commit()
    connection.close()
    assert kinds == [("portable_json",)]
    with executing(url):
        runs.start("nap", seconds=0.1).result(timeout=30)
    assert not planted.exists()


def test_runs_begin_no_oftener_than_their_queue_lets_them(url, tmp_path, monkeypatch):
    """By all workers together, in any second; DBOS's own limit let twice as many begin."""
    began, admitted = [], []
    take_all = SqliteLimiter.take_all

    def noted(limiter, windows):
        taken = take_all(limiter, windows)
        if isinstance(taken, Taken):
            admitted.append(taken.at)
        return taken

    async def note(x: int) -> dict[str, int]:
        began.append(time.monotonic())
        return {"y": x}

    monkeypatch.setattr(SqliteLimiter, "take_all", noted)
    engine = DbosEngine(url, concurrency=50, queues={"slow": RunQueue(50, rate="10/s", pipelines=("slow",))})
    with Runs(url, engine=engine, pipelines={"slow": Chain(note=note), "other": Chain(other=note)}) as runs:
        for number in range(25):
            runs.start("slow", x=number)
        until(lambda: len(began) == 25)
        moments, began[:] = list(began), []
        runs.start("other", x=1).result(timeout=10)
    assert len(admitted) == 25, "and the other queue has no limit"
    assert max(sum(start <= moment < start + 0.999 for moment in admitted) for start in admitted) <= 10
    # How soon it begins after that is the machine's affair: one that is late comes close to the next.
    assert all(allowed <= moment for allowed, moment in zip(sorted(admitted), sorted(moments), strict=True))


def test_priorities_first_and_tenants_in_turn(url):
    """One tenant's backlog doesn't keep another one waiting; a higher priority goes before all."""
    order = []

    async def note(name: str) -> dict[str, str]:
        order.append(name)
        return {"said": name}

    pipelines = {"note": Chain(note=note)}
    with Runs(url, engine=DbosEngine(url, workers=0), pipelines=pipelines) as starter:
        for number in range(6):
            starter.start("note", name=f"big{number}", tenant="big")
        for number in range(3):
            starter.start("note", name=f"small{number}", tenant="small")
        starter.start("note", name="urgent", tenant="big", priority=5)
    with Runs(url, engine=DbosEngine(url, concurrency=1, poll=0.02), pipelines=pipelines) as runs:
        runs.recover()
        until(lambda: len(order) == 10)
    assert order[0] == "urgent"
    assert [name[:3] for name in order[1:7]].count("sma") == 3
    assert [name for name in order if name.startswith("big")] == [f"big{number}" for number in range(6)]


def test_one_store_per_process_and_one_clear_error_for_two(url, tmp_path):
    """DBOS is one per process. Others are executed by workers of their own; starting runs needs none."""
    nap = {"nap": app.nap}
    with Runs(url, engine=DbosEngine(url), pipelines=nap) as runs:
        runs.start("nap", seconds=0.01).result(timeout=30)
        other = f"sqlite:///{tmp_path}/other.sqlite"
        with pytest.raises(BadInput, match="executes the runs of another store already"):
            Runs(other, engine=DbosEngine(other), pipelines=nap).recover()
        with Runs(other, engine=DbosEngine(other, workers=0), pipelines=nap) as second:
            assert second.start("nap", seconds=0.01).status() == "queued"
    with Runs(other, engine=DbosEngine(other), pipelines=nap) as runs:  # the first one has ended
        until(lambda: not runs.recover() and not runs.list(status=("queued", "running")))


def test_work_that_is_ours_and_nowhere_is_queued_again(url, monkeypatch):
    """Its end could not be written to the queue; executed again, it is found to have ended."""
    monkeypatch.setattr(keeper, "_LOST", 60.0)
    with Runs(url, engine=DbosEngine(url, poll=0.05), pipelines={"nap": app.nap}) as runs:
        run = runs.start("nap", seconds=0.01)
        run.result(timeout=30)
        name = runs.host.owner
        client = runs.engine.client
        until(lambda: not client.taken())
        with client._engine.begin() as connection:
            connection.exec_driver_sql("UPDATE workflow_status SET status='PENDING', executor_id=?", (name,))
        assert client.taken()
        monkeypatch.setattr(keeper, "_LOST", 0.5)
        until(lambda: not client.taken())
    assert run.row().attempts == 1


def test_what_is_wrong_is_told_before_anything_starts(url, tmp_path):
    """Unknown queues, odd numbers, pipelines in two queues, runs in memory, a name that is none."""
    with pytest.raises(BadInput, match="workers: expected 1 to execute"):
        DbosEngine(url, workers=2)
    with pytest.raises(BadInput, match="concurrency: expected runs at once"):
        RunQueue(0)
    with pytest.raises(BadInput, match="not a rate limit"):
        RunQueue(rate="often")
    with pytest.raises(BadInput, match="pipelines: expected a list of names"):
        RunQueue(pipelines="report")
    with pytest.raises(BadInput, match="pipeline 'a' is in two queues, 'x' and 'y'"):
        DbosEngine(url, queues={"x": RunQueue(pipelines=("a",)), "y": RunQueue(pipelines=("a",))})
    with pytest.raises(BadInput, match="queue 'my queue': expected letters"):
        DbosEngine(url, queues={"my queue": RunQueue()})
    with pytest.raises(BadInput, match=r"expected a RunQueue\(concurrency"):
        DbosEngine(url, queues={"x": 3})
    with pytest.raises(UnknownName, match="unknown queue 'night'"):
        DbosEngine(url).becomes_worker(serves=("night",))
    with pytest.raises(BadInput, match="runs in memory are executed by the engine 'inline'"):
        Runs(engine=DbosEngine(url))
    with pytest.raises(BadInput, match="belongs to no Runs"):
        DbosEngine(url).recover()


def test_a_queue_that_cant_be_written_is_told_in_our_words(tmp_path):
    """Neither statements nor tracebacks of the libraries below."""
    client = _dbos.Client(f"sqlite:///{tmp_path}/queue")
    client.put("1.a", "default", 5, 1)
    with client._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE workflow_status")
    with pytest.raises(StoreUnavailable, match="the queue of runs can't be used: no such table") as told:
        client.put("1.b", "default", 5, 1)
    assert "INSERT" not in str(told.value)
    client.close()


def test_the_two_engines_dont_execute_the_same_runs(url, tmp_path):
    """A process with the engine `inline` has them alone; beside workers it starts runs, and these execute them."""
    path = tmp_path / "runs.sqlite"
    nap = {"nap": app.nap}
    with Runs(path, pipelines=nap) as alone:
        alone.start("nap", seconds=0.0).result(timeout=10)
        with pytest.raises(BadInput, match="a process with the engine 'inline' executes the runs of 'runs.sqlite'"):
            Runs(url, engine=DbosEngine(url), pipelines=nap).recover()
    with Runs(url, engine=DbosEngine(url), pipelines=nap) as runs, Runs(path, pipelines=nap) as other:
        runs.recover()
        started = other.start("nap", seconds=0.0)
        until(lambda: started.status() == "queued")
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE runs SET created = created - 60")
        connection.close()
        assert runs.recover() == 1
        started.result(timeout=30)
    assert started.row().owner == runs.host.owner


def test_a_forked_child_leaves_its_parents_runs_alone(url, tmp_path):
    """It has neither the threads nor the slot: it ends without handing back what its parent executes."""
    code = f"""
import os, sys, time
from escalade import DbosEngine, Runs
from tests.pipelines.durable import app
url = {url!r}
with Runs(url, engine=DbosEngine(url), pipelines={{"nap": app.nap}}) as runs:
    run = runs.start("nap", seconds=1.0)
    while run.status() != "running":
        time.sleep(0.02)
    child = os.fork()
    if not child:
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    run.result(timeout=30)
    assert run.row().attempts == 1, run.row()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=90, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_a_run_that_ends_every_process_fails_in_the_end(url, tmp_path, runs, monkeypatch):
    """It would end all workers, one after the other, for ever."""
    monkeypatch.setattr(keeper, "DEATHS", 2)
    with Runs(url, engine=DbosEngine(url, poll=0.05), pipelines={"nap": app.nap}) as executing:
        executing.recover()
        deadly = runs.start("nap", seconds=60.0)
        until(lambda: deadly.status() == "running")
        with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
            connection.execute("UPDATE runs SET attempts = attempts + 2")
        connection.close()
        assert executing.engine._post.keeper.put_back(executing.host.owner) == 1
        assert deadly.status() == "failed"
        assert "its process died 3 times" in deadly.row().error


def test_a_worker_whose_name_another_one_has_executes_nothing_more(postgres, postgres_url, monkeypatch):
    """The server let go of its lock, and somebody was faster: what it had is his. It says so, and ends with 1."""
    lines, codes = [], []
    thief = _Session(postgres_url, "thief")
    queues = threading.Thread(target=thief.ask, args=("SELECT pg_advisory_lock(%s::bigint)::text", (_key("blue"),)))
    engine = DbosEngine(postgres_url, name="blue", poll=0.05)
    with Runs(postgres_url, engine=engine, pipelines={"nap": app.nap}) as runs:
        monkeypatch.setattr(Worker, "_signals", contextlib.nullcontext)  # they are for the main thread
        worker = Worker(runs, health=0, say=lines.append)
        thread = threading.Thread(target=lambda: codes.append(worker.run()))
        thread.start()
        nap = runs.start("nap", seconds=60.0)
        until(lambda: nap.status() == "running")
        queues.start()  # first in the line: it has the lock in the moment in which the server lets go of it
        until(lambda: postgres.ask("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
        session = "application_name = 'escalade slot blue'"
        postgres.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {session}")  # noqa: S608
        thread.join(60)
        assert codes == [1]
        assert "worker blue ended; 0 runs were handed back" in lines
        assert nap.status() == "running"
        queues.join(60)
        thief.close()
    client = _dbos.Client(postgres_url)
    assert [one.executor for one in client.taken()] == ["blue"]
    client.close()


def test_a_run_whose_execution_broke_is_queued_again(url, tmp_path, monkeypatch):
    """The queue says that it has ended, the store that it runs: nobody would ever look at it again."""
    monkeypatch.setattr(keeper, "BEAT", 0.05)
    with executing(url) as runs:
        run = runs.start("nap", run_id="broken", seconds=0.01)
        run.result(timeout=30)
        with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
            connection.execute("UPDATE runs SET status = 'running', ended = 0")
        connection.close()
        until(lambda: run.status() == "done", 30)
        assert (run.row().turn, run.row().attempts) == (2, 2)


def test_a_worker_says_how_it_is(tmp_path, monkeypatch):
    """What it executes, one line every now and then, and how it ended; also with the engine of one process."""
    monkeypatch.setattr(Worker, "_signals", contextlib.nullcontext)  # they are for the main thread
    lines, codes = [], []
    with Runs(tmp_path / "runs.sqlite", pipelines={"nap": app.nap}) as runs:
        worker = Worker(runs, drain=0.0, health=0.1, say=lines.append)
        thread = threading.Thread(target=lambda: codes.append(worker.run()))
        thread.start()
        until(lambda: lines)
        nap = runs.start("nap", seconds=60.0)
        until(lambda: any(re.search(r": 1 runs at work, the oldest began \d+ s ago", line) for line in list(lines)))
        worker.stop()
        thread.join(30)
    assert codes == [0]
    assert lines[0].endswith("executes nap; 0 runs taken up; SIGTERM ends it")
    assert "takes nothing more; 1 runs have 0 s to end" in lines[-2]
    assert lines[-1].endswith(" ended")
    with Runs(tmp_path / "runs.sqlite", pipelines={"nap": app.nap}) as runs:
        assert runs.get(nap.run_id).status() == "queued"
