"""Tuning a whole pipeline: its knobs, against quality, money and time, on questions that are run for real.

    def build(width: int = 1, hedge: float | None = None) -> Pipeline:
        return FanOut({f"try{k}": node(answer(), hedge=hedge) for k in range(width)}, join=dspy.majority)

    tuned = tune_graph(build, {"width": [1, 3, 5], "hedge": [None, 2.0]}, trainset, metric, dollars_per_point="0.01")
    print(tuned.report)
    tuned.program.save("graph.json")            # and tuned.setting, for build(**setting).load("graph.json")

Whatever differs between two pipelines can be a knob, since a function of yours builds them: the width of a fan-out, a
quorum, hedges, retries, bounds of loops, thresholds, which model. Prompts are the business of DSPy's optimisers:
compile the pipeline with one first, and hand the result over as `prompts`.

Six tenths of the questions choose, four tenths judge what was chosen. Each setting that is still in the race runs the
same questions, in rounds of twice as many; one that is surely worse than the best so far (the whole paired interval,
with Bonferroni's correction for settings and rounds) leaves it. In the end the best replaces the first setting, which
is the one without any tuning, only where it is surely better: noise decides nothing.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from escalade.errors import BadInput, BudgetExceeded, DataError, PermissionDenied, UnknownPrice
from escalade.evals import statistics
from escalade.evals.folds import shuffled
from escalade.evals.tuning import Figure
from escalade.money import Money, money_or_none
from escalade.pipelines.pipeline import Pipeline
from escalade.scopes import Entered, Scope, require

__all__ = ["GraphReport", "Measured", "TunedGraph", "tune_graph"]

FEWEST, FIRST, MOST = 20, 8, 64
"""Questions that it takes at least; those of the first round; settings that it takes at the most."""

CHOOSING = 0.6
"""The share of the questions that choose."""

Setting = dict[str, Any]


class Measured(NamedTuple):
    """A setting on the choosing questions that it ran: means. `cost`: nano-dollars; `seconds`: of one question."""

    setting: Setting
    questions: int
    quality: float
    cost: float
    seconds: float
    value: float


@dataclass(frozen=True)
class GraphReport:
    """What tuning came to, on the `judged` questions, that chose nothing: before is the first setting, after the chosen
    one; changes are paired, after less before. `frontier`: the settings that ran all choosing questions, and that no
    other beats in quality, cost and seconds alike. `left`: those that left the race. `verdict`: on the change of
    quality. Qualities in 0..1, costs in nano-dollars, seconds, all per question.
    """

    setting: Setting
    quality_before: Figure
    quality_after: Figure
    quality_change: Figure
    cost_change: Figure
    seconds_change: Figure
    verdict: str
    frontier: tuple[Measured, ...]
    left: tuple[Measured, ...]
    chosen: int
    judged: int
    spent: Money

    def __str__(self) -> str:
        quality = f"{self.quality_before.mean:.1%} -> {self.quality_after.mean:.1%}"
        changes = f"cost {self.cost_change.mean / 1e9:+.6f} $, {self.seconds_change.mean:+.3g} s per question"
        return "\n".join([
            f"chosen on {self.chosen} questions for {self.spent}: {self.setting}",
            f"judged on {self.judged} others: quality {quality} ({self.verdict}), {changes}",
            *(f"frontier: {one.setting} {one.quality:.1%} ${one.cost / 1e9:.6f} {one.seconds:.3g} s"
              for one in self.frontier),
        ])  # fmt: skip


class TunedGraph(NamedTuple):
    """The pipeline of the chosen setting, with the prompts; how it was judged."""

    program: Pipeline
    setting: Setting
    report: GraphReport


def tune_graph(
    build: Callable[..., Pipeline],
    knobs: Mapping[str, Sequence[Any]],
    trainset: Sequence[Any],
    metric: Callable[[Any, Any], Any],
    *,
    prompts: Any = None,
    dollars_per_point: str | Decimal | Money | None = None,
    seconds_per_point: float | None = None,
    margin: float = 0.02,
    budget: str | Decimal | Money | None = None,
    seed: int = 0,
) -> TunedGraph:
    """Run the settings on the questions, choose one, and judge it on others.

    `build(**setting)` makes a pipeline; `knobs`: the values of each keyword, the first of each being the pipeline
    without any tuning. `prompts`: a compiled pipeline of `build`, whose predictors' states all candidates get, by name.
    `dollars_per_point`, `seconds_per_point`: what a point of quality (one right answer, of 0..1) may cost, in dollars
    and in seconds; without either, quality alone decides. `margin`: of quality, for the verdict. `budget`: dollars for
    all of it. A run that fails has quality 0, and costs what it costs.

    Settings run one after the other: with a cache, the later ones would look cheaper and faster than they are, so have
    none. Raises BadInput for knobs that are none or too many, DataError for fewer than 20 questions, BudgetExceeded
    when the money ends or a node's own
    does, UnknownPrice, PermissionDenied, NoScope.
    """
    settings = _settings(knobs)
    if len(trainset) < FEWEST:
        raise DataError(f"{len(trainset)} questions are too few to choose on some and judge on others: take {FEWEST}")
    worth = _Worth(money_or_none(dollars_per_point), seconds_per_point)
    choosing, judging = _split(trainset, seed)
    outer, limit = require("tune_graph"), money_or_none(budget)
    with Entered(lambda: outer.narrow(name="tune_graph", budget=limit, optional=True)) as account:
        runners = [_Runner(setting, _built(build, setting, prompts), metric, account, worth) for setting in settings]
        racing = _raced(runners, choosing)
        best = _chosen(racing, runners[0], _level(runners, len(choosing)))
        before = [runners[0].run(one) for one in judging]
        after = before if best is runners[0] else [best.run(one) for one in judging]
        spent = account.spent
    report = _report(best, before, after, racing, runners, (len(choosing), len(judging)), spent, margin)
    return TunedGraph(best.program, dict(best.setting), report)


def _split(examples: Sequence[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """Those that choose, and those that judge; equal questions stay together. Raises DataError."""
    keys = [repr(sorted(_inputs(one).items())) for one in examples]
    order = shuffled(keys, seed).tolist()
    cut = int(len(order) * CHOOSING)
    while cut < len(order) and keys[order[cut]] == keys[order[cut - 1]]:
        cut += 1
    if len(order) - cut < FIRST:
        raise DataError(f"{len(order)} questions, of which too many are equal: {len(order) - cut} are left to judge")
    return [examples[k] for k in order[:cut]], [examples[k] for k in order[cut:]]


class _Worth(NamedTuple):
    """What a point of quality may cost."""

    dollars: Money | None
    seconds: float | None

    def of(self, run: _Run) -> float:
        """The value of one answer, in points of quality."""
        value = run.quality
        if self.dollars is not None:
            value -= run.cost / int(self.dollars)
        return value if self.seconds is None else value - run.seconds / self.seconds


class _Run(NamedTuple):
    """One question: quality, nano-dollars, seconds."""

    quality: float
    cost: int
    seconds: float


@dataclass(eq=False)
class _Runner:
    """A setting, and how it went so far."""

    setting: Setting
    program: Pipeline
    metric: Callable[[Any, Any], Any]
    account: Scope
    worth: _Worth
    runs: list[_Run] = field(default_factory=list)

    def run(self, example: Any) -> _Run:
        """One question. What fails is wrong. Raises what the account refuses."""
        began = time.perf_counter()
        with Entered(lambda: self.account.narrow(name="question", optional=True), check=False) as scope:
            try:
                quality = float(self.metric(example, self.program(**_inputs(example))))
            except (BudgetExceeded, PermissionDenied):  # it says nothing of the setting
                raise
            except Exception:  # noqa: BLE001 - whatever a user's pipeline raises
                quality = 0.0
        if self.account.unpriced:
            raise UnknownPrice("no graph can be tuned while costs are unknown: give every model a price")
        return _Run(quality, int(scope.spent), time.perf_counter() - began)

    @property
    def values(self) -> list[float]:
        return [self.worth.of(run) for run in self.runs]

    def measured(self) -> Measured:
        quality, cost, seconds = (float(np.mean([run[k] for run in self.runs])) for k in range(3))
        return Measured(self.setting, len(self.runs), quality, cost, seconds, float(np.mean(self.values)))


def _raced(runners: list[_Runner], examples: Sequence[Any]) -> list[_Runner]:
    """Those that are left when all questions were run; the first one always is."""
    racing, done, level = list(runners), 0, _level(runners, len(examples))
    while done < len(examples):
        part = examples[done : max(FIRST, 2 * done)]
        for runner in racing:
            runner.runs += [runner.run(example) for example in part]
        done += len(part)
        best = max(racing, key=lambda runner: float(np.mean(runner.values)))
        racing = [one for one in racing if one in (runners[0], best) or not _surely(best, one, level)]
    return racing


def _surely(better: _Runner, worse: _Runner, level: float) -> bool:
    """Is it, for all that the questions so far can tell? Plain t on the differences: values are no shares."""
    difference = np.subtract(better.values, worse.values)
    if bool((difference == difference[0]).all()):
        return len(difference) >= FIRST and float(difference[0]) > 0
    return statistics.paired_difference(better.values, worse.values, level)[1] > 0


def _level(runners: list[_Runner], questions: int) -> float:
    """Of each interval, so that all of them together err in one of twenty tunings."""
    rounds = 1 + max(0, math.ceil(math.log2(questions / FIRST)))
    return 1 - 0.05 / ((len(runners) - 1) * rounds)


def _chosen(racing: list[_Runner], first: _Runner, level: float) -> _Runner:
    best = max(racing, key=lambda runner: float(np.mean(runner.values)))
    return best if best is first or _surely(best, first, level) else first


def _report(
    best: _Runner,
    before: list[_Run],
    after: list[_Run],
    racing: list[_Runner],
    runners: list[_Runner],
    sizes: tuple[int, int],
    spent: Money,
    margin: float,
) -> GraphReport:
    columns = [([run[k] for run in after], [run[k] for run in before]) for k in range(3)]
    changes = [Figure(*statistics.paired_difference(*pair)) for pair in columns[:1]]
    changes += [_difference(*pair) for pair in columns[1:]]
    whole = [one.measured() for one in racing]
    return GraphReport(
        setting=dict(best.setting),
        quality_before=Figure(*statistics.mean_interval(columns[0][1])),
        quality_after=Figure(*statistics.mean_interval(columns[0][0])),
        quality_change=changes[0],
        cost_change=changes[1],
        seconds_change=changes[2],
        verdict=statistics.verdict(changes[0].low, changes[0].high, margin, floor=statistics.score_floor(*columns[0])),
        frontier=tuple(one for one in whole if not any(_beats(other, one) for other in whole)),
        left=tuple(one.measured() for one in runners if one not in racing),
        chosen=sizes[0],
        judged=sizes[1],
        spent=spent,
    )


def _difference(after: Sequence[float], before: Sequence[float]) -> Figure:
    """Paired, of costs or seconds; all the same say nothing of their spread, and are given as they are."""
    difference = np.subtract(after, before)
    if bool((difference == difference[0]).all()):
        return Figure(*[float(difference[0])] * 3)
    return Figure(*statistics.paired_difference(after, before))


def _beats(one: Measured, other: Measured) -> bool:
    pairs = [(one.quality, other.quality), (-one.cost, -other.cost), (-one.seconds, -other.seconds)]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _settings(knobs: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """All combinations; the first values first."""
    for name, values in knobs.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise BadInput(f"knob {name!r}: expected a list of values, got {values!r}")
    found = [dict(zip(knobs, values, strict=True)) for values in itertools.product(*knobs.values())]
    if not 2 <= len(found) <= MOST:
        raise BadInput(f"{len(found)} settings: expected 2 to {MOST}; each is run on the same questions")
    return found


def _built(build: Callable[..., Pipeline], setting: Setting, prompts: Any) -> Pipeline:
    program = build(**setting)
    if not isinstance(program, Pipeline):
        raise BadInput(f"build(**{setting}): expected a pipeline, got {program!r:.80}")
    if prompts is not None:
        known = dict(prompts.named_predictors())
        for name, predictor in program.named_predictors():
            if name in known:
                predictor.load_state(known[name].dump_state())
    return program


def _inputs(example: Any) -> dict[str, Any]:
    if not hasattr(example, "inputs"):
        raise DataError(f"expected dspy.Examples with their inputs marked, got {example!r}")
    return dict(example.inputs().items())
