"""Results of nodes that are used again: from a cache, or from an equal call that runs at the same time."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import pytest

import escalade
from escalade import (
    BudgetExceeded,
    Chain,
    DeadlineExceeded,
    FanOut,
    Gateway,
    Map,
    NodeCache,
    NodeError,
    Principal,
    Race,
    Roles,
    SimModel,
    World,
    events,
    node,
)
from escalade.pipelines.options._identity import code_of
from escalade.registry.cache import MemoryCache
from tests._virtual import virtually
from tests.pipelines.offline import no_task_left, offline_lm

POLICY = Roles({"reader": ["notes.read:call"], "writer": ["notes.write:call"]})
OTHER_POLICY = Roles({"reader": ["notes.read:call"]})


def counting() -> tuple[Callable[..., Any], list[int]]:
    """A function of its own, and the list of its calls."""
    calls: list[int] = []

    async def work(x: int) -> dict[str, Any]:
        calls.append(x)
        return {"y": x * 2, "parts": [x]}

    return work, calls


def fresh() -> NodeCache:
    return NodeCache(MemoryCache())


# -- cache


@pytest.mark.parametrize("cache", [True, 60.0, fresh(), MemoryCache()], ids=["True", "seconds", "NodeCache", "store"])
async def test_equal_calls_get_the_kept_result(cache: Any) -> None:
    """The second is not run, costs nothing and is told; other inputs are; what is got is one's own."""
    work, calls = counting()
    heard: list[events.Event] = []
    pipeline = Chain(a=node(work, cache=cache))
    with escalade.scope(listen=heard.append):
        first = await pipeline.acall(x=1)
        first.parts.append("changed")
        again = await pipeline.acall(x=1)
        assert (again.y, again.parts) == (2, [1])
        assert (await pipeline.acall(x=2)).y == 4
    assert calls == [1, 2]
    reused = [event for event in heard if isinstance(event, events.NodeReused)]
    assert [(event.path, event.source) for event in reused] == [("a", "cache")]
    assert len([event for event in heard if isinstance(event, events.NodeStarted)]) == 2


async def test_results_have_their_time() -> None:
    """After `seconds` they are made anew."""
    work, calls = counting()
    now = [0.0]
    pipeline = Chain(a=node(work, cache=NodeCache(MemoryCache(now=lambda: now[0]), seconds=10.0)))
    for moment in (0.0, 9.0, 10.5, 11.0):
        now[0] = moment
        await pipeline.acall(x=1)
    assert calls == [1, 1]


async def test_results_are_kept_on_disk(tmp_path: Path) -> None:
    """A cache on disk is asked in a thread; results come back as they were: Predictions, tuples, nested."""
    calls = []

    async def work(x: int) -> Any:
        calls.append(x)
        return dspy.Prediction(pair=(x, 2.5), deep={"a": [x]})

    pipeline = Chain(a=node(work, cache=NodeCache(escalade.DiskCache(tmp_path))))
    first, second = await pipeline.acall(x=1), await pipeline.acall(x=1)
    assert first.toDict() == second.toDict() == {"pair": (1, 2.5), "deep": {"a": [1]}}
    assert calls == [1]


WHO: list[tuple[list[Principal], list[Principal], bool]] = [
    ([Principal("ada")], [Principal("bob")], True),
    ([Principal("ada", tenant="blue")], [Principal("ada", tenant="red")], False),
    ([Principal("ada", roles=frozenset({"writer"}))], [Principal("ada", roles=frozenset({"reader"}))], False),
    ([Principal("ada", roles=frozenset({"reader"}))], [Principal("ada", roles=frozenset({"reader", "writer"}))], False),
    ([Principal("ada"), Principal("agent")], [Principal("ada")], False),
]


@pytest.mark.parametrize(("first", "second", "shared"), WHO)
async def test_results_are_for_the_same_tenant_and_rights(
    first: list[Principal], second: list[Principal], shared: bool
) -> None:
    """Whoever has other rights, or is of another tenant, has results of his own."""
    work, calls = counting()
    pipeline = Chain(a=node(work, cache=fresh()))
    for people in (first, second):
        with escalade.scope(principal=people[0], access=POLICY):
            if len(people) > 1:
                with escalade.scope(principal=people[1]):
                    await pipeline.acall(x=1)
            else:
                await pipeline.acall(x=1)
    assert len(calls) == (1 if shared else 2)


