"""RouteLLM's metrics on the exact curve, and the Pareto frontier."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.agents.policies import Agreement, Budgeted, Constant, PromptLength, RandomMix, Threshold
from escalade.errors import BadInput
from escalade.evals.curves import apgr, cpt, curve, frontier, pgr, sweep_of
from escalade.evals.outcomes import NO_ANSWER
from escalade.evals.replay import FittedPromptLength, FittedThreshold, MatchedRandom, replay
from tests.evals._tables import outcomes, table

GSM8K = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "gsm8k_ladder"
WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"

QUESTIONS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 1.0])),
    min_size=1,
    max_size=30,
)


def columns(questions: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    score, weak, strong = np.array(questions, dtype=np.float64).T
    return score, weak, strong


# ----------------------------------------------------------------------------------------------------------- by hand


def test_the_curve_has_one_point_per_distinct_score() -> None:
    """From all weak to all strong; questions with equal scores cross together."""
    fraction, quality = curve([0.9, 0.5, 0.5, 0.1], [0, 0, 1, 1], [1, 1, 1, 1])
    assert fraction.tolist() == [0.0, 0.25, 0.75, 1.0]
    assert quality.tolist() == [0.5, 0.75, 1.0, 1.0]


def test_an_unknown_score_goes_first() -> None:
    """A question that can't be scored is escalated before all others."""
    assert curve([0.9, np.nan], [0, 0], [0, 1])[1].tolist() == [0.0, 0.5, 0.5]


def test_metrics_by_hand() -> None:
    """Two of four questions need the strong model: the oracle order has APGR 0.75 and gets there on the way."""
    score, weak, strong = [4, 3, 2, 1], [0, 0, 1, 1], [1, 1, 1, 1]
    assert apgr(score, weak, strong) == pytest.approx(0.75)
    assert cpt(score, weak, strong, 0.5) == pytest.approx(0.25)
    assert cpt(score, weak, strong, 0.8) == pytest.approx(0.4)
    assert cpt(score, weak, strong, 1.0) == pytest.approx(0.5)
    assert pgr([0.5, 0.75, 1.0], 0.5, 1.0).tolist() == [0.0, 0.5, 1.0]


def test_cpt_is_the_first_crossing() -> None:
    """On a curve that rises and falls again, the first point counts."""
    assert cpt([4, 3, 2, 1], [0, 1, 1, 0], [1, 0, 1, 1], 0.5) == pytest.approx(0.125)


def test_cpt_that_is_never_reached() -> None:
    """More than the curve ever gives: None, not 1."""
    assert cpt([2, 1], [0, 0], [1, 1], 1.1) is None


def test_without_a_gap_there_is_no_metric() -> None:
    """A strong model that isn't better leaves nothing to recover."""
    for strong in ([1, 0], [0, 0]):
        assert apgr([2, 1], [1, 0], strong) is None
        assert cpt([2, 1], [1, 0], strong) is None


def test_columns_must_match() -> None:
    """Different lengths, empty columns and tables are refused."""
    for bad in (([1], [0, 0], [1, 1]), ([], [], []), ([[1]], [[0]], [[1]])):
        with pytest.raises(BadInput):
            apgr(*bad)


# --------------------------------------------------------------------------------------------------------- properties


@given(QUESTIONS)
def test_a_score_without_information_is_the_diagonal(questions: list) -> None:
    """All scores equal: one straight line, APGR 0.5 exactly, CPT(x) = x."""
    _, weak, strong = columns(questions)
    if strong.mean() > weak.mean():
        assert apgr(np.zeros(len(weak)), weak, strong) == pytest.approx(0.5)
        assert cpt(np.zeros(len(weak)), weak, strong, 0.8) == pytest.approx(0.8)


@given(QUESTIONS)
def test_a_reversed_score_is_the_mirror(questions: list) -> None:
    """APGR of a score and of its negation add up to 1."""
    score, weak, strong = columns(questions)
    one, other = apgr(score, weak, strong), apgr(-score, weak, strong)
    assert (one is None and other is None) or one + other == pytest.approx(1.0)


