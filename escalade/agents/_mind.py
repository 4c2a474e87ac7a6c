"""How a simulated model gets from a rendered prompt to an answer; the numbers behind it are in `world.py`."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escalade.agents import _author
from escalade.agents._evidence import evidence, proposed, verdict
from escalade.agents._prompt import RAW, Prompt, read_prompt, read_tools, render, size_of
from escalade.agents._questions import Question
from escalade.agents._sampling import Schema, fill, fit, logistic, logit, normal, number, unit
from escalade.agents.confidence.logprob import field_span

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response

    from escalade.agents.world import SimModel, World

Taken = Mapping[str, Any] | Callable[[str], Mapping[str, Any]]
"""Arguments of a tool, or a function from the question to them."""

SHOWN_BY_TOOL = 0.98
"""How likely a model is right at least, when a tool has shown it the answer."""

INKLING = 1.5
"""How well a model feels whether it is right: how far apart, in deviations, when right and when wrong."""

FINISH = frozenset({"finish", "submit"})
"""Tools that end a loop; they are called when every other one was."""

_REASONING = frozenset({"reasoning", "rationale", "thought", "next_thought", "thinking"})
_CONFIDENCE = re.compile(r"confiden|probab|certain")
_TOKEN = re.compile(r"\S+\s*|\s+")
_DIGITS = re.compile(r"\d+")
_PROPER = re.compile(r"(?<!^)\b[A-Z]\w{2,}")


@dataclass(frozen=True, slots=True)
class Thought:
    """What a model came to: the question, what it takes for its answer, how sure it is, the seed of everything else.

    `known`: None for a question that the world doesn't know. `felt`: how likely its own words seem to it, which is what
    log probabilities show. Where it judges an answer, `answer` is "true" or "false".
    """

    asked: str
    known: Question | None
    answer: str | None
    confidence: float
    felt: float
    seed: int

    def reasoning(self) -> str:
        """A text of about the length that such a reasoning has."""
        if self.known is None:
            return f"Let me think about {_short(self.asked)} The text doesn't settle it, so this is an estimate."
        how = self.known.expression or f"what is known about {_short(self.known.text)}"
        return f"Let me go step by step. The question comes down to {how}. That gives {self.answer}."


class Mind:
    """Answers for all models of a world."""

    def __init__(self, world: World, tool_args: Mapping[str, Taken]) -> None:
        self._world, self._tool_args = world, tool_args
        self._ids = itertools.count(1)

    def answer(self, request: Request, sim: SimModel, sample: int) -> Response:
        """The response, with usage, and log probabilities where they are asked for."""
        from dspy.lm15 import Message, Response, TextPart, Usage

        prompt = read_prompt(request)
        thought = self._think(prompt, request, sim, sample)
        call = self._native_call(request, prompt, thought)
        text, finish = ("", "tool_call") if call else (self._text(prompt, request, thought), "stop")
        limit = request.config.max_tokens
        if limit is not None and len(text) > 4 * limit:
            text, finish = text[: 4 * limit], "length"
        text, finish = _stopped(text, finish, request.config.stop)
        made = len(text) if call is None else len(call.name) + len(json.dumps(call.input))
        return Response(
            id=f"sim-{next(self._ids)}",
            model=request.model,
            message=Message.assistant([call or TextPart(text)]),
            finish_reason=finish,
            usage=Usage(input_tokens=-(-size_of(request) // 4), output_tokens=max(1, -(-made // 4))),
            logprobs=_logprobs(text, thought, request.config.logprobs, _spoken(prompt)),
        )

    # -- what it thinks

    def _think(self, prompt: Prompt, request: Request, sim: SimModel, sample: int) -> Thought:
        world, model = self._world, request.model.rsplit("/", 1)[-1]
        asked, known = self._asked(prompt)
        form = prompt.form
        shown = known is not None and _shows(prompt.seen, known.answer)
        hard = known.difficulty if known else unit("unknown", asked)
        reasons = not _REASONING.isdisjoint(form.outputs)
        hints = _author.help_of(form.instructions, world.hints)
        p = world.chance(sim, hard, reasoning=reasons, demos=prompt.demos, hints=hints)
        p = max(p, SHOWN_BY_TOOL) if shown else p
        draw = (world.seed, model, asked, sample)
        seed = number("fill", world.seed, asked)
        claim = _claim(prompt)
        if claim is not None:
            true = known is not None and world.right(known, claim)
            sure = verdict(p if known else 0.0, sim.shift, *draw, claim, right=true)
            return Thought(asked, known, "true" if sure >= 0.5 else "false", sure, sure, seed)
        right = unit("right", *draw) < p
        lean = INKLING / 2 if right else -INKLING / 2
        sure = logistic(logit(p) + INKLING * (normal("inkling", *draw) + lean) + sim.shift)
        felt = logistic(logit(p) + INKLING * (normal("felt", *draw) + lean))
        answer = None
        if known is not None:
            slips = known.wrong or (f"not {known.answer}",)
            answer = known.answer if right else slips[number("slip", *draw) % len(slips)]
        return Thought(asked, known, answer, round(_within(sure), 2), _within(felt), seed)

    def _asked(self, prompt: Prompt) -> tuple[str, Question | None]:
        """What is asked, and what the world knows about it: the first input that is a question of its own."""
        inputs = {
            k: v for k, v in prompt.inputs.items() if k in prompt.form.inputs and k not in {"trajectory", "tools"}
        }
        for value in inputs.values():
            known = self._world.question(value)
            if known is not None:
                return known.text, known
        if not inputs and (known := self._world.question(prompt.text)) is not None:
            return known.text, known
        return " ".join(inputs.values()) or prompt.text, None

    # -- what it writes

    def _text(self, prompt: Prompt, request: Request, thought: Thought) -> str:
        form = prompt.form
        if prompt.style == RAW and not form.outputs:
            return self._plain_text(prompt, thought)
        schema = _response_schema(request)
        properties: Mapping[str, Schema] = schema.get("properties", {})
        if not properties or not form.outputs.keys() <= properties.keys():
            # JSONAdapter leaves tool calls out of the schema even where it wants them as text.
            properties = form.outputs
        defs = schema.get("$defs", {})
        values: dict[str, Any] = {}
        holder = _answer_field(form.outputs or properties, form.annotations)
        for name, wanted in properties.items():
            answer = thought.answer if name == holder else None
            values[name] = self._value(name, wanted, defs, answer, prompt, thought)
        return render(prompt, values)

    def _plain_text(self, prompt: Prompt, thought: Thought) -> str:
        if _author.wants_instruction(prompt.text):
            return _author.reflect(prompt.text, self._world.hints, (self._world.seed, prompt.text))
        return thought.answer if thought.answer is not None else f"This is about {_short(prompt.text)}"

    def _value(
        self, name: str, schema: Schema, defs: Schema, answer: str | None, prompt: Prompt, thought: Thought
    ) -> Any:
        if name == "next_tool_name":
            return self._next_tool(prompt)
        if name == "next_tool_args":
            tool = self._next_tool(prompt)
            return self._arguments(tool, _as_object(prompt.form.tools.get(tool, {})), thought)
        if prompt.form.annotations.get(name) == "ToolCalls":
            return self._text_calls(prompt, thought)
        weighed = evidence(schema, defs, thought.confidence, answer)
        if weighed is not None:
            return weighed
        if is_confidence(name, prompt.form.annotations.get(name, "")):
            stated = fit(str(thought.confidence), schema, defs)
            return thought.confidence if stated is None else stated

        def text(of: str) -> str:
            return self._prose(of, name, prompt, thought)

        return fill(schema, name, number(name, thought.seed), text, answer, defs)

    def _prose(self, of: str, name: str, prompt: Prompt, thought: Thought) -> str:
        if name in _REASONING:
            return thought.reasoning()
        if name.endswith(("instruction", "instructions")):
            current = next((v for k, v in prompt.inputs.items() if k.endswith("instruction")), "")
            evidence = " ".join(v for k, v in prompt.inputs.items() if "feedback" in k)
            seed = (self._world.seed, prompt.text)
            return _author.propose(current, evidence, self._world.hints, seed)
        if _author.writes_text(name):
            return _author.describe(name, prompt.inputs)
        return f"{of}: {_short(thought.asked)}"

    # -- which tool it calls

    def _next_tool(self, prompt: Prompt) -> str:
        """Each tool once, in the order in which the prompt lists them, then the one that ends the loop."""
        options = [str(o) for o in prompt.form.outputs.get("next_tool_name", {}).get("enum", prompt.form.tools)]
        left = [o for o in options if o not in FINISH and o not in prompt.called]
        return left[0] if left else next((o for o in options if o in FINISH), options[-1] if options else "finish")

    def _text_calls(self, prompt: Prompt, thought: Thought) -> dict[str, Any]:
        """ReActV2 without native tools: an input lists them, an output holds the calls."""
        try:
            listed = json.loads(prompt.inputs.get("tools", "[]"))
        except ValueError:
            listed = []
        tools = read_tools(str(line) for line in listed)
        left = [t for t in tools if t not in FINISH and t not in prompt.called] or [t for t in tools if t in FINISH]
        calls = [{"name": t, "args": self._arguments(t, _as_object(tools[t]), thought)} for t in left[:1]]
        return {"tool_calls": calls}

    def _native_call(self, request: Request, prompt: Prompt, thought: Thought) -> Any:
        choice = request.config.tool_choice
        if not request.tools or (choice is not None and choice.mode == "none"):
            return None
        forced = choice is not None and choice.mode == "required"
        allowed = set(choice.allowed) if choice is not None and choice.allowed else None
        tools = [t for t in request.tools if allowed is None or t.name in allowed]
        left = [t for t in tools if t.name not in FINISH and t.name not in prompt.called]
        left = left or [t for t in tools if t.name in FINISH] or (tools if forced else [])
        if not left:
            return None
        from dspy.lm15 import ToolCallPart

        tool = left[0]
        schema = getattr(tool, "parameters", None) or {}
        turn = len(prompt.called) + 1
        return ToolCallPart(
            id=f"call_{turn}_{tool.name}", name=tool.name, input=self._arguments(tool.name, schema, thought)
        )

    def _arguments(self, tool: str, schema: Schema, thought: Thought) -> dict[str, Any]:
        """Arguments that fit the tool's schema: yours; for one that ends a loop, the answer; else by the question."""
        given = self._tool_args.get(tool)
        if given is not None:
            return dict(given(thought.asked) if callable(given) else given)
        properties: Mapping[str, Schema] = schema.get("properties", {})
        required = schema.get("required", [p for p, s in properties.items() if "default" not in s])
        numbers = iter(_DIGITS.findall(thought.asked))
        holder = _answer_field(properties, {}) if tool in FINISH else None
        arguments: dict[str, Any] = {}
        for name in required:
            wanted = properties.get(name, {})
            if is_confidence(name, ""):
                arguments[name] = thought.confidence
                continue
            answer = thought.answer if name == holder else None
            if answer is None and wanted.get("type") in {"integer", "number"}:
                answer = next(numbers, None)
            arguments[name] = fill(
                wanted, name, thought.seed, lambda of: _argument(of, thought), answer, schema.get("$defs")
            )
        return arguments


