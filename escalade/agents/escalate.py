"""`Escalate`: a DSPy module that answers on the cheapest rung that is good enough.

    qa = Escalate(
        "question -> answer",
        rungs=[("Predict", "small"), ("ChainOfThought", "small"), ("ChainOfThought", "big")],
        policy=Threshold(0.8),
        gateway=gateway,
    )
    with escalade.scope(budget="0.05"):
        answer = qa(question="…")
    print(answer.answer, answer.cost, answer.explain())

It runs the same loop and the same policy object as a replay (`climb.py`). Its programs are ordinary sub-modules, so
that DSPy's optimisers find, compile and save their predictors; the policy is saved with them. It keeps no state between
calls and may be used by any number of tasks and threads at once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import dspy

from escalade import events
from escalade.agents import _saving, policies
from escalade.agents._attempts import Bench
from escalade.agents._estimate import Bill, bill_of, estimate, helper_bill
from escalade.agents._features import Features, Maker, makers_of
from escalade.agents._rungs import Believed, RungLike, program_of, rung_of, sources_of
from escalade.agents._spans import climbing
from escalade.agents.calibration import Calibrator
from escalade.agents.climb import Attempt, Climb, Decision, Policy, Rung, Try, View, climb, climb_sync
from escalade.agents.confidence.said import Confidence
from escalade.agents.confidence.source import Helper, Source, rung_signature
from escalade.agents.gateway import Gateway, find_gateway
from escalade.agents.models import Model
from escalade.agents.streaming import Stream
from escalade.errors import BadInput, BudgetExceeded, DeadlineExceeded, UnknownName, UnknownPrice
from escalade.money import Money
from escalade.scopes import Scope, require

_S = TypeVar("_S", bound=_saving.Saved)

__all__ = ["Escalate", "Escalated", "RungLike"]


class Escalated(dspy.Prediction):
    """The prediction of the rung that answered; it also knows how it came about."""

    _climb: Climb | None = None
    _rungs: tuple[Rung, ...] = ()

    @property
    def climb(self) -> Climb:
        """Every step that was taken."""
        if self._climb is None:
            raise BadInput("this prediction was not made by Escalate")
        return self._climb

    @property
    def rung(self) -> Rung:
        """The rung that answered."""
        return self._rungs[self.attempt.rung]

    @property
    def cost(self) -> Money:
        """What all attempts together cost."""
        return Money(self.climb.cost)

    @property
    def attempt(self) -> Attempt:
        """The attempt that answered: its confidence, the signals that it was made from, what it cost."""
        if self.climb.chosen is None:
            raise BadInput("this climb has no answer")
        return self.climb.chosen

    @property
    def escalated(self) -> bool:
        """Did it take more than one attempt?"""
        return len(self.climb.attempts) > 1

    def explain(self) -> str:
        """One line per step: why it was taken, what came of it, what it cost."""
        return self.climb.explain(self._rungs)


class Escalate(dspy.Module):
    """Answers on the cheapest rung that the policy finds good enough, within budget and deadline.

    `signature`: as for `dspy.Predict`. `rungs`: cheapest first. `policy`: which rung next. `gateway`: where models are
    found, the one named "default" if None. `confidence`: where an attempt's confidence comes from: True has each rung
    say it in an output of its own, False adds nothing; or a source, like `Samples(5)`; or a dict of these by index or
    name of a rung. `answer`: prediction -> what "the same answer" means; by default the outputs, strings stripped and
    case-folded. `features`: one or several functions, inputs -> dict of facts that policies may look at; each runs once
    per question, when a fact of it is asked for.

    `calibrators`: name of a rung -> what is applied to its confidence. They are saved with the program, as the policy
    and the settings of the sources are. Raises BadInput, UnknownName.
    """

    def __init__(
        self,
        signature: Any,
        *,
        rungs: Sequence[RungLike],
        policy: Policy,
        gateway: Gateway | None = None,
        confidence: Believed | Mapping[Any, Believed] = True,
        answer: Callable[[dspy.Prediction], Any] | None = None,
        features: Maker | Iterable[Maker] | None = None,
    ) -> None:
        super().__init__()
        if not rungs:
            raise BadInput("Escalate needs at least one rung, like ('Predict', 'small')")
        if isinstance(rungs, str | Rung):
            raise BadInput(f"rungs: expected a list, [{rungs!r}]")
        if isinstance(policy, type) or not isinstance(policy, Policy):
            raise BadInput(f"expected a policy, like Threshold(0.8), got {policy!r}")
        self.signature = dspy.ensure_signature(signature)
        self.policy = policy
        self.calibrators: dict[str, Calibrator] = {}
        self.features = makers_of(features)
        self._gateway = find_gateway("default") if gateway is None else gateway
        self._outputs = tuple(name for name in self.signature.output_fields if name != "confidence")
        self._answer = answer or self._usual_answer
        built = [rung_of(rung, self._gateway) for rung in rungs]
        self.rungs: tuple[Rung, ...] = tuple(rung for rung, _ in built)
        if len({rung.name for rung in self.rungs}) < len(self.rungs):
            raise BadInput(f"rungs need different names, got {[rung.name for rung in self.rungs]}")
        self.programs: list[dspy.Module] = []
        self._strategies = _Shared(None if isinstance(strategy, dspy.Module) else strategy for _, strategy in built)
        self._believe(sources_of(confidence, self.rungs), [strategy for _, strategy in built])

    def _believe(self, sources: tuple[Source | None, ...], strategies: Sequence[Any]) -> None:
        """Build what depends on the sources: what the rungs are asked, their LMs, and the sources' own programs."""
        self.sources = sources
        self.programs = [
            program_of(strategy, rung_signature(self.signature, source))
            for strategy, source in zip(strategies, sources, strict=True)
        ]
        self._lms = _Shared(
            self._gateway.lm(rung.model or "", **({} if source is None else source.settings()))
            for rung, source in zip(self.rungs, sources, strict=True)
        )
        distinct = list(dict.fromkeys(source for source in sources if source is not None))
        helpers = {source: source.helpers(self.signature, program_of) for source in distinct}
        self.judges: dict[str, dspy.Module] = {}
        self._helpers = _Shared(self._placed(source, helpers, distinct) for source in sources)

    def _placed(
        self, source: Source | None, helpers: Mapping[Source, Mapping[str, Helper]], distinct: list[Source]
    ) -> _Shared:
        """(name of the helper, its key in `judges`, LM, alias, bytes of outputs shown) of each helper of a source.

        Rungs that share a source share its programs, so that an optimiser improves one judge and not one for each rung.
        """
        if source is None:
            return _Shared()
        same = [other for other in distinct if other.name == source.name]
        label = source.name if same[0] == source else f"{source.name}_{same.index(source) + 1}"
        placed = []
        for name, helper in helpers[source].items():
            key = f"{label} {name}"
            self.judges.setdefault(key, helper.program)
            placed.append((name, key, self._gateway.lm(helper.model), helper.model, helper.shown))
        return _Shared(placed)

    def forward(self, **inputs: Any) -> Escalated:
        """Answer, synchronously. Raises what the last attempt raised when no rung gave an answer."""
        scope = self._checked(inputs)
        bench = self._bench(self._payer(scope))
        with climbing(type(self).__name__, scope, self.rungs) as told:
            attempt = told.attempt(lambda k: bench.attempt(k, inputs))
            done = climb_sync(told.policy(self._told(scope)), attempt, self._looker(inputs, scope))
            told.done(done)
            return self._answered(done, scope, inputs)

    async def aforward(self, **inputs: Any) -> Escalated:
        """Answer. Raises what the last attempt raised when no rung gave an answer."""
        scope = self._checked(inputs)
        bench = self._bench(self._payer(scope))

        async def attempt(rung: int) -> Attempt:
            return await bench.aattempt(rung, inputs)

        with climbing(type(self).__name__, scope, self.rungs) as told:
            done = await climb(told.policy(self._told(scope)), told.aattempt(attempt), self._looker(inputs, scope))
            told.done(done)
            return self._answered(done, scope, inputs)

    def stream(self, *, provisional: bool = True, **inputs: Any) -> Stream:
        """Follow one call, by `async for` or by `for`; see `streaming.py`."""
        return Stream(self, inputs, provisional=provisional)

    def view(self, **inputs: Any) -> View:
        """What the policy will see before the first attempt on this question, in the current scope."""
        return self._looker(inputs, self._checked(inputs))(())

    def attempt_sync(self, rung: int, **inputs: Any) -> Attempt:
        """One rung's attempt on the question, paid by the current scope: for recording outcomes."""
        return self._bench(self._checked(inputs)).attempt(rung, inputs)

    async def attempt(self, rung: int, inputs: Mapping[str, Any], *, rollout: int = 0) -> Attempt:
        """As `attempt_sync`. `rollout`: which time the same question is asked, from 0; caches tell them apart."""
        return await self._bench(self._checked(inputs), rollout).aattempt(rung, inputs)

    def _checked(self, inputs: Mapping[str, Any]) -> Scope:
        """The scope that pays, once the inputs are the signature's: DSPy would only warn, and pay for garbage."""
        wanted = self.signature.input_fields
        if inputs.keys() != wanted.keys():
            for name in inputs.keys() - wanted.keys():
                raise UnknownName("input", name, list(wanted))
            missing = ", ".join(sorted(wanted.keys() - inputs.keys()))
            raise BadInput(f"Escalate needs {missing}; the call gave {', '.join(inputs) or 'nothing'}")
        return require("Escalate")

    def _bench(self, payer: Scope, rollout: int = 0) -> Bench:
        names = [rung.name for rung in self.rungs]
        for name in self.calibrators:
            if name not in names:
                raise UnknownName("rung with a calibrator", name, names)
        return Bench(
            rungs=self.rungs,
            programs=self.programs,
            lms=self._lms,
            sources=self.sources,
            judges=[{name: (self.judges[key], lm) for name, key, lm, _, _ in placed} for placed in self._helpers],
            calibrators=self.calibrators,
            outputs=self._outputs,
            same=self._answer,
            scope=payer,
            rollout=rollout,
        )

    def get_lm(self) -> Any:
        """The LM that was set on all predictors, else the first rung's: what BestOfN and Refine vary."""
        return super().get_lm() or self._lms[0]

    # -- saved and loaded

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 - DSPy's signature
        """The predictors' state, and the policy, the sources of confidence and the calibrators under these keys."""
        return {
            **super().dump_state(json_mode=json_mode),
            "policy": policies.dump_policy(self.policy),
            "confidence": [None if source is None else source.dump() for source in self.sources],
            "calibrators": {name: calibrator.dump() for name, calibrator in self.calibrators.items()},
        }

    def load_state(self, state: dict[str, Any], **options: Any) -> None:
        """Raises UnknownName for a policy, source or calibrator that this version doesn't have, BadInput."""
        if "policy" in state:
            self.policy = policies.load_policy(state["policy"])
        if "confidence" in state:
            self._load_sources(state["confidence"])
        if "calibrators" in state:
            self.calibrators = {n: _loaded(saved, Calibrator) for n, saved in state["calibrators"].items()}
        ours = {"policy", "confidence", "calibrators"}
        super().load_state({k: v for k, v in state.items() if k not in ours}, **options)

    def _load_sources(self, saved: Sequence[Any]) -> None:
        if len(saved) != len(self.rungs):
            raise BadInput(f"the saved program has {len(saved)} rungs, this one {len(self.rungs)}")
        sources = tuple(None if one is None else _loaded(one, Source) for one in saved)
        if sources != self.sources:
            given = zip(self._strategies, self.programs, strict=True)
            self._believe(sources, [program if strategy is None else strategy for strategy, program in given])

    # -- around the climb

    def _payer(self, scope: Scope) -> Scope:
        """What pays the attempts. A policy's budget per request is hard here, not only in its decisions.

        An attempt may cost more than the bound of one call: the adapter asks again in another format, the gateway
        retries after a timeout or falls back to a dearer model.
        """
        limit = getattr(self.policy, "per_request", None)
        return scope if limit is None else scope.narrow(name="request", budget=limit, optional=True)

    def _told(self, scope: Scope) -> Policy:
        """The policy, announcing escalations as they happen where somebody listens."""
        return _Announced(self.policy, scope) if scope.listeners else self.policy

    def _looker(self, inputs: Mapping[str, Any], scope: Scope) -> Callable[[tuple[Attempt, ...]], View]:
        prices, ceilings = zip(*(self._estimate(k, inputs) for k in range(len(self.rungs))), strict=True)
        key, features = _key(inputs), Features(inputs, self.features)

        def look(attempts: tuple[Attempt, ...]) -> View:
            return View(
                key=key,
                features=features,
                rungs=self.rungs,
                prices=prices,
                ceilings=ceilings,
                attempts=attempts,
                budget_left=scope.purse.left(),
                time_left=scope.time_left(),
                braked=scope.purse.braked,
            )

        return look

    def bills(self, inputs: Mapping[str, Any]) -> list[Bill]:
        """(expected price, upper bound) of each rung for these inputs, nano-dollars, None where unknown."""
        return [self._estimate(k, inputs) for k in range(len(self.rungs))]

    def model_of(self, rung: int) -> Model:
        """The model of a rung, by its number."""
        return self._gateway.model(self.rungs[rung].model or "")

    def _estimate(self, k: int, inputs: Mapping[str, Any]) -> Bill:
        """The bill of a rung for this question: its answer, and all that its source of confidence may spend."""
        rung, source = self.rungs[k], self.sources[k]
        price, ceiling = estimate(self.programs[k], self._gateway.model(rung.model or ""), inputs)
        answer = price, ceiling if rung.ceiling is None else int(rung.ceiling)
        helpers = [
            helper_bill(self.judges[key], self._gateway.model(alias), inputs, shown)
            for _, key, _, alias, shown in self._helpers[k]
        ]
        return bill_of(answer, None if source is None else source.draws(), helpers)

    def _answered(self, done: Climb, scope: Scope, inputs: Mapping[str, Any]) -> Escalated:
        chosen = done.chosen
        self._tell(done, scope)
        if chosen is None or not chosen.ok:
            reason = self._reason(done, scope, inputs)
            if isinstance(reason, BudgetExceeded):
                # Its attempt's scope kept the refusal to itself, and DSPy may swallow what is raised here.
                scope.purse.exhaust(reason)
            raise reason
        answer = Escalated(**dict(chosen.result.items()))
        answer.set_lm_usage(chosen.result.get_lm_usage())
        answer._completions = chosen.result._completions
        if self.sources[chosen.rung] is not None and "confidence" not in self.signature.output_fields:
            answer.confidence = Confidence(chosen.confidence)
        answer._climb, answer._rungs = done, self.rungs
        return answer

    def _tell(self, done: Climb, scope: Scope) -> None:
        chosen, last = done.chosen, done.steps[-1]
        events.emit(
            scope,
            events.ClimbStopped,
            rung=self.rungs[chosen.rung].name if chosen is not None and chosen.ok else "",
            confidence=math.nan if chosen is None else chosen.confidence,
            cost=done.cost,
            why=last.decision.why,
            budget_left=last.budget_left,
            next_rung="" if last.next is None else self.rungs[last.next].name,
            price=last.price,
        )

    def _reason(self, done: Climb, scope: Scope, inputs: Mapping[str, Any]) -> BaseException:
        """Why there is no answer: the last error, else why not even the first rung could be tried."""
        errors = [a.error for a in done.attempts if a.error is not None]
        if errors:
            return errors[-1]
        why = f"no rung of {[r.name for r in self.rungs]} was tried: {done.steps[-1].decision.why}"
        if scope.time_left() <= 0:
            return DeadlineExceeded(why)
        unbounded = [r.name for k, r in enumerate(self.rungs) if self._estimate(k, inputs)[1] is None]
        if unbounded and scope.purse.limited:
            return UnknownPrice(
                f"rung {unbounded[0]!r} has no price bound and the scope has a budget: give its model a price, and a "
                f"program of your own a bound, as in (module, 'small', '0.01')"
            )
        return BudgetExceeded(why)

    def _usual_answer(self, result: dspy.Prediction) -> Any:
        values = [result.get(name) for name in self._outputs if name in result]
        return tuple(_plain(v) for v in values) if len(values) != 1 else _plain(values[0])


