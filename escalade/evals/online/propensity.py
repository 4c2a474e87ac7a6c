"""How likely a policy is to decide as it does: 1 for one that doesn't draw.

A policy that draws tells its `chances(view)`: each decision that is possible there, with its probability. The draw is a
hash of a seed and the question, so that a replay decides as production did; the probability is over seeds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from escalade.agents.climb import Attempt, Decision, Policy, Stop, Try, View, best_attempt
from escalade.agents.learned.bandit import Bandit
from escalade.agents.policies import RandomMix, rung_index
from escalade.errors import BadInput

__all__ = ["STOP", "action", "chance", "chances", "prefix", "settled"]

STOP = -1
"""The action that ends a climb."""

Chances = list[tuple[Decision, float]]


def settled(view: View, decision: Decision) -> Decision:
    """What really follows: a rung that doesn't fit isn't tried, and the climb stops with the best attempt."""
    if isinstance(decision, Try) and not view.fits(decision.rung):
        return Stop(best_attempt(view.attempts), decision.why, wanted=decision.rung)
    return decision


def action(decision: Decision) -> int:
    """The rung that is tried, or STOP."""
    return decision.rung if isinstance(decision, Try) else STOP


def chances(policy: Policy, view: View) -> Chances:
    """Each decision that the policy may take here, with its probability; they add up to 1. Raises BadInput."""
    told: Any = getattr(policy, "chances", None)
    if told is not None:
        found: Iterable[tuple[Decision, float]] = told(view)
        return [(settled(view, decision), p) for decision, p in found]
    if isinstance(policy, RandomMix) and not view.attempts:
        low, high = rung_index(view.rungs, policy.low), rung_index(view.rungs, policy.high)
        return [(settled(view, Try(high)), policy.share), (settled(view, Try(low)), 1.0 - policy.share)]
    if isinstance(policy, Bandit) and not view.attempts:
        rungs = [rung_index(view.rungs, rung) for rung in policy.rungs]
        return [(settled(view, Try(rung)), p) for rung, p in zip(rungs, policy.propensities(view), strict=True)]
    inner = getattr(policy, "policy", None)
    if inner is not None and _draws(inner):
        raise BadInput(f"{policy.name}: what draws goes outside, as in Epsilon({type(policy).__name__}(...))")
    return [(settled(view, policy.decide(view)), 1.0)]


def chance(policy: Policy, view: View, taken: Decision) -> float:
    """Of this decision, 0 for one that the policy never takes here."""
    wanted = action(settled(view, taken))
    return sum(p for decision, p in chances(policy, view) if action(decision) == wanted)


def prefix(view: View, seen: int) -> View:
    """The view of the same climb when there were only so many attempts. Others' spending from the budget is not undone,
    and whether it braked then isn't known.
    """
    if seen == len(view.attempts):
        return view
    return rewound(view, view.attempts[:seen])


def rewound(view: View, attempts: tuple[Attempt, ...]) -> View:
    """The view of a climb on the same question that had these attempts in place of its own."""
    left = view.budget_left
    if left is not None:
        left += sum(one.cost for one in view.attempts) - sum(one.cost for one in attempts)
    return View(
        view.key,
        view.features,
        view.rungs,
        view.prices,
        view.ceilings,
        attempts,
        left,
        view.time_left,
        view.braked and len(attempts) == len(view.attempts),
    )


def _draws(policy: Policy) -> bool:
    inner = getattr(policy, "policy", None)
    return hasattr(policy, "chances") or isinstance(policy, RandomMix | Bandit) or (inner is not None and _draws(inner))
