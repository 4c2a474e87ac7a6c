"""Compare routing policies on recorded outcomes: quality and cost, paired against a baseline.

Everything is paired: each policy answers the same questions, and intervals are of the per-question differences. What is
fitted is fitted on other folds than it is judged on (`replay.cross_fit`). The oracle is a bound, never on the frontier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.climb import Policy
from escalade.agents.policies import Constant
from escalade.errors import BadInput, UnknownName
from escalade.evals import curves, statistics
from escalade.evals.curves import Sweep, sweep_of
from escalade.evals.lineup import Entry, Lineup
from escalade.evals.loaders import load_outcomes
from escalade.evals.replay import Fitted, FittedBudgeted, Replayed, cross_fit, oracle, replay
from escalade.money import money_or_none

if TYPE_CHECKING:
    from escalade.evals.outcomes import Outcomes

PER_1K = 1_000 / 1_000_000_000
"""From nano-dollars a question to dollars per 1,000 questions."""

POWER = 0.8


@dataclass(frozen=True, slots=True)
class Row:
    """What one policy came to. Quality and differences in 0..1; None is unknown, never zero.

    `diff`: mean per-question difference to the baseline, with its 95 % interval. `frontier`: no other policy is as good
    and cheaper, or as cheap and better. `budget_violations`: questions that cost more than the budget per request, plus
    one if the run cost more than its own. `apgr`, `cpt50`, `cpt80`: of the score that the policy sets a threshold on.
    `hindsight`: it needed the truth. `beats_random`: is it better than a random mix of its cheap and its strong rung
    that costs the same? None where there is nothing to choose. `detectable`: smallest true difference to the baseline
    that this sample would find 4 times in 5. `cost_ratio`: cost relative to the baseline's.
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
    beats_random: bool | None = None
    detectable: float | None = None
    cost_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A verdict that another grading of the same answers turns into another."""

    name: str
    verdict: str
    other: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rows, best quality first, and what has to be said with them.

    `detectable`: median over the policies. `excluded`: notes on questions that aren't in `n`. `changed`: verdicts that
    are others by `other_labels`, where the data has two gradings.
    """

    dataset: str
    n: int
    baseline: str
    labels: str
    margin: float
    seed: int
    folds: int
    rows: tuple[Row, ...]
    detectable: float | None
    notes: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    other_labels: str | None = None
    changed: tuple[Change, ...] = ()

    def row(self, name: str) -> Row:
        """The row of this name. Raises UnknownName."""
        found = next((row for row in self.rows if row.name == name), None)
        if found is None:
            raise UnknownName("policy", name, [row.name for row in self.rows])
        return found

    @property
    def cheapest_as_good(self) -> Row | None:
        """The cheapest policy that is as good as the baseline or better, and cheaper than it; None if there is none."""
        good = [
            row
            for row in self.rows
            if row.verdict in {statistics.AS_GOOD, statistics.BETTER}
            and not row.hindsight
            and row.name != self.baseline
            and row.cost_ratio is not None
            and row.cost_ratio < 1
        ]
        return min(good, key=lambda row: row.cost_per_1k_usd or 0.0, default=None)

    def to_json(self) -> dict[str, Any]:
        """As one JSON object; figures are rounded to 6 digits after the point."""
        return {
            "dataset": {"name": self.dataset, "n": self.n},
            "baseline": self.baseline,
            "labels": self.labels,
            "margin": self.margin,
            "seed": self.seed,
            "folds": self.folds,
            "policies": [{name: _rounded(value) for name, value in asdict(row).items()} for row in self.rows],
            "detectable": _rounded(self.detectable),
            "cheapest_as_good": self.cheapest_as_good.name if self.cheapest_as_good else None,
            "other_labels": self.other_labels,
            "changed": [asdict(change) for change in self.changed],
            "excluded": list(self.excluded),
            "notes": list(self.notes),
        }


