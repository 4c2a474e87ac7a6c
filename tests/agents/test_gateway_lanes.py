"""Models in lanes: attempts wait their turn before the guard; what the provider says stops or speeds up the lane."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import tracemalloc
from collections import deque

import dspy
import pytest
from dspy import lm15
from dspy.lm15 import Message, Request

from escalade.agents._route import Retry
from escalade.agents.gateway import Gateway
from escalade.agents.lanes.lane import Lane
from escalade.agents.lanes.priority import priority
from escalade.agents.models import Model
from escalade.agents.transports import LM15
from escalade.errors import (
    BadInput,
    BudgetExceeded,
    CircuitOpen,
    DeadlineExceeded,
    Overloaded,
    PermissionDenied,
    RateLimited,
)
from escalade.registry.access import Roles
from escalade.registry.breaker import Breaker
from escalade.registry.journal import Journal
from escalade.registry.opening import scope
from escalade.registry.prices import Price
from escalade.scopes import Principal
from tests.agents.scripted import Scripted, rate_limited
from tests.servers.fault_server import FaultServer

PRICE = Price.of("1", "2")
REQUEST = Request(model="escalade/m", messages=(Message.user("hi"),))


def gateway(lane, script=(), *, fallback=None, retry=None, **options) -> Gateway:
    """A model in a lane, with a fallback that has none if asked for."""
    models = [Model("m", "sim/m", Scripted(script), price=PRICE, lane=lane, **options)]
    if fallback is not None:
        models[0].fallbacks = ("other",)
        models.append(Model("other", "sim/other", fallback, price=PRICE))
    return Gateway(models, retry=retry or Retry(base=0.0))


def sync(gateway: Gateway, **options):
    return gateway.lm("m", **options)._engine_spec.complete(REQUEST)


async def asynchronous(gateway: Gateway, **options):
    return await gateway.lm("m", **options)._async_engine_spec.complete(REQUEST)


async def test_who_waits_holds_no_money():
    """While calls wait in line, nothing of the budget is held; they are paid when their turn comes."""
    lane = Lane("p", at_once=1)
    models = gateway(lane)
    with scope(budget="1.00") as run:
        place = lane.join("x")
        tasks = [asyncio.create_task(asynchronous(models)) for _ in range(5)]
        await asyncio.sleep(0.02)
        assert (lane.status.waiting, run.purse.held, run.spent) == (5, 0, 0)
        lane.leave(place)
        await asyncio.gather(*tasks)
        assert run.spent == 5 * PRICE.cost(100, 20)
    assert (lane.status.running, lane.status.waiting) == (0, 0)


async def test_cancelled_in_line_sends_nothing_and_frees_the_place():
    """Nothing is sent or recorded for it, and the next one comes."""
    lane = Lane("p", at_once=1)
    models = gateway(lane)
    with scope(budget="1.00", recorder=(journal := Journal())):
        place = lane.join("x")
        first, second = [asyncio.create_task(asynchronous(models)) for _ in range(2)]
        await asyncio.sleep(0.01)
        first.cancel()
        lane.leave(place)
        await second
        assert first.cancelled()
    assert len(journal.entries()) == len(models.model("m").transport.requests) == 1


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_wait_beyond_the_deadline_is_refused_at_once(mode):
    """With the seconds until it would fit, as a denial on record; nothing is waited for."""
    lane = Lane("p", rpm=1)
    models = gateway(lane)
    with scope(budget="1.00", deadline=5.0, recorder=(journal := Journal())):
        sync(models)
        began = time.perf_counter()
        with pytest.raises(RateLimited, match="lane 'p' is limited to 1/min; try again in") as no:
            sync(models) if mode == "sync" else asyncio.run(asynchronous(models))
        assert time.perf_counter() - began < 4, "its deadline is in 5 s"
    assert 50 < no.value.retry_after <= 60
    assert [entry.outcome for entry in journal.denials()] == ["RateLimited"]


def test_wait_that_is_not_worth_it_falls_back():
    """With somebody to fall back to, one waits no longer than the patience of the retries."""
    other = Scripted()
    models = gateway(Lane("p", rpm=1), fallback=other)
    with scope(budget="1.00"):
        answers = [sync(models).provider_data["escalade"]["model"] for _ in range(3)]
    assert answers == ["m", "other", "other"]


def test_deadline_that_passes_in_line_ends_the_wait():
    """The error says that time is up; the place is free."""
    lane = Lane("p", at_once=1)
    models = gateway(lane)
    with lane.join("x"), scope(budget="1.00", deadline=0.1), pytest.raises((RateLimited, DeadlineExceeded)):
        sync(models)
    assert (lane.status.running, lane.status.waiting) == (0, 0)


def test_who_would_be_refused_anyway_does_not_stand_in_line():
    """No permission, no money, an open circuit: the guard says so at once, though the lane is full."""
    lane = Lane("p", at_once=1)
    models = gateway(lane, breaker=(breaker := Breaker(failures=1)))
    policy = Roles({"reader": ["other:call"], "user": ["model.m:call"]})
    with lane.join("x"):
        with scope(principal=Principal("ann", roles={"reader"}), access=policy), pytest.raises(PermissionDenied):
            sync(models)
        with pytest.raises(BudgetExceeded), scope(budget="0.000001"):
            sync(models)
        breaker.failure(breaker.allow())
        with scope(), pytest.raises(CircuitOpen):
            sync(models)
    assert models.model("m").transport.requests == []


def test_who_may_not_use_the_model_learns_nothing_of_its_limits():
    """A full lane is told to those who may use it only."""
    lane = Lane("p", rpm=1)
    models = gateway(lane)
    policy = Roles({"reader": ["other:call"]})
    with scope():
        sync(models)
    with scope(principal=Principal("ann", roles={"reader"}), access=policy, deadline=1.0):
        with pytest.raises(PermissionDenied):
            sync(models)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_429_stops_the_lane_for_its_retry_after(mode):
    """The one who got it and all others wait for it in the lane; nobody else is turned away."""
    lane = Lane("p")
    models = gateway(lane, [rate_limited(0.2)])
    began = time.perf_counter()
    with scope(budget="1.00", recorder=(journal := Journal())):
        sync(models) if mode == "sync" else asyncio.run(asynchronous(models))
    assert 0.2 <= time.perf_counter() - began < 10
    assert [entry.outcome for entry in journal.entries()] == ["failed", "ok"]
    assert lane.status.limit < 32


async def test_stream_keeps_its_place_to_the_end():
    """One at once means one stream at once; one that is left early leaves its place."""
    lane = Lane("p", at_once=1)
    engine = gateway(lane).lm("m")._async_engine_spec
    with scope(budget="1.00"):
        stream = engine.stream(REQUEST)
        await anext(stream)
        assert lane.status.running == 1
        await stream.aclose()
        assert lane.status.running == 0
        assert [event async for event in engine.stream(REQUEST)]
    assert lane.status.running == 0


async def test_a_provider_that_hangs_gives_its_places_back():
    """The timeout of the model ends the attempt, in the lane too."""
    lane, other = Lane("p", at_once=1), Scripted()
    models = gateway(lane, [30.0] * 9, fallback=other, retry=Retry(retries=0), timeout=0.05)
    with scope(budget="1.00"):
        answers = await asyncio.gather(*(asynchronous(models) for _ in range(4)))
    assert [answer.provider_data["escalade"]["model"] for answer in answers] == ["other"] * 4
    assert (lane.status.running, lane.status.waiting) == (0, 0)


def test_priority_reaches_dspys_threads():
    """Calls in `dspy.Parallel` are batch inside of `priority("batch")`; an LM's own priority comes first."""
    seen: list[str] = []

    class Noting(Lane):
        def join(self, *args, priority, **kwargs):
            seen.append(priority)
            return super().join(*args, priority=priority, **kwargs)

    models = gateway(Noting("p"))
    predict, quick = dspy.Predict("question -> answer"), dspy.Predict("question -> answer")
    quick.lm = models.lm("m", priority="interactive")
    with scope(budget="1.00"), dspy.context(lm=models.lm("m")):
        predict(question="q")
        with priority("batch"):
            jobs = [(predict, {"question": "q"}), (predict, {"question": "q"}), (quick, {"question": "q"})]
            dspy.Parallel(num_threads=2, disable_progress_bar=True)(jobs)
    assert sorted(seen[1:]) == ["batch", "batch", "interactive"]
    assert seen[0] == "interactive"


