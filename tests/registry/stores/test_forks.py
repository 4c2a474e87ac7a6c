"""No fork in the middle of a call into SQLite, whose locks all connections of a process share."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path

import pytest

from escalade.registry.stores import forks
from tests import _forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

BUSY = """
import sys, threading, time
from pathlib import Path
from escalade.registry.stores.sqlite import Database
from tests._forks import in_child

folder, many = Path(sys.argv[1]), "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "

def work(number):
    database = Database(folder / f"{number}.db", "CREATE TABLE IF NOT EXISTS t (i)")
    while True:
        database.read(many + "SELECT count(DISTINCT hex(zeroblob(i))) FROM n")

for number in range(4):
    threading.Thread(target=work, args=(number,), daemon=True).start()
ours = Database(folder / "ours.db", "CREATE TABLE IF NOT EXISTS t (i)")
time.sleep(0.2)
for _ in range(10):
    in_child(lambda: ours.read("SELECT * FROM t"))
"""


@pytest.mark.slow
def test_a_child_inherits_no_lock_that_is_held(tmp_path: Path) -> None:
    """While other threads read and write, a fork waits for a moment in which none does."""
    _forks.run(BUSY, tmp_path)


BEGUN = """
import sys, threading, time
from escalade.registry.stores.sqlite import Database
from tests._forks import in_child

database = Database(sys.argv[1], "CREATE TABLE IF NOT EXISTS t (i)", patience=0.2)
began = threading.Event()

def write():
    with database.transaction() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        began.set()
        time.sleep(0.3)

def child():
    with database.transaction() as connection:
        connection.execute("INSERT INTO t VALUES (2)")

threading.Thread(target=write).start()
began.wait()
in_child(child)
assert database.read("SELECT i FROM t ORDER BY i") == [(1,), (2,)]
"""


def test_what_another_thread_writes_is_done_before_the_fork(tmp_path: Path) -> None:
    """A child finds no transaction of its parent's threads begun, for which it would find the file locked for ever."""
    _forks.run(BEGUN, tmp_path / "some.db")


STUCK = """
import threading, time
from escalade.registry.stores import forks
from tests._forks import in_child

forks.PATIENCE = 0.1
began, over = threading.Event(), threading.Event()

def stuck():
    with forks.calls.under_way():
        began.set()
        over.wait()

def use():
    with forks.calls.under_way():
        pass

thread = threading.Thread(target=stuck)
thread.start()
began.wait()
in_child(use)
use()
over.set()
thread.join()
with forks.calls.under_way():  # a fork from within a call doesn't wait for that one
    forks.PATIENCE = 1e6
    in_child(use)
use()
in_child(use)
"""


def test_a_fork_waits_no_longer_than_its_patience() -> None:
    """A call that never ends holds no fork up for ever, nor does one of the thread that forks; all can go on."""
    _forks.run(STUCK)


def test_a_call_within_a_call_does_not_wait() -> None:
    """A finalizer that makes a call within another one would else wait for the fork that waits for that one."""
    calls, inside, done = forks.Calls(), threading.Event(), []

    def call() -> None:
        with calls.under_way():
            inside.set()
            while not calls._forking:
                time.sleep(0.001)
            with calls.under_way():
                done.append("within")

    def late() -> None:
        with calls.under_way():
            done.append("after")

    thread, waits = threading.Thread(target=call), threading.Thread(target=late)
    thread.start()
    inside.wait()
    calls._fork()
    done.append("fork")
    waits.start()
    waits.join(0.05)
    calls._go_on()
    thread.join()
    waits.join()
    assert done == ["within", "fork", "after"]


def test_a_finalizer_may_make_a_call_at_any_moment_of_another() -> None:
    """Garbage whose end makes a call is collected at each allocation in turn: nothing is counted wrongly."""
    calls, ended = forks.Calls(), []

    class Garbage:
        def __init__(self) -> None:
            self.me = self  # only the collector ends it

        def __del__(self) -> None:
            with calls.under_way():
                ended.append(True)

    thresholds = gc.get_threshold()
    try:
        for allocations in range(1, 60):
            gc.disable()
            gc.collect(0)  # nothing of others is collected: that takes half a second of a large process
            with calls.under_way():
                Garbage()
                gc.set_threshold(allocations)
                gc.enable()
            assert not calls._under_way
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
    assert ended
