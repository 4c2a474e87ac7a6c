"""What a comparison brings along, whichever policies are named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from escalade.agents.climb import Rung
from escalade.agents.learned.nearest import Nearest
from escalade.agents.policies import Budgeted, Constant, Threshold
from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals.baselines import FittedBestSingle, FittedCategoryMean
from escalade.evals.compare import Comparison, compare
from escalade.evals.folds import assign_folds
from escalade.evals.loaders import load_outcomes
from escalade.evals.outcomes import Outcomes
from escalade.evals.replay import Replayed, cross_fit, replay, replay_one
from escalade.money import Money
from tests.evals._tables import outcomes, table

MINE = Threshold(0.9, ("qwen-1.5b@320", "gpt-4-1106"), "mine")


@pytest.fixture(scope="module")
def found() -> Outcomes:
    """300 questions of the data that ships, in two categories: short and long."""
    some = load_outcomes(limit=300)
    longer = some.features["prompt_chars"] > np.median(some.features["prompt_chars"])
    return replace(some, category=tuple(np.where(longer, "long", "short").tolist()), gradings={})


@pytest.fixture(scope="module")
def compared(found) -> Comparison:
    """One policy of the user's own, and what comes along."""
    return compare(found, [MINE])


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4-1106",
        "oracle",
        "best-single",
        "nearest",
        "prompt-length",
        "category-mean",
        "random@agreement-3",
        "oracle@x",
    ],
)
def test_nobody_stands_in_for_a_yardstick(found, name) -> None:
    """A policy that is named like a rung or a yardstick is refused, by itself and as the baseline, and without them."""
    for asked in ({}, {"baseline": name}, {"baselines": False}):
        with pytest.raises(BadInput, match=f"can't be named '{name}': that is a rung or a yardstick"):
            compare(found, [Constant(0, name), "agreement-3"], **asked)


def test_a_rung_as_itself_may_have_its_name(found) -> None:
    """Always the rung of that name: the very row that would be there anyway."""
    rows = compare(found, [Constant("mixtral-8x7b", "mixtral-8x7b"), "agreement-3"], baselines=False).rows
    assert {row.name for row in rows} == {"mixtral-8x7b", "agreement-3", "gpt-4-1106"}


def test_a_rung_named_like_a_yardstick_is_refused() -> None:
    """Its row and that of the yardstick would be one."""
    some = table(quality=[[0, 1]] * 40)
    with pytest.raises(BadInput, match="a rung is named 'oracle', which is a yardstick's name"):
        compare(replace(some, rungs=(Rung("r0"), Rung("oracle"))))


def test_the_short_name_of_a_rung_is_its_own() -> None:
    """What is short for Predict/large stands for it wherever names are read and shown: no policy can be called so."""
    some = table(quality=[[0, 1]] * 40)
    with pytest.raises(BadInput, match="can't be named 'large'"):
        compare(replace(some, rungs=(Rung("Predict/small"), Rung("Predict/large"))), [Constant(0, "large")])


def test_they_come_along(compared, found) -> None:
    """Every constant, best single, matched random, prompt length, category mean, kNN and both oracles; 20 rows at
    most.
    """
    rungs = {rung.name for rung in found.rungs}
    more = {"best-single", "prompt-length", "category-mean@mine", "nearest", "oracle", "random@mine", "oracle@mine"}
    assert {row.name for row in compared.rows} == rungs | more | {"mine"}
    assert set(compared.yardsticks) == rungs - {"gpt-4-1106"} | more
    assert len(compared.rows) <= 20


def test_they_can_be_left_out(found) -> None:
    """With `baselines=False` only what is named is compared, and its row is the same."""
    alone = compare(found, [MINE], baselines=False)
    assert {row.name for row in alone.rows} == {"mine", "gpt-4-1106"}
    assert alone.yardsticks == ()
    assert alone.row("mine").quality == compare(found, [MINE, "oracle"]).row("mine").quality


def test_they_are_no_claims(compared, found) -> None:
    """They have verdicts, but no p values, and cost the named ones nothing in Holm's adjustment."""
    alone = compare(found, [MINE], baselines=False).row("mine")
    assert compared.row("mine").p_better == pytest.approx(alone.p_better)
    assert all(compared.row(name).p_better is None for name in compared.yardsticks)
    assert compared.row("prompt-length").verdict != "baseline"


