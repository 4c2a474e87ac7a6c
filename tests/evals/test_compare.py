"""The comparison: paired, honest about what is unknown, the same in every run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import escalade
from escalade.agents.policies import Agreement, Budgeted, Constant, RandomMix, Threshold
from escalade.errors import BadInput, UnknownName, UnknownPrice
from escalade.evals.compare import Comparison, compare
from escalade.evals.loaders import load_outcomes
from escalade.evals.outcomes import COLUMNS
from escalade.evals.replay import replay
from escalade.evals.statistics import better_p
from escalade.money import Money
from tests._house import ROOT
from tests.evals._tables import table

PAIR = ROOT.parent / "shared" / "data" / "gsm8k_ladder" / "gsm8k_responses.csv"
AGREEMENT = Agreement((0, 1, 2, 3), then=5)
KEYS = {
    *("name", "n", "quality", "quality_low", "quality_high", "cost_per_1k_usd", "diff", "diff_low", "diff_high"),
    *("verdict", "frontier", "errors", "budget_violations", "p95_latency_s", "apgr", "cpt50", "cpt80"),
}


@pytest.fixture(scope="module")
def ladder() -> Comparison:
    """The default comparison on the data that ships."""
    return compare()


def test_schema(ladder) -> None:
    """The JSON has the promised keys, and no value that JSON doesn't know."""
    found = json.loads(json.dumps(ladder.to_json(), allow_nan=False))
    assert found["dataset"] == {"name": "gsm8k-ladder", "n": 1319}
    assert (found["baseline"], found["labels"]) == ("gpt-4-1106", "recorded")
    for row in found["policies"]:
        assert set(row) >= KEYS
        assert row["n"] == 1319
        assert 0 <= row["quality_low"] <= row["quality"] <= row["quality_high"] <= 1
        assert row["diff_low"] <= row["diff"] <= row["diff_high"]
        unjudged = {"gpt-4-1106": "baseline", "oracle": "hindsight", "oracle@agreement-3": "hindsight"}
        assert row["verdict"] in {"better", "as good", "can't tell", "worse"} or row["name"] in unjudged
        assert unjudged.get(row["name"], row["verdict"]) == row["verdict"]
        assert row["p95_latency_s"] is None


def test_line_up(ladder) -> None:
    """Every rung, the oracle, random at matched cost, prompt length, thresholds, agreement, and budgeted variants."""
    names = {row.name for row in ladder.rows}
    assert len(names) == len(ladder.rows) >= 12
    assert {"qwen-1.5b@96", "gpt-4-1106", "oracle", "prompt-length", "threshold-0.8", "threshold-fitted"} <= names
    assert {"random@threshold-0.8", "random@agreement-3", "agreement-2", "agreement-3", "agreement-4"} <= names
    assert {"threshold-0.8+budget", "agreement-3+budget"} <= names


def test_sorted_by_quality(ladder) -> None:
    """Best first, and the oracle is best of all: no policy passes it."""
    qualities = [row.quality for row in ladder.rows]
    assert qualities == sorted(qualities, reverse=True)
    assert ladder.rows[0].hindsight


def test_frontier(ladder) -> None:
    """No row on the frontier is as dear and worse than another policy; the oracle is never on it."""
    real = [row for row in ladder.rows if not row.hindsight]
    for row in (row for row in real if row.frontier):
        assert not [o for o in real if o.quality > row.quality and o.cost_per_1k_usd <= row.cost_per_1k_usd]
    assert not ladder.row("oracle").frontier
    assert any(row.frontier for row in real)


def test_baseline_is_itself(ladder) -> None:
    """The baseline differs from itself by exactly nothing, at all of its cost."""
    base = ladder.row("gpt-4-1106")
    assert (base.diff, base.diff_low, base.diff_high, base.verdict, base.cost_ratio) == (0, 0, 0, "baseline", 1)


