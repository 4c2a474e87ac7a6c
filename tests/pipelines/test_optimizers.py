"""Optimisers of DSPy over a pipeline of five agents, offline: it gets better, and answers the same once loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.lm15 import Message, Response, TextPart, Usage

from escalade.pipelines.branch import Branch
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from tests.pipelines.offline import Engine

ASKED = [f"{place} for {days} days" for place in ("Rome", "Oslo", "Lima", "Bonn") for days in (2, 5)]
ROWS = [dspy.Example(question=asked, plan=f"plan of {asked}").with_inputs("question") for asked in ASKED]

NAMES = [
    "steps['team'].branches['search']",
    "steps['team'].branches['analysis'].predict",
    "steps['team'].branches['booking'].chooser",
    "steps['team'].branches['booking'].cases['short']",
    "steps['coordinator'].predict",
]


def agents() -> Chain:
    """Search, analysis, a booking with a chooser, and a coordinator."""
    booking = Branch(
        dspy.Predict("question -> length: Literal['short', 'long']"),
        short=dspy.Predict("question -> room"),
        long=lambda question: {"room": "a flat"},
    )
    return Chain(
        team=FanOut(
            search=dspy.Predict("question -> found"), analysis=dspy.ChainOfThought("question -> view"), booking=booking
        ),
        coordinator=dspy.ChainOfThought("question, search, analysis, booking -> plan"),
    )


class Learns(Engine):
    """Plans well once it has been told how: by an instruction, or by a demo in the prompt. Asked for a better
    instruction, as GEPA does in JSON, it has one.
    """

    def respond(self, request: Any) -> Response:
        text = str(request)
        if "new_instruction" in text:
            said = Message.assistant([TextPart('{"new_instruction": "Plan carefully."}')])
            return Response(id="1", model=request.model, message=said, finish_reason="stop", usage=Usage())
        told = "Plan carefully" in text or any(f"plan of {asked}" in text for asked in ASKED)
        return Engine(lambda field, inputs: _answer(field, inputs, told=told), 0.0, self.asked).respond(request)


class AsyncLearns(Learns):
    """The same, for `acall`."""

    async def complete(self, request: Any) -> Response:
        return self.respond(request)


def _answer(field: str, inputs: dict[str, str], *, told: bool) -> str:
    question = inputs["question"]
    if field == "length":
        return "short" if " 2 " in question else "long"
    if field == "plan":
        return f"plan of {question}" if told else "no idea"
    return f"{field} of {question}"


def learns() -> dspy.LM:
    """A model that can be taught."""
    engines = Learns(None, 0.0, []), AsyncLearns(None, 0.0, [])
    return dspy.LM("offline/model", engine=engines[0], async_engine=engines[1], cache=False, num_retries=0)


def metric(row: Any, found: Any, trace: Any = None) -> bool:
    return bool(row.plan == found.plan)


def feedback(row: Any, found: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> dspy.Prediction:
    score = float(metric(row, found))
    return dspy.Prediction(score=score, feedback="fine" if score else "plan carefully")


def score(program: Any) -> float:
    """The share of plans that are right, by a model that learns."""
    with dspy.context(lm=learns()):
        result = dspy.Evaluate(devset=ROWS, metric=metric, num_threads=2)(program)
    return float(result.score)


def plans(program: Any) -> list[str]:
    """What it plans for each row."""
    with dspy.context(lm=learns()):
        return [program(**row.inputs()).plan for row in ROWS]


@pytest.fixture(params=["few shot", "gepa"])
def optimised(request: pytest.FixtureRequest) -> Chain:
    """The agents, compiled."""
    with dspy.context(lm=learns()):
        if request.param == "few shot":
            shots: Any = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=2, max_labeled_demos=2)
            return shots.compile(agents(), trainset=ROWS)
        gepa = dspy.GEPA(
            metric=feedback,
            max_metric_calls=40,
            reflection_lm=learns(),
            component_selector="all",
            num_threads=2,
            seed=1,
        )
        return gepa.compile(agents(), trainset=ROWS, valset=ROWS)


def test_five_agents_are_optimised_saved_and_loaded(optimised: Chain, tmp_path: Path) -> None:
    """The plans are wrong before and right after; loaded into a new pipeline, it answers the same."""
    assert score(agents()) == 0.0
    assert score(optimised) == 100.0
    assert [name for name, _ in optimised.named_predictors()] == NAMES
    optimised.save(tmp_path / "agents.json")
    again = agents()
    again.load(tmp_path / "agents.json")
    assert plans(again) == plans(optimised) == [row.plan for row in ROWS]
    optimised.save(tmp_path / "program", save_program=True)
    assert plans(dspy.load(tmp_path / "program", allow_pickle=True)) == plans(optimised)


def test_demos_are_those_of_each_agents_own_work() -> None:
    """Agents that were not asked, in a branch that was not taken, get none of others."""
    with dspy.context(lm=learns()):
        shots = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=2, max_labeled_demos=2)
        better = shots.compile(agents(), trainset=ROWS)
    made = {name: [one for one in found.demos if one.get("augmented")] for name, found in better.named_predictors()}
    assert {
        name: {key for one in demos for key in dict(one.items())} - {"augmented"} for name, demos in made.items()
    } == {
        NAMES[0]: {"question", "found"},
        NAMES[1]: {"question", "reasoning", "view"},
        NAMES[2]: {"question", "length"},
        NAMES[3]: {"question", "room"},
        NAMES[4]: {"question", "search", "analysis", "booking", "reasoning", "plan"},
    }
    assert [len(made[name]) for name in NAMES] == [2, 2, 2, 1, 2]  # one of the two rows was short
