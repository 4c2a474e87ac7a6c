"""What models read when a call ends without a result."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import time
import traceback
from typing import Any

import dspy
import pytest

import escalade
from escalade import GovernedTool, Principal, Registry, Roles, errors, tool
from escalade.errors import BadInput, BudgetExceeded, EscaladeError, PermissionDenied, ToolError, ToolFailed
from escalade.registry import messages, secrets
from escalade.registry.journal import Journal
from tests.registry.helpers import react_script, scripted_lm
from tests.registry.test_matrix import WAYS, rlm

KEY = "sk-proj-Qm9v3XKfTz81LbWcRd0aYp47"
SENTENCE = f"connect to https://db.corp.example/x?key={KEY} as ana.silva@example.com failed in /srv/app/crm/db.py"
CANARIES = (KEY, "ana.silva@example.com", "db.corp.example", "/srv/app", "db.py", "second line", "Traceback", "File ")


class OwnError(Exception):
    """An exception of a tool, which asks for two arguments and says three lines."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(where, why)
        self.where = where

    def __str__(self) -> str:
        return f"\n{SENTENCE}\nsecond line"


def book(city: str) -> str:
    """Books a flight."""
    raise OwnError("there", "so")


async def abook(city: str) -> str:
    """Books a flight."""
    raise OwnError("there", "so")


def made(function: Any, **said: Any) -> GovernedTool:
    return Registry([tool(name="trip.book", **said)(function)], name="messages").get_tool("trip.book")


@pytest.mark.filterwarnings("ignore:.*ReActV2.*experimental:Warning")
@pytest.mark.parametrize("function", [book, abook], ids=["sync tool", "async tool"])
@pytest.mark.parametrize("way", [*WAYS, rlm], ids=lambda way: way.__name__)
def test_a_tools_own_exception(way: Any, function: Any) -> None:
    """By whatever way the tool was called: one line, with the exception's class and what was left of its first line; no
    traceback, no path, no address, no secret.
    """
    with escalade.scope():
        try:
            said = way(made(function), {"city": "Rome"})
        except (EscaladeError, RuntimeError) as error:
            said = str(error)
    assert "tool_failed: OwnError: connect to <url> as <email> failed in <path>; it may have taken effect" in said
    assert said.strip().endswith("[retryable=no]")
    assert not [canary for canary in CANARIES if canary in said]
    assert len(said.strip().splitlines()) <= 2, "DSPy's own words, a line break, and our one line"


def test_developers_have_all_of_it() -> None:
    """What was raised is the cause, with its traceback, and `original`; `except` finds it by its own class."""
    with escalade.scope(), pytest.raises(OwnError) as caught:
        made(book)(city="Rome")
    error: Any = caught.value
    assert isinstance(error, ToolFailed)
    assert isinstance(error.__cause__, OwnError)
    assert error.__cause__ is error.original
    assert error.original.where == "there"
    assert "raise OwnError" in "".join(traceback.format_exception(error))
    assert error.told.code == "tool_failed"


def test_dspy_takes_nothing_apart() -> None:
    """Formatted by DSPy it is a line; formatted by anybody else it has its traceback and its cause."""
    from dspy.utils.exceptions import format_error_for_lm

    with escalade.scope(), pytest.raises(OwnError) as caught:
        made(book)(city="Rome")
    caught.value.add_note("a note of a developer")
    shown = format_error_for_lm(caught.value, traceback_frames=5)
    assert shown.startswith("\nescalade.errors.ToolFailed: tool_failed: OwnError: ")
    assert len(shown.strip().splitlines()) == 2, "the line and the note"


@pytest.mark.parametrize("kind", [errors.ToolError, ValueError])
def test_notes_of_a_tool_are_for_developers(kind: type[Exception]) -> None:
    """What a tool noted on its exception is no part of what models read; the original has it."""
    from dspy.utils.exceptions import format_error_for_lm

    def noted(city: str) -> str:
        """Books a flight."""
        error = kind("full")
        error.add_note(SENTENCE)
        raise error

    with escalade.scope(), pytest.raises(kind) as caught:
        made(noted)(city="Rome")
    shown = format_error_for_lm(caught.value, traceback_frames=5)
    assert "full" in shown
    assert not [canary for canary in CANARIES if canary in shown]
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__notes__ == [SENTENCE]


class Picky(Exception):
    """Can't be made by anybody else."""

    def __new__(cls, key: int) -> Any:
        return super().__new__(cls, key)


