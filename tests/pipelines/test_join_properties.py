"""Joins by a model of their own: any rule, any outcomes, in virtual time."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from escalade.errors import JoinFailed
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from escalade.pipelines.race import Race
from escalade.testing import virtual_time


def in_virtual_time(work: Coroutine[Any, Any, Any]) -> Any:
    with virtual_time() as clock:
        return clock.run(work)


@dataclass(frozen=True)
class Branch:
    """Ends after `seconds` as `outcome` says: ok, failed, cancelled (by itself), stubborn (ok, even when cancelled)."""

    seconds: float
    outcome: str
    optional: bool = False


@dataclass
class Expected:
    """What the model says of a call."""

    states: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    raised: str = ""
    begun: set[str] = field(default_factory=set)


@st.composite
def calls(draw: Any) -> tuple[dict[str, Branch], dict[str, Any], int | None]:
    """Branches, options, concurrency."""
    number = draw(st.integers(1, 6))
    rule: dict[str, Any] = {}
    early = draw(st.sampled_from(["", "", "quorum", "first", "until"]))
    if early:
        rule[early] = draw(st.integers(1, number))
    if draw(st.booleans()):
        rule["partial"] = True
        rule["least"] = draw(st.integers(0, number))
        if draw(st.booleans()):
            rule["within"] = draw(st.integers(1, 20)) + 0.001
    # Where all have to end well, behind a limit or in a map, the caller hears at the end of a node that cancels itself.
    outcomes = ["ok", "ok", "ok", "failed", "stubborn", *(["cancelled"] if rule else [])]
    branches = {}
    for i in range(number):
        seconds = draw(st.integers(1, 9)) + 0.5 ** (i + 2)  # no two sums are equal: nothing happens at the same time
        branches[f"b{i}"] = Branch(seconds, draw(st.sampled_from(outcomes)), draw(st.integers(0, 4)) == 4)
    return branches, rule, draw(st.sampled_from([None, None, 1, 2, 3]))


def model(branches: dict[str, Branch], rule: dict[str, Any], concurrency: int | None) -> Expected:
    """What must happen, worked out one end after the other."""
    told, names = Expected(), list(branches)
    waiting, running, now = list(names), [], 0.0
    count = rule.get("quorum") or rule.get("first") or rule.get("until")
    strict = count is None and not rule.get("partial")
    fewest = rule.get("least", 1) if rule.get("partial") else rule.get("quorum") or rule.get("first") or 0
    verdict, late = "", False
    while not verdict:
        while waiting and len(running) < (concurrency or len(names)):
            name = waiting.pop(0)
            told.begun.add(name)
            heapq.heappush(running, (now + branches[name].seconds, name))
        now, name = heapq.heappop(running)
        if now > rule.get("within", float("inf")):
            heapq.heappush(running, (now, name))
            verdict, late = ("enough" if len(told.results) >= fewest else "impossible"), True
            break
        branch = branches[name]
        if branch.outcome in ("ok", "stubborn"):
            told.states[name], told.results[name] = "ok", name
            if count == len(told.results):
                verdict = "enough"
        else:
            told.states[name] = "skipped" if branch.optional else branch.outcome
            if strict and not branch.optional:
                verdict, told.raised = "impossible", branch.outcome
        left = len(names) - len(told.states)
        if not verdict and len(told.results) + left < fewest:
            verdict = "impossible"
        if not verdict and not left:
            verdict = "impossible" if "until" in rule and not rule.get("partial") else "enough"
    for _, name in running:
        taken = branches[name].outcome == "stubborn" and verdict == "enough" and "first" not in rule
        told.states[name] = "ok" if taken else "timeout" if late else "cancelled"
        told.results |= {name: name} if taken else {}
    told.states |= dict.fromkeys(waiting, "skipped")
    told.raised = told.raised or ("" if verdict == "enough" else "too few")
    return told


class Call:
    """Runs branches and notes who began and who ended."""

    def __init__(self, branches: dict[str, Branch]) -> None:
        self.branches = branches
        self.begun: set[str] = set()
        self.ended: set[str] = set()

    async def branch(self, name: str) -> str:
        self.begun.add(name)
        it = self.branches[name]
        try:
            await asyncio.sleep(it.seconds)
        except asyncio.CancelledError:
            if it.outcome != "stubborn":
                raise
        finally:
            self.ended.add(name)
        if it.outcome == "failed":
            raise ValueError(name)
        if it.outcome == "cancelled":
            raise asyncio.CancelledError
        return name

    def node(self, name: str) -> Any:
        async def work() -> str:
            return await self.branch(name)

        return node(work, optional=True) if self.branches[name].optional else work

    async def run(self, pipeline: Any, **inputs: Any) -> tuple[Any, str]:
        """The result or the error, and what kind of end it was. Nothing is alive after it."""
        run = asyncio.create_task(pipeline.acall(**inputs))
        await asyncio.wait([run])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self.begun == self.ended
        if run.cancelled():
            return None, "cancelled"
        error = run.exception()
        if error is None:
            return run.result(), ""
        assert isinstance(error, (JoinFailed, ValueError))
        return error, "too few" if isinstance(error, JoinFailed) else "failed"


def options(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule as the user says it."""
    if "until" not in rule:
        return rule
    most: int = rule["until"]
    until: Callable[[Any], bool] = lambda found: len(found) >= most  # noqa: E731
    return {**rule, "until": until}


