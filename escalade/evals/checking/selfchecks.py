"""All checks of a comparison: mistakes planted into its own data, which have to be found, and what has to be said.

    shuffled labels   nobody gains on labels that were shuffled, and hindsight, which cheats, is caught at it
    missing outcomes  a quality that isn't there is refused, never counted as zero
    own default       a router that predicts nothing scores as the constant that it is; who never escalates is told
    errors            a policy that raises has errors and the quality that follows
    judge             who graded, and how far he agrees with the reference

Each looks at a few hundred questions at most where it replays or fits anew: all of them together take less than a
second on the data that ships.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.climb import OK, Decision, View
from escalade.agents.policies import Constant, RandomMix, draw, pick
from escalade.errors import BadInput
from escalade.evals import statistics
from escalade.evals._codes import STATUSES
from escalade.evals._names import shortened
from escalade.evals._play import play
from escalade.evals.baselines import FittedBestSingle
from escalade.evals.check import Check
from escalade.evals.checking import agreeing
from escalade.evals.checking.failing import failures_table
from escalade.evals.checking.shuffling import Shuffled, alarmed, planted, sample, shuffled_gains, unfitted
from escalade.evals.lineup import Entry
from escalade.evals.replay import replay
from escalade.evals.tables import Column, Table

if TYPE_CHECKING:
    from escalade.evals.evidence import Evidence

__all__ = ["checks", "same_as", "selfchecks"]

SUSPICIOUS = 0.01
"""Below this p value, times the number of policies, nobody says that a policy gains nothing on shuffled labels."""


def checks(evidence: Evidence) -> Sequence[Table | Check | str]:
    """What this room finds: tables "shuffled", "failures" and "graders", the checks, and sentences."""
    found = shuffled_gains(evidence)
    graders = agreeing.agreements_table(evidence.outcomes, seed=evidence.seed)
    tables = [failures_table(evidence), *([_shuffled_table(found)] if found else []), *([graders] if graders else [])]
    return [*tables, *_checks(evidence, found), *_said(evidence)]


def selfchecks(evidence: Evidence) -> tuple[Check, ...]:
    """The checks alone."""
    return tuple(_checks(evidence, shuffled_gains(evidence)))


def same_as(evidence: Evidence, name: str) -> str | None:
    """The rung that a policy always tries and answers with, nothing else; None where it chooses."""
    one = evidence.played[name].replayed
    if one is None or not one.n or len(np.unique(one.chosen)) > 1 or one.chosen[0] < 0:
        return None
    alone = (one.tried.sum(axis=1) == 1).all()
    return evidence.outcomes.rungs[int(one.chosen[0])].name if alone else None


def _checks(evidence: Evidence, found: tuple[Shuffled, ...]) -> Iterator[Check]:
    outcomes = evidence.outcomes
    yield _shuffled(evidence, found)
    yield _missing(evidence)
    yield _default(evidence)
    yield _raising(evidence)
    judge = agreeing.judge_check(outcomes, seed=evidence.seed)
    if judge is not None:
        yield judge


def _said(evidence: Evidence) -> Iterator[str]:
    n, quality = evidence.outcomes.n, evidence.outcomes.quality
    if (quality == quality.flat[0]).all():
        yield f"Every answer of every rung has the quality {quality.flat[0]:g}: look at the metric before the policies."
    for name, played in evidence.played.items():
        if played.replayed is not None and played.replayed.raised is not None:
            times = int(played.replayed.raised.sum())
            first = played.replayed.error
            yield f"{name} raised on {times:,} of {n:,} questions, which count as errors; first {first}."
    for entry in evidence.entries:
        rung = None if isinstance(entry.play, Constant | FittedBestSingle) else same_as(evidence, entry.name)
        if rung is not None and entry.play is not None:
            last = rung == evidence.outcomes.rungs[-1].name
            how = "always escalates" if last else "never escalates"
            alone = shortened(rung, [one.name for one in evidence.outcomes.rungs])
            yield f"{entry.name} {how}: on all {n:,} questions it is {alone} alone."
    yield from agreeing.said(agreeing.changed(evidence))


# ----------------------------------------------------------------------------------------------------- shuffled labels


def _shuffled(evidence: Evidence, found: tuple[Shuffled, ...]) -> Check:
    name = "shuffled labels"
    if not found:
        return Check(name, None, "no policy here chooses between rungs, so that none could gain on shuffled labels")
    bad = alarmed(found)
    if bad:
        told = "; ".join(_alarm(one) for one in bad)
        return Check(name, False, f"the evaluation leaks: {told}", tuple(one.name for one in bad))
    cheat = planted(evidence.outcomes, evidence.seed)
    most = max(found, key=lambda one: one.shuffled_gain)
    said = (
        f"{len(found)} policies gain nothing on shuffled labels (at most {100 * most.shuffled_gain:+.1f} points, "
        f"p = {most.shuffled_p:.2g}, {most.name}, {most.n} questions)"
    )
    if beyond := unfitted(evidence, found):
        said += f"; not {', '.join(beyond)}, which can't be fitted to half of them"
    odd = min(found, key=lambda one: 1.0 if math.isnan(one.shuffled_p) else one.shuffled_p)
    if odd.shuffled_p * len(found) < SUSPICIOUS:
        return Check(name, None, f"{_alarm(odd)}: luck has it so once in {1 / odd.shuffled_p:,.0f} times; "
                                 f"compare with another seed, or on more questions")  # fmt: skip
    if not cheat.p < 1e-4:  # too few questions, or labels that are all the same
        return Check(name, None, f"{said}; but hindsight doesn't either: this data can't tell")
    return Check(
        name, True, f"{said}; hindsight, planted as a cheat, gains {100 * cheat.points:+.1f} (z = {cheat.z:.0f})"
    )


def _alarm(one: Shuffled) -> str:
    if one.blind is False:
        return f"{one.name} decides otherwise when labels are shuffled, which it must not see"
    return f"{one.name} gains {100 * one.shuffled_gain:+.1f} points on shuffled labels (p = {one.shuffled_p:.1g})"


def _shuffled_table(found: tuple[Shuffled, ...]) -> Table:
    return Table.of(
        "shuffled",
        "What policies know of the questions",
        (
            Column("name", "policy", "text", "The policy."),
            Column(
                "gain",
                "gain",
                "points",
                "Quality above a random mix of the same rungs, as often as it answers with each.",
            ),
            Column(
                "p",
                "p",
                "p",
                "Chance of it if nothing was known, over all shuffles (Hoeffding 1951); epochs count as questions.",
            ),
            Column(
                "shuffled_gain",
                "shuffled",
                "points",
                "The same on labels of other questions, fitted anew: has to be nothing.",
            ),
            Column("shuffled_p", "p", "p", "Chance of that gain on shuffled labels."),
            Column("n", "questions", "count", "Questions with shuffled labels."),
        ),
        found,
        about="Does a policy know which question needs which rung? On shuffled labels none may seem to.",
    )


# ---------------------------------------------------------------------------------------------------- planted mistakes


def _missing(evidence: Evidence) -> Check:
    """An outcome is taken away from a copy: what comes of it must be refused."""
    name, outcomes = "missing outcomes", evidence.outcomes
    used = sum(int(np.isnan(played.quality).sum()) for played in evidence.played.values())
    if used:
        return Check(name, False, f"{used:,} qualities that nobody knows were compared all the same")
    part = sample(outcomes, evidence.seed)
    good = np.flatnonzero(part.status[:, -1] == STATUSES.index(OK)) if part.n else np.arange(0)
    if not len(good):
        return Check(name, None, "no answer of the strongest rung that could be taken away")
    quality = part.quality.copy()
    quality[good[0], -1] = np.nan
    try:
        statistics.mean_interval(replay(Constant(part.k - 1), replace(part, quality=quality)).quality)
    except BadInput:
        asked = int((~np.isnan(outcomes.quality)).sum())
        there = "all" if asked == outcomes.quality.size else f"{asked:,} of"
        said = f"{there} {outcomes.quality.size:,} are there; one that was taken away is refused, not a zero"
        return Check(name, True, said)
    return Check(name, False, "a quality that was taken away was counted as a figure")


@dataclass(frozen=True)
class _Silent:
    """A router that predicts nothing: what is left of it is its default."""

    rung: int
    name: str = "predicts nothing"

    def decide(self, view: View) -> Decision:
        return pick(view, self.rung, "")


def _default(evidence: Evidence) -> Check:
    """A router without predictions is the constant, and no better: by the loop, by columns, and as a mix."""
    outcomes, lineup = evidence.outcomes, evidence.lineup
    part = sample(outcomes, evidence.seed)
    if not part.n:
        return Check("own default", None, "no question of which every rung is known")
    alone = replay(Constant(lineup.strong), part)
    silent = replay(_Silent(lineup.strong), part)
    mixed = play(Entry("mix", RandomMix(1.0, lineup.cheap, lineup.strong)), part, 2, evidence.seed)
    same = all(
        np.array_equal(getattr(alone, column), getattr(silent, column), equal_nan=True)
        for column in ("chosen", "tried", "cost", "quality", "latency", "errors")
    )
    same = same and bool(np.allclose(mixed.quality, alone.quality)) and mixed.errors == int(alone.errors.sum())
    rung, quality = shortened(outcomes.rungs[lineup.strong].name), alone.quality.mean()
    if not same:
        return Check(
            "own default", False, f"a router that predicts nothing doesn't score as {rung}, which it always takes"
        )
    told = (
        f"a router that predicts nothing scores as {rung} does, {quality:.1%} of {part.n} questions, at the same cost"
    )
    return Check("own default", True, told)


@dataclass(frozen=True)
class _Raising:
    """Raises on about half of the questions."""

    rung: int
    seed: int
    name: str = "raises on half"

    def decide(self, view: View) -> Decision:
        if draw(self.seed, view.key) < 0.5:
            raise RuntimeError("on purpose")
        return pick(view, self.rung, "")


def _raising(evidence: Evidence) -> Check:
    """A policy that raises has that many errors, and no more quality than what it answered."""
    outcomes, strong = evidence.outcomes, evidence.lineup.strong
    part = sample(outcomes, evidence.seed)
    if not part.n:
        return Check("errors", None, "no question of which every rung is known")
    alone, one = replay(Constant(strong), part), replay(_Raising(strong, evidence.seed), part)
    raises = np.array([draw(evidence.seed, key) < 0.5 for key in part.keys])
    expected = np.where(raises, 0.0, alone.quality)
    held = np.array_equal(one.errors, raises | alone.errors) and np.array_equal(one.quality, expected)
    how = "has" if held else "should have"
    said = (
        f"a policy that raises on {raises.mean():.1%} of {part.n} questions {how} {(raises | alone.errors).mean():.1%} "
    )
    return Check(
        "errors", bool(held), f"{said}errors, and {expected.mean():.1%} quality instead of {alone.quality.mean():.1%}"
    )
