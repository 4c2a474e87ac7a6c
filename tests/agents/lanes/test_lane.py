"""Lanes: what a provider lets through, shaped on our side, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import threading
import time
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escalade.agents.lanes.lane import Lane
from escalade.agents.lanes.priority import current_priority, priority
from escalade.errors import BadInput, Overloaded, RateLimited, UnknownName
from tests.agents.lanes.clock import FakeClock

HOUR = 3600.0


class Provider:
    """Takes `rpm` requests in any minute and says 429 to the others; answers take a while."""

    def __init__(self, clock: FakeClock, rpm: int, seed: int = 1) -> None:
        self.clock, self.rpm, self.chance = clock, rpm, random.Random(seed)
        self.taken: deque[float] = deque()
        self.starts: list[float] = []
        self.rejected = 0

    def ask(self) -> bool:
        now = self.clock.now()
        while self.taken and self.taken[0] + 60.0 <= now:
            self.taken.popleft()
        if len(self.taken) >= self.rpm:
            self.rejected += 1
            return False
        self.taken.append(now)
        self.starts.append(now)
        return True


def test_an_hour_of_a_thousand_agents_at_60_a_minute():
    """A provider that takes 60 requests a minute gets exactly 60 in each minute, and has to reject none."""
    clock = FakeClock()
    provider, lane = Provider(clock, 60), Lane("p", rpm=60, clock=clock)

    def agent(name: str) -> None:
        place = lane.join(name)

        def begin() -> None:
            place.sent()
            answered = provider.ask()
            clock.call_at(clock.now() + provider.chance.uniform(0.2, 9.0), lambda: end(answered=answered))

        def end(*, answered: bool) -> None:
            place.answered() if answered else place.refused(None)
            lane.leave(place)
            agent(name)

        if lane.call(place, begin):
            begin()

    for i in range(1000):
        agent(f"t{i % 7}")
    clock.move_to(HOUR - 0.001)
    assert provider.rejected == 0
    per_minute = Counter(int(at // 60) for at in provider.starts)
    assert [per_minute[minute] for minute in range(60)] == [60] * 60
    assert lane.status.waiting >= 1000 - 60


def join(who, priority_, tokens):
    return st.tuples(st.just("join"), st.sampled_from(who), st.sampled_from(priority_), st.integers(1, tokens))


OPS = st.lists(
    st.one_of(
        join("abc", ["interactive", "batch"], 60),
        st.tuples(st.just("leave"), st.integers(0, 99), st.sampled_from(["ok", "429", "after", "unsent"])),
        st.tuples(st.just("move"), st.floats(0.0, 40.0)),
    ),
    max_size=120,
)


class Crowd:
    """All who use a lane, and what is known of them without asking the lane."""

    def __init__(self, rpm: int, tpm: int, at_once: int) -> None:
        self.clock = FakeClock()
        self.rpm, self.tpm, self.at_once = rpm, tpm, at_once
        self.lane = Lane("p", rpm=rpm, tpm=tpm, at_once=at_once, start=at_once, clock=self.clock)
        self.came, self.woken = [], []  # places, in order
        self.starts: dict[object, tuple[float, int]] = {}

    def join(self, tenant, priority_, tokens):
        place = self.lane.join(tenant, priority=priority_, tokens=tokens)
        self.came.append(place)
        if self.lane.call(place, lambda: self.enter(place)):
            self.enter(place)

    def enter(self, place):
        assert place.state == "in"
        assert place not in self.woken
        assert place in self.came, "somebody was woken who had left"
        self.woken.append(place)
        self.starts[place] = self.clock.now(), place.tokens

    def leave(self, at, how):
        place = self.came.pop(at % len(self.came))
        if place in self.woken and how != "unsent":
            place.sent()
            place.answered() if how == "ok" else place.refused(3.0 if how == "after" else None)
            place.used(place.tokens // 2)
            self.starts[place] = self.starts[place][0], place.tokens // 2
        elif place in self.woken:
            del self.starts[place]
        self.lane.leave(place)
        self.lane.leave(place)  # twice is once

    def check(self):
        inside = [place for place in self.came if place in self.woken]
        assert self.lane.status.running == len(inside) <= self.at_once
        assert self.lane.status.waiting == len(self.came) - len(inside)
        counted = [tokens for at, tokens in self.starts.values() if at + 60.0 > self.clock.now()]
        assert len(counted) <= self.rpm
        assert sum(counted) <= self.tpm or sum(tokens > 0 for tokens in counted) == 1
        for key in {(place.tenant, place.priority) for place in self.came}:
            mine = [place for place in self.came if (place.tenant, place.priority) == key]
            let_in = [place in self.woken for place in mine]
            assert let_in == sorted(let_in, reverse=True), "not first come, first served"

    def finish(self):
        """Whoever is in leaves; time passes; nobody is forgotten."""
        while self.came:
            inside = [at for at, place in enumerate(self.came) if place in self.woken]
            if inside:
                self.leave(inside[0], "ok")
            else:
                assert self.clock.next(), "they wait, and nothing will ever wake them"
            self.check()
        assert self.lane.status.running == self.lane.status.waiting == 0


@settings(max_examples=150, deadline=None)
@given(ops=OPS, rpm=st.integers(1, 8), tpm=st.integers(30, 200), at_once=st.integers(1, 5))
def test_no_limit_is_passed_and_nobody_is_forgotten(ops, rpm, tpm, at_once):
    """Whoever joins, leaves, gives up or is refused, and when: never more at once than the limit, never more starts or
    tokens in a minute, first come first served in a tenant, and in the end everybody who stayed was let in.
    """
    crowd = Crowd(rpm, tpm, at_once)
    for name, *what in ops:
        if name == "join":
            crowd.join(*what)
        elif name == "move":
            crowd.clock.move_to(crowd.clock.now() + what[0])
        elif crowd.came:
            crowd.leave(*what)
        crowd.check()
    crowd.finish()


def waits(lane, clock, order, name, **options):
    """One more in line; when it is let in, its name is noted, and it leaves at once, as soon as the clock is moved."""
    place = lane.join(options.pop("tenant", name), **options)

    def enter():
        order.append(name)
        place.sent()
        place.answered()
        clock.call_at(clock.now(), lambda: lane.leave(place))

    if lane.call(place, enter):
        enter()
    return place


def test_one_tenant_with_a_thousand_does_not_starve_another():
    """Tenants take turns: who asks for little waits for one call of each other, whatever they have in line."""
    clock = FakeClock()
    lane = Lane("p", at_once=1, clock=clock)
    order: list[str] = []
    with lane.join("x"):
        for _ in range(1000):
            waits(lane, clock, order, "many")
        for _ in range(3):
            waits(lane, clock, order, "few")
    clock.move_to(0.0)
    assert len(order) == 1003
    assert order[:6] == ["many", "few"] * 3


def test_shares_are_tokens_where_tokens_are_limited():
    """Of two tenants one of which asks for ten times the tokens, both get as many tokens, not as many calls."""
    clock = FakeClock()
    lane, order = Lane("p", tpm=10**9, at_once=1, clock=clock), []
    with lane.join("x", tokens=1):
        for _ in range(100):
            waits(lane, clock, order, "long", tokens=1000)
            waits(lane, clock, order, "short", tokens=100)
    clock.move_to(0.0)
    assert 9 <= order[:55].count("short") / order[:55].count("long") <= 11


def test_who_gave_up_is_not_charged():
    """A tenant that had a thousand in line and gave them all up comes next all the same."""
    clock = FakeClock()
    lane, order = Lane("p", at_once=1, clock=clock), []
    with lane.join("x"):
        for place in [waits(lane, clock, order, "a") for _ in range(1000)]:
            lane.leave(place)
        for _ in range(10):
            waits(lane, clock, order, "b")
        waits(lane, clock, order, "a")
    clock.move_to(0.0)
    assert order[:3].count("a") == 1
    assert len(order) == 11


def test_interactive_goes_first_and_batch_is_not_starved():
    """Batch waits for those who wait for an answer, but never for more than nine of them in a row."""
    clock = FakeClock()
    lane, order = Lane("p", at_once=1, clock=clock), []
    with lane.join("x"):
        for _ in range(5):
            waits(lane, clock, order, "batch", priority="batch")
        for _ in range(40):
            waits(lane, clock, order, "people")
    clock.move_to(0.0)
    assert order[:20] == (["people"] * 9 + ["batch"]) * 2
    assert order.count("batch") == 5


def test_a_429_cuts_once_per_burst_and_answers_let_it_grow_back():
    """Of all that were under way, the first 429 halves the limit, the others don't; a round of answers adds one."""
    clock = FakeClock()
    lane = Lane("p", at_once=64, start=16, clock=clock)
    burst = [lane.join("t") for _ in range(16)]
    clock.move_to(1.0)
    for place in burst:
        place.sent()
        place.refused(None)
        lane.leave(place)
    assert lane.status.limit == 8
    assert lane.status.paused == pytest.approx(1.0)
    clock.move_to(3.0)
    waiting = deque(lane.join("t") for _ in range(100))
    for answers, grown in ((8, 8), (1, 9), (8, 9), (2, 10)):
        for _ in range(answers):
            place = waiting.popleft()
            place.sent()
            place.answered()
            lane.leave(place)
        assert lane.status.limit == grown


