"""Options that take one of a few words: a misspelt one is refused where it is written, and switches no guard off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import escalade
from escalade import Budget, Constant, Model, Registry, tool
from escalade.errors import BadInput, one_of
from escalade.registry.guard import Resource


def look(query: str, limit: int = 10) -> str:
    """Look it up."""
    return query[:limit]


def narrower(query: str) -> str:
    """Look it up."""
    return query


def model(**said: Any) -> Model:
    return Model("a", "a", escalade.Simulated(escalade.World()), **said)


OPTIONS: dict[str, Callable[[Any], object]] = {
    "gate": lambda word: Registry(gate=word),
    "sunset": lambda word: Registry(sunset=word),
    "drift": lambda word: escalade.load_program(dspy.Predict("a -> b"), "none.json", drift=word),
    "limits_per": lambda word: Resource("a", "", "tool", "a:call", limits_per=word),
    "when_store_is_down": lambda word: Resource("a", "", "tool", "a:call", when_store_is_down=word),
    "side_effects": lambda word: tool(name="a", side_effects=word)(look),
    "cache_per": lambda word: tool(name="a", side_effects="read", cache=1.0, cache_per=word)(look),
    "approval": lambda word: tool(name="a", approval=word)(look),
    "on_death": lambda word: escalade.SqliteLedger("options.sqlite", [], on_death=word),
    "synchronous": lambda word: escalade.AuditLog("options.sqlite", synchronous=word),
    "budget period": lambda word: Budget("tenant:*", "1.00", period=word),
    "mode": lambda word: escalade.scope(mode=word).__enter__(),
    "fallback_tiers": lambda word: model(fallback_tiers=word),
    "kind": lambda word: model(kind=word),
    "per": lambda word: escalade.Answers(per=word),
    "joins": lambda word: escalade.ResponseCache("options", joins=word),
    "priority": escalade.priority,
    "style": lambda word: escalade.ToolAgent("question -> answer", tools=[], style=word),
    "on_budget": lambda word: escalade.ToolAgent("question -> answer", tools=[], on_budget=word),
    "cache": lambda word: escalade.NodeCache(seconds=1.0, per=word),
    "sticky_by": lambda word: escalade.Canary(Constant(0), Constant(1), sticky_by=word),
    "labels": lambda word: escalade.load_outcomes(labels=word),
    "missing": lambda word: escalade.load_outcomes(missing=word),
    "contaminated": lambda word: escalade.load_outcomes(contaminated=word),
    "engine": lambda word: escalade.Runs(engine=word),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("word", ["refsue", ""])
def test_a_misspelt_word_is_refused(option: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, by an error that names the option. An empty word is no way to say nothing."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=option):
        OPTIONS[option](word)


@pytest.mark.parametrize("word", ["warn", "refsue", ""])
def test_a_misspelt_gate_lets_nothing_in(word: Any) -> None:
    """One that is said to `register` neither: the version isn't there afterwards."""
    registry = Registry([tool(name="a", side_effects="read")(look)], name="options")
    with pytest.raises(BadInput, match=f"gate: expected 'refuse' or 'off', got '{word}'"):
        registry.register(tool(name="a", version="1.1.0", side_effects="read")(narrower), gate=word)
    assert [spec.version for spec in registry.specs()] == ["1.0.0"]


def test_one_of_names_its_choices() -> None:
    """All of them, None too where that is one."""
    assert one_of("missing", "drop", ("refuse", "drop", "keep")) is None
    with pytest.raises(BadInput, match="^labels: expected None, 'a' or 'b', got 'c'$"):
        one_of("labels", "c", (None, "a", "b"))