class _Announced:
    """A policy that emits an event when it goes on to another rung, and when one stands in for another."""

    def __init__(self, policy: Policy, scope: Scope) -> None:
        self._policy, self._scope = policy, scope

    @property
    def name(self) -> str:
        return self._policy.name

    def decide(self, view: View) -> Decision:
        decision = self._policy.decide(view)
        if isinstance(decision, Try) and decision.wanted is not None and view.fits(decision.rung):
            rung, wanted = view.rungs[decision.rung].name, view.rungs[decision.wanted].name
            events.emit(self._scope, events.StoodIn, rung=rung, wanted=wanted, why=decision.why)
        if isinstance(decision, Try) and view.attempts and view.fits(decision.rung):
            last = view.attempts[-1]
            events.emit(
                self._scope,
                events.Escalated,
                from_rung=view.rungs[last.rung].name,
                to_rung=view.rungs[decision.rung].name,
                why=decision.why,
                confidence=last.confidence,
                budget_left=view.budget_left,
                price=view.prices[decision.rung],
            )
        return decision


class _Shared(tuple[Any, ...]):
    """What copies of the module share, like LMs: what they cost is the gateway's business, not the copy's."""

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


def _loaded(saved: Mapping[str, Any], base: type[_S]) -> _S:
    loaded = _saving.load_saved(saved, base.noun)
    if not isinstance(loaded, base):
        raise BadInput(f"{type(loaded).__qualname__} is registered as a {base.noun}, but isn't one")
    return loaded


def _key(inputs: Mapping[str, Any]) -> str:
    text = json.dumps(inputs, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip().casefold()
    try:
        hash(value)
    except TypeError:
        return json.dumps(value, sort_keys=True, default=str)
    return value
