"""Duplicates in a data set, and questions of a test set that stand in the training set, too.

    duplicates(outcomes)                  within one set
    overlap(train, test)                  between two

Exact: the same normal form, without case, white space and punctuation, with all numbers. Near: a Jaccard similarity of
NEAR or more between the three-word shingles of the normal forms (`_near.py`). Questions whose texts aren't known are
compared by their keys alone, and that is said. What is alike isn't always the same: options, pictures or a context that
aren't in the text may tell two questions apart.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from escalade.errors import BadInput
from escalade.evals.loading._near import near_pairs
from escalade.evals.loading.contents import Contents, contents

if TYPE_CHECKING:
    from escalade.evals.loading.contents import Data
    from escalade.evals.outcomes import Outcomes

NEAR = 0.8
"""From this similarity on two questions are near duplicates."""

_NUMBERS = re.compile(r"-?\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Alike:
    """Two different questions by their keys, and their similarity, 1 for equal normal forms.

    `numbers`: do they differ in their numbers alone? Then they may have different answers.
    """

    one: str
    other: str
    similarity: float
    numbers: bool = False


@dataclass(frozen=True)
class Duplicates:
    """Of `n` distinct questions. `by_text`: False where only keys could be compared.

    `exact`: groups of keys whose texts have one normal form. `near`: pairs of questions, most similar first, each
    normal form once. `changed`: keys whose text isn't the same on all of their rows. `labels`: groups of keys of one
    normal form that ask for different answers. `thinned`: there were so many similar texts that not all pairs of them
    were compared.
    """

    n: int
    by_text: bool
    exact: tuple[tuple[str, ...], ...] = ()
    near: tuple[Alike, ...] = ()
    changed: tuple[str, ...] = ()
    labels: tuple[tuple[str, ...], ...] = ()
    thinned: bool = False

    @property
    def found(self) -> bool:
        """Is there any?"""
        return bool(self.exact or self.near or self.changed or self.labels)

    @property
    def said(self) -> tuple[str, ...]:
        """One line for each kind that was found, with figures."""
        return tuple(_said(self))


@dataclass(frozen=True)
class Overlap:
    """Questions of a test set that are in the training set: `exact`, `near` pairs (one of train, one of test).

    `share`: of the test set's distinct questions that are in one of them.
    """

    n_train: int
    n_test: int
    by_text: bool
    exact: tuple[Alike, ...] = ()
    near: tuple[Alike, ...] = ()
    thinned: bool = False

    @property
    def share(self) -> float:
        leaked = {pair.other for pair in (*self.exact, *self.near)}
        return len(leaked) / self.n_test if self.n_test else 0.0

    @property
    def said(self) -> str:
        """In one sentence, with figures."""
        how = "" if self.by_text else " (by key alone: texts aren't known)"
        if not self.exact and not self.near:
            return f"none of {self.n_test:,} test questions is among the {self.n_train:,} of the training set{how}"
        near = f", {_near_said(self.near)}" if self.near else ""
        return (
            f"{self.share:.1%} of {self.n_test:,} test questions are in the training set: "
            f"{len(self.exact):,} exactly{near}{how}"
        )


def duplicates(data: Data, *, near: float = NEAR) -> Duplicates:
    """`data`: outcomes, examples or texts. `near`: the least similarity in 0..1; 1 looks for exact ones alone.

    Raises BadInput, DataError.
    """
    if not 0 < near <= 1:
        raise BadInput(f"near: a similarity above 0, and 1 at most, like 0.8, not {near!r}")
    one = contents(data)
    return _duplicates(one.keys, one.texts, one.labels, near)


def overlap(train: Data, test: Data, *, near: float = NEAR) -> Overlap:
    """Which questions of `test` are in `train`. Texts are compared where both have them, else keys. Raises BadInput."""
    if not 0 < near <= 1:
        raise BadInput(f"near: a similarity above 0, and 1 at most, like 0.8, not {near!r}")
    first, second = contents(train), contents(test)
    by_text = first.texts is not None and second.texts is not None
    of_train, of_test = _by_normal(first, by_text=by_text), _by_normal(second, by_text=by_text)
    exact = tuple(Alike(of_train[text], key, 1.0) for text, key in of_test.items() if text in of_train)
    near_ones, thinned = ((), False) if not by_text or near == 1 else _near_between(of_train, of_test, near)
    return Overlap(len(of_train), len(of_test), by_text, exact, near_ones, thinned)


def with_notes(outcomes: Outcomes) -> Outcomes:
    """With a note on each kind of duplicates, to be shown before any figure; those that it has already stay once."""
    told = [note for note in duplicates(outcomes).said if note not in outcomes.notes]
    return replace(outcomes, notes=(*outcomes.notes, *told)) if told else outcomes


@lru_cache(maxsize=8)
def _duplicates(
    keys: tuple[str, ...], texts: tuple[str, ...] | None, labels: tuple[str, ...] | None, near: float
) -> Duplicates:
    """By what the questions are, so that a data set is searched once however often it is asked about."""
    if texts is None:
        return Duplicates(len(set(keys)), by_text=False)
    one = Contents(keys, texts, labels, None, texts)
    groups: defaultdict[str, dict[str, None]] = defaultdict(dict)
    asked: defaultdict[str, set[str]] = defaultdict(set)
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for i, (key, text) in enumerate(zip(keys, one.questions, strict=True)):
        groups[text][key] = None
        asked[key].add(text)
        wanted[text].add("" if labels is None else labels[i])
    pairs, thinned = ([], False) if near == 1 else near_pairs(list(groups), near)
    names, firsts = list(groups), [next(iter(of)) for of in groups.values()]
    return Duplicates(
        n=len(set(keys)),
        by_text=True,
        exact=tuple(tuple(of) for of in groups.values() if len(of) > 1),
        near=tuple(Alike(firsts[i], firsts[j], s, _numbers(names[i], names[j])) for i, j, s in pairs),
        changed=tuple(key for key, of in asked.items() if len(of) > 1),
        labels=tuple(tuple(groups[text]) for text, of in wanted.items() if len(of) > 1),
        thinned=thinned,
    )


def _by_normal(one: Contents, *, by_text: bool) -> dict[str, str]:
    """Key of the first question of each normal form."""
    found: dict[str, str] = {}
    for text, key in zip(one.questions if by_text else one.keys, one.keys, strict=True):
        found.setdefault(text, key)
    return found


def _near_between(train: dict[str, str], test: dict[str, str], near: float) -> tuple[tuple[Alike, ...], bool]:
    mine = [text for text in test if text not in train]
    names = [*train, *mine]
    side = np.arange(len(names)) >= len(train)
    pairs, thinned = near_pairs(names, near, side)
    told = (Alike(train[names[i]], test[names[j]], s, _numbers(names[i], names[j])) for i, j, s in pairs)
    return tuple(told), thinned


def _numbers(one: str, other: str) -> bool:
    return _NUMBERS.sub("0", one) == _NUMBERS.sub("0", other)


def _said(found: Duplicates) -> Iterator[str]:
    if found.exact:
        extra = sum(len(keys) - 1 for keys in found.exact)
        yield (
            f"{extra:,} of {found.n:,} questions have the text of another one ({_first(found.exact)}): "
            "they don't count as independent evidence, and may be on both sides of a fold"
        )
    if found.near:
        yield f"of {found.n:,} questions {_near_said(found.near)}"
    if found.thinned:
        yield "so many questions are alike that not all pairs of them were compared: there may be more"
    if found.changed:
        yield f"{len(found.changed):,} keys have different texts on different rows ({found.changed[0]})"
    if found.labels:
        yield f"{len(found.labels):,} questions ask the same for different answers ({_first(found.labels)})"


def _near_said(pairs: Sequence[Alike]) -> str:
    numbers = sum(pair.numbers for pair in pairs)
    more = f", {numbers:,} of them in numbers alone" if numbers else ""
    return f"{len(pairs):,} pairs differ in few words{more} (such as {pairs[0].one} and {pairs[0].other})"


def _first(groups: Sequence[Sequence[str]]) -> str:
    largest = max(groups, key=len)
    return "such as " + ", ".join(largest[:2]) + (f" and {len(largest) - 2} more" if len(largest) > 2 else "")
