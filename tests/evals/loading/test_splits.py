"""Frozen splits: what a question is decides on which side it is, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import dspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals.loading.splits import Split, load_split, split
from tests.evals._tables import table

QUESTIONS = [f"What is {i} times {i + 3}?" for i in range(400)]


def examples(texts: list[str], **more: object) -> list[dspy.Example]:
    return [dspy.Example(question=text, answer=str(i), **more).with_inputs("question") for i, text in enumerate(texts)]


def in_test(one: Split, texts: list[str]) -> set[str]:
    return {texts[i] for i in one.test}


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(60)), st.integers(0, 340), st.integers(0, 5))
def test_stable_under_order_and_extension(order: list[int], more: int, seed: int) -> None:
    """Neither the order of the questions nor what else is there moves one of them to the other side."""
    first = QUESTIONS[:60]
    before = in_test(split(first, 0.4, seed=seed), first)
    mixed = [first[i] for i in order] + QUESTIONS[60 : 60 + more]
    assert in_test(split(mixed, 0.4, seed=seed), mixed) & set(first) == before


def test_share_seed_and_sides() -> None:
    """The share is met in expectation, other seeds draw other splits, and every row is on one side."""
    one, other = split(QUESTIONS, 0.3), split(QUESTIONS, 0.3, seed=1)
    assert len(one.test) == pytest.approx(120, abs=4 * np.sqrt(400 * 0.3 * 0.7))
    assert in_test(one, QUESTIONS) != in_test(other, QUESTIONS)
    assert sorted([*one.train, *one.test]) == list(range(400))


def test_what_is_written_otherwise_is_the_same_question() -> None:
    """Case, white space and punctuation don't make another question; a number does."""
    louder = [text.upper().replace(" ", "  ").rstrip("?") for text in QUESTIONS]
    assert split(louder).test.tolist() == split(QUESTIONS).test.tolist()


def test_groups_stay_together() -> None:
    """Of one group all questions are on one side: by the group of the data, or by a field that is named."""
    grouped = [
        dspy.Example(question=text, group=f"doc{i % 20}", topic=i % 5).with_inputs("question")
        for i, text in enumerate(QUESTIONS)
    ]
    for by, size in (("group", 20), ("topic", 5)):
        sides = split(grouped, 0.5, by=by)
        train, test = ({i % size for i in side.tolist()} for side in (sides.train, sides.test))
        assert sides.unit == "group"
        assert not train & test
    assert split(grouped, by=None).test.tolist() == split(QUESTIONS).test.tolist()
    with pytest.raises(DataError, match="no field 'chapter'"):
        split(grouped, by="chapter")


def test_outcomes_by_text_by_key_by_category() -> None:
    """Outcomes are split by the texts of the questions, by their keys where the texts aren't known."""
    outcomes = table(quality=[[1.0]] * 400, keys=QUESTIONS)
    assert split(outcomes).unit == "key"
    known = replace(outcomes, features={"text": np.array(QUESTIONS, dtype=object)})
    assert (split(known).unit, split(known).test.tolist()) == ("text", split(QUESTIONS).test.tolist())
    labelled = replace(known, category=tuple(f"c{i % 10}" for i in range(400)))
    sides = split(labelled, 0.5, by="category")
    assert not {i % 10 for i in sides.train.tolist()} & {i % 10 for i in sides.test.tolist()}
    with pytest.raises(UnknownName, match="categry"):
        split(labelled, by="categry")


def test_saved_and_laid_on_more(tmp_path: Path) -> None:
    """A saved split is the same one again; more training rows are welcome, new test rows have to be allowed."""
    first = examples(QUESTIONS[:100])
    one = split(first, 0.3, seed=3)
    again = load_split(one.save(tmp_path / "split.json"))
    assert again.digest == one.digest
    assert again.on(first).test.tolist() == one.test.tolist()
    everything = examples(QUESTIONS)
    sides = split(everything, 0.3, seed=3)
    more = first + [everything[i] for i in sides.train.tolist() if i >= 100]
    assert again.on(more).test.tolist() == one.test.tolist()
    with pytest.raises(DataError, match=r"\d+ new questions belong into the frozen test set of \d+; say extend=True"):
        again.on(everything)
    assert again.on(everything, extend=True).test.tolist() == sides.test.tolist()
    assert "times" not in (tmp_path / "split.json").read_text("utf-8"), "questions aren't in it"


def test_a_changed_test_set_is_refused(tmp_path: Path) -> None:
    """A test question that is gone, or has another answer, and a file that was edited."""
    data = examples(QUESTIONS[:100])
    one = load_split(split(data).save(tmp_path / "split.json"))
    at = int(one.on(data).test[0])
    with pytest.raises(DataError, match="1 of its .* questions are gone or have changed"):
        one.on(data[:at] + data[at + 1 :])
    data[at] = dspy.Example(question=QUESTIONS[at], answer="another").with_inputs("question")
    with pytest.raises(DataError, match="gone or have changed"):
        one.on(data)
    whole = json.loads((tmp_path / "split.json").read_text("utf-8"))
    (tmp_path / "split.json").write_text(json.dumps(whole | {"test": whole["test"][1:]}), "utf-8")
    with pytest.raises(DataError, match="it was changed"):
        load_split(tmp_path / "split.json")


def test_what_cannot_be_split(tmp_path: Path) -> None:
    """Shares that are none, sides that stay empty, data that is none, files that are none."""
    for share in (0, 1, "half"):
        with pytest.raises(BadInput, match="a share between 0 and 1"):
            split(QUESTIONS, share)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="leave none to train"):
        split(QUESTIONS[:1], 0.999)
    with pytest.raises(DataError, match="empty"):
        split([])
    with pytest.raises(BadInput, match="one of them is 7"):
        split([7])
    with pytest.raises(DataError, match="mark its inputs"):
        split([dspy.Example(question="?")])
    (tmp_path / "no.json").write_text("[]", "utf-8")
    with pytest.raises(DataError, match="not a saved split"):
        load_split(tmp_path / "no.json")
