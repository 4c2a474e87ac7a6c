"""Quality less cost as a metric: exact, in the shapes that DSPy's optimisers want, and never with an unknown cost."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import dspy
import pytest

import escalade
from escalade.agents.cost_aware import Metered, cost_aware_metric, cost_of
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Threshold
from escalade.agents.tool_agent import ToolAgent
from escalade.agents.transports.simulated import Simulated
from escalade.agents.world import World
from escalade.errors import BadInput, NoScope, UnknownPrice
from escalade.registry.catalogue import Registry
from escalade.registry.journal import Journal
from escalade.registry.tools import tool


@pytest.fixture
def world():
    return World(seed=7)


@pytest.fixture
def gateway(world):
    return Gateway(world.as_models())


@pytest.fixture
def qa(gateway):
    rungs = ["small", ("ChainOfThought", "large")]
    return Escalate("question -> answer", rungs=rungs, policy=Threshold(0.9), gateway=gateway)


def test_the_score_is_quality_less_cost_to_the_nano_dollar(world, qa):
    """For every example: what the ledger has for it, in units of what a right answer is worth."""
    metric = cost_aware_metric(world.metric, dollars_per_point="0.05")
    for example in world.task(30, 1):
        with escalade.scope(budget="1.00") as run:
            answer = qa(**example.inputs())
            score = metric(example, answer)
        assert cost_of(answer) == run.spent > 0
        assert score == float(Fraction(int(world.metric(example, answer))) - Fraction(int(run.spent), 50_000_000))


@pytest.mark.parametrize("style", ["text", "native"])
def test_a_tool_agent_knows_its_cost(world, gateway, style):
    """Its answer's cost has its tools in it."""

    @tool(name="calc.run", cost="0.001", side_effects="none")
    def calc(question: str) -> str:
        """Solves the question."""
        return str(world.question(question).answer)

    agent = ToolAgent(
        "question -> answer",
        tools=["calc.run"],
        registry=Registry([calc]),
        gateway=gateway,
        model="small",
        style=style,
    )
    example = world.task(1, 1)[0]
    with escalade.scope(budget="1.00") as run:
        answer = agent(**example.inputs())
        assert cost_of(answer) == run.spent
        said = cost_aware_metric(world.metric, dollars_per_point="1")(example, answer, None, "react", None)
    assert f"{len(answer.steps)} steps" in said.feedback


