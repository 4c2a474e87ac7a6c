"""The simulated world: it answers real signatures, is right as often as it says, and is the same on every run."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import enum
import functools
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import dspy
import pydantic
import pytest
from dspy import lm15
from dspy.lm15 import Config, FunctionTool, Message, Request, ToolChoice
from hypothesis import given, settings
from hypothesis import strategies as st

import escalade
from escalade.agents._questions import Question, generate, recognise
from escalade.agents.confidence import Confidence
from escalade.agents.transports import Simulated
from escalade.agents.world import CALIBRATIONS, LADDER, SimModel, World, same_answer
from escalade.errors import BadInput, UnknownName
from tests._virtual import virtually
from tests.agents.bare import bare_lm

ADAPTERS = {
    "chat": lambda: dspy.ChatAdapter(use_json_adapter_fallback=False),
    "json": dspy.JSONAdapter,
    "xml": lambda: dspy.XMLAdapter(use_json_adapter_fallback=False),
}
every_adapter = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)


def asked(world: World, program: Any, adapter: Any = None, model: str = "small", **inputs: Any) -> Any:
    """The program's prediction on a model of the world."""
    with dspy.context(lm=bare_lm(Simulated(world), model), adapter=adapter or ADAPTERS["chat"]()):
        return program(**inputs)


def answers(world: World, program: Any, examples: Any, model: str = "small") -> list[Any]:
    """Predictions for all examples, in order."""
    with dspy.context(lm=bare_lm(Simulated(world), model), adapter=ADAPTERS["chat"]()):
        return [program(question=e.question) for e in examples]


def asking(text: str, model: str = "small", **config: Any) -> Request:
    return Request(model=model, messages=(Message.user(text),), config=Config(**config))


class Colour(enum.Enum):
    """Choices as an Enum."""

    RED = "red"
    BLUE = "blue"


class Person(pydantic.BaseModel):
    """A nested type."""

    name: str
    age: int
    tags: list[str]


class Employee(Person):
    """A type that refers to itself."""

    boss: Employee | None = None
    team: list[Employee]


# -- questions


class TestQuestions:
    @given(st.integers(0, 2**32))
    @settings(max_examples=50)
    def test_are_recognised_and_right(self, seed):
        """Each generated question is recognised by its text alone, its answer is right, its wrong answers are wrong."""
        for question in generate(16, seed):
            assert recognise(question.text) == question
            assert eval(question.expression) == int(question.answer)  # noqa: S307 - arithmetic of our own
            assert question.answer not in question.wrong
            assert 0 <= question.difficulty <= 1

    def test_are_different(self):
        """A set holds no question twice, other seeds give other questions, the same seed the same."""
        one, two = World().task(200, seed=1), World(seed=9).task(200, seed=2)
        assert len({e.question for e in one}) == 200
        assert not {e.question for e in one} & {e.question for e in two}
        assert [e.toDict() for e in World(seed=5).task(200, seed=1)] == [e.toDict() for e in one]

    def test_from_easy_to_hard(self):
        """Difficulty covers the range: there is something for every rung."""
        hard = [q.difficulty for q in generate(400, 0)]
        assert min(hard) < 0.1
        assert max(hard) > 0.9
        assert 0.35 < statistics.mean(hard) < 0.65

    def test_inside_of_a_text(self):
        """A question is found inside of a longer text; two of them are not one."""
        one, two = generate(2, 0)
        assert recognise(f"Context: none.\nQuestion: {one.text}\nAnswer:") == one
        assert recognise(f"{one.text} {two.text}") is None
        assert recognise("How many roads must a man walk down?") is None

    def test_examples_are_dspys(self):
        """`task` gives examples with the input marked, and the gold answer as text."""
        example = World().task(1)[0]
        assert list(example.inputs().keys()) == ["question"]
        assert example.answer == World().question(example.question).answer

    def test_your_own(self):
        """Questions of yours are known, with the difficulty that you say, and wrong answers from among the others."""
        tasks = {"Capital of France?": ("Paris", 0.1), "Capital of Norway?": "Oslo"}
        world = World({"sure": SimModel(skill=1), "lost": SimModel(skill=0)}, tasks=tasks)
        program = dspy.Predict("question -> answer")
        assert asked(world, program, model="sure", question="Capital of France?").answer == "Paris"
        assert asked(world, program, model="lost", question="Capital of France?").answer == "Oslo"
        assert world.question("Capital of Norway?").difficulty == 0.5
        again = World({"sure": SimModel(skill=1)}, tasks=[Question("1+1?", "2", 0.0)])
        assert asked(again, dspy.Predict("question -> answer: int"), model="sure", question="1+1?").answer == 2

    def test_unknown_ones_get_a_placeholder(self):
        """A question that the world doesn't know gets the same placeholder every time, made of the question."""
        program = dspy.Predict("question -> answer")
        one, two = (asked(World(seed=s), program, question="Who was Ada?").answer for s in (0, 0))
        assert one == two
        assert "Who was Ada?" in one