def is_confidence(name: str, annotation: str) -> bool:
    """Does this output ask how sure the model is?"""
    return annotation == "Confidence" or bool(_CONFIDENCE.search(name))


def _answer_field(outputs: Mapping[str, Schema], annotations: Mapping[str, str]) -> str | None:
    """The output that the answer goes to: `answer` if there is one, else the first that isn't about something else."""
    if "answer" in outputs:
        return "answer"
    for name in outputs:
        other = name in _REASONING or name.startswith("next_tool_") or annotations.get(name) == "ToolCalls"
        if not other and not is_confidence(name, annotations.get(name, "")) and not _author.writes_text(name):
            return name
    return None


def _claim(prompt: Prompt) -> str | None:
    """The answer that it is to judge, None where it is to give one."""
    form = prompt.form
    inputs = {name: prompt.inputs[name] for name in form.inputs if name in prompt.inputs}
    verdicts = {n for n in form.outputs if n in _REASONING or is_confidence(n, form.annotations.get(n, ""))}
    return proposed(inputs, form.outputs, verdicts)


def _spoken(prompt: Prompt) -> str | None:
    """The output that its answer goes to; None for a prompt without fields, which it answers as it is."""
    return _answer_field(prompt.form.outputs, prompt.form.annotations)


def _within(p: float) -> float:
    return min(max(p, 0.01), 0.99)


