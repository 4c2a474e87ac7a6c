"""Chain: order, fields by name, what is missing."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import dspy
import pytest

from escalade.errors import BadInput, NodeError
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.node import node
from tests.pipelines.offline import offline_lm


async def words(text: str) -> dict[str, Any]:
    return {"words": text.split()}


def count(words: list[str]) -> int:
    return len(words)


def test_fields_are_handed_on_by_name_and_inputs_stay_visible() -> None:
    """A later step sees what earlier steps returned, and the inputs of the chain."""
    chain = Chain(words, count, last=lambda count, text: {"said": f"{text}: {count}"})
    assert chain(text="to be").said == "to be: 2"


async def test_awaited_it_does_the_same() -> None:
    """`acall` gives what a call gives."""
    assert (await Chain(words, count).acall(text="to be or")).count == 3


def test_a_later_field_hides_an_earlier_one() -> None:
    """A step that returns a field of the same name replaces it for the steps after it."""
    step = lambda x: {"x": x * 10}  # noqa: E731
    assert Chain(a=step, b=step, c=lambda x: {"got": x})(x=1).got == 100


def test_a_prediction_of_the_last_step_is_returned_as_it_is() -> None:
    """Completions and usage of the last predictor are not lost by a copy."""
    made = dspy.Prediction(answer="42")
    assert Chain(words, lambda words: made)(text="a") is made


def test_a_bare_value_is_a_field_with_the_steps_name() -> None:
    """What has no field name goes by the name of its step, in the result too."""
    assert dict(Chain(words, count)(text="a b").items()) == {"count": 2}
    assert Chain(words, node(count, name="n"), lambda n: {"double": 2 * n})(text="a b").double == 4


def test_a_bare_value_fills_the_one_missing_field_of_the_next_step() -> None:
    """Two functions compose without agreeing on a name, if the second wants one thing that nothing else provides."""
    assert Chain(words, count, lambda anything: {"got": anything})(text="a b c").got == 3


def test_builtins_and_partials_are_steps() -> None:
    """A function of one positional value, and a partial, work as they are."""
    chain = Chain(lambda text: text.split(), node(len, name="size"), node(functools.partial(max, 2), name="most"))
    assert chain(text="a b c").most == 3


def test_a_missing_field_names_both_steps() -> None:
    """The error says who wants what, after whom, and what there was; it is a NodeError and a BadInput."""
    chain = Chain(words=words, answer=lambda context: context)
    with pytest.raises(
        NodeError, match=r"node 'answer': it needs 'context'; visible after node 'words' are: text, words"
    ) as e:
        chain(text="a")
    assert isinstance(e.value, BadInput)
    assert e.value.path == "answer"


def test_a_missing_input_of_the_first_step_says_what_the_call_gave() -> None:
    """The first step has no step before it: the call is blamed."""
    with pytest.raises(BadInput, match=r"it needs 'text'; the call gave: no fields"):
        Chain(words)()


def test_default_names_are_numbered() -> None:
    """Two predictors get names of their own; two steps of one given name are refused."""
    chain = Chain(dspy.Predict("a -> b"), dspy.Predict("b -> c"), lambda c: c)
    assert list(chain.steps) == ["predict", "predict_2", "step3"]
    with pytest.raises(BadInput, match="two steps are named 'x'"):
        Chain(node(words, name="x"), x=count)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Chain, "at least one step"),
        (lambda: Chain(dspy.Predict), "call it to make a module"),
        (lambda: Chain(42), "expected a dspy.Module or a function, got 42"),
        (lambda: Chain(**{"not a name": words}), "node name 'not a name'"),
        (lambda: Chain(words, timeout=0), "more than 0 seconds"),
        (lambda: node(words, budget=1.5), "a share between 0 and 1"),
        (lambda: node(words, budget="much"), "not an amount of dollars"),
        (lambda: Chain(lambda a, b, /: a)(a=1, b=2), "positional-only"),
    ],
)
def test_bad_graphs_are_refused_in_one_line(make: Any, message: str) -> None:
    """What can't be a pipeline is refused with a sentence that says what to do."""
    with pytest.raises(BadInput, match=message):
        make()


def test_predictors_get_only_their_fields() -> None:
    """A predictor isn't handed the whole of the chain's fields, which DSPy would complain about."""
    asked: list[dict[str, str]] = []
    lm = offline_lm(asked=asked)
    chain = Chain(dspy.Predict("question -> topic"), dspy.ChainOfThought("topic, question -> answer"))
    with dspy.context(lm=lm):
        result = chain(question="why", unrelated="noise")
    assert result.answer == "answer(topic(why), why)"
    assert all("unrelated" not in inputs for inputs in asked)


def test_a_users_module_gets_what_its_forward_takes() -> None:
    """The parameters of forward decide, not those of a predictor inside."""

    class Own(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict("context, question -> answer")

        def forward(self, question: str) -> dspy.Prediction:
            return self.predict(context="own", question=question)

    with dspy.context(lm=offline_lm()):
        assert Chain(Own())(question="why").answer == "answer(own, why)"


def test_pipelines_nest() -> None:
    """A chain is a step, and a branch, and is called with the fields that are visible there."""
    inner = Chain(words, count)
    outer = Chain(FanOut(left=inner, right=Chain(words)), lambda left, right: {"n": left.count, "w": right.words})
    assert dict(outer(text="x y").items()) == {"n": 2, "w": ["x", "y"]}


async def test_one_pipeline_serves_many_calls_at_once() -> None:
    """A pipeline keeps no state of a call on itself."""

    async def slow(x: int) -> dict[str, int]:
        await asyncio.sleep(0.001 * (x % 5))
        return {"x": x + 1}

    chain = Chain(a=slow, b=slow, c=slow)
    results = await asyncio.gather(*[chain.acall(x=n) for n in range(200)])
    assert [r.x for r in results] == [n + 3 for n in range(200)]


def test_an_async_callable_object_is_a_step() -> None:
    """An object with an async __call__ counts as an async function; a lambda around one is awaited too."""

    class Adder:
        async def __call__(self, x: int) -> dict[str, int]:
            return {"x": x + 1}

    adder = Adder()
    assert Chain(node(adder, name="a"), node(lambda x: adder(x=x), name="b"))(x=1).x == 3


async def test_inputs_without_a_name_are_refused() -> None:
    """What they are called is said, in both ways to call."""
    with pytest.raises(BadInput, match=r"inputs go by name: pipeline\(text=\.\.\.\), got 'to be' without one"):
        Chain(words, count)("to be")
    with pytest.raises(BadInput, match="inputs go by name"):
        await Chain(words, count).acall("to be")
