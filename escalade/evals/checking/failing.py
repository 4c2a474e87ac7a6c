"""Errors, truncation, wrong format and refusal, counted apart: for each rung and for each policy.

An answer that is wrong and an answer that isn't there are both worth nothing, and are mended in different ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from escalade.agents.climb import FAILED, OK
from escalade.evals._codes import STATUSES
from escalade.evals.tables import Column, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.evidence import Evidence
    from escalade.evals.outcomes import Outcomes
    from escalade.evals.replay import Replayed

    Ints = NDArray[np.int64]

__all__ = ["Failures", "failures", "failures_table"]


@dataclass(frozen=True, slots=True)
class Failures:
    """Of `n` answers. Those without a usable answer, by why: `failed` (something raised, be it the policy),
    `truncated`, `wrong_format` (not to be parsed), `refused` (the guard said no), `unanswered` (nothing was tried).

    `errors`: all of these together. `rescued`: questions where an attempt failed and another one answered. Those of a
    random mix are expected values.
    """

    name: str
    what: Literal["rung", "policy"]
    n: int
    errors: float
    failed: float
    truncated: float
    wrong_format: float
    refused: float
    unanswered: float
    rescued: float

    @property
    def share(self) -> float:
        """Of answers that are none, 0..1."""
        return self.errors / self.n if self.n else 0.0


def failures(evidence: Evidence) -> tuple[Failures, ...]:
    """Of each rung on the questions that it was asked, then of each policy, in the order of the comparison."""
    return (*_of_rungs(evidence.outcomes), *_of_policies(evidence))


def failures_table(evidence: Evidence) -> Table:
    """The table "failures"."""
    rows = [{name: getattr(one, name) for name in one.__slots__} | {"share": one.share} for one in failures(evidence)]
    return Table.of("failures", "Answers that are none", _COLUMNS, rows, about=_ABOUT)


_ABOUT = "Why answers are missing: on each rung alone, and where each policy ended. All of them count as quality 0."

_COLUMNS = (
    Column("name", "rung or policy", "text", "Whose answers."),
    Column("what", "", "text", "A rung on all questions, or a policy where it ended."),
    Column("n", "answers", "count", "Answers that were asked for."),
    Column("share", "errors", "share", "Answers that are none, of those asked for; each counts as quality 0."),
    Column("failed", "failed", "count", "Something was raised: the provider, the network, the program, the policy."),
    Column("truncated", "truncated", "count", "Cut off at the token limit."),
    Column("wrong_format", "wrong format", "count", "An answer that could not be parsed."),
    Column("refused", "refused", "count", "The guard said no: permission, budget, rate."),
    Column("unanswered", "unanswered", "count", "No rung was tried: none fitted the budget or the deadline."),
    Column("rescued", "rescued", "count", "An attempt failed and another rung answered."),
)


def _of_rungs(outcomes: Outcomes) -> Iterator[Failures]:
    for at, rung in enumerate(outcomes.rungs):
        asked = outcomes.asked[:, at]
        yield _counted(rung.name, "rung", _tally(outcomes.status[asked, at]), int(asked.sum()))


def _of_policies(evidence: Evidence) -> Iterator[Failures]:
    outcomes, lineup = evidence.outcomes, evidence.lineup
    for name, played in evidence.played.items():
        if played.replayed is not None:
            yield _of_climbs(name, outcomes, played.replayed)
        elif played.share is not None:
            ends = _tally(outcomes.status[:, lineup.cheap]), _tally(outcomes.status[:, lineup.strong])
            mixed = (1.0 - played.share) * ends[0] + played.share * ends[1]
            yield _counted(name, "policy", mixed, outcomes.n)


def _of_climbs(name: str, outcomes: Outcomes, one: Replayed) -> Failures:
    """By the status of what answered; where the policy itself raised, something failed."""
    there = one.chosen >= 0
    tally = _tally(outcomes.status[one.rows[there], one.chosen[there]])
    tally[STATUSES.index(FAILED)] += 0 if one.raised is None else one.raised.sum()
    broken = (one.tried & (outcomes.status[one.rows] != STATUSES.index(OK))).any(axis=1)
    return _counted(name, "policy", tally, one.n, rescued=int((broken & ~one.errors).sum()))


def _tally(status: NDArray[np.int8]) -> NDArray[np.float64]:
    return np.bincount(status, minlength=len(STATUSES)).astype(np.float64)


def _counted(
    name: str, what: Literal["rung", "policy"], tally: NDArray[np.float64], n: int, *, rescued: int = 0
) -> Failures:
    by = dict(zip(STATUSES, tally.tolist(), strict=True))
    unanswered = n - float(tally.sum())
    errors = n - by.pop(OK)
    return Failures(name, what, n, errors, unanswered=unanswered, rescued=rescued, **by)
