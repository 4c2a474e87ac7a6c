"""What has to be said with every comparison: on the data, on the ladder, on the policies, on the methods."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from escalade.agents.policies import Agreement, Threshold, rung_index
from escalade.evals._names import listed, shortened
from escalade.evals.learned import FittedAnswers, FittedBandit, FittedCascade, FittedGuaranteed
from escalade.evals.replay import FittedThreshold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from escalade.agents.climb import Policy
    from escalade.evals.lineup import Entry, Lineup
    from escalade.evals.outcomes import Outcomes
    from escalade.evals.replay import Fitted

WIDE_LADDER = 8
"""From so many rungs on, the cheapest few may not be the ones that anybody would ask."""

LEFT_OUT = ("left out", "dropped", "(--limit)", "(--rungs)")
"""By one of these is a note on excluded questions or rungs known."""


def version() -> str:
    """Of escalade. Its table of contents is the roof of the house: asked for at run time, not imported from below."""
    return str(getattr(sys.modules["escalade"], "__version__", "unknown"))


def method(margin: float) -> dict[str, str]:
    """The methods by name, and what the verdicts mean."""
    return {
        "quality": "95 % Wilson interval; where quality isn't 0 or 1, Student's t with Hall's transformation (1992)",
        "difference": "95 % interval of the paired difference (Agresti and Min 2005); Student's t where not 0 or 1",
        "better": "all of the interval lies above 0",
        "as good": f"no more than {100 * margin:g} points of the interval, and of Tango's bound (1998), lie below 0",
        "worse": "all of it lies below 0",
        "can't tell": "anything else",
        "too few": "fewer than 30 questions, or than 10 groups: no interval is trusted",
        "epochs and groups": "rows of a question are averaged; groups by cluster-robust errors (Bell, McCaffrey 2002)",
        "better_adjusted": "better by Holm's adjustment of one-sided tests for all compared policies at 2.5 %",
        "detectable": "true difference that is found with a power of 80 % by the paired difference's standard error",
    }


def said(margin: float) -> str:
    """The same in one note."""
    return (
        "intervals: Wilson for quality, Agresti-Min for paired differences (Student's t where quality isn't 0 or 1); "
        f'better, worse: the interval excludes 0; as good: it excludes -{100 * margin:g} points; else "can\'t tell"'
    )


def notes(lineup: Lineup, entries: list[Entry], folds: int, *, default: bool) -> tuple[str, ...]:
    """One line each, in the order in which they are printed."""
    return (
        *lineup.outcomes.notes,
        *_epochs(lineup.outcomes),
        *_of_policies(lineup, entries, folds, default=default),
        said(lineup.margin),
    )


def _epochs(outcomes: Outcomes) -> Iterator[str]:
    """That questions were asked more than once, or have something in common."""
    questions = len(set(outcomes.keys))
    if questions < outcomes.n:
        yield f"{outcomes.n / questions:.3g} rows a question: they are epochs; a question counts once, with their mean"
    if outcomes.group is not None:
        groups = len(set(outcomes.group))
        yield f"{questions:,} questions in {groups:,} groups: intervals are by group (cluster-robust, Student's t)"


def excluded(outcomes: Outcomes) -> tuple[str, ...]:
    """The notes on questions and rungs that the data has and the comparison hasn't."""
    return tuple(note for note in outcomes.notes if any(words in note for words in LEFT_OUT))


def enough(outcomes: Outcomes, folds: int) -> bool:
    """Are there questions enough to fit anything?"""
    return len(set(outcomes.keys)) >= folds


def _of_policies(lineup: Lineup, entries: list[Entry], folds: int, *, default: bool) -> Iterator[str]:
    ladders = list(_ladders(lineup, entries))
    if ladders:
        yield "asked first: " + "; ".join(ladders)
        if lineup.outcomes.k >= WIDE_LADDER:
            yield f"these are the first of {lineup.outcomes.k} rungs; choose a ladder of your own with --rungs A,B,C"
    if any(entry.mixed for entry in entries):
        every = [rung.name for rung in lineup.outcomes.rungs]
        cheap, strong = (shortened(every[rung], every) for rung in (lineup.cheap, lineup.strong))
        yield f"random: the expected value of a mix of {cheap} and {strong}, not one draw"
    bounds = [entry.name for entry in entries if entry.play is None and entry.name.startswith("oracle@")]
    if bounds:
        yield f"{listed(bounds)}: the most quality for that cost; what no rung answers right it leaves unanswered"
    if lineup.budgets is not None and any(entry.per_request is not None for entry in entries):
        limits = lineup.budgets
        yield f"+budget: at most {limits.per_request} a question and {limits.per_run} in all{limits.why}"
        yield f"budgets are spent in a random order of the questions (seed {lineup.seed}), not in that of the data"
    yield from _promises(entries)
    if any(entry.fitted for entry in entries):
        yield f"what is fitted is fitted on the other folds of {folds}, never on the questions it is judged on"
    elif default and not enough(lineup.outcomes, folds):
        yield f"fewer questions than the {folds} folds: policies that have to be fitted are left out"
    if not lineup.outcomes.priced and default:
        yield "policies that need prices (budgets, fitting, matched cost) are left out"


def _promises(entries: list[Entry]) -> Iterator[str]:
    """What learned policies were told: what answers are worth, how much may be lost."""
    for play in (entry.play for entry in entries):
        if isinstance(play, FittedCascade | FittedBandit):
            yield f"{play.name}: a right answer is taken to be worth ${play.worth:.3g}"
        if isinstance(play, FittedGuaranteed):
            yield f"{play.name}: loses at most {100 * play.epsilon:g} points, in {1 - play.delta:.0%} of calibrations"


def _ladders(lineup: Lineup, entries: list[Entry]) -> Iterator[str]:
    """Which rungs are asked before the strongest one, by the names of the policies that ask them."""
    rungs = lineup.outcomes.rungs
    asked: dict[tuple[int, ...], list[str]] = {}
    for entry in entries:
        refs = _before_last(entry.play)
        if refs and entry.per_request is None:
            asked.setdefault(tuple(rung_index(rungs, ref) for ref in refs), []).append(entry.name)
    for members, names in asked.items():
        yield f"{listed([rungs[r].name for r in members], [rung.name for rung in rungs])} by {listed(names)}"


def _before_last(play: Policy | Fitted | None) -> tuple[int | str, ...]:
    if isinstance(play, Agreement | FittedAnswers):
        return play.members
    return (play.ladder or ())[:-1] if isinstance(play, Threshold | FittedThreshold) else ()
