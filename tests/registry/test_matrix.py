"""Every way by which DSPy reaches a tool x everything that can refuse it: the tool never runs, each denial is
recorded.
"""

from __future__ import annotations

import inspect
import re
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import dspy
import pytest

import escalade
from escalade import GovernedTool, Principal, Registry, Roles, tool
from escalade.errors import BudgetExceeded, EscaladeError
from escalade.registry.journal import Journal
from tests.registry.helpers import react_script, scripted_lm
from tests.registry.ways import WAYS, named, react, renamed, rlm

ran: list[str] = []


def book(city: str) -> str:
    """Books a flight."""
    ran.append(city)
    return f"booked {city}"


async def abook(city: str) -> str:
    """Books a flight."""
    ran.append(city)
    return f"booked {city}"


# --------------------------------------------------------------------------------------------------------- refusals


@dataclass
class Refusal:
    """A situation in which the tool is refused, and what the model is shown of it."""

    name: str
    error: str
    shows: str
    ends: str = "[retryable=no]"
    recorded: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=lambda: {"city": "Rome"})
    exit: bool = False
    scope: bool = True


GUEST = {"principal": Principal("ana", roles=frozenset({"guest"})), "access": Roles({"guest": ["model.*:call"]})}
POOR = {"budget": "1"}
REFUSALS = [
    Refusal("denied", "UnknownTool", "unknown_tool: Unknown tool: trip_book; use another tool", options=GUEST,
            recorded="PermissionDenied"),
    Refusal("no scope", "NoScope", "no_scope: using tool 'trip.book@1.0.0' needs a scope", scope=False),
    Refusal("rate limited", "RateLimited", "rate_limited: tool 'trip.book@1.0.0' is limited to 1/h; try again in",
            "[retryable=yes, retry_after=3600s]", said={"limits": "1/h"}),
    Refusal("over budget", "BudgetExceeded", "may cost up to $2; budget 'run' of $1", "[retryable=no, budget_left=$0]",
            options=POOR, said={"cost": "2"}, exit=True),
    Refusal("unpriced", "UnknownPrice", "has no known price and the scope has a budget",
            "[retryable=no, budget_left=$1]", options=POOR, said={"cost": None}),
    Refusal("bad arguments", "InvalidArguments", "argument 'city': 3 is not of type", "[retryable=yes]",
            args={"city": 3}),
    Refusal("missing arguments", "InvalidArguments", "missing argument 'city'", "[retryable=yes]", args={}),
    Refusal("unknown arguments", "InvalidArguments", "unknown argument 'town'", "[retryable=yes]",
            args={"town": "Rome"}),
    Refusal("open circuit", "CircuitOpen", "unavailable: tool 'trip.book@1.0.0' failed too often and is left alone for",
            "[retryable=yes, retry_after=30s]"),
]  # fmt: skip


CASES = [
    (way, refusal)
    for way in WAYS
    for refusal in REFUSALS
    # a plain dspy.Tool around our function refuses these itself, before it comes to us
    if way is not renamed or refusal.name not in {"bad arguments", "unknown arguments"}
]


def prepared(function: Any, refusal: Refusal) -> GovernedTool:
    governed = Registry([tool(name="trip.book", **refusal.said)(function)]).get_tool("trip.book")
    resource = governed._registered.resource
    if refusal.name == "rate limited":
        resource.limiter.take("trip.book@1.0.0", resource.limits)
    if refusal.name == "open circuit":
        for _ in range(5):
            resource.breaker.failure(resource.breaker.allow())
    return governed


@pytest.mark.filterwarnings("ignore:.*ReActV2.*experimental:Warning")
@pytest.mark.parametrize("function", [book, abook], ids=["sync tool", "async tool"])
@pytest.mark.parametrize(("way", "refusal"), CASES, ids=lambda one: getattr(one, "__name__", None) or one.name)
def test_a_refused_tool_never_runs(way: Any, refusal: Refusal, function: Any) -> None:
    """Whoever reaches it by whatever way: the tool's own code doesn't run, nothing is paid, the denial is recorded, and
    an agent is told why in one line without a traceback; a refusal for money also comes out of the scope, whoever
    swallowed it.
    """
    ran.clear()
    journal = Journal()
    governed = prepared(function, refusal)
    scope = escalade.scope(recorder=journal, **refusal.options) if refusal.scope else nullcontext()
    on_exit = pytest.raises(BudgetExceeded) if refusal.exit else nullcontext()
    with on_exit, scope:
        try:
            said = way(governed, refusal.args)
        except EscaladeError as error:
            said = f"{type(error).__name__}: {error}"
        except RuntimeError as error:  # of ToolCall.execute, which wraps whatever comes
            assert isinstance(error.__cause__, EscaladeError)
            said = f"{type(error.__cause__).__name__}: {error}"
    assert refusal.error in said
    assert refusal.shows in said
    assert said.strip().endswith(refusal.ends)
    assert "Traceback" not in said
    assert 'File "' not in said
    assert len(said.strip().splitlines()) <= 2, "DSPy's own words, a line break, and our one line"
    assert ran == []
    assert journal.entries() == []
    assert journal.settled == 0
    denials = [denial.outcome for denial in journal.denials()]
    assert denials == ([refusal.recorded or refusal.error] if refusal.scope else [])


