"""Tuning: pay once for every rung on a training set, then fit calibrators and the threshold on what was recorded.

    with escalade.scope(budget="5.00"):
        tuned = escalade.tune(qa, trainset, metric, budget="2.00")
    print(tuned.report)
    tuned.program.save("qa.json")

Four tenths of the questions fit the calibrators, three choose the threshold, and three that neither has seen judge the
result. Which is which depends on the questions and the seed, and equal questions stay together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from escalade.agents.calibration import Calibrator, Platt
from escalade.agents.climb import OK, REFUSED, Policy
from escalade.errors import BadInput, BudgetExceeded, DataError, UnknownPrice
from escalade.evals import statistics
from escalade.evals._aims import CHOOSING, FITTING, JUDGING, Aim, candidates_of
from escalade.evals._codes import STATUSES
from escalade.evals.calibrating import calibrate, calibrated
from escalade.evals.folds import assign_folds, shuffled
from escalade.evals.outcomes import Outcomes
from escalade.evals.record import record
from escalade.evals.replay import Replayed, replay
from escalade.evals.studies.grading import Metric
from escalade.money import Money, money_or_none
from escalade.pipelines._bridge import run_sync
from escalade.scopes import Entered, Scope, require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.agents.escalate import Escalate

    Ints = NDArray[np.int64]

__all__ = ["Figure", "Report", "Tuned", "tune", "tune_on"]


PROBE = 10
"""After so many questions it is clear what recording costs."""


class Figure(NamedTuple):
    """A mean over the judging questions, with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """What tuning came to, on the `judged` questions, which nothing was fitted on.

    `policy`: the one that was chosen. Quality in 0..1, costs in nano-dollars per question; changes are paired, after
    less before. `verdict`: on the change of quality, as in comparisons. `fitted`, `chosen`, `judged`: indices into
    the outcomes. `given`: questions that were handed in; `recorded`: those of them that the budget paid for. `spent`:
    on the recording.
    """

    policy: Policy
    quality_before: Figure
    quality_after: Figure
    quality_change: Figure
    cost_before: Figure
    cost_after: Figure
    cost_change: Figure
    verdict: str
    fitted: tuple[int, ...]
    chosen: tuple[int, ...]
    judged: tuple[int, ...]
    given: int
    recorded: int
    spent: Money

    def __str__(self) -> str:
        chosen = f"chosen: {self.policy}"
        recorded = f"recorded {self.recorded} of {self.given} questions for {self.spent}"
        split = f"{len(self.fitted)} fitted, {len(self.chosen)} chosen on, {len(self.judged)} judged"
        return "\n".join([
            f"{recorded}: {split}",
            chosen,
            f"quality {_share(self.quality_before)} -> {_share(self.quality_after)}: {self.verdict}",
            f"cost per question {_dollars(self.cost_before)} -> {_dollars(self.cost_after)}",
        ])  # fmt: skip


class Tuned(NamedTuple):
    """A tuned copy of the program, how it was judged, and what was recorded (of the uncalibrated rungs)."""

    program: Escalate
    report: Report
    outcomes: Outcomes


