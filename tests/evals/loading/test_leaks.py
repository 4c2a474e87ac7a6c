"""Duplicates and leaks: what counts as the same question, and that it is said before any figure."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import dspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escalade.errors import BadInput
from escalade.evals.compare import compare
from escalade.evals.findings import findings
from escalade.evals.loaders import load_outcomes
from escalade.evals.loading._near import SHINGLE, near_pairs
from escalade.evals.loading.contents import normal
from escalade.evals.loading.leaks import duplicates, overlap
from escalade.evals.loading.rows import read_rows
from escalade.evals.outcomes import Outcomes
from tests._house import ROOT
from tests.evals._tables import table

SHARED = ROOT.parent / "shared" / "data"
beside = pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded answers aren't beside this checkout")

LONG = "A train leaves Ulm at noon with 40 people and reaches Bonn in the evening, how many seats does it need in all"


def asked(*pairs: tuple[str, str]) -> list[dspy.Example]:
    return [dspy.Example(question=question, answer=answer).with_inputs("question") for question, answer in pairs]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is it?", " what IS\nit", True),
        ("naïve café", "NAÏVE  CAFÉ!", True),
        ("\uff37\uff48\uff41\uff54 is it", "What is it", True),
        ("It costs 1.5", "It costs 15", False),
        ("What is -2?", "What is 2?", False),
        ("3 + 4", "3 * 4", False),
        ("A4 paper", "A5 paper", False),
        ("pay $5", "pay 5", False),
        ("2020-2021", "2020 2021", True),
    ],
)
def test_normal_form(one: str, other: str, *, same: bool) -> None:
    """Case, white space, punctuation and forms of Unicode don't count; numbers, signs and operators do."""
    assert (normal(one) == normal(other)) is same


def test_every_kind_of_duplicate() -> None:
    """The same text, nearly the same, the same with other numbers, and the same for different answers."""
    found = duplicates(
        asked(
            (LONG, "40"),
            (LONG.upper() + "?!", "41"),
            (LONG.replace("noon", "dawn"), "40"),
            (LONG.replace("40", "50"), "50"),
            ("Who was Ada?", "a"),
        ),
        near=0.7,
    )
    assert (found.n, found.by_text) == (5, True)
    assert [len(keys) for keys in found.exact] == [2]
    assert [len(keys) for keys in found.labels] == [2]
    assert sorted(pair.numbers for pair in found.near) == [False, True]
    assert len(found.said) == 3
    assert found.said[0].startswith("1 of 5 questions have the text of another one")


def test_one_key_with_two_texts() -> None:
    """A key that names two questions is told; epochs of one question aren't duplicates."""
    outcomes = table(quality=[[1.0]] * 4, keys=["a", "a", "b", "b"])
    texts = np.array(["One?", "one", "Two?", "Three?"], dtype=object)
    found = duplicates(replace(outcomes, features={"text": texts}))
    assert found.changed == ("b",)
    assert not found.exact
    assert found.said == ("1 keys have different texts on different rows (b)",)


def test_without_texts_by_key_alone() -> None:
    """Questions of which only keys are known are compared by them, and that is said."""
    outcomes = table(quality=[[1.0]] * 3)
    assert not duplicates(outcomes).by_text
    again = overlap(outcomes, table(quality=[[1.0]] * 2, keys=["q1", "q9"]))
    assert again.share == 0.5
    assert again.said.endswith("(by key alone: texts aren't known)")
    with pytest.raises(BadInput, match="a similarity above 0"):
        duplicates(outcomes, near=0.0)


def test_train_and_test() -> None:
    """What of the test set is in the training set: exactly, and nearly."""
    train = asked((LONG, "1"), ("Who was Ada?", "a"), ("Who was Bob?", "b"))
    told = overlap(train, asked((LONG.replace("noon", "dawn"), "1"), ("who was ADA", "a"), ("Why?", "x")), near=0.7)
    assert (len(told.exact), len(told.near)) == (1, 1)
    assert told.share == pytest.approx(2 / 3)
    assert told.said.startswith("66.7% of 3 test questions are in the training set: 1 exactly, 1 pairs differ in few")
    assert overlap(train, asked(("Why?", "x"))).said == "none of 1 test questions is among the 3 of the training set"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=9).map(" ".join), min_size=2, max_size=14, unique=True))
