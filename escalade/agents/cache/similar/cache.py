"""The index of questions that were answered, and a threshold whose false hits are measured.

    similar = SimilarityCache()
    print(similar.calibrate(pairs))          # [(one question, another, do they have the same answer?), ...]
    cache = ResponseCache("answers", similar=similar)

A false hit is worse than a miss, so nothing is matched before `calibrate` has found a threshold: the lowest at which
the share of false hits among pairs with different answers is at most `max_false_hits`, by an upper bound (Clopper and
Pearson 1934) that holds with probability `sure`. Thresholds are tried from 1 downwards until the first one fails, which
keeps that probability for the one that is taken (fixed-sequence testing, Maurer et al. 1995).
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from escalade.agents.cache.similar.ngrams import HashedNgrams
from escalade.agents.cache.similar.rails import Gist, gist
from escalade.errors import BadInput

Array = np.ndarray[Any, Any]
Embed = Callable[[list[str]], Any]
Pair = tuple[str, str, bool]

_STEPS = tuple(step / 100 for step in range(100, 49, -1))
_REMEMBERED = 512


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a threshold was measured at. `same`, `different`: pairs; `hits`, `false_hits`: how many of them match.
    `bound`: the share of false hits is at most that, with probability `sure`.
    """

    threshold: float
    same: int
    hits: int
    different: int
    false_hits: int
    bound: float
    sure: float

    @property
    def hit_rate(self) -> float:
        """Of pairs with the same answer, the share that matches; nan without any."""
        return self.hits / self.same if self.same else math.nan


class SimilarityCache:
    """Which question that was answered is nearly this one.

    `embed`: texts -> (n, d) vectors, such as a model of your own, or `gateway.embedder(name)`; hashed n-grams without.
    `threshold`: cosine similarity from which on two questions are the same; None until `calibrate` has found it.
    `words`: whether all words that carry meaning must be the same; by default so for vectors that only see letters.
    `entries`: questions that are remembered, in this process. Raises BadInput.
    """

    def __init__(
        self,
        embed: Embed | None = None,
        *,
        threshold: float | None = None,
        words: bool | None = None,
        entries: int = 5_000,
    ) -> None:
        if threshold is not None and not 0 < threshold <= 1:
            raise BadInput(f"threshold: expected a similarity above 0, up to 1, got {threshold!r}")
        if entries < 1:
            raise BadInput(f"entries: expected 1 or more, got {entries!r}")
        self.embed: Any = HashedNgrams() if embed is None else embed
        self.threshold, self._entries = threshold, entries
        self.words = embed is None if words is None else words
        self._lock = threading.RLock()
        self._buckets: dict[Any, _Bucket] = {}
        self._order: OrderedDict[str, Any] = OrderedDict()
        self._vectors: OrderedDict[str, Array] = OrderedDict()

    def calibrate(self, pairs: Iterable[Pair], *, max_false_hits: float = 0.01, sure: float = 0.95) -> Calibration:
        """Take the lowest threshold that is safe by these pairs. Raises BadInput when they are too few to say so of
        any, and says how many it takes.
        """
        pairs = list(pairs)
        wrong = [pair for pair in pairs if len(pair) != 3]
        if wrong or not 0 < max_false_hits < 1 or not 0 < sure < 1:
            raise BadInput("calibrate: expected (one, another, same answer?) and shares between 0 and 1")
        if copies := len(pairs) - len({(frozenset((one, another)), same) for one, another, same in pairs}):
            raise BadInput(f"calibrate: {copies} pairs are there more than once, which would prove more than they do")
        different = sum(not same for *_, same in pairs)
        needed = math.ceil(math.log(1 - sure) / math.log(1 - max_false_hits))
        if different < needed:
            raise BadInput(
                f"calibrate: at most {max_false_hits:.2%} false hits can't be told from {different} pairs with "
                f"different answers: it takes {needed}, if none of them matches"
            )
        if isinstance(self.embed, HashedNgrams):
            self.embed = self.embed.fitted([text for one, another, _ in pairs for text in (one, another)])
        self.clear()
        near = self.measured(pairs)
        best: Calibration | None = None
        for threshold in _STEPS:
            now = _at(near, pairs, threshold, sure)
            if now.bound > max_false_hits:
                break
            best = now
        if best is None:
            raise BadInput(
                f"calibrate: of {different} pairs with different answers {_at(near, pairs, 1.0, sure).false_hits} are "
                f"taken for the same at any threshold: no threshold has at most {max_false_hits:.2%} false hits"
            )
        self.threshold = best.threshold
        return best

    def evaluate(self, pairs: Iterable[Pair], *, sure: float = 0.95) -> Calibration:
        """The figures of the threshold on other pairs: those that it was not chosen by."""
        pairs = list(pairs)
        return _at(self.measured(pairs), pairs, self._needed(), sure)

    def measured(self, pairs: Sequence[Pair]) -> list[float]:
        """How near the two of each pair are; -1 where something must be the same and isn't."""
        first, second = [one for one, _, _ in pairs], [another for _, another, _ in pairs]
        one, another = (_unit(np.asarray(self.embed(texts), dtype=np.float32)) for texts in (first, second))
        near = np.einsum("ij,ij->i", one, another)
        gists = [(gist(a, words=self.words), gist(b, words=self.words)) for a, b in zip(first, second, strict=True)]
        return [float(n) if a == b and a is not None else -1.0 for n, (a, b) in zip(near, gists, strict=True)]

    # -- the index

    def find(self, family: str, question: str) -> str | None:
        """The key of the nearest question of this family that is near enough, None without one."""
        place = self._place(family, question)
        return None if place is None else self._nearest(place, self._vector(question))

    async def afind(self, family: str, question: str) -> str | None:
        """`find`; awaits an embedder that has an `acall`."""
        place = self._place(family, question)
        if place is None:
            return None
        if hasattr(self.embed, "acall") and question not in self._vectors:
            self._remember(question, np.asarray(await self.embed.acall([question]), dtype=np.float32))
        return self._nearest(place, self._vector(question))

    def learn(self, family: str, question: str, key: str) -> None:
        """This question was answered; the answer is kept under `key`."""
        if question not in self._vectors and not isinstance(self.embed, HashedNgrams):
            return  # it may cost, wait or fail: that is for `find` alone
        place = self._place(family, question)
        if place is None:
            return
        vector = self._vector(question)
        with self._lock:
            if key in self._order:
                return
            self._buckets.setdefault(place, _Bucket()).add(key, vector)
            self._order[key] = place
            while len(self._order) > self._entries:
                self.forget(next(iter(self._order)))

    def forget(self, key: str) -> None:
        """The answer is there no more."""
        with self._lock:
            place = self._order.pop(key, None)
            if place is not None and self._buckets[place].drop(key) == 0:
                del self._buckets[place]

    def clear(self) -> None:
        """Forget all questions."""
        with self._lock:
            self._buckets, self._order, self._vectors = {}, OrderedDict(), OrderedDict()

    def __len__(self) -> int:
        return len(self._order)

    def _needed(self) -> float:
        if self.threshold is None:
            raise BadInput("a similarity cache has no threshold yet: calibrate it on pairs of questions, or say one")
        return self.threshold

    def _place(self, family: str, question: str) -> tuple[str, Gist] | None:
        """Where its equals are; None for one that has none."""
        told = None if self.threshold is None else gist(question, words=self.words)
        return None if told is None else (family, told)

    def _nearest(self, place: Any, vector: Array) -> str | None:
        with self._lock:
            bucket = self._buckets.get(place)
            return None if bucket is None else bucket.nearest(vector, self._needed())

    def _vector(self, question: str) -> Array:
        known = self._vectors.get(question)
        if known is not None:
            return known
        return self._remember(question, np.asarray(self.embed([question]), dtype=np.float32))

    def _remember(self, question: str, vectors: Array) -> Array:
        vector: Array = _unit(vectors.reshape(1, -1))[0]
        with self._lock:
            self._vectors[question] = vector
            while len(self._vectors) > _REMEMBERED:
                self._vectors.popitem(last=False)
        return vector