# -- skill, confidence, chance


class TestSkill:
    @pytest.mark.slow
    @pytest.mark.parametrize("program", [dspy.Predict, dspy.ChainOfThought])
    def test_is_right_as_often_as_the_formula_says(self, program):
        """The share of right answers is the mean of p, within four standard errors."""
        world, n = World(seed=1), 1500
        examples = world.task(n, seed=1)
        reasons = program is dspy.ChainOfThought
        p = [world.probability("medium", e.question, reasoning=reasons) for e in examples]
        right = [world.metric(e, a) for e, a in zip(examples, _fast(world, program, examples, "medium"), strict=True)]
        error = math.sqrt(sum(x * (1 - x) for x in p)) / n
        assert abs(statistics.mean(right) - statistics.mean(p)) < 4 * error

    def test_the_formula(self):
        """At difficulty 1/2 and without help p is the skill; reasoning, demonstrations and hints add logits."""
        world = World({"m": SimModel(skill=0.6)}, tasks={"q?": "a"})
        assert world.probability("m", "q?") == pytest.approx(0.6)
        odds = 0.6 / 0.4
        helped = world.probability("m", "q?", reasoning=True, demos=9, instructions="Always CHECK EACH STEP.")
        assert helped / (1 - helped) == pytest.approx(odds * math.exp(0.8 + 4 * 0.25 + 0.9))

    def test_certainties(self):
        """Skill 1 is always right, skill 0 never, however hard or easy."""
        world = World({"god": SimModel(skill=1), "fool": SimModel(skill=0)})
        examples = world.task(50)
        for model, score in (("god", 1), ("fool", 0)):
            said = answers(world, dspy.ChainOfThought("question -> answer"), examples, model)
            assert {world.metric(e, a) for e, a in zip(examples, said, strict=True)} == {score}

    @pytest.mark.slow
    def test_help_never_hurts(self):
        """A question that was right stays right with reasoning, with demonstrations and with a hint."""
        world = World(seed=4)
        examples, demos = world.task(150, seed=1), world.task(3, seed=9)
        plain = dspy.Predict("question -> answer")
        shown, told = plain.deepcopy(), dspy.Predict(plain.signature.with_instructions("Check each step."))
        shown.demos = [dspy.Example(question=d.question, answer=d.answer) for d in demos]
        scores = [
            [world.metric(e, a) for e, a in zip(examples, answers(world, program, examples), strict=True)]
            for program in (plain, shown, told, dspy.ChainOfThought("question -> answer"))
        ]
        for helped in scores[1:]:
            assert all(h >= p for h, p in zip(helped, scores[0], strict=True))
            assert sum(helped) > sum(scores[0])

    @pytest.mark.slow
    def test_a_dearer_model_is_better(self):
        """On the ladder that a world begins with, each rung is better and five times as dear."""
        world = World()
        examples = world.task(200)
        scores = [
            sum(world.metric(e, a) for e, a in zip(examples, _fast(world, dspy.Predict, examples, m), strict=True))
            for m in LADDER
        ]
        assert scores == sorted(scores)
        prices = [m.price.input for m in LADDER.values()]
        assert [b / a for a, b in itertools.pairwise(prices)] == [5, 5]


def _fast(world: World, strategy: Any, examples: Any, model: str) -> list[Any]:
    """Predictions by eight threads: the order in which questions are asked makes no difference."""
    program = strategy("question -> answer, confidence: Confidence", **_types(strategy))
    lm, adapter = bare_lm(Simulated(world), model), ADAPTERS["chat"]()

    def one(example: Any) -> Any:
        with dspy.context(lm=lm, adapter=adapter, disable_history=True):
            return program(question=example.question)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, examples))


def _types(strategy: Any) -> dict[str, Any]:
    return {"custom_types": {"Confidence": Confidence}} if strategy is None else {}


class TestConfidence:
    @pytest.mark.slow
    def test_calibrated(self):
        """Of an honest model's answers at confidence c, about a share c is right: ECE of at most 4 points."""
        assert _ece(_stated("calibrated")) < 0.04

    def test_it_tells_right_from_wrong(self):
        """Right answers are stated with more confidence than wrong ones: a policy has something to go by."""
        said = _stated("calibrated")
        right, wrong = ([c for c, ok in said if ok is wanted] for wanted in (True, False))
        assert statistics.mean(right) > statistics.mean(wrong) + 0.15

    @pytest.mark.slow
    def test_miscalibrated(self):
        """An overconfident model says more than it keeps, an underconfident one less, a number shifts by that much."""
        gap = {}
        for calibration in ("overconfident", "underconfident", 3.0):
            said = _stated(calibration)
            gap[calibration] = statistics.mean(c for c, _ in said) - statistics.mean(ok for _, ok in said)
        assert gap["overconfident"] > 0.1
        assert gap["underconfident"] < -0.1
        assert gap[3.0] > gap["overconfident"]

    def test_calibration_changes_no_answer(self):
        """How sure a model says it is doesn't change what it answers."""
        worlds = [World({"m": SimModel(calibration=c)}) for c in CALIBRATIONS]
        examples = worlds[0].task(40)
        said = [[a.answer for a in answers(w, dspy.Predict("question -> answer"), examples, "m")] for w in worlds]
        assert said[0] == said[1] == said[2]

    @pytest.mark.parametrize("kind", ["Confidence", "float", "str"])
    @every_adapter
    def test_in_any_type(self, adapter, kind):
        """An output that is called confidence, or typed so, holds it: as number or as text."""
        world = World()
        signature = dspy.Signature(f"question -> answer, confidence: {kind}", custom_types={"Confidence": Confidence})
        said = asked(world, dspy.Predict(signature), adapter(), question=world.task(1)[0].question)
        assert 0.01 <= Confidence(said.confidence) <= 0.99


