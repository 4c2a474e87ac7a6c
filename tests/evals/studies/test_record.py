"""Recording without a study: in memory, and in a directory in which it goes on."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import escalade
from escalade.errors import BadInput, BudgetExceeded
from tests.evals.studies.test_study import Bench


def test_many_are_asked_at_once():
    """Eight attempts at once take an eighth of the time, and come to the same outcomes as one at a time."""
    slow = {"small": escalade.SimModel(latency=0.04), "large": escalade.SimModel(skill=0.9, latency=0.04)}
    bench = Bench(16, slow)
    program = bench.program([("Predict", "small"), ("Predict", "large")])
    took, found = [], []
    with escalade.scope():
        for concurrency in (1, 8):
            began = time.perf_counter()
            found.append(escalade.record(program, bench.examples, bench.world.metric, concurrency=concurrency))
            took.append(time.perf_counter() - began)
    assert all(np.array_equal(getattr(found[0], c), getattr(found[1], c)) for c in ("quality", "answer", "cost"))
    assert took[1] < took[0] / 2
    assert found[1].keys == found[0].keys


def test_epochs_are_rows_of_one_key():
    """A question that is asked three times has three rows, one after the other."""
    bench = Bench(3)
    with escalade.scope():
        outcomes = escalade.record(bench.program(), bench.examples, bench.world.metric, epochs=3)
    assert outcomes.n == 9
    assert [outcomes.keys.count(key) for key in dict.fromkeys(outcomes.keys)] == [3, 3, 3]
    assert outcomes.keys[0] == outcomes.keys[1] == outcomes.keys[2]


def test_a_slow_metric_blocks_nobody():
    """A metric that takes its time is called in threads, many at once, and an async one is awaited."""
    bench = Bench(20)
    program, threads = bench.program(["small"]), set()

    def slow(example, prediction):
        threads.add(threading.get_ident())
        time.sleep(0.1)
        return 1.0

    async def later(example, prediction):
        return bench.world.metric(example, prediction)

    with escalade.scope():
        began = time.perf_counter()
        outcomes = escalade.record(program, bench.examples, slow)
        assert time.perf_counter() - began < 20 * 0.1
        assert len(threads) > 1
        assert (outcomes.quality == 1).all()
        plain = escalade.record(program, bench.examples, bench.world.metric)
        assert (escalade.record(program, bench.examples, later).quality == plain.quality).all()


def test_a_directory_is_gone_on_with(tmp_path):
    """A recording for which the budget was too small goes on in its directory; in memory it is refused."""
    bench = Bench()
    with pytest.raises(BudgetExceeded), escalade.scope(budget="0.02", optional=True):
        escalade.record(bench.program(), bench.examples, bench.world.metric, dir=tmp_path)
    first = bench.calls
    assert first
    with escalade.scope():
        outcomes = escalade.record(bench.program(), bench.examples, bench.world.metric, dir=tmp_path)
    assert bench.calls == 36
    assert (outcomes.status == 0).all()
    with pytest.raises(BudgetExceeded), escalade.scope(budget="0.02", optional=True):
        escalade.record(bench.program(), bench.examples, bench.world.metric)


def test_tuned_again_for_nothing(tmp_path):
    """What `tune` recorded in a directory isn't paid for twice, and tunes the same."""
    bench = Bench(100)
    program = bench.program([("Predict", "small"), ("Predict", "large")])
    with escalade.scope(budget="5.00"):
        first = escalade.tune(program, bench.examples, bench.world.metric, dir=tmp_path)
        calls = bench.calls
        again = escalade.tune(program, bench.examples, bench.world.metric, dir=tmp_path)
    assert calls == bench.calls == 200
    assert again.program.policy == first.program.policy
    assert again.report.quality_after == first.report.quality_after


def test_bad_input():
    """Numbers that can't be are refused before anything is asked."""
    bench = Bench(2)
    with escalade.scope():
        for wrong in ({"epochs": 0}, {"concurrency": 0}, {"concurrency": True}):
            with pytest.raises(BadInput):
                escalade.record(bench.program(), bench.examples, bench.world.metric, **wrong)
    assert bench.calls == 0