async def test_results_are_not_shared_over_policies_and_can_be_per_user() -> None:
    """Another policy is other rights; with per="user" each has his own."""
    work, calls = counting()
    pipeline = Chain(a=node(work, cache=fresh()))
    for policy in (POLICY, OTHER_POLICY, POLICY):
        with escalade.scope(principal=Principal("ada"), access=policy):
            await pipeline.acall(x=1)
    assert len(calls) == 2
    work, calls = counting()
    pipeline = Chain(a=node(work, cache=NodeCache(MemoryCache(), per="user")))
    for user in ("ada", "bob", "ada"):
        with escalade.scope(principal=Principal(user), access=POLICY):
            await pipeline.acall(x=1)
    assert len(calls) == 2


async def test_what_is_not_whole_is_not_kept() -> None:
    """Errors, answers that were cut off, partial results and a fallback's."""
    calls = []

    async def fails(x: int) -> int:
        calls.append(x)
        raise ConnectionError("gone")

    async def cut_off(x: int) -> int:
        calls.append(x)
        escalade.scopes.require().note_truncated()
        return x

    async def stands_in(x: int) -> int:
        return x

    async def late(x: int) -> int:
        calls.append(x)
        raise ValueError(x)

    some = FanOut(good=stands_in, bad=late, partial=True)
    first_of_all = Chain(all=some, told=lambda good: good)
    without = Chain(a=stands_in, b=node(late, optional=True))
    spared = Chain(a=node(late, fallback=stands_in))
    for made in (
        node(fails, cache=fresh()),
        node(cut_off, cache=fresh()),
        node(fails, cache=fresh(), fallback=stands_in),
        node(some, cache=fresh()),
        node(first_of_all, cache=fresh()),
        node(without, cache=fresh()),
        node(spared, cache=fresh()),
    ):
        calls.clear()
        pipeline = Chain(a=made)
        for _ in range(2):
            with escalade.scope():
                try:
                    await pipeline.acall(x=1)
                except NodeError:
                    assert made.target is fails
        assert calls == [1, 1], made


async def test_races_are_whole() -> None:
    """Who lost because another was enough is not missing."""
    calls = []

    async def quick(x: int) -> int:
        calls.append(x)
        return x

    async def slow(x: int) -> int:
        await asyncio.sleep(9)
        return x

    for pipeline in (Race(a=quick, b=slow), FanOut(a=quick, b=slow, first=1)):
        calls.clear()
        kept = Chain(a=node(pipeline, cache=NodeCache(MemoryCache())))
        for _ in range(2):
            with escalade.scope():
                await kept.acall(x=1)
        assert calls == [1]


async def test_what_is_not_plain_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Neither results nor inputs that JSON can't hold; each is told once."""
    calls = []

    async def opens(x: Any) -> Any:
        calls.append(x)
        return threading.Lock()

    pipeline = Chain(a=node(opens, cache=fresh()))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await pipeline.acall(x=1)
            await pipeline.acall(x=threading.Lock())
    assert len(calls) == 6
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "results of the node 'a' are not kept" in line]) == 1
    assert len([line for line in said if "calls of the node 'a' can't be told apart" in line]) == 1


async def test_another_prompt_or_model_is_another_node() -> None:
    """Instructions, demos, fields and the model count, also when they change in place."""
    asked: list[Any] = []
    predict = dspy.Predict("question -> answer")
    pipeline = Chain(a=node(predict, cache=fresh()))

    async def ask(lm: Any, times: int = 2) -> int:
        asked.clear()
        with dspy.context(lm=lm):
            for _ in range(times):
                await pipeline.acall(question="q")
        return len(asked)

    lm = offline_lm(asked=asked)
    assert await ask(lm) == 1
    assert await ask(lm) == 0
    predict.demos = [dspy.Example(question="1", answer="2").with_inputs("question")]
    assert await ask(lm) == 1
    predict.signature = predict.signature.with_instructions("Be brief.")
    assert await ask(lm) == 1
    predict.signature = predict.signature.with_updated_fields("answer", type_=list[str])
    other = offline_lm(asked=asked, answer=lambda field, inputs: '["a"]')
    other.model = "offline/other"
    assert await ask(other) == 1
    other.kwargs["temperature"] = 0.7
    assert await ask(other) == 1