def test_near_pairs_are_what_brute_force_finds(normals: list[str]) -> None:
    """No pair is told that isn't as similar as it says; those of .9 and more are all found."""

    def bag(text: str) -> set[tuple[str, ...]]:
        words = text.split() + [""] * (SHINGLE - len(text.split()))
        return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}

    def jaccard(i: int, j: int) -> float:
        a, b = bag(normals[i]), bag(normals[j])
        return len(a & b) / len(a | b)

    found = {(i, j): similarity for i, j, similarity in near_pairs(normals, 0.5)[0]}
    assert all(similarity == pytest.approx(jaccard(*pair)) for pair, similarity in found.items())
    pairs = {(i, j) for j in range(len(normals)) for i in range(j) if jaccard(i, j) >= 0.9}
    assert pairs <= found.keys()


def test_planted_pairs_are_found() -> None:
    """Of 300 texts with one word of 40 changed nine in ten and more are found, among 3,000 others; and none else."""
    rng, words = random.Random(1), [f"w{i}" for i in range(3_000)]
    texts = [" ".join(rng.choices(words, k=40)) for _ in range(3_000)]
    texts += [" ".join(["other", *text.split()[1:]]) for text in texts[:300]]
    pairs, thinned = near_pairs(texts, 0.8)
    assert {(i, j) for i, j, _ in pairs} <= {(i, i + 3_000) for i in range(300)}
    assert len(pairs) >= 290
    assert not thinned


def test_crowds_are_thinned_and_it_is_said() -> None:
    """A thousand questions of one template don't take forever: not all pairs are compared, and that is said."""
    template = "please answer the following question as well as you can and in one sentence only number"
    began = time.process_time()
    found = duplicates([f"{template} {i}" for i in range(1_500)])
    assert found.thinned
    assert len(found.near) >= 1_400
    assert "there may be more" in found.said[1]
    assert time.process_time() - began < 5


@beside
def test_leaks_of_published_data() -> None:
    """A quarter of LLMRouter's test questions are in its training set; 12,032 questions take less than 5 s."""
    folder = SHARED / "llmrouter"
    train, test = (load_outcomes(folder / f"dcrouter_{side}.csv.gz") for side in ("train", "test"))
    told = overlap(train, test)
    assert len(told.exact) == len(set(train.keys) & set(test.keys)) == 119, "keys are hashes of the texts"
    assert 0.24 < told.share < 0.26
    texts = read_rows(SHARED / "mmlu_pro" / "questions.csv.gz").cells("question")
    began = time.process_time()
    found = duplicates(texts)
    assert time.process_time() - began < 5
    assert (len(texts), found.n) == (12_032, 11_642), "390 are repeated to the letter"
    assert sum(len(keys) - 1 for keys in found.exact) == 13, "and 13 but for case, white space and punctuation"


def twins(path: Path) -> Path:
    """20 questions, of which two are the same but for their case."""
    lines = "".join(f"Question {'' if i < 2 else i * 7} of all?,{i % 2},{int(i % 3 > 0)}\n" for i in range(20))
    path.write_text("prompt,a,b\n" + lines.replace("Question  of", "QUESTION  of", 1), "utf-8")
    return path


def test_said_before_any_figure(tmp_path: Path) -> None:
    """Duplicates stand in the notes of what is loaded and of what is compared, and in a check with a table."""
    outcomes = load_outcomes(twins(tmp_path / "t.csv"))
    note = next(note for note in outcomes.notes if "have the text of another one" in note)
    assert note.startswith("1 of 20 questions")
    compared = compare(outcomes, ["random"], baselines=False)
    assert note in compared.notes
    found = findings(compared, only=["data"])
    by_name = {check.name: check for check in found.checks}
    assert by_name["duplicates"].held is False
    assert note in by_name["duplicates"].said
    assert found.table("duplicates").rows[0]["kind"] == "same text"
    saved = load_outcomes(outcomes.save(tmp_path / "t.jsonl", texts=True))
    assert saved.notes == outcomes.notes, "said once"


def test_twins_across_folds(tmp_path: Path) -> None:
    """Twins of which one is fitted on and the other judged on are told; with a group they stay together."""
    outcomes = load_outcomes(twins(tmp_path / "t.csv"))

    def check(data: Outcomes, seed: int) -> bool | None:
        told = findings(compare(data, ["prompt-length"], folds=2, seed=seed, baselines=False), only=["data"])
        return next(one.held for one in told.checks if one.name == "twins across folds")

    assert {check(outcomes, seed) for seed in range(8)} == {True, False}, "as the folds happen to fall"
    group = tuple("twins" if i < 2 else f"g{i}" for i in range(20))
    assert {check(replace(outcomes, group=group), seed) for seed in range(4)} == {True}


def test_nothing_to_tell() -> None:
    """Where texts aren't known, as in the data that ships, the check can't tell, and says so."""
    outcomes = table(quality=[[1.0, 0.0]] * 20)
    found = findings(compare(outcomes, ["oracle"], baselines=False), only=["data"])
    assert [(check.name, check.held) for check in found.checks] == [("duplicates", None)]