@given(QUESTIONS, st.integers(0, 1000))
def test_no_router_beats_the_oracle(questions: list, seed: int) -> None:
    """The order of strong - weak has the largest APGR, and any CPT at least as early."""
    score, weak, strong = columns(questions)
    shuffled = np.random.default_rng(seed).permutation(len(score))
    for router in (score, shuffled):
        if (best := apgr(strong - weak, weak, strong)) is not None:
            assert apgr(router, weak, strong) <= best + 1e-12
            assert cpt(strong - weak, weak, strong) <= cpt(router, weak, strong) + 1e-12


@given(QUESTIONS)
def test_ties_are_their_expectation(questions: list) -> None:
    """The curve with ties is the mean of the curves over random orders of the ties."""
    score, weak, strong = columns(questions)
    rng = np.random.default_rng(0)
    if (exact := apgr(score, weak, strong)) is not None and len(score) > 3:
        broken = [apgr(score + rng.random(len(score)) * 1e-3, weak, strong) for _ in range(400)]
        assert np.mean(broken) == pytest.approx(exact, abs=6 * np.std(broken) / 20 + 1e-6)


# ----------------------------------------------------------------------------------------------------------- real data


@pytest.fixture(scope="module")
def gsm8k() -> dict[str, np.ndarray]:
    """RouteLLM's GSM8K pair after its contaminated questions: prompt lengths, recorded and re-graded labels."""
    if not GSM8K.is_dir():
        pytest.skip("needs ../shared/data/gsm8k_ladder, which doesn't ship with the project")
    with (GSM8K / "contaminated_prompts.jsonl").open(encoding="utf-8") as lines:
        left_out = {json.loads(line)["eval_prompt"] for line in lines}
    with (GSM8K / "gsm8k_responses.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["prompt"] not in left_out]
    with (GSM8K / "gsm8k_regraded.csv").open(encoding="utf-8", newline="") as file:
        again = {row["prompt"]: row for row in csv.DictReader(file)}
    return {
        "chars": np.array([len(row["prompt"]) for row in rows]),
        "weak": np.array([row[WEAK] == "True" for row in rows]),
        "strong": np.array([row[STRONG] == "True" for row in rows]),
        "weak again": np.array([again[row["prompt"]]["weak_regraded"] == "True" for row in rows]),
        "strong again": np.array([again[row["prompt"]]["strong_regraded"] == "True" for row in rows]),
    }


def test_routellms_own_numbers(gsm8k: dict) -> None:
    """1,307 questions, 63.7 % against 85.8 %; prompt length .598, random .50, oracle 1.121."""
    chars, weak, strong = (gsm8k[name].astype(np.float64) for name in ("chars", "weak", "strong"))
    assert len(chars) == 1307
    assert (weak.mean(), strong.mean()) == pytest.approx((0.637, 0.858), abs=5e-4)
    assert apgr(chars, weak, strong) == pytest.approx(0.598, abs=0.001)
    assert cpt(chars, weak, strong, 0.5) == pytest.approx(0.366, abs=0.001)
    assert cpt(chars, weak, strong, 0.8) == pytest.approx(0.667, abs=0.001)
    assert apgr(strong - weak, weak, strong) == pytest.approx(1.121, abs=0.001)
    rng = np.random.default_rng(0)
    drawn = [apgr(rng.random(len(chars)), weak, strong) for _ in range(50)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.01)


def test_routellms_deciles_give_its_figures(gsm8k: dict) -> None:
    """On its 11 cut points, our curve gives the oracle's 1.115 that its own formula gives: the rest is the corners."""
    weak, strong = gsm8k["weak"].astype(np.float64), gsm8k["strong"].astype(np.float64)
    untied = strong - weak + np.random.default_rng(0).random(len(weak)) * 1e-6
    deciles = np.linspace(0, 1, 11)
    recovered = pgr(np.interp(deciles, *curve(untied, weak, strong)), weak.mean(), strong.mean())
    assert np.trapezoid(recovered, deciles) == pytest.approx(1.115, abs=0.001)


def test_regraded_labels(gsm8k: dict) -> None:
    """With the grader's error repaired, length is .555 and the oracle .885."""
    weak, strong = gsm8k["weak again"].astype(np.float64), gsm8k["strong again"].astype(np.float64)
    assert apgr(gsm8k["chars"], weak, strong) == pytest.approx(0.555, abs=0.001)
    assert apgr(strong - weak, weak, strong) == pytest.approx(0.885, abs=0.001)


# ------------------------------------------------------------------------------------------------------ of policies


DATA = table(
    quality=[[1, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1], [1, 1, 0, 1]],
    confidence=[[0.9, 1, 1, 1], [0.2, 1, 1, 1], [np.nan, 1, 1, 1], [1.0, 1, 1, 1]],
    answer=[[0, 1, 0, 0], [0, 1, 1, 2], [0, 1, 2, 3], [0, 0, NO_ANSWER, 0]],
    status=[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [3, 0, 0, 0]],
    chars=[10, 20, 30, 40],
)


def test_sweep_of_a_threshold_is_the_doubt_of_the_cheap_answer() -> None:
    """1 - confidence; unknown confidence and a failed attempt first, and a failed attempt has no quality."""
    for policy in (Threshold(0.8, (0, 3)), FittedThreshold((0, 3), 3)):
        sweep = sweep_of(policy, DATA)
        assert sweep.score == pytest.approx([0.1, 0.8, np.nan, np.nan], nan_ok=True)
        assert sweep.weak.tolist() == [1, 0, 0, 0]
        assert sweep.strong.tolist() == [1, 0, 1, 1]


def test_sweep_of_an_agreement_is_its_dissent() -> None:
    """Members that disagree with the largest group, whose last answer is the weak one; no vote without an answer."""
    sweep = sweep_of(Agreement((0, 1, 2), 3), DATA)
    assert sweep.score.tolist() == [1, 1, 2, 2]
    assert sweep.weak.tolist() == [1, 1, 0, 1]
    assert sweep.strong.tolist() == [1, 0, 1, 1]


def test_sweep_of_length_and_chance() -> None:
    """Length itself; chance at its expected value, a straight line; fitted ones have the score of what they fit."""
    length = sweep_of(PromptLength(0, 0, 3), DATA)
    assert (
        length.score.tolist()
        == sweep_of(FittedPromptLength(0, 3, at_share=0.5), DATA).score.tolist()
        == [10, 20, 30, 40]
    )
    for mix in (RandomMix(0.1, 0, 3, 7), MatchedRandom(0, 0, 3, 7)):
        chance = sweep_of(mix, DATA)
        if chance.apgr is not None:
            assert (chance.apgr, chance.cpt(0.5), chance.cpt(0.8)) == pytest.approx((0.5, 0.5, 0.8))
        assert chance.names == ("r0", "r3")
    assert (length.apgr, length.cpt(0.5)) == (
        apgr(length.score, length.weak, length.strong),
        cpt(length.score, length.weak, length.strong, 0.5),
    )


def test_policies_without_a_score() -> None:
    """One rung, more than two answers, and a budget have no single threshold to sweep."""
    for policy in (Constant(0), Threshold(0.8), Budgeted(PromptLength(9, 0, 3), None)):
        assert sweep_of(policy, DATA) is None


@given(outcomes(), st.integers(0, 10))
def test_a_policy_lies_on_its_curve(data, chars: int) -> None:
    """Prompt length at any cut has the quality that its curve has at its fraction of strong calls."""
    if data.n and data.k > 1:
        policy = PromptLength(chars, 0, 1)
        replayed = replay(policy, data)
        sweep = sweep_of(policy, data)
        quality = np.interp(replayed.calls[:, 1].mean(), *curve(sweep.score, sweep.weak, sweep.strong))
        assert replayed.quality.mean() == pytest.approx(quality)


# ----------------------------------------------------------------------------------------------------------- frontier


def test_frontier_by_hand() -> None:
    """Dominated points are off it; of the same quality only the cheapest, of equal points only the first is on it."""
    cost = [1, 2, 2, 3, 3, 4, 0.5, np.nan]
    quality = [0.5, 0.6, 0.7, 0.7, 0.65, 0.9, 0.5, 1.0]
    assert frontier(cost, quality).tolist() == [False, False, True, False, False, True, True, False]
    assert frontier([1, 1], [1, 1]).tolist() == [True, False]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_frontier_is_its_definition(points: list) -> None:
    """On it: exactly the points that no other one dominates, each value once."""
    cost, quality = np.array(points, dtype=np.float64).T

    def dominated(c: float, q: float) -> bool:
        return any((x <= c and y > q) or (x < c and y >= q) for x, y in points)

    expected = {p for p in points if not dominated(*p)}
    found = [p for p, on in zip(points, frontier(cost, quality), strict=True) if on]
    assert sorted(found) == sorted(expected)
