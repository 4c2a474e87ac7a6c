"""Routing policies: what each decides, why it says so, and that it survives a trip through JSON."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.agents.climb import FAILED, OK, Attempt, Decision, Policy, Rung, Stop, Try, View, climb_sync
from escalade.agents.policies import (
    Agreement,
    Budgeted,
    Constant,
    PromptLength,
    RandomMix,
    Saved,
    Threshold,
    draw,
    dump_policy,
    load_policy,
    register_policy,
)
from escalade.errors import BadInput, UnknownName
from escalade.money import Money
from tests.evals._tables import policies

RUNGS = tuple(Rung(name) for name in ("small", "medium", "large"))
PRICES = (1, 10, 100)


def view(
    *attempts: Attempt,
    left: int | None = None,
    braked: bool = False,
    prices: tuple[int | None, ...] = PRICES,
    ceilings: tuple[int | None, ...] | None = None,
    chars: int = 50,
) -> View:
    return View(
        key="q",
        features={"prompt_chars": chars},
        rungs=RUNGS,
        prices=prices,
        ceilings=prices if ceilings is None else ceilings,
        attempts=attempts,
        budget_left=left,
        braked=braked,
    )


def said(rung: int, confidence: float = math.nan, answer: object = "a", status: str = OK) -> Attempt:
    return Attempt(rung, answer=answer, confidence=confidence, cost=PRICES[rung], status=status)


def rung(decision: Decision) -> int:
    """The rung that it tries, -1 when it stops."""
    return decision.rung if isinstance(decision, Try) else -1


def path(policy: Policy, attempts: dict[int, Attempt], left: int | None = None) -> tuple[tuple[int, ...], int | None]:
    """The rungs that it tries, and the one that answers."""
    climb = climb_sync(policy, attempts.__getitem__, view(left=left))
    return climb.path, None if climb.chosen is None else climb.chosen.rung


# ----------------------------------------------------------------------------------------------------- one pick each


def test_constant_tries_its_rung_and_stops() -> None:
    """One rung, by index or by name, whatever comes of it."""
    assert path(Constant(1), {1: said(1)}) == ((1,), 1)
    assert path(Constant("large"), {2: said(2, status=FAILED)}) == ((2,), 2)


def test_prompt_length_sends_long_prompts_up() -> None:
    """At the limit is long."""
    policy = PromptLength(50, low="small", high="large")
    assert rung(policy.decide(view(chars=49))) == 0
    assert rung(policy.decide(view(chars=50))) == 2


def test_prompt_length_needs_the_feature() -> None:
    """A view without lengths is refused by name."""
    bare = View("q", {"words": 3}, RUNGS, PRICES, PRICES)
    with pytest.raises(UnknownName, match="prompt_chars"):
        PromptLength(50, 0, 2).decide(bare)


def test_random_mix_hits_its_share_and_is_nested() -> None:
    """About the share of questions goes up, the same each time, and a larger share keeps those of a smaller one."""
    keys = [f"q{i}" for i in range(4000)]

    def up(share: float, seed: int = 0) -> set[str]:
        mix = RandomMix(share, 0, 2, seed)
        return {key for key in keys if rung(mix.decide(View(key, {}, RUNGS, PRICES, PRICES))) == 2}

    assert len(up(0.3)) == pytest.approx(1200, abs=120)
    assert up(0.3) == up(0.3) <= up(0.6)
    assert up(0.3) != up(0.3, seed=1)
    assert up(0.0) == set()
    assert up(1.0) == set(keys)


@given(st.integers(), st.text())
def test_draws_lie_in_the_half_open_interval(seed: int, key: str) -> None:
    """So that a share of 0 is never and a share of 1 always."""
    assert 0.0 <= draw(seed, key) < 1.0


# --------------------------------------------------------------------------------------------------------- threshold


def test_threshold_stops_at_a_confident_answer() -> None:
    """At the threshold is confident enough; the reason names both."""
    assert path(Threshold(0.8), {0: said(0, 0.8)}) == ((0,), 0)
    assert Threshold(0.8).decide(view(said(0, 0.9))).why == "confidence 0.90 >= 0.80"


def test_threshold_escalates_below_and_says_the_next_price() -> None:
    """The reason names signal, threshold, next rung and its price."""
    decision = Threshold(0.8).decide(view(said(0, 0.5), prices=(1, 2_000_000, None)))
    assert decision == Try(1, "confidence 0.50 < 0.80")


def test_threshold_climbs_only_its_ladder() -> None:
    """Rungs that aren't on the ladder are skipped, names and indices mix."""
    assert path(Threshold(0.8, ("small", 2)), {0: said(0, 0.1), 2: said(2, 0.1)}) == ((0, 2), 2)


