"""Compiled programs know which tools their instructions were written for."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import dspy
import pytest

from escalade import Registry, tool
from escalade.errors import BadInput, LockDrift
from escalade.registry.programs import compare, load_program, save_program, tools_of


def search(query: str, limit: int = 10) -> list[str]:
    """Customers whose name contains the query."""
    return [query] * limit


def narrower(query: str) -> list[str]:
    """Customers whose name contains the query."""
    return [query]


def agent(function: Any = search, name: str = "crm.search", **said: Any) -> dspy.ReAct:
    registry = Registry([tool(name=name, **said)(function)], name="shop")
    return dspy.ReAct("question -> answer", tools=registry.tools([name]))


class Outer(dspy.Module):
    """Has an agent inside of a list inside of a dict."""

    def __init__(self, inner: dspy.Module) -> None:
        super().__init__()
        self.parts = {"agents": [inner]}
        self.answer = dspy.Predict("question -> answer")


def test_tools_are_found_anywhere() -> None:
    """In agents, and in agents within modules."""
    assert [one.label for one in tools_of(Outer(agent()))] == ["crm.search@1.0.0"]
    assert tools_of(dspy.Predict("question -> answer")) == []


@pytest.mark.parametrize("name", ["agent.json", "agent.pkl"])
def test_the_same_tools(tmp_path: Path, name: str) -> None:
    """A program that finds the tools it was saved with loads, with its instructions; price and version don't matter."""
    path = tmp_path / name
    program = agent()
    program.react.signature = program.react.signature.with_instructions("Compiled.")
    save_program(program, path)
    options = {"allow_pickle": True} if name.endswith("pkl") else {}
    for other in (agent(), agent(version="1.4.0", cost="0.01", limits="5/s", owner="sales")):
        assert load_program(other, path, **options) == []
        assert other.react.signature.instructions == "Compiled."


@pytest.mark.parametrize(
    ("program", "difference"),
    [
        (lambda: agent(narrower), "crm.search@1.0.0: argument 'limit': gone"),
        (lambda: agent(description="Other words."), "crm.search@1.0.0: description: changed"),
        (lambda: agent(name="crm.find"), "crm.search@1.0.0 is gone"),
    ],
)
def test_changed_tools_are_refused(tmp_path: Path, program: Any, difference: str) -> None:
    """The refusal says what a model was told then and isn't told now; the program is left as it was."""
    path = tmp_path / "agent.json"
    compiled = agent()
    compiled.react.signature = compiled.react.signature.with_instructions("Compiled.")
    save_program(compiled, path)
    other = program()
    with pytest.raises(LockDrift, match="the program was made for other tools: ") as caught:
        load_program(other, path)
    assert difference in caught.value.differences
    assert other.react.signature.instructions != "Compiled."


def test_changed_tools_may_only_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With drift="warn" it loads, logs what differs and returns it."""
    path = tmp_path / "agent.json"
    save_program(agent(), path)
    with caplog.at_level(logging.WARNING, "escalade"):
        found = load_program(agent(narrower), path, drift="warn")
    assert found == ["crm.search@1.0.0: argument 'limit': gone"]
    assert "argument 'limit': gone" in caplog.text


def test_dspy_loads_it_too(tmp_path: Path) -> None:
    """The file stays one of DSPy's: `program.load` reads it and compares nothing."""
    path = tmp_path / "agent.json"
    save_program(agent(), path)
    assert "escalade_tools" in json.loads(path.read_text())["metadata"]
    agent(narrower).load(path)


def test_a_whole_program(tmp_path: Path) -> None:
    """A directory of DSPy's gets the digests as a file beside the program."""
    program = dspy.Predict("question -> answer")
    save_program(program, tmp_path / "whole", save_program=True)
    assert (tmp_path / "whole" / "escalade-tools.json").read_text() == "[]\n"


def test_a_program_that_says_nothing(tmp_path: Path) -> None:
    """Saved by DSPy alone, it is refused, or warned of."""
    path = tmp_path / "agent.json"
    agent().save(path)
    with pytest.raises(LockDrift, match="it says nothing of its tools: save it with save_program"):
        load_program(agent(), path)
    assert len(load_program(agent(), path, drift="warn")) == 1


def test_what_is_no_program(tmp_path: Path) -> None:
    """Files that aren't there or aren't JSON are refused in one line."""
    with pytest.raises(BadInput, match="can't be read"):
        load_program(agent(), tmp_path / "nowhere.json")
    (tmp_path / "bad.json").write_text("[")
    with pytest.raises(BadInput, match="is no saved program"):
        load_program(agent(), tmp_path / "bad.json")


def test_new_tools_are_differences() -> None:
    """A tool that the instructions don't describe is one, too."""
    assert compare([], tools_of(agent())) == ["crm.search@1.0.0 is new"]