def _argument(name: str, thought: Thought) -> str:
    if name in {"expression", "formula", "calculation"} and thought.known is not None:
        return thought.known.expression
    if name in {"query", "question", "text", "input", "q", "prompt"}:
        return thought.asked
    proper = _PROPER.findall(thought.asked)
    return proper[-1] if proper else _short(thought.asked)


def _as_object(arguments: Schema) -> Schema:
    return {"type": "object", "properties": arguments}


def _response_schema(request: Request) -> Schema:
    wanted = request.config.response_format
    if not wanted or wanted.get("type") != "json_schema":
        return {}
    schema: Schema = wanted.get("schema") or wanted.get("json_schema", {}).get("schema") or {}
    return schema


def _shows(seen: list[str], answer: str) -> bool:
    return bool(seen) and any(re.search(rf"(?<![\w.]){re.escape(answer)}(?![\w]|\.\d)", text) for text in seen)


def _stopped(text: str, finish: str, stop: tuple[str, ...]) -> tuple[str, str]:
    cuts = [at for word in stop if word and (at := text.find(word)) >= 0]
    return (text[: min(cuts)], "stop") if cuts else (text, finish)


def _logprobs(text: str, thought: Thought, asked: int | None, field: str | None) -> Any:
    """The answer's tokens multiply to what the model feels; all others are certain to 99 %."""
    if asked is None or not text:
        return None
    from dspy.lm15 import TokenLogprob, TopLogprob

    tokens = _TOKEN.findall(text)
    begin, end = (0, len(text)) if field is None else field_span(text, field) or (0, 0)
    starts = list(itertools.accumulate((len(token) for token in tokens), initial=0))
    hot = [
        at < end and at + len(token) > begin and token.strip() != "" for at, token in zip(starts, tokens, strict=False)
    ]
    share = math.log(thought.felt) / max(1, sum(hot))
    return tuple(
        TokenLogprob(
            token=token,
            logprob=share if is_hot else math.log(0.99),
            top=tuple(TopLogprob(token=f"<{k}>", logprob=math.log(0.01 / (k + 1))) for k in range(asked)),
        )
        for token, is_hot in zip(tokens, hot, strict=True)
    )


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else flat[:57] + "..."
