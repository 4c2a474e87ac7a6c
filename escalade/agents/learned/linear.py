"""Ridge regression on facts and on words (TF-IDF of hashed words), with the penalty that predicts best.

Source: Hoerl & Kennard 1970, "Ridge regression", Technometrics 12:55; the penalty by leave-one-out error in closed form
(Allen 1974, PRESS, Technometrics 16:125). TF-IDF: (1 + log-scaled counts) x smoothed inverse frequency, length 1.
A target of -1, 0 and 1 needs no logistic: what is fitted is the expected gain itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING, Any, ClassVar

from escalade.agents._saving import Saved, register
from escalade.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Candidates. Facts are scaled so that together they are as long as the words of a question: 1."""

DIGITS = 6
"""Significant digits that weights are kept with."""


@register
@dataclass(frozen=True, slots=True)
class Linear(Saved):
    """bias + weights . facts + words . TF-IDF.

    `weights`: one per fact. `words`, `idf`: one per bucket of words, both empty for a model without words.
    """

    kind: ClassVar[str] = "linear"
    noun: ClassVar[str] = "model"
    bias: float
    weights: tuple[float, ...]
    words: tuple[float, ...] = ()
    idf: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.words) != len(self.idf):
            raise BadInput(f"a linear model has as many words as frequencies, not {len(self.words)}, {len(self.idf)}")

    def __call__(self, facts: Sequence[float], counts: Mapping[int, int] | None = None) -> float:
        """The prediction. `counts`: occurrences by bucket (`facts.words_of`)."""
        value = float(self.bias + sum(map(mul, self.weights, facts)))
        if not self.words or not counts:
            return value
        shares = {bucket: math.log1p(times) * self.idf[bucket] for bucket, times in counts.items()}
        length = math.sqrt(sum(share * share for share in shares.values()))
        return value + sum(self.words[bucket] * share for bucket, share in shares.items()) / max(length, 1e-12)


def fit_linear(facts: Any, target: Any, counts: Sequence[Mapping[int, int]] = (), size: int = 0) -> tuple[Linear, Any]:
    """(the model; its predictions of each row as if that row had been left out, `(n,)`).

    `facts`: (n, p). `target`: (n,). `counts`: of each row, for `size` buckets of words. Deterministic.
    """
    import numpy as np

    x, y = np.asarray(facts, dtype=np.float64), np.asarray(target, dtype=np.float64)
    middle, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 1e-9, 1.0 / np.maximum(spread, 1e-9), 0.0) / math.sqrt(max(1, x.shape[1]))
    columns, idf = (x - middle) * scale, np.zeros(0)
    if size:
        words, idf = _tf_idf(counts, size)
        columns = np.hstack([columns, words])
    weights, bias, left_out = _ridge(columns, y)
    own = weights[: x.shape[1]] * scale
    model = Linear(
        bias=_short(bias - float(own @ middle)),
        weights=tuple(map(_short, own.tolist())),
        words=tuple(map(_short, weights[x.shape[1] :].tolist())),
        idf=tuple(map(_short, idf.tolist())),
    )
    return model, left_out


def _ridge(x: Floats, y: Floats) -> tuple[Floats, float, Floats]:
    """(weights, bias, leave-one-out predictions) with the penalty of the least leave-one-out error."""
    import numpy as np

    center = x.mean(axis=0)
    x = x - center
    value, vector = np.linalg.eigh(x.T @ x)
    z = x @ vector
    along, mean, n = z.T @ (y - y.mean()), float(y.mean()), len(y)
    best, error = (np.zeros(x.shape[1]), y), np.inf
    for penalty in PENALTIES:
        shrunk = 1.0 / (np.maximum(value, 0.0) + penalty)
        leverage = np.minimum((z * z) @ shrunk + 1.0 / n, 1.0 - 1e-9)
        left_out = y - (y - mean - z @ (along * shrunk)) / (1.0 - leverage)
        press = float(((y - left_out) ** 2).mean())
        if press < error:
            best, error = (vector @ (along * shrunk), left_out), press
    weights, left_out = best
    return weights, mean - float(weights @ center), left_out


def _tf_idf(counts: Sequence[Mapping[int, int]], size: int) -> tuple[Floats, Floats]:
    """(n, size) rows of length 1, and the inverse frequencies `(size,)`."""
    import numpy as np

    table = np.zeros((len(counts), size))
    for row, found in enumerate(counts):
        for bucket, times in found.items():
            table[row, bucket] = math.log1p(times)
    idf = np.log((1.0 + len(counts)) / (1.0 + (table > 0).sum(axis=0))) + 1.0
    table *= idf
    length = np.sqrt((table * table).sum(axis=1, keepdims=True))
    return table / np.maximum(length, 1e-12), idf


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
