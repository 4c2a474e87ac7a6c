"""The simulated world drives DSPy's optimisers offline: they find what there is to gain, and find it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import dspy
import pytest

from escalade.agents._author import HINTS, help_of, propose, reflect
from escalade.agents.transports import Simulated
from escalade.agents.world import World
from tests.agents.bare import bare_lm

TRAIN, VAL, TEST = 20, 30, 120
Compile = Callable[[World, dspy.Module, Any], dspy.Module]


def bootstrap(world: World, program: dspy.Module, prompt_model: Any) -> dspy.Module:
    """BootstrapFewShot: demonstrations of its own right answers."""
    optimiser = dspy.BootstrapFewShot(metric=world.metric, max_bootstrapped_demos=3, max_labeled_demos=3)
    return optimiser.compile(program, trainset=world.task(TRAIN, 1))


def mipro(world: World, program: dspy.Module, prompt_model: Any) -> dspy.Module:
    """MIPROv2: instructions that a model proposes, and demonstrations, by Bayesian search."""
    optimiser = dspy.MIPROv2(
        metric=world.metric,
        auto=None,
        num_candidates=4,
        max_bootstrapped_demos=2,
        max_labeled_demos=2,
        num_threads=1,
        seed=1,
        prompt_model=prompt_model,
        verbose=False,
    )
    data = {"trainset": world.task(TRAIN, 1), "valset": world.task(VAL, 2)}
    return optimiser.compile(program, **data, num_trials=5, minibatch=False)


def gepa(world: World, program: dspy.Module, prompt_model: Any) -> dspy.Module:
    """GEPA: instructions that come of reflecting on feedback."""
    optimiser = dspy.GEPA(
        metric=world.feedback,
        max_metric_calls=150,
        reflection_lm=prompt_model,
        reflection_minibatch_size=3,
        num_threads=1,
        seed=1,
    )
    return optimiser.compile(program, trainset=world.task(TRAIN, 1), valset=world.task(VAL, 2))


def compiled(compile_: Compile, make: Callable[[], dspy.Module], seed: int = 0) -> tuple[float, float, dict[str, Any]]:
    """Score before and after on questions that the optimiser never saw, and the state of the compiled program."""
    world = World(seed=seed)
    evaluate = dspy.Evaluate(devset=world.task(TEST, 3), metric=world.metric, num_threads=1, display_progress=False)
    prompt_model = bare_lm(Simulated(world), "large", temperature=1.0)
    with dspy.context(lm=bare_lm(Simulated(world), "small"), adapter=dspy.ChatAdapter()):
        before = evaluate(make()).score
        program = compile_(world, make(), prompt_model)
        after = evaluate(program).score
    return before, after, program.dump_state()


def plain() -> dspy.Module:
    return dspy.Predict("question -> answer")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("compile_", [bootstrap, mipro, gepa])
def test_there_is_something_to_gain(compile_):
    """Each optimiser makes a program that is better on unseen questions by ten points, and makes it again."""
    before, after, state = compiled(compile_, plain)
    assert after >= before + 10
    again = compiled(compile_, plain)
    assert (before, after) == again[:2]
    assert _plain(state) == _plain(again[2])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("compile_", [bootstrap, mipro, gepa])
def test_the_metric_never_falls(compile_, seed):
    """Whatever the seed, and for programs that reason too, what comes out is not worse on unseen questions."""
    before, after, _ = compiled(compile_, lambda: dspy.ChainOfThought("question -> answer"), seed)
    assert after >= before


def _plain(state: dict[str, Any]) -> str:
    return json.dumps(state, sort_keys=True, default=str)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_instructions_hold_a_hint():
    """What MIPROv2 and GEPA find is what the world documents: one of its hints, in the instructions."""
    for compile_ in (mipro, gepa):
        state = compiled(compile_, plain)[2]
        assert help_of(state["signature"]["instructions"], HINTS) > 0


def test_other_hints():
    """A world with hints of its own teaches those."""
    world = World(hints={"Mind the units": 2.0})
    with dspy.context(lm=bare_lm(Simulated(world), "small"), adapter=dspy.ChatAdapter()):
        program = gepa(world, plain(), bare_lm(Simulated(world), "large"))
    assert "mind the units" in program.signature.instructions.lower()


def test_hints_are_worth_what_they_say():
    """The worth of several hints adds up; case doesn't matter; what is not in the instructions is worth nothing."""
    assert help_of("Answer.", HINTS) == 0
    assert help_of("CHECK EACH STEP. Write down every number.", HINTS) == pytest.approx(sum(HINTS.values()))


def test_a_proposal_goes_on_from_what_there_is():
    """A proposal keeps the instruction, adds a sentence, takes up what feedback names, and ends when all is said."""
    current = "Answer the question."
    told = propose(current, "It helps to write down every number.", HINTS, seed=0)
    assert told == "Answer the question. Always write down every number."
    seen = {propose(current, "", HINTS, seed=s) for s in range(30)}
    assert all(text.startswith(current) and len(text) > len(current) for text in seen)
    assert len(seen) > 2
    text = current
    for s in range(10):
        text = propose(text, "", HINTS, seed=s)
    assert propose(text, "", HINTS, seed=99) == text


def test_reflection_answers_in_a_block():
    """The answer to a reflection prompt holds the new instruction in a ```-block, as GEPA reads it."""
    from gepa.strategies.instruction_proposal import InstructionProposalSignature

    prompt = InstructionProposalSignature.prompt_renderer(
        {
            "current_instruction_doc": "Answer.",
            "dataset_with_feedback": [{"Inputs": {"question": "q"}, "Feedback": "It helps to check each step."}],
        }
    )
    said = reflect(prompt, HINTS, seed=0)
    assert InstructionProposalSignature.output_extractor(said) == {"new_instruction": "Answer. Always check each step."}


def test_optimisers_prompts_are_not_questions():
    """A prompt that shows questions to describe them is answered by prose, never by the answer to one of them."""
    world = World()
    program = dspy.Predict("examples -> observations, summary")
    with dspy.context(lm=bare_lm(Simulated(world), "large"), adapter=dspy.ChatAdapter()):
        said = program(examples=str(world.task(1)))
    assert not said.observations.isdigit()
    assert not said.summary.isdigit()
