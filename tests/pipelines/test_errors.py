"""What a failing node raises."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import traceback
from typing import Any

import dspy
import pydantic
import pytest

from escalade.errors import BudgetExceeded, NodeError, NodeTimeout, NoScope, PermissionDenied, ToolError
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.node import node


def raising(error: BaseException) -> Any:
    async def step() -> None:
        raise error

    return step


def caught(pipeline: Any) -> BaseException:
    try:
        asyncio.run(pipeline.acall())
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class Custom(Exception):
    """With an __init__ of its own, and attributes."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code, self.hint = code, hint


class Model(pydantic.BaseModel):
    x: int


def pydantic_error() -> Exception:
    try:
        Model(x="no")
    except pydantic.ValidationError as error:
        return error
    raise AssertionError


ORIGINALS = [
    ValueError("boom"),
    KeyError("k"),
    OSError(28, "disk full", "/x"),
    FileNotFoundError(2, "no such file", "y"),
    TimeoutError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    json.JSONDecodeError("expecting", "{", 1),
    AttributeError("no attribute", name="n", obj=1),
    Custom(7, hint="try again"),
    ToolError("the tool broke"),
    dspy.LMRateLimitError("slow down"),
    Exception("plain"),
    NodeError("elsewhere", "raised by a user"),
    NodeTimeout("elsewhere", "raised by a user"),
    StopAsyncIteration(),
    ImportError("no module", name="m"),
    AssertionError(),
]


@pytest.mark.parametrize("original", ORIGINALS, ids=lambda e: type(e).__name__)
def test_a_failure_is_a_node_error_and_of_the_originals_class(original: Exception) -> None:
    """`except NodeError` and `except ValueError` both catch it; the cause is the original itself."""
    error = caught(FanOut(left=Chain(first=raising(original))))
    assert isinstance(error, NodeError)
    assert isinstance(error, type(original))
    assert error.__cause__ is original
    assert error.path == "left/first"
    assert str(error).startswith("node 'left/first': ")
    assert error.__context__ is None  # no ExceptionGroup that prints everything twice


def test_the_originals_attributes_are_there() -> None:
    """errno, code, doc, ... : who catches the class may look at what it is caught for."""
    assert caught(Chain(a=raising(OSError(28, "disk full")))).errno == 28
    custom = caught(Chain(a=raising(Custom(7, hint="try again"))))
    assert (custom.code, custom.hint) == (7, "try again")
    assert caught(Chain(a=raising(json.JSONDecodeError("expecting", "{", 1)))).doc == "{"
    assert caught(Chain(a=raising(AttributeError("x", name="n")))).name == "n"


def test_a_class_that_cannot_be_mixed_is_a_plain_node_error() -> None:
    """A final class, or a group, is the cause; the failure is a NodeError all the same."""
    for original in (pydantic_error(), ExceptionGroup("several", [ValueError("a"), KeyError("b")])):
        error = caught(Chain(a=raising(original)))
        assert isinstance(error, NodeError)
        assert error.__cause__ is original


@pytest.mark.parametrize("original", [BudgetExceeded("no money"), PermissionDenied("no"), NoScope("a call")])
def test_refusals_pass_by_identity_with_the_path_as_a_note(original: Exception) -> None:
    """The guard's word stays its word; a traceback shows where it was."""
    error = caught(_deep(original))
    assert error is original
    assert error.path == "a/b"
    assert error.__notes__ == ["in node a/b"]
    assert "in node a/b" in "".join(traceback.format_exception(error))


def _deep(original: BaseException) -> Chain:
    return Chain(a=FanOut(b=raising(original), c=lambda: None))


@pytest.mark.parametrize("original", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_what_is_no_exception_passes_by_identity(original: BaseException) -> None:
    """Ctrl-C and exit are nobody's failure."""
    with pytest.raises(type(original)) as raised:
        asyncio.run(_deep(original).acall())
    assert raised.value is original


def test_a_node_that_cancels_itself_is_not_lost() -> None:
    """A CancelledError from inside a node reaches the caller instead of leaving a hole in the results."""
    for pipeline in (_deep(asyncio.CancelledError()), Chain(a=raising(asyncio.CancelledError()))):
        assert isinstance(caught(pipeline), asyncio.CancelledError)

    async def cancelled(x: int) -> int:
        if x == 1:
            raise asyncio.CancelledError
        return x

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Map(cancelled, over="xs").acall(xs=[0, 1, 2]))


@pytest.mark.parametrize("original", [ValueError("boom"), OSError(28, "disk full"), None], ids=repr)
def test_failures_survive_pickle_and_copy(original: Exception | None) -> None:
    """A worker process can hand its failure over."""
    work = Chain(a=node(asyncio.Event().wait, name="a", timeout=0.01)) if original is None else _deep(original)
    error = caught(work)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert str(again) == str(error)
        assert again.path == error.path
        assert isinstance(again, TimeoutError if original is None else type(original))
        assert isinstance(again, NodeTimeout) == (original is None)


def test_the_first_failure_is_the_one_that_is_raised() -> None:
    """What siblings raise while they are being cancelled hides nothing."""

    async def bad_loser() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            raise KeyError("on the way out")

    async def first() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("the cause")

    error = caught(FanOut(loser=bad_loser, first=first))
    assert isinstance(error, ValueError)
    assert error.path == "first"


def test_the_traceback_names_the_users_line() -> None:
    """Through two levels of pipelines, the user's own function is in the printed traceback, once."""
    printed = "".join(traceback.format_exception(caught(_deep(ValueError("boom")))))
    assert printed.count("ValueError: boom\n") == 2  # the original, and the failure that says where
    assert printed.count("in step") == 1
    assert "ExceptionGroup" not in printed