@pytest.mark.slow
def test_second_run_is_the_same(ladder) -> None:
    """The same seed gives the same bytes, another seed another order of spending."""
    assert json.dumps(compare().to_json()) == json.dumps(ladder.to_json())
    other = compare(seed=1)
    assert other.row("agreement-3+budget").quality != ladder.row("agreement-3+budget").quality
    assert other.row("agreement-3") == ladder.row("agreement-3")


def test_figures_of_the_ladder(ladder) -> None:
    """Agreement of three cheap answers is as good as GPT-4 on recorded labels, at about half the cost: as measured."""
    row = ladder.row("agreement-3")
    assert row.quality == pytest.approx(0.8726, abs=5e-5)
    assert row.cost_ratio == pytest.approx(0.537, abs=5e-4)
    assert (row.verdict, row.beats_random) == ("as good", True)
    assert ladder.cheapest_as_good is ladder.row("agreement-2")


def test_a_random_mix_is_nobodys_choice() -> None:
    """One that nearly always asks the strongest rung is as good, and cheaper; it isn't named as what to choose."""
    mixed = compare(load_outcomes(), ["random-0.95"], baselines=False)
    row = mixed.row("random-0.95")
    assert (row.verdict, row.cost_ratio < 1) == ("as good", True)
    assert mixed.cheapest_as_good is None


@pytest.mark.slow
def test_says_when_the_labels_decide(ladder) -> None:
    """Re-graded, what was as good as GPT-4 is worse: the comparison by recorded labels says so itself."""
    assert ladder.other_labels == "regraded"
    changed = {change.name: (change.verdict, change.other) for change in ladder.changed}
    assert changed["agreement-3"] == ("as good", "worse")
    regraded = compare(load_outcomes(labels="regraded"))
    assert regraded.row("agreement-3").verdict == "worse"
    assert {change.name for change in regraded.changed} == set(changed)


def test_budgets_are_kept(ladder) -> None:
    """No budgeted row violates its budget; unbudgeted rows have none to violate."""
    assert not [row.name for row in ladder.rows if row.budget_violations]
    tight = compare(policies=["agreement-3+budget"], per_request="0.001", per_run="0.02")
    row = tight.row("agreement-3+budget")
    assert row.budget_violations == 0
    assert row.cost_per_1k_usd * 1.319 <= 0.02


def test_violations_are_counted() -> None:
    """What costs more than its ceiling promised, and then than its budget, is a violation of it."""
    outcomes = table(quality=[[0, 1]] * 4, cost=[[5, 50]] * 4, ceiling=[[5, 10]] * 4)
    row = compare(outcomes, ["r1+budget"], per_request=Money(20), per_run=Money(165)).row("r1+budget")
    assert row.budget_violations == 4 + 1


def test_must_show_pair() -> None:
    """RouteLLM's pair, 1,307 questions: random .50, prompt length .598, oracle at least 1.11 APGR."""
    if not PAIR.exists():
        pytest.skip("the recorded answers aren't beside this checkout")
    comparison = compare(f"routellm:{PAIR}")
    assert comparison.n == 1307
    assert comparison.row("random").apgr == pytest.approx(0.5)
    assert (comparison.row("random").weak, comparison.row("random").strong) == tuple(
        rung["name"] for rung in comparison.settings["rungs"]
    )
    assert comparison.metrics
    assert comparison.row("prompt-length").apgr == pytest.approx(0.598, abs=0.01)
    assert comparison.row("oracle").apgr >= 1.11
    assert comparison.excluded == ("12 contaminated questions are left out",)


def test_unknown_costs_stay_unknown() -> None:
    """Without prices costs are null, nothing is on the frontier, and what needs prices is left out with a note."""
    outcomes = table(quality=[[0, 1], [1, 1], [0, 0]] * 4, cost=-1, answer=[[0, 1]] * 12)
    comparison = compare(outcomes)
    assert {row.cost_per_1k_usd for row in comparison.rows} == {None}
    assert not any(row.frontier for row in comparison.rows)
    assert not any("budget" in row.name or "@" in row.name for row in comparison.rows)
    assert any("need prices" in note for note in comparison.notes)
    assert comparison.cheapest_as_good is None


