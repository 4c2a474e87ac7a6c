"""How simulated models answer the prompts of DSPy's optimisers: they propose instructions.

What can be found out is documented: an instruction that contains one of the world's hints makes every model better at
its questions (`World.hints`). A proposal is the old instruction and one more sentence; half of the sentences that a
model comes up with hold a hint, the others are well meant. Where the prompt holds feedback that names a hint (GEPA with
`World.feedback`), the proposal takes it up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from escalade.agents._sampling import number

HINTS: Mapping[str, float] = {"check each step": 0.9, "write down every number": 0.5}
"""Phrases that help when instructions contain them, and by how much, in logits."""

_WELL_MEANT = (
    "Be concise and answer with confidence.",
    "You are an expert with many years of experience.",
    "Take a deep breath first.",
)
_BLOCK = re.compile(r"```\n?(.*?)\n?```", re.DOTALL)
_TEXTS = re.compile(r"(?:instructions?|description|observations?|summary|advice|feedback|critique|prefix\w*)$")


def writes_text(name: str) -> bool:
    """Is this output one in which an optimiser asks for prose about a task, not for an answer to it?"""
    return bool(_TEXTS.search(name))


def help_of(instructions: str, hints: Mapping[str, float]) -> float:
    """What the hints in the instructions are worth, in logits."""
    lower = instructions.lower()
    return sum(worth for hint, worth in hints.items() if hint in lower)


def wants_instruction(text: str) -> bool:
    """Is this a reflection prompt like GEPA's: an instruction in ```-blocks, asking for a better one?"""
    return "```" in text and "instruction" in text.lower()


def reflect(text: str, hints: Mapping[str, float], seed: object) -> str:
    """The answer to a reflection prompt: a few words, and the new instruction in a ```-block."""
    blocks = _BLOCK.findall(text)
    current, evidence = (blocks[0], "\n".join(blocks[1:])) if blocks else ("", text)
    return f"The feedback shows what was missing.\n\n```\n{propose(current, evidence, hints, seed)}\n```"


def propose(current: str, evidence: str, hints: Mapping[str, float], seed: object) -> str:
    """The current instruction and one more sentence: a hint that the evidence names, else one that comes to mind."""
    have, seen = current.lower(), evidence.lower()
    named = [hint for hint in hints if hint in seen and hint not in have]
    ideas = [_sentence(hint) for hint in hints if hint not in have]
    choices = [_sentence(hint) for hint in named] or [*ideas, *_WELL_MEANT[: max(2, len(ideas))]]
    fresh = [choice for choice in choices if choice.lower() not in have]
    if not fresh:
        return current.strip()
    return f"{current.strip()} {fresh[number('idea', seed) % len(fresh)]}".strip()


def describe(name: str, inputs: Mapping[str, str]) -> str:
    """Prose for an optimiser that asks what a task, a program or a data set is about."""
    about = ", ".join(inputs) or "the task"
    return f"The {name.replace('_', ' ')} from {about}: questions with one right answer each, answered one by one."


def _sentence(hint: str) -> str:
    return f"Always {hint}."