def tune(
    program: Escalate,
    trainset: Sequence[Any],
    metric: Metric,
    *,
    budget: str | Decimal | Money | None = None,
    margin: float | None = None,
    dollars_per_point: str | Decimal | Money | None = None,
    guarantee: float | tuple[float, float] | None = None,
    using: type[Calibrator] = Platt,
    seed: int = 0,
    dir: str | PathLike[str] | None = None,  # noqa: A002 - as `record` has it
) -> Tuned:
    """Record every rung on the training set, fit the calibrators, choose the threshold, and judge.

    `trainset`: `dspy.Example`s with their inputs marked. `budget`: dollars for the recording, within the scope's. A
    question is begun when the bound of all its rungs fits; those that don't any more are left out, in an order that
    the seed decides. `dir`: a run directory, in which what was recorded stays: tuned again with it, also after a crash,
    nothing is paid twice, and many questions are asked at once.

    What is chosen, by one of: `margin`, the cheapest threshold that loses no more quality against the last rung (0.02
    by default); `dollars_per_point`, the largest quality less cost, a right answer being worth so much; `guarantee`, an
    epsilon, or epsilon and delta, as of `Guaranteed`. The last rung alone is always a candidate.

    The program isn't changed. Its policy is a `Threshold` or one with a score (`Gain`, `Nearest`, `AnswerInView`), also
    within a `Budgeted` or a `Guaranteed`. Raises DataError for too few questions, with the number that it takes, before
    anything is paid; and for a budget that can't pay for those, after ten questions where that is clear by then. Raises
    BadInput, UnknownPrice, NoScope.
    """
    aim = Aim.of(margin, dollars_per_point, guarantee)
    candidates_of(_ladder(program).policy)
    limit, outer = money_or_none(budget), require("tune")
    needed = aim.needed(using)
    if len(trainset) < needed:
        raise _too_few(f"{len(trainset)} questions", needed)
    copy = program.deepcopy()
    copy.calibrators = {}
    with Entered(lambda: outer.narrow(name="tune", budget=limit, optional=True), check=False) as account:
        examples = _in_order(copy, trainset, seed)
        if dir is None:
            parts = _recorded(copy, examples, metric, account, needed)
        else:
            parts = _kept(copy, examples, metric, account, needed, Path(dir))
    if len(parts) < needed:
        told = f"{len(parts)} of {len(trainset)} questions, for {account.spent}, and no more fit the budget:"
        raise _too_few(told, needed)
    found = tune_on(
        program,
        _joined(parts),
        margin=margin,
        dollars_per_point=dollars_per_point,
        guarantee=guarantee,
        using=using,
        seed=seed,
    )
    return found._replace(report=replace(found.report, given=len(trainset), spent=account.spent))


def tune_on(
    program: Escalate,
    outcomes: Outcomes,
    *,
    margin: float | None = None,
    dollars_per_point: str | Decimal | Money | None = None,
    guarantee: float | tuple[float, float] | None = None,
    using: type[Calibrator] = Platt,
    seed: int = 0,
) -> Tuned:
    """`tune` on outcomes that are there already, recorded of this ladder without calibrators: it costs nothing."""
    aim = Aim.of(margin, dollars_per_point, guarantee)
    candidates_of(_ladder(program).policy)
    needed, distinct = aim.needed(using), len(set(outcomes.keys))
    if distinct < needed:
        raise _too_few(f"{distinct} different questions", needed)
    _check_answers(outcomes)
    fold = assign_folds(outcomes.keys, 10, seed, group=outcomes.group)
    fitting, choosing, judging = (np.flatnonzero(np.isin(fold, part)) for part in (FITTING, CHOOSING, JUDGING))
    tuned = program.deepcopy()
    tuned.calibrators = {}
    fitted = calibrate(tuned, outcomes, using, rows=fitting)
    known = calibrated(outcomes, fitted)
    tuned.policy = aim.choose(program.policy, known, choosing, seed)
    before = replay(program.policy, calibrated(outcomes, program.calibrators), rows=judging)
    after = replay(tuned.policy, known, rows=judging)
    report = _judged(tuned.policy, before, after, (fitting, choosing, judging), aim.margin, outcomes.n)
    return Tuned(tuned, report, outcomes)


# ------------------------------------------------------------------------------------------------- what is recorded


def _ladder(program: Any) -> Escalate:
    from escalade.agents.escalate import Escalate

    if not isinstance(program, Escalate):
        raise BadInput(
            f"program: expected an Escalate, whose threshold is tuned, got {type(program).__qualname__}; "
            f"put your module on the rungs of one"
        )
    return program


def _in_order(program: Escalate, trainset: Sequence[Any], seed: int) -> list[Any]:
    """The examples, shuffled by their questions and the seed."""
    keys = [program.view(**_inputs(example)).key for example in trainset]
    return [trainset[i] for i in shuffled(keys, seed)]


def _recorded(
    program: Escalate, examples: Sequence[Any], metric: Metric, account: Scope, needed: int
) -> list[Outcomes]:
    """What was recorded of each example, up to where the money ends."""
    parts: list[Outcomes] = []
    for example in examples:
        view = program.view(**_inputs(example))
        if view.budget_left is not None and sum(bound or 0 for bound in view.ceilings) > view.budget_left:
            break
        try:
            parts.append(record(program, [example], metric))
        except BudgetExceeded:  # where a rung has no bound
            break
        if account.unpriced:
            raise UnknownPrice("nothing can be tuned while costs are unknown: give every model a price")
        if len(parts) == PROBE:
            _check_answers(_joined(parts), frozenset({REFUSED}))
            _check_hopes(account, needed)
    return parts