ODD: list[Exception] = [
    Picky(3),
    KeyError("x"),
    OSError(2, "no such file", "/etc/x"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    SyntaxError("bad", ("/srv/app/x.py", 1, 1, "password = 1")),
    ExceptionGroup("several", [ValueError("/srv/x")]),
    ImportError("no", name="x", path="/srv/app/x.py"),
    StopAsyncIteration("x"),
    AssertionError(),
    TimeoutError("its own"),
    NotImplementedError(),
]


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_exceptions_of_all_kinds(error: Exception) -> None:
    """Also classes that can't be combined with ours or be made without arguments give one line, and survive pickling
    without what they held.
    """

    def odd() -> None:
        """Break."""
        raise error

    with escalade.scope():
        try:
            made(odd)()
        except ToolFailed as caught:
            failed = caught
    assert str(failed).startswith(f"tool_failed: {type(error).__name__}")
    assert "/srv" not in str(failed)
    assert "\n" not in str(failed)
    assert failed.original is error
    for again in (pickle.loads(pickle.dumps(failed)), copy.copy(failed)):
        assert (type(again).__name__, str(again), again.original) == ("ToolFailed", str(failed), None)


def test_refusals_keep_their_class_and_fields() -> None:
    """`except RateLimited` works as ever, `retry_after` included; pickled too."""

    def ping() -> str:
        """Ping."""
        return "pong"

    governed = made(ping, limits="1/h", side_effects="read")
    with escalade.scope():
        governed()
        with pytest.raises(errors.RateLimited) as caught:
            governed()
    again = pickle.loads(pickle.dumps(caught.value))
    for error in (caught.value, again):
        assert math.isclose(error.retry_after, 3600, abs_tol=5)
        assert str(error).startswith("rate_limited: tool 'trip.book@1.0.0' is limited to 1/h; try again in")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            errors.AuditUnavailable("it can't be recorded", 1.0, "disk full at /srv"),
            "unavailable: it can't be recorded ",
        ),
        (
            errors.ToolRetired("tool a@1.0.0 was retired"),
            "retired: tool a@1.0.0 was retired; use another tool [retryable=no",
        ),
    ],
)
def test_what_the_registry_itself_refuses(error: errors.Refused, line: str) -> None:
    """A log that can't be written may be there again; a version that was retired won't."""
    said = messages.told(error, made(book).spec)
    assert said.line.startswith(line)
    assert said.retryable == (error.retry_after is not None)
    assert "srv" not in said.line


def test_a_denied_tool_is_an_unknown_tool() -> None:
    """What a model reads of a tool that it may not use is what it reads of one that there is not; the cause and the
    record say what it was.
    """
    guest = {"principal": Principal("ana", roles=frozenset({"guest"})), "access": Roles({"guest": ["x:call"]})}
    with escalade.scope(budget="1", **guest) as scope, pytest.raises(PermissionDenied) as caught:
        made(book)(city="Rome")
    assert str(caught.value) == messages.unknown("trip_book").line
    assert "ana" not in repr(caught.value) + type(caught.value).__qualname__
    assert "Denied" not in repr(caught.value) + type(caught.value).__qualname__
    assert "'ana' may not use tool 'trip.book'" in str(caught.value.__cause__)
    (denial,) = scope.recorder.denials()  # type: ignore[attr-defined]
    assert (denial.outcome, denial.resource) == ("PermissionDenied", "trip.book")


class Broken(Journal):
    """A record that fails before anything is done."""

    def intent(self, entry: Any) -> None:
        raise RuntimeError("the disk is gone")


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize(
    ("said", "recorder", "line"),
    [
        ({"cost": lambda args: args["town"]}, None, "its cost can't be told from the arguments: KeyError"),
        ({"cost": lambda args: "2", "max_cost": "1"}, None, r"a cost of \$2 is not between 0 and its max_cost"),
        ({}, Broken(), "RuntimeError: the disk is gone"),
    ],
)
async def test_what_fails_before_the_tool(said: Any, recorder: Any, line: str, way: str) -> None:
    """It did not run, and a model isn't sent to look whether it took effect."""
    ran = []

    def reserve(city: str) -> None:
        ran.append(city)

    booking = made(reserve, **said)
    with escalade.scope(recorder=recorder), pytest.raises(ToolError, match=rf"{line}.*; it did not run \["):
        await booking.acall(city="Rome") if way == "async" else booking(city="Rome")
    assert ran == []


@pytest.mark.parametrize(("side_effects", "again"), [("none", "yes"), ("read", "yes"), ("write", "no")])
def test_what_may_be_tried_again(side_effects: Any, again: str) -> None:
    """After a failure or a timeout, reading may be repeated; a write may have taken effect, and the line says so."""

    async def slow(fail: bool) -> None:
        """Slow."""
        if fail:
            raise ValueError("no")
        await asyncio.sleep(5)

    governed = made(slow, timeout=0.05, side_effects=side_effects)
    with escalade.scope():
        for fail, code in ((True, "tool_failed"), (False, "timeout")):
            with pytest.raises(EscaladeError, match=rf"^{code}: .*\[retryable={again}\]") as caught:
                governed(fail=fail)
            assert ("may have taken effect" in str(caught.value)) == (again == "no")


