"""What a confidence is worth: does it rank right answers above wrong ones, and is it the chance of being right?

All of it takes two columns `(n,)`: `confidence` in 0..1 and `quality` in 0..1. A quality between 0 and 1 counts as that
share of a right answer and the rest of a wrong one; for labels 0 and 1 everything is what the sources define.

    auroc      P(right answer's confidence > wrong one's) + P(equal) / 2: Mann and Whitney's U; Hanley & McNeil 1982,
               Radiology 143:29. 0.5 says nothing, below 0.5 it is upside down
    brier      mean (confidence - quality)^2: Brier 1950, Monthly Weather Review 78:1
               = reliability - resolution + uncertainty: Murphy 1973, J. Applied Meteorology 12:595, here on the
               distinct values of the confidence, where the identity is exact
    ece        sum over bins of n_b / n |mean confidence - mean quality|: Naeini et al. 2015 (AAAI) with bins of equal
               width, Nguyen & O'Connor 2015 (EMNLP) with bins of equal mass. It depends on the bins and is biased
               upwards in small samples: the number of bins stands with it
    aurc       mean risk (1 - quality) over all coverages 1/n, 2/n, ..., 1, the surest answers first: Geifman & El-Yaniv
               2017, arXiv 1705.08500. Equal confidences are taken in random order, in expectation
    excess     aurc - that of the best order, which takes the right answers first: Geifman, Uziel & El-Yaniv 2019,
               arXiv 1805.08206 (E-AURC); they approximate the best order's, here it is exact for these n answers
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from escalade.agents.climb import OK
from escalade.errors import BadInput
from escalade.evals.outcomes import STATUSES
from escalade.evals.statistics import mean_interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = ["Bin", "Brier", "Confidence", "aurc", "auroc", "brier", "confidence_of", "ece", "reliability"]

BINS = 10
"""Of calibration errors and reliability curves where nobody says how many."""

Binning = Literal["width", "mass"]


@dataclass(frozen=True, slots=True)
class Brier:
    """`score` = `reliability` - `resolution` + `uncertainty`; the smaller the better."""

    score: float
    reliability: float
    resolution: float
    uncertainty: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers with confidences between `low` and `high`: how sure they are and how right, with a 95 % interval."""

    low: float
    high: float
    n: int
    confidence: float
    quality: float
    quality_low: float
    quality_high: float


@dataclass(frozen=True, slots=True)
class Confidence:
    """What the confidence of one rung is worth, on its `n` good attempts that have one. nan is unknown.

    `without`: attempts that failed or have none; they aren't in any figure. `ece`, `ece_mass`: BINS bins of equal
    width, of equal mass.
    """

    rung: str
    n: int
    without: int
    mean: float
    quality: float
    auroc: float
    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    ece: float
    ece_mass: float
    aurc: float
    excess_aurc: float


def auroc(confidence: ArrayLike, quality: ArrayLike) -> float:
    """Area under the ROC curve, ties counted half; nan where no answer is right, or none is wrong. Raises BadInput."""
    sure, right = _columns(confidence, quality)
    of = np.unique(sure, return_inverse=True)[1]
    positive, negative = np.bincount(of, weights=right), np.bincount(of, weights=1.0 - right)
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2.0)).sum() / pairs) if pairs > 0 else math.nan


def brier(confidence: ArrayLike, quality: ArrayLike) -> Brier:
    """The Brier score and its parts. Raises BadInput."""
    sure, right = _columns(confidence, quality)
    values, of = np.unique(sure, return_inverse=True)
    share, seen = np.bincount(of) / len(sure), np.bincount(of, weights=right) / np.bincount(of)
    mean = float(right.mean())
    return Brier(
        score=float(((sure - right) ** 2).mean()),
        reliability=float(share @ (values - seen) ** 2),
        resolution=float(share @ (seen - mean) ** 2),
        uncertainty=float(((right - mean) ** 2).mean()),
    )


