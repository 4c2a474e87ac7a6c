"""Going on cheaply when the money is nearly gone: `Braked(policy, tier=1)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from escalade.agents._saving import Saved, register_policy
from escalade.agents.climb import Decision, Policy, Stop, Try, View, best_attempt
from escalade.agents.policies import RungRef, left_of, rung_index
from escalade.errors import BadInput
from escalade.money import Money

TIERS = (1, 2, 3, 4)


@register_policy
@dataclass(frozen=True, slots=True)
class Braked(Saved):
    """Any policy; under the brake of a budget, only on rungs whose model is of this tier or below.

    `tier`: 1 (fast) to 4 (premium), as models have it. `rungs`: the rungs themselves, by index or name, where models
    have no tiers; then `tier` means nothing. Until some budget of the scope brakes, the policy decides alone. From then
    on, where it wants a rung that is not allowed:

    1. With a good attempt at hand, the climb stops with the best one.
    2. Without any, it tries the dearest rung that is allowed, not tried yet, and fits.
    3. If there is none, it stops, and the question stays unanswered.

    Decisions say so in `why` and name the rung that was wanted. Raises BadInput, UnknownName for a rung; a ladder on
    which no rung has a tier is told at the first decision under the brake.
    """

    kind: ClassVar[str] = "braked"
    policy: Policy
    tier: int = 1
    rungs: tuple[RungRef, ...] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise BadInput(f"expected a tier from 1 to 4, got {self.tier!r}")
        if self.rungs is not None:
            object.__setattr__(self, "rungs", tuple(self.rungs))
            if not self.rungs:
                raise BadInput("a policy under the brake needs at least one rung to go on with")
        if not self.name:
            object.__setattr__(self, "name", f"{self.policy.name}, braked")

    @property
    def per_request(self) -> Money | None:
        """The budget per request of the policy, if it has one."""
        found: Money | None = getattr(self.policy, "per_request", None)
        return found

    def decide(self, view: View) -> Decision:
        decision = self.policy.decide(view)
        if not view.braked or isinstance(decision, Stop):
            return decision
        allowed = self._allowed(view)
        if decision.rung in allowed:
            return decision
        wanted = view.rungs[decision.rung].name
        why = f"the budget is nearly used up, and {wanted} is above {self._limit(view)}"
        if any(attempt.ok for attempt in view.attempts):
            return Stop(best_attempt(view.attempts), why, wanted=decision.rung)
        left = [rung for rung in allowed if view.tried(rung) is None and view.fits(rung)]
        if not left:
            return Stop(best_attempt(view.attempts), f"{why}; nothing else fits {left_of(view)}", wanted=decision.rung)
        return Try(max(left, key=lambda rung: (_price(view, rung), rung)), why, wanted=decision.rung)

    def _allowed(self, view: View) -> list[int]:
        if self.rungs is not None:
            return [rung_index(view.rungs, ref) for ref in self.rungs]
        tiers = [rung.tier for rung in view.rungs]
        if not any(tiers):
            names = ", ".join(rung.name for rung in view.rungs)
            raise BadInput(
                f"policy {self.name!r}: no model of {names} has a tier; give them one, as in Model(tier=1), or name "
                f"the rungs to go on with: Braked(policy, rungs=[0])"
            )
        return [i for i, tier in enumerate(tiers) if tier is not None and tier <= self.tier]

    def _limit(self, view: View) -> str:
        if self.rungs is None:
            return f"tier {self.tier}"
        return " or ".join(view.rungs[rung].name for rung in self._allowed(view))


def _price(view: View, rung: int) -> int:
    price = view.prices[rung]
    return (view.ceilings[rung] or 0) if price is None else price