def test_the_budget_that_is_left() -> None:
    """Under a budget the line says what is left of it."""
    governed = made(book, cost="0.25")
    with escalade.scope(budget="1"), pytest.raises(ToolFailed, match=r"budget_left=\$0.75\]"):
        governed(city="Rome")


def test_a_tool_that_uses_a_tool() -> None:
    """A refusal of the inner one reaches the model as it is; except that it learns nothing of a tool that the outer one
    may not use.
    """
    inner = Registry([tool(name="inner", cost="2")(lambda_free)], name="inner").get_tool("inner")

    def outer() -> str:
        """Uses another tool."""
        return str(inner())

    governed = made(outer)
    with pytest.raises(BudgetExceeded), escalade.scope(budget="1"):
        with pytest.raises(BudgetExceeded, match="^budget_exceeded: inner@1.0.0 may cost"):
            governed()
    only_outer = {"principal": Principal("ana", roles=frozenset({"r"})), "access": Roles({"r": ["trip.book:call"]})}
    with escalade.scope(**only_outer), pytest.raises(PermissionDenied, match="needs") as caught:
        governed()
    assert "inner" not in str(caught.value)


def lambda_free() -> str:
    """Nothing."""
    return ""


def test_every_refusal_has_a_code() -> None:
    """Each class of refusal has a line of its own that begins with a code, and none is taken for a failed tool."""
    spec = made(book).spec
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Refused)]
    told = {kind.__name__: messages.told(kind("because /srv/app/x"), spec) for kind in kinds}
    assert {name: one.code for name, one in told.items() if one.code == "tool_failed"} == {}
    assert not [name for name, one in told.items() if "/srv" in one.line]


def test_long_texts() -> None:
    """A long message is cut; one so long that its end can't be looked at is not shown."""
    assert len(messages.scrubbed("x y " * 500)) == messages.LONGEST
    assert messages.scrubbed("x " * 5_000) == "(a message too long to show)"
    assert messages.scrubbed("") == messages.scrubbed("\n \n") == ""


@pytest.mark.parametrize("unit", ["a", "a-", "/", "/a", "\\\\", "a.", "a://", "~/", ".py", "C:"])
def test_it_takes_linear_time(unit: str) -> None:
    """No text takes long, whatever it is made of."""
    start = time.thread_time()
    messages.scrubbed((unit * 4_000)[:4_000])
    assert time.thread_time() - start < 0.25


def test_revealed_secrets() -> None:
    """A secret that this process has used is recognised, whatever it looks like."""
    secrets.Secret.of("correct horse battery").reveal()
    assert "horse" not in messages.scrubbed("login with 'correct horse battery' failed")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("limited to 5/s, 100/min", "limited to 5/s, 100/min"),
        ("read/write and text/plain", "read/write and text/plain"),
        ("no /etc/passwd here", "no <path> here"),
        (r"no C:\Users\ana\x.txt here", "no <path> here"),
        ("~/.ssh/id_rsa", "<path>"),
        ("app/x.py:3", "<path>:3"),
        ("'/data.db'", "'<path>'"),
        ("postgresql://u:p@db/x?y=1", "<url>"),
        ("tool 'crm.search@1.0.0-rc.1'", "tool 'crm.search@1.0.0-rc.1'"),
    ],
)
def test_paths_and_addresses(text: str, left: str) -> None:
    """Paths and addresses are taken out, ordinary slashes are not."""
    assert messages.scrubbed(text) == left


def test_code_act_is_refused() -> None:
    """CodeAct copies sources into a sandbox without a guard: where it is made with a governed tool, it says so."""
    governed = made(book)
    for given in (governed, governed.func):
        with pytest.raises(BadInput, match=r"governed tool trip.book@1.0.0; dspy.RLM can"):
            dspy.CodeAct("question -> answer", tools=[given])


@pytest.mark.filterwarnings("ignore:CodeAct is deprecated:DeprecationWarning")
def test_code_act_takes_others() -> None:
    """Tools that nobody governs are its own affair."""
    agent = dspy.CodeAct("question -> answer", tools=[lambda_free])
    assert list(agent.tools) == ["lambda_free"]


def test_an_agent_goes_on_after_a_failure() -> None:
    """ReAct reads the line and answers."""
    with escalade.scope(), dspy.context(lm=scripted_lm(*react_script("trip_book", {"city": "Rome"}))):
        answer = dspy.ReAct("question -> answer", tools=[made(book)], max_iters=2)(question="?")
    assert answer.answer == "42"
    assert "\nescalade.errors.ToolFailed: tool_failed: OwnError:" in answer.trajectory["observation_0"]


def test_the_redactor_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an application finds personal besides is found in messages, too."""
    from escalade.registry.privacy import Pattern, Redactor, redactor

    monkeypatch.setattr(redactor, "_default", Redactor(patterns=[Pattern("badge", r"\bB-[0-9]{4}\b")]))
    assert messages.scrubbed("nobody has B-4711 or ana@example.com") == "nobody has <badge> or <email>"