@pytest.mark.parametrize("weak", [said(0, math.nan), said(0, 1.0, status=FAILED)])
def test_threshold_escalates_what_it_cannot_judge(weak: Attempt) -> None:
    """An unknown confidence and a failed attempt escalate even at threshold 0."""
    assert path(Threshold(0.0, (0, 2)), {0: weak, 2: said(2)}) == ((0, 2), 2)


def test_threshold_answers_with_the_last_good_attempt() -> None:
    """When the top of the ladder fails, what was answered below it stands."""
    climb = {0: said(0, 0.1), 1: said(1, 0.2), 2: said(2, status=FAILED)}
    assert path(Threshold(0.8), climb) == ((0, 1, 2), 1)


def test_threshold_stays_within_the_budget() -> None:
    """The next rung isn't tried when it doesn't fit; the stop says so and the climb knows which it was."""
    climb = climb_sync(Threshold(0.8, (0, 2)), {0: said(0, 0.1)}.__getitem__, view(left=100))
    assert climb.path == (0,)
    assert climb.held_back == 2
    assert "large doesn't fit the $0.000000099 left" in climb.explain()


def test_threshold_without_money_answers_nothing() -> None:
    """No rung fits, nothing is tried."""
    assert path(Threshold(0.8), {}, left=0) == ((), None)


def test_braking_keeps_a_good_answer() -> None:
    """When the ledger brakes, a good answer isn't escalated, but a missing one is."""
    for policy in (Threshold(0.8), Agreement((0, 1), 2)):
        stop = policy.decide(view(said(0, 0.1), braked=True))
        assert isinstance(stop, Stop)
        assert stop.attempt == 0
        assert stop.why.endswith("the budget is nearly used up")
        assert isinstance(policy.decide(view(said(0, status=FAILED), braked=True)), Try)


def test_an_expired_deadline_stops() -> None:
    """Without time nothing fits, and the reason is the time."""
    late = View("q", {}, RUNGS, PRICES, PRICES, (said(0, 0.1),), time_left=0.0)
    assert Threshold(0.8).decide(late).why.endswith("medium doesn't fit the time left")


# --------------------------------------------------------------------------------------------------------- agreement


def test_agreement_stops_when_all_agree() -> None:
    """Two equal answers of two: the last of them answers."""
    assert path(Agreement((0, 1), 2), {0: said(0), 1: said(1)}) == ((0, 1), 1)


def test_agreement_stops_as_soon_as_the_quorum_is_there() -> None:
    """The remaining members aren't asked."""
    assert path(Agreement((0, 1, 2), 2, quorum=1), {0: said(0)}) == ((0,), 0)


def test_agreement_escalates_as_soon_as_it_is_hopeless() -> None:
    """A failed first member makes unanimity impossible: the second isn't asked."""
    assert path(Agreement((0, 1), 2), {0: said(0, status=FAILED), 2: said(2)}) == ((0, 2), 2)


def test_no_answer_agrees_with_nothing() -> None:
    """Two attempts without an answer don't agree with each other."""
    silent = {0: said(0, answer=None), 1: said(1, answer=None), 2: said(2)}
    assert path(Agreement((0, 1), 2), silent) == ((0, 2), 2)


