"""Test splits that are frozen: whether a question is in the test set depends on its content and the salt alone.

    sides = split(examples, test=0.3, seed=7)
    train, test = ([examples[i] for i in side] for side in (sides.train, sides.test))
    sides.save("split.json")

    again = load_split("split.json").on(more)        # the same test questions; refused where one has changed

A question's hash lies below `test` or not: neither the order of the data nor what else is there moves it. More rows
extend both sides. Questions of one group (a document, a conversation) are on one side, and so are questions that differ
only in case, white space and punctuation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from escalade.errors import BadInput, DataError
from escalade.evals.loading.contents import GROUP, Contents, contents, fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.evals.loading.contents import Data

    Ints = NDArray[np.int64]

__all__ = ["Split", "load_split", "split"]

Unit = Literal["group", "text", "key"]
QUESTION = "question"

FORMAT = "split/1"
NAMED = 3
"""An error names so many questions and counts the rest."""


@dataclass(frozen=True)
class Split:
    """`share`: of the test set, in expectation. `seed`: the salt. `by`: as `split` takes it. `unit`: what is hashed.

    `train`, `test`: indices of rows of the data that it was made for, in their order; empty for one that was loaded.
    `frozen`: 16 hex digits for each distinct question of the test set, in order; they change when the question does.
    """

    share: float
    seed: int
    by: str
    unit: Unit
    frozen: tuple[str, ...]
    train: Ints
    test: Ints

    @property
    def digest(self) -> str:
        """16 hex digits of the test set and the way it was chosen."""
        return fingerprint(FORMAT, repr(self.share), repr(self.seed), self.by, self.unit, *self.frozen)

    def on(self, data: Data, *, extend: bool = False) -> Split:
        """This split of these rows. `extend`: let new questions into the test set.

        Raises DataError where a question of the frozen test set is gone or has changed, and, unless it may be extended,
        for new questions that belong into it: figures of different test sets can't be compared.
        """
        now = _of(contents(data, group=None if self.by == QUESTION else self.by), self.share, self.seed, self.by)
        if self.unit != now.unit:
            told = f"the frozen split is by the {self.unit} of questions, that of this data would be by {now.unit}"
            raise DataError(f"{told}: load the data with what it had")
        gone, new = set(self.frozen) - set(now.frozen), set(now.frozen) - set(self.frozen)
        if gone:
            told = f"{len(gone)} of its {len(self.frozen)} questions are gone or have changed ({_named(gone)})"
            raise DataError(f"the test set isn't the frozen one: {told}; restore them, or make a new split")
        if new and not extend:
            told = f"{len(new)} new questions belong into the frozen test set of {len(self.frozen)}"
            raise DataError(f"{told}; say extend=True to let it grow (figures of before are of fewer questions)")
        return now

    def save(self, path: str | Path) -> Path:
        """Write it as JSON; questions are in it as hashes only. Raises DataError."""
        path = Path(path)
        whole = {"escalade": FORMAT, "digest": self.digest, "share": self.share, "seed": self.seed}
        whole |= {"by": self.by, "unit": self.unit, "test": list(self.frozen)}
        try:
            path.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
        return path


def split(data: Data, test: float = 0.3, *, seed: int = 0, by: str | None = GROUP) -> Split:
    """Split outcomes, examples or texts. `test`: share of the test set in 0..1, in expectation.

    `by`: what stays together: "group" are the groups of data that has any; a field of examples, "category" or a feature
    of outcomes; None or "question" are single questions. Where the texts of questions aren't known, their keys stand
    for them. Raises BadInput, UnknownName, and DataError where a side is empty.
    """
    if not isinstance(test, int | float) or not 0 < test < 1:
        raise BadInput(f"test: a share between 0 and 1, like 0.3, not {test!r}")
    by = by or QUESTION
    one = contents(data, group=None if by == QUESTION else by)
    found = _of(one, float(test), seed, by)
    if not len(found.test) or not len(found.train):
        side = "test" if not len(found.test) else "train"
        told = f"{one.n} questions and a test share of {test:g} leave none to {side}"
        raise DataError(f"{told}; take another share, or more questions")
    return found


def load_split(path: str | Path) -> Split:
    """A saved split, to be laid `on` data. Raises DataError where the file isn't one, or was changed."""
    path, none = Path(path), np.array([], dtype=np.int64)
    try:
        whole: Any = json.loads(path.read_text("utf-8"))
        frozen, by = tuple(str(one) for one in whole["test"]), str(whole["by"])
        found = Split(float(whole["share"]), int(whole["seed"]), by, whole["unit"], frozen, none, none)
        said = whole["digest"]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a saved split ({type(error).__name__}: {error})") from None
    if said != found.digest:
        raise DataError(f"{path}: its digest is {said}, and what stands in it has {found.digest}: it was changed")
    return found


def _of(one: Contents, share: float, seed: int, by: str) -> Split:
    unit: Unit = "group" if one.groups is not None else "key" if one.texts is None else "text"
    chosen = _chosen(one.questions if one.groups is None else one.groups, share, seed)
    blank = Split(share, seed, by, unit, (), np.flatnonzero(~chosen), np.flatnonzero(chosen))
    inside = {fingerprint(one.exact[i]) for i in blank.test.tolist()}
    return replace(blank, frozen=tuple(sorted(inside)))


def _chosen(units: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Whose hash, as a number in 0..1, lies below the share."""
    places = {unit: _place(seed, unit) for unit in set(units)}
    return np.fromiter((places[unit] < share for unit in units), dtype=bool, count=len(units))


def _place(seed: int, unit: str) -> float:
    raw = blake2b(f"split\0{seed}\0{unit}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(raw, "big") / 2**64


def _named(digests: set[str]) -> str:
    first = sorted(digests)[:NAMED]
    return ", ".join(first) + (f" and {len(digests) - NAMED} more" if len(digests) > NAMED else "")