def ece(confidence: ArrayLike, quality: ArrayLike, *, bins: int = BINS, binning: Binning = "width") -> float:
    """Expected calibration error. `binning`: bins of equal width, or of equal mass, where equal confidences stay
    together. Raises BadInput.
    """
    sure, right = _columns(confidence, quality)
    of = _bins(sure, bins, binning)
    gaps = np.bincount(of, weights=sure - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


def aurc(confidence: ArrayLike, quality: ArrayLike) -> tuple[float, float]:
    """(area under the risk-coverage curve, what of it is in excess of the best order). Raises BadInput."""
    sure, right = _columns(confidence, quality)
    return _aurc(sure, 1.0 - right), _aurc(sure, 1.0 - right) - _aurc(right, 1.0 - right)


def reliability(
    confidence: ArrayLike, quality: ArrayLike, *, bins: int = BINS, binning: Binning = "mass"
) -> tuple[Bin, ...]:
    """The reliability curve: bins that hold something, the least sure first, with Wilson's interval of the quality
    (Student's t where it isn't 0 or 1). On the diagonal, the confidence is the chance of being right. Raises BadInput.
    """
    sure, right = _columns(confidence, quality)
    of = _bins(sure, bins, binning)
    found = []
    for b in np.unique(of).tolist():
        inside, got = sure[of == b], right[of == b]
        mean, low, high = mean_interval(got)
        found.append(
            Bin(
                float(inside.min()),
                float(inside.max()),
                len(got),
                float(inside.mean()),
                mean,
                max(low, 0.0),
                min(high, 1.0),
            )
        )
    return tuple(found)


def confidence_of(outcomes: Outcomes, rung: int) -> Confidence | None:
    """Of rung number `rung`; None where none of its good attempts has a confidence."""
    sure, right = attempts_of(outcomes, rung)
    if not len(sure):
        return None
    parts, (area, excess) = brier(sure, right), aurc(sure, right)
    return Confidence(
        rung=outcomes.rungs[rung].name,
        n=len(sure),
        without=outcomes.n - len(sure),
        mean=float(sure.mean()),
        quality=float(right.mean()),
        auroc=auroc(sure, right),
        brier=parts.score,
        reliability=parts.reliability,
        resolution=parts.resolution,
        uncertainty=parts.uncertainty,
        ece=ece(sure, right),
        ece_mass=ece(sure, right, binning="mass"),
        aurc=area,
        excess_aurc=excess,
    )


def attempts_of(outcomes: Outcomes, rung: int) -> tuple[Floats, Floats]:
    """(confidence, quality) of the good attempts of a rung that have both."""
    sure, right = outcomes.confidence[:, rung], outcomes.quality[:, rung]
    known = (outcomes.status[:, rung] == STATUSES.index(OK)) & ~np.isnan(sure) & ~np.isnan(right)
    return sure[known], right[known]


def _aurc(score: Floats, loss: Floats) -> float:
    """Mean over i of the mean loss of the i highest scores; equal scores in random order, in expectation."""
    of = np.unique(-score, return_inverse=True)[1]
    size, lost = np.bincount(of), np.bincount(of, weights=loss)
    each = np.repeat(lost / size, size)  # every place in a group of equals has the group's mean loss, in expectation
    return float((np.cumsum(each) / np.arange(1, len(score) + 1)).mean())


def _bins(sure: Floats, bins: int, binning: Binning) -> Ints:
    if bins < 1 or binning not in {"width", "mass"}:
        raise BadInput(f"bins: expected 1 or more, of equal width or mass, got {bins!r} and {binning!r}")
    if binning == "width":
        return np.minimum((sure * bins).astype(np.int64), bins - 1)
    of, size = np.unique(sure, return_inverse=True)[1], np.unique(sure, return_counts=True)[1]
    middle = np.cumsum(size) - size / 2.0
    return np.minimum((middle / len(sure) * bins).astype(np.int64), bins - 1)[of]


def _columns(confidence: ArrayLike, quality: ArrayLike) -> tuple[Floats, Floats]:
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    if sure.ndim != 1 or sure.shape != right.shape or not len(sure):
        raise BadInput(f"need two columns of one length, 1 or more; these are {sure.shape} and {right.shape}")
    for what, column in (("confidence", sure), ("quality", right)):
        if not bool(((column >= 0) & (column <= 1)).all()):
            raise BadInput(f"{what}: expected values between 0 and 1, none of them unknown")
    return sure, right
