"""Through the cache an LM is a `dspy.LM` like any other: history, callbacks, usage, typed requests, errors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import dspy
import pydantic
import pytest
from dspy.lm15 import Config, Message, Request, TextPart
from dspy.utils.callback import BaseCallback

from escalade.registry.audit import AuditLog
from escalade.registry.audit.reading import rows
from tests.agents.cache.worlds import ANA, MODES, World, scope_of

OURS = {"uuid", "timestamp"}


class Heard(BaseCallback):
    """Notes what callbacks are told of LMs."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.told.append(("start", inputs))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.told.append(("end", outputs, exception))


def told(world: World, mode: str, **settings: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    """What callbacks heard, and the history, of one call."""
    heard, lm = Heard(), world.lm(**settings)
    with scope_of(ANA, budget="1.00"), dspy.context(callbacks=[heard]):
        world.with_lm(lm, mode=mode)
    return heard.told, [{name: value for name, value in one.items() if name not in OURS} for one in lm.history]


@pytest.mark.parametrize("mode", MODES)
def test_callbacks_and_history_are_the_same(mode: str) -> None:
    """A miss tells callbacks and history what a call without the cache does; a hit the same, but for usage and cost."""
    world = World()
    plain, missed, hit = told(world, mode, cache=False), told(world, mode), told(world, mode)
    assert world.calls == 2
    assert plain == missed
    assert hit[0] == plain[0]
    (before,), (after,) = plain[1], hit[1]
    differs = {name for name in before if before[name] != after.get(name)}
    assert differs == {"usage", "cost", "cost_details", "cache_hit", "response"}
    (live, kept) = before["response"], after["response"]
    assert (kept.message, kept.usage, kept.id, kept.model) == (live.message, live.usage, live.id, live.model)


def test_usage_is_that_of_calls() -> None:
    """DSPy's usage tracker counts the call and not the hit."""
    world = World()
    with dspy.context(track_usage=True), scope_of(ANA, budget="1.00"):
        first, second = world.here(), world.here()
    assert first.get_lm_usage()["escalade/small"]["prompt_tokens"] == 100
    assert second.get_lm_usage() == {}


@pytest.mark.parametrize("mode", MODES)
def test_typed_requests(mode: str) -> None:
    """An `lm15.Request` has its `lm15.Response` from the cache, too, and shares no entry with messages."""
    world = World()
    request = Request("escalade/small", (Message.user([TextPart("hello")]),), config=Config(temperature=0.0))
    with scope_of(ANA, budget="1.00"):
        lm = world.lm()

        def ask() -> Any:
            return lm(request) if mode == "sync" else asyncio.run(lm.acall(request))

        live, kept = ask(), ask()
    assert world.calls == 1
    assert kept.message == live.message
    assert kept.provider_data["escalade"]["cost"] == 0
    assert kept.provider_data["escalade"]["list_cost"] == live.provider_data["escalade"]["cost"]


@pytest.mark.parametrize("mode", MODES)
def test_errors_are_the_same(mode: str) -> None:
    """What a call raises is what it raises without the cache, and nothing is kept of it."""
    from dspy import lm15

    seen = []
    for options in ({"cache": False}, {}):
        world = World([lm15.InvalidRequestError("no such thing")] * 2)
        with pytest.raises(dspy.utils.exceptions.LMError) as caught:
            world.ask(mode=mode, **options)
        seen.append((type(caught.value), str(caught.value)))
        assert world.cache.stats().entries == 0
    assert seen[0] == seen[1]


@pytest.mark.parametrize("mode", MODES)
def test_structured_outputs_are_kept_by_their_schema(mode: str) -> None:
    """A response format that is a class is a part of the key: another class is another question."""

    class Answer(pydantic.BaseModel):
        number: int

    class Text(pydantic.BaseModel):
        number: str

    world = World()
    with scope_of(ANA, budget="1.00"):
        lm = world.lm()

        def ask(form: Any) -> Any:
            if mode == "sync":
                return lm("hello", response_format=form)
            return asyncio.run(lm.acall("hello", response_format=form))

        for form in (Answer, Answer, Text, Text):
            ask(form)
    assert world.calls == 2


def test_what_has_no_exact_text_is_not_kept() -> None:
    """A setting that JSON can't say, such as a set, has no key: each call is made."""
    world = World()
    with scope_of(ANA, budget="1.00"):
        for _ in range(2):
            world.lm()("hello", stop={"a", "b"})
    assert world.calls == 2
    assert world.row().refused == {"not exact": 2}


async def test_hit_is_in_the_audit(tmp_path: Path) -> None:
    """The audit log has each hit, with its source, also where its record is awaited."""
    world = World()
    with AuditLog(tmp_path / "audit.db") as log:
        async with scope_of(ANA, budget="1.00", recorder=log):
            with dspy.context(lm=world.lm(), adapter=dspy.ChatAdapter()):
                for _ in range(2):
                    await world.predict.acall(question="q")
    told = [row.fields() for row in rows(tmp_path / "audit.db") if row.event == "outcome"]
    assert [(each["outcome"], each.get("source", "")) for each in told] == [("ok", ""), ("ok", "cache")]
    assert world.calls == 1