def test_agreement_answers_are_compared_by_equality() -> None:
    """Answers needn't be hashable, and 1 equals 1.0."""
    assert path(Agreement((0, 1), 2), {0: said(0, answer=[1]), 1: said(1, answer=[1.0])}) == ((0, 1), 1)


def test_a_failed_judge_leaves_the_largest_group() -> None:
    """When `then` fails, the members' last answer of the largest group stands."""
    split = {0: said(0, answer="a"), 1: said(1, answer="b"), 2: said(2, status=FAILED)}
    assert path(Agreement((0, 1), 2), split) == ((0, 1, 2), 1)


def test_agreement_within_a_budget_answers_with_the_majority() -> None:
    """When `then` doesn't fit, the largest group answers with its last attempt."""
    rungs = tuple(Rung(f"r{i}") for i in range(4))
    attempts = tuple(Attempt(i, answer=a, cost=1) for i, a in enumerate("aab"))
    three = View("q", {}, rungs, (1, 1, 1, 9), (1, 1, 1, 9), attempts, budget_left=5)
    assert Agreement((0, 1, 2), 3).decide(three) == Stop(
        1, "2 of 3 agree; r3 doesn't fit the $0.000000005 left", wanted=3
    )


# ---------------------------------------------------------------------------------------------------------- budgeted


def test_budgeted_without_need_is_transparent() -> None:
    """Enough money: the very decisions of the policy."""
    inner, start = Threshold(0.8), view(said(0, 0.1))
    assert Budgeted(inner, "1").decide(start) == inner.decide(start)


def test_budgeted_narrows_to_what_the_request_has_left() -> None:
    """What attempts cost is taken off: 101 are enough for both rungs, 100 are not."""
    attempts = {0: said(0, 0.1), 2: said(2)}
    assert path(Budgeted(Threshold(0.8, (0, 2)), Money(101)), attempts) == ((0, 2), 2)
    assert path(Budgeted(Threshold(0.8, (0, 2)), Money(100)), attempts) == ((0,), 0)


def test_the_tighter_budget_holds() -> None:
    """The scope's budget holds under a generous one per request, and the other way round."""
    attempts = {0: said(0, 0.1), 1: said(1), 2: said(2)}
    assert path(Budgeted(Threshold(0.8, (0, 2)), Money(1000)), attempts, left=100) == ((0,), 0)
    assert path(Budgeted(Constant(2), Money(10)), attempts, left=1000) == ((1,), 1)


def test_budgeted_degrades_to_the_dearest_that_fits() -> None:
    """Nothing is answered yet: of the cheaper rungs the dearest one is tried, then the answer stands."""
    assert path(Budgeted(Constant(2), Money(50)), {1: said(1)}) == ((1,), 1)


def test_budgeted_degrades_again_after_a_failure() -> None:
    """A failed substitute is no answer: the next one down is tried."""
    attempts = {0: said(0), 1: said(1, status=FAILED)}
    assert path(Budgeted(Constant(2), Money(50)), attempts) == ((1, 0), 0)


def test_budgeted_degrades_for_a_policy_that_gave_up() -> None:
    """A policy that stops for want of money is asked what it would want; a cheaper rung takes its place."""
    assert path(Budgeted(Threshold(0.8, (2,)), Money(50)), {1: said(1, 0.1)}) == ((1,), 1)


def test_budgeted_leaves_a_policy_that_is_done_alone() -> None:
    """A failed single pick isn't replaced: the policy didn't stop for want of money."""
    assert path(Budgeted(Constant(0), Money(50)), {0: said(0, status=FAILED)}) == ((0,), 0)


def test_budgeted_may_have_to_stay_silent() -> None:
    """Nothing fits: no attempt, no answer, and a reason."""
    climb = climb_sync(Budgeted(Constant(2), Money(0)), {}.__getitem__, view())
    assert (climb.path, climb.chosen) == ((), None)
    told = "stop: neither large nor any cheaper rung fits the $0 left [no limit, next is rung 2 at $0.0000001]"
    assert climb.explain() == told


