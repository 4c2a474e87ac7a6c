"""Decisions that change when a question is written otherwise, and what that costs.

    flips(comparison)                                     typing mistakes in a tenth of the words
    flips(comparison, paraphrases={"q1": ["…", "…"]})     paraphrases of yours, by key or by a function of the text

The facts that policies see (the text, its length, and what `features` makes of it) are made anew, and every policy is
replayed; what is fitted was fitted on the other folds of the questions as they were. Answers, confidences and costs
stay those recorded for the question as it was: what a model would have answered to the mistyped one can't be seen, so
that the figures are of decisions alone. A policy that never looks at the question can't flip here; live it can, by the
other answers that it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from escalade.errors import BadInput, DataError
from escalade.evals._codes import fact_column
from escalade.evals.inference.clustered import difference, mean_interval
from escalade.evals.inference.units import questions_of
from escalade.evals.outcomes import TEXT, UNKNOWN
from escalade.evals.replay import Fitted, Replayed, out_of_fold, replay
from escalade.evals.robustness.perturb import Paraphrases, typos, variants

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from escalade.agents.climb import Policy
    from escalade.evals.compare import Comparison
    from escalade.evals.evidence import Evidence
    from escalade.evals.lineup import Entry
    from escalade.evals.outcomes import Outcomes

    Floats = NDArray[np.float64]

__all__ = ["Flipped", "flips", "flips_of"]

PER_1K = 1e-6
"""From nano-dollars a question to dollars per 1,000 questions."""

Features = Callable[[str], Mapping[str, Any]]
"""(text of a question) -> the facts that were made of it when it was recorded."""


@dataclass(frozen=True, slots=True)
class Flipped:
    """Of one policy, over `n` questions that have a variant. `share`: of decisions that changed, with its interval.

    `diff`: quality of the changed decisions minus that of the first ones, 0..1, with its interval. Costs in dollars per
    1,000 questions, None for unknown.
    """

    name: str
    n: int
    share: float
    share_low: float
    share_high: float
    quality: float
    new_quality: float
    diff: float
    diff_low: float
    diff_high: float
    cost_per_1k_usd: float | None
    new_cost_per_1k_usd: float | None


def flips(
    comparison: Comparison,
    *,
    share: float = 0.1,
    paraphrases: Paraphrases | None = None,
    features: Features | None = None,
    draws: int = 1,
    seed: int = 0,
) -> tuple[Flipped, ...]:
    """Every policy of the comparison but mixes, the oracle and those with a budget of the run; most flips first.

    `share`: of words with a typing mistake, `draws` variants of each question. `paraphrases`: in their place. Raises
    DataError where the texts of the questions aren't known, BadInput for a comparison without evidence.
    """
    if comparison.evidence is None:
        raise BadInput("flips: this comparison was made by hand; make it with compare(), which keeps the evidence")
    if draws < 1:
        raise BadInput(f"draws: 1 or more variants of each question, not {draws}")
    return flips_of(
        comparison.evidence, share=share, paraphrases=paraphrases, features=features, draws=draws, seed=seed
    )


def flips_of(
    evidence: Evidence,
    *,
    share: float = 0.1,
    paraphrases: Paraphrases | None = None,
    features: Features | None = None,
    draws: int = 1,
    seed: int = 0,
    fitted: bool = True,
) -> tuple[Flipped, ...]:
    """As `flips`. `fitted=False`: leave out what has to be fitted."""
    outcomes = evidence.outcomes
    if TEXT not in outcomes.features:
        raise DataError(f"{outcomes.name}: the texts of the questions aren't known; nothing can be written otherwise")
    written = [str(text) for text in outcomes.features[TEXT]]
    if paraphrases is None:
        rows = [tuple(typos(text, share, seed=seed + draw) for draw in range(draws)) for text in written]
    else:
        rows = [variants(key, text, paraphrases) for key, text in zip(outcomes.keys, written, strict=True)]
    worlds = list(_worlds(outcomes, written, rows, features))
    if not worlds:
        raise DataError("no question has a paraphrase: their keys are those of the outcomes")
    found = [
        _flipped(evidence, entry, first, worlds)
        for entry in evidence.entries
        if (first := evidence.played[entry.name].replayed) is not None
        and entry.play is not None
        and entry.per_run is None
        and (fitted or not entry.fitted)
    ]
    return tuple(sorted(found, key=lambda one: -one.share))


def _worlds(
    outcomes: Outcomes, written: list[str], rows: list[tuple[str, ...]], features: Features | None
) -> Iterator[tuple[Outcomes, NDArray[np.bool_]]]:
    """(the outcomes with the j-th variant of each question, which questions have one), for each j."""
    for j in range(max(map(len, rows), default=0)):
        has = np.array([len(row) > j for row in rows])
        texts = [row[j] if len(row) > j else text for row, text in zip(rows, written, strict=True)]
        facts: dict[str, Any] = dict(outcomes.features) | {TEXT: fact_column(texts)}
        if "prompt_chars" in facts:
            longer = [len(text) - len(before) for text, before in zip(texts, written, strict=True)]
            facts["prompt_chars"] = facts["prompt_chars"] + np.array(longer)
        if features is not None:
            made = [features(text) for text in texts]
            facts |= {name: fact_column([one[name] for one in made]) for name in made[0]}
        yield replace(outcomes, features=facts), has


def _flipped(
    evidence: Evidence, entry: Entry, first: Replayed, worlds: list[tuple[Outcomes, NDArray[np.bool_]]]
) -> Flipped:
    outcomes, policy = evidence.outcomes, _policy(evidence, entry)
    shape = (len(worlds), outcomes.n)
    changed, quality, cost = (np.full(shape, np.nan) for _ in range(3))
    for j, (world, has) in enumerate(worlds):
        now = replay(policy, world)
        other = (now.chosen != first.chosen) | (now.tried != first.tried).any(axis=1)
        for column, values in ((changed, other), (quality, now.quality), (cost, _usd(now))):
            column[j, has] = values[has]
    asked = np.flatnonzero(np.logical_or.reduce([has for _, has in worlds]))
    units = questions_of(_some(outcomes, asked))

    def mean(column: Floats) -> Floats:
        return units.mean(np.nanmean(column[:, asked], axis=0))

    share, low, high = mean_interval(mean(changed), units.group)
    before, after = units.mean(first.quality[asked]), mean(quality)
    apart = difference(after, before, units.group)
    return Flipped(
        name=entry.name,
        n=units.n,
        share=share,
        share_low=max(0.0, low),
        share_high=min(1.0, high),
        quality=float(before.mean()),
        new_quality=float(after.mean()),
        diff=apart.value,
        diff_low=apart.low,
        diff_high=apart.high,
        cost_per_1k_usd=_known(_usd(first)[asked]),
        new_cost_per_1k_usd=_known(cost[:, asked][~np.isnan(changed[:, asked])]),
    )


def _policy(evidence: Evidence, entry: Entry) -> Policy:
    """As it was played: what is fitted, on the other folds of the questions as they were."""
    play = entry.play
    assert play is not None  # noqa: S101 - the oracle isn't among them
    return out_of_fold(play, evidence.outcomes, evidence.folds, evidence.seed) if isinstance(play, Fitted) else play


def _some(outcomes: Outcomes, at: NDArray[np.int64]) -> Outcomes:
    """Their keys and groups alone, which is all that units are made of."""
    group = None if outcomes.group is None else tuple(outcomes.group[i] for i in at.tolist())
    return replace(outcomes, keys=tuple(outcomes.keys[i] for i in at.tolist()), group=group)


def _usd(one: Replayed) -> Floats:
    return np.where(one.cost == UNKNOWN, np.nan, one.cost * PER_1K)


def _known(cost: Floats) -> float | None:
    return None if np.isnan(cost).any() else float(cost.mean())
