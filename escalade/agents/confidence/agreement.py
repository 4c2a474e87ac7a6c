"""How many agree: samples of one model (Wang et al. 2023, "Self-consistency", arXiv 2203.11171), or other models.

**How samples are drawn.** Each has a `rollout_id` of its own, since a cache would give the same answer k times, and a
temperature. A round of samples is drawn at once: as few as could decide the majority (3 of 5). When the answer in front
can't be overtaken any more, no further sample is paid; drawn one after the other, it would have taken as many.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from escalade.agents._saving import register
from escalade.agents.confidence.source import (
    Answered,
    Build,
    Call,
    Draws,
    Given,
    Helper,
    Reading,
    Source,
    Weighing,
)
from escalade.errors import BadInput, Refused

Drawing = Generator[list[Call], list[Given], tuple[Given, ...]]


@register
@dataclass(frozen=True)
class Samples(Source):
    """The share of the samples drawn that agree with the answer, that of the majority (the earliest of equals).

    `k`: samples at most. `temperature`: above 0. `seed`: sample i is asked for with `seed + i`, for providers that know
    seeds; None asks for none. `early`: stop when the majority can't change any more; the share is then one of those
    drawn (3 of 3 is 1.0), coarser than of all k. A sample that failed agrees with none; one that was refused for want
    of money leaves the confidence unknown. Raises BadInput.
    """

    kind: ClassVar[str] = "samples"
    name: ClassVar[str] = "samples"
    k: int = 5
    temperature: float = 1.0
    seed: int | None = None
    early: bool = True

    def __post_init__(self) -> None:
        if self.k < 2 or not self.temperature > 0:
            raise BadInput(f"samples: expected two or more, at a temperature above 0, got {self}")

    def draws(self) -> Draws:
        return Draws(self.k, self.temperature, self.seed, self.early)

    def weigh(self, answered: Answered) -> Weighing:
        refused = next((s.error for s in answered.samples if isinstance(s.error, Refused)), None)
        if refused is not None:
            return Reading(error=refused)
        drawn = [answered.same(s.result) for s in answered.samples if s.error is None]
        return Reading(_share(answered.same(answered.result), drawn, len(answered.samples)))
        yield


@register
@dataclass(frozen=True)
class Peers(Source):
    """The share of some other models or strategies that give the same answer.

    `members`: models by alias, which means `Predict`, or `(strategy, model)` with a strategy by name. A member that
    failed agrees with none; the confidence is unknown when none answered. Raises BadInput.
    """

    kind: ClassVar[str] = "peers"
    name: ClassVar[str] = "peers"
    members: tuple[str | tuple[str, str], ...]

    def __post_init__(self) -> None:
        members = tuple(m if isinstance(m, str) else tuple(m) for m in self.members)
        object.__setattr__(self, "members", members)
        if not members or len(set(members)) < len(members):
            raise BadInput(f"peers are one or more different models or (strategy, model) pairs, not {self.members!r}")

    def helpers(self, signature: Any, build: Build) -> dict[str, Helper]:
        pairs = [("Predict", m) if isinstance(m, str) else m for m in self.members]
        return {f"{strategy}/{model}": Helper(build(strategy, signature), model) for strategy, model in pairs}

    def weigh(self, answered: Answered) -> Weighing:
        names = ["/".join(("Predict", m) if isinstance(m, str) else m) for m in self.members]
        given = yield [Call(answered.inputs, name) for name in names]
        error = next((g.error for g in given if g.error is not None), None)
        said = [answered.same(g.result) for g in given if g.error is None]
        if not said or isinstance(error, Refused):
            return Reading(error=error)
        return Reading(_share(answered.same(answered.result), said, len(given)), error=error)


def drawing(draws: Draws, inputs: Any, same: Any) -> Drawing:
    """Draw samples in rounds until the majority is decided; returns them in the order of their numbers."""
    drawn: list[Given] = []
    groups: list[tuple[Any, int]] = []
    while (more := _needed(draws, groups, len(drawn))) > 0:
        begin = len(drawn)
        given = yield [Call(inputs, sample=i) for i in range(begin, begin + more)]
        drawn += given
        groups = grouped([same(g.result) for g in drawn if g.error is None])
        if any(isinstance(g.error, Refused) for g in given):
            break
    return tuple(drawn)


def chosen_of(drawn: Sequence[Given], same: Any) -> Given:
    """The first sample of the largest group; without any answer, the first that failed, rather than was refused."""
    answered = [g for g in drawn if g.error is None]
    if not answered:
        return next((g for g in drawn if not isinstance(g.error, Refused)), drawn[0])
    said = [same(g.result) for g in answered]
    groups = grouped(said)
    if not groups:
        return answered[0]
    winner = max(groups, key=lambda group: group[1])[0]
    return next(g for g, answer in zip(answered, said, strict=True) if _equal(answer, winner))


def grouped(answers: Sequence[Any]) -> list[tuple[Any, int]]:
    """(answer, how many gave it), in the order of their first; None and what doesn't equal itself are in no group."""
    groups: list[tuple[Any, int]] = []
    for answer in answers:
        at = next((i for i, (other, _) in enumerate(groups) if _equal(other, answer)), None)
        if at is not None:
            groups[at] = groups[at][0], groups[at][1] + 1
        elif _equal(answer, answer):
            groups.append((answer, 1))
    return groups


def _needed(draws: Draws, groups: list[tuple[Any, int]], drawn: int) -> int:
    """How many samples could decide it at the earliest; 0 when it is decided."""
    left = draws.k - drawn
    if not draws.early or left <= 0:
        return max(0, left)
    first, second = (*sorted((n for _, n in groups), reverse=True), 0, 0)[:2]
    return 0 if first - second > left else min(left, (left - first + second) // 2 + 1)


def _share(answer: Any, said: Sequence[Any], of: int) -> float:
    return sum(_equal(answer, other) for other in said) / of if of else math.nan


def _equal(one: Any, other: Any) -> bool:
    return one is not None and bool(one == other)
