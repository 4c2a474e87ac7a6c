"""The climb: one loop that asks a policy which rung to try next, live and replayed.

    Rung      a way to answer: (strategy, model)
    Attempt   what one rung gave: answer, confidence, cost, latency, status
    View      what a policy may look at before it decides
    Policy    View -> Try(rung) | Stop(attempt)
    climb     the loop (`climb_sync` for callers without an event loop, `climbing` for both)

Live, an attempt calls a DSPy module through the gateway. Replayed, it is a look into a table of recorded
outcomes. Loop, view and policy are the same objects, so that a replay predicts production; a property test
(`tests/test_live_equals_replay.py`) holds them equal to the nano-dollar.

What is affordable is decided here, in one place: a rung whose `ceiling` (an upper bound of its price for this
question) doesn't fit what is left is never tried, whatever the policy asks for. It then stops with the best
attempt so far, and `Climb.held_back` names the rung that was not affordable.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

from escalade.agents._courses import adriven, driven
from escalade.agents.forms import Form
from escalade.errors import BadInput
from escalade.money import NANO, Money

OK, WRONG_FORMAT, TRUNCATED, FAILED, REFUSED = "ok", "wrong_format", "truncated", "failed", "refused"
"""Status of an attempt. Only `OK` carries an answer; `REFUSED` means that the guard said no and nothing was paid."""

UNLIMITED = 1 << 62
"""Nano-dollars that stand for "no limit" in comparisons (about 4.6 billion dollars)."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A way to answer: a strategy (`Predict`, `ChainOfThought`, …) on a model.

    `name` is unique on a ladder. `strategy` and `model` are None where outcomes were recorded elsewhere. `ceiling`: an
    upper bound of its price per question, for programs whose price can't be bounded by their prompt (agents, loops).
    `tier`: of its model, 1 (fast) to 4 (premium), None where unknown.
    """

    name: str
    strategy: str | None = None
    model: str | None = None
    ceiling: Money | None = None
    tier: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one rung gave for one question.

    `rung`: index on the ladder. `answer`: anything with `==`. `confidence`: probability of being right in 0..1,
    nan where unknown. `cost`: nano-dollars that it settled at, 0 when refused. `latency`: seconds, nan where unknown.
    `status`: one of the module's constants. `result`: the DSPy prediction of a live attempt. `error`: what was raised.
    `form`: the form of its answer, None where unknown.

    Live attempts also know how they came to their confidence. `raw`: what the source said, before any calibrator.
    `signals`: name -> value of each source that took part. `confidence_cost`: nano-dollars of `cost` that were not for
    the answer. `confidence_error`: why the confidence is unknown, where something went wrong.
    """

    rung: int
    answer: Any = None
    confidence: float = math.nan
    cost: int = 0
    latency: float = math.nan
    status: str = OK
    result: Any = field(default=None, compare=False, repr=False)
    error: BaseException | None = field(default=None, compare=False, repr=False)
    raw: float = field(default=math.nan, compare=False)
    signals: Mapping[str, float] = field(default_factory=dict, compare=False)
    confidence_cost: int = field(default=0, compare=False)
    confidence_error: BaseException | None = field(default=None, compare=False, repr=False)
    form: Form | None = field(default=None, compare=False)

    @property
    def ok(self) -> bool:
        return self.status == OK


@dataclass(frozen=True, slots=True)
class View:
    """What a policy may look at. It never holds anything that production would not know at that moment.

    `key`: identifies the question, for seeded randomness. `features`: facts about the question, known before any
    attempt (`prompt_chars` is always there, live also `text`). `rungs`: the ladder, cheapest first. `prices`: expected
    price of each rung for this question, nano-dollars, None where unknown. `ceilings`: upper bounds, None if unknown.
    `attempts`: so far, in order. `budget_left`: nano-dollars, None without a limit. `time_left`: seconds, inf without
    a deadline. `braked`: the ledger asks to stop spending on escalation (95 % of a budget is gone).
    """

    key: str
    features: Mapping[str, Any]
    rungs: tuple[Rung, ...]
    prices: tuple[int | None, ...]
    ceilings: tuple[int | None, ...]
    attempts: tuple[Attempt, ...] = ()
    budget_left: int | None = None
    time_left: float = math.inf
    braked: bool = False

    def fits(self, rung: int) -> bool:
        """May this rung be tried now, by money and by time? An unknown ceiling fits only where there is no limit."""
        if self.time_left <= 0:
            return False
        if self.budget_left is None:
            return True
        ceiling = self.ceilings[rung]
        return ceiling is not None and ceiling <= self.budget_left

    def tried(self, rung: int) -> Attempt | None:
        """The attempt on this rung, None if there is none yet."""
        return next((a for a in self.attempts if a.rung == rung), None)