SURE, ADAPTER = dspy.Signature("question -> answer, confidence: float"), dspy.ChatAdapter()


@functools.cache
def _stated(calibration: str | float) -> list[tuple[float, bool]]:
    """Stated confidence and truth of 2,000 answers."""
    world = World({"m": SimModel(skill=0.6, calibration=calibration)}, seed=3)
    transport, stated = Simulated(world), []
    for question in generate(2000, 5):
        text = transport.complete(_bare_prompt(question.text)).text
        answer, confidence = text.split("\n\n")[:2]
        stated.append((float(confidence.split("\n")[1]), answer.split("\n")[1] == question.answer))
    return stated


def _bare_prompt(question: str) -> Request:
    """What ChatAdapter writes for `question -> answer, confidence: float`."""
    system, user = ADAPTER.format(SURE, [], {"question": question})
    return Request(model="m", system=system["content"], messages=(Message.user(user["content"]),))


def _ece(stated: list[tuple[float, bool]]) -> float:
    """Expected calibration error over ten bins of equal width (Naeini et al. 2015)."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in stated:
        bins.setdefault(min(9, int(confidence * 10)), []).append((confidence, right))
    gaps = (abs(sum(c for c, _ in b) - sum(ok for _, ok in b)) for b in bins.values())
    return sum(gaps) / len(stated)


class TestChance:
    def test_same_on_every_run(self):
        """Two worlds of the same seed say the same; another seed says something else."""
        examples = World().task(60)
        runs = [
            [
                a.toDict()
                for a in answers(World(seed=s), dspy.Predict("question -> answer, confidence: float"), examples)
            ]
            for s in (7, 7, 8)
        ]
        assert runs[0] == runs[1]
        assert runs[0] != runs[2]

    @pytest.mark.slow
    def test_same_in_another_process(self):
        """Nothing hangs on Python's own hash seed."""
        code = (
            "from escalade.agents.world import World\nfrom escalade.agents.transports import Simulated\n"
            "from dspy.lm15 import *\nw = World(seed=7)\n"
            "for e in w.task(20): print(Simulated(w).complete(Request(model='small', config=Config(temperature=1.0),"
            " messages=(Message.user(e.question),))).text)"
        )
        outputs = {
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
            for _ in range(2)
        }
        assert len(outputs) == 1

    def test_order_makes_no_difference(self):
        """A question gets the same answer whatever was asked before it."""
        world, examples = World(), World().task(30)
        program = dspy.Predict("question -> answer")
        forwards = [a.answer for a in answers(world, program, examples)]
        backwards = [a.answer for a in answers(world, program, examples[::-1])]
        assert forwards == backwards[::-1]

    def test_temperature_zero_repeats(self):
        """Without a temperature the same question gets the same answer."""
        world = World({"m": SimModel(skill=0.3)})
        question = generate(8, 1)[5].text
        assert len({_said(world, question, temperature=t) for t in (None, 0.0) for _ in range(5)}) == 1

    def test_temperature_samples(self):
        """At temperature 1 identical requests are independent draws, the same draws in a world that is as new."""
        world = World({"m": SimModel(skill=0.5)})
        hard = next(q.text for q in generate(40, 1) if 0.4 < q.difficulty < 0.6)
        drawn = [_said(world, hard, temperature=1.0) for _ in range(30)]
        assert len(set(drawn)) > 1
        world.reset()
        assert [_said(world, hard, temperature=1.0) for _ in range(30)] == drawn

    def test_a_seed_picks_the_draw(self):
        """A seed in the request picks the draw by number, whatever was drawn before."""
        world = World({"m": SimModel(skill=0.5)})
        hard = next(q.text for q in generate(40, 1) if 0.4 < q.difficulty < 0.6)
        drawn = [_said(world, hard, temperature=1.0, seed=s) for s in range(20)]
        assert [_said(world, hard, temperature=1.0, seed=s) for s in range(20)] == drawn
        assert len(set(drawn)) > 1

    def test_candidates_differ(self):
        """`n=8` at temperature 1 gives candidates that disagree, which is what self-consistency needs."""
        world = World({"m": SimModel(skill=0.5)})
        hard = next(q.text for q in generate(40, 1) if 0.4 < q.difficulty < 0.6)
        program = dspy.Predict("question -> answer", n=8, temperature=1.0)
        assert len(set(asked(world, program, model="m", question=hard).completions.answer)) > 1


