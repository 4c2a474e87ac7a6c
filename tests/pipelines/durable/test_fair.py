"""Whose turn it is: tenants share the workers of a queue evenly."""

from __future__ import annotations

import heapq
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from escalade.pipelines.durable.fair import LEVELS, Turns, rank
from escalade.registry.stores.sqlite import Database


class Queue:
    """Runs that wait, and the turns that they have."""

    def __init__(self, path):
        self.turns, self.waiting, self.count = Turns(Database(path, "")), [], 0

    def put(self, tenant, priority=0, times=1):
        for _ in range(times):
            number, self.count = self.turns.take("default", tenant), self.count + 1
            heapq.heappush(self.waiting, (rank(priority, number), self.count, tenant, number))

    def run(self, times=1):
        ran = []
        for _ in range(times):
            _, _, tenant, number = heapq.heappop(self.waiting)
            self.turns.begun("default", number)
            ran.append(tenant)
        return ran


def test_a_tenant_that_queued_much_leaves_others_their_turn(tmp_path):
    """One that comes later is served as often from then on, and gains nothing for having been away."""
    queue = Queue(tmp_path / "turns.sqlite")
    queue.put("big", times=100)
    assert queue.run(20) == ["big"] * 20
    queue.put("small", times=10)
    ran = Counter(queue.run(20))
    assert ran == {"big": 10, "small": 10}
    assert queue.run(30) == ["big"] * 30
    queue.put("small", times=3)
    assert Counter(queue.run(6)) == {"big": 3, "small": 3}


def test_many_small_tenants_dont_keep_a_big_one_waiting_for_ever(tmp_path):
    """As many newcomers come as are served: the one with the backlog is served all the same, again and again."""
    queue = Queue(tmp_path / "turns.sqlite")
    queue.put("big", times=50)
    ran = []
    for number in range(100):
        queue.put(f"small{number}")
        ran += queue.run()
    served = [at for at, tenant in enumerate(ran) if tenant == "big"]
    assert len(served) >= 10
    assert max(served) >= 80


def test_a_higher_priority_is_run_before_all_of_a_lower_one(tmp_path):
    """Priorities stand above turns, and are bounded."""
    queue = Queue(tmp_path / "turns.sqlite")
    queue.put("low", priority=-1, times=3)
    queue.put("plain", times=3)
    queue.put("high", priority=5, times=3)
    assert queue.run(9) == ["high"] * 3 + ["plain"] * 3 + ["low"] * 3
    assert rank(100, 1) == rank(LEVELS // 2 - 1, 1) >= 1
    assert rank(-100, 2**40) < 2**31
    assert rank(1, 2**40) < rank(0, 1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "run"]), max_size=60), st.integers(3, 12))
def test_tenants_that_all_wait_are_served_alike(tmp_path_factory, history, backlog):
    """Whatever came before: while all have runs waiting, no tenant gets more than two turns ahead of another."""
    queue = Queue(tmp_path_factory.mktemp("turns") / "turns.sqlite")
    for event in history:
        if event != "run":
            queue.put(event)
        elif queue.waiting:
            queue.run()
    queue.run(len(queue.waiting))
    for tenant in "abc":
        queue.put(tenant, times=backlog)
    served = Counter()
    for _ in range(3 * (backlog - 2)):
        served.update(queue.run())
        assert max(served[t] for t in "abc") - min(served[t] for t in "abc") <= 2
