"""Vectors of short texts by their letters: hashed n-grams of characters and words, weighted by how rare they are.

No model, no download, the same on every machine. They see spelling and order, not meaning; nor politeness, which
is taken out before.

    weight = (1 + ln tf) * idf,   idf = ln((1 + N) / (1 + df)) + 1     (smoothed TF-IDF)

Features are hashed to `dims` numbers with a sign (Weinberger et al. 2009), so that collisions cancel on average.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from escalade.agents.cache.similar.rails import plain

Array = np.ndarray[Any, Any]

_WORD = re.compile(r"\w+|[^\w\s]")


class HashedNgrams:
    """`embed(texts)`: (n, dims) float32, of length 1 each. `idf`: (dims,) weights; None weighs all the same."""

    def __init__(self, dims: int = 256, idf: Array | None = None) -> None:
        self.dims, self._idf = dims, idf

    def fitted(self, texts: Sequence[str]) -> HashedNgrams:
        """The same, with what is frequent in these texts weighing less."""
        df = np.zeros(self.dims)
        for text in texts:
            df[list({index for index, _, _ in self._features(text)})] += 1
        return HashedNgrams(self.dims, np.log((1 + len(texts)) / (1 + df)) + 1)

    def __call__(self, texts: Sequence[str]) -> Array:
        out = np.zeros((len(texts), self.dims), dtype=np.float32)
        for row, text in zip(out, texts, strict=True):
            for index, sign, weight in self._features(text):
                row[index] += sign * weight
        if self._idf is not None:
            out *= self._idf.astype(np.float32)
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        return np.asarray(out / np.where(norms == 0, 1, norms), dtype=np.float32)

    def _features(self, text: str) -> Iterable[tuple[int, int, float]]:
        counts = Counter(_ngrams(_WORD.findall(plain(text))))
        for ngram, count in counts.items():
            code = zlib.crc32(ngram.encode("utf-8", "surrogatepass"))
            yield code % self.dims, 1 if code >> 31 else -1, 1.0 + float(np.log(count))


def _ngrams(words: list[str]) -> Iterable[str]:
    for at, word in enumerate(words):
        padded = f" {word} "
        yield "w" + word
        yield from (padded[i : i + 3] for i in range(len(padded) - 2))
        if at:
            yield f"b{words[at - 1]} {word}"