def _said(world: World, question: str, **config: Any) -> str:
    return Simulated(world).complete(asking(question, "m", **config)).text


# -- signatures

TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "Literal['yes', 'no']": Literal["yes", "no"],
    "Literal[1, 2]": Literal[1, 2],
    "list[str]": list[str],
    "list[int]": list[int],
    "dict[str, int]": dict[str, int],
    "str | None": str | None,
    "Colour": Colour,
    "Person": Person,
    "list[Person]": list[Person],
    "Confidence": Confidence,
}


def _signature(kinds: list[str]) -> Any:
    outputs = {f"field_{i}": (TYPES[kind], dspy.OutputField()) for i, kind in enumerate(kinds)}
    return dspy.Signature({"question": (str, dspy.InputField()), **outputs}, "Do what is asked.")


class TestSignatures:
    @every_adapter
    @pytest.mark.parametrize("kind", TYPES)
    def test_every_type(self, adapter, kind):
        """An output of every type parses in the first call, for questions that are known and that aren't."""
        world = World()
        program = dspy.ChainOfThought(_signature([kind]))
        for question in (world.task(1)[0].question, "What is love?"):
            world.reset()
            value = asked(world, program, adapter(), question=question).field_0
            pydantic.TypeAdapter(TYPES[kind]).validate_python(value)
            assert world.calls["small"] == 1

    @pytest.mark.parametrize("adapter", [ADAPTERS["chat"], ADAPTERS["json"]], ids=["chat", "json"])
    def test_recursive_types(self, adapter):
        """Types that refer to themselves come to an end."""
        signature = dspy.Signature({"question": (str, dspy.InputField()), "who": (Employee, dspy.OutputField())})
        assert isinstance(asked(World(), dspy.Predict(signature), adapter(), question="Who?").who, Employee)

    @given(kinds=st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=6), name=st.sampled_from(list(ADAPTERS)))
    @settings(max_examples=60)
    def test_any_signature(self, kinds, name):
        """Any mixture of outputs parses in one call through every adapter."""
        world = World()
        said = asked(world, dspy.Predict(_signature(kinds)), ADAPTERS[name](), question="What is love?")
        assert [f"field_{i}" for i in range(len(kinds))] == list(said.keys())
        assert world.calls["small"] == 1

    @every_adapter
    @pytest.mark.parametrize("kind", ["str", "int", "float", "list[int]", "list[str]"])
    def test_the_answer_is_typed(self, adapter, kind):
        """The gold answer arrives in the type that was asked for."""
        world = World({"m": SimModel(skill=1)})
        example = world.task(1)[0]
        said = asked(world, dspy.Predict(f"question -> answer: {kind}"), adapter(), "m", question=example.question)
        wanted = TYPES[kind](example.answer) if "[" not in kind else [eval(kind[5:-1])(example.answer)]  # noqa: S307
        assert said.answer == wanted

    def test_choices(self):
        """A known answer that is one of the choices is chosen."""
        world = World({"m": SimModel(skill=1)}, tasks={"Is it blue?": "no", "Which?": "blue", "Right?": "yes"})
        yes_no = dspy.Predict("question -> answer: Literal['yes', 'no']")
        assert asked(world, yes_no, model="m", question="Is it blue?").answer == "no"
        assert asked(world, dspy.Predict(_signature(["Colour"])), model="m", question="Which?").field_0 is Colour.BLUE
        assert asked(world, dspy.Predict("question -> answer: bool"), model="m", question="Right?").answer is True

    def test_answer_goes_to_the_right_field(self):
        """`answer` gets it wherever it stands, else the first output that isn't reasoning or confidence."""
        world = World({"m": SimModel(skill=1)})
        example = world.task(1)[0]
        said = asked(world, dspy.Predict("question -> note, answer"), model="m", question=example.question)
        assert said.answer == example.answer != said.note
        other = dspy.Predict("question -> reasoning, certainty: float, result: int")
        assert str(asked(world, other, model="m", question=example.question).result) == example.answer

    def test_structured_output_keeps_to_its_schema(self):
        """What answers a JSON schema is valid by it."""
        jsonschema = pytest.importorskip("jsonschema")
        seen: list[Request] = []

        class Spy(Simulated):
            def complete(self, request):
                seen.append(request)
                response = super().complete(request)
                schema = request.config.response_format["schema"]
                jsonschema.validate(json.loads(response.text), schema)
                return response

        kinds = [k for k in TYPES if not k.startswith("dict")]
        with dspy.context(lm=bare_lm(Spy(World()), "small"), adapter=dspy.JSONAdapter()):
            dspy.Predict(_signature(kinds))(question="What is love?")
        assert seen[0].config.response_format["strict"] is True

    def test_demonstrations_and_context(self):
        """Other inputs, lists, and demonstrations of other questions don't confuse it."""
        world = World({"m": SimModel(skill=1)})
        first, second = world.task(2)
        program = dspy.Predict("context: list[str], question -> answer")
        program.demos = [dspy.Example(context=["x"], question=first.question, answer=first.answer)]
        for adapter in ADAPTERS.values():
            said = asked(world, program, adapter(), "m", context=["a", "b"], question=second.question)
            assert said.answer == second.answer

    def test_without_a_signature(self):
        """A bare prompt is answered, too: a question of the world by its answer, any other by a sentence."""
        world = World({"m": SimModel(skill=1)})
        lm = bare_lm(Simulated(world), "m")
        example = world.task(1)[0]
        assert lm(f"Please: {example.question}") == [example.answer]
        assert "hello" in lm("hello")[0]