def check(told: Expected, call: Call, found: Any, raised: str) -> None:
    """Statuses as the model has them; every failure is raised, or in a status; nobody began for nothing."""
    assert raised == told.raised
    assert call.begun == told.begun
    if raised in ("failed", "cancelled"):
        return
    assert {name: status.state for name, status in found.statuses.items()} == told.states
    for name, status in found.statuses.items():
        assert status.ok == (name in told.results)
        ran = name in call.begun and status.state in ("failed", "skipped")
        if ran and call.branches[name].outcome == "failed":
            assert isinstance(status.error, ValueError)
            assert status.error.path == name
    if raised:
        assert set(found.causes) == {name for name, status in found.statuses.items() if status.error is not None}


@pytest.mark.slow
@settings(max_examples=150)
@given(calls())
def test_a_fan_out_does_what_its_rule_says(call: tuple[dict[str, Branch], dict[str, Any], int | None]) -> None:
    """Any rule over any outcomes, with any concurrency."""
    branches, rule, concurrency = call
    rule.setdefault("least", 1) if rule.get("partial") else None
    told, run = model(branches, rule, concurrency), Call(branches)
    fan = FanOut({name: run.node(name) for name in branches}, concurrency=concurrency, **options(rule))
    found, raised = in_virtual_time(run.run(fan))
    event(raised or "a result")
    check(told, run, found, raised)
    if not raised:
        assert dict(found.items()) == {name: told.results.get(name) for name in branches}


@settings(max_examples=100)
@given(calls())
def test_a_map_does_what_its_rule_says(call: tuple[dict[str, Branch], dict[str, Any], int | None]) -> None:
    """The same rules over items."""
    branches, rule, _ = call
    names = list(branches)
    plain = {name: Branch(branch.seconds, branch.outcome) for name, branch in branches.items()}
    least = {"least": min(rule["least"], len(names))} if "least" in rule else {}
    told, run = model(plain, {**rule, **least}, None), Call(plain)
    found, raised = in_virtual_time(run.run(Map(run.branch, over="names", **options(rule)), names=names))
    assert raised == told.raised
    assert run.begun == told.begun
    if not raised:
        assert found.results == [told.results.get(name) for name in names]
        assert [found.statuses[index].state for index in range(len(names))] == [told.states[name] for name in names]


@settings(max_examples=100)
@given(calls())
def test_a_race_is_a_fan_out_of_the_first(call: tuple[dict[str, Branch], dict[str, Any], int | None]) -> None:
    """The winner is who would be the first good one; all that failed before it are in the statuses."""
    branches = {name: Branch(branch.seconds, branch.outcome) for name, branch in call[0].items()}
    told, run = model(branches, {"first": 1}, None), Call(branches)
    found, raised = in_virtual_time(run.run(Race({name: run.node(name) for name in branches})))
    check(told, run, found, raised)
    if not raised:
        assert [found.winner] == list(told.results)
        assert found.result == found.winner


@pytest.mark.parametrize("cut", [0.5, 1.5, 3.5, 100.0])
def test_virtual_time_is_used(cut: float) -> None:
    """A cut of 100 s takes no time."""

    async def nap() -> None:
        await asyncio.sleep(1e6)

    result = in_virtual_time(FanOut(a=nap, partial=True, least=0, within=cut).acall())
    assert result.statuses["a"].seconds == pytest.approx(cut)
