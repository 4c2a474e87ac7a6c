"""Workers that are killed, a server that stops, a disk that is full: no run is lost, nothing finished is done again.

In full (50 kills of 200 runs): `python -m benchmarks durable`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from escalade.errors import StoreUnavailable
from tests.pipelines.durable import app
from tests.pipelines.durable.workers import ROOT, Timed, WorkerProcess, storm, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RUNS = 12


def check(found, kills, concurrency=8, runs=RUNS):
    """What holds of runs whose workers were killed."""
    calls = runs * len(app.STEPS)
    assert found.statuses == {"done": runs}
    assert found.results == {key: {"final": f"{key}/final: answer value"} for key in found.results}
    assert found.right == calls
    # Each call was kept once; none was made again after that, and no answer went to another step.
    assert len(found.kept) == calls
    assert all(len(moments) == 1 for moments in found.kept.values())
    assert found.asked.keys() == found.kept.keys()
    assert found.repeated == []
    # What was kept is what the provider bills for it.
    assert found.kept_cost == calls * found.cost
    # What he was asked is booked once: at the bill, or at the reservation, where a kill came before it was settled;
    # that may be a moment after its answer was kept.
    bills, reservations = found.booked()
    asked = sum(len(moments) for moments in found.asked.values())
    in_flight = kills * concurrency * 2
    assert found.held == 0
    assert found.spent == found.settled
    assert calls - in_flight <= bills <= found.answered
    assert asked <= bills + reservations <= asked + in_flight
    assert found.cut_off <= in_flight
    # There was something to go on with.
    assert found.attempts > runs


def test_one_worker_is_killed_again_and_again(tmp_path):
    """Every run ends; two branches of several steps race in each, and each step has its own answer."""
    check(
        storm(f"sqlite:///{tmp_path}/runs.sqlite", tmp_path, runs=RUNS, kills=2, workers=1, seed=1, within=(0.1, 0.6)),
        2,
    )


def test_workers_over_postgres_are_killed_and_take_over_from_each_other(tmp_path, postgres_url):
    """The same over a server, with another worker alive."""
    check(storm(postgres_url, tmp_path, runs=RUNS, kills=1, workers=2, seed=2, within=(0.1, 0.4)), 1)


def test_a_server_that_stops_at_once_is_waited_for(tmp_path, postgres, monkeypatch):
    """All runs end when it is back; the workers are the same, and what was finished is not done again."""
    monkeypatch.setenv("ESCALADE_USES", f"{tmp_path}/uses.jsonl")
    url = postgres.database()
    runs = app.opened(url, workers=0)
    with Timed() as server:
        options = {"base": server.base, "seconds": 0.3, "concurrency": 4}
        with WorkerProcess(url, tmp_path, **options) as one, WorkerProcess(url, tmp_path, **options) as two:
            started = [
                runs.start("report", run_id=f"run-{key:04d}", key=f"{key:04d}", principal=app.CLERK)
                for key in range(12)
            ]
            one.ready()
            two.ready()
            until(lambda: len(server.answers) >= 12)
            postgres.stop(immediate=True)
            time.sleep(float(os.environ.get("ESCALADE_OUTAGE", "5")))
            postgres.start()
            for run in started:
                until(lambda run=run: _status(run) == "done", 60)
            for worker in (one, two):
                worker.signal()
                assert worker.ended() == 0, worker.lines
        asked = [question for _, question in server.moments]
    kept = [call for run in started for call in run.calls()]
    assert len(kept) == 12 * len(app.STEPS)
    assert len(asked) - len(set(asked)) <= 8  # those that were on their way
    runs.close()


def _status(run):
    try:
        return run.status()
    except StoreUnavailable:
        return ""


FULL = """
import sys
from escalade.errors import StoreUnavailable
from tests.pipelines.durable import app
runs = app.opened(sys.argv[1], workers=0)
accepted, refused = [], set()
for number in range(2_000):
    try:
        accepted.append(runs.start("nap", run_id=f"nap-{number}", seconds=0.0).run_id)
    except StoreUnavailable as error:
        refused.add(str(error))
        if number > len(accepted) + 20:
            break
print(" ".join(accepted))
print(" | ".join(sorted(refused)))
"""


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no small disk: mounting one takes the system's administrator")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_refuses_new_runs_and_loses_none(tmp_path, small_disk):
    """Starting one is refused in words; those that were accepted are executed when there is room again."""
    url = f"sqlite:///{small_disk}/runs.sqlite"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "ESCALADE_USES": f"{tmp_path}/uses.jsonl"}
    done = subprocess.run([sys.executable, "-c", FULL, url], check=True, capture_output=True, text=True, env=env)
    accepted, refused = done.stdout.splitlines()
    assert "full" in refused
    assert "Traceback" not in done.stderr
    assert 20 < len(accepted.split()) < 2_000
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    with app.opened(url, concurrency=50) as runs:
        runs.recover()
        for run_id in accepted.split():
            assert runs.get(run_id).result(timeout=60)
