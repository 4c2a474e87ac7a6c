"""A pipeline is a dspy.Module: found, saved, loaded, copied, traced, optimised as a whole."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Any

import dspy
import pytest

from escalade.errors import BadInput
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from tests.pipelines.offline import offline_lm


def crew() -> Chain:
    """Five agents: three at once, a map, a coordinator."""
    return Chain(
        team=FanOut(
            search=dspy.Predict("question -> found"),
            analysis=dspy.ChainOfThought("question -> insight"),
            sums=Chain(lambda question: {"parts": question.split()}, Map(dspy.Predict("part -> sense"), over="parts")),
        ),
        coordinator=node(dspy.ChainOfThought("search, analysis, question -> answer"), timeout=30),
    )


NAMES = [
    "steps['team'].branches['search']",
    "steps['team'].branches['analysis'].predict",
    "steps['team'].branches['sums'].steps['map'].worker",
    "steps['coordinator'].predict",
]


def test_every_predictor_is_found_at_any_depth() -> None:
    """DSPy sees all predictors of nested pipelines, under the path that leads to them."""
    assert [name for name, _ in crew().named_predictors()] == NAMES


def test_a_join_is_found_too() -> None:
    """The coordinator of a fan-out is optimised like its branches."""
    fan = FanOut(a=dspy.Predict("q -> r"), join=dspy.Predict("a -> verdict"))
    assert [name for name, _ in fan.named_predictors()] == ["branches['a']", "join"]


def test_set_lm_reaches_all() -> None:
    """`set_lm` sets the model of every predictor."""
    lm, pipeline = offline_lm(), crew()
    pipeline.set_lm(lm)
    assert pipeline.get_lm() is lm
    assert pipeline(question="why so").answer.startswith("answer(found(why so)")


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    """Demos and instructions of every node survive a JSON file."""
    pipeline = crew()
    for number, predictor in enumerate(pipeline.predictors()):
        predictor.demos = [dspy.Example(question=f"q{number}", answer=f"a{number}")]
        predictor.signature = predictor.signature.with_instructions(f"instruction {number}")
    pipeline.save(tmp_path / "crew.json")
    again = crew()
    again.load(tmp_path / "crew.json")
    assert again.dump_state() == pipeline.dump_state()
    assert [p.signature.instructions for p in again.predictors()] == [f"instruction {n}" for n in range(4)]


def test_the_state_of_another_pipeline_is_refused(tmp_path: Path) -> None:
    """With what is missing, and nothing is loaded."""
    Chain(asked=dspy.Predict("question -> answer")).save(tmp_path / "other.json")
    with pytest.raises(
        BadInput, match=r"the state of another pipeline: it has nothing for .*, only for steps\['asked'\]"
    ):
        crew().load(tmp_path / "other.json")


def test_the_whole_program_is_saved_and_loaded(tmp_path: Path) -> None:
    """`save_program=True` keeps the arrangement too, functions and options included."""
    crew().save(tmp_path / "program", save_program=True)
    again = dspy.load(tmp_path / "program", allow_pickle=True)
    assert [name for name, _ in again.named_predictors()] == NAMES
    assert again._options["coordinator"].timeout == 30
    with dspy.context(lm=offline_lm()):
        assert again(question="why so").answer == crew()(question="why so").answer


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda p: p.deepcopy(), lambda p: p.reset_copy()], ids=["copy", "dspy", "reset"]
)
def test_copies_share_nothing(how: Any) -> None:
    """A copy's predictors are its own, and it runs its own, not those of the original that were looked at before."""
    pipeline = crew()
    with dspy.context(lm=offline_lm()):
        pipeline(question="warm up")
        again = how(pipeline)
        again.set_lm(offline_lm(lambda field, inputs: "other"))
        assert again(question="why").answer == "other"
        assert pipeline(question="why").answer != "other"
    assert not {id(p) for p in pipeline.predictors()} & {id(p) for p in again.predictors()}


def test_predictors_can_be_replaced() -> None:
    """`map_named_predictors` puts others in place, and those run."""
    pipeline = crew().map_named_predictors(lambda p: dspy.Predict(p.signature.append("extra", dspy.OutputField())))
    with dspy.context(lm=offline_lm()):
        assert pipeline(question="why").extra.startswith("extra(")


