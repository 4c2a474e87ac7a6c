"""A policy whose climbs are logged: what it decided, with which probability, and what came of it.

    log = DecisionLog("decisions.jsonl")
    qa = Escalate(..., policy=watch(Epsilon(Threshold(0.8)), log))

Only live climbs are logged, never a replay; one that can't be is warned of, and answered all the same. A watched policy
is saved and pickled as the policy itself: the log belongs to the app. `log_of` says what a policy would have logged on
recorded outcomes.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

from escalade.agents._features import Features
from escalade.agents._saving import Saved, dump_policy
from escalade.agents.climb import Attempt, Decision, Policy, Stop, Try, View, climb_sync, counted_down
from escalade.evals.online.canary import Canary
from escalade.evals.online.log import DecisionLog
from escalade.evals.online.logged import Logged, Tried
from escalade.evals.online.propensity import chance, chances, prefix, settled
from escalade.evals.online.shadow import PolicyShadow
from escalade.evals.online.trial import Rails, Trial
from escalade.scopes import current

if TYPE_CHECKING:
    from escalade.evals.outcomes import Outcomes
    from escalade.money import Money

logger = logging.getLogger(__name__)

__all__ = ["Watched", "log_of", "logged", "watch"]


def watch(
    policy: Policy,
    log: DecisionLog,
    *,
    version: str = "",
    features: Sequence[str] = ("prompt_chars",),
    shadow: PolicyShadow | None = None,
    rails: Rails | None = None,
) -> Watched:
    """The policy, with its live climbs in the log.

    `version`: of the policy, for the log; a canary has its own. `features`: those that are logged, where they are
    numbers. `shadow`: decides beside it. `rails`: when a `Canary` is stopped.
    """
    return Watched(policy, log, version=version, features=features, shadow=shadow, rails=rails)


class Watched(Saved):
    """Made by `watch`. `trial`: of a canary, None of other policies."""

    kind: ClassVar[str] = "watched"

    def __init__(
        self,
        policy: Policy,
        log: DecisionLog,
        *,
        version: str = "",
        features: Sequence[str] = (),
        shadow: PolicyShadow | None = None,
        rails: Rails | None = None,
    ) -> None:
        self.log, self.shadow = log, shadow
        self._policy, self._version, self._features = policy, version, tuple(features)
        self.trial = Trial(policy, log, rails) if isinstance(policy, Canary) else None
        if shadow is not None:
            log.listeners.append(shadow.hear)

    @property
    def policy(self) -> Policy:
        """The policy as it serves now: a canary that was stopped, is."""
        return self._policy if self.trial is None else self.trial.canary

    @property
    def name(self) -> str:
        return self._policy.name

    @property
    def per_request(self) -> Money | None:
        """The budget per request of the policy, if it has one."""
        found: Money | None = getattr(self.policy, "per_request", None)
        return found

    def chances(self, view: View) -> list[tuple[Decision, float]]:
        """Of the policy."""
        return chances(self.policy, view)

    def decide(self, view: View) -> Decision:
        policy = self.policy
        try:
            decision = policy.decide(view)
        except Exception:
            self._write(policy, view, None)
            raise
        if isinstance(settled(view, decision), Stop):
            self._write(policy, view, decision)
        return decision

    def dump(self) -> dict[str, Any]:
        """As the policy itself."""
        return dump_policy(self.policy)

    def _write(self, policy: Policy, view: View, last: Decision | None) -> None:
        if not isinstance(view.features, Features):
            return  # a replay: nobody was answered
        try:
            line = logged(policy, view, last, version=self._version, features=self._features)
            self.log.write(line)
            if self.shadow is not None:
                self.shadow.look(view, line)
        except Exception as error:  # noqa: BLE001 - a full disk is no reason to answer nobody
            logger.warning("a climb of %s was not logged: %s: %s", self.name, type(error).__name__, error)

    def __deepcopy__(self, memo: dict[int, Any]) -> Watched:
        return self

    def __reduce__(self) -> Any:
        return _itself, (self.policy,)


def logged(
    policy: Policy, view: View, last: Decision | None, *, version: str = "", features: Sequence[str] | None = None
) -> Logged:
    """A climb that ended with this decision, None for one that raised, as a line of a log.

    `features`: names of those that are logged; None is all. Where a propensity can't be told, because a budget stood
    elsewhere then, it is 1: what doesn't draw decided as it had to.
    """
    scope = current()
    stop = None if last is None else settled(view, last)
    at = stop.attempt if isinstance(stop, Stop) and view.attempts else -1
    canary = policy if isinstance(policy, Canary) else None
    return Logged(
        id=uuid.uuid4().hex,
        key=view.key,
        policy=policy.name,
        ladder=tuple(rung.name for rung in view.rungs),
        path=tuple(_tried(policy, view, seen) for seen in range(len(view.attempts))),
        answered=at + len(view.attempts) if stop is not None and at < 0 and view.attempts else at,
        stop=1.0 if stop is None else chance(policy, view, stop) or 1.0,
        features=_numbers(view, view.features if features is None else features),
        prices=view.prices,
        ceilings=view.ceilings,
        run="" if scope is None else scope.run_id,
        group="" if canary is None else canary.group(view),
        version=version if canary is None else canary.version,
        arm="" if canary is None else canary.arm(view),
        at=time.time(),
    )


def log_of(policy: Policy, outcomes: Outcomes, rows: Sequence[int] | None = None) -> list[Logged]:
    """What the policy would have logged on recorded outcomes, with the quality that is recorded.

    An answer that failed, and none at all, have quality 0.
    """
    found = []
    for i in range(outcomes.n) if rows is None else rows:
        ends: list[tuple[View, Decision]] = []
        first = outcomes.view(i)
        noted = _Noted(policy, ends)
        done = climb_sync(noted, lambda rung, i=i: outcomes.attempt(i, rung), counted_down(first))  # type: ignore[misc]
        line = logged(policy, *ends[-1])
        chosen = done.chosen
        found.append(line.told(float(outcomes.quality[i, chosen.rung]) if chosen is not None and chosen.ok else 0.0))
    return found


class _Noted:
    """A policy whose decisions are kept, each with its view."""

    def __init__(self, policy: Policy, ends: list[tuple[View, Decision]]) -> None:
        self._policy, self._ends = policy, ends

    @property
    def name(self) -> str:
        return self._policy.name

    def decide(self, view: View) -> Decision:
        decision = self._policy.decide(view)
        self._ends.append((view, decision))
        return decision


def _tried(policy: Policy, view: View, seen: int) -> Tried:
    attempt = view.attempts[seen]
    return Tried(
        rung=attempt.rung,
        propensity=chance(policy, prefix(view, seen), Try(attempt.rung)) or 1.0,
        confidence=attempt.confidence,
        status=attempt.status,
        cost=attempt.cost,
        latency=attempt.latency,
        answer=_code(view.attempts, attempt),
        form=attempt.form,
    )


def _code(attempts: Sequence[Attempt], attempt: Attempt) -> int | None:
    """Index of the first attempt with the same answer."""
    if attempt.answer is None:
        return None
    return next(i for i, one in enumerate(attempts) if one is attempt or bool(one.answer == attempt.answer))


def _numbers(view: View, names: Any) -> dict[str, float]:
    """Facts that are numbers; texts aren't logged, nor what nobody has."""
    found = {name: view.features[name] for name in names if name in view.features and name != "text"}
    return {name: float(value) for name, value in found.items() if isinstance(value, Real) and math.isfinite(value)}


def _itself(policy: Policy) -> Policy:
    return policy