def test_an_unknown_bound_never_fits() -> None:
    """A rung without a ceiling isn't tried under a budget; one without an expected price is judged by its ceiling."""
    unknown = view(prices=(1, None, 100), ceilings=(1, 20, None))
    assert rung(Budgeted(Constant(2), Money(50)).decide(unknown)) == 1


# --------------------------------------------------------------------------------------------- names, bad input, JSON


@pytest.mark.parametrize(
    "policy", [Constant("lrge"), Threshold(0.8, ("lrge",)), Agreement((0, 1), "lrge"), Constant(3), Constant(-1)]
)
def test_rungs_that_the_ladder_lacks(policy: Policy) -> None:
    """They raise UnknownName with the known ones, at the first decision."""
    with pytest.raises(UnknownName, match="known: large, medium, small"):
        policy.decide(view())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Threshold(80),
        lambda: Threshold(math.nan),
        lambda: Threshold(0.8, ()),
        lambda: Agreement((), 2),
        lambda: Agreement((0, 0), 2),
        lambda: Agreement((0, 1), 2, quorum=3),
        lambda: Agreement((0, 1), 2, quorum=0),
        lambda: RandomMix(1.5, 0, 1),
        lambda: PromptLength(math.nan, 0, 1),
        lambda: Budgeted(Constant(0), 0.5),
    ],
)
def test_impossible_settings_are_refused(make) -> None:
    """At construction, as BadInput."""
    with pytest.raises(BadInput):
        make()


@given(policies(4))
def test_policies_survive_json(policy: Policy) -> None:
    """Dump, through JSON text, load: an equal policy, nested ones too."""
    assert load_policy(json.loads(json.dumps(dump_policy(policy)))) == policy
    assert isinstance(policy, Policy)


def test_a_dump_is_plain() -> None:
    """Money is a string of dollars, tuples are lists, a nested policy is a nested dump."""
    assert Budgeted(Threshold(0.7, (0, "large")), Decimal("0.002")).dump() == {
        "kind": "budgeted",
        "policy": {"kind": "threshold", "threshold": 0.7, "ladder": [0, "large"], "name": "threshold"},
        "per_request": "0.002",
        "name": "threshold, budgeted",
    }


@pytest.mark.parametrize(
    ("saved", "error"),
    [
        ({"kind": "treshold"}, UnknownName),
        ({}, BadInput),
        (None, BadInput),
        ({"kind": "constant", "rong": 1}, BadInput),
    ],
)
def test_bad_dumps_are_refused(saved: dict, error: type[Exception]) -> None:
    """An unknown kind by name, missing or foreign fields as BadInput."""
    with pytest.raises(error):
        load_policy(saved)


def test_own_policies_can_be_saved() -> None:
    """A registered policy of a user is loaded like ours; its kind can't be taken by another class."""

    @register_policy
    @dataclass(frozen=True)
    class Coin(Saved):
        kind: ClassVar[str] = "test-coin"
        side: int = 0
        name: str = "coin"

        def decide(self, view: View) -> Stop:
            return Stop()

    assert load_policy(Coin(1).dump()) == Coin(1)

    class Thief(Coin):
        pass

    with pytest.raises(BadInput, match="taken"):
        register_policy(Thief)


def test_unsaveable_policies_say_so() -> None:
    """A policy that isn't `Saved` is named, alone and inside another one."""

    class Mine:
        name = "mine"

        def decide(self, view: View) -> Stop:
            return Stop()

    for policy in (Mine(), Budgeted(Mine())):
        with pytest.raises(BadInput, match="can't be saved"):
            dump_policy(policy)


def test_policies_are_light() -> None:
    """The module imports neither numpy nor DSPy."""
    code = "import sys, escalade.agents.policies; print([m for m in ('numpy', 'dspy') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_types_of_a_policy_are_checked():
    """A threshold in quotes and a member that is no list are told when the policy is made."""
    with pytest.raises(BadInput, match="lies between 0 and 1, not at '0.8'"):
        Threshold("0.8")
    with pytest.raises(BadInput, match="a list of rungs, like"):
        Agreement(0, then=1)