# -- tools


def weather(city: str, days: int = 1) -> str:
    """Weather of a city."""
    return f"sunny in {city}"


def calculator(expression: str) -> str:
    """Calculate."""
    return str(eval(expression))  # noqa: S307 - arithmetic of our own


class TestTools:
    @every_adapter
    @pytest.mark.parametrize("agent", [dspy.ReAct, dspy.ReActV2])
    def test_agents(self, adapter, agent):
        """Every tool is called once, with arguments that fit, then the loop is ended with a typed answer."""
        world = World()
        example = world.task(1)[0]
        program = agent("question -> answer: int, confidence: float", tools=[weather, calculator], max_iters=5)
        said = asked(world, program, adapter(), question=example.question)
        assert isinstance(said.answer, int)
        assert 0 <= said.confidence <= 1
        assert _called(said) == ["weather", "calculator", "finish" if agent is dspy.ReAct else "submit"]

    @pytest.mark.parametrize("agent", [dspy.ReAct, dspy.ReActV2])
    async def test_agents_async(self, agent):
        """The same with `acall`."""
        world = World()
        program = agent("question -> answer", tools=[weather], max_iters=4)
        with dspy.context(lm=bare_lm(Simulated(world), "small"), adapter=dspy.JSONAdapter()):
            said = await program.acall(question=world.task(1)[0].question)
        assert _called(said)[0] == "weather"

    def test_native_calls_in_chat(self):
        """With native function calling the tools are called natively through ChatAdapter as well."""
        adapter = dspy.ChatAdapter(use_native_function_calling=True)
        program = dspy.ReActV2("question -> answer", tools=[weather], max_iters=4)
        said = asked(World(), program, adapter, question="What is the weather in Oslo?")
        assert _called(said) == ["weather", "submit"]

    def test_a_tool_that_shows_the_answer_helps(self):
        """With a calculator that shows the right answer even a weak model is nearly always right."""
        world = World({"weak": SimModel(skill=0.05)})
        examples = world.task(30)
        program = dspy.ReAct("question -> answer", tools=[calculator], max_iters=3)
        said = answers(world, program, examples, "weak")
        assert sum(world.metric(e, a) for e, a in zip(examples, said, strict=True)) >= 27

    def test_arguments_of_yours(self):
        """`tool_args` says what a tool is called with: a dict, or a function of the question."""
        args = {
            "weather": {"city": "Oslo", "days": 3},
            "calculator": lambda question: {"expression": f"{len(question)}"},
        }
        program = dspy.ReAct("question -> answer", tools=[weather, calculator], max_iters=4)
        said = asked(World(tool_args=args), program, question="Is it warm?")
        assert said.trajectory["tool_args_0"] == {"city": "Oslo", "days": 3}
        assert said.trajectory["observation_1"] == "11"

    def test_arguments_from_the_question(self):
        """Left alone, it takes names and numbers from the question."""
        program = dspy.ReAct("question -> answer", tools=[weather], max_iters=2)
        said = asked(World(), program, question="What is the weather in Oslo for 3 days?")
        assert said.trajectory["tool_args_0"] == {"city": "Oslo"}

    @pytest.mark.parametrize(
        ("choice", "called"),
        [
            (None, "one"),
            (ToolChoice(mode="none"), None),
            (ToolChoice(mode="required", allowed=("two",)), "two"),
            (ToolChoice(mode="auto", allowed=("two",)), "two"),
        ],
    )
    def test_choice(self, choice, called):
        """The tool choice of a request is respected."""
        tools = tuple(FunctionTool(name=n) for n in ("one", "two"))
        request = Request(model="small", messages=(Message.user("hi"),), tools=tools, config=Config(tool_choice=choice))
        response = Simulated(World()).complete(request)
        assert [c.name for c in response.tool_calls] == ([called] if called else [])
        assert response.finish_reason == ("tool_call" if called else "stop")

    def test_ends_when_all_were_called(self):
        """Without a tool that ends the loop it answers in text once every tool was called."""
        tool = FunctionTool(name="one")
        first = Simulated(World()).complete(Request(model="small", messages=(Message.user("hi"),), tools=(tool,)))
        done = (Message.user("hi"), first.message, Message.tool(first.tool_calls[0].id, "fine"))
        second = Simulated(World()).complete(Request(model="small", messages=done, tools=(tool,)))
        assert second.text
        assert not second.tool_calls


