"""Checks when a graph is built: what is missing, what has another type, what is never reached."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import dspy
import pydantic
import pytest

from escalade.errors import BadInput, NodeError
from escalade.pipelines.branch import Branch
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.loop import Loop
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from escalade.pipelines.race import Race


class Words(TypedDict):
    """What `words` gives."""

    words: list[str]
    language: NotRequired[str]


class Report(pydantic.BaseModel):
    """A model's fields are visible."""

    title: str
    pages: int = 1


@dataclass
class Note:
    """A dataclass's too."""

    body: str


class Kind(enum.Enum):
    """Two kinds."""

    BUG = "bug"
    WISH = "wish"


async def words(text: str) -> Words:
    return {"words": text.split()}


async def count(words: list[str]) -> int:
    return len(words)


async def total(words: int) -> int:
    return words


async def typo(wrods: list[str]) -> int:
    return len(wrods)


async def report(text: str) -> Report:
    return Report(title=text)


async def note(text: str) -> Note:
    return Note(text)


async def either(text: str) -> Literal["bug", "wish"]:
    return "bug"


async def kind(text: str) -> Kind:
    return Kind.BUG


async def sure(text: str) -> bool:
    return True


async def anything(**fields: Any) -> dict[str, Any]:
    return fields


async def text_of(title: str, pages: int, report: Report) -> str:
    return f"{title} {pages} {report.pages}"


def refused(make: Any) -> str:
    """The one line that building it raises."""
    with pytest.raises(BadInput) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def warnings(pipeline: Any) -> list[str]:
    """What is probably not meant."""
    found = pipeline.check()
    assert all(one.level == "warning" for one in found), found
    return [one.message for one in found]


# -- chains


def test_a_field_that_nobody_gives_names_both_nodes() -> None:
    """What is missing, after whom, what there is, and what was probably meant."""
    said = refused(lambda: Chain(words, typo))
    assert said.startswith(
        "node 'typo' needs 'wrods', which nobody gives: after node 'words' there are: words, language; did you mean "
        "'words'?"
    )
    predict = dspy.Predict("question -> answer"), dspy.Predict("context -> summary")
    said = refused(lambda: Chain(ask=predict[0], sum_up=predict[1]))
    assert "node 'sum_up' needs 'context', which nobody gives: after node 'ask' there are: answer." in said
    assert "inputs=['context', ...]" in said


def test_declared_inputs_settle_what_the_call_gives() -> None:
    """With them, whatever else is missing is an error; without them it may come from the call."""
    pair = dspy.Predict("question -> answer"), dspy.Predict("context -> summary")
    assert set(Chain(*pair, inputs=["question", "context"]).inputs) == {"question", "context"}
    said = refused(lambda: Chain(*pair, inputs={"question": str, "contexts": str}))
    assert "node 'predict_2' needs 'context', which nobody gives" in said
    assert "there are: question, contexts, answer; did you mean 'contexts'?" in said
    assert refused(lambda: Chain(count, inputs=["text"])) == (
        "node 'count' needs 'words', which nobody gives: the inputs are: text"
    )
    assert "takes 'words' as list[str], but the inputs of the pipeline say int" in refused(
        lambda: Chain(count, inputs={"words": int})
    )
    for bad in ("question", [7], ["no name"]):
        assert "inputs: " in refused(lambda bad=bad: Chain(count, inputs=bad))


def test_a_field_of_another_type_names_both_nodes() -> None:
    """The field and both types are told."""
    assert refused(lambda: Chain(words, total)) == (
        "node 'total' takes 'words' as int, but node 'words' gives it as list[str]"
    )
    assert "node 'b' takes 'x' as int, but node 'a' takes it as str" in refused(lambda: Chain(a=to_text, b=to_number))
    listed = dspy.Predict("question -> parts: list[str]"), dspy.Predict("parts: int -> answer")
    assert "node 'predict_2' takes 'parts' as int, but node 'predict' gives it as list[str]" in refused(
        lambda: Chain(*listed)
    )


async def to_text(x: str) -> dict[str, Any]:
    return {}


async def to_number(x: int) -> dict[str, Any]:
    return {}


def test_after_what_is_unknown_nothing_is_missing() -> None:
    """A function without annotation, one that returns a dict, and a user's module may give anything."""
    for unknown in (lambda text: {"wrods": []}, anything, Own(), node(anything, name="x")):
        chain = Chain(unknown, typo)
        assert "wrods" in chain.inputs.optional or "wrods" not in chain.inputs


class Own(dspy.Module):
    """It has a signature, and returns something else."""

    def __init__(self) -> None:
        super().__init__()
        self.signature = dspy.Signature("text -> words")

    async def aforward(self, text: str) -> dspy.Prediction:
        return dspy.Prediction(wrods=[text])


