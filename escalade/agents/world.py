"""A simulated world: models with a skill, a price, a latency and a confidence that may be honest or not.

    world = World({"small": SimModel(skill=0.55, price_in="0.10"), "big": SimModel(skill=0.9, price_in="2.50")}, seed=7)
    gateway = Gateway(world.as_models())
    train, test = world.task(50, seed=1), world.task(200, seed=2)

It answers real DSPy signatures through the real adapters, needs no key and no network, and is the same on every run.
It is there to try out programs, policies and optimisers, and to test escalade; it says nothing about real models.

**Who is right.** A model is right with probability

    p = logistic(logit(skill) + 4 * (1/2 - difficulty) + help)

the one-parameter item response model (Rasch 1960): `skill` is its share of right answers at difficulty 1/2. `help`, in
logits: 0.8 where it reasons first (`ChainOfThought`), 0.25 per demonstration up to four, and the worth of each hint
in the instructions (`hints`, what optimisers can discover). Where a tool has shown the right answer, p is at least
0.98. One draw per question and model decides against p, so that help never turns a right answer into a wrong one.

**How sure it says it is.** It has an inkling x of whether it is right, normal around +0.75 or -0.75. An honest model
says logistic(logit(p) + 1.5 x), which is exactly the posterior: calibrated by construction. `calibration` moves that by
+1.5 logits ("overconfident"), -1.5 ("underconfident") or any number. The log probabilities of its answer multiply to
the same of a second inkling, which nothing moves: independent of the first, given whether it is right. Shown somebody's
answer to judge, it says how likely that is right (`_evidence.py` has the formula).

**Samples.** At temperature 0, or None, the same question gets the same draw. At temperature t each further identical
request is, with probability min(t, 1), a fresh draw; a `seed` in the request picks the draw by number instead.

**Tokens** are ceil(characters / 4): of everything that is sent (texts, tool calls, tool and response schemas), and of
the answer.

**What it can't.** XML prompts show nested types without the types of their leaves, so that an Enum, a Literal or a date
inside of a list or a model may not parse there. Images and other media are not looked at.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from escalade.agents._author import HINTS
from escalade.agents._mind import Mind, Taken
from escalade.agents._prompt import text_of
from escalade.agents._questions import Question, generate, recognise
from escalade.agents._sampling import logistic, logit, number, unit
from escalade.errors import BadInput, UnknownName
from escalade.money import Money
from escalade.registry.prices import Price

if TYPE_CHECKING:
    import dspy
    from dspy.lm15 import Request, Response

    from escalade.agents.models import Model

CALIBRATIONS = {"calibrated": 0.0, "overconfident": 1.5, "underconfident": -1.5}
"""Shifts of the stated confidence, in logits."""

REASONING_HELP, DEMO_HELP, DEMOS_THAT_HELP, SLOPE = 0.8, 0.25, 4, 4.0
"""The figures of the formula above: logits, logits, a count, logits over the whole range of difficulty."""

Faults = Callable[[int], BaseException | None]
"""Number of the call to this model, from 1 -> what it fails with, or None."""


@dataclass(frozen=True, slots=True)
class SimModel:
    """A simulated model.

    `skill`: share of right answers at difficulty 1/2 without any help; 0 is never right, 1 always. `price_in`,
    `price_out`: dollars per million tokens. `latency`: seconds per call; `per_token`: seconds per streamed token.
    `calibration`: a word of `CALIBRATIONS` or a shift in logits. `fail_every`: every how many calls it fails, with
    `error` (an exception or a function that makes one, a 500 by default); `faults`: any other pattern. Raises BadInput.
    """

    skill: float = 0.6
    price_in: object = "0.10"
    price_out: object = "0.40"
    latency: float = 0.0
    calibration: str | float = "calibrated"
    per_token: float = 0.0
    fail_every: int | None = None
    error: BaseException | Callable[[], BaseException] | None = None
    faults: Faults | None = None
    price: Price = field(init=False, repr=False)
    shift: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if (
            not 0 <= self.skill <= 1
            or min(self.latency, self.per_token) < 0
            or (1 if self.fail_every is None else self.fail_every) < 1
        ):
            raise BadInput(
                f"a simulated model needs a skill in 0..1, times of 0 or more, fail_every of 1 or more: {self}"
            )
        if isinstance(self.calibration, str) and self.calibration not in CALIBRATIONS:
            raise UnknownName("calibration", self.calibration, list(CALIBRATIONS))
        shift = CALIBRATIONS[self.calibration] if isinstance(self.calibration, str) else float(self.calibration)
        object.__setattr__(self, "price", Price.of(self.price_in, self.price_out))
        object.__setattr__(self, "shift", shift)

    def fault(self, call: int) -> BaseException | None:
        """What call number `call`, from 1, fails with."""
        if self.faults is not None and (fault := self.faults(call)) is not None:
            return fault
        if self.fail_every is None or call % self.fail_every:
            return None
        if self.error is None:
            from dspy import lm15

            failure: BaseException = lm15.ServerError("simulated failure", provider="simulated", status=500)
            return failure
        return self.error if isinstance(self.error, BaseException) else self.error()


LADDER: Mapping[str, SimModel] = {
    "small": SimModel(skill=0.5, price_in="0.10", price_out="0.40"),
    "medium": SimModel(skill=0.75, price_in="0.50", price_out="2.00"),
    "large": SimModel(skill=0.93, price_in="2.50", price_out="10.00"),
}
"""The models of a world that is not told any: three rungs, each five times as dear as the one below."""


class World:
    """Simulated models and the questions that they are asked; see the module for how they answer.

    `models`: by name (default `LADDER`). `seed`: all of its chance. `tasks`: questions of yours that it knows the
    answer to, `{question: answer}` or `{question: (answer, difficulty)}`; difficulty 0..1, 1/2 if not said. `hints`:
    phrases that help in instructions, and their worth in logits. `tool_args`: arguments that the models call a tool
    with, by tool: a dict, or a function of the question; otherwise they make some up that fit its schema.

    Thread-safe. A world is never copied, so that its counts are never split: `copy` and `deepcopy` return it. Raises
    BadInput.
    """

    def __init__(
        self,
        models: Mapping[str, SimModel] | None = None,
        *,
        seed: int = 0,
        tasks: Mapping[str, str | tuple[str, float]] | Iterable[Question] = (),
        hints: Mapping[str, float] = HINTS,
        tool_args: Mapping[str, Taken] | None = None,
    ) -> None:
        self.models: Mapping[str, SimModel] = dict(models or LADDER)
        self.seed, self.hints = seed, {hint.lower(): worth for hint, worth in hints.items()}
        self._known = _known(tasks)
        self._mind = Mind(self, tool_args or {})
        self._lock = threading.Lock()
        self.reset()

    def __deepcopy__(self, memo: dict[int, Any]) -> World:
        return self

    def __copy__(self) -> World:
        return self

    def __repr__(self) -> str:
        return f"World({', '.join(self.models)}; seed={self.seed})"

    # -- the questions

    def task(self, n: int, seed: int = 0) -> list[dspy.Example]:
        """Examples of `n` different arithmetic word problems: input `question`, gold `answer` as text."""
        import dspy

        return [dspy.Example(question=q.text, answer=q.answer).with_inputs("question") for q in generate(n, seed)]

    def question(self, text: str) -> Question | None:
        """What the world knows about the question that the text is, or contains; None if it doesn't know it."""
        return self._known.get(text.strip()) or recognise(text)

    def metric(self, example: Any, prediction: Any, trace: Any = None) -> float:
        """1.0 where the prediction's answer is the example's, else 0.0. Numbers are compared as numbers."""
        return float(same_answer(example.answer, _said(prediction)))

    def feedback(
        self, example: Any, prediction: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None
    ) -> dspy.Prediction:
        """`metric` for GEPA: `score`, and `feedback` that says how the answer comes about and what would help."""
        import dspy

        score = self.metric(example, prediction)
        known = self.question(str(example.question))
        how = f" It is {known.expression}." if known and known.expression else ""
        hint = list(self.hints)[number("hint", example.question) % len(self.hints)] if self.hints else ""
        lesson = f" It helps to {hint}." if hint else ""
        told = "Right." if score else f"Wrong: the answer is {example.answer}.{how}{lesson}"
        return dspy.Prediction(score=score, feedback=told)

    def right(self, known: Question, said: str) -> bool:
        """Is this the answer to the question?"""
        return same_answer(known.answer, said)

    def probability(
        self, model: str, question: str, *, reasoning: bool = False, demos: int = 0, instructions: str = ""
    ) -> float:
        """The true p of the formula: how likely the model is right, asked like this. Raises UnknownName."""
        from escalade.agents._author import help_of

        known = self.question(question)
        hard = known.difficulty if known else unit("unknown", question)
        hints = help_of(instructions, self.hints)
        return self.chance(self.sim(model), hard, reasoning=reasoning, demos=demos, hints=hints)

    @staticmethod
    def chance(sim: SimModel, difficulty: float, *, reasoning: bool, demos: int, hints: float) -> float:
        """The formula."""
        if sim.skill in (0, 1):
            return float(sim.skill)
        help_ = hints + DEMO_HELP * min(demos, DEMOS_THAT_HELP) + (REASONING_HELP if reasoning else 0.0)
        return logistic(logit(sim.skill) + SLOPE * (0.5 - difficulty) + help_)

    # -- the models

    def sim(self, model: str) -> SimModel:
        """The model of that name; a provider's prefix, as in `sim/small`, doesn't matter. Raises UnknownName."""
        found = self.models.get(self._name(model))
        if found is None:
            raise UnknownName("simulated model", model, list(self.models))
        return found

    def _name(self, model: str) -> str:
        return model if model in self.models else model.rsplit("/", 1)[-1]

    def as_models(self, **options: Any) -> list[Model]:
        """The models as the gateway takes them, cheapest first as given here; `options` are fields of every `Model`."""
        from escalade.agents.models import Model
        from escalade.agents.transports.simulated import Simulated

        carry = Simulated(self)
        return [Model(n, f"sim/{n}", carry, **{"price": sim.price, **options}) for n, sim in self.models.items()]

    def pause(self, model: str) -> float:
        """Seconds between two streamed pieces."""
        from escalade.agents.transports.simulated import CHUNK

        return self.sim(model).per_token * CHUNK / 4

    def begin(self, request: Request) -> float:
        """Count the call; seconds that it will take. Raises what its faults say, `lm15.UnsupportedModelError`."""
        try:
            sim = self.sim(request.model)
        except UnknownName as unknown:
            from dspy import lm15

            raise lm15.UnsupportedModelError(str(unknown), provider="simulated") from unknown
        with self._lock:
            name = self._name(request.model)
            self.calls[name] += 1
            fault = sim.fault(self.calls[name])
        if fault is not None:
            raise fault
        return sim.latency

    def answer(self, request: Request) -> Response:
        """What the model answers. Counts nothing."""
        return self._mind.answer(request, self.sim(request.model), self._sample(request))

    def finish(self, answer: Response, *, seen: int | None = None) -> Response:
        """Count the answer's tokens: all, or those of the first `seen` characters. Returns the same answer."""
        usage, name = answer.usage, self._name(answer.model)
        given = usage.input_tokens or 0
        made = (usage.output_tokens or 0) if seen is None else min(-(-seen // 4), usage.output_tokens or 0)
        with self._lock:
            self.input_tokens[name] += given
            self.output_tokens[name] += made
            self._cost[name] += self.sim(name).price.cost(given, made)
        return answer

    # -- the counts

    def reset(self) -> None:
        """Forget all counts, and which samples were drawn: the world is as new."""
        with self._lock:
            self.calls: Counter[str] = Counter()
            self.input_tokens: Counter[str] = Counter()
            self.output_tokens: Counter[str] = Counter()
            self._cost: Counter[str] = Counter()
            self._drawn: Counter[tuple[object, ...]] = Counter()

    def cost(self, model: str | None = None) -> Money:
        """What a provider would have billed, for one model or for all: per call, rounded up to a nano-dollar."""
        with self._lock:
            return Money(sum(self._cost.values()) if model is None else self._cost[model])

    def _sample(self, request: Request) -> int:
        """Number of the draw, 0 is the one without a temperature."""
        config = request.config
        if not config.temperature:
            return 0
        if config.seed is not None:
            return 1 + int(config.seed)
        asked = (request.model, text_of(request.system), text_of(request.messages[-1].parts), len(request.messages))
        with self._lock:
            self._drawn[asked] += 1
            turn = self._drawn[asked]
        return turn if unit("mix", self.seed, turn, *asked) < config.temperature else 0


def same_answer(gold: object, said: object) -> bool:
    """Equal as numbers, where both are one (the last number in what was said), else as texts without case and dots."""
    wanted, given = str(gold).strip(), str(said).strip()
    if _NUMBER.fullmatch(wanted):
        numbers = _NUMBER.findall(given.replace(",", ""))
        return bool(numbers) and float(numbers[-1]) == float(wanted)
    return wanted.casefold().strip(" .") == given.casefold().strip(" .")


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def _said(prediction: Any) -> Any:
    """The answer in a prediction: its field `answer`, else its first field."""
    if isinstance(prediction, str):
        return prediction
    said = prediction.get("answer")
    return next(iter(prediction.values()), "") if said is None else said


def _known(tasks: Mapping[str, str | tuple[str, float]] | Iterable[Question]) -> dict[str, Question]:
    if not isinstance(tasks, Mapping):
        return {question.text.strip(): question for question in tasks}
    known = {}
    for text, told in tasks.items():
        answer, difficulty = (told, 0.5) if isinstance(told, str) else told
        if not 0 <= difficulty <= 1:
            raise BadInput(f"the difficulty of {text!r} is {difficulty}; expected 0..1")
        others = tuple(o if isinstance(o, str) else o[0] for o in tasks.values())
        wrong = tuple(dict.fromkeys(o for o in others if o != answer))[:4]
        known[text.strip()] = Question(text.strip(), answer, difficulty, wrong=wrong or (f"not {answer}",))
    return known