def _called(said: Any) -> list[str]:
    """Names of the tools that an agent's prediction says were called."""
    if "trajectory" in said:
        return [v for k, v in said.trajectory.items() if k.startswith("tool_name_")]
    return [c.name for turn in said.history.messages for c in turn["tool_calls"].tool_calls]


# -- the wire


class TestTransport:
    def test_usage_is_by_characters(self):
        """Tokens are a quarter of the characters, rounded up: of what was sent, and of the answer."""
        response = Simulated(World()).complete(
            Request(model="small", system="s" * 10, messages=(Message.user("u" * 7), Message.user("hello")))
        )
        assert response.usage.input_tokens == math.ceil((10 + 7 + 5) / 4)
        assert response.usage.output_tokens == math.ceil(len(response.text) / 4)

    def test_tools_and_schemas_count(self):
        """Tool descriptions and response schemas are input, too."""
        plain = Simulated(World()).complete(asking("hi")).usage.input_tokens
        schema = {
            "type": "json_schema",
            "name": "x",
            "schema": {"type": "object", "properties": {"a": {"type": "string"}}},
        }
        assert Simulated(World()).complete(asking("hi", response_format=schema)).usage.input_tokens > plain + 10
        tools = (FunctionTool(name="one", description="d" * 100),)
        with_tools = Request(model="small", messages=(Message.user("hi"),), tools=tools)
        assert Simulated(World()).complete(with_tools).usage.input_tokens > plain + 25

    def test_counts(self):
        """The world counts calls, tokens and money as a provider would."""
        world = World()
        transport = Simulated(world)
        answers_ = [transport.complete(asking(f"question {i}", m)) for i in range(5) for m in ("small", "sim/large")]
        assert world.calls == {"small": 5, "large": 5}
        assert sum(world.input_tokens.values()) == sum(a.usage.input_tokens for a in answers_)
        assert sum(world.output_tokens.values()) == sum(a.usage.output_tokens for a in answers_)
        price = LADDER["small"].price
        small = [a for a in answers_ if a.model == "small"]
        assert world.cost("small") == sum(price.cost(a.usage.input_tokens, a.usage.output_tokens) for a in small)
        assert world.cost() == world.cost("small") + world.cost("large")
        world.reset()
        assert world.cost() == 0
        assert not world.calls

    def test_equals_the_ledger(self):
        """Through the gateway, what a scope spent is what the world would have billed, to the nano-dollar."""
        world = World()
        gateway = escalade.Gateway(world.as_models(), name="equals-the-ledger")
        with escalade.scope(budget="1.00") as scope, dspy.context(lm=gateway.lm("small"), adapter=ADAPTERS["chat"]()):
            for example in world.task(10):
                dspy.Predict("question -> answer")(question=example.question)
            spent = scope.purse.spent
        assert spent == world.cost() > 0

    def test_fallback_through_the_gateway(self):
        """A model that always fails is stood in for by its fallback, and costs nothing."""
        ladder = {"small": SimModel(fail_every=1), "big": SimModel(skill=1)}
        world = World(ladder)
        models = world.as_models(timeout=5)
        models[0].fallbacks = ("big",)
        gateway = escalade.Gateway(models, name="fallback", retry=escalade.agents._route.Retry(retries=0))
        with escalade.scope(budget="1.00"), dspy.context(lm=gateway.lm("small"), adapter=ADAPTERS["chat"]()):
            example = world.task(1)[0]
            assert dspy.Predict("question -> answer")(question=example.question).answer == example.answer
        assert world.cost("small") == 0
        assert world.calls == {"small": 1, "big": 1}

    def test_limit(self):
        """An answer longer than the limit is cut there and says so."""
        response = Simulated(World()).complete(asking("hello " * 20, max_tokens=3))
        assert response.finish_reason == "length"
        assert len(response.text) == 12
        assert response.usage.output_tokens == 3

    def test_stop(self):
        """A stop word ends the answer before it."""
        full = Simulated(World()).complete(asking("hello")).text
        assert Simulated(World()).complete(asking("hello", stop=("about",))).text == full.split("about")[0]

    @pytest.mark.parametrize("alternatives", [0, 2])
    def test_logprobs(self, alternatives):
        """Log probabilities cover the text; the answer's own multiply to what the model feels, all others are sure."""
        world = World({"m": SimModel()})
        prompt = _bare_prompt(world.task(1)[0].question)
        request = Request(
            model="m", system=prompt.system, messages=prompt.messages, config=Config(logprobs=alternatives)
        )
        response = Simulated(world).complete(request)
        assert "".join(t.token for t in response.logprobs) == response.text
        answer = response.text.split("\n")[1]
        told = {t.token.strip(): math.exp(t.logprob) for t in response.logprobs}
        assert told.pop(answer) == pytest.approx(0.9858, abs=1e-4)
        assert set(told.values()) == {0.99}
        assert all(len(t.top) == alternatives for t in response.logprobs)

    def test_logprobs_under_dspy(self):
        """They arrive on the prediction."""
        said = asked(World(), dspy.Predict("question -> answer", logprobs=True), question="What is love?")
        assert said.logprobs["content"][0]["logprob"] < 0

    @pytest.mark.parametrize("text", ["hello", None])
    async def test_four_ways_say_the_same(self, text):
        """Complete and stream, sync and async: the same answer and the same usage."""
        world = World()
        request = asking(text or world.task(1)[0].question)
        transport = Simulated(world)
        told = [
            transport.complete(request),
            await transport.acomplete(request),
            lm15.materialize_response(transport.stream(request), request),
            await lm15.amaterialize_response(transport.astream(request), request),
        ]
        assert len({(a.text, a.usage.input_tokens, a.usage.output_tokens, a.finish_reason) for a in told}) == 1
        assert world.calls["small"] == 4
        assert world.output_tokens["small"] == 4 * told[0].usage.output_tokens

    def test_a_stream_of_a_tool_call(self):
        """Tool calls are streamed as such."""
        request = Request(model="small", messages=(Message.user("hi"),), tools=(FunctionTool(name="one"),))
        response = lm15.materialize_response(Simulated(World()).stream(request), request)
        assert [c.name for c in response.tool_calls] == ["one"]

    async def test_streams_under_dspy(self):
        """`dspy.streamify` shows a field in pieces."""
        world = World()
        listener = dspy.streaming.StreamListener(signature_field_name="reasoning")
        with dspy.context(lm=bare_lm(Simulated(world), "small"), adapter=ADAPTERS["chat"]()):
            program = dspy.streamify(dspy.ChainOfThought("question -> answer"), stream_listeners=[listener])
            items = [item async for item in program(question=world.task(1)[0].question)]
        pieces = [i.chunk for i in items if isinstance(i, dspy.streaming.StreamResponse)]
        assert len(pieces) > 3
        assert "".join(pieces).strip() == items[-1].reasoning

    async def test_a_stream_left_early(self):
        """What was not streamed is not billed."""
        world = World()
        whole = Simulated(world).complete(asking("hello " * 10)).usage.output_tokens
        world.reset()
        events = Simulated(world).astream(asking("hello " * 10))
        for _ in range(3):
            await anext(events)
        await events.aclose()
        assert 0 < world.output_tokens["small"] < whole
        assert world.input_tokens["small"] > 0

    @virtually
    async def test_latency(self):
        """Calls take their time without holding each other up; sync calls do, too."""
        world = World({"m": SimModel(latency=0.1)})
        began = time.perf_counter()
        await asyncio.gather(*(Simulated(world).acomplete(asking("hi", "m")) for _ in range(20)))
        assert time.perf_counter() - began == pytest.approx(0.1)
        began = time.perf_counter()
        await asyncio.to_thread(Simulated(world).complete, asking("hi", "m"))
        assert time.perf_counter() - began == pytest.approx(0.1)

    def test_slow_streams(self):
        """`per_token` spreads a stream over time."""
        world = World({"m": SimModel(per_token=0.005)})
        began = time.perf_counter()
        tokens = list(Simulated(world).stream(asking("hello", "m")))[-1].usage.output_tokens
        assert time.perf_counter() - began > 0.9 * tokens * 0.005

    async def test_cancelled(self):
        """A cancelled call was a call, but gave no tokens."""
        world = World({"m": SimModel(latency=5)})
        task = asyncio.create_task(Simulated(world).acomplete(asking("hi", "m")))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.calls["m"] == 1
        assert world.cost() == 0

    def test_many_threads(self):
        """Counts are exact under concurrency."""
        world = World()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda i: Simulated(world).complete(asking(f"q{i}")), range(400)))
        assert world.calls["small"] == 400


