"""Answers to questions that differ a little: measured thresholds, rails, whom they are for, and when there are none."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import dspy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.agents.cache.similar import SimilarityCache
from escalade.agents.cache.similar.cache import binomial_bound
from escalade.agents.cache.similar.ngrams import HashedNgrams
from escalade.agents.cache.similar.rails import gist
from escalade.errors import BadInput
from tests.agents.cache.questions import pairs, unseen
from tests.agents.cache.worlds import ANA, BOB, EVE, World, answering, scope_of

ASKED, VARIANT = "What is the capital of Peru?", "please tell me, what's the capital of Peru"
OTHER = "What is the capital of Chile?"


def world(*script: Any, **options: Any) -> World:
    """A cache with a similarity cache at some threshold."""
    return World(script, similar=options.pop("similar", SimilarityCache(threshold=0.5)), **options)


def test_calibrated_threshold_holds_on_other_questions() -> None:
    """At most 1 % false hits by the bound on one half; on the other half, and on questions that nothing was fitted to,
    not one of 492 pairs with different answers matches, and most variants do.
    """
    similar = SimilarityCache()
    chosen = similar.calibrate(pairs(0))
    assert (chosen.different, chosen.false_hits) == (327, 0)
    assert chosen.bound <= 0.01
    held_out, fresh = similar.evaluate(pairs(1)), similar.evaluate(unseen())
    assert (held_out.different, held_out.false_hits) == (324, 0)
    assert (fresh.different, fresh.false_hits) == (168, 0)
    assert min(chosen.hit_rate, held_out.hit_rate, fresh.hit_rate) > 0.6


def test_false_hits_are_measured_where_rails_are_fewer() -> None:
    """Without the rail of words the threshold has to be higher, fewer variants match, and some other questions do."""
    strict, loose = SimilarityCache(), SimilarityCache(words=False)
    assert loose.calibrate(pairs(0)).threshold > strict.calibrate(pairs(0)).threshold
    assert loose.evaluate(unseen()).false_hits > 0
    assert loose.evaluate(unseen()).hits < strict.evaluate(unseen()).hits


def test_too_few_pairs() -> None:
    """It says how many it takes: 299 for 1 % at 95 %, 59 for 5 %; copies are none."""
    different = [(f"a{n}", f"b{n}", False) for n in range(59)]
    with pytest.raises(BadInput, match="it takes 299"):
        SimilarityCache().calibrate(pairs(0)[:50])
    with pytest.raises(BadInput, match="it takes 59"):
        SimilarityCache().calibrate(different[:58], max_false_hits=0.05)
    SimilarityCache().calibrate(different, max_false_hits=0.05)
    with pytest.raises(BadInput, match="59 pairs are there more than once"):  # turned around it is the same pair
        SimilarityCache().calibrate(different + [(b, a, no) for a, b, no in different], max_false_hits=0.05)


def test_no_threshold_is_safe() -> None:
    """Pairs that are said to differ and are letter by letter the same: refused, with the figures."""
    with pytest.raises(BadInput, match="300 pairs .* 300 are"):
        SimilarityCache().calibrate([(f"thing {n}", f"thing {n}", False) for n in range(300)])


def test_nothing_matches_before_it_was_calibrated() -> None:
    """Without a threshold there are no similar answers, and evaluating says why."""
    one = world(similar=SimilarityCache())
    one.ask(ASKED)
    one.ask(VARIANT)
    assert one.calls == 2
    with pytest.raises(BadInput, match="no threshold yet"):
        SimilarityCache().evaluate(pairs(1))


def test_variant_is_answered() -> None:
    """A variant has the answer, sync and async, for nothing; another question doesn't."""
    one = world(answering("Lima"), answering("Santiago"))
    assert one.ask(ASKED).answer == "Lima"
    assert one.ask(VARIANT).answer == "Lima"
    assert one.ask(VARIANT, "async").answer == "Lima"
    assert one.ask(OTHER).answer == "Santiago"
    assert one.calls == 2
    assert one.row().hits == {"similar": 2}


def test_tenants_share_no_variants() -> None:
    """A variant of another tenant's question is a miss."""
    one = world()
    one.ask(ASKED, who=ANA)
    one.ask(VARIANT, who=EVE)
    assert one.calls == 2
    one.ask(VARIANT, who=BOB)
    assert one.calls == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"n": 2},
        {"rollout_id": 1, "temperature": 1.0},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
    ],
)
def test_no_variants_of_samples_and_tools(settings: dict[str, Any]) -> None:
    """Several candidates, rollouts and requests with tools are answered exactly or not at all."""
    one = world()
    with scope_of(ANA, budget="1.00"):
        lm = one.lm(**settings)
        for question in (ASKED, VARIANT):
            lm(question)
    assert one.calls == 2 * settings.get("n", 1)


def test_only_the_question_may_differ() -> None:
    """Another program, another setting, more than one field of input: nothing is similar."""
    one = world()
    one.ask(ASKED)
    one.ask(VARIANT, max_tokens=7)
    one.predict = dspy.Predict("question -> reply")
    one.model._script = iter(["[[ ## reply ## ]]\nx"])
    one.ask(VARIANT)
    assert one.calls == 3
    one.predict = dspy.Predict("context, question -> answer")
    with scope_of(ANA), dspy.context(lm=one.lm(), adapter=dspy.ChatAdapter()):
        for question in (ASKED, VARIANT):
            one.predict(context="Peru is a country.", question=question)
    assert one.calls == 5