def test_the_limit_opens_up_while_all_of_it_is_used():
    """Before the first 429 each answer lets one more in; what nobody uses doesn't grow."""
    lane = Lane("p", at_once=100, start=4, clock=FakeClock())
    with lane.join("t") as place:
        place.sent()
        place.answered()
    assert lane.status.limit == 4
    waiting = deque(lane.join("t") for _ in range(500))
    while waiting:
        place = waiting.popleft()
        place.sent()
        place.answered()
        lane.leave(place)
    assert lane.status.limit == 100


def test_retry_after_stops_the_whole_lane():
    """Whoever comes while the provider wants to be left alone waits for its Retry-After, and no longer."""
    clock = FakeClock()
    lane, order = Lane("p", clock=clock), []
    with lane.join("a") as place:
        place.sent()
        place.refused(7.0)
    waits(lane, clock, order, "b")
    clock.move_to(6.9)
    assert (order, lane.status.paused) == ([], pytest.approx(0.1))
    clock.move_to(7.0)
    assert order == ["b"]


def test_429s_without_retry_after_pause_longer_and_longer():
    """1, 2, 4 s, up to a minute, until an answer comes."""
    clock = FakeClock()
    lane, pauses = Lane("p", clock=clock), []
    for end in [None] * 8 + ["answer", None]:
        clock.move_to(clock.now() + lane.status.paused + 0.5)
        with lane.join("a") as place:
            assert place.state == "in"
            place.sent()
            place.answered() if end else place.refused(None)
        pauses.append(round(lane.status.paused))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 0, 1]


