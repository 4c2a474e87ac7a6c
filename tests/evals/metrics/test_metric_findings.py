"""All metrics of a comparison: against random mixes, by dollars, as tables and in words."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from escalade.agents.policies import Threshold
from escalade.evals.compare import Comparison, compare
from escalade.evals.curves import Sweep
from escalade.evals.findings import Findings, findings
from escalade.evals.loaders import load_outcomes
from escalade.evals.metrics.matched import at_equal, matched
from escalade.evals.metrics.plane import hull
from escalade.evals.metrics.policies import by_category, policy_figures
from escalade.evals.metrics.scores import equal, families, in_dollars
from tests.evals._tables import table

NAMES = ["threshold-0.99", "agreement-3", "agreement-3+budget", "prompt-length"]


@pytest.fixture(scope="module")
def compared() -> Comparison:
    """Some policies on 400 questions of the data that ships, in two categories."""
    some = load_outcomes(limit=400)
    longer = some.features["prompt_chars"] > 250
    category = tuple(np.where(longer, "long", "short").tolist())
    return compare(replace(some, category=category, gradings={}), NAMES)


@pytest.fixture(scope="module")
def found(compared) -> Findings:
    return findings(compared, only=["metrics"])


def test_tables(found) -> None:
    """Policies, curves, confidence, reliability, budgets and categories; all of it is JSON."""
    assert [t.name for t in found.tables] == [
        "policies",
        "curves",
        "confidence",
        "reliability",
        "budgets",
        "categories",
    ]
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["tables"]["policies"]["rows"]
    for one in found.tables:
        assert all(len(column.about) > 5 for column in one.columns)


def test_policies_agree_with_the_comparison(found, compared) -> None:
    """Quality and list price are those of the rows; nothing is reckoned in two ways."""
    for row in found.table("policies").rows:
        other = compared.row(row["name"])
        assert row["quality"] == pytest.approx(other.quality)
        assert row["quality_low"] == pytest.approx(other.quality_low)
        assert row["usd"] == pytest.approx(other.cost_per_1k_usd)
        assert row["usd_spent"] is None
        if other.beats_random is not None:
            assert (row["over_random_low"] > 0) == other.beats_random


def test_nobody_passes_the_oracle_at_his_cost(found) -> None:
    """The bound at its own cost is at least the quality of each policy."""
    for row in found.table("policies").rows:
        assert row["quality"] <= row["oracle"] + 1e-9


def test_constants_are_on_or_under_their_hull(found, compared) -> None:
    """The hull of the constants is what they are held against: the strongest is on it, mixes aren't above it."""
    rows = {row["name"]: row for row in found.table("policies").rows}
    strongest = rows["gpt-4-1106"]
    assert strongest["over_hull"] == pytest.approx(0)
    assert strongest["delta_ibc"] == pytest.approx(0)
    for name in compared.yardsticks:
        if name.startswith(("qwen", "mixtral", "random@")):
            assert rows[name]["over_hull"] <= 1e-9
    assert rows["agreement-3"]["over_hull_low"] > 0


def test_mixes_are_half(found) -> None:
    """A random mix has APGR .5, and in dollars the mean of its ends; the oracle's score is the best of all."""
    rows = {row["name"]: row for row in found.table("curves").rows}
    mix = next(row for name, row in rows.items() if name.startswith("random@"))
    assert mix["apgr"] == pytest.approx(0.5)
    assert mix["auc"] == pytest.approx(mix["aiq"])
    assert all(row["aiq"] >= row["auc"] - 1e-9 for row in rows.values())
    assert all(row["aiq"] <= rows["oracle"]["aiq"] + 1e-9 for row in rows.values())
    assert mix["at_quality"] == pytest.approx(1)
    assert not [name for name in rows if name.startswith("oracle@")]


def test_in_dollars_by_hand() -> None:
    """Two questions: nothing escalated, the first, both. A cascade pays both rungs, a router one."""
    score, weak, strong = np.array([0.9, 0.1]), np.array([0.0, 0.0]), np.array([1.0, 1.0])
    cascade = Sweep(score, weak, strong, ("a", "b"), np.array([1.0, 1.0]), np.array([11.0, 21.0]))
    cost, quality = in_dollars(cascade)
    assert cost.tolist() == [1, 6, 16]
    assert quality.tolist() == [0, 0.5, 1]
    cost, quality = in_dollars(cascade, np.array([1.0, 3.0]))
    assert cost.tolist() == [1, 3.5, 18.5]
    assert quality.tolist() == [0, 0.25, 1]
    assert np.isnan(in_dollars(Sweep(score, weak, strong))[0]).all()


def test_equal_by_hand() -> None:
    """On the way from (1, 0) over (6, .5) to (16, 1): half of the second step is at 11; beyond is nothing."""
    curve = np.array([1.0, 6.0, 16.0]), np.array([0.0, 0.5, 1.0])
    assert equal(curve, 11.0, 0.6) == (pytest.approx(0.15), pytest.approx(8 / 11))
    assert equal(curve, 32.0, 1.0) == (pytest.approx(0), pytest.approx(0.5))
    assert math.isnan(equal(curve, 0.5, 0.6)[0])
    assert math.isnan(equal(curve, 11.0, 1.1)[1])
    assert equal(curve, 2.0, -1.0)[1] == pytest.approx(0.5)


def test_at_equal_by_hand() -> None:
    """Constants at (1, .2) and (5, .6): at 3 the mix has .4, and .5 costs 4."""
    corners = hull([1, 5], [0.2, 0.6])
    over, ratio = at_equal(np.array([3.0, 3.0, 2.0]), np.array([0.5, 0.7, 0.2]), corners)
    assert over == pytest.approx([0.1, 0.3, -0.1])
    assert ratio == pytest.approx([0.75, math.nan, 2.0], nan_ok=True)


