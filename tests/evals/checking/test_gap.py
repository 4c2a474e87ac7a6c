"""The gap to the oracle: its parts add up to it, and a world with one cause shows that cause."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escalade.agents.climb import Decision, Policy, View
from escalade.agents.policies import Agreement, Constant, PromptLength, Threshold, pick
from escalade.evals._rows import evidence_of
from escalade.evals.checking.gap import Gap, gap_of, gaps, gaps_table
from escalade.evals.compare import compare
from escalade.evals.findings import findings
from escalade.evals.lineup import Entry, Lineup
from escalade.evals.outcomes import Outcomes
from tests.evals._tables import outcomes as any_outcomes
from tests.evals._tables import table

N = 2_000


def apart(outcomes: Outcomes, policy: Policy) -> Gap | None:
    """The gap of this policy, against the strongest rung."""
    lineup = Lineup(outcomes)
    entries = [Entry("mine", policy), lineup.entry(outcomes.rungs[-1].name)]
    evidence = evidence_of(entries, entries[1], lineup, 5)
    return gap_of(evidence, entries[0])


def world(low: np.ndarray, high: np.ndarray, sure: np.ndarray, chars: np.ndarray | None = None) -> Outcomes:
    """Two rungs that cost 1 and 9: quality of both, the confidence of the low one, and what is known beforehand."""
    confidence = np.stack([sure, np.ones(len(sure))], axis=1)
    return table(
        quality=np.stack([low, high], axis=1).tolist(),
        confidence=confidence.tolist(),
        cost=[1, 9],
        chars=None if chars is None else chars.tolist(),
    )


def dominant(gap: Gap | None, part: str) -> None:
    """This part is most of the gap, and all parts add up to it."""
    assert gap is not None
    assert sum(gap.parts) == pytest.approx(gap.gap, abs=1e-12)
    assert gap.oracle - gap.quality == pytest.approx(gap.gap, abs=1e-12)
    assert getattr(gap, part) > 0.7 * gap.gap > 0.04


def test_unpredictable() -> None:
    """The low rung fails at random, and its confidence says nothing of it."""
    rng = np.random.default_rng(0)
    low = (rng.random(N) < 0.5).astype(float)
    dominant(apart(world(low, np.ones(N), rng.random(N)), Threshold(0.5)), "unpredictable")


def test_misranked() -> None:
    """The confidence is the wrong way round: all that is needed is known, and the order is the reverse of it."""
    rng = np.random.default_rng(1)
    sure = rng.random(N)
    dominant(apart(world((sure < 0.5).astype(float), np.ones(N), sure), Threshold(0.5)), "misranked")


def test_misranked_by_looking_elsewhere() -> None:
    """Long prompts need the strong rung, and the policy looks at a confidence that says nothing."""
    rng = np.random.default_rng(2)
    chars = rng.integers(1, 1_000, N)
    gap = apart(world((chars < 500).astype(float), np.ones(N), rng.random(N), chars), Threshold(0.5))
    dominant(gap, "misranked")


def test_miscalibrated() -> None:
    """Below a half the strong rung is right, above it the cheap one is; the policy escalates far too much."""
    sure = np.random.default_rng(3).random(N)
    low = (sure >= 0.5).astype(float)
    dominant(apart(world(low, 1 - low, sure), Threshold(0.95)), "miscalibrated")


def test_over_budget() -> None:
    """A perfect order and a strong rung that is always right, but a tenth of the money that it takes."""
    sure = np.random.default_rng(4).random(N)
    dominant(apart(world((sure > 0.6).astype(float), np.ones(N), sure), Threshold(0.06)), "over_budget")


def test_unused() -> None:
    """A third rung would be right where the other two aren't, and is never asked."""
    rng = np.random.default_rng(5)
    sure = rng.random(N)
    low, hard = (sure > 0.5).astype(float), rng.random(N) < 0.4
    low[hard] = 0.0
    quality = np.stack([low, np.where(hard, 0.0, 1.0), np.ones(N)], axis=1)
    confidence = np.stack([sure, sure, sure], axis=1)
    outcomes = table(quality=quality.tolist(), confidence=confidence.tolist(), cost=[1, 9, 50])
    dominant(apart(outcomes, Threshold(0.5, (0, 1))), "unused")