def _kept(
    program: Escalate, examples: Sequence[Any], metric: Metric, account: Scope, needed: int, path: Path
) -> list[Outcomes]:
    """As `_recorded`, in a run directory, one part for each question that is complete."""
    from escalade.evals.studies.reading import rows_at
    from escalade.evals.studies.running import run
    from escalade.evals.studies.study import Study

    study = Study.of({"name": "tune", "data": examples, "program": program, "metric": metric})
    parts: list[Outcomes] = []
    for limit in (min(PROBE, len(examples)), len(examples)):
        some = study.with_(limit=limit)
        outcomes = run_sync(lambda some=some: run(some, path, cached=False, compares=False)).outcomes  # type: ignore[misc]
        if account.unpriced:
            raise UnknownPrice("nothing can be tuned while costs are unknown: give every model a price")
        if outcomes is None:
            break
        if limit == PROBE:
            _check_answers(outcomes, frozenset({REFUSED}))
            _check_hopes(account, needed)
        parts = [rows_at(outcomes, np.array([i])) for i in range(outcomes.n)]
    return parts


def _check_answers(outcomes: Outcomes, never: frozenset[str] = frozenset(STATUSES) - {OK}) -> None:
    """Raises DataError for a rung that never answered, but was `never` only: one that may not be used here looks like
    one that is always wrong.
    """
    for rung, codes in zip(outcomes.rungs, outcomes.status.T, strict=True):
        how = sorted({STATUSES[code] for code in codes.tolist()})
        if never.issuperset(how):
            raise DataError(
                f"rung {rung.name!r} answered none of {len(codes)} questions ({', '.join(how)}): see whether its model "
                f"answers and may be used here, or leave the rung out"
            )


def _check_hopes(account: Scope, needed: int) -> None:
    """Raises DataError where the least number of questions costs more than there is even at half of what these did."""
    spent, left = account.spent, account.left
    whole = Money(int(spent) * needed // PROBE)
    if left is not None and int(whole) // 2 > spent + left:
        raise DataError(
            f"{PROBE} questions cost {spent}, so that the {needed} that tuning takes at least would cost about "
            f"{whole}, and there is {spent + left}: raise the budget"
        )


def _inputs(example: Any) -> dict[str, Any]:
    if not hasattr(example, "inputs"):
        raise DataError(f"expected dspy.Examples with their inputs marked, got {example!r}")
    return dict(example.inputs().items())


def _joined(parts: Sequence[Outcomes]) -> Outcomes:
    first = parts[0]
    columns: dict[str, Any] = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(first)
        if isinstance(getattr(first, field.name), np.ndarray)
    }
    features = {name: np.concatenate([part.features[name] for part in parts]) for name in first.features}
    return replace(first, keys=tuple(key for part in parts for key in part.keys), features=features, **columns)


# --------------------------------------------------------------------------------------------------- how it is judged


def _judged(
    policy: Policy, before: Replayed, after: Replayed, parts: tuple[Ints, Ints, Ints], margin: float, n: int
) -> Report:
    if not (before.cost_known and after.cost_known):
        raise UnknownPrice("a tuned program can't be judged while costs are unknown: give every model a price")
    costs = before.cost.astype(np.float64), after.cost.astype(np.float64)
    change = Figure(*statistics.paired_difference(after.quality, before.quality))
    fitted, chosen, judged = (tuple(part.tolist()) for part in parts)
    return Report(
        policy=policy,
        quality_before=Figure(*statistics.mean_interval(before.quality)),
        quality_after=Figure(*statistics.mean_interval(after.quality)),
        quality_change=change,
        cost_before=Figure(*statistics.mean_interval(costs[0])),
        cost_after=Figure(*statistics.mean_interval(costs[1])),
        cost_change=Figure(*statistics.paired_difference(costs[1], costs[0])),
        verdict=statistics.verdict(
            change.low, change.high, margin, floor=statistics.score_floor(after.quality, before.quality)
        ),
        fitted=fitted,
        chosen=chosen,
        judged=judged,
        given=n,
        recorded=n,
        spent=Money(0),
    )


def _too_few(what: str, needed: int) -> DataError:
    return DataError(
        f"{what} are too few to tune on: some fit, others choose, others judge, which takes {needed} different ones"
    )


def _share(figure: Figure) -> str:
    return f"{figure.mean:.1%} [{figure.low:.1%}, {figure.high:.1%}]"


def _dollars(figure: Figure) -> str:
    return f"${figure.mean / 1e9:.6f} [{figure.low / 1e9:.6f}, {figure.high / 1e9:.6f}]"