def test_dataclasses_and_models_are_fields_and_whole() -> None:
    """Later steps see the fields, and the whole by the step's name; the result has the whole."""
    chain = Chain(report, text_of)
    assert chain(text="a").text_of == "a 1 1"
    assert Chain(note, lambda body: body)(text="a").step2 == "a"
    assert dict(Chain(note)(text="a").items()) == {"note": Note("a")}
    assert "node 'wrong' takes 'pages' as str, but node 'report' gives it as int" in refused(
        lambda: Chain(report, wrong=pages_as_text)
    )


async def pages_as_text(pages: str) -> str:
    return pages


def test_a_bare_value_fills_the_one_missing_field() -> None:
    """So it is none of the inputs; one that can't be it has to come from the call."""
    chain = Chain(words, count, node(lambda anything: {"n": anything}, name="last"))
    assert dict(chain.inputs) == {"text": str}
    assert chain(text="a b").n == 2
    other = Chain(words, count, node(to_text, name="last"))
    assert dict(other.inputs) == {"text": str, "x": str}
    assert "node 'last' takes 'x' as str, which has to come from the call: node 'count' gives int" in warnings(other)
    inner = Chain(words, count, Chain(node(lambda anything: {"n": anything}, name="deep")))
    assert inner(text="a b c").n == 3


def test_optional_steps_can_be_done_without() -> None:
    """What only an optional step gives can't be needed."""
    said = refused(lambda: Chain(node(words, optional=True), count))
    assert said.startswith("node 'count' needs 'words' of node 'words', which is optional and may be left out")
    assert list(Chain(node(words, optional=True), lambda words=(): len(words)).inputs) == ["text"]


def test_inputs_and_outputs_are_known() -> None:
    """Names and types, through nested pipelines; what may be left out, and whether there may be others."""
    chain = Chain(words, both=FanOut(n=count, again=Chain(dspy.Predict("words: list[str], style -> poem"))))
    assert dict(chain.inputs) == {"text": str, "style": str}
    assert (chain.inputs.optional, chain.inputs.open) == (frozenset(), False)
    assert str(chain.inputs) == "text: str, style: str"
    assert list(chain.outputs) == ["n", "again"]
    assert str(Chain(anything, words).outputs) == "words: list[str], language: str = ..."
    assert (Chain(words, anything).outputs.open, Chain(words, anything).inputs.open) == (True, True)
    assert str(Chain(anything).inputs) == "..."
    assert dict(Chain(words, lambda words, n=1: n).inputs) == {"text": str, "n": Any}


def test_a_call_without_an_input_runs_nothing() -> None:
    """A missing input of any depth is refused before anything is paid, with the path of the node that needs it."""
    ran: list[int] = []

    async def first() -> None:
        ran.append(1)

    chain = Chain(first=first, inner=FanOut(a=lambda: ran.append(2), b=Chain(deep=typo)))
    with pytest.raises(
        NodeError, match=r"node 'inner/b/deep': it needs 'wrods'; the call gave: wrodz; did you mean"
    ) as e:
        chain(wrodz=[])
    assert isinstance(e.value, BadInput)
    assert not ran
    chain = Chain(first, words)
    with pytest.raises(BadInput, match="it needs 'text'"):
        chain()


def test_what_nobody_uses_is_a_warning() -> None:
    """Not what a model thinks aloud, and not the last step's."""
    chain = Chain(dspy.ChainOfThought("text -> words: list[str], mood, tone"), count)
    assert warnings(chain) == ["nobody uses 'mood', 'tone' of node 'chainofthought'"]
    assert warnings(Chain(report, lambda title: title)) == []
    assert warnings(Chain(lambda text: None, words, count)) == ["nobody uses 'language' of node 'words'"]
    deep = Chain(inner=chain, last=lambda **fields: fields)
    assert [one.path for one in deep.check()] == ["inner/chainofthought"]


# -- fan-outs, maps, races


def test_branches_take_from_the_call() -> None:
    """One that takes a field as another type than its sibling can't be meant."""
    assert dict(FanOut(a=words, b=either).inputs) == {"text": str}
    assert "node 'b' takes 'x' as int, but node 'a' takes it as str" in refused(lambda: FanOut(a=to_text, b=to_number))
    assert warnings(FanOut(a=dspy.Predict("question -> a"), b=dspy.Predict("qestion -> b"))) == [
        "two inputs are spelt nearly the same: 'question' and 'qestion'"
    ]


