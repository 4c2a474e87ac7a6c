"""Which policies are compared, and what their names mean.

    <rung>                    always this rung
    best-single               the best single rung on the other folds
    oracle                    hindsight: the cheapest right answer; a bound, not a policy
    oracle@POLICY             hindsight: the most quality that could have been had for what POLICY costs
    random, random-0.3        the strongest rung for half, for 30 % of the questions, in expectation
    random@POLICY             the random mix that costs what POLICY costs, in expectation
    prompt-length             the longer half of the prompts to the strongest rung; prompt-length@POLICY: at its cost
    category-mean             each category to the rung that was best for it on the other folds; @POLICY: at its cost
    threshold-0.8             cheap rung first, the strongest below a confidence of 0.8; threshold-0.8/3: on three rungs
    threshold-fitted          the cheapest threshold that is as good as the strongest rung, fitted on the other folds
    agreement-3               the 3 cheapest rungs that answer vote, the strongest answers when they disagree
    agreement-models          one rung of each cheaper model votes
    gain, nearest             learned from the question: the strongest rung where it is expected to pay (linear, kNN)
    answer-in-view            learned from the answers of one rung of each cheaper model; answer-in-view-3: of 3 rungs
    cascade-routing           learned: any rung next that is worth it; cascade-routing-0.05: dollars for a right answer
    bandit                    learned from its own choices alone; bandit-0.05: dollars that a right answer is worth
    guaranteed                answer-in-view with a bounded loss; guaranteed-0.05: by 5 points at most
    ANY+budget                any of them under the hard budgets per request and per run

A "-" may be written as "=" before a number. The *cheap* rung is the dearest of those below the strongest that say how
sure they are, else the first. What is learned is learned on the other folds; it isn't in the default line-up.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.climb import Policy
from escalade.agents.learned.cascade import MOST
from escalade.agents.learned.gain import Gain
from escalade.agents.learned.nearest import Nearest
from escalade.agents.policies import Agreement, Budgeted, Constant, PromptLength, RandomMix, Threshold, rung_index
from escalade.errors import BadInput, UnknownName, UnknownPrice
from escalade.evals._names import shortened
from escalade.evals.baselines import FittedBestSingle, FittedCategoryMean
from escalade.evals.inference.units import questions_of
from escalade.evals.learned import FittedAnswers, FittedBandit, FittedCascade, FittedGuaranteed, FittedRouter
from escalade.evals.outcomes import NO_ANSWER
from escalade.evals.replay import Fitted, FittedBudgeted, FittedPromptLength, FittedThreshold, MatchedRandom
from escalade.money import NANO, Money

if TYPE_CHECKING:
    from escalade.evals.outcomes import Outcomes

THRESHOLD, STRICT = 0.8, 0.99
"""Confidences below which the default line-up escalates: models that state one in words are seldom below 0.8."""

ORACLE, BUDGET, FITTED, MODELS = "oracle", "+budget", "threshold-fitted", "agreement-models"
BEST_SINGLE, CATEGORY_MEAN, NEAREST = "best-single", "category-mean", "nearest"
LEARNED = ("gain", "nearest", "answer-in-view", "cascade-routing", "bandit", "guaranteed")
"""Families that are fitted to the other folds, and take their time for it."""

MATCHED = ("random", "prompt-length", ORACLE, CATEGORY_MEAN)
"""What can be had at the cost of a policy, as in random@POLICY."""

YARDSTICKS = (BEST_SINGLE, ORACLE, "prompt-length", CATEGORY_MEAN, NEAREST)
"""What every comparison brings along beside the rungs, so that nothing else may be called so."""

WORTH = 20
"""A right answer is worth so many calls of the strongest rung, where nobody says what it is worth."""

RUN_SHARE = Decimal("0.5")
"""Default budget of a run: this share of what the strongest rung alone would cost."""


@dataclass(frozen=True)
class Entry:
    """A row to be: `play` is None for the oracle. Budgets are set on rows that have to keep them.

    `routes`: does it choose between a cheap and the strongest rung? `reference`: whose cost a random mix or an oracle
    matches; `at_cost`: the same as nano-dollars a question, where they are known. `yardstick`: brought along to be
    measured with; nobody claims that it is better.
    """

    name: str
    play: Policy | Fitted | None
    per_request: Money | None = None
    per_run: Money | None = None
    routes: bool = False
    reference: Entry | None = None
    at_cost: float | None = None
    yardstick: bool = False

    @property
    def mixed(self) -> bool:
        """Is it a random mix, taken at its expected value?"""
        return isinstance(self.play, RandomMix | MatchedRandom)

    @property
    def fitted(self) -> bool:
        """Is it fitted on other folds than it is judged on?"""
        if isinstance(self.play, MatchedRandom):
            return self.reference is not None and self.reference.fitted
        return isinstance(self.play, Fitted)


@dataclass(frozen=True)
class Budgets:
    """The hard budgets of "+budget" rows; `why` says where they come from."""

    per_request: Money
    per_run: Money
    why: str


class Lineup:
    """Names to policies, on the ladder of these outcomes."""

    def __init__(
        self,
        outcomes: Outcomes,
        *,
        margin: float = 0.02,
        seed: int = 0,
        per_request: Money | None = None,
        per_run: Money | None = None,
    ) -> None:
        self.outcomes, self.margin, self.seed = outcomes, margin, seed
        self.strong = outcomes.k - 1
        self.sure = [r for r in range(self.strong) if not np.isnan(outcomes.confidence[:, r]).all()]
        self.voters = [r for r in range(self.strong) if (outcomes.answer[:, r] != NO_ANSWER).any()]
        self.cheap = self.sure[-1] if self.sure else 0
        self.rungs = {rung.name: i for i, rung in enumerate(outcomes.rungs)}
        for name in self.rungs:
            if _has_meaning(name):
                raise BadInput(f"a rung is named {name!r}, which is a yardstick's name; give the rung another one")
        self.budgets = self._budgets(per_request, per_run)

    def on(self, outcomes: Outcomes) -> Lineup:
        """This line-up, on another grading of the same outcomes."""
        other = copy.copy(self)
        other.outcomes = outcomes
        return other

    def default(self, *, fitted: bool = True) -> list[Entry]:
        """What is compared when nobody says otherwise; `fitted=False` leaves out what has to be fitted."""
        entries = [self.entry(name) for name in self.names()]
        return [entry for entry in entries if fitted or not entry.fitted]

    def names(self) -> list[str]:
        """The default line-up: what this data has the figures for."""
        if self.outcomes.k == 1:
            return [*self.rungs]
        routers = list(self._escalating())
        length = ["prompt-length"] if "prompt_chars" in self.outcomes.features else []
        votes = [name for name in routers if name.startswith("agreement")]
        reference = "agreement-3" if "agreement-3" in votes else votes[-1] if votes else None
        matched = [f"threshold-{THRESHOLD}", f"threshold-{STRICT}"] if self.sure else []
        matched += [reference] if reference else []
        if not self.outcomes.priced:
            return [*self.rungs, ORACLE, "random", *length, *routers]
        randoms = [f"random@{name}" for name in matched] or ["random"]
        budgeted = [name + BUDGET for name in (*routers, *length)] if self.budgets else []
        return [*self.rungs, ORACLE, *randoms, *length, *routers, *budgeted]

    def entry(self, name: str) -> Entry:
        """The policy of this name. Raises UnknownName, BadInput, and UnknownPrice for a budget on unknown prices."""
        if name in self.rungs:
            return Entry(name, Constant(name, name))
        if name == ORACLE:
            return Entry(name, None)
        if name.endswith(BUDGET):
            return self._with_budget(self.entry(name.removesuffix(BUDGET)))
        kind, at, reference = name.partition("@")
        if at and kind in MATCHED:
            return self._matched(kind, name, self.entry(reference))
        for start, build in self._families().items():
            if name == start or (name.startswith(start) and name[len(start)] in "=-"):
                return build(name[len(start) + 1 :])
        raise UnknownName("policy", name, self._known())

    def own(self, policy: Policy | Fitted) -> Entry:
        """A policy of the user's. Raises BadInput for the name of a rung or of a yardstick that it isn't: it would
        stand where everybody looks for that one.
        """
        name, rungs = policy.name, self.outcomes.rungs
        if isinstance(policy, Constant) and rung_index(rungs, policy.rung) == self.rungs.get(name):
            return self.entry(name)
        if _has_meaning(name) or name in {*self.rungs, *map(shortened, self.rungs)}:
            raise BadInput(
                f"a policy can't be named {name!r}: that is a rung or a yardstick; name it, as in name='mine'"
            )
        return Entry(name, policy, routes=not isinstance(policy, Constant | RandomMix | MatchedRandom))

    def _families(self) -> dict[str, Callable[[str], Entry]]:
        return {
            BEST_SINGLE: self._best_single,
            CATEGORY_MEAN: self._best_of_category,
            "random": self._random,
            "prompt-length": self._prompt_length,
            "threshold": self._threshold,
            "agreement": self._agreement,
            "gain": lambda text: self._router("gain", Gain, text),
            "nearest": lambda text: self._router("nearest", Nearest, text),
            "answer-in-view": self._answers,
            "cascade-routing": self._cascade,
            "bandit": self._bandit,
            "guaranteed": self._guaranteed,
        }

    def _escalating(self) -> Iterator[str]:
        if self.sure:
            yield f"threshold-{THRESHOLD}"
            yield f"threshold-{STRICT}"
        if len(self.sure) > 1:
            yield f"threshold-{THRESHOLD}/3"
        if self.sure and self.outcomes.priced:
            yield FITTED
        yield from (f"agreement-{size}" for size in (2, 3, 4) if size <= len(self.voters))
        if 1 < len(self._one_of_each()) < len(self.voters):
            yield MODELS

    def _known(self) -> list[str]:
        usual = (ORACLE, BEST_SINGLE, "random", "prompt-length", "threshold-0.8", "agreement-3")
        return list(dict.fromkeys([*self.names(), *usual, *LEARNED]))

    def _random(self, text: str) -> Entry:
        share = self._number("random", text, 0.5)
        name = f"random-{share:g}" if text else "random"
        return Entry(name, RandomMix(share, self.cheap, self._above(name), self.seed, name))

    def _prompt_length(self, text: str) -> Entry:
        if text:
            chars = self._number("prompt-length", text, 0.0)
            name = f"prompt-length-{chars:g}"
            return Entry(name, PromptLength(chars, self.cheap, self._above(name), name), routes=True)
        strong = self._above("prompt-length")
        fitted = FittedPromptLength(self.cheap, strong, at_share=0.5, name="prompt-length")
        return Entry(fitted.name, fitted, routes=True)

    def _best_single(self, text: str) -> Entry:
        self._plain(BEST_SINGLE, text)
        return Entry(BEST_SINGLE, FittedBestSingle(BEST_SINGLE))

    def _best_of_category(self, text: str) -> Entry:
        self._plain(CATEGORY_MEAN, text)
        return self._category_mean(CATEGORY_MEAN, None)

    def _category_mean(self, name: str, reference: Policy | Fitted | float | None) -> Entry:
        if self.outcomes.category is None:
            raise BadInput(f"{name}: it needs categories, which this data lacks")
        return Entry(name, FittedCategoryMean(reference, name), routes=True)

    def _matched(self, kind: str, name: str, matched: Entry) -> Entry:
        play = matched.play
        if play is None:
            raise BadInput(f"{name}: the oracle is no policy whose cost could be matched")
        if not self.outcomes.priced:
            raise UnknownPrice(f"{name}: costs can't be matched, {self._unpriced()}")
        strong = self._above(name)
        if kind == ORACLE:
            return Entry(name, None, reference=matched)
        if kind == CATEGORY_MEAN:
            return self._category_mean(name, play)
        if kind == "random":
            return Entry(name, MatchedRandom(play, self.cheap, strong, self.seed, name), reference=matched)
        return Entry(name, FittedPromptLength(self.cheap, strong, reference=play, name=name), routes=True)

    def _threshold(self, text: str) -> Entry:
        if text == "fitted":
            self._needs(FITTED, self.sure, "a confidence")
            ladder = (self.cheap, self._above(FITTED))
            return Entry(FITTED, FittedThreshold(ladder, self.strong, self.margin, FITTED), routes=True)
        figure, _, rungs = text.partition("/")
        threshold, size = self._number("threshold", figure, THRESHOLD), self._size("threshold", rungs, 2)
        name = f"threshold-{threshold:g}" + (f"/{size}" if size != 2 else "")
        self._needs(name, self.sure, "a confidence")
        if not 2 <= size <= len(self.sure) + 1:
            raise BadInput(f"{name}: it takes 2 rungs or more, and {len(self.sure) + 1} can be climbed by confidence")

        spread = np.linspace(0, len(self.sure) - 1, size - 1).round().astype(int).tolist() if size > 2 else [-1]
        climb: tuple[int, ...] = (*(self.sure[i] for i in spread), self._above(name))
        return Entry(name, Threshold(threshold, climb, name), routes=True)

    def _agreement(self, text: str) -> Entry:
        if text == "models":
            members = self._one_of_each()
            self._needs(MODELS, members[1:], "answers of a second model")
            return Entry(MODELS, Agreement(tuple(members), self._above(MODELS), name=MODELS), routes=True)
        size = self._size("agreement", text, 3)
        name = f"agreement-{size}"
        self._needs(name, self.voters, "answers to compare")
        if not 2 <= size <= len(self.voters):
            raise BadInput(f"{name}: it takes 2 or more to agree, and {len(self.voters)} rungs can vote on this data")

        return Entry(name, Agreement(tuple(self.voters[:size]), self._above(name), name=name), routes=True)

    def yardsticks(self, reference: Entry | None, at_cost: float | None, *, fitted: bool = True) -> list[Entry]:
        """What the others are held against, on this data. `reference`: whose cost, `at_cost` nano-dollars a question,
        a random mix, the means of categories and an oracle get. `fitted=False` leaves out what has to be fitted.
        """
        names = [*self.rungs]
        if self.outcomes.k > 1:
            names += [BEST_SINGLE, ORACLE]
            names += ["prompt-length"] if "prompt_chars" in self.outcomes.features else []
            names += [CATEGORY_MEAN] if self.outcomes.category is not None and at_cost is None else []
            names += [NEAREST]
        found = [replace(entry, yardstick=True) for entry in map(self.entry, names) if fitted or not entry.fitted]
        return [*found, *(entry for entry in self._at_cost(reference, at_cost) if fitted or not entry.fitted)]

    def _at_cost(self, reference: Entry | None, at_cost: float | None) -> Iterator[Entry]:
        if reference is None or at_cost is None or self.outcomes.k < 2 or not self.outcomes.priced:
            return
        asked = questions_of(self.outcomes)
        low, high = (asked.average(self.outcomes.cost[:, rung]) for rung in (self.cheap, self.strong))
        if low < high:
            name, share = f"random@{reference.name}", min(1.0, max(0.0, (at_cost - low) / (high - low)))
            yield Entry(name, RandomMix(share, self.cheap, self.strong, self.seed, name), yardstick=True)
        if self.outcomes.category is not None:
            yield replace(self._category_mean(f"{CATEGORY_MEAN}@{reference.name}", at_cost), yardstick=True)
        yield Entry(f"{ORACLE}@{reference.name}", None, at_cost=at_cost, yardstick=True)

    def _router(self, name: str, kind: type[Gain] | type[Nearest], text: str) -> Entry:
        self._plain(name, text)
        return Entry(name, FittedRouter(kind, self.cheap, self._above(name), self.margin, name), routes=True)

    def _answers(self, text: str) -> Entry:
        name = f"answer-in-view-{text}" if text else "answer-in-view"
        members = self.voters[: self._size("answer-in-view", text, 0)] if text else self._one_of_each()
        self._needs(name, members, "answers to look at")
        return Entry(name, FittedAnswers(tuple(members), self._above(name), self.margin, name), routes=True)

    def _guaranteed(self, text: str) -> Entry:
        name, epsilon = f"guaranteed-{text}" if text else "guaranteed", self._number("guaranteed", text, 0.05)
        scored = self._answers("").play
        assert isinstance(scored, FittedAnswers)  # noqa: S101 - that is what it makes
        return Entry(name, FittedGuaranteed(scored, epsilon, name=name), routes=True)

    def _cascade(self, text: str) -> Entry:
        name = f"cascade-routing-{text}" if text else "cascade-routing"
        rungs = (*self._one_of_each()[-(MOST - 1) :], self._above(name))
        return Entry(name, FittedCascade(rungs, self._worth(name, "cascade-routing", text), name), routes=True)

    def _bandit(self, text: str) -> Entry:
        name = f"bandit-{text}" if text else "bandit"
        rungs = (self.cheap, self._above(name))
        return Entry(name, FittedBandit(rungs, self._worth(name, "bandit", text), self.seed, name), routes=True)

    def _worth(self, name: str, family: str, text: str) -> float:
        """Dollars for a right answer: those given, else so many calls of the strongest rung."""
        if not self.outcomes.priced:
            raise UnknownPrice(f"{name}: what a rung is worth can't be told, {self._unpriced()}")
        return self._number(family, text, WORTH * float(self.outcomes.cost[:, self.strong].mean()) / NANO)

    def _plain(self, name: str, text: str) -> None:
        if text:
            raise UnknownName("policy", f"{name}-{text}", self._known())

    def _one_of_each(self) -> list[int]:
        """The dearest rung of each model among the voters."""
        rungs = self.outcomes.rungs
        return sorted({rungs[r].model or rungs[r].name: r for r in self.voters}.values())

    def _with_budget(self, entry: Entry) -> Entry:
        name, limits = entry.name + BUDGET, self.budgets
        if entry.play is None:
            raise BadInput(f"{name}: the oracle pays nothing that a budget could limit")
        if limits is None:
            raise UnknownPrice(f"{name}: a budget needs prices, {self._unpriced()}")
        play: Policy | Fitted = (
            FittedBudgeted(entry.play, limits.per_request, name)
            if isinstance(entry.play, Fitted)
            else Budgeted(entry.play, limits.per_request, name)
        )
        return Entry(name, play, limits.per_request, limits.per_run, entry.routes)

    def _budgets(self, per_request: Money | None, per_run: Money | None) -> Budgets | None:
        """Those asked for, else what bites a little: the 9th decile of the strongest rung's ceiling, and RUN_SHARE."""
        outcomes = self.outcomes
        if (outcomes.ceiling < 0).any() or not outcomes.priced:
            if per_request is not None or per_run is not None:
                raise UnknownPrice(f"a budget needs prices, {self._unpriced()}")
            return None
        least, asked = int(outcomes.ceiling.min()), ((per_request, "request"), (per_run, "run"))
        for budget, what in asked:
            if budget is not None and budget < least:
                cheapest = outcomes.rungs[int(outcomes.ceiling.min(axis=0).argmin())].name
                raise BadInput(
                    f"no rung fits a budget of {budget} per {what}: "
                    f"{cheapest}, the cheapest, may cost up to {Money(least)} for a question"
                )
        decile = int(np.quantile(outcomes.ceiling[:, self.strong], 0.9))
        alone = int(outcomes.cost[:, self.strong].sum() * RUN_SHARE)
        request = per_request or _round(decile, ROUND_CEILING)
        run = per_run or max(_round(alone, ROUND_FLOOR), Money(least))
        why = [] if per_request is not None else ["the 9th decile of the strongest rung's price bound"]
        why += [] if per_run is not None else [f"{RUN_SHARE:.0%} of what the strongest rung alone costs"]
        return Budgets(request, run, f" ({'; '.join(why)})" if why else "")

    def _above(self, name: str) -> int:
        if self.outcomes.k < 2:
            raise BadInput(f"{name}: it needs two rungs to choose from, this data has one")
        return self.strong

    def _needs(self, name: str, rungs: list[int], what: str) -> None:
        if not rungs:
            raise BadInput(f"{name}: it needs {what}, which this data lacks below the strongest rung")

    def _unpriced(self) -> str:
        known = np.minimum(self.outcomes.cost, self.outcomes.ceiling).min(axis=0).tolist()
        names = [rung.name for rung, least in zip(self.outcomes.rungs, known, strict=True) if least < 0]
        told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"and what {told} cost is unknown: it takes lengths (or costs) in the data, and --price NAME=IN/OUT"

    def _size(self, family: str, text: str, default: int) -> int:
        if text and not (text.isascii() and text.isdigit()):
            raise UnknownName("policy", f"{family}-{text}", self._known())
        return int(text) if text else default

    def _number(self, family: str, text: str, default: float) -> float:
        if not text:
            return default
        try:
            return float(text)
        except ValueError:
            raise UnknownName("policy", f"{family}-{text}", self._known()) from None


def _has_meaning(name: str) -> bool:
    """Does it name a yardstick, on whatever data?"""
    kind, at, _ = name.partition("@")
    return name in YARDSTICKS or bool(at and kind in MATCHED)


def _round(nanos: int, rounding: str) -> Money:
    """Two significant digits, as people set budgets."""
    if nanos <= 0:
        return Money(nanos)
    exact = Decimal(nanos)
    return Money(int(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1), rounding=rounding)))
