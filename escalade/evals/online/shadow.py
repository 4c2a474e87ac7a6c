"""A shadow: a new policy decides beside the one that serves. It costs nothing and changes no answer.

    shadow = PolicyShadow(Threshold(0.6))
    qa = Escalate(..., policy=watch(Threshold(0.8), log, shadow=shadow))
    print(shadow.report())

It is asked what it would have done on what was seen. As long as it only wants rungs that were tried, what it would have
come to is known: its cost always, its quality where it answers with the answer that was given. Where it leaves what was
seen, nobody knows: that takes a canary or exploration.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from escalade.agents.climb import Attempt, Policy, Stop, View
from escalade.evals.online.logged import Logged
from escalade.evals.online.propensity import rewound, settled
from escalade.money import Money
from escalade.registry.privacy.outlets import error_line

__all__ = ["Beside", "PolicyShadow", "Report", "beside"]


@dataclass(frozen=True, slots=True)
class Beside:
    """What the shadow would have done in one climb. `id`, `key`: of the climb that served. `path`: rungs in order; the
    last one was not tried where it left what was seen (`inside` is false). `rung`: that would have answered, None if
    none or unknown. `same`: with the very answer that was given. `cost`: nano-dollars, None outside. `quality`: None
    until told, and where its answer is another. `error`: that the shadow raised.
    """

    key: str
    path: tuple[int, ...]
    inside: bool
    rung: int | None = None
    same: bool = False
    cost: int | None = None
    served_cost: int = 0
    quality: float | None = None
    error: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Of `n` climbs: how many stayed `inside` what was seen, gave the `same` answer, or raised (`errors`). `cost` and
    `served_cost`: of the shadow and of what served, over those inside. `quality`, `told`: the mean over those of the
    same answer whose quality was told, None without any. Who is easy stays inside: no estimate for all climbs.
    """

    n: int
    inside: int
    same: int
    errors: int
    cost: Money
    served_cost: Money
    quality: float | None
    told: int


class PolicyShadow:
    """Collects what `policy` would have done. Thread-safe; the newest `most` climbs are kept."""

    def __init__(self, policy: Policy, *, most: int = 100_000) -> None:
        self.policy, self._most = policy, most
        self._found: dict[str, Beside] = {}
        self._lock = threading.Lock()

    def look(self, view: View, line: Logged) -> None:
        """A climb ended with this view, and was logged as this line."""
        one = replace(beside(self.policy, view, line.answered), id=line.id)
        with self._lock:
            self._found[line.id] = one
            while len(self._found) > self._most:
                del self._found[next(iter(self._found))]

    def hear(self, line: Logged) -> None:
        """The quality of a climb was told."""
        with self._lock:
            one = self._found.get(line.id)
            if one is not None and one.same:
                self._found[line.id] = replace(one, quality=line.quality)

    def climbs(self) -> tuple[Beside, ...]:
        """What it would have done, oldest first."""
        with self._lock:
            return tuple(self._found.values())

    def report(self) -> Report:
        """All of it in figures."""
        found = self.climbs()
        inside = [one for one in found if one.inside]
        told = [one.quality for one in inside if one.quality is not None]
        return Report(
            n=len(found),
            inside=len(inside),
            same=sum(one.same for one in found),
            errors=sum(bool(one.error) for one in found),
            cost=Money(sum(one.cost or 0 for one in inside)),
            served_cost=Money(sum(one.served_cost for one in inside)),
            quality=sum(told) / len(told) if told else None,
            told=len(told),
        )


def beside(policy: Policy, view: View, answered: int) -> Beside:
    """What the policy would have done on the attempts of this climb, which ended with attempt number `answered`."""
    served = sum(attempt.cost for attempt in view.attempts)
    seen = {attempt.rung: attempt for attempt in view.attempts}
    path: list[int] = []
    attempts: tuple[Attempt, ...] = ()
    while True:
        now = rewound(view, attempts)
        try:
            decision = settled(now, policy.decide(now))
            if isinstance(decision, Stop):
                return _stopped(view, path, attempts, decision.attempt, answered)
            path.append(decision.rung)
            if decision.rung not in seen or seen[decision.rung] in attempts:
                return Beside(view.key, tuple(path), inside=False, served_cost=served)
            attempts = (*attempts, seen[decision.rung])
        except Exception as error:  # noqa: BLE001 - a shadow must not disturb what serves
            return Beside(view.key, tuple(path), inside=False, served_cost=served, error=error_line(error))


def _stopped(view: View, path: Sequence[int], attempts: tuple[Attempt, ...], at: int, answered: int) -> Beside:
    chosen = attempts[at] if attempts else None
    given = view.attempts[answered] if 0 <= answered < len(view.attempts) else None
    return Beside(
        key=view.key,
        path=tuple(path),
        inside=True,
        rung=None if chosen is None else chosen.rung,
        same=chosen is not None and chosen is given,
        cost=sum(attempt.cost for attempt in attempts),
        served_cost=sum(attempt.cost for attempt in view.attempts),
    )
