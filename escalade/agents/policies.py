"""Routing policies: what to try next, and when to stop.

    Constant       one rung, always
    Threshold      cheap first, escalate below a confidence (FrugalGPT: Chen et al. 2023, arXiv 2305.05176)
    Agreement      cheap rungs vote, escalate when they disagree (Yue et al. 2023, arXiv 2310.03094)
    RandomMix      the strong rung for a random share of questions: what any router has to beat
    PromptLength   the strong rung for long prompts
    Budgeted       any of them under a hard budget per request

Those that are fitted on recorded outcomes are in `escalade.agents.learned`.

All are frozen dataclasses without state: one object serves the live climb, the replay, any thread and a saved program
(`policy.dump()` is a JSON dict, `load_policy` its inverse). A rung is named by its index on the ladder or by its name;
a rung that the ladder doesn't have raises UnknownName at the first decision.

`why` costs a formatted string per decision, below a microsecond; no policy does more than that for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from typing import ClassVar

from escalade.agents._saving import Saved, dump_policy, load_policy, register_policy
from escalade.agents.climb import Decision, Policy, Rung, Stop, Try, View, best_attempt, usd
from escalade.errors import BadInput, UnknownName
from escalade.money import Money

__all__ = [
    "Agreement",
    "Budgeted",
    "Constant",
    "PromptLength",
    "RandomMix",
    "RungRef",
    "Saved",
    "Threshold",
    "draw",
    "dump_policy",
    "escalate_to",
    "left_of",
    "load_policy",
    "pick",
    "register_policy",
    "rung_index",
    "usd",
]

RungRef = int | str
"""A rung: its index on the ladder, or its name."""


def rung_index(rungs: tuple[Rung, ...], ref: RungRef) -> int:
    """Index of the rung that `ref` means on this ladder. Raises UnknownName.

    Not cached: hashing a ladder costs more than scanning its few names.
    """
    if isinstance(ref, str):
        for i, rung in enumerate(rungs):
            if rung.name == ref:
                return i
    elif 0 <= ref < len(rungs):
        return ref
    raise UnknownName("rung", str(ref), [r.name for r in rungs])


def draw(seed: int, key: str) -> float:
    """A number in [0, 1) that looks random and depends on the seed and the question only (BLAKE2b, 53 bits)."""
    digest = blake2b(f"{seed}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


@register_policy
@dataclass(frozen=True, slots=True)
class Constant(Saved):
    """Always the same rung."""

    kind: ClassVar[str] = "constant"
    rung: RungRef
    name: str = "constant"

    def decide(self, view: View) -> Decision:
        return pick(view, rung_index(view.rungs, self.rung), "always this rung")


@register_policy
@dataclass(frozen=True, slots=True)
class Threshold(Saved):
    """Cheap first; escalate while the confidence of the last answer is below `threshold`, if the budget allows.

    `threshold`: 0..1. `ladder`: the rungs to climb, in order; None is all of them. An unknown (nan) confidence and a
    failed attempt escalate, whatever the threshold. The last good attempt answers at the end of the ladder, when the
    next rung doesn't fit the budget, and when the ledger brakes. Raises BadInput.
    """

    kind: ClassVar[str] = "threshold"
    threshold: float = 0.8
    ladder: tuple[RungRef, ...] | None = None
    name: str = "threshold"

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, int | float) or not 0.0 <= self.threshold <= 1.0:
            raise BadInput(f"a confidence threshold lies between 0 and 1, not at {self.threshold!r}")
        if self.ladder is not None:
            object.__setattr__(self, "ladder", tuple(self.ladder))
            if not self.ladder:
                raise BadInput("a threshold policy needs at least one rung on its ladder")

    def decide(self, view: View) -> Decision:
        signal = "cheapest first"
        if view.attempts:
            last = view.attempts[-1]
            if last.ok and last.confidence >= self.threshold:
                return Stop(-1, f"confidence {last.confidence:.2f} >= {self.threshold:.2f}")
            signal = self._signal(view)
        return escalate_to(view, self._next(view), signal, best_attempt(view.attempts))

    def _next(self, view: View) -> int | None:
        rungs = range(len(view.rungs)) if self.ladder is None else (rung_index(view.rungs, r) for r in self.ladder)
        return next((r for r in rungs if view.tried(r) is None), None)

    def _signal(self, view: View) -> str:
        last = view.attempts[-1]
        if not last.ok:
            return f"{view.rungs[last.rung].name} gave no answer ({last.status})"
        if math.isnan(last.confidence):
            return "confidence unknown"
        return f"confidence {last.confidence:.2f} < {self.threshold:.2f}"


@register_policy
@dataclass(frozen=True, slots=True)
class Agreement(Saved):
    """Cheap rungs answer one after the other; when too few of them agree, rung `then` answers.

    `members`: the rungs that vote, in order. `quorum`: how many equal answers are enough, None is all of them. It stops
    as soon as there are enough, and escalates as soon as there can't be any more. A failed attempt and an answer None
    agree with nothing. The last attempt of the largest group answers (of equal groups the one that ends last), unless
    `then` did; so it does when `then` fails or doesn't fit the budget, or the ledger brakes. Raises BadInput.
    """

    kind: ClassVar[str] = "agreement"
    members: tuple[RungRef, ...] = (0, 1, 2)
    then: RungRef = 5
    quorum: int | None = None
    name: str = "agreement"

    def __post_init__(self) -> None:
        if isinstance(self.members, int | str):
            raise BadInput(f"the members of an agreement are a list of rungs, like (0, 1), not {self.members!r}")
        object.__setattr__(self, "members", tuple(self.members))
        if not self.members or len(set(self.members)) < len(self.members):
            raise BadInput(f"the members of an agreement are one or more different rungs, not {self.members!r}")
        if self.quorum is not None and not 1 <= self.quorum <= len(self.members):
            raise BadInput(f"the quorum of {len(self.members)} members lies between 1 and that, not at {self.quorum!r}")

    def decide(self, view: View) -> Decision:
        members = [rung_index(view.rungs, m) for m in self.members]
        then = rung_index(view.rungs, self.then)
        quorum = self.quorum or len(members)
        agreeing, best = _largest_group(view, members)
        if agreeing >= quorum:
            return Stop(best, f"{agreeing} answers agree, {quorum} are enough")
        if not agreeing:
            best = best_attempt(view.attempts)
        last = view.tried(then)
        if last is not None:
            return Stop(view.attempts.index(last) if last.ok else best, "escalated already")
        left = [m for m in members if view.tried(m) is None]
        if left and agreeing + len(left) >= quorum:
            return escalate_to(view, left[0], f"{agreeing} of {quorum} agree so far", best)
        return escalate_to(view, then, f"{agreeing} of {quorum} agree", best)


@register_policy
@dataclass(frozen=True, slots=True)
class RandomMix(Saved):
    """The rung `high` for a random share of the questions, `low` for the others.

    `share`: probability 0..1. Which questions, is decided by a hash of seed and question: the same in each run, and
    nested (a larger share contains the smaller one's questions). Raises BadInput.
    """

    kind: ClassVar[str] = "random"
    share: float
    low: RungRef
    high: RungRef
    seed: int = 0
    name: str = "random"

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise BadInput(f"a share lies between 0 and 1, not at {self.share!r}")

    def decide(self, view: View) -> Decision:
        drawn = draw(self.seed, view.key)
        rung = rung_index(view.rungs, self.high if drawn < self.share else self.low)
        return pick(view, rung, f"drew {drawn:.3f} for a share of {self.share:.3f}")


@register_policy
@dataclass(frozen=True, slots=True)
class PromptLength(Saved):
    """The rung `high` for prompts of at least `chars` characters, `low` for shorter ones."""

    kind: ClassVar[str] = "prompt-length"
    chars: float
    low: RungRef
    high: RungRef
    name: str = "prompt-length"

    def __post_init__(self) -> None:
        if math.isnan(self.chars):
            raise BadInput("a length is a number, not nan")

    def decide(self, view: View) -> Decision:
        if "prompt_chars" not in view.features:
            raise UnknownName("feature", "prompt_chars", list(view.features))
        long = view.features["prompt_chars"] >= self.chars
        rung = rung_index(view.rungs, self.high if long else self.low)
        return pick(view, rung, f"prompt of {view.features['prompt_chars']} characters, {self.chars} is long")


@register_policy
@dataclass(frozen=True, slots=True)
class Budgeted(Saved):
    """Any policy under a hard budget per request, degrading to what is affordable.

    `per_request`: dollars (`"0.002"`, Decimal or Money), None for the budget of the scope or run alone. The rule:

    1. The policy decides on a view whose `budget_left` is the smaller of the scope's and what `per_request` leaves.
    2. A rung that it wants and that fits, is tried.
    3. Otherwise, with a good attempt at hand, the climb stops: at what the policy chose, else at the best attempt.
    4. With no good attempt yet, it degrades: of the rungs not tried yet that fit and are expected to be cheaper than
       the one wanted, it tries the dearest. What was wanted by a policy that stopped for want of money, is asked of
       it once more as if money were no object. If nothing fits, it stops, and the question may stay unanswered.

    Where an expected price is unknown, its upper bound stands for it; a rung without a bound never fits a budget.
    """

    kind: ClassVar[str] = "budgeted"
    policy: Policy
    per_request: Money | Decimal | str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.per_request is not None:
            object.__setattr__(self, "per_request", Money.of(self.per_request))
        if not self.name:
            object.__setattr__(self, "name", f"{self.policy.name}, budgeted")

    def decide(self, view: View) -> Decision:
        narrow = _with_budget(view, self._left(view))
        decision = self.policy.decide(narrow)
        if isinstance(decision, Try) and narrow.fits(decision.rung):
            return decision
        if any(a.ok for a in view.attempts):
            if isinstance(decision, Stop):
                return decision
            why = f"{view.rungs[decision.rung].name} doesn't fit {left_of(narrow)}"
            return Stop(best_attempt(view.attempts), why, wanted=decision.rung)
        wanted = decision if isinstance(decision, Try) else self.policy.decide(_with_budget(view, None))
        if isinstance(wanted, Stop) or narrow.fits(wanted.rung):
            return decision
        return self._degrade(narrow, wanted.rung)

    def _left(self, view: View) -> int | None:
        if self.per_request is None:
            return view.budget_left
        left = int(Money.of(self.per_request)) - sum(a.cost for a in view.attempts)
        return left if view.budget_left is None else min(left, view.budget_left)

    def _degrade(self, view: View, wanted: int) -> Decision:
        limit = _expected(view, wanted)
        rung, price = -1, -1
        for i in range(len(view.rungs)):
            expected = _expected(view, i)
            cheaper = expected is not None and expected > price and (limit is None or expected < limit)
            if cheaper and view.tried(i) is None and view.fits(i):
                rung, price = i, expected or 0
        name = view.rungs[wanted].name
        if rung < 0:
            why = f"neither {name} nor any cheaper rung fits {left_of(view)}"
            return Stop(best_attempt(view.attempts), why, wanted=wanted)
        return Try(rung, f"{name} doesn't fit {left_of(view)}: the dearest that does, at {usd(price)}", wanted)


def pick(view: View, rung: int, why: str) -> Decision:
    """Answer with this rung: try it, or stop with it where it was tried."""
    for i, attempt in enumerate(view.attempts):
        if attempt.rung == rung:
            return Stop(i, why)
    return Try(rung, why)


def escalate_to(view: View, rung: int | None, signal: str, best: int) -> Decision:
    """Try `rung` next unless there is none, the ledger brakes, or it doesn't fit; then attempt `best` answers."""
    if rung is None:
        return Stop(best, f"{signal}; no rung is left")
    if view.braked and any(a.ok for a in view.attempts):
        return Stop(best, f"{signal}; the budget is nearly used up")
    if not view.fits(rung):
        return Stop(best, f"{signal}; {view.rungs[rung].name} doesn't fit {left_of(view)}", wanted=rung)
    return Try(rung, signal)


def _largest_group(view: View, members: list[int]) -> tuple[int, int]:
    """(how many members gave the most frequent answer, index of the last attempt that did); (0, -1) without answers."""
    votes = [(i, a.answer) for i, a in enumerate(view.attempts) if a.ok and a.answer is not None and a.rung in members]
    return max(((sum(bool(other == answer) for _, other in votes), i) for i, answer in votes), default=(0, -1))


def _with_budget(view: View, left: int | None) -> View:
    if left == view.budget_left:
        return view
    return View(  # dataclasses.replace takes three times as long
        view.key,
        view.features,
        view.rungs,
        view.prices,
        view.ceilings,
        view.attempts,
        left,
        view.time_left,
        view.braked,
    )


def _expected(view: View, rung: int) -> int | None:
    price = view.prices[rung]
    return view.ceilings[rung] if price is None else price


def left_of(view: View) -> str:
    """What is left of money or time, for people."""
    return "the time left" if view.time_left <= 0 else f"the {usd(view.budget_left)} left"