def test_what_is_gone_is_not_found() -> None:
    """Evicted, grown old, or taken back: there is no answer to variants either."""
    one = world(answering("Lima"), "garbage")
    one.ask(ASKED)
    one.cache.evict(tenant="acme")
    with pytest.raises(dspy.utils.exceptions.AdapterParseError):
        one.ask(VARIANT)
    one.ask(ASKED)
    assert one.calls == 3
    one.clock.at += 86_401
    one.ask(VARIANT)
    assert one.calls == 4


def test_embedder_of_ones_own() -> None:
    """Any function of texts will do, also one that is awaited; one that fails costs hits, never answers."""

    class Awaited:
        asked = 0

        def __call__(self, texts: list[str]) -> Any:
            return np.ones((len(texts), 3))

        async def acall(self, texts: list[str]) -> Any:
            self.asked += 1
            await asyncio.sleep(0)
            return np.ones((len(texts), 3))

    embed = Awaited()
    one = world(similar=SimilarityCache(embed, threshold=0.9))
    one.ask("the capital of Peru", "sync")
    one.ask("the capital of Peru", "async", who=EVE)
    one.ask("Peru has which capital", "async", who=EVE)
    assert embed.asked == 1

    def broken(texts: list[str]) -> Any:
        raise OSError("no model")

    two = world(similar=SimilarityCache(broken, threshold=0.9))
    assert two.ask(ASKED).answer == "42"
    assert two.ask(VARIANT, "async").answer == "42"
    assert two.cache.stats().failures > 0


def test_index_has_a_limit() -> None:
    """Beyond its entries, the oldest questions are forgotten."""
    similar = SimilarityCache(threshold=0.5, entries=3)
    for number in range(5):
        similar.learn("f", f"What is {number} plus 1?", str(number))
    assert len(similar) == 3
    assert [similar.find("f", f"what's {number} plus 1") for number in range(5)] == [None, None, "2", "3", "4"]
    assert similar.find("another family", "what's 4 plus 1") is None


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30), st.integers(1, 6))
def test_index_is_what_it_should_be(letters: list[str], entries: int) -> None:
    """After any adding and dropping, what is found is the nearest of what was added last."""
    similar = SimilarityCache(threshold=0.99, entries=entries)
    kept: dict[str, None] = {}
    for letter in letters:
        if letter in kept and ord(letter) % 2:
            similar.forget(letter)
            del kept[letter]
            continue
        similar.learn("f", f"what {letter}{letter} is", letter)
        kept.setdefault(letter)
        kept = dict(list(kept.items())[-entries:])
    for letter in "abcdefgh":
        found = similar.find("f", f"what {letter}{letter} is")
        assert found == (letter if letter in kept else None)


SAME = [
    ("What's 5 + 3?", "what is 5 + 3"),
    ("Can't I pay by card?", "Can I not pay by card?"),
    ("Is it 1,000 km?", "is it 1000 km"),
    ("Could you please tell me who wrote Emma?", "who wrote Emma"),
]
OTHERS = [
    ("C++ tutorial", "C# tutorial"),
    ("Is 5 > 3?", "Is 5 < 3?"),
    ("Pay $5", "Pay €5"),
    ("It is 1.5 km", "It is 15 km"),
    ("two eggs", "three eggs"),
    ("Is he there?", "Is he not there?"),
    ("buy shares", "sell shares"),
    ("largest city", "largest cities"),
    ("Is pain normal?", "Is país normal?"),
]


@pytest.mark.parametrize(("one", "another"), SAME)
def test_rails_let_pass(one: str, another: str) -> None:
    """Politeness, contractions, case, punctuation, thousands."""
    assert gist(one, words=True) == gist(another, words=True)


@pytest.mark.parametrize(("one", "another"), OTHERS)
def test_rails_hold(one: str, another: str) -> None:
    """Signs, units, numbers, negations, opposites, numerus, accents."""
    assert gist(one, words=True) != gist(another, words=True)


@pytest.mark.parametrize("text", ["", " ", "x" * 301, "two\nlines", "see `code`"])
def test_no_variants_of_long_texts_and_code(text: str) -> None:
    """What is long, has lines or code in it, is no variant of anything."""
    assert gist(text, words=True) is None


@pytest.mark.parametrize(
    ("hits", "tries", "bound"), [(0, 299, 0.00997), (1, 100, 0.04656), (5, 50, 0.19883), (3, 3, 1.0)]
)
def test_binomial_bound(hits: int, tries: int, bound: float) -> None:
    """Clopper and Pearson's figures."""
    assert math.isclose(binomial_bound(hits, tries, 0.95), bound, rel_tol=2e-3)


def test_binomial_bound_is_that_of_the_beta_distribution() -> None:
    """The same as scipy says, by the quantile of the beta distribution."""
    beta = pytest.importorskip("scipy.stats").beta
    for hits, tries in ((0, 59), (1, 59), (7, 200), (40, 41)):
        assert math.isclose(binomial_bound(hits, tries, 0.9), beta.ppf(0.9, hits + 1, tries - hits), rel_tol=1e-9)


def test_vectors_are_of_length_one_and_the_same_everywhere() -> None:
    """Unit vectors, no randomness; what is frequent weighs less once they are fitted."""
    embed = HashedNgrams()
    vectors = embed(["the cat", "the dog", ""])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0])
    assert np.array_equal(vectors, HashedNgrams()(["the cat", "the dog", ""]))
    fitted = embed.fitted(["the cat", "the dog", "the cow"])(["the cat", "the dog"])
    assert fitted[0] @ fitted[1] < vectors[0] @ vectors[1]


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"threshold": 1.1}, {"entries": 0}])
def test_bad_options(wrong: dict[str, Any]) -> None:
    """Bad options are told."""
    with pytest.raises(BadInput):
        SimilarityCache(**wrong)