async def test_nested_nodes_are_part_of_a_pipeline() -> None:
    """A pipeline as a node is known by all that is in it."""
    calls: list[str] = []

    def said(word: str) -> Callable[..., Any]:
        async def say(x: int) -> str:
            calls.append(word)
            return word

        return say

    store = fresh()
    for word in ("a", "b"):
        for _ in range(2):
            pipeline = Chain(a=node(FanOut(one=Map(said(word), over="xs")), cache=store))
            assert (await pipeline.acall(xs=[1])).one.results == [word]


def measure(question: str, factor: int = 3) -> dict[str, int]:
    """A function that closes over nothing."""
    return {"size": len(question) * factor}


async def test_another_pipeline_finds_what_was_kept(tmp_path: Path) -> None:
    """Functions, modules and pipelines that are made anew from the same code and prompts are the same nodes."""
    sources: list[list[str]] = []
    for _ in range(2):
        cache, heard = NodeCache(escalade.DiskCache(tmp_path)), list[events.Event]()
        pipeline = Chain(
            a=node(measure, cache=cache),
            b=node(dspy.ChainOfThought("question -> answer"), cache=cache),
            c=node(FanOut(x=dspy.Predict("question -> z"), y=lambda question: question + "!", z=measure), cache=cache),
            d=node(Chain(e=Map(lambda word: word.upper(), over="words")), cache=cache),
        )
        world = World({"small": SimModel(skill=1.0, latency=0.0, price_in="1", price_out="1")})
        lm = Gateway(world.as_models()).lm("small", temperature=0.5)
        with dspy.context(lm=lm), escalade.scope(budget="1.00", listen=heard.append):
            await pipeline.acall(question="q", words=["a", "b"])
        sources.append([event.path for event in heard if isinstance(event, events.NodeReused)])
    assert sources == [[], ["a", "b", "c", "d"]]


def test_code_is_known_by_what_it_is() -> None:
    """Another constant, default, closure, name or partial argument is other code; the same text is the same code."""

    def make(number: int, default: int = 0) -> Callable[..., Any]:
        def work(x: int, y: int = default) -> int:
            return x + y + number

        return work

    assert code_of(make(1)) == code_of(make(1))
    different = [
        make(1),
        make(2),
        make(1, 5),
        lambda x: x + 1,
        lambda x: x + 2,
        lambda xs: [lambda y: y + 1 for _ in xs],
        lambda xs: [lambda y: y + 2 for _ in xs],
        functools.partial(make(1), y=1),
        functools.partial(make(1), y=2),
        dspy.Predict("a -> b"),
        dspy.ChainOfThought("a -> b"),
    ]
    assert len({code_of(one) for one in different}) == len(different)
    client = object()

    def asks(x: int) -> Any:
        return client, x

    assert code_of(asks) != code_of(asks), "nobody can look into the client"


def same(x: int) -> int:
    return x


class Held(dspy.Module):  # type: ignore[misc]
    """A module with settings."""

    def __init__(self, settings: dict[str, int]) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, x: int) -> int:
        return x