def test_budgets_need_prices() -> None:
    """A budget on unknown prices is refused, and so is a cost to match."""
    outcomes = table(quality=[[0, 1]] * 8, cost=-1)
    with pytest.raises(UnknownPrice, match="r0, r1"):
        compare(outcomes, per_request="1")
    with pytest.raises(UnknownPrice):
        compare(outcomes, ["r1+budget"])
    with pytest.raises(UnknownPrice):
        compare(outcomes, ["random@r1"])


def test_policies_of_your_own() -> None:
    """Policy objects are compared like names are, and a baseline that isn't among them joins."""
    outcomes = load_outcomes(limit=200)
    own = Budgeted(Threshold(0.9, ("qwen-1.5b@320", "gpt-4-1106")), Money.of("0.04"), "mine")
    comparison = compare(outcomes, [own, "oracle"], baseline="mixtral-8x7b", baselines=False)
    assert {row.name for row in comparison.rows} == {"mine", "oracle", "mixtral-8x7b"}
    assert comparison.row("mine").quality == replay(own, outcomes).quality.mean()
    assert comparison.baseline == "mixtral-8x7b"


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("threshold", "threshold-0.8"),
        ("threshold=0.9", "threshold-0.9"),
        ("threshold-0.5/4", "threshold-0.5/4"),
        ("agreement", "agreement-3"),
        ("agreement=5", "agreement-5"),
        ("random=0.3", "random-0.3"),
        ("prompt-length=200", "prompt-length-200"),
        ("prompt-length@agreement-2", "prompt-length@agreement-2"),
        ("random@threshold=0.9+budget", "random@threshold=0.9+budget"),
    ],
)
def test_names_with_figures(asked, name) -> None:
    """A figure behind a name sets it: threshold=0.9, agreement=5, random=0.3."""
    assert compare(load_outcomes(limit=60), [asked]).row(name).n == 60


