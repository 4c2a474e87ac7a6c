"""Random exploration around a policy: now and then another step than it wants, with a known probability.

    qa = Escalate(..., policy=watch(Epsilon(Threshold(0.8), share=0.1), log))

Without it a log shows one way only, and says nothing about what any other policy would have come to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from escalade.agents._saving import Saved, register_policy
from escalade.agents.climb import Decision, Policy, Stop, Try, View, best_attempt
from escalade.agents.policies import RungRef, draw, rung_index
from escalade.errors import BadInput
from escalade.evals.online.propensity import action, chances, settled
from escalade.money import Money

__all__ = ["Epsilon"]


@register_policy
@dataclass(frozen=True, slots=True)
class Epsilon(Saved):
    """The policy's own decision, but for a share of them one that is drawn from all that are possible.

    `share`: of decisions that are drawn, in [0, 1]. `rungs`: those that may be drawn, None for all that fit; to stop is
    possible once there is a good attempt. Each decision is drawn anew, by seed, question and step: a replay draws as
    production did. Raises BadInput, UnknownName for a rung.
    """

    kind: ClassVar[str] = "epsilon"
    policy: Policy
    share: float = 0.05
    rungs: tuple[RungRef, ...] | None = None
    seed: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.share, int | float) or not 0.0 <= self.share <= 1.0:
            raise BadInput(f"a share of drawn decisions lies between 0 and 1, not at {self.share!r}")
        if self.rungs is not None:
            object.__setattr__(self, "rungs", tuple(self.rungs))
        if not self.name:
            object.__setattr__(self, "name", f"{self.policy.name}, exploring")

    @property
    def per_request(self) -> Money | None:
        """The budget per request of the policy, if it has one."""
        found: Money | None = getattr(self.policy, "per_request", None)
        return found

    def decide(self, view: View) -> Decision:
        wanted = settled(view, self.policy.decide(view))
        options = self._options(view, wanted)
        drawn = draw(self.seed, f"{view.key}\0{len(view.attempts)}")
        if not options or drawn >= self.share:
            return wanted
        taken = options[int(drawn / self.share * len(options))]
        return taken if action(taken) != action(wanted) else wanted

    def chances(self, view: View) -> list[tuple[Decision, float]]:
        """Each decision that is possible here, with its probability; they add up to 1."""
        found: dict[int, tuple[Decision, float]] = {}
        for wanted, p in chances(self.policy, view):
            options = self._options(view, wanted)
            share = self.share if options else 0.0
            each = [(wanted, p * (1.0 - share)), *((option, p * share / len(options)) for option in options)]
            for decision, likely in each:
                before = found.get(action(decision), (decision, 0.0))
                found[action(decision)] = (before[0], before[1] + likely)
        return [pair for pair in found.values() if pair[1] > 0.0]

    def _options(self, view: View, wanted: Decision) -> list[Decision]:
        """What may be drawn: untried rungs that fit, and to stop where there is an answer.

        Nothing where money is short: under the brake, and where a rung that was wanted doesn't fit.
        """
        if wanted.wanted is not None or view.braked:
            return []
        rungs = range(len(view.rungs)) if self.rungs is None else [rung_index(view.rungs, r) for r in self.rungs]
        options: list[Decision] = [Try(r, "drawn") for r in rungs if view.tried(r) is None and view.fits(r)]
        if any(attempt.ok for attempt in view.attempts):
            options.append(wanted if isinstance(wanted, Stop) else Stop(best_attempt(view.attempts), "drawn"))
        return options
