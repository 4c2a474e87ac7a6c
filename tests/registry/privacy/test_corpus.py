"""How much is found, and how much else: measured on a seeded corpus that `corpus.py` makes."""

from __future__ import annotations

import functools
from collections import Counter

import pytest

from escalade.registry.privacy import TYPES, Redactor
from escalade.registry.privacy.phones import REGIONS
from tests.registry.privacy.corpus import Item, negatives, positives

SEED, EACH, NEGATIVES = 20_260_301, 300, 4_000
KINDS = tuple(sorted(TYPES))


@functools.cache
def outcomes(regions: tuple[str, ...]) -> tuple[Counter[str], Counter[str], list[str]]:
    """Type -> rightly found; type -> found where there is none; and the texts that went wrong."""
    redactor, right, wrong, texts = Redactor(regions=regions), Counter[str](), Counter[str](), []
    for item in positives(SEED, EACH) + negatives(SEED, NEGATIVES):
        clean = redactor.redact(item.text)
        expected = item.text.replace(item.value, f"<{item.kind}>") if item.kind else item.text
        right[item.kind] += clean.text == expected
        others = Counter(clean.counts) - Counter({item.kind: 1})
        wrong += others
        texts += [f"{item.text!r} -> {clean.text!r}"] if clean.text != expected or others else []
    return right, wrong, texts


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("regions", [(), REGIONS], ids=["built-in", "phonenumbers"])
def test_recall_and_precision(kind: str, regions: tuple[str, ...]) -> None:
    """Of each type at least 99 % are replaced, exactly and under their name; of the finds, at least 95 % are right.

    The same with and without the extra.
    """
    if regions:
        pytest.importorskip("phonenumbers")
    right, wrong, texts = outcomes(regions)
    recall, precision = right[kind] / EACH, right[kind] / max(right[kind] + wrong[kind], 1)
    print(f"{kind}: recall {recall:.4f}, precision {precision:.4f}")
    assert recall >= 0.99, texts[:20]
    assert precision >= 0.95, texts[:20]


def test_size() -> None:
    """The corpus has at least 5,000 items, every type among them, and most of them different."""
    items = positives(SEED, EACH) + negatives(SEED, NEGATIVES)
    assert len(items) >= 5_000
    assert {item.kind for item in items} == {*TYPES, ""}
    assert len({item.text for item in items}) > 0.9 * len(items)


@pytest.mark.slow
def test_hard_negatives_stay() -> None:
    """At least 99 % of what only looks like personal data is left as it is."""
    redactor = Redactor()
    items = negatives(SEED + 1, NEGATIVES)
    touched: list[Item] = [item for item in items if redactor.redact(item.text).counts]
    assert len(touched) <= 0.01 * len(items), touched[:20]
