"""`escalade confirm`, and `escalade compare --live`: does a policy come to live what its replay promised?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from escalade._cli_view import print_, print_json, printing
from escalade.errors import BadInput

if TYPE_CHECKING:
    from escalade.evals.compare import Comparison

OK, CHECK_FAILED, UNDECIDED = 0, 100, 101
"""Exit codes: the promise holds; it doesn't; the questions are too few to tell."""

LIVE = "runs/live"
"""Where answers are kept when neither the data nor anybody says where."""

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True)
class Live:
    """How a policy is run live.

    Parameters
    ----------
    program
        module:name of the Escalate that answers; that of the run directory by default. Its Python runs.
    examples
        What it is asked: a file of examples, dspy:NAME, module:name; that of the run directory by default.
    metric
        module:name of a function, or the name of a grader; that of the run directory by default.
    budget
        Dollars that the live runs of this policy may cost.
    sample
        So many questions, drawn by --seed; all by default.
    cost_margin
        How much more or less a cost may be and still be the same: 0.1 is a tenth.
    concurrency
        Questions at once.
    stop_early
        End as soon as quality is decided, by intervals that hold however often one looks.
    changed
        Go on though rungs aren't what was recorded: another model, prompt or setting under the same name.
    dir
        Keep the answers there, in live.jsonl, and go on with those that are there; the run directory by
        default, else runs/live.
    """

    program: str | None = None
    examples: str | None = None
    metric: str | None = None
    budget: str | None = None
    sample: int | None = None
    cost_margin: float = 0.1
    concurrency: int = 64
    stop_early: Flag = False
    changed: Flag = False
    dir: str | None = None


USUAL = Live()


def confirm(
    policy: str,
    data: str,
    *,
    live: Live = USUAL,
    margin: float = 0.02,
    seed: int = 0,
    folds: int = 5,
    json: Flag = False,
) -> int:
    """Run a policy live and say whether quality and cost lie in the interval of its replay: exit code 100 if not.

    Exit code 101 where the questions are too few to tell: fewer than 30, or an interval wider than the margin.

    Parameters
    ----------
    policy
        Its name, as in `escalade compare`.
    data
        What it was replayed on: a run directory, or PATH or LOADER:PATH.
    margin
        Difference in quality that is as good as none: 0.02 is two points.
    seed
        Of the sample and its order, of folds, and of random draws.
    folds
        What is fitted decides questions of a fold by what it learned on the others.
    json
        One JSON object instead of text.
    """
    from escalade.evals.compare import compare

    comparison = compare(data, [policy], margin=margin, seed=seed, folds=folds, baselines=False)
    return confirmed(policy, data, comparison, live, json=json)


def check(data: str | None, policy: str | None) -> tuple[str, str]:
    """Data and policy of `compare --live`, before anything is compared. Raises BadInput."""
    if data is None:
        raise BadInput("--live needs outcomes of a program that can be asked: --data with a run directory")
    if policy is None or "," in policy:
        raise BadInput("--live runs one policy: name it, as in --policy threshold-0.8")
    return data, policy


def compared_live(data: str | None, comparison: Comparison, policy: str | None, live: Live, *, json: bool) -> int:
    """`escalade compare --live`: the table, and the policy live."""
    data, policy = check(data, policy)
    if not json:
        from escalade._cli_reports import said

        said(comparison)
        print_("")
    return confirmed(policy, data, comparison, live, json=json)


def confirmed(policy: str, data: str, comparison: Comparison, live: Live, *, json: bool = False) -> int:
    """Run it live, and show what that says: the exit code. Raises BadInput and its kin."""
    from escalade.evals.studies.again import opened_again
    from escalade.evals.studies.live import confirm as run
    from escalade.evals.studies.rundir import is_run

    path = data.removeprefix("run:")
    where = path if is_run(path) else None
    made = opened_again(where, program=live.program, data=live.examples, metric=live.metric)
    done = run(
        policy,
        made.program,
        made.examples,
        made.metric,
        comparison,
        sample=live.sample,
        budget=live.budget,
        margin=comparison.margin,
        cost_margin=live.cost_margin,
        concurrency=live.concurrency,
        stop_early=live.stop_early,
        changed=live.changed,
        dir=live.dir or where or LIVE,
    )
    with printing():
        if json:
            print_json(done.to_json())
        else:
            done.show()
    return {True: OK, False: CHECK_FAILED, None: UNDECIDED}[done.holds]