@pytest.mark.parametrize("concurrency", [None, 2])
async def test_the_trace_is_in_the_order_of_the_branches(concurrency: int | None) -> None:
    """While an optimiser records, branches that finish in any order stand in the trace in their own order."""

    class Slow(dspy.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds, self.predict = seconds, dspy.Predict("question -> answer")

        async def aforward(self, question: str) -> dspy.Prediction:
            await asyncio.sleep(self.seconds)
            return await self.predict.acall(question=question)

    slow = [Slow(0.06), Slow(0.03), Slow(0.0)]
    sync = dspy.BestOfN(dspy.Predict("question -> answer"), N=1, reward_fn=lambda *_: 1.0, threshold=1.0)
    fan = FanOut({f"b{i}": s for i, s in enumerate(slow)}, sync=sync, concurrency=concurrency)
    names = [slow[0].predict, slow[1].predict, slow[2].predict]
    with dspy.context(lm=offline_lm(), trace=[]):
        await fan.acall(question="why")
        trace = list(dspy.settings.trace)
        assert [entry[0] for entry in trace[:3]] == names
        assert len(trace) == 4
        await Map(slow[2], over="question").acall(question=["a", "b", "c"])
        assert [entry[1]["question"] for entry in dspy.settings.trace[4:]] == ["a", "b", "c"]


def test_the_trace_keeps_its_limit_and_what_failed_branches_did() -> None:
    """`max_trace_size` holds; a branch's records are there though a sibling failed."""
    predict = dspy.Predict("question -> answer")

    async def fails() -> None:
        await asyncio.sleep(0.05)
        raise ValueError("boom")

    with dspy.context(lm=offline_lm(), trace=[], max_trace_size=3):
        FanOut({f"b{i}": predict for i in range(5)})(question="why")
        assert len(dspy.settings.trace) == 3
    with dspy.context(lm=offline_lm(), trace=[]):
        with pytest.raises(ValueError, match="boom"):
            FanOut(good=predict, bad=fails)(question="why")
        assert len(dspy.settings.trace) == 1
    with dspy.context(lm=offline_lm(), trace=None):
        FanOut(good=predict)(question="why")


def test_bootstrap_few_shot_optimises_every_node() -> None:
    """Each predictor of a nested pipeline gets demos of its own part of the work."""
    rows = [dspy.Example(question=f"why {i}", answer="x").with_inputs("question") for i in range(4)]
    with dspy.context(lm=offline_lm()):
        optimiser = dspy.BootstrapFewShot(metric=lambda *_: True, max_bootstrapped_demos=2, max_labeled_demos=0)
        better = optimiser.compile(crew(), trainset=rows)
        assert better(question="why 9").answer.startswith("answer(")
    demos = {name: [set(demo.keys()) - {"augmented"} for demo in p.demos] for name, p in better.named_predictors()}
    assert [len(demos[name]) for name in NAMES] == [2, 2, 2, 2]
    assert demos[NAMES[0]][0] == {"question", "found"}
    assert demos[NAMES[2]][0] == {"part", "sense"}
    assert demos[NAMES[3]][0] == {"search", "analysis", "question", "reasoning", "answer"}


def test_gepa_runs_over_the_whole_pipeline() -> None:
    """GEPA, which patches `forward` and reads the trace after it, compiles a nested pipeline."""

    def metric(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        return dspy.Prediction(score=0.5, feedback="try harder")

    rows = [dspy.Example(question=f"why {i}", answer="x").with_inputs("question") for i in range(3)]
    with dspy.context(lm=offline_lm()):
        optimiser = dspy.GEPA(
            metric=metric, max_metric_calls=9, reflection_lm=offline_lm(lambda *_: "do it well"), num_threads=2
        )
        better = optimiser.compile(crew(), trainset=rows, valset=rows)
        assert [name for name, _ in better.named_predictors()] == NAMES
        assert better(question="why 9").answer.startswith("answer(")


def test_usage_is_tracked_through_a_pipeline() -> None:
    """`track_usage` counts what all branches used, in threads too."""
    with dspy.context(lm=offline_lm(), track_usage=True):
        usage = crew()(question="why so").get_lm_usage()
    assert usage["offline/model"]["prompt_tokens"] == 50  # 5 calls of 10 tokens


def test_a_pipeline_is_a_module_in_a_users_module() -> None:
    """Called and awaited from inside another module, its predictors found there."""

    class Outer(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.crew = crew()

        def forward(self, question: str) -> dspy.Prediction:
            return self.crew(question=question)

    with dspy.context(lm=offline_lm()):
        assert Outer()(question="why").answer.startswith("answer(")
    assert [name for name, _ in Outer().named_predictors()] == [f"crew.{name}" for name in NAMES]


async def test_dspys_callbacks_see_the_nodes() -> None:
    """Nodes that are modules are called as modules: callbacks fire, with the pipeline around them."""
    seen: list[str] = []

    class Spy(dspy.utils.BaseCallback):
        def on_module_start(self, call_id: str, instance: Any, inputs: Any) -> None:
            seen.append(type(instance).__name__)

    with dspy.context(lm=offline_lm(), callbacks=[Spy()]):
        await Chain(a=FanOut(b=dspy.Predict("question -> answer"))).acall(question="why")
    assert seen == ["Chain", "FanOut", "Predict"]


def test_only_dspys_own_settings_are_relied_on() -> None:
    """The three names that are read past DSPy's public interface are there: a new DSPy that moves them fails here."""
    from escalade.pipelines import _run

    assert isinstance(_run._settings.main_thread_config.get("trace"), list)
    assert _run._settings.thread_local_overrides.get() is not None
    with dspy.context(trace=[]):
        assert _run._settings.thread_local_overrides.get()["trace"] is dspy.settings.trace


def test_a_pipeline_shows_what_it_is() -> None:
    """By its nodes, and, as any module, by its predictors."""
    assert repr(Chain(a=lambda x: x, b=lambda a: a)) == "Chain(a, b)"
    shown = repr(FanOut(facts=dspy.Predict("question -> facts"), size=len)).splitlines()
    assert shown[0] == "FanOut(facts, size)"
    assert shown[1].startswith("branches['facts'] = Predict")