def test_any_program_can_be_metered(world, gateway):
    """`Metered` counts all calls of a program, side by side with others, sync and async."""

    class Twice(dspy.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = dspy.Predict("question -> answer"), dspy.ChainOfThought("question -> answer")

        def forward(self, question):
            self.first(question=question)
            return self.second(question=question)

        async def aforward(self, question):
            await self.first.acall(question=question)
            return await self.second.acall(question=question)

    program, examples = Metered(Twice()), world.task(8, 1)

    async def together():
        return await asyncio.gather(*(program.acall(**e.inputs()) for e in examples))

    with escalade.scope(budget="1.00", recorder=(journal := Journal())) as run, dspy.context(lm=gateway.lm("small")):
        answers = program.batch(examples, num_threads=4, disable_progress_bar=True) + asyncio.run(together())
        assert sum(cost_of(answer) for answer in answers) == run.spent == journal.settled
    assert len(journal.entries()) == 32
    assert [cost_of(a) for a in answers[:8]] == [cost_of(a) for a in answers[8:]]


def test_a_metered_pipeline_costs_all_of_its_agents(world, qa):
    """A prediction of an agent within another program says its own cost; metered, it says the whole one."""

    class Second(dspy.Module):
        def __init__(self):
            super().__init__()
            self.qa = qa

        def forward(self, question):
            self.qa(question=question)
            return self.qa(question=question)

    with escalade.scope(budget="1.00") as run:
        answer = Metered(Second())(question=world.task(1, 1)[0].question)
        assert cost_of(answer) == run.spent == 2 * answer.cost


def test_demonstrations_are_what_was_worth_its_cost(world, qa):
    """While demonstrations are gathered, wrong answers and those that cost more than they are worth are a plain 0."""
    dear = cost_aware_metric(world.metric, dollars_per_point="0.000001")
    fair = cost_aware_metric(world.metric, dollars_per_point="1")
    with escalade.scope(budget="1.00"):
        for example in world.task(20, 1):
            answer = qa(**example.inputs())
            assert dear(example, answer) < 0 == dear(example, answer, [])
            assert bool(fair(example, answer, [])) == bool(world.metric(example, answer))


def test_feedback_names_the_rungs_and_their_cost(world, qa):
    """For GEPA: the metric's own feedback, then each rung that was tried, what it cost, and the score that it left."""
    metric = cost_aware_metric(world.feedback, dollars_per_point="0.01")
    with escalade.scope(budget="1.00"):
        tried = [(e, qa(**e.inputs())) for e in world.task(10, 1)]
        example, answer = next((e, a) for e, a in tried if a.escalated)
        said = metric(example, answer, [], "programs[0]", [])
        assert said.score == metric(example, answer)
    assert world.feedback(example, answer).feedback in said.feedback
    for attempt, name in zip(answer.climb.attempts, ("Predict/small", "ChainOfThought/large"), strict=True):
        assert f"{name} {escalade.Money(attempt.cost)}" in said.feedback


@pytest.mark.parametrize("given", [2, 3, 5])
def test_metrics_of_two_three_or_five_arguments(world, qa, given):
    """Each kind of metric that DSPy knows gets what it takes."""
    seen = []
    metrics = {
        2: lambda example, prediction: seen.append(2) or 1,
        3: lambda example, prediction, trace=None: seen.append(trace) or True,
        5: lambda example, prediction, trace, name, part: seen.append(name) or dspy.Prediction(score=1, feedback="f"),
    }
    example = world.task(1, 1)[0]
    with escalade.scope(budget="1.00"):
        answer = qa(**example.inputs())
        cost_aware_metric(metrics[given], dollars_per_point="1")(example, answer, ["t"], "name", None)
    assert seen == [{2: 2, 3: ["t"], 5: "name"}[given]]


def test_an_unknown_cost_is_an_error(world):
    """A model without a price: its answers can't be scored, whether the program says its cost or is metered."""
    gateway = Gateway([Model(name, f"sim/{name}", Simulated(world)) for name in ("small", "large")])
    qa = Escalate("question -> answer", rungs=["small"], policy=Threshold(0.9), gateway=gateway)
    metric = cost_aware_metric(world.metric, dollars_per_point="1")
    example = world.task(1, 1)[0]
    for program in (qa, Metered(qa)):
        with escalade.scope() as run:
            answer = program(**example.inputs())
            assert run.unpriced == 1
            with pytest.raises(UnknownPrice, match="unknown isn't zero"):
                metric(example, answer)


def test_a_prediction_that_does_not_know_its_cost_is_refused(world, gateway):
    """A plain Predict's answer is never taken for a free one; the error says what to do."""
    with escalade.scope(budget="1.00"), dspy.context(lm=gateway.lm("small")):
        answer = dspy.Predict("question -> answer")(question=world.task(1, 1)[0].question)
        with pytest.raises(BadInput, match=r"Metered\(program\)"):
            cost_of(answer)
    with pytest.raises(NoScope):
        Metered(dspy.Predict("question -> answer"))(question="q")


@pytest.mark.parametrize("worth", ["0", "-1", 0.05, 5, "cheap"])
def test_what_a_right_answer_is_worth_is_an_amount(world, worth):
    """Nothing, less than nothing, floats and words are refused."""
    with pytest.raises(BadInput):
        cost_aware_metric(world.metric, dollars_per_point=worth)
    with pytest.raises(BadInput, match="metric"):
        cost_aware_metric("exact match", dollars_per_point="1")


def test_evaluate_takes_it(world, qa):
    """DSPy's Evaluate, in threads: the mean of the scores, while the scope has every cost."""
    metric = cost_aware_metric(world.metric, dollars_per_point="0.01")
    devset = world.task(40, 1)
    evaluate = dspy.Evaluate(devset=devset, metric=metric, num_threads=4, display_progress=False)
    with escalade.scope(budget="1.00") as run:
        found = evaluate(qa)
    right = sum(world.metric(e, p) for e, p, _ in found.results)
    assert sum(s for _, _, s in found.results) == pytest.approx(right - int(run.spent) / 10_000_000)
