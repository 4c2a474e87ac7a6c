"""Compare routing policies on recorded outcomes: quality and cost, paired against a baseline.

Everything is paired: each policy answers the same questions, and intervals are of the per-question differences. What is
fitted is fitted on other folds than it is judged on (`replay.cross_fit`). The oracle is a bound, never on the frontier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.agents.climb import Policy
from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals import _notes, statistics
from escalade.evals._rows import BASELINE, HINDSIGHT, PER_1K, POWER, Row, evidence_of, rows_of
from escalade.evals.inference.censored import Refused, censored, inside
from escalade.evals.lineup import Entry, Lineup
from escalade.evals.loaders import load_outcomes
from escalade.evals.replay import Fitted
from escalade.evals.yardsticks import with_yardsticks
from escalade.money import NANO, money_or_none

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from escalade.evals.check import Check
    from escalade.evals.evidence import Evidence
    from escalade.evals.outcomes import Outcomes
    from escalade.evals.reporting.conditions import Checked

__all__ = ["BASELINE", "HINDSIGHT", "PER_1K", "POWER", "Change", "Comparison", "Row", "compare"]


@dataclass(frozen=True, slots=True)
class Change:
    """A verdict that another grading of the same answers turns into another."""

    name: str
    verdict: str
    other: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rows, best quality first, and what has to be said with them. `print` it with rich, or call `show`.

    `notes`: on the data, its prices and the policies. `excluded`: on questions that aren't in `n`. `changed`: verdicts
    that are others by `other_labels`, where the data has two gradings. `settings`: budgets and prices in dollars as
    floats, and the digest of the data, for the JSON. `metrics`: show the table of router metrics as well.
    `yardsticks`: names of rows that nobody asked for: they were brought along to be measured with. `refused`:
    policies that leave what was recorded, where outcomes have holes. `evidence`: what each policy did on every
    question, for whatever is asked next.
    """

    dataset: str
    n: int
    baseline: str
    labels: str
    margin: float
    seed: int
    folds: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    other_labels: str | None = None
    changed: tuple[Change, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: bool = False
    yardsticks: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    evidence: Evidence | None = field(default=None, repr=False, compare=False)

    def row(self, name: str) -> Row:
        """The row of this name, "random=0.3" being "random-0.3", and "large" being "Predict/large" if that is the only
        one. Raises UnknownName.
        """
        found = next((row for row in self.rows if row.name in {name, name.replace("=", "-")}), None)
        if found is None:
            short = [row for row in self.rows if row.name.endswith(f"/{name}")]
            found = short[0] if len(short) == 1 else None
        if found is None:
            raise UnknownName("policy", name, [row.name for row in self.rows])
        return found

    @property
    def checks(self) -> tuple[Check, ...]:
        """The self-checks, which run when they are first asked for; none for a comparison that was made by hand."""
        from escalade.evals.findings import findings

        return () if self.evidence is None else findings(self, only=["checks"]).checks

    @property
    def failed(self) -> tuple[Check, ...]:
        """The self-checks that failed: figures that they speak of mean nothing."""
        return tuple(check for check in self.checks if check.held is False)

    @property
    def doubted(self) -> tuple[str, ...]:
        """The policies that a failed self-check speaks of, by name; none of them is recommended."""
        about = [
            row.name for check in self.failed for row in self.rows if check.about is None or row.name in check.about
        ]
        return tuple(dict.fromkeys(about))

    @property
    def cheapest_as_good(self) -> Row | None:
        """The cheapest policy that is as good as the baseline or better, and cheaper than it; None if there is none.

        No random mix: one that nearly always asks the strongest rung is as good within any margin, and nobody's choice.
        None that a failed self-check speaks of.
        """
        doubted = self.doubted
        good = [
            row
            for row in self.rows
            if row.verdict in {statistics.AS_GOOD, statistics.BETTER}
            and row.cost_ratio is not None
            and row.cost_ratio < 1
            and not row.mixed
            and row.name not in doubted
        ]
        return min(good, key=lambda row: row.cost_per_1k_usd or 0.0, default=None)

    @property
    def candidates(self) -> tuple[Row, ...]:
        """What one would choose: the cheapest that is as good, and those that are better; else the best cheaper one."""
        cheapest, doubted = self.cheapest_as_good, self.doubted
        rows = [row for row in self.rows if row.name not in doubted]
        chosen = [row for row in rows if row.verdict == statistics.BETTER or row is cheapest]
        asked = [row for row in rows if row.judged and row.name not in self.yardsticks]
        others = [row for row in asked if row.cost_ratio is None or row.cost_ratio < 1]
        return tuple(chosen or sorted(others, key=lambda row: row.mixed)[:1])

    @property
    def detectable(self) -> float | None:
        """The smallest true difference that would be found 4 times in 5, for the first of the candidates."""
        first = self.cheapest_as_good or next(iter(self.candidates), None)
        return None if first is None else first.detectable

    def to_json(self) -> dict[str, Any]:
        """As one JSON object; figures are rounded to 6 digits after the point."""
        return {
            "version": _notes.version(),
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
            "method": _notes.method(self.margin),
            **self.settings,
            "excluded": list(self.excluded),
            "notes": list(self.notes),
            "checks": [check.to_json() for check in self.checks],
        }

    def check(self, condition: str) -> Checked:
        """Does `"mine.quality < baseline - 2"` hold? (`reporting/conditions.py` has the language.) Raises BadInput, and
        DataError while a self-check fails: nothing can be made to hang on what it speaks of.
        """
        from escalade.evals.reporting.conditions import check

        checked = check(self, condition)
        for wrong in self.failed:
            raise DataError(f"{condition!r} can't be told: the self-check {wrong.name!r} failed: {wrong.said}")
        return checked

    def show(self, console: Console | None = None) -> None:
        """Print the report, as `escalade compare` does."""
        from escalade.evals.report import show

        show(self, console)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from escalade.evals.report import parts

        yield from parts(self, options.max_width, console.encoding)


def compare(
    outcomes: Outcomes | str | Path | None = None,
    policies: Sequence[str | Policy | Fitted] | None = None,
    *,
    baseline: str | None = None,
    rungs: Sequence[str] | None = None,
    margin: float = 0.02,
    seed: int = 0,
    folds: int = 5,
    per_request: object = None,
    per_run: object = None,
    metrics: bool = False,
    baselines: bool = True,
) -> Comparison:
    """Replay policies on outcomes and compare each with the baseline.

    `outcomes`: loaded ones, or what `load_outcomes` takes; None is the ladder that ships. `policies`: names (`lineup`
    tells them) or policies of your own; None is the default line-up. `baseline`: a name, the strongest rung by default;
    it is compared even if `policies` doesn't name it. `rungs`: names of the rungs that are the ladder; None is all.
    `margin`: how much worse is still "as good", 0.02 is two points. `per_request`, `per_run`: dollars (`"0.02"`), the
    hard budgets of "+budget" rows. `metrics`: show APGR and CPT, too. `baselines`: bring along what policies are held
    against (`yardsticks` tells what that is); False leaves it at those that are named. Raises BadInput and its kin.
    """
    if outcomes is None or isinstance(outcomes, str | Path):
        outcomes = load_outcomes(outcomes, rungs=rungs)
    elif rungs is not None:
        outcomes = outcomes.only_rungs(rungs)
    if not 0 <= margin < 1:
        raise BadInput(f"a margin is a difference in quality between 0 and 1, like 0.02 for two points, not {margin!r}")
    request, run = money_or_none(per_request), money_or_none(per_run)
    lineup = Lineup(outcomes, margin=margin, seed=seed, per_request=request, per_run=run)
    entries = _entries(lineup, policies, folds)
    base = _baseline(lineup, entries, baseline)
    refused: tuple[Refused, ...] = ()
    if not outcomes.whole:
        entries, base, refused = inside(entries, base, lineup, folds, named=baseline is not None)
    if (request is not None or run is not None) and all(e.per_request is None for e in entries):
        raise BadInput("a budget limits the +budget policies, and none is compared; name one, like agreement-3+budget")
    evidence, without = evidence_of(entries, base, lineup, folds), list[str]()
    if baselines:
        evidence, without = with_yardsticks(evidence, fitted=_notes.enough(outcomes, folds))
    rows = rows_of(evidence)
    other, changed = _changed(rows, entries, base, lineup, folds)
    return Comparison(
        dataset=outcomes.name,
        n=len(set(outcomes.keys)),
        baseline=base.name,
        labels=outcomes.labels,
        margin=margin,
        seed=seed,
        folds=folds,
        rows=tuple(rows),
        notes=(
            *_notes.notes(lineup, list(evidence.entries), folds, default=policies is None),
            *without,
            *(hole.said for hole in censored(outcomes)),
            *(f"not judged: {one.why}" for one in refused),
        ),
        excluded=_notes.excluded(outcomes),
        other_labels=other,
        changed=changed,
        settings=_settings(lineup, entries),
        metrics=metrics or outcomes.k == 2,
        yardsticks=tuple(entry.name for entry in evidence.entries if entry.yardstick),
        refused=refused,
        evidence=evidence,
    )


def _changed(
    rows: list[Row], entries: list[Entry], base: Entry, lineup: Lineup, folds: int
) -> tuple[str | None, tuple[Change, ...]]:
    """What another grading of the same answers makes of the verdicts; (None, ()) where there is one grading only."""
    outcomes = lineup.outcomes
    others = {name: one for name, one in outcomes.gradings.items() if name != outcomes.labels}
    other = next((name for name, one in others.items() if one.min() >= 0), None)  # with a hole, the least is nan
    if other is None:
        return None, ()
    again = {row.name: row for row in rows_of(evidence_of(entries, base, lineup.on(outcomes.graded(other)), folds))}
    pairs = [(row, again[row.name]) for row in rows if row.name in again]
    return other, tuple(Change(a.name, a.verdict, b.verdict) for a, b in pairs if a.verdict != b.verdict)


def _entries(lineup: Lineup, policies: Sequence[str | Policy | Fitted] | None, folds: int) -> list[Entry]:
    if policies is None:
        return lineup.default(fitted=_notes.enough(lineup.outcomes, folds))
    if not policies:
        raise BadInput("no policy to compare; name one or more, or none at all for the default line-up")
    if isinstance(policies, str) or not isinstance(policies, Sequence):
        raise BadInput(f"policies: expected a list, [{policies!r}]")
    found: dict[str, Entry] = {}
    for given in policies:
        if not isinstance(given, str) and not hasattr(given, "name"):
            raise BadInput(f"policies: expected names and policies, like Threshold(0.8), got {given!r}")
        entry = lineup.entry(given) if isinstance(given, str) else lineup.own(given)
        if found.setdefault(entry.name, entry).play != entry.play:
            raise BadInput(f"two policies are named {entry.name!r}; rows need different names, as in name='mine'")
    return list(found.values())


def _baseline(lineup: Lineup, entries: list[Entry], name: str | None) -> Entry:
    """The entry to compare with, added to the others if it isn't among them."""
    own = next((entry for entry in entries if entry.name == name), None)
    entry = own or lineup.entry(name or lineup.outcomes.rungs[-1].name)
    if entry.play is None:
        raise BadInput("the oracle needs the truth; it can't be the baseline of anything")
    if entry.name not in {e.name for e in entries}:
        entries.append(entry)
    return entry


def _settings(lineup: Lineup, entries: list[Entry]) -> dict[str, Any]:
    """What the figures hang on, as numbers: dollars."""
    limits = lineup.budgets if any(entry.per_request is not None for entry in entries) else None
    return {
        "rungs": [
            {
                "name": rung.name,
                "usd_per_million_in": listed.price.input / NANO if listed else None,
                "usd_per_million_out": listed.price.output / NANO if listed else None,
                "price_source": listed.source if listed else None,
            }
            for rung in lineup.outcomes.rungs
            for listed in [lineup.outcomes.tariff.get(rung.name)]
        ],
        "budgets": None
        if limits is None
        else {"per_request_usd": limits.per_request / NANO, "per_run_usd": limits.per_run / NANO},
        "data_digest": lineup.outcomes.digest,
    }


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
