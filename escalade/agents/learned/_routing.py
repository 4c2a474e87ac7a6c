"""What routers between a weak and a strong rung have in common: one score, one threshold, one question asked once."""

from __future__ import annotations

from escalade.agents.climb import Decision, Stop, Try, View, best_attempt
from escalade.agents.policies import left_of, usd


def routed(view: View, low: int, high: int, score: float, threshold: float, what: str) -> Decision:
    """The strong rung where the score reaches the threshold and the strong rung fits, else the weak one.

    A weak rung that gave no answer is followed by the strong one.
    """
    if view.attempts:
        return routed_after(view, high)
    told = f"{what} {score:+.3f} {'>=' if score >= threshold else '<'} {threshold:+.3f}"
    if score < threshold:
        return Try(low, f"{told}; expected at {usd(view.prices[low])}")
    if view.fits(high):
        return Try(high, f"{told}; expected at {usd(view.prices[high])}{_of(view)}")
    return Try(low, f"{told}; {view.rungs[high].name} doesn't fit {left_of(view)}")


def routed_after(view: View, high: int) -> Decision:
    """After an attempt: stop with its answer, or go on to the strong rung where there was none."""
    last = view.attempts[-1]
    if last.ok:
        return Stop(-1, f"{view.rungs[last.rung].name} answered")
    why = f"{view.rungs[last.rung].name} gave no answer ({last.status})"
    if view.tried(high) is None and view.fits(high):
        return Try(high, f"{why}; expected at {usd(view.prices[high])}{_of(view)}")
    return Stop(best_attempt(view.attempts), why)


def _of(view: View) -> str:
    return "" if view.budget_left is None else f" of {left_of(view)}"