def compare(
    outcomes: Outcomes | str | Path | None = None,
    policies: Sequence[str | Policy | Fitted] | None = None,
    *,
    baseline: str | None = None,
    margin: float = 0.02,
    seed: int = 0,
    folds: int = 5,
    per_request: object = None,
    per_run: object = None,
) -> Comparison:
    """Replay policies on outcomes and compare each with the baseline.

    `outcomes`: loaded ones, or what `load_outcomes` takes; None is the ladder that ships. `policies`: names (`lineup`
    tells them) or policies of your own; None is the default line-up. `baseline`: a name, the strongest rung by default;
    it is compared even if `policies` doesn't name it. `margin`: how much worse is still "as good", 0.02 is two points.
    `per_request`, `per_run`: dollars (`"0.02"`), the hard budgets of "+budget" rows. Raises BadInput and its kin.
    """
    if outcomes is None or isinstance(outcomes, str | Path):
        outcomes = load_outcomes(outcomes)
    if not 0 <= margin < 1:
        raise BadInput(f"a margin is a difference in quality between 0 and 1, like 0.02 for two points, not {margin!r}")
    request, run = money_or_none(per_request), money_or_none(per_run)
    lineup = Lineup(outcomes, margin=margin, seed=seed, per_request=request, per_run=run)
    entries = _entries(lineup, policies, folds)
    base = _baseline(lineup, entries, baseline)
    if (request is not None or run is not None) and all(e.per_request is None for e in entries):
        raise BadInput("a budget limits the +budget policies, and none is compared; name one, like agreement-3+budget")
    rows = _rows(entries, base, lineup, folds)
    told = [row.detectable for row in rows if not row.hindsight and row.detectable is not None]
    other, changed = _changed(rows, entries, base, lineup, folds)
    return Comparison(
        dataset=outcomes.name,
        n=outcomes.n,
        baseline=base.name,
        labels=outcomes.labels,
        margin=margin,
        seed=seed,
        folds=folds,
        rows=tuple(rows),
        detectable=float(np.median(told)) if told else None,
        notes=_notes(lineup, entries, folds, default=policies is None),
        excluded=tuple(note for note in outcomes.notes if note.endswith(("left out", "dropped", "(--limit)"))),
        other_labels=other,
        changed=changed,
    )


def _changed(
    rows: list[Row], entries: list[Entry], base: Entry, lineup: Lineup, folds: int
) -> tuple[str | None, tuple[Change, ...]]:
    """What another grading of the same answers makes of the verdicts; (None, ()) where there is one grading only."""
    outcomes = lineup.outcomes
    other = next((labels for labels in outcomes.gradings if labels != outcomes.labels), None)
    if other is None:
        return None, ()
    again = {row.name: row for row in _rows(entries, base, lineup.on(outcomes.graded(other)), folds)}
    pairs = [(row, again[row.name]) for row in rows if not row.hindsight]
    return other, tuple(Change(a.name, a.verdict, b.verdict) for a, b in pairs if a.verdict != b.verdict)


def _entries(lineup: Lineup, policies: Sequence[str | Policy | Fitted] | None, folds: int) -> list[Entry]:
    if policies is None:
        return lineup.default(fitted=_enough(lineup.outcomes, folds))
    if not policies:
        raise BadInput("no policy to compare; name one or more, or none at all for the default line-up")
    entries = [lineup.entry(p) if isinstance(p, str) else Entry(p.name, p) for p in policies]
    return list({entry.name: entry for entry in entries}.values())


def _enough(outcomes: Outcomes, folds: int) -> bool:
    return len(set(outcomes.keys)) >= folds


def _baseline(lineup: Lineup, entries: list[Entry], name: str | None) -> Entry:
    """The entry to compare with, added to the others if it isn't among them."""
    own = next((entry for entry in entries if entry.name == name), None)
    entry = own or lineup.entry(name or lineup.outcomes.rungs[-1].name)
    if entry.play is None:
        raise BadInput("the oracle needs the truth; it can't be the baseline of anything")
    if entry.name not in {e.name for e in entries}:
        entries.append(entry)
    return entry


def _play(entry: Entry, outcomes: Outcomes, folds: int, seed: int) -> Replayed:
    per_run = None if entry.per_run is None else int(entry.per_run)
    if entry.play is None:
        return oracle(outcomes)
    if isinstance(entry.play, Fitted):
        return cross_fit(entry.play, outcomes, folds, seed, per_run=per_run)
    return replay(entry.play, outcomes, per_run=per_run)