@pytest.mark.filterwarnings("ignore:.*ReActV2.*experimental:Warning")
@pytest.mark.parametrize("function", [book, abook], ids=["sync tool", "async tool"])
@pytest.mark.parametrize("way", WAYS, ids=named)
def test_an_allowed_tool_runs_once(way: Any, function: Any) -> None:
    """The same ways, allowed: the tool runs once, is paid once, and the agent sees its result (so that the test above
    means something).
    """
    ran.clear()
    journal = Journal()
    governed = prepared(function, Refusal("none", "", "", said={"cost": "0.5"}))
    with escalade.scope(recorder=journal, budget="1") as scope:
        assert way(governed, {"city": "Rome"}) == "booked Rome"
    assert ran == ["Rome"]
    assert [(entry.resource, entry.outcome) for entry in journal.entries()] == [("trip.book", "ok")]
    assert scope.spent == escalade.Money.of("0.5")


def test_what_an_agent_reads_of_a_denial() -> None:
    """ReAct shows an exception with its traceback; of ours the model reads one line, and of a tool that it may not use
    the one for an unknown tool.
    """
    with escalade.scope(**GUEST):
        said = react(prepared(book, REFUSALS[0]), {"city": "Rome"})
    line = r"unknown_tool: Unknown tool: trip_book; use another tool, or do without it \[retryable=no\]"
    assert re.fullmatch(rf"Execution error in trip_book: \nescalade.errors.UnknownTool: {line}", said)


def test_an_agent_that_goes_on_without_money() -> None:
    """ReAct swallows BudgetExceeded out of a tool and answers as if nothing was; the scope raises it on the way out."""
    governed = prepared(book, Refusal("", "", "", said={"cost": "2"}))
    answers = []
    with pytest.raises(BudgetExceeded, match=r"trip\.book"), escalade.scope(budget="1"):
        agent = dspy.ReAct("question -> answer", tools=[governed], max_iters=2)
        with dspy.context(lm=scripted_lm(*react_script("trip_book", {"city": "Rome"}))):
            answers.append(agent(question="?").answer)
    assert answers == ["42"]


def test_an_agent_may_keep_on_trying() -> None:
    """An agent that asks for a denied tool again and again is denied again and again."""
    ran.clear()
    journal = Journal()
    script = react_script("trip_book", {"city": "Rome"})
    with escalade.scope(recorder=journal, **GUEST), dspy.context(lm=scripted_lm(*script[:1] * 5, *script[1:])):
        dspy.ReAct("question -> answer", tools=[prepared(book, REFUSALS[0])], max_iters=6)(question="?")
    assert ran == []
    assert len(journal.denials()) == 5


@pytest.mark.parametrize("function", [book, abook], ids=["sync tool", "async tool"])
def test_code_that_calls_tools(function: Any) -> None:
    """RLM, whose code runs in a process of its own: allowed, it gets the result; refused, one line, and nothing ran."""
    ran.clear()
    with escalade.scope() as scope:
        assert rlm(prepared(function, Refusal("", "", "")), {"city": "Rome"}) == "booked Rome"
        said = rlm(prepared(function, Refusal("", "", "")), {"city": 3})
        wrong = "invalid_arguments: trip_book: argument 'city': 3 is not of type \"string\""
        assert said == f"RuntimeError InvalidArguments: {wrong}; correct the arguments [retryable=yes]"
        assert len(scope.recorder.entries()) == len(scope.recorder.denials()) == 1  # type: ignore[attr-defined]
    with escalade.scope(**GUEST):
        assert "RuntimeError UnknownTool: unknown_tool: Unknown tool: trip_book" in rlm(
            prepared(function, REFUSALS[0]), {"city": "Rome"}
        )
    assert ran == ["Rome"]


def test_code_act_gets_no_source() -> None:
    """CodeAct copies a tool's source into its sandbox, where no guard is: of ours it gets the door alone."""
    source = inspect.getsource(prepared(book, Refusal("", "", "")).func)
    assert "ran.append" not in source
    assert ".call(args, kwargs)" in source
