"""The rows of a comparison: what each policy came to, against the baseline, and what may be said about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from escalade.evals import curves, statistics
from escalade.evals._play import play
from escalade.evals.curves import Sweep, oracle_sweep, sweep_of
from escalade.evals.evidence import Evidence
from escalade.evals.inference import clustered
from escalade.evals.replay import FittedBudgeted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.lineup import Entry, Lineup

    Floats = NDArray[np.float64]

PER_1K = 1_000 / 1_000_000_000
"""From nano-dollars a question to dollars per 1,000 questions."""

LEVEL, POWER = clustered.LEVEL, clustered.POWER

BASELINE, HINDSIGHT = "baseline", "hindsight"
"""Verdicts of what isn't judged: the baseline itself, and the oracle, which knows the right answers."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one policy came to. Quality and differences in 0..1; None is unknown, never zero.

    `n`: distinct questions; rows of one question are averaged first, and questions of one group aren't independent.
    `diff`: mean per-question difference to the baseline, with its 95 % interval. `verdict`: "better", "as good",
    "can't tell" or "worse", "too few" questions for any of them (`statistics.too_few`); "baseline" and "hindsight" for
    the two rows that aren't judged. `frontier`: no other policy
    is as good and cheaper, or as cheap and better. `errors`: questions without a usable answer (one that failed in half
    of its rows counts half), `unpaid`: rows of them for which there was no money. `budget_violations`: rows that cost
    more than the budget per request, plus one if the run cost more than its own. `p95_latency_s`: of the answered ones.
    `apgr`, `cpt50`, `cpt80`: of the score that the policy sets a threshold on, between the answers `weak` and `strong`.
    `hindsight`: it needed the truth. `mixed`: a random mix at its expected value. `beats_random`: is it better than a
    random mix of its cheap and its strong rung that costs the same? None where there is nothing to choose.
    `detectable`: smallest true difference to the baseline that this sample would find 4 times in 5, 1 at most.
    `cost_ratio`: cost relative to the baseline's.
    `p_better`: one-sided p value that it is no better than the baseline, adjusted by Holm for all rows that are judged;
    `better_adjusted`: does "better" survive that? None where the verdict is another.
    """

    name: str
    n: int
    quality: float
    quality_low: float | None
    quality_high: float | None
    cost_per_1k_usd: float | None
    diff: float
    diff_low: float | None
    diff_high: float | None
    verdict: str
    frontier: bool
    errors: int
    budget_violations: int
    p95_latency_s: float | None
    apgr: float | None
    cpt50: float | None
    cpt80: float | None
    hindsight: bool = False
    mixed: bool = False
    beats_random: bool | None = None
    detectable: float | None = None
    cost_ratio: float | None = None
    unpaid: int = 0
    weak: str | None = None
    strong: str | None = None
    p_better: float | None = None
    better_adjusted: bool | None = None

    @property
    def judged(self) -> bool:
        """Is it compared with the baseline? Neither the baseline itself nor the oracle is."""
        return self.verdict not in {BASELINE, HINDSIGHT}


def evidence_of(entries: list[Entry], base: Entry, lineup: Lineup, folds: int) -> Evidence:
    """All of them, played."""
    played = {entry.name: play(entry, lineup.outcomes, folds, lineup.seed) for entry in entries}
    return Evidence(lineup, tuple(entries), played, base.name, folds)


def rows_of(evidence: Evidence) -> list[Row]:
    """Best quality first; of equal ones the cheaper first."""
    real = [math.nan if entry.play is None else float(evidence.cost(entry.name).mean()) for entry in evidence.entries]
    quality = [float(evidence.quality(entry.name).mean()) for entry in evidence.entries]
    on, p = curves.frontier(real, quality).tolist(), adjusted(evidence)
    rows = [
        _row(entry, evidence, p[entry.name], frontier=front) for entry, front in zip(evidence.entries, on, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row.quality, row.cost_per_1k_usd or 0.0, row.name))


def adjusted(evidence: Evidence) -> dict[str, float]:
    """One-sided p value that a policy is no better than the baseline, for all that were named together: of twenty a
    lucky one is sooner found than of one. nan for the baseline, hindsight and yardsticks, of which nobody claims it.
    """
    claimed = [
        entry.name != evidence.baseline and entry.play is not None and not entry.yardstick for entry in evidence.entries
    ]
    p = [
        evidence.change(entry.name).p_better if yes else math.nan
        for entry, yes in zip(evidence.entries, claimed, strict=True)
    ]
    return dict(zip((entry.name for entry in evidence.entries), statistics.holm(p), strict=True))


def _row(entry: Entry, evidence: Evidence, p: float, *, frontier: bool) -> Row:
    """`p`: adjusted; nan where nobody claims that it is better."""
    one, lineup, asked = evidence.played[entry.name], evidence.lineup, evidence.questions
    is_base, change = entry.name == evidence.baseline, evidence.change(entry.name)
    quality, below, above = clustered.mean_interval(evidence.quality(entry.name), asked.group)
    low, high = statistics.bounds(below, above, 0.0, 1.0)
    diff_low, diff_high = (0.0, 0.0) if is_base else statistics.bounds(change.low, change.high, -1.0, 1.0)
    sweep = sweep_behind(entry, lineup, evidence.folds)
    told = BASELINE if is_base else HINDSIGHT if entry.play is None else None
    word = told or statistics.judged(
        change.low, change.high, lineup.margin, asked.n, asked.clusters, floor=change.floor
    )
    cost, base_cost = _cost(evidence, entry.name), _cost(evidence, evidence.baseline)
    return Row(
        name=entry.name,
        n=asked.n,
        quality=quality,
        quality_low=low,
        quality_high=high,
        cost_per_1k_usd=None if cost is None else cost * PER_1K,
        diff=0.0 if is_base else change.value,
        diff_low=diff_low,
        diff_high=diff_high,
        verdict=word,
        frontier=frontier,
        errors=round(float(asked.mean(one.failed).sum())),
        budget_violations=one.violations,
        p95_latency_s=statistics.known(one.p95),
        apgr=sweep.apgr if sweep else None,
        cpt50=sweep.cpt(0.5) if sweep else None,
        cpt80=sweep.cpt(0.8) if sweep else None,
        hindsight=entry.play is None,
        mixed=entry.mixed,
        beats_random=_beats_random(entry, evidence),
        detectable=None if is_base else statistics.known(min(change.detectable, 1.0)),
        cost_ratio=cost / base_cost if cost is not None and base_cost else None,
        unpaid=one.unpaid,
        weak=sweep.names[0] if sweep else None,
        strong=sweep.names[1] if sweep else None,
        p_better=statistics.known(p),
        better_adjusted=p <= (1 - LEVEL) / 2 if word == statistics.BETTER and not math.isnan(p) else None,
    )


def _cost(evidence: Evidence, name: str) -> float | None:
    """Nano-dollars of the mean question, None where unknown."""
    cost = evidence.cost(name)
    return statistics.known(float(cost.mean())) if len(cost) else None


def sweep_behind(entry: Entry, lineup: Lineup, folds: int) -> Sweep | None:
    """The score behind the policy. A budget changes where the threshold stands, not the score: none is given for it."""
    if not lineup.outcomes.whole:
        return None  # half of the curve lies where nothing was recorded
    if entry.play is None and lineup.outcomes.k > 1:
        return oracle_sweep(lineup.outcomes, lineup.cheap, lineup.strong)
    if entry.play is None or isinstance(entry.play, FittedBudgeted):
        return None
    return sweep_of(entry.play, lineup.outcomes, folds, lineup.seed)


def _beats_random(entry: Entry, evidence: Evidence) -> bool | None:
    """Against the expected quality of a random mix of the cheap and the strongest rung at the same mean cost."""
    cost = _cost(evidence, entry.name)
    if not entry.routes or cost is None or not evidence.outcomes.whole:
        return None
    mixed, dearer = evidence.mix_at(cost)
    over = clustered.difference(evidence.quality(entry.name), mixed, evidence.questions.group)
    return over.low > 0 if dearer else None