def test_matched_ones_cost_what_the_policy_costs(compared) -> None:
    """The random mix costs exactly that, the oracle no more, and it is better than everything of that cost."""
    mine, mix, best = (compared.row(name) for name in ("mine", "random@mine", "oracle@mine"))
    assert compared.row("category-mean@mine").cost_per_1k_usd <= mine.cost_per_1k_usd * 1.1
    assert mix.cost_per_1k_usd == pytest.approx(mine.cost_per_1k_usd)
    assert best.cost_per_1k_usd <= mine.cost_per_1k_usd * (1 + 1e-9)
    assert best.hindsight
    assert not best.frontier
    assert all(r.quality <= best.quality + 1e-9 for r in compared.rows if r.cost_per_1k_usd <= best.cost_per_1k_usd)


@settings(max_examples=60)
@given(outcomes(priced=True), st.sampled_from([0.0, 0.5, 0.8]))
def test_nothing_passes_the_oracle_at_its_cost(some, threshold) -> None:
    """Of a policy's rows none is better than the oracle at its cost, with epochs of one question as well."""
    assume(some.n and some.k > 1)
    rows = compare(some, [Threshold(threshold, name="mine"), "oracle@r0"]).rows
    by = {row.name: row for row in rows}
    assert by["mine"].quality <= by["oracle@mine"].quality + 1e-9
    assert by["r0"].quality <= by["oracle@r0"].quality + 1e-9


def test_best_single_is_chosen_on_other_folds() -> None:
    """A rung that is best by luck on some questions isn't chosen for these; ties go to the cheaper one."""
    some = table(quality=[[1, 1], [0, 0], [1, 1], [1, 1]] * 5)
    assert FittedBestSingle().fit(some, np.arange(20)).rung == 0
    better = table(quality=[[0, 1], [1, 1]] * 10)
    assert FittedBestSingle().fit(better, np.arange(20)).rung == 1
    failed = table(quality=[[0, 1], [1, 1]] * 10, status=[[0, 3]] * 20)
    assert FittedBestSingle().fit(failed, np.arange(20)).rung == 0


def test_category_means_by_hand() -> None:
    """Each category has the rung that was best for it; a small or new one goes where all would."""
    labels = ["a"] * 20 + ["b"] * 20 + ["c"] * 2
    some = replace(
        table(quality=[[1, 0]] * 20 + [[0, 1]] * 20 + [[0, 1]] * 2, cost=[[1, 10]] * 42), category=tuple(labels)
    )
    policy = FittedCategoryMean().fit(some, np.arange(42))
    assert [replay_one(policy, some, i).path for i in (0, 20, 41)] == [(0,), (1,), (1,)]
    cheap = FittedCategoryMean(reference=5.6).fit(some, np.arange(42))  # one category can go up: 1 + 9 * 20 / 42 = 5.3
    assert [replay_one(cheap, some, i).path for i in (0, 20, 41)] == [(0,), (1,), (0,)]
    poor = FittedCategoryMean(reference=0.5).fit(some, np.arange(42))
    assert {replay_one(poor, some, i).path for i in range(42)} == {(0,)}
    with pytest.raises(DataError, match="categories"):
        FittedCategoryMean().fit(table(quality=[[1]]), np.arange(1))


def test_category_mean_at_a_cost(found) -> None:
    """On the training rows it keeps to what its reference costs; by name and as an object."""
    fitted = FittedCategoryMean(reference=MINE)
    for fold in range(3):
        rows = np.flatnonzero(assign_folds(found.keys, 3) != fold)
        spent = replay(fitted.fit(found, rows), found, rows=rows).cost.mean()
        assert spent <= replay(MINE, found, rows=rows).cost.mean()
    assert compare(found, ["category-mean@threshold-0.99"]).row("category-mean@threshold-0.99").quality > 0


def test_names(found) -> None:
    """They can be named as well; what this data has no figures for is refused."""
    rows = compare(found, ["best-single", "category-mean", "oracle@agreement-2"], baselines=False).rows
    assert {row.name for row in rows} == {"best-single", "category-mean", "oracle@agreement-2", "gpt-4-1106"}
    with pytest.raises(UnknownName):
        compare(found, ["best-single-3"])
    with pytest.raises(BadInput, match="categories"):
        compare(load_outcomes(limit=40), ["category-mean"])
    with pytest.raises(BadInput, match="no policy"):
        compare(found, ["oracle@oracle"])