def test_measurement() -> None:
    """The policy is right, and its labels are not: the second grading says so."""
    rng = np.random.default_rng(6)
    sure = rng.random(N)
    low = (sure > 0.5).astype(float)
    truth = world(low, np.ones(N), sure)
    recorded = truth.quality.copy()
    wrong = rng.random(N) < 0.3
    recorded[wrong & (low == 0), 0], recorded[wrong & (low == 0), 1] = 1.0, 0.0
    outcomes = replace(truth, quality=recorded, gradings={"recorded": recorded, "again": truth.quality})
    gap = apart(outcomes, Threshold(0.5))
    dominant(gap, "measurement")
    assert gap is not None
    assert gap.labels == "recorded"
    plain = apart(replace(outcomes, gradings={}), Threshold(0.5))
    assert plain is not None
    assert plain.measurement is None
    assert plain.gap == pytest.approx(gap.gap)


def test_a_router_without_answers_in_view() -> None:
    """A router that asks one rung alone is taken apart like a cascade."""
    rng = np.random.default_rng(7)
    chars = rng.integers(1, 1_000, N)
    outcomes = world((chars < 500).astype(float), np.ones(N), rng.random(N), chars)
    gap = apart(outcomes, PromptLength(500, 0, 1))
    assert gap is not None
    assert gap.gap == pytest.approx(0)
    late = apart(outcomes, PromptLength(800, 0, 1))
    dominant(late, "over_budget")


@dataclass(frozen=True)
class Odd:
    """Goes where a hash of the key says, to one of all rungs."""

    name: str = "odd"

    def decide(self, view: View) -> Decision:
        return pick(view, sum(view.key.encode()) % len(view.rungs), "")


@given(any_outcomes(), st.sampled_from([Threshold(0.5), Threshold(0.9), Agreement((0,), 1), Odd()]))
@settings(max_examples=60, deadline=None)
def test_parts_add_up(outcomes: Outcomes, policy: Policy) -> None:
    """Whatever the table and the policy: the parts add up, and those that can't be negative aren't."""
    if outcomes.k < 2 or not outcomes.n or not outcomes.whole:
        return
    gap = apart(outcomes, policy)
    if gap is None:
        return
    assert sum(gap.parts) == pytest.approx(gap.gap, abs=1e-9)
    assert min(gap.unused, gap.over_budget, gap.unpredictable, gap.miscalibrated) >= -1e-9


def test_the_table_of_the_data_that_ships() -> None:
    """Policies that choose are in it, constants and mixes aren't; its columns add up, and the second grading counts."""
    found = compare(None, ["threshold-0.99", "agreement-3", "random-0.3", "gpt-4-1106"], baselines=False)
    [shown] = findings(found, only=["gap"]).tables
    names = [row["name"] for row in shown.rows]
    assert {"threshold-0.99", "agreement-3"} <= set(names)
    assert not {"random-0.3", "gpt-4-1106", "oracle"} & set(names)
    for row in shown.rows:
        parts = ("unpredictable", "misranked", "miscalibrated", "over_budget", "unused", "measurement")
        assert sum(row[part] for part in parts) == pytest.approx(row["gap"])
    assert shown.notes == ("all parts but measurement are by 'regraded', of the same answers",)


def test_nothing_to_take_apart() -> None:
    """Constants alone make no table."""
    outcomes = table(quality=[[0.0, 1.0]] * 10)
    lineup = Lineup(outcomes)
    entries = [Entry("r0", Constant(0)), Entry("r1", Constant(1))]
    evidence = evidence_of(entries, entries[1], lineup, 5)
    assert gaps(evidence) == ()
    assert gaps_table(evidence) is None