def test_who_would_wait_too_long_is_refused_at_once():
    """With the seconds until it would be its turn, counting those who are before it."""
    clock = FakeClock()
    lane = Lane("p", rpm=10, clock=clock)
    for _ in range(10):
        lane.join("a")
    for _ in range(15):
        lane.join("a")
    with pytest.raises(
        RateLimited, match=r"lane 'p' is limited to 10/min, and 15 are waiting; try again in 120 s"
    ) as no:
        lane.join("a", seconds=100.0)
    assert no.value.retry_after == 120.0
    assert lane.join("b", seconds=61.0).state == "waiting"  # another tenant's turn comes before the rest of a's line
    assert lane.join("a", seconds=121.0).state == "waiting"
    impatient = Lane("q", rpm=1, patience=5, clock=clock)
    impatient.join("a")
    with pytest.raises(RateLimited):
        impatient.join("a")


def test_tokens_are_waited_for_and_counted_as_they_were():
    """An attempt counts what it may use at most; the provider's count takes the place of that, and lets others in."""
    clock = FakeClock()
    lane, order = Lane("p", tpm=1000, clock=clock), []
    place = lane.join("a", tokens=900)
    waits(lane, clock, order, "b", tokens=500)
    assert order == []
    place.sent()
    place.used(100)
    lane.leave(place)
    assert (order, lane.status.tokens) == (["b"], 600)
    with pytest.raises(RateLimited, match="1,000 tokens/min") as no:
        lane.join("c", tokens=500, seconds=1.0)
    assert no.value.retry_after == 60.0
    clock.move_to(60.0)
    assert lane.status.tokens == 0
    assert lane.join("c", tokens=10**9).state == "in"  # larger than the limit: alone
    assert lane.join("c", tokens=1).state == "waiting"


def test_a_full_line_refuses():
    """Nobody joins a line that has as many as may wait."""
    lane = Lane("p", at_once=1, max_waiting=3, clock=FakeClock())
    places = [lane.join("a") for _ in range(4)]
    with pytest.raises(Overloaded, match="3 are waiting, as many as may"):
        lane.join("b")
    lane.leave(places[-1])
    assert lane.join("b").state == "waiting"


def test_a_start_that_did_not_happen_gives_its_turn_to_the_next():
    """Whoever is let in and then doesn't send anything (its budget said no) takes nothing of the minute."""
    clock = FakeClock()
    lane, order = Lane("p", rpm=1, tpm=100, clock=clock), []
    place = lane.join("a", tokens=100)
    waits(lane, clock, order, "b", tokens=100)
    lane.leave(place)
    assert order == ["b"]


def test_what_counts_is_when_it_was_sent():
    """A request that goes out later than it was let in (the guard took its time) keeps its distance to the next one."""
    clock = FakeClock()
    lane, order = Lane("p", rpm=1, tpm=100, clock=clock), []
    place = lane.join("a", tokens=60)
    clock.move_to(5.0)
    place.sent()
    waits(lane, clock, order, "b", tokens=60)
    clock.move_to(64.9)
    assert order == []
    clock.move_to(65.0)
    assert order == ["b"]


