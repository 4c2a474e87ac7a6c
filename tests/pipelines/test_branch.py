"""Branch: what is chosen, by whom, and that nothing else runs."""

from __future__ import annotations

import copy
import enum
import pickle
from typing import Any, Literal

import dspy
import pytest

import escalade
from escalade import events
from escalade.errors import BadInput, NodeError
from escalade.pipelines.branch import Branch
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from escalade.pipelines.shape import shape_of
from tests.pipelines.offline import offline_lm


class Kind(enum.Enum):
    """Values that are names of cases, and one that isn't."""

    BUG = "bug"
    WISH = 2


async def answer_bug(text: str) -> dict[str, str]:
    return {"reply": f"sorry for {text}"}


async def answer_wish(text: str) -> dict[str, str]:
    return {"reply": f"we like {text}"}


CASES = {"bug": answer_bug, "wish": answer_wish}


@pytest.mark.parametrize(
    ("choice", "taken"),
    [
        ("bug", "bug"),
        ("wish", "wish"),
        (Kind.BUG, "bug"),
        ({"kind": "bug"}, "bug"),
        (dspy.Prediction(k="wish"), "wish"),
    ],
)
@pytest.mark.parametrize("threaded", [True, False])
def test_the_chooser_decides(choice: Any, taken: str, threaded: bool) -> None:
    """A name, a member of an Enum by its value, and the field of a Prediction or a dict say the case."""

    async def choose(text: str) -> Any:
        return choice

    result = Branch((lambda text: choice) if threaded else choose, CASES)(text="it")
    assert result.taken == taken
    assert result.reply == ("sorry for it" if taken == "bug" else "we like it")


def test_what_is_not_taken_never_runs() -> None:
    """Only the chooser and the taken case run, and only their events are told."""
    ran: list[str] = []
    told: list[events.Event] = []
    branch = Branch(
        lambda n: n > 3, true=lambda: ran.append("true"), false=lambda: ran.append("false"), otherwise=lambda: ran
    )
    with escalade.scope(listen=told.append):
        assert Chain(size=branch)(n=5).taken == "true"
    assert ran == ["true"]
    paths = [event.path for event in told if isinstance(event, events.NodeFinished)]
    assert paths == ["size/choose", "size/true", "size"]


def test_keys_may_be_anything_that_can_be_told_apart() -> None:
    """Numbers, Enum members, text that is no name, None; True is not 1."""
    branch = Branch(
        "x",
        {1: lambda: "one", Kind.WISH: lambda: "wish", "not sure": lambda: "?", None: lambda: "0"},
        true=lambda: "yes",
        otherwise=lambda: "rest",
    )
    got = [branch(x=x) for x in (1, True, Kind.WISH, "not sure", None, False, "none of these", ["unhashable"])]
    assert [one.result for one in got] == ["one", "yes", "wish", "?", "0", "rest", "rest", "rest"]
    assert [one.taken for one in got][:5] == ["case_1", "true", "WISH", "not_sure", "None"]


def test_a_field_decides() -> None:
    """The name of an input is a chooser; in a chain, an earlier step may give it."""
    chain = Chain(lambda text: {"kind": "bug" if "!" in text else "wish"}, Branch("kind", CASES))
    assert chain(text="crash!").reply == "sorry for crash!"
    assert chain(text="tea").taken == "wish"
    with pytest.raises(BadInput, match="this branch needs 'kind'; the call gave: text"):
        Branch("kind", CASES)(text="x")


def test_predicates_decide_in_order() -> None:
    """The first true one; those after it are not asked."""
    asked: list[str] = []

    def asks(name: str, true: Any) -> Any:
        def predicate(n: int) -> bool:
            asked.append(name)
            return bool(true(n))

        return predicate

    branch = Branch(
        {"small": asks("small", lambda n: n < 10), "odd": asks("odd", lambda n: n % 2)},
        odd=lambda n: {"n": n},
        small=lambda n: {"n": -n},
        otherwise=lambda: {"n": 0},
    )
    assert [branch(n=n).n for n in (3, 11, 12)] == [-3, 11, 0]
    assert asked == ["small", "small", "odd", "small", "odd"]
    with pytest.raises(BadInput, match="none of is_a is true; otherwise= takes what is left"):
        Branch({"a": lambda n: False}, a=lambda n: n)(n=1)


def test_a_module_decides() -> None:
    """A language model chooses; of its fields the last counts, besides reasoning and confidence."""

    class Sort(dspy.Signature):
        """Sort it."""

        text: str = dspy.InputField()
        urgency: int = dspy.OutputField()
        kind: Literal["bug", "wish"] = dspy.OutputField()
        confidence: float = dspy.OutputField()

    answers = {"urgency": "3", "kind": "bug", "confidence": "0.9", "reasoning": "because"}
    branch = Branch(dspy.ChainOfThought(Sort), bug=dspy.Predict("text -> reply"), wish=answer_wish)
    with dspy.context(lm=offline_lm(lambda field, inputs: answers.get(field, "sorry"))):
        result = branch(text="crash")
    assert (result.taken, result.reply) == ("bug", "sorry")
    assert [name for name, _ in branch.named_predictors()] == ["chooser.predict", "cases['bug']"]


