"""All kinds of pipelines within each other, four deep, are one program to DSPy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import dspy
import pytest

import escalade
from escalade import Gateway, SimModel, World, events
from escalade.pipelines.branch import Branch
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.loop import Loop
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from escalade.pipelines.race import Race
from escalade.pipelines.shape import shape_of
from tests.pipelines.offline import offline_lm


class Sort(dspy.Signature):
    """Say how hard it is."""

    question: str = dspy.InputField()
    level: Literal["easy", "hard"] = dspy.OutputField()


async def split(question: str) -> dict[str, list[str]]:
    return {"parts": question.split()}


async def polish(better: str) -> dict[str, str]:
    return {"draft": better}


def everything() -> Chain:
    """A chain of a branch, whose cases are a loop, and a fan-out of a map of races; and a fallback."""
    writes = Chain(write=dspy.Predict("question, draft -> better"), polish=polish)
    easy = Loop(writes, until=dspy.Predict("draft -> good: bool"), most=3)
    race = Race(quick=dspy.Predict("part -> sense"), slow=Chain(dspy.ChainOfThought("part -> sense")), stagger=5.0)
    hard = FanOut(
        facts=Chain(split, Map(race, over="parts", item="part")),
        view=node(dspy.Predict("question -> view"), fallback=dspy.Predict("question -> view"), timeout=30),
        join=dspy.Predict("facts, view -> draft"),
    )
    return Chain(
        work=Branch(dspy.Predict(Sort), easy=easy, hard=hard),
        end=dspy.ChainOfThought("question, draft -> answer"),
    )


NAMES = [
    "steps['work'].chooser",
    "steps['work'].cases['easy'].body.steps['write']",
    "steps['work'].cases['easy'].until",
    "steps['work'].cases['hard'].branches['facts'].steps['map'].worker.branches['quick']",
    "steps['work'].cases['hard'].branches['facts'].steps['map'].worker.branches['slow'].steps['chainofthought'].predict",
    "steps['work'].cases['hard'].branches['view']",
    "steps['work'].cases['hard'].join",
    "steps['work'].cases['hard'].fallbacks['view']",
    "steps['end'].predict",
]


def answers(field: str, inputs: dict[str, str]) -> str:
    """Short questions are easy; a draft is good when it was written twice."""
    if field == "level":
        return "hard" if len(inputs["question"]) > 9 else "easy"
    if field == "good":
        return str(inputs["draft"].count("better(") == 2)
    return f"{field}({', '.join(inputs.values())})"


def model() -> dspy.LM:
    return offline_lm(answers)


EASY = "answer(why, better(why, better(why, -)))"
HARD = "hard but fair"


def ask(pipeline: Any, question: str = "why") -> Any:
    with dspy.context(lm=model()):
        return pipeline(question=question, draft="-")


def test_it_runs_either_way() -> None:
    """What the pipeline is made of works together."""
    assert ask(everything()).answer == EASY
    assert ask(everything(), HARD).answer.startswith("answer(hard but fair, draft([")
    assert ask(everything(), HARD).answer.count("sense(") == 3


def test_every_predictor_is_found_once() -> None:
    """Choosers, predicates, bodies, cases, branches, joins, workers, fallbacks."""
    pipeline = everything()
    assert [name for name, _ in pipeline.named_predictors()] == NAMES
    assert len({id(found) for found in pipeline.predictors()}) == len(NAMES)


def test_checks_know_all_kinds() -> None:
    """Nothing is found, and what it takes and gives is known."""
    pipeline = everything()
    assert dict(pipeline.inputs) == {"question": str, "draft": str}
    assert pipeline.inputs.optional == {"draft"}
    assert list(pipeline.outputs) == ["reasoning", "answer"]
    assert [one for one in pipeline.check() if one.level == "error"] == []
    paths = [one.path for one in shape_of(pipeline).walk()]
    assert "work/easy[*]/write" in paths
    assert "work/hard/facts/map[*]/slow/chainofthought" in paths


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    """Demos and instructions of all nodes survive a JSON file, and the whole program does."""
    pipeline = everything()
    for number, predictor in enumerate(pipeline.predictors()):
        predictor.demos = [dspy.Example(question=f"q{number}", answer=f"a{number}")]
        predictor.signature = predictor.signature.with_instructions(f"instruction {number}")
    pipeline.save(tmp_path / "all.json")
    again = everything()
    again.load(tmp_path / "all.json")
    assert again.dump_state() == pipeline.dump_state()
    pipeline.save(tmp_path / "program", save_program=True)
    whole = dspy.load(tmp_path / "program", allow_pickle=True)
    assert [name for name, _ in whole.named_predictors()] == NAMES
    assert [one.signature.instructions for one in whole.predictors()] == [f"instruction {n}" for n in range(len(NAMES))]
    for one in (again, whole):
        assert (ask(one).answer, ask(one, HARD).answer) == (ask(pipeline).answer, ask(pipeline, HARD).answer)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda p: p.deepcopy(), lambda p: p.reset_copy()], ids=["copy", "dspy", "reset"]
)
def test_copies_share_nothing(how: Any) -> None:
    """A copy runs its own predictors, at any depth."""
    pipeline = everything()
    ask(pipeline, HARD)
    again = how(pipeline)
    assert not {id(one) for one in pipeline.predictors()} & {id(one) for one in again.predictors()}
    again.set_lm(offline_lm(lambda field, inputs: "hard" if field == "level" else "other"))
    assert again(question="why", draft="-").answer == "other"
    assert ask(pipeline).answer == EASY


def test_predictors_are_replaced_at_any_depth() -> None:
    """What an optimiser puts in place runs, and is checked."""
    pipeline = everything()
    ask(pipeline, HARD)
    pipeline.map_named_predictors(lambda one: dspy.Predict(one.signature.with_instructions("anew")))
    asked: list[Any] = []
    with dspy.context(lm=offline_lm(answers, asked=asked)):
        assert pipeline(question=HARD, draft="-").answer.startswith("answer(")
    assert len(asked) == 1 + 3 + 1 + 1 + 1


def test_batch_parallel_and_evaluate() -> None:
    """Threads of DSPy share one pipeline."""
    pipeline = everything()
    rows = [dspy.Example(question="why", draft="-", answer=EASY).with_inputs("question", "draft")] * 4
    rows += [dspy.Example(question=HARD, draft="-", answer="?").with_inputs("question", "draft")] * 4
    with dspy.context(lm=model()):
        batched = pipeline.batch(rows, num_threads=4, disable_progress_bar=True)
        parallel = dspy.Parallel(num_threads=4, disable_progress_bar=True)([(pipeline, row) for row in rows])
        evaluate = dspy.Evaluate(devset=rows, metric=lambda row, found: row.answer == found.answer, num_threads=4)
        score = evaluate(pipeline)
    assert [one.answer for one in batched] == [one.answer for one in parallel]
    assert [one.answer == EASY for one in batched] == [True] * 4 + [False] * 4
    assert score.score == 50.0


async def test_streamify_shows_a_field_and_ends_with_the_prediction() -> None:
    """DSPy's own streaming runs it, from within a loop, and shows what a predictor of the pipeline writes."""
    pipeline = everything()
    pipeline.steps["work"].chooser = lambda question: "hard"
    listener = dspy.streaming.StreamListener("answer", predict=pipeline.steps["end"].predict)
    streamed = dspy.streamify(pipeline, stream_listeners=[listener])
    lm = Gateway(World({"large": SimModel(skill=0.99)}, seed=7).as_models()).lm("large")
    with dspy.context(lm=lm):
        async with escalade.scope():
            chunks = [chunk async for chunk in streamed(question="What is 2 + 3?", draft="-")]
    assert isinstance(chunks[-1], dspy.Prediction)
    assert "".join(one.chunk for one in chunks[:-1]) == chunks[-1].answer


async def test_traces_are_in_a_fixed_order() -> None:
    """Whatever runs at once, an optimiser sees it in the order of the nodes."""
    pipeline = everything()
    orders = []
    for _ in range(3):
        with dspy.context(lm=model(), trace=[]):
            await pipeline.acall(question=HARD, draft="-")
            orders.append([id(predictor) for predictor, _, _ in dspy.settings.trace])
    assert orders[0] == orders[1] == orders[2]
    names = {id(found): name for name, found in pipeline.named_predictors()}
    assert [NAMES.index(names[one]) for one in orders[0]] == [0, 3, 3, 3, 5, 6, 8]


async def test_events_name_every_node() -> None:
    """Paths go through all kinds, rounds and items by number."""
    paths: set[str] = set()
    with dspy.context(lm=model()):
        for question in ("why", HARD):
            told = everything().stream(question=question, draft="-", on=events.NodeFinished)
            paths |= {event.path async for event in told}
    assert {"work/choose", "work/easy[2]/write", "work/easy/until[2]", "work/hard/facts/map[2]/quick"} <= paths
    assert {"work/hard/view", "work/hard/join", "end"} <= paths
