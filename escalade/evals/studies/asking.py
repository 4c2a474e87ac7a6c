"""Many questions at once through one `Escalate`, under one budget: what each of them came to.

    async with escalade.scope(budget="0.50"):
        answers = await Asking(program, metric).all(questions)

The program climbs as it does in an application. A question that finds no answer is an error of quality 0, with what it
cost; a mistake in the metric or in the program is raised. The first question is graded before the others are asked: a
mistake is found for the price of one.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from escalade.agents._attempts import ANSWERS_BADLY
from escalade.agents._courses import together
from escalade.agents.cache.kinds import uncached
from escalade.agents.climb import Attempt, Decision, Policy, View
from escalade.errors import BudgetExceeded, DeadlineExceeded, UnknownPrice
from escalade.evals.studies.grading import Grader
from escalade.evals.studies.hearing import Heard
from escalade.evals.studies.unanswered import check_usable
from escalade.registry.opening import scope
from escalade.scopes import Scope, require

if TYPE_CHECKING:
    from escalade.agents.escalate import Escalate
    from escalade.evals.studies.grading import Metric

__all__ = ["Answered", "Asking", "Question", "Tried"]

NONE = -1
"""`chosen` of a question without an answer, as in a replay."""


@dataclass(frozen=True, slots=True)
class Question:
    """`key`: its name in the record. `ceiling`: nano-dollars that all rungs together can't exceed, None if unknown."""

    key: str
    example: Any
    inputs: Mapping[str, Any]
    ceiling: int | None


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt of a climb: number of the rung, status, nano-dollars, confidence (nan where unknown)."""

    rung: int
    status: str
    cost: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Answered:
    """What a question came to. `chosen`: number of the rung that answers, -1 for none. `cost`: nano-dollars of all
    that was done for it. `seconds`: from asking to the answer. `error`: what was raised, "" for nothing. `model`: who
    answered last, as the provider names him.
    """

    key: str
    path: tuple[Tried, ...]
    chosen: int
    quality: float
    cost: int
    seconds: float
    error: str = ""
    model: str | None = None


Seen = Callable[[Answered], bool]
"""Is told each answer, in the order of the questions; True: that is enough, ask no more."""


@dataclass
class Asking:
    """Asks `concurrency` questions at once. `metric`: (example, prediction) -> 0..1, also async; a slow one is called
    in threads. `limit`: nano-dollars for all of them, None for no limit but the scope's: a question is begun when its
    ceiling fits beside those of all that are under way. `keep`: is given each answer as soon as it is there.

    Answers of a cache would confirm themselves: none is looked at.
    """

    program: Escalate
    metric: Metric
    concurrency: int = 64
    limit: int | None = None
    keep: Callable[[Answered], None] | None = None
    seen: Seen | None = None
    owed: int = field(default=0, init=False)
    """Questions that were not asked: for want of money or time, or because it was enough."""

    async def all(
        self, questions: Sequence[Question], known: Mapping[str, Answered] | None = None
    ) -> list[Answered | None]:
        """In the order of the questions; None for those that were not asked. `known`: by key, not asked again.

        Runs in the current scope, which pays. Raises what the metric raises, PermissionDenied, BadInput for
        a model that answers nobody (its key, its bill), UnknownPrice for a budget on what has no price bound, NoScope.
        """
        run = _Run(self, questions, known or {}, require("asking questions live"))
        with uncached():
            await run.to_the_end()
        self.owed = sum(answer is None for answer in run.answers)
        return run.answers


class _Run:
    """One call of `Asking.all`."""

    def __init__(
        self, asking: Asking, questions: Sequence[Question], known: Mapping[str, Answered], payer: Scope
    ) -> None:
        self._asking, self._questions, self._payer = asking, questions, payer
        self.answers: list[Answered | None] = [known.get(question.key) for question in questions]
        self._open: Iterator[int] = iter([i for i, answer in enumerate(self.answers) if answer is None])
        self._front = 0
        self._over = False
        self._waiting: int | None = None
        self._left, self._held = _tighter(asking.limit, payer.purse.left()), 0
        self._watch = _Watch(asking.program.policy)
        self._program = copy.copy(asking.program)
        self._program.policy = self._watch
        self._grader = Grader(asking.metric)
        if self._left is not None and any(question.ceiling is None for question in questions):
            raise UnknownPrice("a live run under a budget needs a price bound for every rung: give its model a price")
        self._told()

    async def to_the_end(self) -> None:
        await self._ask_on(most=1)
        if not self._over:
            await together([self._ask_on() for _ in range(self._asking.concurrency)])

    async def _ask_on(self, most: int | None = None) -> None:
        """One of those who ask, question after question, until none is left that may be asked."""
        asked = 0
        while asked != most and (at := self._next()) is not None:
            question = self._questions[at]
            try:
                answer = await self._asked(question)
            except DeadlineExceeded:  # between two questions, or within the metric
                answer = None
            self._held -= question.ceiling or 0
            if answer is None:
                self._over = True
                return
            if self._left is not None:
                self._left -= answer.cost
            self._answered(at, answer)
            asked += 1

    def _next(self) -> int | None:
        """The next question, its ceiling held; None where there is none, or no money for it beside what is under way.

        Who gets None ends; one who is still at work will find the money that it frees.
        """
        if self._over:
            return None
        at = next(self._open, None) if self._waiting is None else self._waiting
        self._waiting = at
        if at is None:
            return None
        ceiling = self._questions[at].ceiling
        if self._left is not None and ceiling is not None:
            if self._held + ceiling > self._left:
                return None
            self._held += ceiling
        self._waiting = None
        return at

    def _answered(self, at: int, answer: Answered) -> None:
        self.answers[at] = answer
        if self._asking.keep is not None:
            self._asking.keep(answer)
        self._told()

    def _told(self) -> None:
        """Those at the front, in order: whichever is answered first must not decide what is looked at."""
        while self._front < len(self.answers) and (answer := self.answers[self._front]) is not None:
            self._front += 1
            if self._asking.seen is not None and self._asking.seen(answer):
                self._over = True

    async def _asked(self, question: Question) -> Answered | None:
        """None: there is no money for it, or no time."""
        answer, error, heard = None, "", Heard()
        with scope(name="question", optional=True) as own:
            began = time.perf_counter()
            try:
                with heard.listening():
                    answer = await self._program.acall(**question.inputs)
            except ANSWERS_BADLY as failure:
                if self._ended(failure, question):
                    return None
                error = type(failure).__name__
            except Exception as failure:
                if failure is not self._watch.raised.pop(question.key, None):
                    raise
                error = type(failure).__name__
            seconds = time.perf_counter() - began
        attempts = self._watch.attempts.pop(question.key, ())
        for attempt in attempts:  # else the comparison would be about permissions and keys
            check_usable(self._program, attempt)
        return Answered(
            key=question.key,
            path=tuple(Tried(a.rung, a.status, a.cost, a.confidence) for a in attempts),
            chosen=NONE if answer is None else answer.attempt.rung,
            quality=0.0 if answer is None else await self._grader.grade(question.example, answer),
            cost=own.purse.spent,
            seconds=seconds,
            error=error,
            model=heard.model,
        )

    def _ended(self, failure: BaseException, question: Question) -> bool:
        """Was it the run's money or time that was missing, and not the question's own budget?"""
        if self._payer.time_left() <= 0:
            return True
        left = self._payer.purse.left()
        return isinstance(failure, BudgetExceeded) and left is not None and left < (question.ceiling or 0)


class _Watch:
    """The policy, and the attempts that it last saw, by question: a climb without an answer doesn't hand them out.

    It also knows what the policy itself raised: that is an error of the question, and no mistake of the program.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.attempts: dict[str, tuple[Attempt, ...]] = {}
        self.raised: dict[str, Exception] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy that isn't made yet has no policy to ask
            raise AttributeError(name)
        return getattr(self._policy, name)

    @property
    def name(self) -> str:
        return self._policy.name

    def decide(self, view: View) -> Decision:
        self.attempts[view.key] = view.attempts
        try:
            return self._policy.decide(view)
        except Exception as error:
            self.raised[view.key] = error
            raise


def _tighter(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