class _Bucket:
    """Questions with the same gist: a matrix that grows by halves, and their keys."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._rows: Array | None = None

    def add(self, key: str, vector: Array) -> None:
        count = len(self._keys)
        if self._rows is None:
            self._rows = np.zeros((4, len(vector)), dtype=np.float32)
        elif count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros((count // 2 + 1, len(vector)), dtype=np.float32)])
        self._rows[count] = vector
        self._keys.append(key)

    def drop(self, key: str) -> int:
        """How many are left."""
        at, last = self._keys.index(key), len(self._keys) - 1
        assert self._rows is not None  # noqa: S101 - it has a row
        self._keys[at], self._rows[at] = self._keys[last], self._rows[last]
        self._keys.pop()
        return last

    def nearest(self, vector: Array, threshold: float) -> str | None:
        assert self._rows is not None  # noqa: S101 - buckets are never empty
        near = self._rows[: len(self._keys)] @ vector
        best = int(np.argmax(near))
        return self._keys[best] if near[best] >= threshold - 1e-6 else None


def binomial_bound(hits: int, tries: int, sure: float) -> float:
    """The share is at most that, with probability `sure`: Clopper and Pearson's one-sided upper bound."""
    if hits >= tries:
        return 1.0
    low, high = hits / tries, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(hits, tries, middle) > 1 - sure:
            low = middle
        else:
            high = middle
    return high


def _at_most(hits: int, tries: int, share: float) -> float:
    """P(X <= hits) for X ~ Binomial(tries, share)."""
    if share >= 1.0:
        return 0.0
    return math.fsum(
        math.exp(
            math.lgamma(tries + 1)
            - math.lgamma(k + 1)
            - math.lgamma(tries - k + 1)
            + k * math.log(share or 5e-324)
            + (tries - k) * math.log1p(-share)
        )
        for k in range(hits + 1)
    )


def _at(near: list[float], pairs: Sequence[Pair], threshold: float, sure: float) -> Calibration:
    matched = [n >= threshold - 1e-6 for n in near]
    same, different = sum(s for *_, s in pairs), sum(not s for *_, s in pairs)
    hits = sum(m and s for m, (*_, s) in zip(matched, pairs, strict=True))
    wrong = sum(matched) - hits
    bound = binomial_bound(wrong, different, sure) if different else 1.0
    return Calibration(threshold, same, hits, different, wrong, bound, sure)


def _unit(vectors: Array) -> Array:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms == 0, 1, norms), dtype=np.float32)