def test_long_pause_is_not_waited_for():
    """A provider that wants to be left alone for an hour: whoever comes is told so at once, deadline or not."""
    lane = Lane("p")
    models = gateway(lane, [rate_limited(3600.0)])
    with scope(budget="1.00"):
        with pytest.raises(lm15.RateLimitError):
            sync(models)
        with pytest.raises(RateLimited) as no:
            sync(models)
    assert no.value.retry_after == pytest.approx(3600.0, abs=5.0)
    assert len(models.model("m").transport.requests) == 1


def test_a_full_line_falls_back():
    """Overloaded is told, or somebody else answers."""
    lane = Lane("p", at_once=1, max_waiting=1)
    with lane.join("x"), lane.join("x"), scope(budget="1.00"):
        assert sync(gateway(lane, fallback=Scripted())).provider_data["escalade"]["model"] == "other"
        with pytest.raises(Overloaded):
            sync(gateway(lane))


def test_a_policy_that_fails_leaves_nobody_in_line():
    """Whatever goes wrong while somebody gets in line."""
    lane = Lane("p", at_once=1)

    class Broken(Roles):
        def decide(self, *args, **kwargs):
            raise RuntimeError("no policy today")

    with lane.join("x"), scope(principal=Principal("ann", roles={"r"}), access=Broken({"r": ["model.m:call"]})):
        with pytest.raises(RuntimeError):
            sync(gateway(lane))
        assert lane.status.waiting == 0


