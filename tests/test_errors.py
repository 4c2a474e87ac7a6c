"""Errors: the tree is as drawn, they survive pickle and copy, and they cross DSPy's boundary as themselves."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import traceback
from typing import Any

import dspy
import pytest

from escalade import errors
from escalade.errors import (
    AuditIncomplete,
    AuditUnavailable,
    BadInput,
    BudgetExceeded,
    CircuitOpen,
    DeadlineExceeded,
    EscaladeError,
    ForeignModel,
    IncompatibleVersion,
    InvalidArguments,
    LockDrift,
    NodeError,
    NoScope,
    PermissionDenied,
    RateLimited,
    Refused,
    ToolRetired,
    UnknownName,
    UnknownPrice,
)
from escalade.registry.dspy_errors import for_dspy, for_model
from tests.registry.helpers import GovernedScript, requests, scripted_lm

EXAMPLES: list[EscaladeError] = [
    BadInput("bad"),
    UnknownName("policy", "treshold", ["threshold", "oracle"]),
    UnknownPrice("unpriced"),
    NoScope("calling"),
    PermissionDenied("no"),
    RateLimited("full", 1.5),
    CircuitOpen("open", 30.0),
    BudgetExceeded("dear", account="run", limit=10, left=3, asked=5),
    DeadlineExceeded("late"),
    ForeignModel("foreign"),
    InvalidArguments("wrong"),
    NodeError("a/b", "broke"),
    IncompatibleVersion("breaks", ("argument 'limit' was removed",), "2.0.0"),
    LockDrift("drifted", ("cost: 1 -> 2",)),
    ToolRetired("retired"),
    AuditUnavailable("not recorded", 1.0, "disk full"),
    AuditIncomplete("lacks rows", unrecorded=2, undelivered=1),
]
ids = [type(error).__name__ for error in EXAMPLES]


def test_the_tree_is_as_drawn() -> None:
    """The tree at the top of the module names every class, under its parent, and none that doesn't exist."""
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^([ │├└─]*)([A-Z]\w+)(?:  |$)", line):
            depth, name = len(match[1]), match[2]
            above = [(d, n) for d, n in above if d < depth]
            drawn[name] = above[-1][1] if above else ""
            above.append((depth, name))
    real = {
        name: "" if cls is EscaladeError else cls.__bases__[0].__name__
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, EscaladeError)
    }
    assert drawn == real


def test_bad_input_is_a_value_error() -> None:
    """What can't be used is also a ValueError, as a Python user expects."""
    assert all(issubclass(c, ValueError) for c in (BadInput, UnknownName, UnknownPrice, errors.DuplicateVersion))


def test_an_unknown_name_helps() -> None:
    """It says what was perhaps meant and what there is; or that there is nothing."""
    error = UnknownName("policy", "treshold", ["threshold", "oracle"])
    assert str(error) == "unknown policy 'treshold'; did you mean 'threshold'? (known: oracle, threshold)"
    assert (error.kind, error.name, error.known) == ("policy", "treshold", ["oracle", "threshold"])
    assert str(UnknownName("tool", "x")) == "unknown tool 'x' (none is known)"


@pytest.mark.parametrize("form", [lambda e: e, for_dspy, for_model, lambda e: for_model(for_dspy(e))])
@pytest.mark.parametrize("error", EXAMPLES, ids=ids)
def test_they_cross_processes(error: EscaladeError, form: Any) -> None:
    """Pickled or copied, in either of DSPy's forms: class, message and fields stay."""
    error = form(error)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert isinstance(other, type(error)) or form is not for_model
        assert str(other) == str(error)
        assert {**vars(error), **vars(other)} == vars(other)


@pytest.mark.parametrize("error", EXAMPLES, ids=ids)
def test_the_form_for_dspy(error: EscaladeError) -> None:
    """It is the same error, of its own class and an LMError, with message and fields, caused by the original."""
    twin = for_dspy(error)
    assert isinstance(twin, type(error))
    assert isinstance(twin, dspy.LMError)
    assert isinstance(twin, dspy.LMBillingError) == isinstance(error, BudgetExceeded)
    assert str(twin) == str(error)
    assert type(twin).__name__ == type(error).__name__
    assert twin.__cause__ is error
    assert {**vars(twin), **vars(error)} == vars(twin)
    assert for_dspy(twin) is twin
    assert type(for_dspy(type(error)(*_arguments(error)))) is type(twin), "one class per class"


def _arguments(error: EscaladeError) -> tuple[Any, ...]:
    return {UnknownName: ("a", "b"), NodeError: ("a", "b")}.get(type(error), ("message",))


@pytest.mark.parametrize("kind", [BudgetExceeded, RateLimited, NoScope, UnknownPrice, CircuitOpen])
def test_a_refusal_out_of_an_engine_is_passed_on(kind: Any) -> None:
    """DSPy lets it through by identity, sync and async, doesn't retry it and doesn't fall back to another adapter."""
    refusal = for_dspy(kind("no more"))
    for way in ("sync", "async"):
        lm = scripted_lm(refusal)
        lm.num_retries = 3
        predict = dspy.Predict("question -> answer")
        with pytest.raises(kind) as caught, dspy.context(lm=lm):
            predict(question="?") if way == "sync" else asyncio.run(predict.acall(question="?"))
        assert caught.value is refusal
        assert requests(lm) == 1


def test_another_exception_is_replaced_by_dspy() -> None:
    """The reason for all this: an exception that isn't an LMError comes out of DSPy as another one."""
    lm = scripted_lm(PermissionDenied("no"))
    assert isinstance(lm._engine_spec, GovernedScript)
    with pytest.raises(dspy.LMError) as caught:
        lm("hi")
    assert not isinstance(caught.value, Refused)


def test_the_form_for_models() -> None:
    """What a model reads of it is one line, even where DSPy formats a traceback; who debugs still has one."""
    error = for_model(PermissionDenied("you\n  may not"))
    assert for_model(error) is error
    try:
        raise error from None
    except PermissionDenied as caught:
        shown = traceback.format_exception(type(caught), caught, caught.__traceback__, limit=5)
        assert "".join(shown) == "escalade.errors.PermissionDenied: you may not\n"
        assert "test_the_form_for_models" in traceback.format_exc()
    error.__traceback__ = None
    assert isinstance(for_model(for_dspy(BudgetExceeded("x"))), dspy.LMBillingError)


def test_a_budget_refusal_is_copied_to_be_raised_again() -> None:
    """`again` gives another object with the same message and figures."""
    error = BudgetExceeded("dear", account="run", limit=10, left=3, asked=5)
    again = error.again()
    assert again is not error
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_node_errors_name_the_node() -> None:
    """The path of the node is in the message and on the error."""
    error = NodeError("a/b", "broke")
    assert (str(error), error.path) == ("node 'a/b': broke", "a/b")
