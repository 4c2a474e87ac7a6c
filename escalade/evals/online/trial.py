"""Is the new policy of a canary worse than the old one? Asked after every climb, and answered without being fooled.

Quality (as it was told), errors, and cost are bounded for each of the two by intervals that hold at every moment
(`inference.sequential`). The canary stops when the intervals of one of the three lie apart in the wrong direction. All
six may be looked at again and again: a new policy that is no worse is stopped with a chance of at most `alpha` (for
costs in the limit of many climbs). Two intervals that must lie apart ask for more than one test of the difference: the
price is that smaller differences are found later.

Climbs are taken for independent. Few users who ask much and are very unlike make it optimistic.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Literal

from escalade.agents.climb import usd
from escalade.errors import BadInput
from escalade.evals.inference.sequential import Asymptotic, Betting
from escalade.evals.online.canary import NEW, OLD, Canary
from escalade.evals.online.log import DecisionLog
from escalade.evals.online.logged import Logged

__all__ = ["Arm", "Rails", "Trial"]


@dataclass(frozen=True, slots=True)
class Rails:
    """When a canary is stopped. `alpha`: chance of stopping one that is no worse, over its whole life. `margin`: of
    quality that it may be worse by, 0.02 is two points. `errors`: share of more failures that is tolerated. `dearer`:
    factor of cost that is tolerated.
    """

    alpha: float = 0.05
    margin: float = 0.0
    errors: float = 0.0
    dearer: float = 1.1

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or not 0 <= self.margin < 1 or not 0 <= self.errors < 1 or not self.dearer >= 1:
            raise BadInput(f"{self}: expected 0 < alpha < 1, margin and errors from 0 to 1, and dearer >= 1")


@dataclass
class Arm:
    """What was seen of one of the two. `level`: of each interval."""

    level: float
    climbs: int = 0
    failures: int = 0
    quality: Betting = field(init=False)
    errors: Betting = field(init=False)
    cost: Asymptotic = field(init=False)

    def __post_init__(self) -> None:
        self.quality, self.errors = (Betting(level=self.level, points=201) for _ in range(2))
        self.cost = Asymptotic(level=self.level, start=50)


class Trial:
    """Follows the climbs of one canary in a log, where it is written, too, that it was stopped: a restart changes
    nothing, and processes that write one log stop together. Thread-safe.
    """

    def __init__(self, canary: Canary, log: DecisionLog, rails: Rails | None = None) -> None:
        self.rails = rails or Rails()
        self._canary, self._log = canary, log
        level = 1.0 - self.rails.alpha / 3
        self.arms = {NEW: Arm(level), OLD: Arm(level)}
        self._seen: set[str] = set()
        self._told: set[str] = set()
        self._lock = threading.Lock()
        for line in log.lines():
            self.hear(line)
        log.listeners.append(self.hear)

    @property
    def canary(self) -> Canary:
        """As it serves now."""
        reason = self._log.stops.get((self._canary.name, self._canary.version), "")
        if reason and not self._canary.stopped:
            self._canary = replace(self._canary, stopped=reason)
        return self._canary

    @property
    def status(self) -> Literal["running", "stopped"]:
        """Does anybody get the new policy?"""
        return "stopped" if self.canary.stopped else "running"

    @property
    def reason(self) -> str:
        """Why it was stopped, with figures; "" while it runs."""
        return self.canary.stopped

    def stop(self, reason: str = "by hand") -> None:
        """Nobody gets the new policy any more."""
        if not self.canary.stopped:
            self._log.stop(self._canary.name, self._canary.version, reason)

    def hear(self, line: Logged) -> None:
        """A climb was logged, or its quality told. Those of other policies or versions don't count."""
        arm = self.arms.get(line.arm)
        if arm is None or (line.policy, line.version) != (self._canary.name, self._canary.version):
            return
        with self._lock:
            if line.id not in self._seen:
                self._seen.add(line.id)
                arm.climbs += 1
                arm.failures += line.failed
                arm.errors.add(float(line.failed))
                arm.cost.add(float(line.cost))
            if line.quality is not None and line.id not in self._told:
                self._told.add(line.id)  # the first word counts here: what was looked at isn't taken back
                arm.quality.add(line.quality)
            reason = self._worse()
        if reason:
            self.stop(reason)

    def _worse(self) -> str:
        new, old, rails = self.arms[NEW], self.arms[OLD], self.rails
        if new.quality.high < old.quality.low - rails.margin:
            return f"the new policy is worse: quality {new.quality.mean:.1%} against {old.quality.mean:.1%}{self._n()}"
        if new.errors.low > old.errors.high + rails.errors:
            return f"the new policy fails more often: {new.errors.mean:.1%} against {old.errors.mean:.1%}{self._n()}"
        if new.cost.low > old.cost.high * rails.dearer:
            costs = usd(round(new.cost.mean)), usd(round(old.cost.mean))
            return f"the new policy is dearer: {costs[0]} a question against {costs[1]}{self._n()}"
        return ""

    def _n(self) -> str:
        return f" ({self.arms[NEW].climbs:,} climbs against {self.arms[OLD].climbs:,})"