class TestFaults:
    def test_every_third(self):
        """`fail_every=3` fails every third call, with a 500 if not told otherwise, and bills nothing for it."""
        world = World({"m": SimModel(fail_every=3)})
        transport = Simulated(world)
        told = []
        for _ in range(6):
            try:
                told.append(transport.complete(asking("hi", "m")).finish_reason)
            except lm15.ServerError:
                told.append("failed")
        assert told == ["stop", "stop", "failed"] * 2
        assert world.calls["m"] == 6

    @pytest.mark.parametrize(
        "error",
        [lm15.RateLimitError("slow down", retry_after=2), lambda: lm15.RateLimitError("slow down", retry_after=2)],
    )
    async def test_an_error_of_yours(self, error):
        """The error may be an exception or make one; it comes out of all four ways as it is."""
        transport = Simulated(World({"m": SimModel(fail_every=1, error=error)}))
        for call in (transport.complete, lambda r: list(transport.stream(r))):
            with pytest.raises(lm15.RateLimitError):
                call(asking("hi", "m"))
        with pytest.raises(lm15.RateLimitError):
            await transport.acomplete(asking("hi", "m"))
        with pytest.raises(lm15.RateLimitError):
            await anext(transport.astream(asking("hi", "m")))

    def test_any_pattern(self):
        """`faults` is asked with the number of the call."""
        faults = {1: lm15.TimeoutError("slow"), 3: lm15.TransportError("gone")}.get
        transport = Simulated(World({"m": SimModel(faults=faults)}))
        with pytest.raises(lm15.TimeoutError):
            transport.complete(asking("hi", "m"))
        transport.complete(asking("hi", "m"))
        with pytest.raises(lm15.TransportError):
            transport.complete(asking("hi", "m"))

    def test_a_model_of_another_world(self):
        """A model that the world doesn't have is unsupported, and the message names those that it has."""
        with pytest.raises(lm15.UnsupportedModelError, match="large, medium, small"):
            Simulated(World()).complete(asking("hi", "tiny"))
        with pytest.raises(UnknownName, match="small"):
            World().sim("smal")


