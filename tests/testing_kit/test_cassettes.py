"""A whole run is recorded, models and tools together, and replayed without either."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import dspy
import pytest

import escalade
from escalade import BadInput, Chain, FanOut
from escalade.testing import FakeModel, assert_no_leaks, assert_spent, fake_gateway, fake_tool, record, replay


def ask(gateway: Any) -> dspy.Predict:
    made = dspy.Predict("question -> answer")
    made.lm = gateway.lm("m", cache=False)
    return made


def pipeline(answers: Any, found: Any, name: str) -> tuple[FanOut, FakeModel, list[Any]]:
    model, asked = FakeModel(answers), list[Any]()
    gateway = fake_gateway({"m": model}, name=name)
    tool = fake_tool("kit.find", found, parameters={"question": str}, asked=asked, cost="0.001")
    registry = escalade.Registry([tool])
    return FanOut(a=ask(gateway), b=Chain(found=registry.get_tool("kit.find"))), model, asked


def test_a_run_is_replayed_without_models_and_tools(tmp_path: Path) -> None:
    """The same answers, though both would say something else now, or fail."""
    fan, _, _ = pipeline("recorded", "yes", "recording")
    with escalade.scope(budget="1.00"), record(tmp_path / "runs" / "monday"):
        first = fan(question="why?")
        assert fan(question="who?").a.answer == "recorded"
    other, model, asked = pipeline(RuntimeError("asked"), RuntimeError("asked"), "replaying")
    with escalade.scope(budget="1.00"), replay(tmp_path / "runs" / "monday"):
        second = other(question="why?")
        assert (second.a.answer, second.b.found) == (first.a.answer, first.b.found) == ("recorded", "yes")
    assert (model.asked, asked) == ([], [])


def test_what_was_not_recorded_is_refused(tmp_path: Path) -> None:
    """The refusal shows how the request differs from the nearest that was."""
    path = tmp_path / "monday"
    with escalade.scope(budget="1.00"), record(path):
        ask(fake_gateway({"m": "x"}, name="one"))(question="why is the sky blue?")
    with escalade.scope(budget="1.00"), replay(path):
        with pytest.raises(Exception, match=r"(?s)differs so:.*-why is the sky blue\?.*\+why is the sky red\?"):
            ask(fake_gateway({"m": "x"}, name="two"))(question="why is the sky red?")
    with escalade.scope(), pytest.raises(BadInput, match="nothing was recorded at"), replay(tmp_path / "tuesday"):
        pass
    with escalade.scope(), record(path), pytest.raises(BadInput, match="recorded or replayed already"), record(path):
        pass


@pytest.mark.blocking(10_000)  # it looks at every object there is
async def test_leaks_are_named() -> None:
    """Tasks, threads, and what is held."""
    task: Any = None
    with pytest.raises(AssertionError, match="left behind: task .*sleep"), assert_no_leaks():
        task = asyncio.ensure_future(asyncio.sleep(60))
        await asyncio.sleep(0)
    task.cancel()
    held: Any = None
    with escalade.scope(budget="1.00") as scope:
        with pytest.raises(AssertionError, match=r"left behind: \$0.5 held"), assert_no_leaks():
            held = scope.purse.reserve(500_000_000)
        with pytest.raises(AssertionError, match=r"\$0.5 is held still"):
            assert_spent(scope, "0")
        held.settle(500_000_000)
        assert_spent(scope, "0.5")
        with pytest.raises(AssertionError, match=r"spent \$0.5, expected \$0.1 at the most"):
            assert_spent(scope, most="0.1")
        with assert_no_leaks():
            await FanOut(a=lambda x: x, b=lambda x: x).acall(x=1)


def test_threads_that_go_on_are_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that end in a second are not."""
    monkeypatch.setattr("escalade.testing.claims.PATIENCE", 0.05)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="stray")
    with pytest.raises(AssertionError, match="thread 'stray'"), assert_no_leaks():
        thread.start()
    stop.set()
    thread.join()
    with assert_no_leaks():
        threading.Thread(target=lambda: None).start()
