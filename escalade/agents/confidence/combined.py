"""Several sources, weighed: a mean of probabilities, or a logistic model of their log-odds that was fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from escalade.agents._saving import register
from escalade.agents._sigmoid import fit_logistic, log_odds, sigmoid
from escalade.agents.confidence.source import (
    Answered,
    Build,
    Call,
    Draws,
    Given,
    Helper,
    Reading,
    Source,
    Weighing,
)
from escalade.errors import BadInput, DataError

MIN_ROWS_PER_SIGNAL = 20
"""Rows that each coefficient of a fitted combination needs: fewer fit noise."""


@register
@dataclass(frozen=True)
class Combined(Source):
    """Several sources in one number; each of them is kept in `Attempt.signals`.

    `weights`: one for each source, 0 or more; None weighs all alike. Signals that are unknown are left out of the mean,
    and nothing is known where all are. After `fitted` the number is instead

        sigmoid(bias + sum of coefficients[i] * log_odds(signal i))

    with `fill[i]`, the mean log-odds it was fitted on, where a signal is unknown. One of the sources at most may draw
    samples. Raises BadInput.
    """

    kind: ClassVar[str] = "combined"
    name: ClassVar[str] = "combined"
    sources: tuple[Source, ...]
    weights: tuple[float, ...] | None = None
    coefficients: tuple[float, ...] | None = None
    bias: float = 0.0
    fill: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        wrong = next((s for s in self.sources if not isinstance(s, Source) or isinstance(s, Combined)), None)
        if not self.sources or wrong is not None:
            raise BadInput(f"expected sources of confidence to combine, like Verbalised() and Logprob(), got {wrong!r}")
        if sum(s.draws() is not None for s in self.sources) > 1:
            raise BadInput("only one of combined sources can draw samples: there is one answer")
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(float(w) for w in self.weights))
            if len(self.weights) != len(self.sources) or min(self.weights) < 0 or not sum(self.weights):
                raise BadInput(f"{len(self.sources)} sources need as many weights of 0 or more, got {self.weights}")
        if self.coefficients is not None and not len(self.coefficients) == len(self.fill) == len(self.sources):
            raise BadInput("a fitted combination has one coefficient and one fill for each source")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the signals, in the order of the sources: `verifier`, `verifier_2`."""
        names = [source.name for source in self.sources]
        return tuple(n if n not in names[:i] else f"{n}_{names[:i].count(n) + 1}" for i, n in enumerate(names))

    def extend(self, signature: Any) -> Any:
        for source in self.sources:
            signature = source.extend(signature)
        return signature

    def settings(self) -> dict[str, Any]:
        return {name: value for source in self.sources for name, value in source.settings().items()}

    def draws(self) -> Draws | None:
        return next((draws for source in self.sources if (draws := source.draws()) is not None), None)

    def helpers(self, signature: Any, build: Build) -> dict[str, Helper]:
        return {
            f"{label} {name}": helper
            for label, source in zip(self.labels, self.sources, strict=True)
            for name, helper in source.helpers(signature, build).items()
        }

    def weigh(self, answered: Answered) -> Weighing:
        """All sources at once: their calls of one round are made together."""
        open_ = {label: source.weigh(answered) for label, source in zip(self.labels, self.sources, strict=True)}
        read: dict[str, Reading] = {}
        wanted = {label: _advance(weighing, None) for label, weighing in open_.items()}
        while True:
            read |= {label: step for label, step in wanted.items() if isinstance(step, Reading)}
            asking = {label: step for label, step in wanted.items() if not isinstance(step, Reading)}
            if not asking:
                break
            given = iter((yield [replace(c, helper=f"{at} {c.helper}") for at, calls in asking.items() for c in calls]))
            wanted = {at: _advance(open_[at], [next(given) for _ in calls]) for at, calls in asking.items()}
        signals = {label: read[label].value for label in self.labels}
        error = next((r.error for r in read.values() if r.error is not None), None)
        return Reading(self.weighed(signals), signals, error)

    def weighed(self, signals: Mapping[str, float]) -> float:
        """The one number, from the signals by name."""
        values = [signals.get(label, math.nan) for label in self.labels]
        known = [not math.isnan(v) for v in values]
        if not any(known):
            return math.nan
        if self.coefficients is not None:
            odds = [log_odds(v) if k else f for v, k, f in zip(values, known, self.fill, strict=True)]
            return sigmoid(self.bias + sum(c * x for c, x in zip(self.coefficients, odds, strict=True)))
        weights = self.weights or (1.0,) * len(values)
        total = sum(w for w, k in zip(weights, known, strict=True) if k)
        if not total:
            return math.nan
        mean = sum(w * v for w, v, k in zip(weights, values, known, strict=True) if k) / total
        return min(1.0, max(0.0, mean))

    def fitted(self, signals: Sequence[Mapping[str, float]], right: Sequence[float]) -> Combined:
        """The same sources under a logistic model of held-out rows: signals by name (`Attempt.signals`), right or not.

        Raises DataError for fewer than 20 rows for each source and one more, for rows that are all right or all wrong,
        and for a source that no row knows.
        """
        rows = [[s.get(label, math.nan) for label in self.labels] for s in signals]
        need = MIN_ROWS_PER_SIGNAL * (len(self.sources) + 1)
        if len(rows) != len(right) or len(rows) < need:
            raise DataError(f"{len(self.sources)} sources need {need} rows to be fitted, got {len(rows)}")
        odds = [[math.nan if math.isnan(v) else log_odds(v) for v in row] for row in rows]
        fill = []
        for label, column in zip(self.labels, zip(*odds, strict=True), strict=True):
            known = [x for x in column if not math.isnan(x)]
            if not known:
                raise DataError(f"the signal {label!r} is unknown in all {len(rows)} rows")
            fill.append(sum(known) / len(known))
        filled = [[f if math.isnan(x) else x for x, f in zip(row, fill, strict=True)] for row in odds]
        bias, coefficients = fit_logistic(filled, right)
        return replace(self, weights=None, coefficients=coefficients, bias=bias, fill=tuple(fill))


def _advance(weighing: Weighing, given: list[Given] | None) -> list[Call] | Reading:
    """One step of a source; what it raises is its reading."""
    try:
        return next(weighing) if given is None else weighing.send(given)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # the generator's declared return type
    except Exception as error:  # noqa: BLE001 - a source that fails costs its signal, not the others
        return Reading(error=error)
