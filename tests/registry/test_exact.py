"""What a call is known by: no two calls that are two pass for one, wherever an answer is given again."""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

import escalade
from escalade import Chain, Registry, Runs
from escalade.errors import InvalidArguments, NotRecorded, RunError
from escalade.registry.canonical import digest
from escalade.registry.exact import exact


class Refund(BaseModel):
    """Money back."""

    amount: int


class Charge(BaseModel):
    """Money in."""

    amount: int


PAIRS = [
    (Refund(amount=5), Charge(amount=5)),
    ([Refund(amount=5)], [Charge(amount=5)]),
    (deque([Refund(amount=5)]), deque([Charge(amount=5)])),
    (Refund(amount=5), {"amount": 5}),
    (Decimal("1.0"), "1.0"),
    (dt.date(2026, 1, 1), "2026-01-01"),
    (b"a", "a"),
    ((1, 2), [1, 2]),
    (frozenset({1}), [1]),
    ({1: "a"}, {"1": "a"}),
    ({"1", Decimal(2)}, {Decimal(1), "2"}),
    (SecretStr("one"), SecretStr("two")),
    (1, True),
    (1, 1.0),
]

_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
    | st.decimals(allow_nan=False, allow_infinity=False, places=1)
    | st.dates()
)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2) | st.integers(0, 3), inner, max_size=3)
        | st.frozensets(_scalars, max_size=3)
    ),
    max_leaves=6,
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def shown(value: Any) -> str:
    """The value with all of its types, in one order."""
    if isinstance(value, dict):
        return f"{{{sorted((repr(key), shown(one)) for key, one in value.items())}}}"
    if isinstance(value, frozenset):
        return f"set {sorted(map(shown, value))}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} {[shown(one) for one in value]}"
    return repr(value)


@given(_values, _values)
def test_equal_for_equal_values_of_equal_types_alone(one: Any, two: Any) -> None:
    """Whatever is nested in whatever."""
    try:
        same = exact({"x": one}).digest == exact({"x": two}).digest
    except ValueError:  # two keys of one text
        assume(False)
    assert same == (shown(one) == shown(two))


@given(st.dictionaries(st.text(max_size=3), _json, max_size=3))
def test_plain_json_is_known_by_its_text(arguments: Any) -> None:
    """So what was kept of such calls is found whatever is decided about types."""
    assert exact(arguments).digest == digest(arguments)


def test_what_has_no_exact_text() -> None:
    """It says so in one line; depth is no crash."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (float("nan"), float("inf"), b"\xff", object(), {1: "a", "1": "b"}, deep):
        with pytest.raises(ValueError, match=r"^.+$"):
            exact({"x": value})


class World:
    """A tool that takes anything, declared in some way."""

    def __init__(self, **said: Any) -> None:
        self.ran: list[Any] = []

        def do(what: Any) -> str:
            self.ran.append(what)
            return str(len(self.ran))

        self.tool: Callable[..., str] = Registry([escalade.tool(**said)(do)], name="exact").get_tool("do")


@pytest.mark.parametrize(("one", "two"), PAIRS)
@pytest.mark.parametrize("said", [{"once": True}, {"side_effects": "read", "cache": 60}])
def test_two_calls_are_two(said: Any, one: Any, two: Any) -> None:
    """With `once` and with a cache, each of two calls that look the same as JSON runs; the same again doesn't."""
    world = World(**said)
    with escalade.scope():
        assert [world.tool(what=what) for what in (one, two, one, two)] == ["1", "2", "1", "2"]
    assert [type(what) for what in world.ran] == [type(one), type(two)]


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_a_cassette_answers_what_was_recorded(one: Any, two: Any, tmp_path: Path) -> None:
    """And not what looks like it."""
    world, tape = World(), tmp_path / "calls.jsonl"
    with escalade.scope(mode="record", cassette=tape):
        world.tool(what=one)
    with escalade.scope(mode="replay", cassette=tape):
        assert world.tool(what=one) == "1"
        with pytest.raises(NotRecorded):
            world.tool(what=two)


def test_a_run_gives_each_call_its_own_answer(tmp_path: Path) -> None:
    """Also where it goes on in another order."""
    world, order, given_ = World(once=True), [Refund(amount=5), Charge(amount=5)], []

    def act(x: str) -> str:
        given_.append([world.tool(what=what) for what in order])
        if len(given_) == 1:
            raise ValueError("not yet")
        return x

    with Runs(tmp_path / "r.sqlite", pipelines={"p": Chain(act=act)}) as runs:
        run = runs.start("p", run_id="r", x="x")
        with pytest.raises(RunError, match="not yet"):
            run.result(10)
        order.reverse()
        run.resume().result(10)
    assert (given_, len(world.ran)) == ([["1", "2"], ["2", "1"]], 2)


@pytest.mark.parametrize("value", [float("nan"), [b"\xff"]])
def test_arguments_without_an_exact_text(value: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is made `once` is refused, and didn't run. A cache keeps nothing of it, nor does a cassette, which says so:
    the call was made, and has its answer.
    """
    once, cached = World(once=True), World(side_effects="read", cache=60)
    with escalade.scope():
        with pytest.raises(InvalidArguments, match=r"invalid_arguments.*no exact text.*correct the arguments"):
            once.tool(what=value)
        assert [cached.tool(what=value) for _ in range(2)] == ["1", "2"]
    assert once.ran == []
    with escalade.scope(mode="record", cassette=tmp_path / "calls.jsonl"):
        assert World().tool(what=value) == "1"
    assert "could not be recorded" in caplog.text