def test_a_join_gets_the_branches() -> None:
    """Its fields are branches, by name and type, or inputs; one that no branch gives is an error."""
    branches = {"search": dspy.Predict("question -> found"), "size": count}
    plan = FanOut(branches, join=dspy.ChainOfThought("search, size: int, question -> plan"))
    assert list(plan.inputs) == ["question", "words"]
    assert list(plan.outputs) == ["reasoning", "plan"]
    assert refused(lambda: FanOut(branches, join=dspy.Predict("serch, question -> plan"))) == (
        "the join needs 'serch', which no branch gives: the branches are search, size; did you mean 'search'?"
    )
    assert "the join needs 'verdict'" in refused(lambda: FanOut(branches, join=dspy.Predict("verdict -> plan")))
    assert "node 'join' takes 'size' as list[str], but node 'size' gives it as int" in refused(
        lambda: FanOut(branches, join=dspy.Predict("search, size: list[str] -> plan"))
    )
    assert "node 'join' takes 'search' as int, but node 'search' gives it as Prediction(found)" in refused(
        lambda: FanOut(branches, join=adds)
    )
    assert warnings(FanOut(branches, join=dspy.Predict("search -> plan"))) == ["the join uses nothing of branch 'size'"]


async def adds(search: int, size: int) -> int:
    return search + size


def test_a_function_may_take_all_results_as_a_dict() -> None:
    """By one parameter of any name; as a list they don't come."""
    fan = FanOut(a=words, b=count, join=lambda everything: [*everything])
    assert list(fan.inputs) == ["text", "words"]
    assert "the join takes 'results' as list[int], but gets a dict" in refused(lambda: FanOut(a=count, join=sums))
    assert FanOut(a=either, b=either, join=dspy.majority)(text="x").join == "bug"


async def sums(results: list[int]) -> int:
    return sum(results)


def test_a_race_gives_what_either_gives() -> None:
    """The fields of one of its branches; what only one has may be missing."""
    race = Race(a=dspy.Predict("question -> answer, source"), b=dspy.Predict("question -> answer"))
    assert list(race.outputs) == ["answer", "source"]
    assert race.outputs.optional == {"source"}
    assert list(race.inputs) == ["question"]


def test_a_map_goes_over_items() -> None:
    """A text is no list of items; an item of another type than the worker takes can't be meant."""
    assert refused(lambda: Chain(either, Map(count, over="either"))).startswith(
        "node 'map' takes 'either' as items of list[str], but node 'either' gives it as Literal['bug', 'wish']"
    )
    assert "node 'map' takes 'words' as items of int" in refused(lambda: Chain(words, Map(to_number, over="words")))
    assert Chain(words, Map(to_text, over="words"))(text="a b").results == [{}, {}]
    chain = Chain(words, Map(dspy.Predict("word, style -> rhyme"), over="words", item="word"))
    assert list(chain.inputs) == ["text", "style"]
    assert warnings(Map(to_text, over="words", item="word")) == ["item='word': the worker takes x"]


# -- branches and loops


def test_cases_that_can_not_be_chosen_are_refused() -> None:
    """Where all that a chooser may say is known: a Literal, an Enum, a bool, and a signature's output."""
    assert refused(lambda: Branch(either, bug=words, wihs=words)) == (
        "case 'wihs' can't be chosen: node 'choose' gives 'bug', 'wish'"
    )
    assert "case 'long' can't be chosen: node 'choose' gives True, False" in refused(
        lambda: Branch(sure, true=words, long=words)
    )
    sort = dspy.Predict("text -> kind: Literal['bug', 'wish']")
    assert "case 'other' can't be chosen" in refused(lambda: Branch(sort, bug=words, other=words))
    for chooser in (either, kind, sort):
        Branch(chooser, bug=words, wish=words)
    assert warnings(Branch(kind, bug=words)) == ["node 'choose' may give <Kind.WISH: 'wish'>, which no case takes"]
    assert warnings(Branch(sure, true=words, false=words, otherwise=words)) == [
        "'otherwise' can't be chosen: there is a case for each of True, False"
    ]


def test_a_field_that_decides_has_a_type() -> None:
    """A step that says something else than the cases is refused."""
    gives = dspy.Predict("text -> kind: Literal['a', 'b']")
    assert "takes 'kind' as Literal['bug', 'wish'], but node 'predict' gives it as Literal['a', 'b']" in refused(
        lambda: Chain(gives, Branch("kind", bug=words, wish=words))
    )
    Chain(gives, Branch("kind", bug=words, otherwise=words))
    Chain(kind, Branch("kind", bug=words, wish=words))


