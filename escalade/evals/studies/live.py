"""Live confirmation: does a policy come to in production what its replay promised?

    done = confirm("threshold-0.8", qa, examples, metric, outcomes, budget="0.50", dir="runs/qa")
    print(done.sentence)

The program climbs live with the very policy of the comparison, on questions of the record, many at once. Everything is
paired by question: live - replayed. What is fitted decides each question by what was learned without it, as in the
replay. Answers are kept in the directory as they come: the same call goes on, and nothing is paid twice.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.agents.climb import Policy
from escalade.agents.policies import dump_policy
from escalade.errors import BadInput, DataError
from escalade.evals.compare import Comparison
from escalade.evals.folds import ByFold, shuffled
from escalade.evals.inference.clustered import difference
from escalade.evals.inference.sequential import Asymptotic, Betting, Sequence
from escalade.evals.lineup import Entry, Lineup
from escalade.evals.outcomes import UNKNOWN, Outcomes
from escalade.evals.replay import Fitted, Replayed, out_of_fold, replay
from escalade.evals.statistics import too_few
from escalade.evals.studies._causes import Pair, causes_of
from escalade.evals.studies._live_lines import Kept
from escalade.evals.studies.asking import Answered, Asking, Question
from escalade.evals.studies.changes import differences
from escalade.evals.studies.confirmation import Confirmation, Promise
from escalade.evals.studies.identity import labels_digest, metric_digest, rung_digest, rung_facts
from escalade.money import NANO, Money, money_or_none
from escalade.pipelines._bridge import run_sync
from escalade.registry.opening import scope

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.agents.escalate import Escalate
    from escalade.evals.studies.grading import Metric

    Floats = NDArray[np.float64]
    Groups = NDArray[np.int64] | None

__all__ = ["aconfirm", "confirm"]

LEVEL = 0.95


def confirm(
    policy: str | Policy | Fitted,
    program: Escalate,
    examples: Several[Any],
    metric: Metric,
    recorded: Outcomes | Comparison,
    *,
    sample: int | None = None,
    budget: str | Decimal | Money | None = None,
    margin: float = 0.02,
    cost_margin: float = 0.1,
    seed: int = 0,
    folds: int = 5,
    concurrency: int = 64,
    stop_early: bool = False,
    changed: bool = False,
    dir: str | PathLike[str] | None = None,  # noqa: A002 - as in Study.run
) -> Confirmation:
    """Run `policy` live and compare it with its replay on `recorded`, question by question.

    `policy`: a name of the line-up, or one of your own. `program`: its rungs are those of the record. `examples`:
    `dspy.Example`s; those that aren't in the record are left out. `recorded`: outcomes, or a comparison, whose policies
    are known by name and whose seed and folds hold. `sample`: so many questions, drawn by `seed`; None is all.
    `budget`: dollars for all runs of this policy in this `dir` together. `margin`: difference in quality that is as
    good as none; `cost_margin`: the same of the cost, as a share of it. `stop_early`: end as soon as quality is
    decided, by intervals that hold at every moment (`inference.sequential`) and are wider for it. `changed`: go on
    though rungs aren't what was recorded (another model or prompt under the same name), which is refused otherwise and
    stands in the notes then. `dir`: keeps the answers, in `live.jsonl`.

    Budgets per request of a policy hold live as in the replay; one of the run is spent by `budget` alone. Raises
    BadInput, DataError, UnknownName, UnknownPrice, PermissionDenied, and what the metric raises.
    """
    return run_sync(
        lambda: aconfirm(
            policy,
            program,
            examples,
            metric,
            recorded,
            sample=sample,
            budget=budget,
            margin=margin,
            cost_margin=cost_margin,
            seed=seed,
            folds=folds,
            concurrency=concurrency,
            stop_early=stop_early,
            changed=changed,
            dir=dir,
        )
    )


async def aconfirm(
    policy: str | Policy | Fitted,
    program: Escalate,
    examples: Several[Any],
    metric: Metric,
    recorded: Outcomes | Comparison,
    *,
    sample: int | None = None,
    budget: str | Decimal | Money | None = None,
    margin: float = 0.02,
    cost_margin: float = 0.1,
    seed: int = 0,
    folds: int = 5,
    concurrency: int = 64,
    stop_early: bool = False,
    changed: bool = False,
    dir: str | PathLike[str] | None = None,  # noqa: A002
) -> Confirmation:
    """`confirm`, on this event loop."""
    if not (isinstance(concurrency, int) and concurrency > 0) or (sample is not None and sample < 1):
        raise BadInput(f"questions: expected 1 or more at once and in the sample, not {concurrency!r} and {sample!r}")
    if margin < 0 or cost_margin < 0:
        raise BadInput(f"a margin isn't negative: {margin!r}, {cost_margin!r}")
    plan = _plan(policy, program, recorded, seed, folds, changed=changed)
    if stop_early and plan.outcomes.group is not None:
        raise BadInput(
            "stop_early looks at one question after the other, and questions of one group aren't independent"
        )
    limit = money_or_none(budget)
    async with scope(name="confirm", budget=limit) as payer:
        questions = _questions(program, plan, examples, sample)
        judge = _Judge(plan, margin, cost_margin, peeking=stop_early)
        labels = {question.key: labels_digest(question.example) for question in questions}
        with Kept(dir, plan.name, plan.identity(program, metric), labels) as kept:
            asking = Asking(
                plan.live(program),
                metric,
                concurrency=concurrency,
                limit=None if limit is None else max(0, int(limit) - kept.spent),
                keep=kept.add,
                seen=judge.saw if stop_early else None,
            )
            answers = await asking.all(questions, kept.known)
    return judge.judged([a for a in answers if a is not None], asking, Money(payer.purse.spent), Money(kept.spent))


# ------------------------------------------------------------------------------------------------- what is confirmed


@dataclass(frozen=True)
class _Plan:
    """The policy as it decides live, and its replay on all rows of the record."""

    name: str
    policy: Policy
    outcomes: Outcomes
    replayed: Replayed
    seed: int
    notes: tuple[str, ...]
    rows: dict[str, list[int]] = field(default_factory=dict)

    def live(self, program: Escalate) -> Escalate:
        """The program, with this policy; the one that was given stays as it is."""
        twin = copy.copy(program)
        twin.policy = self.policy
        return twin

    def identity(self, program: Escalate, metric: Metric) -> str:
        """What the answers hang on, in 16 hex digits: rungs and their prices, metric, and the policy with all that it
        has learned.
        """
        rungs = [(rung_digest(program, rung), program.model_of(rung).price) for rung in range(len(program.rungs))]
        told = (rungs, metric_digest(metric), _told(self.policy))
        return blake2b(repr(told).encode(), digest_size=8).hexdigest()


def _plan(
    policy: str | Policy | Fitted,
    program: Escalate,
    recorded: Outcomes | Comparison,
    seed: int,
    folds: int,
    *,
    changed: bool,
) -> _Plan:
    entry, outcomes, seed, folds = _entry(policy, recorded, seed, folds)
    ours, theirs = [rung.name for rung in program.rungs], [rung.name for rung in outcomes.rungs]
    if ours != theirs:
        raise BadInput(f"the program's rungs are {', '.join(ours)}; those of the record are {', '.join(theirs)}")
    now = {rung.name: rung_facts(program, i) for i, rung in enumerate(program.rungs)}
    others = differences(outcomes.identity, now)
    if others and not changed:
        raise DataError(
            f"{outcomes.name}: {'; '.join(others)}; its replay promises nothing of that: undo it, record anew, or go "
            f"on all the same with changed=True, --changed"
        )
    if entry.play is None:
        raise BadInput("the oracle needs the truth; it can't run live")
    notes = [f"not what the replay is of: {other}" for other in others]
    notes += [] if entry.per_run is None else [f"{entry.name}: the budget of the run is left out, live and replayed"]
    deciding = _deciding(entry.play, outcomes, seed, folds)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(outcomes.keys):
        rows[key].append(row)
    return _Plan(entry.name, deciding, outcomes, replay(deciding, outcomes), seed, tuple(notes), dict(rows))


def _entry(
    policy: str | Policy | Fitted, recorded: Outcomes | Comparison, seed: int, folds: int
) -> tuple[Entry, Outcomes, int, int]:
    if isinstance(recorded, Outcomes):
        lineup = Lineup(recorded, seed=seed)
        return lineup.entry(policy) if isinstance(policy, str) else Entry(policy.name, policy), recorded, seed, folds
    if not isinstance(recorded, Comparison) or recorded.evidence is None:
        raise BadInput(f"expected outcomes or a comparison to confirm, got {recorded!r:.80}")
    evidence = recorded.evidence
    if not isinstance(policy, str):
        entry = Entry(policy.name, policy)
    elif policy in evidence.played:
        entry = evidence.entry(policy)
    else:
        entry = evidence.lineup.entry(policy)
    return entry, evidence.outcomes, evidence.seed, evidence.folds


def _deciding(play: Policy | Fitted, outcomes: Outcomes, seed: int, folds: int) -> Policy:
    """Who decides: the policy itself, or what was fitted without the fold of the question."""
    return out_of_fold(play, outcomes, folds, seed) if isinstance(play, Fitted) else play


def _told(policy: Policy) -> Any:
    if isinstance(policy, ByFold):
        return [policy.name, sorted(policy.fold.items()), [_told(one) for one in policy.policies]]
    try:
        return dump_policy(policy)
    except BadInput:  # one that can't be saved
        return repr(policy)


def _questions(program: Escalate, plan: _Plan, examples: Several[Any], sample: int | None) -> list[Question]:
    """Those of the record, in an order that depends on keys and seed alone. Raises DataError."""
    found: dict[str, Question] = {}
    for example in examples:
        if not hasattr(example, "inputs"):
            raise DataError(f"expected dspy.Examples with their inputs marked, got {example!r:.80}")
        inputs = dict(example.inputs().items())
        view = program.view(**inputs)
        if view.key in plan.rows and view.key not in found:
            known = [ceiling for ceiling in view.ceilings if ceiling is not None]
            ceiling = sum(known) if len(known) == len(view.ceilings) else None
            found[view.key] = Question(view.key, example, inputs, ceiling)
    if not found:
        raise DataError(f"none of the {len(examples):,} examples is in {plan.outcomes.name}: record them first")
    keys = list(found)
    order = shuffled(keys, plan.seed)[:sample]
    return [found[keys[i]] for i in order.tolist()]


# ------------------------------------------------------------------------------------------------ what comes of it


class _Judge:
    """Pairs each live answer with its replay; while peeking, it says when quality is decided."""

    def __init__(self, plan: _Plan, margin: float, cost_margin: float, *, peeking: bool) -> None:
        self._plan, self._margin, self._cost_margin, self._peeking = plan, margin, cost_margin, peeking
        self._quality, self._cost = Betting(-1.0, 1.0), Asymptotic()
        self.early = False
        replayed = plan.replayed
        self._costs = np.where(replayed.cost == UNKNOWN, np.nan, replayed.cost)

    def _pair(self, answer: Answered) -> tuple[float, float, float, float]:
        """Quality live and replayed, nano-dollars live and replayed; replayed: the mean of the epochs."""
        rows = self._plan.rows[answer.key]
        quality, cost = float(self._plan.replayed.quality[rows].mean()), float(self._costs[rows].mean())
        return answer.quality, quality, float(answer.cost), cost

    def saw(self, answer: Answered) -> bool:
        """The next one, in the order of the questions; True when more of them are not needed."""
        live, replayed, paid, promised = self._pair(answer)
        self._quality.add(live - replayed)
        if not np.isnan(promised):
            self._cost.add(paid - promised)
        seen = self._quality
        self.early = Promise("quality", 0.0, seen.mean, seen.mean, seen.low, seen.high, self._margin).decided
        return self.early

    def judged(self, answers: Several[Answered], asking: Asking, spent: Money, before: Money) -> Confirmation:
        """Raises DataError where there was money for no question."""
        if not answers:
            raise DataError("there was no money for a single question: give it a larger budget")
        plan = self._plan
        columns = np.array([self._pair(answer) for answer in answers])
        group = self._groups(answers)
        cost_margin = self._cost_margin * float(columns[:, 3].mean())
        pairs: list[Pair] = [(a, row, 1 / len(plan.rows[a.key])) for a in answers for row in plan.rows[a.key]]
        replayed_errors = sum(weight * bool(plan.replayed.errors[row]) for _, row, weight in pairs)
        return Confirmation(
            policy=plan.name,
            dataset=plan.outcomes.name,
            n=len(answers),
            owed=asking.owed,
            seed=plan.seed,
            quality=self._promise("quality", columns[:, 0], columns[:, 1], self._quality, group, self._margin),
            cost=self._promise("cost", columns[:, 2], columns[:, 3], self._cost, group, cost_margin, unit=NANO),
            errors=(sum(bool(answer.error) for answer in answers), round(replayed_errors)),
            spent=spent,
            before=before,
            early=self.early,
            peeking=self._peeking,
            causes=causes_of(pairs, plan.replayed, plan.outcomes),
            notes=(*plan.notes, *self._notes(asking)),
            few=self._few(len(answers), group),
        )

    def _promise(
        self, what: str, live: Floats, then: Floats, seen: Sequence, group: Groups, margin: float, *, unit: int = 1
    ) -> Promise:
        diff = low = high = math.nan
        if not np.isnan(then).any():
            found = difference(live, then, group, level=LEVEL)
            diff, low, high = found.value, found.low, found.high
            if self._peeking:
                low, high = seen.low, seen.high
        means = float(then.mean()), float(live.mean())
        figures = (value / unit for value in (*means, diff, low, high, margin))
        return Promise(what, *figures, few=bool(self._few(len(live), group)))

    def _few(self, questions: int, group: Groups) -> str:
        """Why they are too few for a verdict; "" for intervals that hold at every moment."""
        units = questions if group is None else len(np.unique(group))
        return "" if self._peeking else too_few(questions, units)

    def _groups(self, answers: Several[Answered]) -> Groups:
        """Of the questions, as numbers; None where each stands for itself."""
        group = self._plan.outcomes.group
        if group is None:
            return None
        names = [group[self._plan.rows[answer.key][0]] for answer in answers]
        return np.unique(names, return_inverse=True)[1]

    def _notes(self, asking: Asking) -> list[str]:
        notes = []
        if self._peeking:
            notes.append("intervals hold at every moment (betting; normal mixture for cost), and are wider for it")
        if asking.owed and not self.early:
            notes.append(f"{asking.owed:,} questions were not asked: the budget had no room for their price bound")
        return notes