# -- the rest


@pytest.mark.parametrize(
    ("gold", "said", "same"),
    [
        ("42", "42", True),
        ("42", 42, True),
        ("42", "42.0", True),
        ("42", "The answer is 42.", True),
        ("42", "first 41, then 42", True),
        ("1042", "1,042", True),
        ("42", "43", False),
        ("42", "none", False),
        ("42", "", False),
        ("-3", "-3", True),
        ("Paris", "paris.", True),
        ("Paris", "Oslo", False),
    ],
)
def test_same_answer(gold, said, same):
    """Numbers are compared as numbers, the last one counts; texts without case and dots."""
    assert same_answer(gold, said) is same


def test_metric():
    """The metric takes predictions with any name of the answer, and texts."""
    world, example = World(), dspy.Example(question="q", answer="42")
    assert world.metric(example, dspy.Prediction(answer="42")) == 1.0
    assert world.metric(example, dspy.Prediction(result=42)) == 1.0
    assert world.metric(example, "41") == 0.0
    assert world.metric(example, dspy.Prediction()) == 0.0


def test_feedback():
    """For GEPA: a score, how the answer comes about, and a hint that would help."""
    world = World()
    example = world.task(1)[0]
    wrong = world.feedback(example, dspy.Prediction(answer="-1"))
    assert wrong.score == 0
    assert world.question(example.question).expression in wrong.feedback
    assert any(hint in wrong.feedback for hint in world.hints)
    assert world.feedback(example, dspy.Prediction(answer=example.answer)).score == 1
    assert "helps" not in World(hints={}).feedback(example, dspy.Prediction(answer="-1")).feedback


def test_is_never_copied():
    """Copies of a world are the world: counts are never split."""
    world = World()
    assert copy.deepcopy(world) is world
    assert copy.copy(world) is world
    assert repr(world) == "World(small, medium, large; seed=0)"
    assert repr(Simulated(world)) == f"Simulated({world!r})"


@pytest.mark.parametrize(
    "options",
    [{"skill": 1.1}, {"skill": -0.1}, {"latency": -1}, {"fail_every": 0}, {"per_token": -1}, {"calibration": "humble"}],
)
def test_bad_models(options):
    """Nonsense is refused when it is said."""
    with pytest.raises(BadInput):
        SimModel(**options)


def test_bad_tasks():
    """A difficulty outside of 0..1 is refused, by name."""
    with pytest.raises(BadInput, match="Why"):
        World(tasks={"Why?": ("because", 2.0)})


def test_as_models():
    """The world's models for the gateway: priced, in order, with the options that were given."""
    models = World().as_models(max_output=77)
    assert [m.name for m in models] == ["small", "medium", "large"]
    assert [m.price for m in models] == [m.price for m in LADDER.values()]
    assert {m.max_output for m in models} == {77}


def test_models_may_have_the_names_of_providers() -> None:
    """Names with a slash, as in a file of models that is tried out, are counted and billed under that name."""
    world = World({"one/m": SimModel(skill=1.0), "two/m": SimModel(skill=1.0, price_in="9")})
    transport = Simulated(world)
    for model in ("one/m", "two/m", "sim/two/m"):
        with contextlib.suppress(lm15.UnsupportedModelError):
            transport.complete(asking("How much is 17 + 25?", model))
    assert world.calls == {"one/m": 1, "two/m": 1}
    assert world.cost("two/m") > world.cost("one/m") > 0
    assert world.cost() == world.cost("one/m") + world.cost("two/m")
