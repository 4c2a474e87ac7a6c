"""Where a score's threshold goes: the fewest strong calls that are as good as wanted, or a share of the questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from escalade.errors import BadInput


@dataclass(frozen=True, slots=True)
class Aim:
    """What a threshold is to reach. Exactly one of them.

    `margin`: the fewest strong calls whose quality is that of the strong rung less this, 0.02 being two points.
    `share`: strong calls for this share of the questions, 0..1. Raises BadInput.
    """

    margin: float | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if (self.margin is None) == (self.share is None):
            raise BadInput("a threshold is set by a margin or by a share of strong calls: give exactly one of them")
        if self.share is not None and not 0 <= self.share <= 1:
            raise BadInput(f"a share lies between 0 and 1, not at {self.share!r}")

    def threshold(self, score: Any, gain: Any) -> float:
        """The least score that is worth a strong call.

        `score`: (n,) of questions that it wasn't fitted on. `gain`: (n,) quality of the strong answer less the weak.
        """
        import numpy as np

        order = np.argsort(-np.asarray(score), kind="stable")
        scores = np.asarray(score, dtype=np.float64)[order]
        last = np.append(scores[1:] != scores[:-1], True)  # of equal scores, all or none escalate
        ends = np.append(0, np.flatnonzero(last) + 1)
        if self.share is not None:
            cut = int(ends[np.argmin(np.abs(ends - self.share * len(scores)))])
        else:
            gained = np.append(0.0, np.cumsum(np.asarray(gain)[order]))[ends]
            enough = gained[-1] - (self.margin or 0.0) * len(scores) - 1e-9
            cut = int(ends[np.argmax(gained >= enough)])
        if cut == 0:
            return float(scores[0]) + 1.0
        return float(scores[cut - 1]) if cut == len(scores) else float(scores[cut - 1] + scores[cut]) / 2


def aimed(margin: float | None, share: float | None) -> Aim:
    """The aim of a `fit`: two points of quality where nothing is said."""
    return Aim(0.02) if margin is None and share is None else Aim(margin, share)