@dataclass(frozen=True, slots=True)
class Try:
    """Try rung number `rung` next; `why` is shown to people. `wanted`: the rung that it stands in for, for want of
    money.
    """

    rung: int
    why: str = ""
    wanted: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Answer with attempt number `attempt` (index into `View.attempts`; -1 is the last); `why` is shown to people.

    `wanted`: the rung that would have been next, had there been money and time for it.
    """

    attempt: int = -1
    why: str = ""
    wanted: int | None = None


Decision = Try | Stop


@runtime_checkable
class Policy(Protocol):
    """Decides which rung to try next, from what is known. Stateless between questions: state lives in the View."""

    @property
    def name(self) -> str:
        """Shown in tables and saved with programs."""
        ...

    def decide(self, view: View) -> Decision:
        """Try a rung that was not tried yet, or stop. Must not raise on nan confidences or failed attempts."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One decision and what came of it; `attempt` is None for the last step, which stops.

    What was known then: `budget_left`, nano-dollars, None without a limit; `next`, the rung that was tried, or would
    have been next, None if none is left; `price`, what it was expected to cost, nano-dollars, None where unknown.
    """

    decision: Decision
    attempt: Attempt | None
    budget_left: int | None = None
    next: int | None = None
    price: int | None = None


@dataclass(frozen=True, slots=True)
class Climb:
    """A finished climb.

    `chosen`: the attempt that answers, None if nothing could be tried. `steps`: decisions in order.
    `cost`: nano-dollars over all attempts. `held_back`: index of the rung that the policy wanted and the budget
    or the deadline didn't allow, None if there was none.
    """

    chosen: Attempt | None
    steps: tuple[Step, ...]
    held_back: int | None = None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return tuple(s.attempt for s in self.steps if s.attempt is not None)

    @property
    def cost(self) -> int:
        return sum(a.cost for a in self.attempts)

    @property
    def path(self) -> tuple[int, ...]:
        return tuple(a.rung for a in self.attempts)

    def explain(self, rungs: Sequence[Rung] = ()) -> str:
        """One line per step: why it was taken, what came of it and what it cost. `rungs` gives them their names."""
        return "\n".join(_told(step, rungs) for step in self.steps)


def _told(step: Step, rungs: Sequence[Rung]) -> str:
    attempt, at = step.attempt, step.next
    next_ = "" if at is None else rungs[at].name if rungs else f"rung {at}"
    left = "no limit" if step.budget_left is None else f"{usd(step.budget_left)} left"
    if attempt is None:
        ahead = f"next is {next_} at {usd(step.price)}" if next_ else "no rung is left"
        return f"stop: {step.decision.why} [{left}, {ahead}]"
    gave = said_of(attempt) if attempt.ok else attempt.status
    return f"{next_}: {step.decision.why} [{left}, expected {usd(step.price)}] -> {gave}, {_paid(attempt)}"


def said_of(attempt: Attempt) -> str:
    """How sure an attempt is, and by what: "confidence 0.71 (samples 0.80)"."""
    known = "confidence unknown" if math.isnan(attempt.confidence) else f"confidence {attempt.confidence:.2f}"
    made = {n: v for n, v in attempt.signals.items() if not _same(v, attempt.confidence)}
    if attempt.confidence_error is not None:
        return f"{known} ({type(attempt.confidence_error).__name__}: {attempt.confidence_error})"
    return f"{known} ({', '.join(f'{n} {v:.2f}' for n, v in made.items())})" if made else known


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _paid(attempt: Attempt) -> str:
    extra = f", {Money(attempt.confidence_cost)} of it for confidence" if attempt.confidence_cost else ""
    return f"{Money(attempt.cost)}{extra}"


def usd(nanos: int | None) -> str:
    """A price for people: 3 significant digits, never in powers of ten. Not for sums."""
    return "unknown price" if nanos is None else f"${format(Decimal(f'{nanos / NANO:.3g}'), 'f')}"


Climbing = Generator[int, Attempt, Climb]


def climbing(policy: Policy, view: View | Callable[[tuple[Attempt, ...]], View]) -> Climbing:
    """The loop as a generator: yields the rung to try, is sent the Attempt, returns the Climb.

    `view` is the first View, whose budget and time are then counted down here by what the attempts cost (a replay),
    or a function from the attempts so far to a fresh View (live, where others spend from the same budget).
    """
    look = view if callable(view) else counted_down(view)
    now = look(())
    steps: list[Step] = []
    while True:
        decision = policy.decide(now)
        _check(policy, decision, now)
        if isinstance(decision, Stop):
            return _stopped(now, steps, decision, decision.wanted)
        if not now.fits(decision.rung):
            return _stopped(now, steps, _not_affordable(now, decision), decision.rung)
        attempt = yield decision.rung
        steps.append(Step(decision, attempt, now.budget_left, decision.rung, now.prices[decision.rung]))
        now = look((*now.attempts, attempt))


async def climb(
    policy: Policy,
    attempt: Callable[[int], Awaitable[Attempt]],
    view: View | Callable[[tuple[Attempt, ...]], View],
) -> Climb:
    """Climb until the policy stops; `attempt(rung)` tries one rung and doesn't raise for a failed answer."""
    return await adriven(climbing(policy, view), attempt)