def test_matched_is_at_equal_with_intervals(compared) -> None:
    """The values are those on the questions as they are; intervals hold them, and the seed decides the rest."""
    one, two = (matched(compared.evidence, reps=200) for _ in range(2))
    assert str(one) == str(two)
    rungs = [compared.row(rung.name) for rung in compared.evidence.outcomes.rungs]
    corners = hull([row.cost_per_1k_usd for row in rungs], [row.quality for row in rungs])
    for each in one:
        row = compared.row(each.name)
        over, ratio = at_equal(row.cost_per_1k_usd, row.quality, corners)
        assert each.quality.value == pytest.approx(over)
        assert each.cost.value == pytest.approx(ratio, nan_ok=True)
        assert each.quality.low - 1e-9 <= over <= each.quality.high + 1e-9


def test_intervals_of_equal_cost_hold_the_truth() -> None:
    """In 60 simulated studies whose truth is known, about 95 % of the intervals hold it: 52 at least."""
    rng, held = np.random.default_rng(5), 0
    truth = (0.5 + 0.9) / 2 - (0.5 + (6 - 1) / 9 * 0.4)  # half escalates at random and pays both: $6; the hull has .722
    for _ in range(60):
        n = 200
        right = np.column_stack([rng.random(n) < 0.5, rng.random(n) < 0.9]).astype(float)
        sure = np.column_stack([rng.random(n), np.ones(n)])
        some = table(quality=right.tolist(), confidence=sure.tolist(), cost=[[1, 10]] * n)
        one = matched(compare(some, [Threshold(0.5, (0, 1), "mine")], baselines=False).evidence, reps=300)[0]
        held += one.quality.low <= truth <= one.quality.high
    assert held >= 52


def test_says_who_does_not_beat_chance() -> None:
    """A policy that isn't better than a random mix at its cost is told in words, with the figures; a good one isn't."""
    rng = np.random.default_rng(0)
    right = np.column_stack([rng.random(300) < 0.5, np.ones(300)])
    some = table(
        quality=right.tolist(), cost=[[1, 10]] * 300, confidence=np.column_stack([right[:, 0], right[:, 1]]).tolist()
    )
    noise = replace(some, confidence=np.column_stack([rng.random(300), np.ones(300)]))
    blind = findings(compare(noise, [Threshold(0.5, (0, 1), "blind")]), only=["metrics"])
    (told,) = [sentence for sentence in blind.sentences if sentence.startswith("blind ")]
    assert "a random mix of r0 and r1 at the same cost" in told
    assert "points [" in told
    assert "per 1,000 questions" in told
    seeing = findings(compare(some, [Threshold(0.5, (0, 1), "seeing")]), only=["metrics"])
    assert not [sentence for sentence in seeing.sentences if sentence.startswith("seeing ")]


def test_categories(compared, found) -> None:
    """Every policy in every category, the larger one first; together they are the whole."""
    rows = by_category(compared.evidence)
    assert len(rows) == 2 * len(compared.rows)
    mine = [row for row in rows if row.policy == "agreement-3"]
    whole = sum(row.n * row.quality for row in mine) / sum(row.n for row in mine)
    assert whole == pytest.approx(compared.row("agreement-3").quality)
    assert mine[0].n >= mine[1].n
    assert all(row.diff == 0 for row in rows if row.policy == "gpt-4-1106")
    assert "adjusted" in found.table("categories").notes[0]


def test_epochs_count_as_one_question() -> None:
    """Rows of one question weigh as one: twice the same rows give the same figures."""
    once = table(
        quality=[[0, 1], [1, 1], [0, 0], [1, 0]] * 5, confidence=[[0.3, 1], [0.9, 1]] * 10, cost=[[1, 10]] * 20
    )
    keys = tuple(f"q{i}" for i in range(20))
    twice = table(
        quality=np.repeat(once.quality, 2, axis=0).tolist(),
        confidence=np.repeat(once.confidence, 2, axis=0).tolist(),
        cost=[[1, 10]] * 40,
        keys=[key for key in keys for _ in range(2)],
    )
    policy = Threshold(0.5, (0, 1), "mine")
    one, two = (compare(some, [policy], baselines=False).evidence for some in (once, twice))
    assert one is not None
    assert two is not None
    for a, b in zip(policy_figures(one, reps=50), policy_figures(two, reps=50), strict=True):
        assert (a.quality, a.usd, a.over_hull_low, a.oracle) == pytest.approx(
            (b.quality, b.usd, b.over_hull_low, b.oracle)
        )
    for x, y in zip(families(one, reps=50), families(two, reps=50), strict=True):
        assert (x.aiq, x.at_quality.low) == pytest.approx((y.aiq, y.at_quality.low), nan_ok=True)


def test_unknown_costs_stay_unknown() -> None:
    """Without prices all that needs dollars is unknown, and nothing is said of random mixes."""
    found = findings(compare(table(quality=[[0, 1], [1, 1], [0, 0]] * 10, cost=-1)), only=["metrics"])
    for row in found.table("policies").rows:
        for name in ("usd", "over_random", "over_hull", "oracle", "ibc", "arena", "cost_save", "usd_penalised"):
            assert row[name] is None
    assert found.sentences == ()


def test_money_spent_is_a_column() -> None:
    """After a cache the list price is the same and nothing was spent."""
    some = table(quality=[[0, 1]] * 12, cost=[[1, 10]] * 12)
    warm = replace(some, spent=np.zeros((12, 2), dtype=np.int64))
    row = next(r for r in findings(compare(warm, ["r1"]), only=["metrics"]).table("policies").rows if r["name"] == "r1")
    assert (row["usd"], row["usd_spent"]) == (pytest.approx(1e-5), 0)