def test_data_that_allows_few_of_them() -> None:
    """Unknown costs leave the matched ones out, too few questions what is fitted, with a note; nothing breaks."""
    unpriced = compare(table(quality=[[0, 1], [1, 1], [0, 0]] * 4, cost=-1), [Threshold(0.5, name="mine")])
    assert not [name for name in unpriced.yardsticks if "@" in name]
    assert any("without the yardstick nearest" in note for note in unpriced.notes)
    assert compare(table(quality=[[1], [0]]), ["r0"]).yardsticks == ()
    assert "oracle" in compare(table(quality=[[0, 1]] * 3), ["r0"]).yardsticks


def test_own_policies_are_held_against_random(found) -> None:
    """A policy object of the user's own says whether it beats a random mix at its cost; a constant has no such mix."""
    rows = compare(found, [MINE, Constant(2, "always")], baselines=False)
    assert rows.row("mine").beats_random in {True, False}
    assert rows.row("always").beats_random is None


@pytest.mark.parametrize("text", [False, True])
def test_nearest_in_columns(text) -> None:
    """All at once it is the same as question by question, with ties, budgets and failed answers."""
    some = load_outcomes(limit=120)
    if text:
        asked = [f"{key} costs ${i % 7}. How many are {i % 5} and {i % 3}?" for i, key in enumerate(some.keys)]
        some = replace(some, features={**some.features, "text": np.array(asked, dtype=object)})
    some = replace(some, status=np.where(np.arange(120)[:, None] % 9 == 0, 3, some.status).astype(np.int8))
    fitted = Nearest.fit(some, 0, 5, k=9, rows=range(80))
    policies = [replace(fitted, threshold=t) for t in (-1.0, 0.0, 0.2, 0.4, 2.0)]
    for policy in [*policies, Budgeted(policies[2], Money.of("0.03"))]:
        for per_run in (None, int(Money.of("0.2"))):
            one = replay(policy, some, per_run=per_run)
            two = replay(Unknown(policy), some, per_run=per_run)
            assert (one.chosen == two.chosen).all()
            assert (one.tried == two.tried).all()


class Unknown:
    """A policy of a type that has no vectorised form."""

    def __init__(self, policy) -> None:
        self.policy, self.name = policy, policy.name

    def decide(self, view):
        return self.policy.decide(view)


def test_cross_fitting_sees_no_label_of_its_question(found) -> None:
    """Another label of a question doesn't change what fitted yardsticks decide on it."""
    turned = found.quality.copy()
    turned[7] = 1 - turned[7]
    other = replace(found, quality=turned)
    for fitted in (FittedBestSingle(), FittedCategoryMean()):
        one, two = (cross_fit(fitted, data) for data in (found, other))
        assert isinstance(one, Replayed)
        assert one.chosen[7] == two.chosen[7]


def test_a_mix_costs_what_it_is_matched_with_where_questions_were_asked_unequally_often():
    """The cost in a table is of the mean question: so is that of the mix, however many epochs each has."""
    rng = np.random.default_rng(4)
    keys = [f"q{i}" for i in range(40) for _ in range(1 + 4 * (i % 2))]
    cost = [[(1 + int(key[1:]) % 2) * 100, (1 + 5 * (int(key[1:]) % 2)) * 1000] for key in keys]
    right = rng.integers(0, 2, (len(keys), 2)).astype(float).tolist()
    sure = [[rng.random(), 0.5] for _ in keys]
    outcomes = table(quality=right, cost=cost, confidence=sure, keys=keys)
    for names in (["threshold-0.8"], ["threshold-0.8", "random@threshold-0.8"]):
        found = compare(outcomes, names, folds=2)
        policy, mix = found.row("threshold-0.8"), found.row("random@threshold-0.8")
        assert mix.cost_per_1k_usd == pytest.approx(policy.cost_per_1k_usd)


def test_cheaper_than_the_cheap_rung_is_held_against_the_cheapest():
    """No mix with a dearer rung costs the same, and losing to one that costs more says nothing."""
    n = 200
    right = [[float(i % 10 > 3), float(i % 10 > 3), 1.0, float(i % 20 > 0)] for i in range(n)]
    answer = [[int(i % 10 <= 3), 0, 0, 0] for i in range(n)]
    sure = [[np.nan, np.nan, 0.5, 0.9]] * n
    found = compare(table(quality=right, answer=answer, confidence=sure, cost=[1, 1, 500, 900]), ["agreement-2"])
    row = found.row("agreement-2")
    assert row.cost_per_1k_usd < found.row("r2").cost_per_1k_usd
    assert row.quality < found.row("r2").quality
    assert row.beats_random is True
