"""Folds: which question is held out when, decided by a hash of its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.climb import Decision, Policy, View
from escalade.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray


def assign_folds(
    keys: Sequence[str], folds: int = 5, seed: int = 0, *, group: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Fold of each question, `(n,)` int64 in 0..folds-1. `group`: n names, dealt out in place of the keys.

    The distinct keys are sorted by a hash of seed and key and dealt out in turn: so the folds depend on the set of keys
    and the seed, never on the order of the data, sizes differ by at most one distinct key, and rows with the same key
    share a fold (a duplicate on both sides would be a leak). Raises BadInput with fewer than 2 folds, or fewer distinct
    keys than folds.
    """
    what = "questions" if group is None else "groups"
    keys = keys if group is None else group
    distinct = sorted(set(keys), key=lambda key: (_hash(seed, key), key))
    if folds < 2:
        raise BadInput(f"cross-fitting needs 2 folds or more, not {folds}")
    if len(distinct) < folds:
        raise BadInput(f"{len(distinct)} distinct {what} can't be dealt out to {folds} folds; use fewer folds")
    fold = {key: rank % folds for rank, key in enumerate(distinct)}
    return np.fromiter((fold[key] for key in keys), dtype=np.int64, count=len(keys))


def shuffled(keys: Sequence[str], seed: int = 0) -> NDArray[np.int64]:
    """Indices of the questions in an order that depends on the keys and the seed, never on the order of the data.

    Rows with the same key follow each other in the order of the data.
    """
    return np.array(sorted(range(len(keys)), key=lambda i: (_hash(seed, keys[i], "order"), keys[i])), dtype=np.int64)


@dataclass(frozen=True)
class ByFold:
    """Several policies as one: the fold of the question's key says which of them decides."""

    name: str
    policies: tuple[Policy, ...]
    fold: Mapping[str, int]

    def decide(self, view: View) -> Decision:
        return self.policies[self.fold[view.key]].decide(view)


def _hash(seed: int, key: str, what: str = "fold") -> bytes:
    return blake2b(f"{what}\0{seed}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
