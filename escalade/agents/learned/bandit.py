"""Bandit: learns which rung is worth its price while it is used, and says how likely each of its choices was.

Thompson sampling for linear payoffs (Agrawal & Goyal 2013, ICML): for each rung a Bayesian linear regression of the
reward on facts about the question; one draw from each posterior, and the best draw is tried. The draw depends on seed
and question alone, so that a replay chooses as production did. Rungs are drawn independently, which makes the
probability of a choice an integral over one variable; it is mixed with a floor, so that no propensity is zero and the
log serves off-policy evaluation (Horvitz & Thompson 1952; Swaminathan & Joachims 2015, self-normalised).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from operator import mul
from statistics import NormalDist
from typing import Any, ClassVar, Self

from escalade.agents._saving import Saved, register, register_policy
from escalade.agents.climb import Decision, Stop, Try, View
from escalade.agents.learned._routing import routed_after
from escalade.agents.learned.facts import FACTS, facts_of
from escalade.agents.policies import RungRef, draw, rung_index, usd
from escalade.errors import BadInput
from escalade.money import NANO

USED = ("chars", "numbers", "different numbers", "quantities", "rate", "compare", "asked words", "asked numbers")
"""Facts that it looks at: the fewer, the sooner it knows."""

_AT = tuple(FACTS.index(name) for name in USED)

_NORMAL = NormalDist()
_GRID = tuple(_NORMAL.inv_cdf((i + 0.5) / 64) for i in range(64))


@register
@dataclass(frozen=True, slots=True)
class Arm(Saved):
    """What is known of one rung: `mean` (d,) and `covariance` (d, d) of the posterior, after `pulls` rewards."""

    kind: ClassVar[str] = "arm"
    noun: ClassVar[str] = "model"
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    pulls: int = 0

    @classmethod
    def fresh(cls, d: int, prior: float) -> Self:
        """An arm that nothing is known of: each weight has this prior variance."""
        return cls((0.0,) * d, tuple(tuple(prior * (i == j) for j in range(d)) for i in range(d)))

    def normal(self, x: Sequence[float]) -> tuple[float, float]:
        """(mean, standard deviation) of the expected reward at x."""
        along = [_dot(row, x) for row in self.covariance]
        return _dot(self.mean, x), math.sqrt(max(0.0, _dot(along, x)))

    def updated(self, x: Sequence[float], reward: float, noise: float) -> Self:
        """After one more reward, of this noise variance (Sherman & Morrison 1950)."""
        along = [_dot(row, x) for row in self.covariance]
        scale = 1.0 / (noise + _dot(along, x))
        miss = reward - _dot(self.mean, x)
        return replace(
            self,
            mean=tuple(m + a * scale * miss for m, a in zip(self.mean, along, strict=True)),
            covariance=tuple(
                tuple(c - a * b * scale for c, b in zip(row, along, strict=True))
                for row, a in zip(self.covariance, along, strict=True)
            ),
            pulls=self.pulls + 1,
        )


@register_policy
@dataclass(frozen=True, slots=True)
class Bandit(Saved):
    """Tries one of `rungs`; `learned` returns the bandit that has seen a reward.

    `worth`: dollars that an answer of quality 1 is worth: a rung's price counts against its reward. `explore`: the
    share of questions that are spread evenly over the rungs, 0..1. `noise`: variance of a reward. Raises BadInput.
    """

    kind: ClassVar[str] = "bandit"
    rungs: tuple[RungRef, ...]
    worth: float
    arms: tuple[Arm, ...] = ()
    explore: float = 0.05
    noise: float = 0.25
    seed: int = 0
    name: str = "bandit"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rungs", tuple(self.rungs))
        if not self.rungs or not 0 <= self.explore <= 1 or not self.worth > 0 or not self.noise > 0:
            raise BadInput(
                f"a bandit takes rungs, a worth and a noise above 0, and explores 0..1 of the time: {self!r}"
            )
        if not self.arms:
            object.__setattr__(self, "arms", tuple(Arm.fresh(len(USED) + 1, 1.0) for _ in self.rungs))
        if len(self.arms) != len(self.rungs):
            raise BadInput(f"a bandit has one arm for each of its {len(self.rungs)} rungs, not {len(self.arms)}")

    def decide(self, view: View) -> Decision:
        if view.attempts:
            fits = [rung_index(view.rungs, rung) for rung in self.rungs]
            return routed_after(view, fits[-1])
        at, told = self._chosen(view)
        rung = rung_index(view.rungs, self.rungs[at])
        p = self.propensities(view)[at]
        return Try(rung, f"{told}, probability {p:.3f}; expected at {usd(view.prices[rung])}")

    def propensities(self, view: View) -> tuple[float, ...]:
        """The probability of each rung for a question like this, over draws; they add up to 1."""
        values = self._values(view)
        chances = [
            sum(math.prod(_below(mean + spread * z, other) for j, other in enumerate(values) if j != i) for z in _GRID)
            for i, (mean, spread) in enumerate(values)
        ]
        total = sum(chances) or 1.0
        return tuple(self.explore / len(values) + (1 - self.explore) * chance / total for chance in chances)

    def learned(self, view: View, decision: Decision, reward: float) -> Self:
        """The bandit after this reward (quality, 0..1) of the rung that it decided to try. Raises BadInput."""
        at = self._arm(view, decision)
        arm = self.arms[at].updated(_context(view), _quality(reward), self.noise)
        return replace(self, arms=(*self.arms[:at], arm, *self.arms[at + 1 :]))

    def logged(self, view: View, decision: Decision, reward: float) -> dict[str, Any]:
        """A line for a log that other policies can be evaluated on: JSON-able. Raises BadInput, as `learned`."""
        at = self._arm(view, decision)
        return {
            "key": view.key,
            "rung": view.rungs[rung_index(view.rungs, self.rungs[at])].name,
            "propensity": self.propensities(view)[at],
            "reward": _quality(reward),
            "price": view.prices[rung_index(view.rungs, self.rungs[at])],
        }

    def _arm(self, view: View, decision: Decision) -> int:
        known = [rung_index(view.rungs, rung) for rung in self.rungs]
        if isinstance(decision, Stop) or decision.rung not in known:
            raise BadInput(f"a bandit learns from the rungs that it tries, {list(self.rungs)}, not from {decision!r}")
        return known.index(decision.rung)

    def _values(self, view: View) -> list[tuple[float, float]]:
        """(mean, standard deviation) of each rung's reward less its price, in units of quality."""
        x = _context(view)
        prices = [(view.prices[rung_index(view.rungs, rung)] or 0) / NANO / self.worth for rung in self.rungs]
        normals = [arm.normal(x) for arm in self.arms]
        return [(mean - price, spread) for (mean, spread), price in zip(normals, prices, strict=True)]

    def _chosen(self, view: View) -> tuple[int, str]:
        values = self._values(view)
        if draw(self.seed, f"explore\0{view.key}") < self.explore:
            return int(draw(self.seed, f"which\0{view.key}") * len(values)), "exploring"
        drawn = [mean + spread * self._normal(view.key, i) for i, (mean, spread) in enumerate(values)]
        at = drawn.index(max(drawn))
        return at, f"drew {drawn[at]:+.3f}, the most of {len(drawn)}"

    def _normal(self, key: str, arm: int) -> float:
        return _NORMAL.inv_cdf(min(max(draw(self.seed, f"{arm}\0{key}"), 1e-12), 1 - 1e-12))


