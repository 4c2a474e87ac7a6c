"""Modes of scopes: what is recorded, what is replayed, and that nothing runs that must not."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import dspy
import pytest

import escalade
from escalade import Principal, Registry, Roles
from escalade.errors import (
    BadInput,
    BudgetExceeded,
    DeadlineExceeded,
    ModeForbids,
    NotRecorded,
    PermissionDenied,
    ToolError,
    ToolFailed,
    ToolTimeout,
)
from escalade.registry.journal import Journal
from escalade.registry.modes import _WITHIN
from tests.registry.helpers import react_script, scripted_lm


class World:
    """A tool that reads and one that writes, and how often they did."""

    def __init__(self) -> None:
        self.read = self.wrote = 0
        world = self

        @escalade.tool(side_effects="read", cost="0.01")
        def look(city: str, days: int = 1) -> dict[str, dt.date]:
            """Look."""
            world.read += 1
            if city == "nowhere":
                raise LookupError(f"no city {city}\nat line 7")
            return {city: dt.date(2026, 1, days)}

        @escalade.tool(side_effects="write", cost="0.05", dry="booked (dry)")
        def book(city: str) -> str:
            """Book."""
            world.wrote += 1
            return f"booked {city} as number {world.wrote}"

        @escalade.tool(side_effects="irreversible", dry=lambda city: f"would call {city}")
        def call(city: str) -> str:
            """Call."""
            world.wrote += 1
            return "called"

        self.registry = Registry([look, book, call], name="modes")
        self.look, self.book, self.call = (self.registry.get_tool(name) for name in ("look", "book", "call"))


@pytest.fixture
def world() -> World:
    """Anew for each test."""
    return World()


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    """Where calls are recorded."""
    return tmp_path / "calls.jsonl"


def test_what_was_recorded_is_replayed(world: World, tape: Path) -> None:
    """A replay answers each recorded call, in the types of the tool, failures included; nothing runs, nothing costs."""
    with escalade.scope(mode="record", cassette=tape):
        first = [world.look(city="Rome"), world.look(city="Rome", days=2), world.book(city="Rome")]
        with pytest.raises(LookupError):
            world.look(city="nowhere")
    ran = world.read, world.wrote
    journal = Journal()
    with escalade.scope(mode="replay", cassette=tape, budget="0.001", recorder=journal) as run:
        again = [world.look(city="Rome", days=1), world.look(city="Rome", days=2), world.book(city="Rome")]
        with pytest.raises(ToolError, match="LookupError: no city nowhere"):
            world.look(city="nowhere")
        assert run.spent == 0
    assert again == first
    assert again[0] == {"Rome": dt.date(2026, 1, 1)}
    assert (world.read, world.wrote) == ran
    assert {entry.source for entry in journal.entries()} == {"replay"}
    assert tape.stat().st_mode & 0o077 == 0, "it holds arguments and results: nobody else reads it"


def test_a_replay_never_guesses(world: World, tape: Path) -> None:
    """Other arguments, another version, or a call too many: an error, and a recorded denial."""
    with escalade.scope(mode="record", cassette=tape):
        world.look(city="Rome")
        assert [world.book(city="Oslo"), world.book(city="Oslo")] == [
            "booked Oslo as number 1",
            "booked Oslo as number 2",
        ]
    journal = Journal()
    with escalade.scope(mode="replay", cassette=tape, recorder=journal):
        with pytest.raises(NotRecorded, match="no call of look@1.0.0 with these arguments"):
            world.look(city="Paris")
        with pytest.raises(NotRecorded):
            world.call(city="Rome")
        assert [world.look(city="Rome")] * 3 == [world.look(city="Rome") for _ in range(3)]
        assert [world.book(city="Oslo"), world.book(city="Oslo")] == [
            "booked Oslo as number 1",
            "booked Oslo as number 2",
        ], "different answers come in their order"
        with pytest.raises(NotRecorded, match="has 2 answers"):
            world.book(city="Oslo")
    assert [entry.outcome for entry in journal.denials()] == ["NotRecorded"] * 3


def test_a_dry_run_runs_nothing(world: World) -> None:
    """Tools say what they were declared to say, by value or by function; those without are refused."""
    journal = Journal()
    with escalade.scope(mode="dry-run", recorder=journal) as run:
        assert world.book(city="Rome") == "booked (dry)"
        assert world.call(city="Rome") == "would call Rome"
        with pytest.raises(ModeForbids, match="declared with dry"):
            world.look(city="Rome")
        assert run.spent == 0
    assert (world.read, world.wrote) == (0, 0)
    assert [entry.source for entry in journal.entries()] == ["dry-run", "dry-run"]


async def test_only_reading_is_live(world: World) -> None:
    """live-read-only: reads run and cost what they cost, writes are refused, in all ways to call them."""
    with escalade.scope(mode="live-read-only") as run:
        assert world.look(city="Rome")
        assert run.spent == escalade.Money.of("0.01")
        for way in (lambda: world.book(city="Rome"), lambda: world.book.func("Rome"), lambda: world.call(city="x")):
            with pytest.raises(ModeForbids, match="this scope only reads"):
                way()
        with pytest.raises(ModeForbids):
            await world.book.acall(city="Rome")
    assert (world.read, world.wrote) == (1, 0)


@pytest.mark.parametrize("mode", ["replay", "dry-run", "live-read-only", "record"])
def test_the_roles_decide_in_every_mode(world: World, tape: Path, mode: Any) -> None:
    """Who may not use a tool gets neither a recorded nor a dry answer, and that is recorded."""
    with escalade.scope(mode="record", cassette=tape):
        world.book(city="Rome")
    ran, journal, access = world.wrote, Journal(), Roles({"reader": ["look:call"]})
    cassette = tape if mode in {"replay", "record"} else None
    with escalade.scope(
        principal=Principal("eve", roles=frozenset({"reader"})), access=access, mode=mode, cassette=cassette,
        recorder=journal,
    ):  # fmt: skip
        with pytest.raises(PermissionDenied):
            world.book(city="Rome")
    assert world.wrote == ran
    assert [entry.outcome for entry in journal.denials()] == ["PermissionDenied"]


@pytest.mark.parametrize("outer", list(_WITHIN))
@pytest.mark.parametrize("inner", list(_WITHIN))
def test_modes_only_narrow(world: World, tape: Path, outer: Any, inner: Any) -> None:
    """A nested scope is never more live than the outer one; without a mode of its own it has the outer one's."""
    tape.touch()

    def cassette(mode: str) -> Any:
        return tape if mode in {"record", "replay"} else None

    with escalade.scope(mode=outer, cassette=cassette(outer)):
        with escalade.scope() as same:
            assert same.mode == outer
        if inner in _WITHIN[outer]:
            with escalade.scope(mode=inner, cassette=cassette(inner)) as narrower:
                assert narrower.mode == inner
        else:
            with (
                pytest.raises(BadInput, match="modes only narrow"),
                escalade.scope(mode=inner, cassette=cassette(inner)),
            ):
                pass


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"mode": "alive"}, "unknown mode 'alive'"),
        ({"mode": "replay"}, "needs a cassette"),
        ({"mode": "record"}, "needs a cassette"),
        ({"cassette": "x.jsonl"}, "a cassette is for"),
        ({"mode": "dry-run", "cassette": "x.jsonl"}, "a cassette is for"),
        ({"mode": "replay", "cassette": "missing.jsonl"}, "can't read the cassette 'missing.jsonl'"),
    ],
)
def test_modes_that_make_no_sense(said: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't work is said when the scope is opened."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message), escalade.scope(**said):
        pass


@pytest.mark.parametrize("line", ["no json", "[]", '{"tool": "t"}', '{"tool": "t", "args": "a"}', '"x"'])
def test_a_broken_cassette(line: str, tape: Path) -> None:
    """A line that is no recorded call is named."""
    good = json.dumps({"tool": "t@1.0.0", "args": "a", "given": {}, "result": 1})
    tape.write_text(f"{good}\n{line}\n")
    with pytest.raises(BadInput, match=r"'calls.jsonl', line 2"), escalade.scope(mode="replay", cassette=tape):
        pass


def test_a_result_that_is_not_json_is_said(tape: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What can't be recorded is not recorded in silence."""
    made = escalade.tool(name="odd")(object)
    tool = Registry([made], name="odd").get_tool("odd")
    with escalade.scope(mode="record", cassette=tape):
        tool()
    assert "could not be recorded" in caplog.text
    tape.touch()
    with escalade.scope(mode="replay", cassette=tape), pytest.raises(NotRecorded):
        tool()


def test_an_agent_in_a_dry_run(world: World) -> None:
    """ReAct gets the dry answer and goes on; the tool has not run."""
    lm = scripted_lm(*react_script("book", {"city": "Rome"}))
    with escalade.scope(mode="dry-run"), dspy.context(lm=lm):
        answer = dspy.ReAct("question -> answer", tools=[world.book])(question="?")
    assert answer.answer == "42"
    assert answer.trajectory["observation_0"] == "booked (dry)"
    assert world.wrote == 0


def test_recorded_in_one_process_and_replayed_by_many_threads(world: World, tape: Path) -> None:
    """An evaluation hammers the tools in a replay: same answers, and the world is left alone."""
    with escalade.scope(mode="record", cassette=tape):
        for day in range(1, 9):
            world.look(city="Rome", days=day)
    ran = world.read

    def score(example: Any, pred: Any, trace: Any = None) -> bool:
        return pred.day == {"Rome": dt.date(2026, 1, example.day)}

    class Ask(dspy.Module):
        def forward(self, day: int) -> Any:
            return dspy.Prediction(day=world.look(city="Rome", days=day))

    examples = [dspy.Example(day=day).with_inputs("day") for day in range(1, 9)] * 4
    with escalade.scope(mode="replay", cassette=tape):
        result = dspy.Evaluate(devset=examples, metric=score, num_threads=4, display_progress=False)(Ask())
    assert result.score == 100
    assert world.read == ran


# ----------------------------------------------------------------------------------------- what a recording consists of


class Strange(Exception):
    """An error that only this file knows."""


class Picky(ValueError):
    """One that wants to be made in its own way."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


ERRORS = {
    "one of Python's": (lambda: LookupError("not there"), LookupError),
    "one that quotes its text": (lambda: KeyError("colour"), KeyError),
    "one with a number": (lambda: FileNotFoundError(2, "No such file"), FileNotFoundError),
    "one that can't be made of a text": (lambda: UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), UnicodeDecodeError),
    "one of ours": (lambda: ToolFailed("the server said no"), ToolFailed),
    "one of nobody's": (lambda: Strange("so"), ToolFailed),
    "one with a constructor of its own": (lambda: Picky(7, "so"), ToolFailed),
    "one without words": (TypeError, TypeError),
}


@pytest.mark.parametrize(("make", "kind"), ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("effect", ["read", "write"])
def test_failures_are_replayed_as_they_were(make: Any, kind: Any, effect: Any, tape: Path) -> None:
    """Of the same class where that is Python's or ours, and a model reads the same line about it."""

    def fail() -> None:
        raise make()

    tool = Registry([escalade.tool(side_effects=effect)(fail)], name="fail").get_tool("fail")
    said = []
    for mode in ("record", "replay"):
        with escalade.scope(mode=mode, cassette=tape), pytest.raises(kind) as caught:
            tool()
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_attempts_are_replayed(tape: Path) -> None:
    """A call that worked at its third attempt does so again."""
    ran: list[int] = []

    def flaky() -> int:
        ran.append(1)
        if len(ran) < 3:
            raise OSError("busy")
        return len(ran)

    tool = Registry([escalade.tool(side_effects="read", retries=2)(flaky)], name="flaky").get_tool("flaky")
    for mode in ("record", "replay"):
        journal = Journal()
        with escalade.scope(mode=mode, cassette=tape, recorder=journal):
            assert tool() == 3
        assert [entry.outcome for entry in journal.entries()] == ["failed", "failed", "ok"]
    assert len(ran) == 3


def test_a_timeout_is_an_answer_and_a_refusal_is_none(tape: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the tool is to blame for is recorded; deadlines and budgets are the caller's, and are not."""
    asked: list[int] = []

    @escalade.tool(side_effects="read", timeout=0.1)
    async def slow(x: int) -> int:
        asked.append(x)
        await asyncio.sleep(9)
        return x

    @escalade.tool(side_effects="read", cost="0.01")
    def dear() -> int:
        raise BudgetExceeded("somebody else's")

    registry = Registry([slow, dear], name="slow")
    tool = registry.get_tool("slow")
    with escalade.scope(mode="record", cassette=tape):
        with pytest.raises(ToolTimeout):
            tool(x=1)
        with pytest.raises(DeadlineExceeded), escalade.scope(deadline=0.05):
            tool(x=2)
        with pytest.raises(BudgetExceeded):
            registry.get_tool("dear")()
    assert "recorded" not in caplog.text
    with escalade.scope(mode="replay", cassette=tape):
        with pytest.raises(ToolTimeout, match="did not answer within"):
            tool(x=1)
        assert asked == [1, 2], "it isn't asked again"
        for missing in (lambda: tool(x=2), registry.get_tool("dear")):
            with pytest.raises(NotRecorded):
                missing()


def test_answers_out_of_caches_are_recorded(tape: Path) -> None:
    """Who replays has none of our caches: what was answered from one, or had been done before, is on the cassette."""
    ran: list[str] = []

    @escalade.tool(side_effects="read", cache=60)
    def known(x: int) -> dict[str, dt.date]:
        ran.append("known")
        return {"day": dt.date(2026, 1, x)}

    @escalade.tool(once=True)
    def send(x: int) -> int:
        ran.append("send")
        return len(ran)

    registry = Registry([known, send], name="kept")
    known_tool, send_tool = registry.get_tool("known"), registry.get_tool("send")
    with escalade.scope():
        known_tool(x=1)
        send_tool(x=1)
        with escalade.scope(mode="record", cassette=tape):
            first = [known_tool(x=1), send_tool(x=1), send_tool(x=2), send_tool(x=2)]
    assert ran == ["known", "send", "send"]
    journal = Journal()
    with escalade.scope(mode="replay", cassette=tape, recorder=journal):
        assert [known_tool(x=1), send_tool(x=1), send_tool(x=2), send_tool(x=2)] == first
    assert {entry.source for entry in journal.entries()} == {"replay"}
    assert len(ran) == 3


async def test_equal_calls_of_nodes_are_told_apart(tape: Path) -> None:
    """Each node of a pipeline, and each item of a map, is replayed its own answer, however they take turns."""
    numbers = iter(range(100))

    @escalade.tool(side_effects="read")
    async def draw(name: str) -> int:
        number = next(numbers)
        await asyncio.sleep(0.02 * (number % 3))
        return number

    tool = Registry([draw], name="draw").get_tool("draw")

    async def one(name: str) -> int:
        drawn: int = await tool.acall(name=name)
        return drawn

    async def twice(name: str) -> list[int]:
        return [await tool.acall(name=name), await tool.acall(name=name)]

    pipeline = escalade.FanOut(a=one, b=one, c=twice, d=escalade.Map(one, over="names", item="name"))
    inputs = {"name": "x", "names": ["x"] * 4}
    with escalade.scope(mode="record", cassette=tape):
        first = (await pipeline.acall(**inputs)).toDict()
    for _ in range(3):
        with escalade.scope(mode="replay", cassette=tape):
            assert (await pipeline.acall(**inputs)).toDict() == first
            with pytest.raises(NotRecorded, match="8 answers .* 0 of them in this step"):
                await tool.acall(name="x")
    assert next(numbers) == 8, "nothing ran in the replays"


async def test_equal_calls_of_one_step(tape: Path) -> None:
    """At once in one step they can't be told apart: the first to ask gets the answer that came first."""

    @escalade.tool(side_effects="read")
    async def wait(text: str) -> str:
        order.append(text)
        mine = len(order)
        await asyncio.sleep(0.2 / mine)
        return f"asked as number {mine}"

    order: list[str] = []
    tool = Registry([wait], name="wait").get_tool("wait")
    with escalade.scope(mode="record", cassette=tape):
        await asyncio.gather(*(tool.acall(text="x") for _ in range(3)))
    with escalade.scope(mode="replay", cassette=tape):
        got = [await tool.acall(text="x") for _ in range(3)]
    assert got == ["asked as number 3", "asked as number 2", "asked as number 1"], "in the order in which they ended"


def test_a_cassette_that_can_not_be_written(world: World, tape: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The call was made and its caller has the answer; that it is not on the cassette is said."""
    tape.mkdir()
    with escalade.scope(mode="record", cassette=tape):
        assert world.book(city="Rome") == "booked Rome as number 1"
    assert "could not be recorded" in caplog.text


# ------------------------------------------------------------------------------------------------ the mode of a process


def test_a_process_in_a_mode(world: World, tape: Path) -> None:
    """`escalade.configure(mode=...)` holds where no scope was opened, and no scope is more live than it."""
    escalade.configure(mode="dry-run")
    assert world.book(city="Rome") == "booked (dry)"
    with escalade.scope():
        assert world.book(city="Rome") == "booked (dry)"
    with pytest.raises(BadInput, match="modes only narrow"), escalade.scope(mode="live-read-only"):
        pass
    assert world.wrote == 0
    escalade.configure(mode="live-read-only")
    assert world.look(city="Rome")
    with pytest.raises(ModeForbids):
        world.book(city="Rome")
    escalade.configure()
    assert world.book(city="Rome") == "booked Rome as number 1"


def test_a_process_that_records_and_one_that_replays(world: World, tape: Path) -> None:
    """The calls of all runs are on the cassette; each run replays it from the beginning."""
    escalade.configure(mode="record", cassette=tape)
    first = [world.book(city="Rome")]
    with escalade.scope():
        first.append(world.book(city="Rome"))
    escalade.configure(mode="replay", cassette=tape)
    for _ in range(3):
        with escalade.scope():
            with escalade.scope():
                assert world.book(city="Rome") == first[0]
            assert world.book(city="Rome") == first[1]
            with pytest.raises(NotRecorded):
                world.book(city="Rome")
    assert world.wrote == 2


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"mode": "alive"}, "unknown mode 'alive'"),
        ({"mode": "replay"}, "needs a cassette"),
        ({"cassette": "x.jsonl"}, "a cassette is for"),
        ({"mode": "replay", "cassette": "missing.jsonl"}, "can't read the cassette 'missing.jsonl'"),
    ],
)
def test_modes_that_make_no_sense_for_a_process(
    world: World, said: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same is said as of scopes, and what was configured before stays."""
    monkeypatch.chdir(tmp_path)
    escalade.configure(mode="dry-run")
    with pytest.raises(BadInput, match=message):
        escalade.configure(**said)
    assert world.book(city="Rome") == "booked (dry)"
