"""Rollouts: a new version for some callers first, back to the old one when it is worse, and shadows beside the old one.

    rollout = registry.rollout("crm.search", "2.0.0", share=0.1, cohorts={"beta": ["ana", "tenant:acme"]})
    rollout.change(share=0.5)      # later
    rollout.promote()              # everybody; or rollback("...") by hand

Who gets it is decided when a range is resolved, by a hash of tool, version and user (or tenant): the same caller gets
the same answer, and who has it at 10 % has it at 50 %, too. An exact pin is no question of a rollout. Agents that were
built once, outside of runs, hold tools of the old version: their calls are turned to the new one (once per run, for
those who get it) if it takes all arguments that the old one takes, under the same permission and with the same side
effects. If it doesn't, build agents within runs. While the breaker of the new version is open, everybody gets the old
one: a version that fails each time would open it long before it has the calls that the tests below want.

**Rollback.** Calls of both versions are measured from the beginning of the rollout on. Whenever the smaller side has
50, 100, 200, … calls, the new version is tested for more failures (Fisher), longer durations and higher costs
(Mann-Whitney, against the old ones times a tolerated factor). The k-th look may spend alpha / 2^k, a third on each
criterion, so that looking again and again rolls back a version that is no worse with a chance of at most alpha, over
the whole rollout (union bound). The tests take calls for independent: callers that are few and very different from each
other make them optimistic.

**Shadows.** With `shadow=Shadow(budget="0.50")`, calls of the old version are repeated on the new one, in a thread of
ours, when both only read. The caller gets the old answer and waits for nothing; only digests of the results are
compared. A budget of their own pays for them, and they are recorded under the run's id with ".shadow" after it.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from escalade import events
from escalade.errors import BadInput
from escalade.registry.access.holders import holds
from escalade.registry.calling import Registered
from escalade.registry.comparison import fisher, mann_whitney
from escalade.registry.lock import LOCK
from escalade.registry.shadow import Shadow, ShadowRun
from escalade.registry.subschema import misfits
from escalade.registry.versions import newest, selector
from escalade.scopes import Access, Principal, Scope, current

if TYPE_CHECKING:
    from escalade.registry.tools import ToolSpec

logger = logging.getLogger(__name__)

State = Literal["running", "promoted", "rolled_back"]


@dataclass(frozen=True, slots=True)
class Guardrails:
    """When a rollout is rolled back. `alpha`: chance of rolling back a version that is no worse, over all looks.
    `min_calls`: of each version, before the first look. `slower`, `dearer`: factors that are tolerated.
    """

    alpha: float = 0.05
    min_calls: int = 50
    slower: float = 1.25
    dearer: float = 1.10

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or self.min_calls < 8 or not (self.slower >= 1 and self.dearer >= 1):
            raise BadInput(f"{self}: expected 0 < alpha < 1, min_calls >= 8, and factors >= 1")


class Arm:
    """What was measured of one version since the rollout began. Durations and costs: of the newest 5,000 calls."""

    def __init__(self) -> None:
        self.calls = self.failures = 0
        self.seconds: deque[float] = deque(maxlen=5_000)
        self.costs: deque[int] = deque(maxlen=5_000)

    def add(self, outcome: str, seconds: float, cost: int | None) -> None:
        """A call ended. One that was cancelled tells nothing."""
        if outcome == "cancelled":
            return
        self.calls += 1
        self.failures += outcome == "failed"
        self.seconds.append(seconds)
        if cost is not None:
            self.costs.append(cost)


class Rollout:
    """Of one version of one tool, beside the `baseline`: the newest stable version without it. Made by
    `registry.rollout`.

    `status`: running, promoted, rolled_back (`reason` says why). `new`, `old`: what was
    measured. `shadow`: what its shadows found, None without any. `fits`: does the new version take calls that were made
    for the old one?
    """

    def __init__(
        self, candidate: Registered, baseline: Registered, sticky_by: Literal["user", "tenant"], guardrails: Guardrails
    ) -> None:
        self.name, self.version, self.baseline = candidate.spec.name, candidate.spec.version, baseline.spec.version
        self.sticky_by, self.guardrails = sticky_by, guardrails
        self.share = 0.0
        self.cohorts: dict[str, frozenset[str]] = {}
        self._named_roles: list[str] = []
        self.status: State = "running"
        self.reason = ""
        self.new, self.old = Arm(), Arm()
        self.looks = 0
        self.shadow: ShadowRun | None = None
        self._candidate, self._baseline = candidate, baseline
        self._lock = threading.RLock()
        self.fits = _fits(baseline.spec, candidate.spec)
        if self.fits:
            baseline.turn = self._turn
        candidate.status = replace(candidate.status, rolled_back=None)
        candidate.meter.watch, baseline.meter.watch = self._watch_new, self._watch_old

    @classmethod
    def begin(
        cls,
        candidate: Registered,
        stable: list[Registered],
        *,
        sticky_by: Literal["user", "tenant"] = "user",
        guardrails: Guardrails | None = None,
    ) -> Rollout:
        """A rollout that nobody gets yet. Raises BadInput without a version to fall back to."""
        spec = candidate.spec
        others = {one.spec.version: one for one in stable if one.status.in_ranges and one.spec.version != spec.version}
        baseline = newest(others)
        if baseline is None:
            raise BadInput(f"rollout of {spec.label}: there is no other stable version to fall back to")
        if sticky_by not in {"user", "tenant"}:
            raise BadInput(f"rollout of {spec.label}: sticky_by: expected 'user' or 'tenant', got {sticky_by!r}")
        return cls(candidate, others[baseline], sticky_by, guardrails or Guardrails())

    def change(
        self,
        *,
        share: float | None = None,
        cohorts: Mapping[str, Iterable[str]] | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        """Give it to another share of callers (0 to 1), to other cohorts, or shadow it. Raises BadInput."""
        if self.status != "running":
            raise BadInput(f"rollout of {self.name}@{self.version} is {self.status}; begin another one")
        if share is not None:
            if not 0 <= share <= 1:
                raise BadInput(f"rollout of {self.name}@{self.version}: share: expected 0 to 1, got {share!r}")
            self.share = share
        if cohorts is not None:
            self.cohorts = {name: frozenset(members) for name, members in cohorts.items()}
            everybody = sorted(frozenset().union(*self.cohorts.values()))
            self._named_roles = [one.removeprefix("role:") for one in everybody if one.startswith("role:")]
        if shadow is not None:
            self.shadow = ShadowRun(shadow, self._candidate, self._baseline)
            self._baseline.beside = self.shadow.beside

    def gives(self, version: str, principal: Principal | None, access: Access | None = None) -> bool:
        """Does who asks get this version? `access`: the policy in force, which says what roles inherit."""
        if version != self.version or self.status == "promoted":
            return True
        if self.status == "rolled_back" or principal is None or self._is_down():
            return False
        return self.cohort(principal, access) is not None or self._place(principal) < self.share

    def _is_down(self) -> bool:
        """Its breaker is open; half-open, somebody has to try it."""
        breaker = self._candidate.resource.breaker
        return breaker is not None and breaker.state == "open"

    def cohort(self, principal: Principal, access: Access | None = None) -> str | None:
        """The cohort that somebody is in: by user, "tenant:NAME" or "role:NAME"; None for none. `access`: as above."""
        keys = {f"tenant:{principal.tenant}", *(f"role:{role}" for role in self._roles_of(principal, access))}
        if not principal.user.startswith(("tenant:", "role:")):  # nobody is a tenant by the name that he chose
            keys.add(principal.user)
        return next((name for name, members in self.cohorts.items() if members & keys), None)

    def _roles_of(self, principal: Principal, access: Access | None) -> Iterable[str]:
        """Those of his roles that cohorts name."""
        where = f"the cohorts of the rollout of {self.name}@{self.version}"
        return [
            role
            for role in self._named_roles
            if (role in principal.roles if access is None else holds(access, principal, [role], where))
        ]

    def promote(self) -> None:
        """Everybody gets it, and nothing is measured any more."""
        self._finish("promoted", "")

    def rollback(self, reason: str = "by hand") -> None:
        """Nobody gets it any more, other than by an exact pin, and runs that have it already."""
        if not self._finish("rolled_back", reason):
            return
        self._candidate.status = replace(self._candidate.status, rolled_back=reason)
        logger.warning("rollout of %s@%s was rolled back: %s", self.name, self.version, reason)
        events.emit(current(), events.RolledBack, tool=f"{self.name}@{self.version}", to=self.baseline, why=reason)

    def _finish(self, status: State, reason: str) -> bool:
        with self._lock:
            if self.status != "running":
                return False
            self.status, self.reason = status, reason
        for one, watch in ((self._candidate, self._watch_new), (self._baseline, self._watch_old)):
            if one.meter.watch == watch:
                one.meter.watch = None
        if self.shadow is not None and self._baseline.beside == self.shadow.beside:
            self._baseline.beside = None
        return True

    def _turn(self, wanted: str) -> Registered | None:
        """The new version, for a caller who holds a tool of the old one, found by a range; once per run."""
        scope = current()
        once = None if scope is None else scope.once
        if once is None:
            return self._candidate if self._turns(wanted, scope) else None
        if LOCK in once:
            return None
        key = (self, wanted)
        if key not in once:
            once.setdefault(key, self._turns(wanted, scope))
        return self._candidate if once[key] else None

    def _turns(self, wanted: str, scope: Scope | None) -> bool:
        there = self._candidate.status.yanked is None and selector(wanted or None)(self.version)
        who = (None, None) if scope is None else (scope.principal, scope.access)
        return there and self.gives(self.version, *who)

    def _place(self, principal: Principal) -> float:
        """Where a caller stands between 0 and 1; always the same."""
        who = [principal.tenant] if self.sticky_by == "tenant" else [principal.tenant, principal.user]
        return place(self.name, self.version, *who)

    def _watch_old(self, outcome: str, seconds: float, cost: int | None) -> None:
        self._watch(self.old, outcome, seconds, cost)

    def _watch_new(self, outcome: str, seconds: float, cost: int | None) -> None:
        self._watch(self.new, outcome, seconds, cost)

    def _watch(self, arm: Arm, outcome: str, seconds: float, cost: int | None) -> None:
        with self._lock:
            arm.add(outcome, seconds, cost)
            due = self.guardrails.min_calls * 2**self.looks
            if self.status != "running" or min(self.new.calls, self.old.calls) < due:
                return
            self.looks += 1
            reason = self._worse()
        if reason:
            self.rollback(reason)

    def _worse(self) -> str:
        """How it is worse, by this look's share of alpha; "" for not."""
        new, old, rails = self.new, self.old, self.guardrails
        spend = rails.alpha / 2**self.looks / 3
        slower = mann_whitney(list(new.seconds), [seconds * rails.slower for seconds in old.seconds])
        dearer = mann_whitney(list(new.costs), [cost * rails.dearer for cost in old.costs])
        found = [
            (
                fisher(new.failures, new.calls, old.failures, old.calls),
                f"it fails more often: {new.failures} of {new.calls} calls, {old.failures} of {old.calls} before",
            ),
            (slower, f"it is slower: {_median(new.seconds):.3g} s at the median, {_median(old.seconds):.3g} s before"),
            (dearer, f"it is dearer: {_median(new.costs):.4g} n$ at the median, {_median(old.costs):.4g} n$ before"),
        ]
        p, why = min(found)
        return f"{why} (p = {p:.2g}, look {self.looks})" if p < spend else ""


def place(*who: str) -> float:
    """Where somebody stands between 0 and 1, by a hash of these names: always the same."""
    return int.from_bytes(hashlib.sha256(repr(list(who)).encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64


def _fits(old: ToolSpec, new: ToolSpec) -> bool:
    same = (old.permission, old.side_effects) == (new.permission, new.side_effects)
    return same and not misfits(old.input_schema, new.input_schema)


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else float("nan")
