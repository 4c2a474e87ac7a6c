"""Do 95 % intervals hold the truth in 95 % of studies? Simulated studies, compared as users compare theirs.

Each study has a cheap and a strong rung whose true mean qualities, costs and curve are known, since its questions are
drawn from a known world. `compare` sees only the questions. Counted are the studies in which an interval holds the
truth, and those in which "better" (or "worse") is said although there is no difference. Logs of a randomised policy are
counted alike: 500 of them, by each way of judging another policy on them.

    python -m benchmarks coverage               all cases, 1,000 studies each
    python -m benchmarks coverage --repeats 1   a tenth of them
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._logs import Explorer, log_of, population, truth
from escalade.agents.climb import Rung
from escalade.agents.policies import Threshold
from escalade.evals.compare import compare
from escalade.evals.inference.intervals import intervals
from escalade.evals.online.estimates import estimate
from escalade.evals.outcomes import NO_ANSWER, Outcomes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

STUDIES, LOGS = 1_000, 500
HOLDS = (0.93, 0.97)
"""Shares of studies between which an interval of 95 % is to hold the truth."""

AT_MOST = 0.05
"""Of studies without a difference in which one is claimed, either way."""


@dataclass(frozen=True)
class Case:
    """A kind of study. `weak`, `strong`: true mean qualities. `epochs`: rows of each question. `groups`: mean number of
    questions of a group, 0 for none; `uneven`: of very different sizes. `grades`: quality between 0 and 1, not 0/1.
    `alike`: how much of a question's difficulty is that of its group, 0..1. `spread`: of difficulties, 0..1.
    """

    name: str
    n: int
    weak: float
    strong: float
    epochs: int = 1
    groups: float = 0.0
    uneven: bool = False
    grades: bool = False
    alike: float = 0.3
    spread: float = 0.4


CASES = (
    Case("0/1", 300, 0.70, 0.76),
    Case("0/1, no difference", 300, 0.70, 0.70),
    Case("0/1, 1,319 questions", 1_319, 0.70, 0.72),
    Case("0/1, n = 50", 50, 0.70, 0.76),
    Case("0/1, n = 50, no difference", 50, 0.70, 0.70),
    Case("near 1, no difference", 300, 0.97, 0.97),
    Case("near 1, n = 50, no difference", 50, 0.97, 0.97),
    Case("near 0, no difference", 300, 0.03, 0.03),
    Case("a wide gap", 300, 0.45, 0.75, spread=0.9),
    Case("a wide gap in groups of 5", 300, 0.45, 0.75, groups=5, spread=0.9),
    Case("3 epochs", 300, 0.70, 0.76, epochs=3),
    Case("3 epochs, no difference", 300, 0.70, 0.70, epochs=3),
    Case("3 epochs, n = 50, no difference", 50, 0.70, 0.70, epochs=3),
    Case("3 epochs near 1, no difference", 300, 0.97, 0.97, epochs=3),
    Case("3 epochs near 1, n = 50, no difference", 50, 0.97, 0.97, epochs=3),
    Case("groups of 5", 300, 0.70, 0.76, groups=5),
    Case("groups of 5, no difference", 300, 0.70, 0.70, groups=5),
    Case("groups of 5, n = 50, no difference", 50, 0.70, 0.70, groups=5),
    Case("uneven groups, no difference", 300, 0.70, 0.70, groups=8, uneven=True),
    Case("groups near 1, no difference", 300, 0.97, 0.97, groups=5),
    Case("groups of 5 and 2 epochs, no difference", 300, 0.70, 0.70, groups=5, epochs=2),
    Case("grades", 300, 0.70, 0.76, grades=True),
    Case("grades, n = 50, no difference", 50, 0.70, 0.70, grades=True),
    Case("grades near 1, n = 50, no difference", 50, 0.97, 0.97, grades=True),
)


class World:
    """Questions of a case: their difficulties, what both rungs give, what they cost, how sure the weak one is.

    Of a question with difficulty u, shared by its group in part, a rung of mean m is right with probability
    m + s (u - 1/2), where s keeps it within 0..1: so the true mean is m exactly. What makes a rung better on some
    groups than on others is a second such difficulty of its own.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.slope = {m: case.spread * 2 * min(m, 1 - m) for m in (case.weak, case.strong)}

    @property
    def apgr(self) -> float:
        """Of the weak rung's confidence, u: with the gain d + s (u - 1/2), and the least sure first, 1/2 - s / 12 d."""
        gap = self.case.strong - self.case.weak
        return 0.5 - 0.6 * (self.slope[self.case.strong] - self.slope[self.case.weak]) / (12 * gap)

    def study(self, rng: np.random.Generator) -> Outcomes:
        case = self.case
        sizes = self._sizes(rng)
        group = np.repeat(np.arange(len(sizes)), sizes)
        n = len(group)
        hard = [self._difficulty(rng, group) for _ in range(3)]
        chance = np.column_stack(
            [
                m + self.slope[m] * (0.6 * hard[0] + 0.4 * own)
                for m, own in ((case.weak, hard[1]), (case.strong, hard[2]))
            ]
        )
        question = np.repeat(np.arange(n), case.epochs)
        chance = chance[question]
        quality = self._graded(rng, chance) if case.grades else (rng.random(chance.shape) < chance).astype(np.float64)
        cost = np.column_stack([rng.gamma(2.0, 50_000, n), rng.gamma(2.0, 1_000_000, n)]).astype(np.int64)[question] + 1
        rows = len(question)
        return Outcomes(
            name=case.name,
            rungs=(Rung("weak"), Rung("strong")),
            keys=tuple(f"q{i}" for i in question.tolist()),
            features={"prompt_chars": np.full(rows, 100)},
            quality=quality,
            answer=np.full((rows, 2), NO_ANSWER),
            confidence=np.column_stack([hard[0][question] + 0.5, np.full(rows, np.nan)]),
            cost=cost,
            price=cost,
            ceiling=cost,
            latency=np.ones((rows, 2)),
            status=np.zeros((rows, 2), dtype=np.int8),
            group=tuple(f"g{g}" for g in group[question].tolist()) if case.groups else None,
        )

    def _sizes(self, rng: np.random.Generator) -> NDArray[np.int64]:
        case = self.case
        if not case.groups:
            return np.ones(case.n, dtype=np.int64)
        count = round(case.n / case.groups)
        return rng.geometric(1 / case.groups, count) if case.uneven else np.full(count, round(case.groups))

    def _difficulty(self, rng: np.random.Generator, group: NDArray[np.int64]) -> Floats:
        """(n,) between -1/2 and 1/2 with mean 0; equal within a group with probability `alike`."""
        own, shared = rng.random(len(group)) - 0.5, rng.random(int(group.max()) + 1) - 0.5
        return np.where(rng.random(len(group)) < self.case.alike, shared[group], own)

    def _graded(self, rng: np.random.Generator, chance: Floats) -> Floats:
        """Grades with this mean, between 0 and 1."""
        return rng.beta(4.0 * chance, 4.0 * (1.0 - chance))


