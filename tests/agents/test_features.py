"""Facts about a question: computed once, only when somebody looks, the same live, recorded and replayed."""

from __future__ import annotations

import asyncio

import dspy
import numpy as np
import pytest

import escalade
from escalade.agents._features import Features
from escalade.agents.climb import Stop, Try
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.policies import Constant
from escalade.agents.world import World
from escalade.errors import BadInput, DataError
from escalade.evals.loaders import load_outcomes
from escalade.evals.replay import replay_one
from escalade.registry.opening import scope


def program(features=None, policy=None, signature="question -> answer"):
    """An Escalate over a simulated world, and its world."""
    world = World(seed=3)
    gateway = Gateway(world.as_models())
    rungs = [("Predict", "small"), ("Predict", "large")]
    return Escalate(signature, rungs=rungs, policy=policy or Constant(0), gateway=gateway, features=features), world


class ByFact:
    """The big model where a fact says so, and again a look at it after the attempt."""

    name = "by-fact"

    def __init__(self, fact):
        self.fact = fact

    def decide(self, view):
        hard = self.fact(view.features)
        return Stop(-1, "done") if view.attempts else Try(int(hard), f"hard: {hard}")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_fact_is_computed_once_per_question(mode):
    """However often the policy looks, in each climb a maker runs once; its facts are there beside ours."""
    calls = []

    def words(inputs):
        calls.append(dict(inputs))
        return {"words": len(inputs["question"].split())}

    qa, _ = program(words, ByFact(lambda facts: facts["words"] > 3))
    with scope():
        for question in ("one two", "one two three four five"):
            got = qa(question=question) if mode == "sync" else asyncio.run(qa.acall(question=question))
            assert got.rung.model == ("large" if "five" in question else "small")
    assert calls == [{"question": "one two"}, {"question": "one two three four five"}]


def test_what_nobody_looks_at_is_not_computed():
    """A maker that costs something doesn't run for a policy that asks for something else, or for an earlier maker's."""

    def cheap(inputs):
        return {"cheap": True}

    def dear(inputs):
        raise AssertionError("nobody asked for it")

    qa, _ = program(
        [cheap, dear], ByFact(lambda facts: facts["cheap"] and facts["prompt_chars"] and facts["text"] == "x")
    )
    with scope():
        assert qa(question="x").rung.model == "large"


def test_text_is_the_inputs_one_below_the_other():
    """All inputs as text, in the order of the signature; and their characters without the line ends."""
    qa, _ = program(signature="context: list[str], question -> answer")
    with scope():
        facts = qa.view(context=["a", "b"], question="why?").features
    assert facts["text"] == "['a', 'b']\nwhy?"
    assert facts["prompt_chars"] == len("['a', 'b']why?")
    assert dict(facts).keys() == {"prompt_chars", "text"}


def test_it_is_a_mapping():
    """Length, iteration, membership and a missing fact are those of a dict."""
    facts = Features({"q": "x"}, (lambda inputs: {"a": 1}, lambda inputs: {"b": 2}))
    assert ("a" in facts, "c" in facts, len(facts)) == (True, False, 4)
    assert dict(facts) == {"prompt_chars": 1, "text": "x", "a": 1, "b": 2}
    with pytest.raises(KeyError):
        facts["c"]


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        (lambda inputs: 3, "returned 3; expected a dict"),
        (lambda inputs: {"text": "mine"}, "gives 'text', which is there already"),
        ([lambda inputs: {"a": 1}, lambda inputs: {"a": 2}], "gives 'a', which is there already"),
    ],
)
def test_makers_that_make_no_sense(features, complaint):
    """No dict, a name of ours, a name of another maker: each is said with the maker's name."""
    qa, _ = program(features)
    with scope(), pytest.raises(BadInput, match=complaint):
        dict(qa.view(question="q").features)


def test_what_is_no_maker_is_refused_when_built():
    """A dict instead of a function that makes one."""
    with pytest.raises(BadInput, match="expected functions"):
        program([{"a": 1}])


def test_a_mistake_in_a_maker_is_raised():
    """It is the user's code: its exception comes out as it is, before anything is paid."""
    qa, world = program(lambda inputs: {"n": 1 / 0}, ByFact(lambda facts: facts["n"]))
    with scope(), pytest.raises(ZeroDivisionError):
        qa(question="q")
    assert not world.calls


def test_recorded_facts_replay(tmp_path):
    """Policies that look at facts and at the text replay as they ran; the text is written only when asked for."""

    def facts(inputs):
        return {"words": len(inputs["question"].split()), "language": "en"}

    policy = ByFact(lambda f: f["words"] % 2 == 0 or "dollars" in f["text"] or f["language"] != "en")
    qa, world = program(facts, policy)
    examples = world.task(12, seed=2)
    with scope():
        outcomes = escalade.record(qa, examples, world.metric)
        asked = [qa(**e.inputs()).climb.path for e in examples]
    assert [replay_one(policy, outcomes, i).path for i in range(12)] == asked
    assert len(set(asked)) == 2
    assert outcomes.features["text"].dtype == object
    with_texts = load_outcomes(outcomes.save(tmp_path / "texts.jsonl", texts=True))
    assert [replay_one(policy, with_texts, i).path for i in range(12)] == asked
    path = outcomes.save(tmp_path / "mine.jsonl")
    assert examples[0].question not in path.read_text("utf-8")
    without = load_outcomes(path)
    assert list(without.features) == ["prompt_chars", "words", "language"]
    assert without.digest == outcomes.digest == with_texts.digest


def test_facts_that_are_no_figures_are_not_recorded():
    """A list can't be kept in a column: that is said with its name."""
    qa, world = program(lambda inputs: {"vector": [0.1, 0.2]})
    with scope(), pytest.raises(DataError, match="'vector'"):
        escalade.record(qa, world.task(2), world.metric)


def test_numpy_figures_are_recorded():
    """Figures that come out of numpy are figures."""
    qa, world = program(lambda inputs: {"score": np.float32(0.5)})
    with scope():
        assert escalade.record(qa, world.task(2), world.metric).features["score"].tolist() == [0.5, 0.5]


def test_a_predictor_can_make_facts():
    """A module of DSPy that tells facts is found by optimisers, and paid by the same scope."""

    class Topic(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> topic")

        def forward(self, inputs):
            return {"topic": self.ask(question=inputs["question"]).topic}

    qa, world = program(Topic(), ByFact(lambda facts: bool(facts["topic"])))
    assert "features[0].ask" in [name for name, _ in qa.named_predictors()]
    with scope() as run, dspy.context(lm=qa._gateway.lm("small")):
        assert qa(question="q").rung.model == "large"
        assert run.spent == world.cost()
    assert world.calls == {"small": 1, "large": 1}
