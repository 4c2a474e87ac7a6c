"""Folds: balanced, deterministic, and the same for the same question."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.errors import BadInput
from escalade.evals.folds import assign_folds, shuffled

KEYS = [f"question {i}" for i in range(1319)]


@given(st.lists(st.text(), min_size=5, unique=True), st.integers(2, 5), st.integers())
def test_folds_are_balanced(keys: list[str], folds: int, seed: int) -> None:
    """Sizes of folds of distinct questions differ by one at most, and none is empty."""
    sizes = np.bincount(assign_folds(keys, folds, seed), minlength=folds)
    assert len(sizes) == folds
    assert sizes.max() - sizes.min() <= 1
    assert sizes.min() > 0


@given(st.lists(st.sampled_from("abcdefgh"), min_size=20), st.randoms())
def test_duplicates_share_a_fold_and_order_is_nothing(keys: list[str], random: object) -> None:
    """Rows with the same key have the same fold, whatever the order of the rows."""
    keys = [*"abcdefgh", *keys]
    fold = dict(zip(keys, assign_folds(keys, 3).tolist(), strict=True))
    assert assign_folds(keys, 3).tolist() == [fold[key] for key in keys]
    random.shuffle(keys)
    assert assign_folds(keys, 3).tolist() == [fold[key] for key in keys]


def test_folds_depend_on_the_seed_only() -> None:
    """The same in each run and on each machine; another seed gives other folds."""
    assert assign_folds(["a", "b", "c", "d", "e", "f"], 3, seed=0).tolist() == [1, 0, 1, 2, 2, 0]
    assert (assign_folds(KEYS, 5, 1) == assign_folds(KEYS, 5, 1)).all()
    assert (assign_folds(KEYS, 5, 1) != assign_folds(KEYS, 5, 2)).mean() == pytest.approx(0.8, abs=0.05)


def test_too_few_questions() -> None:
    """Fewer than 2 folds and more folds than distinct questions are refused."""
    for keys, folds in ((KEYS, 1), (["a", "a", "b"], 3), ([], 2)):
        with pytest.raises(BadInput):
            assign_folds(keys, folds)


@given(st.lists(st.text(), unique=True), st.integers(), st.randoms())
def test_shuffled_depends_on_keys_and_seed_alone(keys: list[str], seed: int, random) -> None:
    """Every question once, in the same order of keys whatever the order of the data."""
    order = [keys[i] for i in shuffled(keys, seed).tolist()]
    assert sorted(order) == sorted(keys)
    other = keys.copy()
    random.shuffle(other)
    assert [other[i] for i in shuffled(other, seed).tolist()] == order


def test_shuffled_by_seed() -> None:
    """Another seed gives another order, and neither is the data's nor that of the folds."""
    one, two = shuffled(KEYS, 0).tolist(), shuffled(KEYS, 1).tolist()
    assert one != two
    assert one != list(range(len(KEYS)))
    assert abs(np.corrcoef(one, range(len(KEYS)))[0, 1]) < 0.1