@dataclass
class Tally:
    """What was counted in the studies of a case. `held`, `known`: by figure."""

    held: dict[str, int]
    known: dict[str, int]
    better: int = 0
    worse: int = 0

    def see(self, figure: str, low: float | None, high: float | None, truth: float) -> None:
        if low is not None and high is not None:
            self.known[figure] = self.known.get(figure, 0) + 1
            self.held[figure] = self.held.get(figure, 0) + (low <= truth <= high)


def tally(case: Case, studies: int, seed: int = 0, *, reps: int = 0) -> Tally:
    """Compare so many studies; `reps`: resamples of each for curves and ratios, none with 0."""
    world, seen = World(case), Tally({}, {})
    for number in range(studies):
        study = world.study(np.random.default_rng([seed, number]))
        comparison = compare(study, ["weak", "threshold-0.5"] if reps else ["weak"], seed=number, baselines=False)
        row = comparison.row("weak")
        seen.see("quality", row.quality_low, row.quality_high, case.weak)
        seen.see("difference", row.diff_low, row.diff_high, case.weak - case.strong)
        seen.better += row.verdict == "better"
        seen.worse += row.diff_high is not None and row.diff_high < 0
        if reps and comparison.evidence is not None:
            weak, router = (one for one in intervals(comparison.evidence, reps=reps) if one.name != "strong")
            seen.see("cost ratio", weak.cost_ratio_low, weak.cost_ratio_high, 0.05)
            seen.see("APGR", router.apgr_low, router.apgr_high, world.apgr)
    return seen


def logs(count: int) -> dict[str, float]:
    """Shares of logs of a randomised policy whose estimates of another one hold what that truly comes to."""
    world, target = population(20_000), Threshold(0.8)
    true = dict(zip(("quality", "cost"), truth(target, world), strict=True))
    held: dict[str, int] = {}
    for number in range(count):
        rng = np.random.default_rng([7, number])
        found = estimate(log_of(world, rng.integers(0, world.n, 400), rng, Explorer()), target)
        for what, estimates in (("quality", found.qualities), ("cost", found.costs)):
            for one in estimates:
                name = f"{what} by {one.method}"
                held[name] = held.get(name, 0) + (one.low <= true[what] <= one.high)
    return {name: times / count for name, times in held.items()}


def run(repeats: int = 10) -> list[dict[str, Any]]:
    """Shares of studies, a tenth of 1,000 for each of `repeats`."""
    studies = STUDIES * repeats // 10
    results, held, known = [], 0, 0
    for case in CASES:
        wide = case.strong - case.weak > 0.2
        seen = tally(case, studies, reps=500 if wide else 0)
        for figure, count in seen.known.items():
            results.append(_figure(f"{case.name}: {figure}", seen.held[figure] / count, count))
            held, known = held + seen.held[figure], known + count
        if case.weak == case.strong:
            results.append(_claimed(f'{case.name}: "better"', seen.better / studies, studies))
            results.append(_claimed(f"{case.name}: any difference", (seen.better + seen.worse) / studies, studies))
    for name, share in logs(max(1, LOGS * repeats // 10)).items():
        results.append(_figure(f"logs of 400 climbs: {name}", share, max(1, LOGS * repeats // 10)))
    together = held / known
    ok = HOLDS[0] <= together <= HOLDS[1]
    limit = f"{HOLDS[0]:.0%} to {HOLDS[1]:.0%}"
    return [*results, _result("all intervals", together, limit, f"{known:,} intervals", ok=ok)]


def _figure(name: str, share: float, count: int) -> dict[str, Any]:
    """Of 1,000 studies a share of 95 % is within 93.6 and 96.3 % 19 times in 20; a wider interval is no failure."""
    note = f"{count:,} studies" + (", wider than it need be" if share > HOLDS[1] else "")
    return _result(name, share, f">= {HOLDS[0]:.0%}", note, ok=share >= HOLDS[0])


def _claimed(name: str, share: float, count: int) -> dict[str, Any]:
    limit = AT_MOST if "better" in name else 1 - HOLDS[0]
    return _result(name, share, f"<= {limit:.0%}", f"{count:,} studies", ok=share <= limit)


def _result(name: str, share: float, limit: str, note: str, *, ok: bool) -> dict[str, Any]:
    name = f"coverage: {name}"
    return {"name": name, "value": 100 * share, "unit": "%", "limit": limit, "ok": ok, "ratio": None, "note": note}
