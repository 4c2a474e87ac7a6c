"""Which way each policy went on each question, and why: the reasons that its decisions give.

Many questions take the same course for the same reasons, so that each course is kept once: what a page of 12,000
questions and 20 policies has to hold is numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from escalade.agents.climb import Attempt, Decision, Policy, View, climb_sync, counted_down
from escalade.agents.learned.nearest import Nearest
from escalade.agents.policies import Constant
from escalade.evals._nearest import facts_in, nearest_scores
from escalade.evals.folds import ByFold, shuffled
from escalade.evals.replay import Fitted, brake_left, out_of_fold
from escalade.evals.tables import Column, Table
from escalade.registry.privacy.outlets import error_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals._play import Played
    from escalade.evals.evidence import Evidence
    from escalade.evals.lineup import Entry
    from escalade.evals.outcomes import Outcomes

__all__ = ["Course", "Courses", "courses_of", "questions_table"]

HINDSIGHT = "hindsight: the cheapest of the best answers"


@dataclass(frozen=True)
class Course:
    """`rungs`: those tried, in order. `chosen`: the one that answers, -1 for none. `whys`: of each try and the stop."""

    rungs: tuple[int, ...]
    chosen: int
    whys: tuple[str, ...]


@dataclass(frozen=True)
class Courses:
    """`code`: (n,) the course of each question, by its place in `courses`."""

    code: NDArray[np.int64]
    courses: tuple[Course, ...]

    def of(self, i: int) -> Course:
        """That of question i."""
        return self.courses[int(self.code[i])]


def courses_of(evidence: Evidence, name: str) -> Courses | None:
    """Of this policy; None for a random mix, which is taken at its expected value and goes no way of its own."""
    entry, played = evidence.entry(name), evidence.played[name]
    if played.replayed is None:
        return None
    found: dict[Course, int] = {}
    code = np.zeros(evidence.outcomes.n, dtype=np.int64)
    for i, course in _each(entry, played, evidence):
        code[i] = found.setdefault(course, len(found))
    return Courses(code, tuple(found))


def questions_table(evidence: Evidence) -> Table:
    """A row for each question and policy: the way that it went, why, and what came of it."""
    rungs = [rung.name for rung in evidence.outcomes.rungs]
    columns = (
        Column("key", "question", "text", "The key of the question."),
        Column("policy", "policy", "text", "What decided."),
        Column("quality", "quality", "share", "Of the answer that was given; 0 where there was none."),
        Column("cost_usd", "$", "usd", "Dollars at list price, all attempts counted."),
        Column("path", "path", "text", "The rungs that were tried, in order."),
        Column("why", "why", "text", "The reason of each decision, the last of which stopped."),
    )
    rows = [row for entry in evidence.entries for row in _rows(evidence, entry.name, rungs)]
    return Table.of("questions", "Questions", columns, rows, about="What each policy did on each question, and why.")


def _rows(evidence: Evidence, name: str, rungs: list[str]) -> Iterator[dict[str, object]]:
    played, found = evidence.played[name], courses_of(evidence, name)
    told = [(" > ".join(rungs[r] for r in c.rungs), "; ".join(c.whys)) for c in (found.courses if found else ())]
    for i, key in enumerate(evidence.outcomes.keys):
        path, why = told[int(found.code[i])] if found else ("", "an expected value, over several rungs")
        cost = float(played.cost[i]) / 1e9
        yield {
            "key": key,
            "policy": name,
            "quality": float(played.quality[i]),
            "cost_usd": cost,
            "path": path,
            "why": why,
        }


def _each(entry: Entry, played: Played, evidence: Evidence) -> Iterator[tuple[int, Course]]:
    outcomes, play = evidence.outcomes, entry.play
    if play is None:
        yield from _hindsight(played)
        return
    if isinstance(play, Constant) and entry.per_run is None:
        yield from _always(play, evidence)
        return
    policy: Policy = out_of_fold(play, outcomes, evidence.folds, evidence.seed) if isinstance(play, Fitted) else play
    policy = _scored(policy, outcomes)
    left = None if entry.per_run is None else int(entry.per_run)
    brake = brake_left(left)
    order = range(outcomes.n) if left is None else shuffled(outcomes.keys, evidence.seed).tolist()
    for i in order:
        course, cost = _climbed(policy, outcomes, i, left, brake)
        left = None if left is None else left - cost
        yield i, course


def _scored(policy: Policy, outcomes: Outcomes) -> Policy:
    """The same decisions; those of `Nearest`, fitted out of fold, by scores computed for all questions at once, which
    takes a tenth of the time.
    """
    if not isinstance(policy, ByFold) or not all(type(one) is Nearest for one in policy.policies):
        return policy
    facts = facts_in(outcomes.features, outcomes.n)
    fold = np.array([policy.fold[key] for key in outcomes.keys])
    scores = np.empty(outcomes.n)
    for i, one in enumerate(policy.policies):
        at = np.flatnonzero(fold == i)
        scores[at] = nearest_scores(cast("Nearest", one), facts[at])
    known = dict(zip(outcomes.keys, scores.tolist(), strict=True))
    alike = all(known[key] == score for key, score in zip(outcomes.keys, scores.tolist(), strict=True))
    return _Scored(policy, known) if alike else policy


@dataclass(frozen=True)
class _Scored:
    policy: ByFold
    scores: Mapping[str, float]
    """By the key of the question."""

    @property
    def name(self) -> str:
        return self.policy.name

    def decide(self, view: View) -> Decision:
        nearest = cast("Nearest", self.policy.policies[self.policy.fold[view.key]])
        return nearest.decided(view, 0.0 if view.attempts else self.scores[view.key])


def _always(play: Constant, evidence: Evidence) -> Iterator[tuple[int, Course]]:
    """The same course on every question: the first tells it."""
    course, _ = _climbed(play, evidence.outcomes, 0, None, None)
    yield from ((i, course) for i in range(evidence.outcomes.n))


def _climbed(policy: Policy, outcomes: Outcomes, i: int, left: int | None, brake: int | None) -> tuple[Course, int]:
    """(course, nano-dollars). Where the policy raises, the question stays unanswered, as in the replay."""
    paid: list[Attempt] = []

    def attempt(rung: int) -> Attempt:
        paid.append(outcomes.attempt(i, rung))
        return paid[-1]

    try:
        climb = climb_sync(policy, attempt, counted_down(outcomes.view(i, budget_left=left), brake))
    except Exception as error:  # noqa: BLE001 - as `replay`, which has refused what is bad input
        course = Course(tuple(one.rung for one in paid), -1, (f"the policy raised {error_line(error)}",))
    else:
        chosen = -1 if climb.chosen is None else climb.chosen.rung
        course = Course(climb.path, chosen, tuple(step.decision.why for step in climb.steps))
    return course, sum(one.cost for one in paid)


def _hindsight(played: Played) -> Iterator[tuple[int, Course]]:
    assert played.replayed is not None  # noqa: S101 - the oracle is replayed
    for i, rung in enumerate(played.replayed.chosen.tolist()):
        yield i, Course((rung,), rung, (HINDSIGHT,))