def climb_sync(
    policy: Policy,
    attempt: Callable[[int], Attempt],
    view: View | Callable[[tuple[Attempt, ...]], View],
) -> Climb:
    """`climb` for callers without an event loop."""
    return driven(climbing(policy, view), attempt)


def best_attempt(attempts: Sequence[Attempt]) -> int:
    """Index of the attempt that answers when nothing more can be tried: the last good one, else the last, else -1."""
    good = [i for i, a in enumerate(attempts) if a.ok]
    return good[-1] if good else len(attempts) - 1


def _check(policy: Policy, decision: Decision, view: View) -> None:
    """Raises BadInput for a decision that can't be carried out; it names the policy."""
    said = f"policy {policy.name!r} decided {decision!r}"
    if isinstance(decision, Stop):
        at, n = decision.attempt, len(view.attempts)
        if not isinstance(at, int) or not (-n <= at < n or (not n and at == -1)):
            raise BadInput(f"{said}: there are {n} attempts to answer with; a reason goes to why=")
    elif not isinstance(decision, Try):
        raise BadInput(f"{said}; expected Try(rung) or Stop(attempt)")
    elif not isinstance(decision.rung, int) or not 0 <= decision.rung < len(view.rungs):
        raise BadInput(f"{said}: the ladder has rungs 0 to {len(view.rungs) - 1}")
    elif view.tried(decision.rung) is not None:
        raise BadInput(f"{said}: that rung was tried already, and each is tried once a climb")


def _stopped(view: View, steps: list[Step], stop: Stop, held_back: int | None) -> Climb:
    chosen = view.attempts[stop.attempt] if view.attempts else None
    tried = {attempt.rung for attempt in view.attempts}
    left = (rung for rung in range(len(view.rungs)) if rung not in tried)
    next_ = next(left, None) if held_back is None else held_back
    price = None if next_ is None else view.prices[next_]
    return Climb(chosen, (*steps, Step(stop, None, view.budget_left, next_, price)), held_back)


def _not_affordable(view: View, wanted: Try) -> Stop:
    name = view.rungs[wanted.rung].name
    what = "the deadline has passed" if view.time_left <= 0 else "its price bound doesn't fit the budget left"
    return Stop(best_attempt(view.attempts), f"{name} wanted ({wanted.why}), but {what}")


def counted_down(first: View, brake_left: int | None = None) -> Callable[[tuple[Attempt, ...]], View]:
    """Views whose budget and time are counted down by what the attempts cost.

    `brake_left`: nano-dollars that are left when the budget's ledger begins to brake, None for one that never does.
    """

    def look(attempts: tuple[Attempt, ...]) -> View:
        if not attempts and brake_left is None:
            return first
        cost = sum(a.cost for a in attempts)
        left = None if first.budget_left is None else first.budget_left - cost
        spent = sum(a.latency for a in attempts if not math.isnan(a.latency))
        return View(
            first.key,
            first.features,
            first.rungs,
            first.prices,
            first.ceilings,
            attempts,
            left,
            first.time_left - spent,
            first.braked or (left is not None and brake_left is not None and left <= brake_left),
        )

    return look
