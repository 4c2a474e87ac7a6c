"""What DSPy's adapters wrote: the rendered prompt read back into fields, and values rendered as an answer.

It reads Chat, JSON and XML prompts of DSPy 3.4, any signature: names and types of inputs and outputs, instructions,
demonstrations, the tools that a ReAct prompt lists. The system message is the same for every question, and read once.
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from escalade.agents._sampling import Schema

if TYPE_CHECKING:
    from dspy.lm15 import Request

CHAT, JSON, XML, RAW = "chat", "json", "xml", "raw"

_INPUTS = re.compile(r"Your input fields are:\n(.*?)\nYour output fields are:", re.DOTALL)
_OUTPUTS = re.compile(r"Your output fields are:\n(.*?)\nAll interactions", re.DOTALL)
_FIELD = re.compile(r"^\d+\. `(\w+)` \((.*)\):", re.MULTILINE)
_OBJECTIVE = re.compile(r"your objective is:(.*)", re.DOTALL)
_NOTE = re.compile(r"\{(\w+)\}\s+# note: the value you produce must (.*)")
_SECTION = re.compile(
    r"^\[\[ ## (\w+) ## \]\]\n(.*?)(?=\n+\[\[ ## \w+ ## \]\]|\n\nRespond with |\Z)", re.DOTALL | re.MULTILINE
)
_TAG = re.compile(r"^<(\w+)>\n(.*?)\n</\1>", re.DOTALL | re.MULTILINE)
_TOOL = re.compile(
    r"(?:^\(\d+\) |^)(\w+)(?:, whose description is <desc>.*?</desc>)?\.\s+It takes arguments (\{.*\})\.", re.MULTILINE
)
_SKELETON = re.compile(r"^(<(\w+)>(?:<.*|\.\.\.)</\2>)$", re.MULTILINE)
_CALLED = re.compile(r'"name": "(\w+)"')

_SCALARS: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Any": {"type": "string"},
}


@dataclass(frozen=True, slots=True)
class Form:
    """What a system message asks for: inputs by name, outputs with JSON schema and annotation, instructions, tools."""

    inputs: tuple[str, ...]
    outputs: Mapping[str, Schema]
    annotations: Mapping[str, str]
    instructions: str
    tools: Mapping[str, Schema]
    chat: bool


@dataclass(slots=True)
class Prompt:
    """One rendered prompt. `inputs`: values as text. `demos`: demonstrations shown. `called`: tools that ran, in order.

    `seen`: what tools answered, as text. `text`: the last message of the user.
    """

    form: Form
    style: str
    text: str
    inputs: dict[str, str]
    demos: int = 0
    called: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


@functools.lru_cache(maxsize=1024)
def read_form(system: str) -> Form:
    """The form of a system message; one without any outputs where DSPy didn't write it."""
    outputs = _OUTPUTS.search(system)
    inputs = _INPUTS.search(system)
    objective = _OBJECTIVE.search(system)
    instructions = objective.group(1).strip() if objective else system
    annotations = dict(_FIELD.findall(outputs.group(1))) if outputs else {}
    notes = dict(_notes(system))
    skeletons = {m.group(2): m.group(1) for m in _SKELETON.finditer(system)}
    return Form(
        inputs=tuple(name for name, _ in _FIELD.findall(inputs.group(1))) if inputs else (),
        outputs={n: _schema(a, notes.get(n, ""), skeletons.get(n)) for n, a in annotations.items()},
        annotations=annotations,
        instructions=instructions,
        tools=read_tools(line.strip() for line in instructions.splitlines()),
        chat="[[ ## completed ## ]]" in system,
    )


def read_tools(lines: Iterable[str]) -> dict[str, Schema]:
    """Tools as DSPy describes them in text, by name: the JSON schema of each argument."""
    tools: dict[str, Schema] = {}
    for line in lines:
        described = _TOOL.match(line)
        if described:
            try:
                tools[described.group(1)] = ast.literal_eval(described.group(2))
            except (ValueError, SyntaxError):
                tools[described.group(1)] = {}
    return tools


def read_prompt(request: Request) -> Prompt:
    """Read the whole conversation."""
    form = read_form(text_of(request.system))
    texts: list[str] = []
    prompt = Prompt(form, RAW, "", {})
    for message in request.messages:
        text = text_of(message.parts)
        if message.role == "assistant":
            _read_assistant(message, text, prompt)
        elif message.role == "tool":
            prompt.seen.extend(_results(message))
        else:
            texts.append(text)
    prompt.text = texts[-1] if texts else ""
    prompt.style = _style(form, prompt.text, request)
    prompt.inputs = _inputs(form, prompt.style, texts)
    _read_trajectory(prompt)
    if "[[ ## tool_call_results ## ]]" in "".join(texts[:-1]):
        prompt.seen.extend(t for t in texts[:-1] if t.startswith("[[ ## tool_call_results"))
    return prompt


def text_of(parts: Any) -> str:
    """The text of a message's parts, or of a system message."""
    if parts is None or isinstance(parts, str):
        return parts or ""
    if len(parts) == 1:
        return getattr(parts[0], "text", None) or ""
    return "".join(getattr(part, "text", None) or "" for part in parts)


def size_of(request: Request) -> int:
    """Characters of everything that counts as input: texts, tool calls and their results, tools, response schema."""
    size = len(text_of(request.system))
    for message in request.messages:
        for part in message.parts:
            text = getattr(part, "text", None)
            size += len(text) if isinstance(text, str) else len(_part_text(part))
    for tool in request.tools:
        size += len(tool.name) + len(getattr(tool, "description", None) or "")
        size += len(json.dumps(getattr(tool, "parameters", None), ensure_ascii=False))
    if request.config.response_format:
        size += len(json.dumps(request.config.response_format, ensure_ascii=False))
    return size


