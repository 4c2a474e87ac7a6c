"""Slots: who executes runs, and how others find out that he has died."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from escalade import Chain, Runs
from escalade.errors import BadInput, StoreUnavailable
from escalade.pipelines.durable.slots import PostgresSlots, SlotLost, claim, open_slots

HOLDER = """
import sys
from escalade.pipelines.durable.slots import claim, open_slots
slot = claim(open_slots(sys.argv[1]))
print(slot.name, flush=True)
sys.stdin.read()
"""


class Holder:
    """Another process that holds a slot."""

    def __init__(self, url):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.name = self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/runs.sqlite"


def until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_live_processes_have_different_slots_and_a_restarted_one_has_its_own_again(url):
    """The first free slot of a host is the one of the process that died."""
    slots = open_slots(url)
    with Holder(url) as one:
        mine = claim(slots)
        assert one.name.endswith("-0")
        assert mine.name.endswith("-1")
        one.kill()
        with Holder(url) as two:
            assert two.name == one.name
    mine.release()


def test_a_slot_is_abandoned_when_its_process_was_killed_and_not_before(url):
    """The kernel lets go of the lock, whatever the process was doing."""
    slots = open_slots(url)
    with Holder(url) as one:
        assert slots.abandoned([one.name]) == []
        assert slots.hold(one.name) is None
        one.kill()
        assert slots.abandoned([one.name, "other-0"]) == [one.name, "other-0"]


def test_a_name_that_a_live_process_has_is_refused(url):
    """Two processes by one name would take over each other's runs."""
    slots = open_slots(url)
    slot = claim(slots, "blue")
    with pytest.raises(BadInput, match="worker 'blue' is alive"):
        claim(slots, "blue")
    slot.release()
    claim(slots, "blue").release()
    with pytest.raises(BadInput, match="expected letters"):
        claim(slots, "../blue")


def test_a_child_that_was_forked_doesnt_hold_its_parents_slot(url):
    """A child that outlives its parent would keep the parent's runs from being taken over."""
    code = """
import os, sys, time
from escalade.pipelines.durable.slots import claim, open_slots
slots = open_slots(sys.argv[1])
slot = claim(slots)
child = os.fork()
if not child:
    for number in (0, 1, 2):  # or who reads our output would wait for the child
        os.close(number)
    time.sleep(60)
    os._exit(0)
assert slots.hold(slot.name) is None  # the child's letting go has left the parent's lock alone
print(slot.name, child, flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code, url], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    name, child = done.stdout.split()
    try:
        assert open_slots(url).abandoned([name]) == [name]
    finally:
        os.kill(int(child), 9)


def test_a_folder_that_cant_be_written_and_a_url_of_another_kind_are_told(tmp_path):
    """Nobody executes runs without a slot."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match=r"runs\.sqlite\.slots"):
        claim(open_slots(f"sqlite:///{tmp_path}/file/runs.sqlite"))
    with pytest.raises(BadInput, match="expected sqlite:///PATH or postgresql://"):
        open_slots("redis://localhost")


def test_on_postgres_a_killed_process_has_abandoned_its_slot_after_the_grace(postgres_url):
    """The server ends the session with the process; others wait for a moment, in case it was the session alone."""
    slots = PostgresSlots(postgres_url, grace=0.5)
    with Holder(postgres_url) as one:
        assert slots.abandoned([one.name]) == []
        assert slots.hold(one.name) is None
        one.kill()
        since = time.monotonic()
        until(lambda: slots.abandoned([one.name]) == [one.name])
        assert time.monotonic() - since >= 0.5
    slots.close()


def test_a_server_that_was_restarted_leaves_every_slot_to_its_holder(postgres):
    """All locks are gone then; the holders take them again before anybody counts them as free."""
    url = postgres.database()
    slots = PostgresSlots(url, grace=1.0)
    slot = claim(PostgresSlots(url))
    assert slot.check() is False
    assert slots.abandoned([slot.name]) == []
    postgres.stop(immediate=True)
    with pytest.raises(StoreUnavailable, match="PostgreSQL can't be used"):
        slot.check()
    with pytest.raises(StoreUnavailable, match="PostgreSQL can't be used"):
        slots.abandoned([slot.name])
    postgres.start()
    assert slots.abandoned([slot.name]) == []  # it is free, but was not for long enough
    assert slot.check() is True
    time.sleep(1.1)
    assert slots.abandoned([slot.name]) == []
    assert slot.check() is False
    slot.release()
    slots.close()


def test_a_slot_that_somebody_else_took_meanwhile_is_lost(postgres, postgres_url):
    """Its holder must not go on as if he had it."""
    slot = claim(PostgresSlots(postgres_url))
    session = f"application_name = 'escalade slot {slot.name}'"
    postgres.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {session}")  # noqa: S608
    other, taken = PostgresSlots(postgres_url), []

    def took():
        taken.append(other.hold(slot.name))
        return taken[-1] is not None

    until(took)
    with pytest.raises(SlotLost, match="another process has its name now"):
        slot.check()
    taken[-1].release()
    slot.release()


def test_one_process_alone_executes_inline_over_postgres(postgres_url):
    """Two would execute every run twice; what the other one starts, the first one executes."""

    async def double(x: int) -> dict[str, int]:
        return {"y": 2 * x}

    pipelines = {"double": Chain(double=double)}
    with Runs(postgres_url, pipelines=pipelines) as first, Runs(postgres_url, pipelines=pipelines) as second:
        assert first.start("double", x=1).result(timeout=20).y == 2
        run = second.start("double", x=4)
        assert not second.engine.mine()
        assert run.result(timeout=20).y == 8
        assert run.row().attempts == 1
    with Runs(postgres_url, pipelines=pipelines) as third:
        assert third.start("double", x=2).result(timeout=20).y == 4