def test_a_choice_that_no_case_takes_is_told() -> None:
    """The error names the choice and the cases, and the likely one; it is a NodeError and a BadInput."""
    with pytest.raises(NodeError, match=r"it chose 'bugs', which no case takes; did you mean 'bug'\?") as caught:
        Chain(sort=Branch(lambda text: "bugs", CASES))(text="x")
    assert isinstance(caught.value, BadInput)
    assert caught.value.path == "sort/choose"
    assert "cases: bug, wish" in str(caught.value)
    with pytest.raises(BadInput, match="the field 'kind' is 7, which no case takes"):
        Branch("kind", CASES)(kind=7, text="x")


def test_errors_carry_the_case() -> None:
    """What a case raises has its path; a case that lacks an input says so, and so does a chooser."""

    async def fails() -> None:
        raise KeyError("boom")

    with pytest.raises(KeyError) as caught:
        Chain(sort=Branch(lambda: "a", a=fails))()
    assert caught.value.path == "sort/a"  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="node 'a': it needs 'x'; visible are: kind"):
        Branch("kind", a=lambda x: x, b=lambda y: y)(kind="a")


def test_the_result_stays_what_it_was() -> None:
    """The taken node's Prediction keeps its class, its fields and its usage; the original is left alone."""

    class Own(dspy.Prediction):
        @property
        def twice(self) -> int:
            return int(self.n) * 2

    made = Own(n=21)
    result = Branch(lambda: True, true=Chain(a=Branch(lambda: "x", x=lambda: made)))()
    assert isinstance(result, Own)
    assert (result.twice, result.taken, dict(result.items())) == (42, "true", {"n": 21})
    assert type(made) is Own
    again = pickle.loads(pickle.dumps(Branch(lambda: True, true=lambda: dspy.Prediction(n=1))()))
    assert (again.n, again.taken, copy.deepcopy(again).taken) == (1, "true", "true")
    made["n"] = 0
    assert result.n == 21


def test_a_class_of_its_own_survives_pickle() -> None:
    """A class that is made at run time is made again where the pickle is read."""
    result = Branch(lambda: True, true=lambda: Special(n=1))()
    again = pickle.loads(pickle.dumps(result))
    assert isinstance(again, Special)
    assert (again.n, again.taken) == (1, "true")


class Special(dspy.Prediction):
    """A Prediction of a class of its own."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Branch("kind"), "at least one case"),
        (lambda: Branch("kind", ["a"]), "cases have names"),
        (lambda: Branch("no name", a=len), "expected the name of a field, a function or a module"),
        (lambda: Branch(7, a=len), "expected a dspy.Module or a function, got 7"),
        (lambda: Branch("kind", {"a b": len, "a_b": len}), "two cases are named 'a_b'"),
        (lambda: Branch("kind", {"otherwise": len}), "no case can be named 'otherwise'; hand it over as otherwise="),
        (lambda: Branch("kind", choose=len), "no case can be named 'choose'"),
        (lambda: Branch({"b": len}, a=len), "a predicate for 'b', which is no case"),
        (lambda: Branch({"a": len}, a=len, b=len), "case 'b' has no predicate"),
        (lambda: Branch({"a": len}, a=len, is_a=len), "no case can be named 'is_a'"),
        (lambda: Branch("kind", a=dspy.Predict), "call it to make a module"),
    ],
)
def test_bad_branches_are_refused_in_one_line(make: Any, message: str) -> None:
    """What can't be a branch is refused with a sentence that says what to do."""
    with pytest.raises(BadInput, match=message):
        make()


def test_branches_nest_in_everything() -> None:
    """In a map, a fan-out, a chain and a branch."""
    sign = Branch(
        lambda x: x < 0, true=lambda x: {"y": -x}, false=Branch("x", {0: lambda: {"y": None}}, otherwise=same)
    )
    assert [one.y for one in Map(sign, over="x", item="x")(x=[-2, 0, 3]).results] == [2, None, 3]
    assert FanOut(a=sign, b=node(sign, timeout=5))(x=-1).b.y == 1
    assert [one.path for one in shape_of(Chain(s=sign)).walk()] == [
        "", "s", "s/choose", "s/true", "s/false", "s/false/case_0", "s/false/otherwise",
    ]  # fmt: skip


async def same(x: int) -> dict[str, int]:
    return {"y": x}
