"""Search in a catalogue: BM25 over names, tags, owners and descriptions.

Scores are worked out over the tools that the searcher may see and over nothing else, so that not even a score tells of
a tool that he may not see. A word also finds longer words that begin with it ("cust" finds "customers"), at half the
weight. BM25: Robertson and Zaragoza, The Probabilistic Relevance Framework (2009), with k1 = 1.2 and b = 0.75.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from escalade.registry.tools import ToolSpec

_WEIGHTS = {"name": 4.0, "tags": 3.0, "owner": 2.0, "description": 1.0}
_PREFIX, _SHORTEST = 0.5, 3
_K1, _B = 1.2, 0.75
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_a-zA-Z]+")


@dataclass(frozen=True, slots=True)
class Found:
    """A tool that fits a query. `score`: above 0, comparable within one search only; 0 for an empty query."""

    spec: ToolSpec
    score: float


def rank(query: str, specs: Iterable[ToolSpec], limit: int | None = None) -> list[Found]:
    """Those of the specs that have something of the query, best first, by name among equals. An empty query finds all,
    by name.
    """
    specs = list(specs)
    wanted = list(dict.fromkeys(words(query)))
    if not wanted:
        found = [Found(spec, 0.0) for spec in sorted(specs, key=lambda spec: spec.name)] if not query.strip() else []
        return found[:limit]
    pages = [_page(spec.name, spec.tags, spec.owner, spec.description) for spec in specs]
    average = sum(length for _, length in pages) / len(pages) if pages else 1.0
    scores = [0.0] * len(pages)
    for word in wanted:
        weights = [_weight(word, page) for page, _ in pages]
        having = sum(weight > 0 for weight in weights)
        rarity = math.log(1 + (len(pages) - having + 0.5) / (having + 0.5))
        for i, weight in enumerate(weights):
            if weight:
                scores[i] += rarity * weight * (_K1 + 1) / (weight + _K1 * (1 - _B + _B * pages[i][1] / average))
    ranked = sorted(
        (Found(spec, score) for spec, score in zip(specs, scores, strict=True) if score > 0),
        key=lambda found: (-found.score, found.spec.name),
    )
    return ranked[:limit]


@functools.lru_cache(maxsize=20_000)
def words(text: str) -> tuple[str, ...]:
    """`crm.searchCustomers` is: crm, search, customer. Plurals are cut, roughly and on both sides alike."""
    return tuple(_singular(word.lower()) for word in _WORD.findall(text))


@functools.lru_cache(maxsize=20_000)
def _page(name: str, tags: tuple[str, ...], owner: str, description: str) -> tuple[dict[str, float], float]:
    """How much of each word there is, by the weights of the fields, and how long the whole is."""
    fields = {"name": name, "tags": " ".join(tags), "owner": owner, "description": description}
    counted: Counter[str] = Counter()
    for field, text in fields.items():
        for word in words(text):
            counted[word] += _WEIGHTS[field]  # type: ignore[assignment]
    return dict(counted), sum(counted.values()) or 1.0


def _weight(word: str, page: dict[str, float]) -> float:
    exact = page.get(word, 0.0)
    if exact or len(word) < _SHORTEST:
        return exact
    return _PREFIX * max((weight for other, weight in page.items() if other.startswith(word)), default=0.0)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
