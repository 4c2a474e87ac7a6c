"""Which texts of many are nearly the same: MinHash over shingles of words, then the Jaccard similarity of each pair.

Shingles are SHINGLE words in a row of the normal form. Of each text BANDS * ROWS minima of hashed shingles are kept;
two texts are compared where all ROWS minima of a band are equal (Broder 1997; Leskovec, Rajaraman and Ullman, Mining
of Massive Datasets, chapter 3). A pair of similarity s is found with probability 1 - (1 - s^4)^16: .9997 at .8, .99 at
.7, .64 at .5. What is said of a pair is its exact similarity, never the estimate.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

SHINGLE, BANDS, ROWS = 3, 16, 4
CROWD, NEIGHBOURS = 300, 8
"""Of more texts than CROWD in one band's bucket, each is compared with the next NEIGHBOURS by their minima alone."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
Pair = tuple[int, int, float]


def near_pairs(normals: Sequence[str], least: float, side: NDArray[np.bool_] | None = None) -> tuple[list[Pair], bool]:
    """((i, j, similarity) with i < j, most similar first; whether crowded buckets were thinned out).

    `normals`: normal forms, distinct ones. `least`: of the similarity. `side`: of each text; only pairs with one on
    either side are told.
    """
    shingles, starts = _shingles(normals)
    if len(starts) < 2 or not len(shingles):
        return [], False
    minima = _minima(shingles, starts)
    pairs, thinned = _candidates(minima, side)
    ends = np.append(starts[1:], len(shingles))
    sets: dict[int, frozenset[int]] = {}

    def bag(i: int) -> frozenset[int]:
        if i not in sets:
            sets[i] = frozenset(shingles[starts[i] : ends[i]].tolist())
        return sets[i]

    found = []
    for i, j in pairs:
        a, b = bag(i), bag(j)
        if min(len(a), len(b)) < least * max(len(a), len(b)):
            continue  # they can't be as similar as that
        both = len(a & b)
        similarity = both / (len(a) + len(b) - both)
        if similarity >= least:
            found.append((i, j, similarity))
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1])), thinned


def _shingles(normals: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """(hashes of the shingles of all texts, where those of each begin). A short text has one: all of it."""
    known: dict[str, int] = {}
    words = [text.split() for text in normals]
    for word in {word for text in words for word in text}:
        raw = word.encode("utf-8", "surrogatepass")
        known[word] = zlib.crc32(raw) << 32 | zlib.crc32(raw, 0x5BD1E995)
    padded = [text + [""] * (SHINGLE - len(text)) for text in words]
    lengths = np.array([len(text) - SHINGLE + 1 for text in padded], dtype=np.int64)
    known[""] = 0
    flat = np.fromiter((known[word] for text in padded for word in text), np.uint64, int((lengths + SHINGLE - 1).sum()))
    rolled = flat[: len(flat) - SHINGLE + 1].copy()
    for step in range(1, SHINGLE):
        rolled = _mixed(rolled) + flat[step : len(flat) - SHINGLE + 1 + step]
    begins = np.append(0, np.cumsum(lengths + SHINGLE - 1)[:-1])
    starts = np.append(0, np.cumsum(lengths)[:-1])
    at = np.arange(int(lengths.sum())) + np.repeat(begins - starts, lengths)
    return _mixed(rolled[at]), starts


def _mixed(values: Hashes) -> Hashes:
    """A permutation of 64 bits (the finalizer of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _minima(shingles: Hashes, starts: NDArray[np.int64]) -> Hashes:
    """`(BANDS * ROWS, n)`: the least of each text's shingles by so many hashes."""
    salts = _mixed(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64) * _MIX)
    return np.stack([np.minimum.reduceat(_mixed(shingles ^ salt), starts) for salt in salts])


def _candidates(minima: Hashes, side: NDArray[np.bool_] | None) -> tuple[list[tuple[int, int]], bool]:
    found: set[tuple[int, int]] = set()
    thinned = False
    for band in range(BANDS):
        rows = minima[band * ROWS : (band + 1) * ROWS]
        key = rows[0].copy()
        for row in rows[1:]:
            key = _mixed(key) + row
        order = np.argsort(key, kind="stable")
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        for bucket in np.split(order, cuts):
            if len(bucket) < 2:
                continue
            crowded = len(bucket) > CROWD
            thinned |= crowded
            members = (bucket[np.lexsort(minima[:, bucket])] if crowded else bucket).tolist()
            for at, i in enumerate(members):
                for j in members[at + 1 : at + 1 + (NEIGHBOURS if crowded else CROWD)]:
                    if side is None or side[i] != side[j]:
                        found.add((min(i, j), max(i, j)))
    return sorted(found), thinned