@pytest.mark.slow
async def test_memory_is_flat():
    """Thousands of governed calls leave nothing behind; `python -m benchmarks gateway` makes a hundred thousand."""
    lm = gateway(Lane("p", limits="100000/s"), limits="100000/s").lm("m")
    lm._engine_spec.gateway.model("m").transport.requests = deque(maxlen=10)

    async def calls(many: int) -> int:
        for _ in range(many // 100):
            await asyncio.gather(*(lm.acall("hi") for _ in range(100)))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        with scope(budget="1000", recorder=Journal(keep=10)), dspy.context(disable_history=True):
            await calls(1500)
            await asyncio.sleep(1.1)  # windows of a second keep the starts of a second
            grown = []
            while len(grown) < 3 and min(grown, default=math.inf) >= 100_000:  # others' threads may import something
                before = await calls(100)
                await calls(1500)
                await asyncio.sleep(1.1)
                grown.append(await calls(100) - before)
    finally:
        tracemalloc.stop()
    assert min(grown) < 100_000, f"{grown} bytes after 1,600 more calls"


def test_models_of_one_account_share_its_lane():
    """What one of them starts counts for the other; copies of a program share it, too."""
    lane = Lane("p", rpm=2, patience=0.0)
    models = Gateway([Model(name, f"sim/{name}", Scripted(), price=PRICE, lane=lane) for name in ("m", "n")])
    with scope(budget="1.00"):
        sync(models)
        models.lm("n")._engine_spec.complete(Request(model="escalade/n", messages=(Message.user("hi"),)))
        with pytest.raises(RateLimited):
            sync(models)


def test_tokens_of_a_model_are_those_of_its_lane():
    """A model that says others is refused."""
    with pytest.raises(BadInput, match="tokens per minute are those of"):
        Model("m", "sim/m", Scripted(), tpm=5, lane=Lane("p", tpm=7))


def test_when_all_fail_one_error_says_why_for_each():
    """By model, with the number of attempts; `retry_after` is when the first of them may work again."""
    bad = [lm15.AuthError("bad key")]
    models = Gateway(
        [
            Model("a", "sim/a", Scripted(bad), price=PRICE, fallbacks="b"),
            Model("b", "sim/b", Scripted([rate_limited(90.0)]), price=PRICE, fallbacks="c"),
            Model("c", "sim/c", Scripted([lm15.ServerError("boom")] * 3), price=PRICE, fallbacks="d"),
            Model("d", "sim/d", Scripted(), price=PRICE, breaker=(breaker := Breaker(failures=1, cooldown=40.0))),
        ],
        retry=Retry(retries=2, base=0.0),
    )
    breaker.failure(breaker.allow())
    with scope(budget="1.00"), pytest.raises(lm15.ServerError) as failed:
        models.lm("a")._engine_spec.complete(Request(model="escalade/a", messages=(Message.user("hi"),)))
    said = str(failed.value)
    assert said.startswith("none of 4 models answered: a: AuthError: bad key; b: RateLimitError: slow down")
    assert "; c: ServerError: boom (3 attempts); d: CircuitOpen: " in said
    assert failed.value.retry_after == pytest.approx(40.0, abs=1.0)
    assert str(failed.value.__cause__) == "boom"


def test_when_all_are_left_alone_the_error_is_ours():
    """All circuits open: nothing is sent, and CircuitOpen says when the first of them closes."""
    breakers = [Breaker(failures=1, cooldown=60.0), Breaker(failures=1, cooldown=30.0)]
    for breaker in breakers:
        breaker.failure(breaker.allow())
    models = Gateway(
        [
            Model("m", "sim/m", Scripted(), price=PRICE, fallbacks="n", breaker=breakers[0]),
            Model("n", "sim/n", Scripted(), price=PRICE, breaker=breakers[1]),
        ]
    )
    with scope(budget="1.00"), dspy.context(lm=models.lm("m")), pytest.raises(CircuitOpen, match="none of 2") as no:
        dspy.Predict("question -> answer")(question="q")
    assert no.value.retry_after == pytest.approx(30.0, abs=1.0)


# ---------------------------------------------------------------------------------------------- over real HTTP

CALLS, LIMIT = 110, 20


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running


async def crowd(server: FaultServer, lane: Lane | None) -> tuple[int, int, float]:
    """A hundred and ten agents at once on a provider that takes twenty a second: answers, rejections, seconds."""
    server.reset()
    model = Model(
        "m",
        f"openai/limit:{LIMIT}",
        LM15(api_key="k", api_base=server.base, timeout=10),
        price=PRICE,
        lane=lane,
    )
    lm = Gateway([model]).lm("m")
    began = time.perf_counter()
    with scope(budget="1.00"):
        answers = await asyncio.gather(*(lm.acall("hi") for _ in range(CALLS)))
    return len(answers), server.rejected[f"limit:{LIMIT}"], time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.blocking(3000)
async def test_a_lane_prevents_the_storm(server):
    """Without a lane a crowd is turned away again and again; in a lane that knows the limit nearly nobody is, and one
    that has to find out itself is turned away less, since a 429 stops all of them.
    """
    bare, _, _ = (stormy := await crowd(server, None))
    told, rejected, seconds = await crowd(server, Lane("p", limits=f"{LIMIT}/1.1s"))
    found, later, _ = await crowd(server, Lane("p"))
    print(f"rejected without a lane {stormy[1]}, with its limits {rejected} ({seconds:.1f} s), adapting {later}")
    assert (bare, told, found) == (CALLS, CALLS, CALLS)
    assert stormy[1] >= CALLS - LIMIT
    assert rejected <= stormy[1] / 5, "those whose way to the server took a tenth of a second more than the others'"
    assert later <= stormy[1] / 2


async def test_key_that_is_refused_and_host_that_hangs_are_stood_in_for(server):
    """An invalid key and a provider that doesn't answer in time: the next one answers, in the lane and out of it."""
    good = LM15(api_key="k", api_base=server.base, timeout=10)
    for bad, timeout in (("e401", 5.0), ("slow:5", 0.3)):
        lane = Lane("p", at_once=2)
        models = [
            Model("m", f"openai/{bad}", good, price=PRICE, lane=lane, fallbacks="n", timeout=timeout),
            Model("n", "openai/ok", good, price=PRICE, lane=lane),
        ]
        lm = Gateway(models, retry=Retry(retries=0)).lm("m")
        with scope(budget="1.00"):
            assert len(await asyncio.gather(*(lm.acall("hi") for _ in range(6)))) == 6
        assert (lane.status.running, lane.status.waiting) == (0, 0)


def test_threads_wait_in_the_lane_too(server):
    """Sync callers in threads: never more at once than the lane lets in."""
    lane = Lane("p", at_once=2, start=2)
    good = LM15(api_key="k", api_base=server.base, timeout=10)
    lm = Gateway([Model("m", "openai/slow:0.05", good, price=PRICE, lane=lane)]).lm("m")
    most: list[int] = []
    with scope(budget="1.00") as run:

        def call() -> None:
            with dspy.context(escalade=run):
                lm("hi")
            most.append(lane.status.running)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(most) == 8
    assert max(most) <= 2
