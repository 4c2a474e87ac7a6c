"""A canary: a new policy for some users, the old one for all others.

    policy = watch(Canary(Threshold(0.8), Gain(...), share=0.1), DecisionLog("decisions.jsonl"))
    qa = Escalate(..., policy=policy)
    policy.trial.status, policy.trial.reason        # "stopped", "the new policy is dearer: ..."

Who gets it is decided by the hash that rollouts of tools use, so that the same user always gets the same policy, and
who has it at 10 % has it at 50 %, too. `watch` stops it by itself when it is worse (`trial.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from escalade.agents._saving import Saved, register_policy
from escalade.agents.climb import Decision, Policy, View
from escalade.errors import BadInput
from escalade.evals.online.propensity import Chances, action, chances, prefix
from escalade.money import Money
from escalade.registry.opening import OWNER
from escalade.registry.rollout import place
from escalade.scopes import NOBODY, current

__all__ = ["NEW", "OLD", "Canary"]

NEW, OLD = "new", "old"


@register_policy
@dataclass(frozen=True, slots=True)
class Canary(Saved):
    """`new` for a share of users, `old` for the rest.

    `share`: 0..1. `sticky_by`: who always gets the same, a "user" (of a tenant), a "tenant", or each "request", by its
    question. Where no scope has a principal, as in a replay, each question is a user of its own. `version`: another one
    deals out users anew. `stopped`: why nobody gets the new one any more, "" while it runs. Raises BadInput.
    """

    kind: ClassVar[str] = "canary"
    old: Policy
    new: Policy
    share: float = 0.1
    sticky_by: Literal["user", "tenant", "request"] = "user"
    version: str = "1"
    stopped: str = ""
    name: str = "canary"

    def __post_init__(self) -> None:
        if not isinstance(self.share, int | float) or not 0.0 <= self.share <= 1.0:
            raise BadInput(f"a share of users lies between 0 and 1, not at {self.share!r}")
        if self.sticky_by not in {"user", "tenant", "request"}:
            raise BadInput(f"sticky_by: expected 'user', 'tenant' or 'request', got {self.sticky_by!r}")

    def decide(self, view: View) -> Decision:
        return self.serving(view).decide(view)

    @property
    def per_request(self) -> Money | None:
        """The larger budget per request of the two, None where one has none: the policies keep their own."""
        found = [getattr(policy, "per_request", None) for policy in (self.old, self.new)]
        return None if None in found else max(found)  # type: ignore[type-var]

    def arm(self, view: View) -> str:
        """Whose turn it is: NEW or OLD."""
        return NEW if not self.stopped and place(self.name, self.version, *self._who(view)) < self.share else OLD

    def serving(self, view: View) -> Policy:
        """The policy that decides for whoever asks."""
        return self.new if self.arm(view) == NEW else self.old

    def chances(self, view: View) -> list[tuple[Decision, float]]:
        """Each decision that is possible here, over all who may ask, given the way up so far.

        They add up to less than 1 where one of the two raises.
        """
        share = 0.0 if self.stopped else self.share
        arms = [(self.new, share), (self.old, 1.0 - share)]
        weights = [weight and weight * self._likely(policy, view) for policy, weight in arms]
        total = sum(weights)
        if not total:  # a way up that none of the two takes: what is known is who serves
            return chances(self.serving(view), view)
        found: dict[int, tuple[Decision, float]] = {}
        for (policy, _), weight in zip(arms, weights, strict=True):
            for decision, p in _chances(policy, view) if weight else ():
                before = found.get(action(decision), (decision, 0.0))
                found[action(decision)] = (before[0], before[1] + p * weight / total)
        return list(found.values())

    def group(self, view: View) -> str:
        """A pseudonym of whoever always gets the same, for the log."""
        return f"{place(*self._who(view)):.15f}"[2:]

    def _likely(self, policy: Policy, view: View) -> float:
        """Of the attempts so far, if this policy had served; what serves has made them."""
        likely = 1.0
        for seen, attempt in enumerate(view.attempts):
            now = prefix(view, seen)
            p = sum(p for decision, p in _chances(policy, now) if action(decision) == attempt.rung)
            if not p and policy is self.serving(view):
                continue  # a budget that others spent from stood elsewhere then
            likely *= p
        return likely

    def _who(self, view: View) -> tuple[str, ...]:
        scope = current()
        principal = NOBODY if scope is None else scope.principal
        if self.sticky_by == "request" or principal in {OWNER, NOBODY}:
            return ("question", view.key)
        return (principal.tenant,) if self.sticky_by == "tenant" else (principal.tenant, principal.user)


def _chances(policy: Policy, view: View) -> Chances:
    """None at all where the policy raises: what is wrong with one of the two mustn't keep the other from serving."""
    try:
        return chances(policy, view)
    except Exception:  # noqa: BLE001 - it is raised where that policy serves
        return []