def _rows(entries: list[Entry], base: Entry, lineup: Lineup, folds: int) -> list[Row]:
    """Best quality first; of equal ones the cheaper first."""
    played = [_play(entry, lineup.outcomes, folds, lineup.seed) for entry in entries]
    against = next(one for entry, one in zip(entries, played, strict=True) if entry.name == base.name)
    real = [math.nan if entry.play is None else _or_nan(p.mean_cost) for entry, p in zip(entries, played, strict=True)]
    on = curves.frontier(real, [float(p.quality.mean()) for p in played]).tolist()
    rows = [
        _row(entry, one, against, lineup, frontier=front, is_base=entry.name == base.name)
        for entry, one, front in zip(entries, played, on, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row.quality, row.cost_per_1k_usd or 0.0, row.name))


def _row(entry: Entry, one: Replayed, base: Replayed, lineup: Lineup, *, frontier: bool, is_base: bool) -> Row:
    quality, low, high = statistics.mean_interval(one.quality)
    diff, diff_low, diff_high = (0.0, 0.0, 0.0) if is_base else statistics.paired_difference(one.quality, base.quality)
    sweep = _sweep(entry, lineup)
    return Row(
        name=entry.name,
        n=one.n,
        quality=quality,
        quality_low=_known(low),
        quality_high=_known(high),
        cost_per_1k_usd=None if one.mean_cost is None else one.mean_cost * PER_1K,
        diff=diff,
        diff_low=_known(diff_low),
        diff_high=_known(diff_high),
        verdict=statistics.verdict(diff_low, diff_high, lineup.margin),
        frontier=frontier,
        errors=int(one.errors.sum()),
        budget_violations=_violations(entry, one),
        p95_latency_s=_known(float(np.quantile(one.latency, 0.95))),
        apgr=sweep.apgr if sweep else None,
        cpt50=sweep.cpt(0.5) if sweep else None,
        cpt80=sweep.cpt(0.8) if sweep else None,
        hindsight=entry.play is None,
        beats_random=_beats_random(entry, one, lineup),
        detectable=None if is_base else _known(statistics.detectable(one.quality, base.quality, POWER)),
        cost_ratio=one.mean_cost / base.mean_cost if one.mean_cost is not None and base.mean_cost else None,
    )


def _violations(entry: Entry, one: Replayed) -> int:
    over = 0 if entry.per_request is None else int((one.cost > int(entry.per_request)).sum())
    return over + (entry.per_run is not None and int(one.cost.sum()) > entry.per_run)


def _sweep(entry: Entry, lineup: Lineup) -> Sweep | None:
    """The score behind the policy. A budget changes where the threshold stands, not the score: none is given for it."""
    outcomes = lineup.outcomes
    if entry.play is None and outcomes.k > 1:
        weak, strong = (replay(Constant(rung), outcomes).quality for rung in (lineup.cheap, lineup.strong))
        return Sweep(strong - weak, weak, strong)
    if entry.play is None or isinstance(entry.play, FittedBudgeted):
        return None
    return sweep_of(entry.play, outcomes)


def _beats_random(entry: Entry, one: Replayed, lineup: Lineup) -> bool | None:
    """Against the expected quality of a random mix of the cheap and the strongest rung at the same mean cost."""
    cost = one.mean_cost
    if not entry.routes or cost is None:
        return None
    low, high = (replay(Constant(rung), lineup.outcomes) for rung in (lineup.cheap, lineup.strong))
    if low.mean_cost is None or high.mean_cost is None or high.mean_cost <= low.mean_cost:
        return None
    share = min(1.0, max(0.0, (cost - low.mean_cost) / (high.mean_cost - low.mean_cost)))
    mixed = (1.0 - share) * low.quality + share * high.quality
    _, at_least, _ = statistics.paired_difference(one.quality, mixed)
    return at_least > 0


def _notes(lineup: Lineup, entries: list[Entry], folds: int, *, default: bool) -> tuple[str, ...]:
    notes = list(lineup.outcomes.notes)
    if lineup.budgets is not None and any(entry.per_request is not None for entry in entries):
        limits = lineup.budgets
        notes.append(f"+budget: at most {limits.per_request} a question and {limits.per_run} in all{limits.why}")
    if any(entry.fitted for entry in entries):
        notes.append(f"what is fitted is fitted on the other folds of {folds}, never on the questions it is judged on")
    elif default and not _enough(lineup.outcomes, folds):
        notes.append(f"fewer questions than the {folds} folds: policies that have to be fitted are left out")
    if not lineup.outcomes.priced and default:
        notes.append("policies that need prices (budgets, fitting, matched cost) are left out")
    return tuple(notes)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