def test_all_that_a_node_holds_counts() -> None:
    """Each entry of a dict, place in a tuple, branch of a pipeline, method of a class, principal of a node."""
    settings = dict(zip("abcdef", range(6), strict=True))
    others = [code_of(Held({**settings, name: 99})) for name in settings]
    assert len({code_of(Held(settings)), *others}) == 7

    def calling(*inner: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: [one(x) for one in inner]

    assert code_of(calling(len, same, len)) == code_of(calling(len, same, len))
    assert code_of(calling(same, measure, same)) != code_of(calling(same, measure, measure))
    last = [Chain(a=same, b=same, c=same, d=one) for one in (same, measure)]
    assert code_of(last[0]) != code_of(last[1])
    methods = [type("Held", (Held,), {"helper": one, "__module__": __name__}) for one in (same, measure)]
    assert code_of(methods[0]({})) != code_of(methods[1]({}))
    whose = [
        Chain(a=node(same, principal=Principal("ana", "acme", frozenset({role})))) for role in ("reader", "writer")
    ]
    assert code_of(whose[0]) != code_of(whose[1])
    assert code_of(whose[0]) == code_of(Chain(a=node(same, principal=Principal("ana", "acme", frozenset({"reader"})))))


async def test_optimisers_see_what_is_done() -> None:
    """While somebody records a trace, nodes are run."""
    asked: list[Any] = []
    pipeline = Chain(a=node(dspy.Predict("question -> answer"), cache=fresh(), once=True))
    with dspy.context(lm=offline_lm(asked=asked)):
        await pipeline.acall(question="q")
        with dspy.context(trace=[]):
            await pipeline.acall(question="q")
            assert len(dspy.settings.trace) == 1
    assert len(asked) == 2


@dataclass
class Point:
    """A result with a class of its own."""

    x: int


async def test_classes_of_results_are_declared() -> None:
    """By the annotation of the node; otherwise by `types=`."""
    calls = []

    async def declared(x: int) -> Point:
        calls.append(x)
        return Point(x)

    async def undeclared(x: int) -> Any:
        calls.append(x)
        return Point(x)

    for made in (node(declared, cache=fresh()), node(undeclared, cache=NodeCache(MemoryCache(), types=(Point,)))):
        calls.clear()
        pipeline = Chain(a=made)
        assert [(await pipeline.acall(x=1)).a for _ in range(2)] == [Point(1)] * 2
        assert calls == [1]


async def test_a_broken_cache_is_a_miss() -> None:
    """A store that raises, or has something else than what was kept, costs a run and nothing more."""

    class Broken:
        def get(self, key: str) -> bytes | None:
            raise OSError(key)

        def set(self, key: str, value: bytes, seconds: float, tag: str = "") -> None:
            raise OSError(key, value, seconds, tag)

    class Tampered(MemoryCache):
        def get(self, key: str) -> bytes | None:
            return None if super().get(key) is None else b'{"$":"data","c":"os:system","v":{}}'

    for store in (Broken(), Tampered()):
        work, calls = counting()
        pipeline = Chain(a=node(work, cache=NodeCache(store)))  # type: ignore[arg-type]
        assert [(await pipeline.acall(x=1)).y for _ in range(2)] == [2, 2]
        assert calls == [1, 1]


# -- once


@virtually
async def test_equal_calls_at_the_same_time_run_once() -> None:
    """The others get copies, and are told; later calls run."""
    calls: list[int] = []
    heard: list[events.Event] = []

    async def slow(x: int) -> list[int]:
        calls.append(x)
        await asyncio.sleep(0.03)
        return [x]

    pipeline = Chain(a=node(slow, once=True))
    with escalade.scope(listen=heard.append):
        results = await asyncio.gather(*(pipeline.acall(x=x) for x in [1, 1, 1, 2]))
    assert sorted(calls) == [1, 2]
    assert [result.a for result in results] == [[1], [1], [1], [2]]
    assert len({id(result.a) for result in results}) == 4
    assert [e.source for e in heard if isinstance(e, events.NodeReused)] == ["joined"] * 2
    await pipeline.acall(x=1)
    assert len(calls) == 3


async def test_failures_are_shared_with_paths_of_ones_own() -> None:
    """Who waited for a call that fails gets its failure, with the path of his node; then it may be made again."""
    calls = []

    async def fails(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0.02)
        raise ValueError("boom")

    shared = node(Chain(deep=fails), once=True)
    left, right = Chain(same=shared), FanOut(x=Chain(same=shared))
    found = await asyncio.gather(left.acall(x=1), right.acall(x=1), return_exceptions=True)
    assert [getattr(error, "path", None) for error in found] == ["same/deep", "x/same/deep"]
    assert all(isinstance(error, ValueError) for error in found)
    assert len(calls) in (1, 2)


@virtually
async def test_a_cancelled_leader_hands_over() -> None:
    """The others are not cancelled with it: one of them makes the call, and each has its result."""
    begun = []

    async def slow(x: int) -> int:
        begun.append(x)
        await asyncio.sleep(0.05)
        return x

    pipeline = Chain(a=node(slow, once=True))
    with no_task_left():
        leader = asyncio.ensure_future(pipeline.acall(x=1))
        await asyncio.sleep(0.01)
        others = [asyncio.ensure_future(pipeline.acall(x=1)) for _ in range(5)]
        await asyncio.sleep(0.01)
        leader.cancel()
        results = await asyncio.gather(*others)
        assert [result.a for result in results] == [1] * 5
        assert len(begun) == 2
        with pytest.raises(asyncio.CancelledError):
            await leader


async def test_a_leader_without_money_hands_over() -> None:
    """His refusal is his own; one who has money makes the call."""
    begun = asyncio.Event()

    async def spend(x: int) -> int:
        begun.set()
        await asyncio.sleep(0.02)
        escalade.scopes.require().purse.reserve(50_000_000).settle(50_000_000)
        return x

    pipeline = Chain(a=node(spend, once=True))

    async def call(budget: str) -> Any:
        with escalade.scope(budget=budget):
            return (await pipeline.acall(x=1)).a

    poor = asyncio.ensure_future(call("0.01"))
    await begun.wait()
    assert await call("1.00") == 1
    with pytest.raises(BudgetExceeded):
        await poor


@virtually
async def test_nobody_waits_past_his_deadline() -> None:
    """Who joins has his own deadline."""
    stop = asyncio.Event()

    async def slow(x: int) -> int:
        await stop.wait()
        return x

    pipeline = Chain(a=node(slow, once=True))
    leader = asyncio.ensure_future(pipeline.acall(x=1))
    await asyncio.sleep(0.01)
    with pytest.raises(DeadlineExceeded), escalade.scope(deadline=0.05):
        await pipeline.acall(x=1)
    stop.set()
    assert (await leader).a == 1


def test_threads_join_each_other() -> None:
    """Equal calls on the loops of several threads run once."""
    calls = []
    lock = threading.Lock()
    gate = threading.Barrier(8)

    def slow(x: int) -> int:
        with lock:
            calls.append(x)
        time.sleep(1.0)  # the others come meanwhile
        return x

    pipeline, results = Chain(a=node(slow, once=True)), []

    def call() -> None:
        gate.wait()
        results.append(pipeline(x=1).a)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 8
    assert calls == [1]


async def test_a_call_within_itself_does_not_wait_for_itself() -> None:
    """A node that calls its own pipeline with the same inputs runs inside of itself."""
    depth = []
    pipelines: list[Chain] = []

    async def again(x: int) -> int:
        depth.append(x)
        return x if len(depth) > 2 else int((await pipelines[0].acall(x=x)).a)

    pipelines.append(Chain(a=node(again, once=True)))
    async with asyncio.timeout(5):
        assert (await pipelines[0].acall(x=1)).a == 1
    assert len(depth) == 3


async def test_many_joiners_and_cancellations() -> None:
    """Of 200 callers of which a third is cancelled at some time, each other one gets the result; no two run at once."""
    inside, most = 0, 0

    async def slow(x: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            await asyncio.sleep(0.004)
        finally:
            inside -= 1
        return x

    pipeline = Chain(a=node(slow, once=True))
    with no_task_left():
        tasks = []
        for number in range(200):
            tasks.append(asyncio.ensure_future(pipeline.acall(x=1)))
            if number % 3 == 0:
                asyncio.get_running_loop().call_later(0.001 * (number % 7), tasks[-1].cancel)
            if number % 20 == 0:
                await asyncio.sleep(0.001)
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 1
    answers = [result for result in results if not isinstance(result, asyncio.CancelledError)]
    assert all(isinstance(answer, dspy.Prediction) and answer.a == 1 for answer in answers)
    assert all(not isinstance(result, BaseException) for number, result in enumerate(results) if number % 3)