def test_questions_are_counted_and_not_their_epochs() -> None:
    """Five rows of each of four questions are four questions, and that is said."""
    quality = [[i // 5 % 2, 1] for i in range(20)]
    outcomes = table(quality=quality, keys=tuple(f"q{i // 5}" for i in range(20)))
    comparison = compare(outcomes, baselines=False)
    assert comparison.n == 4
    assert "5 rows a question: they are epochs; a question counts once, with their mean" in comparison.notes


def test_one_rung() -> None:
    """Data of one rung is compared with itself; what needs two says so."""
    outcomes = table(quality=[[1], [0], [1]])
    assert [row.name for row in compare(outcomes).rows] == ["r0"]
    with pytest.raises(BadInput, match="two rungs"):
        compare(outcomes, ["random"])


def test_few_questions() -> None:
    """Fewer questions than folds: fitted policies are left out of the line-up with a note, and refused by name."""
    outcomes = load_outcomes(limit=3)
    comparison = compare(outcomes)
    assert "threshold-fitted" not in {row.name for row in comparison.rows}
    assert any("left out" in note for note in comparison.notes)
    with pytest.raises(BadInput, match="folds"):
        compare(outcomes, ["threshold-fitted"])


@pytest.mark.parametrize(
    ("policies", "error"),
    [
        (["treshold"], UnknownName),
        (["threshold=x"], UnknownName),
        (["agreement=2.5"], UnknownName),
        (["agreement=1"], BadInput),
        (["agreement=9"], BadInput),
        (["threshold=1.5"], BadInput),
        (["threshold=0.8/1"], BadInput),
        (["oracle+budget"], BadInput),
        (["random@oracle"], BadInput),
        (["random=7"], BadInput),
        ([], BadInput),
    ],
)
def test_unworkable_names(policies, error) -> None:
    """A name that means nothing on this ladder is refused."""
    with pytest.raises(error):
        compare(load_outcomes(limit=20), policies)


def test_unworkable_settings() -> None:
    """A margin beyond quality, a hindsight baseline, a budget that nothing fits or that nothing keeps are refused."""
    outcomes = load_outcomes(limit=20)
    for settings in (
        {"margin": 2.0},
        {"margin": float("nan")},
        {"baseline": "oracle"},
        {"per_request": "0.0000001"},
        {"per_run": "0.0000001"},
        {"policies": ["agreement"], "per_run": "1"},
    ):
        with pytest.raises(BadInput):
            compare(outcomes, **settings)


def test_latency_where_it_is_known() -> None:
    """The 95th percentile of the attempts one after the other, in seconds."""
    outcomes = table(quality=[[0, 1]] * 10, confidence=[[0.1, 0.9]] * 10)
    comparison = compare(outcomes, ["threshold", "r0"])
    assert comparison.row("threshold-0.8").p95_latency_s == 2
    assert comparison.row("r0").p95_latency_s == 1


def test_rows_of_the_same_policy_are_one() -> None:
    """A name that is given twice is one row."""
    assert (
        len(
            compare(
                load_outcomes(limit=20), ["mixtral-8x7b", "mixtral-8x7b", Constant(5, "gpt-4-1106")], baselines=False
            ).rows
        )
        == 2
    )


# ---------------------------------------------------------------------------------------------- what may be claimed


def test_better_has_to_survive_all_looks(ladder) -> None:
    """A "better" of one comparison says whether it holds for all of them together, by Holm's adjustment."""
    assert ladder.yardsticks == ("best-single", "nearest", "oracle@agreement-3")
    judged = [row for row in ladder.rows if row.judged and row.name not in ladder.yardsticks]
    assert len(judged) == len(ladder.rows) - 2 - 3
    for row in ladder.rows:
        assert (row.p_better is None) == (row not in judged)
        assert (row.better_adjusted is None) == (row.verdict != "better")
        assert row.better_adjusted in {None, (row.p_better or 1.0) <= 0.025}
    raw = better_p(*(replay(play, load_outcomes()).quality for play in (AGREEMENT, Constant(5))))
    assert raw < 0.025 < ladder.row("agreement-4").p_better
    alone = compare(policies=["agreement-4"]).row("agreement-4")
    assert (alone.p_better, alone.better_adjusted) == (pytest.approx(raw), True)


def test_a_random_mix_is_its_expectation(ladder) -> None:
    """It costs exactly what its reference costs, and its quality lies on the line between its two rungs."""
    for name in ("agreement-3", "threshold-0.8", "threshold-0.99"):
        mix, reference = ladder.row(f"random@{name}"), ladder.row(name)
        assert mix.cost_per_1k_usd == pytest.approx(reference.cost_per_1k_usd)
        cheap, strong = ladder.row("qwen-1.5b@320"), ladder.row("gpt-4-1106")
        share = (mix.cost_per_1k_usd - cheap.cost_per_1k_usd) / (strong.cost_per_1k_usd - cheap.cost_per_1k_usd)
        assert mix.quality == pytest.approx(cheap.quality + share * (strong.quality - cheap.quality))
        assert mix.apgr == pytest.approx(0.5)
    assert compare(seed=5).row("random@agreement-3") == ladder.row("random@agreement-3")


def test_a_mix_is_what_many_draws_come_to() -> None:
    """Quality, cost, errors and tail latency are those of the mean over many seeded draws."""
    outcomes = load_outcomes()
    draws = [replay(RandomMix(0.3, 3, 5, seed), outcomes) for seed in range(60)]
    row = compare(outcomes, ["random=0.3"]).row("random=0.3")
    assert row.name == "random-0.3"
    assert row.quality == pytest.approx(np.mean([one.quality.mean() for one in draws]), abs=0.002)
    assert row.cost_per_1k_usd == pytest.approx(np.mean([one.mean_cost for one in draws]) / 1e6, rel=0.01)
    assert row.errors == pytest.approx(np.mean([one.errors.sum() for one in draws]), abs=1)
    slow = replace(outcomes, latency=np.where(np.arange(6) == 5, 9.0, 1.0) * np.ones((outcomes.n, 6)))
    assert compare(slow, ["random=0.04"]).row("random-0.04").p95_latency_s == 1
    assert compare(slow, ["random=0.06"]).row("random-0.06").p95_latency_s == 9


def test_budgets_do_not_depend_on_the_order_of_the_data() -> None:
    """The same questions, sorted longest first, give the same rows: a run's budget is spent in a shuffled order."""
    outcomes = load_outcomes()
    longest = np.argsort(-outcomes.features["prompt_chars"], kind="stable")
    columns = {name: getattr(outcomes, name)[longest] for name in COLUMNS}
    turned = replace(
        outcomes,
        keys=tuple(outcomes.keys[i] for i in longest.tolist()),
        features={"prompt_chars": outcomes.features["prompt_chars"][longest]},
        gradings={},
        **columns,
    )
    names = ["gpt-4-1106+budget", "agreement-3+budget", "prompt-length+budget", "threshold-fitted+budget"]
    one, two = compare(replace(outcomes, gradings={}), names), compare(turned, names)
    for name in names:
        a, b = one.row(name), two.row(name)
        assert (a.quality, a.errors, a.unpaid) == (b.quality, b.errors, b.unpaid)
        assert a.cost_per_1k_usd == pytest.approx(b.cost_per_1k_usd)
    assert any("random order" in note for note in one.notes)


def test_no_money_is_not_no_answer(ladder) -> None:
    """Questions that nothing fitted the budget for are counted apart from those that were answered unusably."""
    row = compare(policies=["gpt-4-1106+budget", "qwen-1.5b@96"]).row("gpt-4-1106+budget")
    assert 0 < row.unpaid <= row.errors
    assert ladder.row("qwen-1.5b@96").errors == 178
    assert ladder.row("qwen-1.5b@96").unpaid == 0


def test_unanswered_questions_have_no_latency() -> None:
    """The tail of the latency is that of the answered questions: a refusal isn't quick service."""
    outcomes = table(quality=[[0, 1]] * 40, cost=[[1, 10]] * 40)
    row = compare(outcomes, ["r1+budget"], per_request="0.00000001", per_run="0.00000002").row("r1+budget")
    assert row.unpaid == 38
    assert row.p95_latency_s == 1


def test_a_ladder_of_some_rungs() -> None:
    """`rungs` chooses them, by full or short names; the rest is as if the data had no others."""
    names = ["gpt-4-1106", "qwen-1.5b@320", "mixtral-8x7b"]
    loaded = compare(policies=["agreement-2", "threshold-0.8"], rungs=names)
    chosen = compare(load_outcomes(), ["agreement-2", "threshold-0.8"], rungs=names)
    assert [rung["name"] for rung in loaded.settings["rungs"]] == ["qwen-1.5b@320", "mixtral-8x7b", "gpt-4-1106"]
    assert loaded.rows == chosen.rows
    assert "qwen-1.5b@320, mixtral-8x7b by agreement-2" in " ".join(loaded.notes)
    assert any("the ladder is" in note for note in loaded.excluded)
    with pytest.raises(UnknownName, match="gpt4"):
        compare(rungs=["gpt4"])


def test_json_tells_the_methods(ladder) -> None:
    """Version, methods, prices and budgets as numbers, and a digest of the data stand with the figures."""
    told = ladder.to_json()
    assert told["version"] == escalade.__version__
    assert "Wilson" in told["method"]["quality"]
    assert "Agresti and Min" in told["method"]["difference"]
    assert told["rungs"][5] == {
        "name": "gpt-4-1106",
        "usd_per_million_in": 10.0,
        "usd_per_million_out": 30.0,
        "price_source": "OpenAI's list price of gpt-4-1106-preview, 2023-11",
    }
    assert told["budgets"] == {"per_request_usd": 0.035, "per_run_usd": 2.4}
    assert told["data_digest"] == load_outcomes().digest != load_outcomes(labels="regraded").digest


def test_prints_itself(ladder, capsys) -> None:
    """`show` prints the report, and so does rich's print."""
    ladder.show(Console(width=100))
    shown = capsys.readouterr().out
    Console(width=100, highlight=False).print(ladder)
    assert capsys.readouterr().out == shown
    assert "agreement-3" in shown
