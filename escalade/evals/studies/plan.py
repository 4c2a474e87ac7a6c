"""Which attempts there are, and in which order they are made.

A unit is one question on one rung in one epoch. Whole questions come first, drawn by the seed, so that a run that ends
early has complete rows of questions that are a fair sample; within a question the rungs come in an order that the seed
draws, too, so that none of them always has the busy hour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from escalade.agents.climb import View
from escalade.errors import DataError
from escalade.evals.folds import shuffled

if TYPE_CHECKING:
    from escalade.agents.escalate import Escalate

__all__ = ["Asked", "Unit", "asked_of", "in_order", "seeded"]


class Unit(NamedTuple):
    """An attempt to be made: on which question (index), on which rung (index), for which time (from 0)."""

    question: int
    rung: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: the example, its inputs, and what a policy sees of it before the first attempt."""

    example: Any
    inputs: dict[str, Any]
    view: View

    @property
    def key(self) -> str:
        return self.view.key


def asked_of(program: Escalate, examples: Sequence[Any]) -> list[Asked]:
    """The questions of examples, in their order, in the current scope. Raises DataError."""
    if not examples:
        raise DataError("no examples to record")
    if wrong := [one for one in examples if not hasattr(one, "inputs")]:
        raise DataError(f"expected dspy.Examples with their inputs marked, got {wrong[0]!r}")
    inputs = [dict(one.inputs().items()) for one in examples]
    return [Asked(one, given, program.view(**given)) for one, given in zip(examples, inputs, strict=True)]


def in_order(asked: Sequence[Asked], rungs: int, epochs: int = 1) -> Iterable[Unit]:
    """Question by question, rung by rung. A question that is there again is asked for another time."""
    seen: Counter[str] = Counter()
    for question, one in enumerate(asked):
        for _ in range(epochs):
            yield from (Unit(question, rung, seen[one.key]) for rung in range(rungs))
            seen[one.key] += 1


def seeded(keys: Sequence[str], rungs: int, epochs: int, seed: int, *, without: Collection[Unit] = ()) -> list[Unit]:
    """What is owed, in the order of the seed: all questions once, then all of them again. `without`: what is done."""
    order = shuffled(keys, seed).tolist()
    ladders = {i: sorted(range(rungs), key=lambda rung: _hash(seed, keys[i], rung)) for i in order}
    every = (Unit(i, rung, epoch) for epoch in range(epochs) for i in order for rung in ladders[i])
    return [unit for unit in every if unit not in without]


def _hash(seed: int, key: str, rung: int) -> bytes:
    return blake2b(f"rung\0{seed}\0{key}\0{rung}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