def render(prompt: Prompt, values: Mapping[str, Any]) -> str:
    """The values as the adapter will parse them."""
    if prompt.style == CHAT:
        body = "\n\n".join(f"[[ ## {name} ## ]]\n{_plain(value)}" for name, value in values.items())
        return body + "\n\n[[ ## completed ## ]]"
    if prompt.style == JSON:
        return json.dumps(values, ensure_ascii=False)
    if prompt.style == XML:
        # Nested XML has no types: what isn't all text is written as JSON, which XMLAdapter reads too.
        return "\n\n".join(_xml(name, value if _all_text(value) else _plain(value)) for name, value in values.items())
    return _plain(next(iter(values.values()), ""))


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if value is None or isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def _all_text(value: Any) -> bool:
    if isinstance(value, list | dict):
        return all(map(_all_text, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str)


def _xml(tag: str, value: Any) -> str:
    if isinstance(value, list):
        return f"<{tag}>" + "".join(_xml("item", item) for item in value) + f"</{tag}>"
    if isinstance(value, dict):
        return f"<{tag}>" + "".join(_xml(name, inner) for name, inner in value.items()) + f"</{tag}>"
    return f"<{tag}>\n{escape(_plain(value))}\n</{tag}>"


# -- the system message


def _notes(system: str) -> Iterator[tuple[str, str]]:
    """Name and "must …" of each output. JSONAdapter writes its structure as JSON: quotes are escaped there."""
    for raw in system.splitlines():
        if "# note: the value you produce must" not in raw:
            continue
        line = raw.strip()
        if line.startswith('"'):
            try:
                line = next(iter(json.loads("{" + line.rstrip(",") + "}").values()))
            except ValueError:
                continue
        note = _NOTE.match(line)
        if note:
            yield note.group(1), note.group(2)


def _schema(annotation: str, note: str, skeleton: str | None) -> Schema:
    """JSON schema of an output, from its type's name and from the note that explains it."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if annotation.startswith("Literal["):
        return {"enum": _literals(annotation)}
    if note.startswith("adhere to the JSON schema: "):
        return _loaded(note.removeprefix("adhere to the JSON schema: "))
    if note.startswith("be one of: "):
        return {"enum": note.removeprefix("be one of: ").split("; ")}
    return _nested(annotation, skeleton) if skeleton else _SCALARS["str"]


def _nested(annotation: str, skeleton: str) -> Schema:
    """XML prompts show nested types as a skeleton, without notes."""
    if annotation.startswith("dict["):
        return {"type": "object"}
    if annotation.startswith("list[") and annotation[5:-1] in _SCALARS:
        return {"type": "array", "items": _SCALARS[annotation[5:-1]]}
    return _skeleton_schema(ET.fromstring(skeleton))  # noqa: S314 - DSPy wrote it


def _loaded(schema: str) -> Schema:
    try:
        loaded: Schema = json.loads(schema)
    except ValueError:
        return _SCALARS["str"]
    return loaded


def _literals(annotation: str) -> list[Any]:
    try:
        return list(ast.literal_eval("[" + annotation.removeprefix("Literal[")))
    except (ValueError, SyntaxError):
        return [annotation]


def _skeleton_schema(element: ET.Element) -> Schema:
    """A skeleton has no types at its leaves: "1" is read as text, number and truth alike."""
    children = list(element)
    if [child.tag for child in children] == ["item"]:
        return {"type": "array", "items": _skeleton_schema(children[0])}
    if children:
        return {"type": "object", "properties": {child.tag: _skeleton_schema(child) for child in children}}
    return {"const": "1"} if element.tag != "item" or element.text else {"type": "string"}


# -- the conversation


def _style(form: Form, text: str, request: Request) -> str:
    if "Respond with a JSON object" in text or request.config.response_format:
        return JSON
    if "`[[ ## completed ## ]]`" in text:
        return CHAT
    if "wrapped in XML tags" in text:
        return XML
    if not form.outputs:
        return RAW
    return CHAT if form.chat else JSON if "Outputs will be a JSON object" in text_of(request.system) else XML


def _inputs(form: Form, style: str, texts: list[str]) -> dict[str, str]:
    """The fields of the last message; what it lacks, in a later turn of a conversation, from the nearest before."""
    pattern = _TAG if style == XML else _SECTION
    found: dict[str, str] = {}
    for text in reversed(texts):
        for name, value in pattern.findall(text):
            found.setdefault(name, value.strip())
        if all(name in found for name in form.inputs if name not in {"history", "tools", "trajectory"}):
            break
    return found


def _read_trajectory(prompt: Prompt) -> None:
    """ReAct's text protocol: the trajectory is an input that holds sections of its own."""
    if "trajectory" not in prompt.form.inputs:
        return
    steps = dict(_TAG.findall(prompt.inputs.get("trajectory", ""))) if prompt.style == XML else prompt.inputs
    for name, value in steps.items():
        if name.startswith("tool_name_"):
            prompt.called.append(value.strip())
        elif name.startswith("observation_"):
            prompt.seen.append(value)


def _read_assistant(message: Any, text: str, prompt: Prompt) -> None:
    calls = [part.name for part in message.parts if part.type == "tool_call"]
    if calls:
        prompt.called.extend(calls)
    elif "tool_calls" in text:
        prompt.called.extend(_CALLED.findall(text))
    else:
        prompt.demos += 1


def _results(message: Any) -> Iterator[str]:
    for part in message.parts:
        yield _part_text(part)


def _part_text(part: Any) -> str:
    if part.type == "tool_result":
        return text_of(part.content)
    if part.type == "tool_call":
        return f"{part.name} {json.dumps(part.input, ensure_ascii=False)}"
    return repr(part)
