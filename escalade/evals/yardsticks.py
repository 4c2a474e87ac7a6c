"""What a comparison brings along, whichever policies are named: rows to hold them against.

    <every rung>            always this rung
    best-single             the best of them on the other folds: what one would have chosen beforehand
    random@POLICY           a random mix that costs what POLICY costs
    prompt-length           the longer half of the questions to the strongest rung
    category-mean@POLICY    each category to the rung that was best for it on the other folds, for POLICY's cost
    nearest                 the strongest rung where it paid on the most similar questions (kNN)
    oracle                  hindsight: the cheapest right answer; oracle@POLICY: the most quality for POLICY's cost

POLICY is the best of those that were named. Nobody claims that a yardstick is better than the baseline: it has a
verdict, but it isn't counted among the looks that Holm's adjustment pays for.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from escalade.agents.policies import Constant
from escalade.errors import DataError
from escalade.evals._rows import evidence_of
from escalade.evals.baselines import FittedBestSingle

if TYPE_CHECKING:
    from escalade.evals.evidence import Evidence
    from escalade.evals.lineup import Entry

__all__ = ["with_yardsticks"]


def with_yardsticks(evidence: Evidence, *, fitted: bool = True) -> tuple[Evidence, list[str]]:
    """(the same evidence with the yardsticks that it lacks, played; notes on those that this data doesn't allow).

    `fitted`: are there questions enough to fit any?
    """
    reference, cost = _reference(evidence)
    has = {entry.name for entry in evidence.entries}
    entries, played, notes = list(evidence.entries), dict(evidence.played), []
    for entry in evidence.lineup.yardsticks(reference, cost, fitted=fitted):
        if entry.name in has:
            continue
        try:
            played |= evidence_of([entry], entry, evidence.lineup, evidence.folds).played
        except DataError as error:
            notes.append(f"without the yardstick {entry.name}: {error}")
        else:
            entries.append(entry)
    return replace(evidence, entries=tuple(entries), played=played), notes


def _reference(evidence: Evidence) -> tuple[Entry | None, float | None]:
    """The best of the named policies, of those that a random mix is matched with already where there are such; with
    its cost in nano-dollars a question.
    """
    has = {entry.name for entry in evidence.entries}
    named = [entry for entry in evidence.entries if _chooses(entry)]
    named = [entry for entry in named if f"random@{entry.name}" in has] or named
    if not named:
        return None, None
    best = max(named, key=lambda entry: float(evidence.quality(entry.name).mean()))
    cost = float(evidence.cost(best.name).mean())
    return best, None if math.isnan(cost) else cost


def _chooses(entry: Entry) -> bool:
    return not (
        entry.play is None or entry.yardstick or entry.mixed or isinstance(entry.play, Constant | FittedBestSingle)
    )
