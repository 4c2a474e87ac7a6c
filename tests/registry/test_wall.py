"""The wall: a model that doesn't go through the gateway is never called inside a scope, and untouched outside."""

from __future__ import annotations

import pickle
from typing import Any

import dspy
import pytest

import escalade
from escalade.errors import ForeignModel, Refused
from escalade.registry import wall
from tests.registry.helpers import AsyncScriptEngine, GovernedScript, ScriptEngine, requests, scripted_lm

ANSWER = {"reasoning": "so", "answer": "42"}


def foreign() -> dspy.LM:
    return scripted_lm(ANSWER, governed=False)


def with_lm_argument(other: dspy.LM) -> Any:
    return dspy.Predict("question -> answer")(question="?", lm=other)


def with_prompt(other: dspy.LM) -> Any:
    return other("hi")


def with_set_lm(other: dspy.LM) -> Any:
    predict = dspy.Predict("question -> answer")
    predict.set_lm(other)
    return predict(question="?")


def with_context(other: dspy.LM) -> Any:
    with dspy.context(lm=other):
        return dspy.ChainOfThought("question -> answer")(question="?")


def with_forward(other: dspy.LM) -> Any:
    return other.forward("hi")


WAYS = [with_lm_argument, with_prompt, with_set_lm, with_context, with_forward]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
def test_a_foreign_model_is_refused_inside_and_untouched_outside(way: Any) -> None:
    """By whichever way it is called: inside a scope it is refused and never asked; outside it is asked as ever."""
    lm = foreign()
    with (
        escalade.scope(),
        pytest.raises(ForeignModel, match="language model 'script/lm' doesn't go through the gateway"),
    ):
        way(lm)
    assert requests(lm) == 0
    if way is not with_forward:  # deprecated in DSPy; an engine has no legacy form to answer with
        way(lm)
        assert requests(lm) == 1


async def test_async_calls_are_refused_too() -> None:
    """`acall` of the model and of a module that uses it."""
    lm = foreign()
    async with escalade.scope():
        with pytest.raises(ForeignModel):
            await lm.acall("hi")
        with pytest.raises(ForeignModel):
            await dspy.Predict("question -> answer").acall(question="?", lm=lm)
    assert requests(lm) == 0
    await lm.acall("hi")
    assert requests(lm) == 1


def test_a_governed_engine_passes() -> None:
    """Engines that are marked as going through the guard are let through."""
    lm = scripted_lm(ANSWER)
    with escalade.scope():
        assert with_lm_argument(lm).answer == "42"
    assert requests(lm) == 1


async def test_a_foreign_half_is_foreign() -> None:
    """A governed engine with a foreign async half would be paid by nobody when awaited; the pair is refused."""
    other = AsyncScriptEngine([ANSWER])
    lm = dspy.LM("half", engine=GovernedScript([ANSWER]), async_engine=other, cache=False, num_retries=0)
    async with escalade.scope():
        with pytest.raises(ForeignModel):
            await lm.acall("hi")
    assert other.requests == []


def test_a_subclass_of_a_governed_engine_is_foreign() -> None:
    """Only the very classes that were marked are trusted: a subclass may do anything."""

    class Sly(GovernedScript):
        pass

    lm = dspy.LM("sly", engine=Sly([ANSWER]), cache=False)
    with escalade.scope(), pytest.raises(ForeignModel):
        lm("hi")


def test_a_model_of_an_older_kind() -> None:
    """A BaseLM without any engine, as people have written them, is refused too."""

    class Old(dspy.BaseLM):
        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            raise AssertionError("it was called")

    with escalade.scope(), pytest.raises(ForeignModel):
        Old("old")("hi")


def test_embedders_with_a_hosted_model() -> None:
    """An Embedder with a model name would be billed by a provider; one with a function of your own is your own
    affair.
    """
    with escalade.scope():
        with pytest.raises(ForeignModel, match="embedding model 'openai/small'"):
            dspy.Embedder("openai/small")(["a"])
        assert dspy.Embedder(lambda texts: [[1.0]] * len(texts), caching=False)(["a"]).shape == (1, 1)


async def test_embedders_async() -> None:
    """The same for `acall`."""
    async with escalade.scope():
        with pytest.raises(ForeignModel):
            await dspy.Embedder("openai/small").acall(["a"])


@pytest.mark.parametrize("threads", [1, 4])
def test_in_the_threads_of_parallel(threads: int) -> None:
    """`dspy.Parallel` swallows the refusals; the foreign model is not called in any of its threads."""
    lm = foreign()
    predict = dspy.Predict("question -> answer")
    predict.set_lm(lm)
    pairs = [(predict, dspy.Example(question=str(n)).with_inputs("question")) for n in range(6)]
    parallel = dspy.Parallel(num_threads=threads, disable_progress_bar=True, max_errors=100)
    with escalade.scope():
        assert parallel(pairs) == [None] * 6
    assert requests(lm) == 0


def test_in_best_of_n() -> None:
    """BestOfN copies its module and its model; the copies are foreign as well."""
    lm = foreign()
    predict = dspy.Predict("question -> answer")
    predict.set_lm(lm)
    best = dspy.BestOfN(predict, N=3, reward_fn=lambda args, prediction: 1.0, threshold=1.0, fail_count=3)
    with escalade.scope(), pytest.raises(ForeignModel):
        best(question="?")
    assert requests(lm) == 0


def test_under_a_default_scope() -> None:
    """A default scope is a scope: the wall stands."""
    lm = foreign()
    escalade.configure()
    with pytest.raises(ForeignModel):
        lm("hi")
    assert requests(lm) == 0


def test_the_refusal_crosses_dspy_as_it_is() -> None:
    """It is one of our refusals and one of DSPy's errors, so that neither wraps nor retries it; and it can be
    pickled.
    """
    with escalade.scope(), pytest.raises(dspy.LMError) as caught:
        foreign()("hi")
    assert isinstance(caught.value, Refused)
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)


def test_it_is_built_once() -> None:
    """Building it again doesn't wrap DSPy's methods again."""
    wall.build()
    before = dspy.BaseLM.__call__
    wall.build()
    assert dspy.BaseLM.__call__ is before


def test_the_typesafe_client_is_foreign() -> None:
    """DSPy's client of a hosted decision model is no BaseLM; it is refused all the same."""
    from dspy.clients.typesafe import TypeSafe

    client = TypeSafe(api_key="none")
    with escalade.scope(), pytest.raises(ForeignModel, match="'jev-latest'"):
        client({"a": 1}, [])


def test_engines_are_what_is_marked() -> None:
    """The mark is on the class, and gives the class back."""
    assert wall.govern(GovernedScript) is GovernedScript
    assert ScriptEngine not in wall._governed
