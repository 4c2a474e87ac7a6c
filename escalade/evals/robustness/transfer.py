"""Fitted on one data set, judged on another; and a ladder that has got one more rung.

    transfer(gsm8k, mine)              fitted on gsm8k and judged on mine, beside what is fitted there
    added(outcomes, "new-model")       what is lost by not fitting anew when a rung is added

Both data sets need rungs of the same names. A policy that was fitted on fewer rungs never asks the new one: without
fitting anew it comes to what it did before, to the last answer, so that what is lost is what fitting anew gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.policies import Constant
from escalade.errors import BadInput, DataError, EscaladeError, UnknownName
from escalade.evals import statistics
from escalade.evals._play import play
from escalade.evals.inference.clustered import difference
from escalade.evals.inference.units import questions_of
from escalade.evals.lineup import FITTED, LEARNED, Entry, Lineup
from escalade.evals.loading.leaks import Overlap, overlap
from escalade.evals.outcomes import COLUMNS, Outcomes
from escalade.evals.replay import Fitted, cross_fit, replay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.replay import Replayed

    Floats = NDArray[np.float64]

__all__ = ["Moved", "Transfer", "added", "transfer"]

POLICIES = ("prompt-length", FITTED, *LEARNED)
"""What is fitted, by name: those of them that the data has the figures for."""

PER_1K = 1e-6


@dataclass(frozen=True, slots=True)
class Moved:
    """One policy, fitted elsewhere (or before) and at home (or anew), on the same questions.

    `quality`, `cost_per_1k_usd`: as it was fitted elsewhere; `home_quality`, `home_cost_per_1k_usd`: fitted on the
    other folds of these questions, on all of their rungs. `diff`: elsewhere minus home, with its paired interval, 0..1.
    `verdict`: of the former against the strongest rung of the ladder it was fitted on; "too few" questions allow none.
    """

    name: str
    n: int
    quality: float
    home_quality: float
    diff: float
    diff_low: float
    diff_high: float
    cost_per_1k_usd: float | None
    home_cost_per_1k_usd: float | None
    verdict: str


@dataclass(frozen=True)
class Transfer:
    """`overlap`: questions of the second data set that are in the first: they aren't new to what was fitted there."""

    policies: tuple[Moved, ...]
    overlap: Overlap


def transfer(
    train: Outcomes,
    test: Outcomes,
    policies: Sequence[str | Fitted] | None = None,
    *,
    margin: float = 0.02,
    folds: int = 5,
    seed: int = 0,
) -> Transfer:
    """Fit on all of `train`, replay on all of `test`; beside it the same policies, fitted out of fold on `test`.

    `policies`: names or fitted ones; None is what the data has the figures for. The ladder is of the rungs that both
    have, in the order of `train`. Raises DataError without two common rungs, BadInput for what isn't fitted.
    """
    names = [rung.name for rung in train.rungs if rung.name in {other.name for other in test.rungs}]
    if len(names) < 2:
        raise DataError(f"{train.name} and {test.name} have {len(names)} rungs in common by name; it takes two")
    first, second = _ladder(train, names), _ladder(test, names)
    lineup = Lineup(first, margin=margin, seed=seed)
    strong = replay(_strongest(second), second)
    moved = []
    for entry in _fitted(lineup, policies):
        fitted = entry.play
        assert isinstance(fitted, Fitted)  # noqa: S101 - sorted out above
        away = replay(fitted.fit(first, np.arange(first.n)), second)
        home = cross_fit(fitted, second, folds, seed)
        moved.append(_moved(entry.name, second, away, home, strong, margin))
    return Transfer(tuple(moved), overlap(first, second))


def added(
    outcomes: Outcomes,
    rung: str,
    policies: Sequence[str] | None = None,
    *,
    margin: float = 0.02,
    folds: int = 5,
    seed: int = 0,
) -> tuple[Moved, ...]:
    """Policies on the ladder without `rung`, which is what they are on all of it while nobody fits them anew.

    `policies`: names of the line-up; None is what the data has the figures for. "Home" is the policy of the same name
    on the whole ladder. Raises UnknownName for a rung that isn't there.
    """
    names = [one.name for one in outcomes.rungs]
    if rung not in names:
        raise UnknownName("rung", rung, names)
    if len(names) < 3:
        raise DataError(f"without {rung} there is one rung: nothing is routed, and nothing can be fitted anew")
    before = _ladder(outcomes, [name for name in names if name != rung])
    old, new = (Lineup(one, margin=margin, seed=seed) for one in (before, outcomes))
    strong = replay(_strongest(before), before)
    moved = []
    for entry in _fitted(old, policies):
        kept = play(entry, before, folds, seed).replayed
        fresh = _entry(new, entry.name)
        again = None if fresh is None else play(fresh, outcomes, folds, seed).replayed
        if kept is not None and again is not None:
            moved.append(_moved(entry.name, outcomes, kept, again, strong, margin))
    return tuple(moved)


def _strongest(outcomes: Outcomes) -> Constant:
    return Constant(outcomes.k - 1)


def _fitted(lineup: Lineup, policies: Sequence[str | Fitted] | None) -> list[Entry]:
    if policies is None:
        found = [_entry(lineup, name) for name in POLICIES]
        return [entry for entry in found if entry is not None]
    entries = [lineup.entry(one) if isinstance(one, str) else Entry(one.name, one) for one in policies]
    wrong = next((entry.name for entry in entries if not isinstance(entry.play, Fitted)), None)
    if wrong is not None:
        raise BadInput(
            f"{wrong} isn't fitted: it is the same on any data; name what is, like {', '.join(POLICIES[:3])}"
        )
    return entries


def _entry(lineup: Lineup, name: str) -> Entry | None:
    """None for a policy that this data lacks the figures for."""
    try:
        return lineup.entry(name)
    except EscaladeError:
        return None


def _ladder(outcomes: Outcomes, names: Sequence[str]) -> Outcomes:
    """These rungs, in this order."""
    known = [rung.name for rung in outcomes.rungs]
    if list(names) == known:
        return outcomes
    at = [known.index(name) for name in names]
    columns: dict[str, Any] = {name: getattr(outcomes, name)[:, at] for name in COLUMNS}
    for name in ("form", "spent"):
        column = getattr(outcomes, name)
        columns[name] = None if column is None else column[:, at]
    return replace(
        outcomes,
        rungs=tuple(outcomes.rungs[i] for i in at),
        gradings={labels: quality[:, at] for labels, quality in outcomes.gradings.items()},
        tariff={name: price for name, price in outcomes.tariff.items() if name in names},
        **columns,
    )


def _moved(name: str, outcomes: Outcomes, away: Replayed, home: Replayed, strong: Replayed, margin: float) -> Moved:
    units = questions_of(outcomes)
    quality, at_home, best = (units.mean(one.quality) for one in (away, home, strong))
    apart, against = difference(quality, at_home, units.group), difference(quality, best, units.group)
    return Moved(
        name=name,
        n=units.n,
        quality=float(quality.mean()),
        home_quality=float(at_home.mean()),
        diff=apart.value,
        diff_low=apart.low,
        diff_high=apart.high,
        cost_per_1k_usd=None if away.mean_cost is None else away.mean_cost * PER_1K,
        home_cost_per_1k_usd=None if home.mean_cost is None else home.mean_cost * PER_1K,
        verdict=statistics.judged(against.low, against.high, margin, units.n, units.clusters, floor=against.floor),
    )
