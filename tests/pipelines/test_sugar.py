"""`>>` and `|`: pipelines out of nodes by operators."""

from __future__ import annotations

import copy
from typing import Any

import dspy
import pytest

from escalade.errors import BadInput
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from tests.pipelines.offline import offline_lm


async def words(text: str) -> dict[str, Any]:
    return {"words": text.split()}


async def count(words: list[str]) -> dict[str, int]:
    return {"count": len(words)}


async def double(count: int) -> dict[str, int]:
    return {"count": 2 * count}


def upper(text: str) -> str:
    return text.upper()


def test_one_chain_of_all() -> None:
    """`a >> b >> c` is one chain of three, whichever side is a plain function."""
    chain = words >> node(count) >> double
    assert type(chain) is Chain
    assert list(chain.steps) == ["words", "count", "double"]
    assert chain(text="a b c").count == 6
    assert list((words >> (count >> node(double))).steps) == ["words", "count", "double"]


def test_one_fan_out_of_all() -> None:
    """`a | b | c` is one fan-out of three, named by its nodes; what follows takes their results by name."""
    fan = node(words) | count | node(double, name="twice")
    assert type(fan) is FanOut
    assert list(fan.branches) == ["words", "count", "twice"]
    chain = (node(len, name="size") | upper) >> (lambda size, upper: {"said": f"{upper} {size}"})
    assert chain(obj="abc", text="abc").said == "ABC 3"


def test_names_stay_unique() -> None:
    """Derived names are numbered; given ones must differ."""
    assert list((node(count) >> double >> double).steps) == ["count", "double", "double_2"]
    assert list((node(count) | count | count).branches) == ["count", "count_2", "count_3"]
    assert list((node(count) | (lambda: 1) | (words >> node(count))).branches) == ["count", "branch2", "count_2"]
    twice = node(count, name="n")
    with pytest.raises(BadInput, match="two steps are named 'n'"):
        _ = twice >> twice
    with pytest.raises(BadInput, match="two branches are named 'n'"):
        _ = twice | twice


def test_names_that_people_gave_survive() -> None:
    """A chain that is continued keeps given names and derives the others anew."""
    first = node(count, name="n") >> double
    both = first >> (double >> node(double, name="last"))
    assert list(both.steps) == ["n", "double", "double_2", "last"]


def test_sides_are_left_alone() -> None:
    """No operator changes what it was applied to; one pipeline can be continued in two ways."""
    start = words >> node(count)
    fan = node(words) | count
    one, other = start >> double, start >> (lambda count: {"n": -count})
    _ = fan | double
    assert list(start.steps) == ["words", "count"]
    assert list(fan.branches) == ["words", "count"]
    assert (one(text="a b").count, other(text="a b").n, start(text="a b").count) == (4, -2, 2)


def test_what_was_built_by_name_stays_one_node() -> None:
    """Only what an operator made is continued: a Chain that somebody built has its own fields."""
    built = Chain(words, count)
    assert list((built >> double).steps) == ["chain", "double"]
    assert list((FanOut(a=words) | count).branches) == ["fanout", "count"]
    assert list((built | built).branches) == ["chain", "chain_2"]


def test_precedence_is_pythons() -> None:
    """`>>` binds closer than `|`: a branch may be a chain without parentheses."""
    fan = words >> node(count) | node(upper, name="loud")
    assert list(fan.branches) == ["count", "loud"]
    result = fan(text="a b")
    assert (result.count.count, result.loud) == (2, "A B")


def test_options_travel() -> None:
    """Timeouts and budgets of nodes are those of the steps, also after a chain was continued."""
    chain = node(words, timeout=3.0) >> count >> double
    assert chain._options["words"].timeout == 3.0
    assert (node(words, timeout=2.0) | count | double)._options["words"].timeout == 2.0


def test_fallbacks_travel() -> None:
    """They stay with their node when a chain or a fan-out is continued, at any depth, and DSPy finds them."""

    async def fails(text: str) -> dict[str, Any]:
        raise ValueError("no")

    deep = node(fails, name="words", fallback=node(fails, fallback=node(words)))
    chain = deep >> count >> double
    assert chain(text="a b").count == 4
    assert (deep | count | double)(text="a", words=[], count=1).words == {"words": ["a"]}
    ask = node(dspy.Predict("q -> a"), fallback=dspy.Predict("q -> a")) >> (lambda a: a) >> (lambda q: q)
    assert [name for name, _ in ask.named_predictors()] == ["steps['predict']", "fallbacks['predict']"]


def test_modules_and_every_pipeline_take_part() -> None:
    """A dspy.Module has no operators, but the pipeline beside it has."""
    chain = dspy.Predict("question -> text") >> node(words) >> Map(lambda words: words.upper(), over="words")
    with dspy.context(lm=offline_lm()):
        assert chain(question="why so").results == ["TEXT(WHY", "SO)"]
    assert [name for name, _ in chain.named_predictors()] == ["steps['predict']"]
    assert type(dspy.Predict("a -> b") | node(words)) is FanOut


def test_copies_can_be_continued() -> None:
    """A copy of a chain is continued like the original, with its own nodes."""
    chain = dspy.Predict("question -> text") >> node(words)
    again = copy.deepcopy(chain) >> count
    assert list(again.steps) == ["predict", "words", "count"]
    assert again.steps["predict"] is not chain.steps["predict"]


@pytest.mark.parametrize("make", [lambda: node(words) >> 7, lambda: 7 >> node(words), lambda: node(words) | int])
def test_what_is_no_node_is_refused(make: Any) -> None:
    """A value or a class beside an operator is told in one line."""
    with pytest.raises(BadInput, match="expected a dspy.Module or a function"):
        make()