def test_a_retry_goes_to_the_head_of_its_tenants_line():
    """It waited its turn before."""
    clock = FakeClock()
    lane, order = Lane("p", at_once=1, clock=clock), []
    with lane.join("x"):
        waits(lane, clock, order, "new", tenant="a")
        waits(lane, clock, order, "again", tenant="a", first=True)
    clock.move_to(0.0)
    assert order == ["again", "new"]


def test_shorter_limits_hold_too():
    """Providers that take 60 a minute, but not at once, are asked once a second."""
    clock = FakeClock()
    lane = Lane("p", rpm=60, limits="1/s", clock=clock)
    starts: list[float] = []
    for _ in range(5):
        place = lane.join("a")
        lane.call(place, lambda: starts.append(clock.now())) and starts.append(clock.now())
    clock.move_to(10.0)
    assert starts == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"rpm": 0},
        {"tpm": 0},
        {"tpm": math.nan},
        {"rpm": 1.5},
        {"at_once": 0},
        {"start": 0},
        {"max_waiting": 0},
        {"patience": -1},
        {"limits": "x"},
    ],
)
def test_wrong_limits_are_refused(wrong):
    """When the lane is made, by name."""
    with pytest.raises(BadInput):
        Lane("p", **wrong)


def test_priority_travels_with_dspys_context():
    """It holds inside of the block; an unknown one is refused."""
    assert current_priority() == "interactive"
    with priority("batch"):
        assert current_priority() == "batch"
    with pytest.raises(UnknownName, match="did you mean 'batch'"):
        priority("batsh")  # type: ignore[arg-type]


async def test_threads_and_event_loops_share_one_lane():
    """Tasks of two loops and threads wait in one line; never more at once than the limit, all are served."""
    lane, seen = Lane("p", at_once=3, start=3), []
    lock, running = threading.Lock(), 0

    def begin():
        nonlocal running
        with lock:
            running += 1
            seen.append(running)

    def end(place):
        nonlocal running
        with lock:
            running -= 1
        place.answered()

    async def task(n):
        with lane.join(f"task{n % 3}") as place:
            assert await place.await_(20.0)
            begin()
            await asyncio.sleep(0.002)
            end(place)

    def thread(n):
        with lane.join(f"thread{n % 3}") as place:
            assert place.wait(20.0)
            begin()
            time.sleep(0.002)
            end(place)

    async def tasks():
        await asyncio.gather(*(task(n) for n in range(50)))

    threads = [threading.Thread(target=thread, args=(n,)) for n in range(20)]
    threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
    for one in threads:
        one.start()
    await tasks()
    for one in threads:
        await asyncio.to_thread(one.join)
    assert len(seen) == 120
    assert max(seen) == 3
    assert (lane.status.running, lane.status.waiting) == (0, 0)


async def test_cancelled_in_line_frees_the_place():
    """Tasks that are cancelled while they wait leave the line, also when their turn comes at that very moment."""
    lane = Lane("p", at_once=1)

    async def task():
        with lane.join("a") as place:
            await place.await_()
            await asyncio.sleep(0)

    first = lane.join("x")
    tasks = [asyncio.create_task(task()) for _ in range(50)]
    await asyncio.sleep(0)
    for one in tasks[:25]:
        one.cancel()
    lane.leave(first)  # the first one that wasn't cancelled is called, and cancelled before it runs
    tasks[25].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(one.cancelled() for one in tasks) == 26
    assert (lane.status.running, lane.status.waiting) == (0, 0)


async def test_time_that_is_up_ends_the_wait():
    """In a thread and in a task."""
    lane = Lane("p", at_once=1)
    with lane.join("x"):
        with lane.join("a") as place:
            assert not await place.await_(0.01)
        with lane.join("a") as place:
            assert not place.wait(0.01)
    assert lane.status.waiting == 0


async def test_windows_are_waited_for_in_real_time():
    """The thread of the clock wakes who waits, as soon as the window is free."""
    lane = Lane("p", limits="1/0.05s")
    began = time.perf_counter()
    for _ in range(3):
        with lane.join("a") as place:
            assert await place.await_(5.0)
            place.sent()
    assert 0.1 <= time.perf_counter() - began < 5, "as long as one would wait at most"


def test_what_waits_in_a_loop_that_ends_leaves():
    """A loop that is closed under those who wait leaves no place taken behind."""
    lane = Lane("p", at_once=1)
    first = lane.join("x")
    loop = asyncio.new_event_loop()

    async def task():
        with lane.join("a") as place:
            await place.await_()

    waiting = loop.create_task(task())
    loop.run_until_complete(asyncio.sleep(0))
    waiting.cancel()
    loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
    loop.close()
    lane.leave(first)
    gc.collect()
    assert (lane.status.running, lane.status.waiting) == (0, 0)