def off_policy_value(log: Sequence[Mapping[str, Any]], chance: Mapping[str, Mapping[str, float]]) -> float:
    """Mean reward that another policy would have had on the questions of a log, self-normalised.

    `log`: lines of `Bandit.logged`. `chance`: key -> rung -> probability that the other policy tries it. Raises
    BadInput for other lines and probabilities, and for a log on which the other policy never does what was done.
    """
    weights = [_weight(number, line, chance) for number, line in enumerate(log)]
    if not sum(weights) > 0:
        raise BadInput("the other policy never tries what was tried in this log: nothing is known of its rewards")
    return float(sum(w * line["reward"] for w, line in zip(weights, log, strict=True)) / sum(weights))


def _weight(number: int, line: Mapping[str, Any], chance: Mapping[str, Mapping[str, float]]) -> float:
    """How much more likely the other policy does what this line says."""
    try:
        key, rung, propensity, _ = line["key"], line["rung"], float(line["propensity"]), _quality(line["reward"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"line {number} of the log: expected one of Bandit.logged, got {line!r}: {error}") from None
    other = chance.get(key, {}).get(rung, 0.0)
    if not 0 < propensity <= 1 or not 0 <= other <= 1:
        raise BadInput(
            f"line {number} of the log: expected probabilities, of {rung!r} above 0 by the log and 0..1 by the other "
            f"policy, got {propensity!r} and {other!r}"
        )
    return other / propensity


def _quality(reward: float) -> float:
    if not isinstance(reward, Real) or not 0 <= reward <= 1:  # a nan would stay in the arm for good
        raise BadInput(f"a reward is a quality between 0 and 1, not {reward!r}")
    return float(reward)


def _context(view: View) -> list[float]:
    facts = facts_of(view.features)
    return [1.0, *(facts[i] / 5.0 for i in _AT)]


def _below(value: float, other: tuple[float, float]) -> float:
    mean, spread = other
    if spread <= 0:
        return float(value > mean) + 0.5 * (value == mean)
    return _NORMAL.cdf((value - mean) / spread)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return float(sum(map(mul, a, b)))
