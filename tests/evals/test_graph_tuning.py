"""A whole pipeline is tuned: what is surely better is chosen, noise decides nothing, and others judge."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import dspy
import pytest

import escalade
from escalade import BadInput, BudgetExceeded, Chain, FanOut, Money
from escalade.errors import DataError
from escalade.evals.graph_tuning import tune_graph
from escalade.testing import fake_gateway, virtual_time

EACH = 1_000_000


def voter(number: int) -> Any:
    """Is right in 7 of 10 cases, for a tenth of a cent and a second."""

    async def vote(question: str) -> dict[str, str]:
        escalade.scopes.require().purse.reserve(EACH).settle(EACH)
        await asyncio.sleep(1.0 + number)
        return {"answer": "yes" if random.Random(f"{question} {number}").random() < 0.7 else "no"}

    return vote


def build(width: int = 1, style: str = "plain") -> FanOut:
    """A vote of so many; the style makes no difference."""

    def most(**votes: Any) -> str:
        said = [vote["answer"] for name, vote in votes.items() if name.startswith("v")]
        return max(("yes", "no"), key=said.count)

    return FanOut({f"v{k}": voter(k) for k in range(width)}, join=most)


def right(example: Any, prediction: Any) -> bool:
    return bool(prediction.join == example.answer)


def questions(number: int) -> list[dspy.Example]:
    return [dspy.Example(question=f"q{k}", answer="yes").with_inputs("question") for k in range(number)]


KNOBS = {"width": [1, 9], "style": ["plain", "fancy"]}


def test_what_is_surely_better_is_chosen() -> None:
    """A wider vote; the style that makes no difference stays as it was; others judge it, at its cost and time."""
    with virtual_time(), escalade.scope(budget="10.00") as scope:
        tuned = tune_graph(build, KNOBS, questions(200), right)
    report = tuned.report
    assert tuned.setting == report.setting == {"width": 9, "style": "plain"}
    assert (report.chosen, report.judged) == (120, 80)
    assert report.quality_change.low > 0
    assert report.verdict == "better"
    assert report.cost_change.mean == 8 * EACH
    assert report.seconds_change.mean == pytest.approx(8.0)
    ran = sum(one.questions * one.cost for one in (*report.frontier, *report.left))
    assert report.spent == scope.spent == Money(round(ran + 80 * 10 * EACH))
    assert {one.setting["width"] for one in report.frontier} <= {1, 9}
    assert "judged on 80 others" in str(report)


def test_money_and_time_have_a_say() -> None:
    """Where a right answer is worth less than the votes, one vote stays."""
    for worth in ({"dollars_per_point": "0.01"}, {"seconds_per_point": 5.0}):
        with virtual_time(), escalade.scope(budget="10.00"):
            tuned = tune_graph(build, {"width": [1, 9]}, questions(60), right, **worth)
        assert tuned.setting == {"width": 1}
        assert [one.setting for one in tuned.report.left] == [{"width": 9}]
        assert tuned.report.left[0].questions < 36
        assert tuned.report.quality_change.mean == 0


def test_noise_decides_nothing() -> None:
    """Over many tunings of a knob without any effect, the first value stays, but for one in twenty."""

    def noisy(flavour: int = 0) -> Chain:
        return Chain(answer=lambda question: {"answer": random.Random(f"{question} {flavour} {seed}").choice("ab")})

    chosen = []
    for seed in range(20):
        with escalade.scope():
            tuned = tune_graph(
                noisy, {"flavour": [0, 1, 2]}, questions(40), lambda _, found: found.answer == "a", seed=seed
            )
        chosen.append(tuned.setting["flavour"])
    assert chosen.count(0) >= 18


def test_prompts_are_those_that_were_compiled(tmp_path: Path) -> None:
    """Each candidate has them, and so has the result, which is saved and loaded."""
    gateway = fake_gateway({"m": "yes"}, name="tuned")

    def ask(retries: int = 0) -> Chain:
        return Chain(ask=dspy.Predict("question -> answer"))

    compiled = ask()
    compiled.steps["ask"].demos = [dspy.Example(question="is it?", answer="yes")]
    with escalade.scope(budget="5.00"), dspy.context(lm=gateway.lm("m", cache=False)):
        tuned = tune_graph(
            ask, {"retries": [0, 1]}, questions(24), lambda _, found: found.answer == "yes", prompts=compiled
        )
    tuned.program.save(tmp_path / "graph.json")
    loaded = ask(**tuned.setting)
    loaded.load(tmp_path / "graph.json")
    assert loaded.steps["ask"].demos[0]["answer"] == "yes"


def test_what_can_not_be_tuned() -> None:
    """Knobs that are none, too many settings, too few questions, money that ends."""

    def tune(knobs: Any, number: int = 30, **options: Any) -> Any:
        with escalade.scope(budget="5.00"):
            return tune_graph(build, knobs, questions(number), right, **options)

    for knobs, said in (
        ({"width": 3}, "expected a list of values"),
        ({"width": [1]}, "expected 2 to 64"),
        ({"width": list(range(1, 70))}, "expected 2 to 64"),
    ):
        with pytest.raises(BadInput, match=said):
            tune(knobs)
    with pytest.raises(DataError, match="19 questions are too few"):
        tune({"width": [1, 2]}, 19)
    with virtual_time(), escalade.scope(budget="5.00"), pytest.raises(BudgetExceeded):
        tune_graph(build, {"width": [1, 2]}, questions(30), right, budget="0.01")
    with escalade.scope(), pytest.raises(BadInput, match="expected a pipeline"):
        tune_graph(lambda width: width, {"width": [1, 2]}, questions(30), right)  # type: ignore[arg-type, return-value]
