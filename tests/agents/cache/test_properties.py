"""Whatever happens in whatever order: no tenant has another's answer, and an answer is the one that was given."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.lm15 import (
    CitationPart,
    DataPart,
    Message,
    RefusalPart,
    Response,
    TextPart,
    ThinkingPart,
    TokenLogprob,
    ToolCallPart,
    TopLogprob,
    Usage,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from escalade.agents.cache._record import Record
from escalade.agents.models import Model
from escalade.registry.stores.disk_cache import DiskCache
from tests._house import ROOT
from tests.agents.cache.worlds import ANA, BOB, EVE, PRICE, World, answering, scope_of
from tests.agents.scripted import Scripted

TTL = {"facts": 100.0, "code": 50.0, "realtime": 10.0}
QUESTIONS = ("Capital of Peru?", "Weather today?", "A Python script")


class Naming(Scripted):
    """Answers with who asked, what, and the number of the call."""

    def _next(self, request: Any) -> Any:
        super()._next(request)
        return answering(f"{self.who}/{self.question}/{len(self.requests)}")


class Tenants(RuleBasedStateMachine):
    """Random questions of three people of two tenants, evictions, restarts and time, on memory or on disk."""

    @initialize(disk=st.booleans(), per=st.sampled_from(["tenant", "user"]))
    def begin(self, disk: bool, per: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.options = {"path": Path(self.folder.name) / "answers"} if disk else {}
        self.model, self.per, self.now = Naming(), per, 1_000_000.0
        self.given: dict[tuple[str, str], tuple[str, float]] = {}
        self.open()

    def open(self) -> None:
        self.world = World(transport=self.model, per=self.per, ttl=TTL, **self.options)
        self.world.clock.at = self.now

    @rule(
        who=st.sampled_from([ANA, BOB, EVE]),
        question=st.sampled_from(QUESTIONS),
        mode=st.sampled_from(["sync", "async"]),
        sample=st.sampled_from([{}, {"rollout_id": 1}]),
    )
    def ask(self, who: Any, question: str, mode: str, sample: dict[str, Any]) -> None:
        """An answer is his own, to this very question, and no older than its kind allows."""
        self.model.who, self.model.question = who.tenant if self.per == "tenant" else who.user, question
        before = self.world.calls
        answer = self.world.ask(question, mode, who, temperature=0.5, **sample).answer
        asked_by, asked, _ = answer.split("/")
        assert (asked_by, asked) == (self.model.who, question)
        key = (asked_by, question + str(sample))
        if self.world.calls == before:
            text, at = self.given[key]
            kind = {QUESTIONS[0]: "facts", QUESTIONS[1]: "realtime", QUESTIONS[2]: "code"}[question]
            assert answer == text, "a live answer is the cached one"
            assert self.now - at < TTL[kind]
        else:
            self.given[key] = (answer, self.now)

    @rule(seconds=st.sampled_from([1.0, 9.0, 30.0, 101.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.world.clock.at = self.now

    @rule(tenant=st.sampled_from(["acme", "evil"]))
    def evict(self, tenant: str) -> None:
        self.world.cache.evict(tenant=tenant)
        people = {"acme": {"acme", "ana", "bob"}, "evil": {"evil", "eve"}}[tenant]
        self.given = {key: value for key, value in self.given.items() if key[0] not in people}

    @rule()
    def restart(self) -> None:
        """Another process: what was in memory only is gone."""
        if not self.options:
            self.given = {}
        self.open()

    @invariant()
    def never_fails(self) -> None:
        if hasattr(self, "world"):
            assert self.world.cache.stats().failures == 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


Tenants.TestCase.settings = settings(max_examples=25, stateful_step_count=25)
TestTenants = Tenants.TestCase

MODEL = Model("m", "x/m", Scripted(), price=PRICE)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.text(min_size=1)
PARTS = st.one_of(
    st.builds(TextPart, TEXT),
    st.builds(ThinkingPart, TEXT),
    st.builds(RefusalPart, TEXT),
    st.builds(DataPart, JSON),
    st.builds(CitationPart, text=TEXT, url=TEXT, title=TEXT),
    st.builds(ToolCallPart, id=TEXT, name=TEXT, input=st.dictionaries(st.text(), JSON, max_size=3)),
)
LOGPROBS = st.builds(
    TokenLogprob,
    token=st.text(),
    logprob=st.floats(-50, 0),
    bytes=st.none() | st.lists(st.integers(0, 255), max_size=4).map(tuple),
    top=st.lists(st.builds(TopLogprob, token=st.text(), logprob=st.floats(-50, 0)), max_size=2).map(tuple),
)
RESPONSES = st.builds(
    Response,
    id=st.none() | TEXT,
    model=TEXT,
    message=st.lists(PARTS, min_size=1, max_size=4).map(Message.assistant),
    finish_reason=st.sampled_from(["stop", "tool_call", "length"]),
    usage=st.builds(Usage, input_tokens=st.none() | st.integers(0, 10**6), output_tokens=st.integers(0, 10**6)),
    logprobs=st.none() | st.lists(LOGPROBS, max_size=3).map(tuple),
    provider_data=st.none() | st.dictionaries(st.text(), JSON, max_size=3),
)


@given(st.lists(RESPONSES, min_size=1, max_size=3), st.booleans())
def test_round_trip_is_exact_or_not_made(responses: list[Response], logprobs: bool) -> None:
    """Text, reasoning, refusals, data, citations, tool calls, logprobs, n > 1: as they were, or not kept at all."""
    from dspy.clients.call_result import CallResult, combine

    results = [CallResult.native(response, logprobs=logprobs) for response in responses]
    record = Record.of(results[0] if len(results) == 1 else combine(results, model_type="chat"), "facts", 1.5, MODEL)
    text = record.dumped()
    if text is not None:
        again = Record.loaded(text)
        assert again == record
        assert again.responses == tuple(responses)


def test_usual_answers_are_kept() -> None:
    """Tool calls, reasoning, logprobs, one or several candidates: the round trip is made, attributes are there."""
    from dspy.clients.call_result import CallResult, combine

    call = ToolCallPart(id="c1", name="search", input={"q": "é", "n": 1, "deep": {"a": [1.5, None, True]}})
    token = TokenLogprob(token="a", logprob=-0.25, bytes=(97,), top=(TopLogprob(token="b", logprob=-2.0),))
    told = Response(
        id="1",
        model="m",
        message=Message.assistant([ThinkingPart("hm"), TextPart("ok"), call]),
        finish_reason="tool_call",
        usage=Usage(input_tokens=5, output_tokens=7),
        logprobs=(token,),
        provider_data={"escalade": {"model": "m", "cost": 7, "attempts": 1}, "x": [1, 2]},
    )
    one = CallResult.native(told, logprobs=True)
    for result, cost in ((one, 7), (combine([one, one], model_type="chat"), 14)):
        text = Record.of(result, "facts", 1.0, MODEL).dumped()
        assert text is not None
        again = Record.loaded(text)
        hit = again.result()
        assert (again.cost, again.by) == (cost, ("m",) * len(hit.responses))
        assert hit.outputs == result.outputs
        assert hit.outputs[0]["tool_calls"][0].function.name == "search"
        assert hit.outputs[0]["logprobs"].content[0].top_logprobs[0].logprob == -2.0
        assert (hit.usage, hit.cache_hit) == ({}, True)
        bill = hit.responses[0].provider_data["escalade"]
        assert (bill["cost"], bill["list_cost"], bill["cached"]) == (0, 7, True)


ORPHAN = """
import os, signal, sys, time
from tests.agents.cache.worlds import World, answering
world = World([answering("kept")], path=sys.argv[1], now=time.time)
assert world.ask().answer == "kept"
print("done", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_hit_after_kill(tmp_path: Path) -> None:
    """What was answered before kill -9 is there for the next process."""
    folder = tmp_path / "answers"
    command = [sys.executable, "-c", ORPHAN, str(folder)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (-9, "done\n")
    world = World([answering("anew")], path=folder, now=time.time)
    assert world.ask().answer == "kept"
    assert world.calls == 0


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("mode", [1, 2, 3, 4], ids=["raw", "binary file", "text file", "pickle"])
def test_planted_pickle_is_never_executed(tmp_path: Path, mode: int) -> None:
    """A row that diskcache would unpickle, or read a file for, is a miss; nothing of it runs."""
    world = World(path=tmp_path / "answers", memory=0)
    world.ask()
    (tmp_path / "answers" / "bomb").write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    with sqlite3.connect(tmp_path / "answers" / "cache.db") as db:
        db.execute(
            "UPDATE Cache SET mode = ?, value = ?, filename = ?", (mode, pickle.dumps(Bomb(tmp_path / "mark")), "bomb")
        )
    assert world.ask().answer == "42"
    assert world.calls == 2
    assert not (tmp_path / "mark").exists()


def test_folder_is_for_its_owner(tmp_path: Path) -> None:
    """Others can't look into the folder, and no name of a tenant or text of a question is in it."""
    world = World([answering("Lima")], path=tmp_path / "answers")
    world.ask("Capital of Peru?")
    assert (tmp_path / "answers").stat().st_mode & 0o077 == 0
    store: Any = world.cache.shelf.store
    assert isinstance(store, DiskCache)
    store.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "answers").iterdir())
    assert b"Lima" in kept
    assert b"acme" not in kept
    assert b"Peru" not in kept


def test_threads_of_parallel_find_the_tenants_entries() -> None:
    """The scope reaches the threads of `dspy.Parallel`, and so do hits."""
    world = World()
    with scope_of(ANA, budget="1.00"), dspy.context(lm=world.lm(), adapter=dspy.ChatAdapter()):
        world.predict(question="q")
        pairs = [(world.predict, {"question": "q"})] * 4
        dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)
    assert world.calls == 1