def test_what_all_cases_need_is_needed() -> None:
    """What only one of them takes may be left out, and what they give may be one or the other."""
    branch = Branch(sure, true=lambda text, style: {"a": 1}, false=dspy.Predict("text, other -> b"))
    assert set(branch.inputs) == {"text", "style", "other"}
    assert branch.inputs.optional == {"style", "other"}
    assert Branch(sure, true=words, false=count).inputs.optional == {"words"}
    both = Branch(sure, true=dspy.Predict("text -> a, b"), false=dspy.Predict("text -> a"))
    assert (list(both.outputs), both.outputs.optional) == (["a", "b"], {"b"})


def test_branches_and_loops_can_not_do_without_a_node() -> None:
    """An optional node is refused where its result is all that there is."""
    for make in (
        lambda: Branch(sure, true=node(words, optional=True), false=words),
        lambda: Branch(node(sure, optional=True), true=words, false=words),
        lambda: Loop(node(number_to_text, optional=True), most=1),
        lambda: Loop(number_to_text, until=node(sure, optional=True), most=1),
    ):
        assert "can't be optional: a " in refused(make)


def test_a_loop_hands_over_what_fits() -> None:
    """A field that comes back as another type would fail in the second round."""
    assert "takes 'x' as int, but hands it over to the next round as str" in refused(
        lambda: Loop(number_to_text, most=2)
    )
    Loop(number_to_text, most=1)
    assert "which of its fields a, b is that? Return a dict" in refused(lambda: Loop(add, most=2))
    assert "carry: the body gives no 'beter'; it gives: better; did you mean 'better'?" in refused(
        lambda: Loop(dspy.Predict("draft -> better"), carry={"beter": "draft"}, most=2)
    )
    assert "node 'until' needs 'bettr'" in refused(
        lambda: Loop(dspy.Predict("draft -> better"), until=dspy.Predict("bettr -> good: bool"), most=2)
    )
    loop = Loop(dspy.Predict("draft -> better"), until=lambda better, size: True, carry={"better": "draft"}, most=2)
    assert (list(loop.inputs), list(loop.outputs)) == (["draft", "size"], ["better"])


async def number_to_text(x: int) -> str:
    return str(x)


async def add(a: int, b: int) -> int:
    return a + b


# -- other nodes later on


async def test_a_node_that_is_replaced_is_checked_again() -> None:
    """At any depth, before anything runs; one that fits runs, and one that needs less is not asked for more."""
    ran: list[int] = []

    async def first(text: str) -> Words:
        ran.append(1)
        return await words(text)

    chain = Chain(first=first, inner=Chain(count=count))
    assert (await chain.acall(text="a")).count == 1
    chain.steps["inner"].steps["count"] = total
    with pytest.raises(BadInput, match=r"node 'inner' takes 'words' as int, but node 'first' gives it as list\[str\]"):
        await chain.acall(text="a")
    assert ran == [1]
    assert [one.level for one in chain.check()] == ["error", "warning"]
    chain.steps["inner"].steps["count"] = lambda: {"n": 0}
    assert (await chain.acall(text="a")).n == 0
    assert ran == [1, 1]
    chain.steps["first"] = lambda: {"x": 1}
    assert dict(chain.inputs) == {}
    assert (await chain.acall()).n == 0


async def test_an_inner_fault_is_told_with_its_place() -> None:
    """The path says in which pipeline it is, and nothing runs."""
    chain = Chain(a=anything, b=FanOut(c=Chain(words, count)))
    chain.steps["b"].branches["c"].steps["count"] = total
    with pytest.raises(
        BadInput, match=r"takes 'words' as int, but node 'words' gives .* \(at 'b/c/total'\)|at 'b/c/count'"
    ):
        await chain.acall(text="a")


def test_fallbacks_are_looked_at_too() -> None:
    """What a node gives may be what its fallback gives."""
    chain = Chain(node(dspy.Predict("q -> a, b"), fallback=dspy.Predict("q -> a")), lambda a, b: a)
    assert [one.level for one in chain.check()] == []
    assert Chain(node(dspy.Predict("q -> a, b"), fallback=dspy.Predict("q -> a"))).outputs.optional == {"b"}


def test_types_that_can_not_be_resolved_are_unknown() -> None:
    """Nothing is refused for an annotation that names what isn't there; the others of the function still count."""
    chain = Chain(words, odd)
    assert chain.inputs["nowhere"] is Any
    assert "node 'odd' takes 'words' as int" in refused(lambda: Chain(words, odd_number))


async def odd(words: list[str], nowhere: Missing) -> Annotated[int, "x"]:  # type: ignore[name-defined]  # noqa: F821
    return 1


odd_number = node(
    lambda words, nowhere: 1,
    name="odd",
)
odd_number.target.__annotations__.update(words=int, nowhere="Missing")
