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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, LMError

from escalade import events
from escalade.agents import policies
from escalade.agents._estimate import estimate
from escalade.agents.climb import (
    FAILED,
    OK,
    REFUSED,
    TRUNCATED,
    WRONG_FORMAT,
    Attempt,
    Climb,
    Decision,
    Policy,
    Rung,
    Try,
    View,
    climb,
    climb_sync,
)
from escalade.agents.confidence import Confidence
from escalade.agents.gateway import Gateway, find_gateway
from escalade.errors import BadInput, BudgetExceeded, DeadlineExceeded, NodeTimeout, Refused, UnknownName, UnknownPrice
from escalade.money import Money
from escalade.scopes import Entered, Scope, require

RungLike = Rung | tuple[Any, str] | tuple[Any, str, str] | str
"""`Rung`, `(strategy, model)`, `(strategy, model, price bound)`, or just a model, which means `Predict`.

A strategy is a name, a class or a module. A price bound (dollars per question) is needed, under a budget, for any
program but a `Predict` and a `ChainOfThought`, whose prompts bound it.
"""


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
        chosen = self.climb.chosen
        if chosen is None:
            raise BadInput("this climb has no answer")
        return self._rungs[chosen.rung]

    @property
    def cost(self) -> Money:
        """What all attempts together cost."""
        return Money(self.climb.cost)

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
    found, the one named "default" if None. `confidence`: add a verbalised confidence output to every rung. `answer`:
    prediction -> what "the same answer" means; by default the outputs, strings stripped and case-folded.
    Raises BadInput, UnknownName.
    """

    def __init__(
        self,
        signature: Any,
        *,
        rungs: Sequence[RungLike],
        policy: Policy,
        gateway: Gateway | None = None,
        confidence: bool = True,
        answer: Callable[[dspy.Prediction], Any] | None = None,
    ) -> None:
        super().__init__()
        if not rungs:
            raise BadInput("Escalate needs at least one rung, like ('Predict', 'small')")
        if isinstance(policy, type) or not isinstance(policy, Policy):
            raise BadInput(f"expected a policy, like Threshold(0.8), got {policy!r}")
        self.signature = dspy.ensure_signature(signature)
        self.policy = policy
        gateway = find_gateway("default") if gateway is None else gateway
        asked = _with_confidence(self.signature) if confidence else self.signature
        built = [_built(rung, asked, gateway) for rung in rungs]
        self.rungs: tuple[Rung, ...] = tuple(rung for rung, _ in built)
        self.programs: list[dspy.Module] = [program for _, program in built]
        self._lms = _Shared(gateway.lm(rung.model or "") for rung in self.rungs)
        self._gateway, self._outputs = gateway, tuple(self.signature.output_fields)
        self._answer = answer or self._usual_answer
        if len({rung.name for rung in self.rungs}) < len(self.rungs):
            raise BadInput(f"rungs need different names, got {[rung.name for rung in self.rungs]}")

    def forward(self, **inputs: Any) -> Escalated:
        """Answer, synchronously. Raises what the last attempt raised when no rung gave an answer."""
        scope = self._checked(inputs)
        payer = self._payer(scope)
        done = climb_sync(self._told(scope), lambda k: self._attempt(k, inputs, payer), self._looker(inputs, scope))
        return self._answered(done, scope, inputs)

    async def aforward(self, **inputs: Any) -> Escalated:
        """Answer. Raises what the last attempt raised when no rung gave an answer."""
        scope = self._checked(inputs)
        payer = self._payer(scope)

        async def attempt(rung: int) -> Attempt:
            return await self._aattempt(rung, inputs, payer)

        return self._answered(await climb(self._told(scope), attempt, self._looker(inputs, scope)), scope, inputs)

    def view(self, **inputs: Any) -> View:
        """What the policy will see before the first attempt on this question, in the current scope."""
        return self._looker(inputs, self._checked(inputs))(())

    def attempt_sync(self, rung: int, **inputs: Any) -> Attempt:
        """One rung's attempt on the question, paid by the current scope: for recording outcomes."""
        return self._attempt(rung, inputs, self._checked(inputs))

    def _checked(self, inputs: Mapping[str, Any]) -> Scope:
        """The scope that pays, once the inputs are the signature's: DSPy would only warn, and pay for garbage."""
        wanted = self.signature.input_fields
        if inputs.keys() != wanted.keys():
            for name in inputs.keys() - wanted.keys():
                raise UnknownName("input", name, list(wanted))
            missing = ", ".join(sorted(wanted.keys() - inputs.keys()))
            raise BadInput(f"Escalate needs {missing}; the call gave {', '.join(inputs) or 'nothing'}")
        return require("Escalate")

    def get_lm(self) -> Any:
        """The LM that was set on all predictors, else the first rung's: what BestOfN and Refine vary."""
        return super().get_lm() or self._lms[0]

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 - DSPy's signature
        """The predictors' state, and the policy under the key `policy`."""
        return {**super().dump_state(json_mode=json_mode), "policy": policies.dump_policy(self.policy)}

    def load_state(self, state: dict[str, Any], **options: Any) -> None:
        """Raises UnknownName for a policy that this version doesn't have."""
        if "policy" in state:
            self.policy = policies.load_policy(state["policy"])
        super().load_state({k: v for k, v in state.items() if k != "policy"}, **options)

    # -- one attempt

    def _attempt(self, rung: int, inputs: Mapping[str, Any], scope: Scope) -> Attempt:
        entered, began = self._entered(rung, scope), time.perf_counter()
        with entered as inner:
            try:
                with self._speaking(rung) as options:
                    result = self.programs[rung](**inputs, **options)
            except _ANSWERS_BADLY as error:
                return self._failed(rung, inner, began, error)
            return self._succeeded(rung, inner, began, result)

    async def _aattempt(self, rung: int, inputs: Mapping[str, Any], scope: Scope) -> Attempt:
        entered, began = self._entered(rung, scope), time.perf_counter()
        async with entered as inner:
            try:
                with self._speaking(rung) as options:
                    result = await self.programs[rung].acall(**inputs, **options)
            except _ANSWERS_BADLY as error:
                return self._failed(rung, inner, began, error)
            return self._succeeded(rung, inner, began, result)

    @contextmanager
    def _speaking(self, rung: int) -> Iterator[dict[str, Any]]:
        """The rung's own model for its program, whatever `set_lm` put on the predictors.

        BestOfN, Refine and some optimisers set one LM on every predictor they find, to sample with another `rollout_id`
        and temperature. Those two are taken over; the model is not, or all rungs would be one.
        """
        program, lm = self.programs[rung], self._lms[rung]
        given = next((p.lm for _, p in program.named_predictors() if p.lm is not None), None)
        if given is not None:
            lm = _sampling_like(lm, given)
        plain = type(program) in (dspy.Predict, dspy.ChainOfThought)
        if given is not None and not plain and given.model != lm.model:
            raise BadInput(
                f"set_lm put model {given.model!r} on rung {self.rungs[rung].name!r}; a program of your own can't be "
                f"sampled through set_lm, since its model would be replaced"
            )
        with dspy.context(lm=lm):
            yield {"lm": lm} if plain else {}

    def _payer(self, scope: Scope) -> Scope:
        """What pays the attempts. A policy's budget per request is hard here, not only in its decisions.

        An attempt may cost more than the bound of one call: the adapter asks again in another format, the gateway
        retries after a timeout or falls back to a dearer model.
        """
        limit = getattr(self.policy, "per_request", None)
        return scope if limit is None else scope.narrow(name="request", budget=limit, optional=True)

    def _entered(self, rung: int, scope: Scope) -> Entered:
        """A scope of its own for the attempt: it counts the attempt's cost, and a refusal in it stays in it.

        Escalation is a wish. When the run can't pay for it the climb ends with what it has; a first attempt that is
        refused leaves no answer, and its error is raised.
        """
        name = self.rungs[rung].name
        return Entered(lambda: scope.narrow(name=name, optional=True), check=False)

    def _succeeded(self, rung: int, inner: Scope, began: float, result: dspy.Prediction) -> Attempt:
        swallowed = inner.purse.exhausted
        if swallowed is not None:
            return self._failed(rung, inner, began, swallowed.again())
        said = result.get("confidence") if "confidence" in result else None
        attempt = Attempt(
            rung=rung,
            answer=self._answer(result),
            confidence=float(Confidence(said)),
            cost=inner.purse.spent,
            latency=time.perf_counter() - began,
            status=OK,
            result=result,
        )
        self._tell(inner, attempt)
        return attempt

    def _failed(self, rung: int, inner: Scope, began: float, error: BaseException) -> Attempt:
        if isinstance(error, Refused):
            status = REFUSED
        elif isinstance(error, AdapterParseError):
            status = TRUNCATED if inner.truncated else WRONG_FORMAT
        else:
            status = FAILED
        spent, latency = inner.purse.spent, time.perf_counter() - began
        attempt = Attempt(rung=rung, cost=spent, latency=latency, status=status, error=error)
        self._tell(inner, attempt)
        return attempt

    def _tell(self, scope: Scope, attempt: Attempt) -> None:
        name, why = self.rungs[attempt.rung].name, "" if attempt.ok else attempt.status
        events.emit(scope, events.RungTried, rung=name, confidence=attempt.confidence, cost=attempt.cost, why=why)

    # -- around the climb

    def _told(self, scope: Scope) -> Policy:
        """The policy, announcing escalations as they happen where somebody listens."""
        return _Announced(self.policy, scope) if scope.listeners else self.policy

    def _looker(self, inputs: Mapping[str, Any], scope: Scope) -> Callable[[tuple[Attempt, ...]], View]:
        prices, ceilings = zip(*(self._estimate(k, inputs) for k in range(len(self.rungs))), strict=True)
        key, features = _key(inputs), {"prompt_chars": sum(len(str(v)) for v in inputs.values())}

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

    def _estimate(self, k: int, inputs: Mapping[str, Any]) -> tuple[int | None, int | None]:
        rung = self.rungs[k]
        price, ceiling = estimate(self.programs[k], self._gateway.model(rung.model or ""), inputs)
        return price, ceiling if rung.ceiling is None else int(rung.ceiling)

    def _answered(self, done: Climb, scope: Scope, inputs: Mapping[str, Any]) -> Escalated:
        chosen = done.chosen
        if chosen is None or not chosen.ok:
            reason = self._reason(done, scope, inputs)
            if isinstance(reason, BudgetExceeded):
                # Its attempt's scope kept the refusal to itself, and DSPy may swallow what is raised here.
                scope.purse.exhaust(reason)
            raise reason
        answer = Escalated(**dict(chosen.result.items()))
        answer.set_lm_usage(chosen.result.get_lm_usage())
        answer._completions = chosen.result._completions
        answer._climb, answer._rungs = done, self.rungs
        return answer

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
        values = [result.get(name) for name in self._outputs if name in result and name != "confidence"]
        return tuple(_plain(v) for v in values) if len(values) != 1 else _plain(values[0])


_ANSWERS_BADLY = (Refused, LMError, AdapterParseError, NodeTimeout)
"""What makes a failed attempt. Anything else is a mistake in the program or in its use, and is raised."""


def _sampling_like(lm: Any, given: Any) -> Any:
    options = {k: given.kwargs[k] for k in ("rollout_id", "temperature") if given.kwargs.get(k) is not None}
    return lm.copy(**options) if options else lm


class _Announced:
    """A policy that emits an event when it goes on to another rung."""

    def __init__(self, policy: Policy, scope: Scope) -> None:
        self._policy, self._scope = policy, scope

    @property
    def name(self) -> str:
        return self._policy.name

    def decide(self, view: View) -> Decision:
        decision = self._policy.decide(view)
        if isinstance(decision, Try) and view.attempts and view.fits(decision.rung):
            names = view.rungs[view.attempts[-1].rung].name, view.rungs[decision.rung].name
            events.emit(self._scope, events.Escalated, from_rung=names[0], to_rung=names[1], why=decision.why)
        return decision


class _Shared(tuple[Any, ...]):
    """LMs that copies of the module share: what they cost is the gateway's business, not the copy's."""

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


def _built(like: RungLike, signature: Any, gateway: Gateway) -> tuple[Rung, dspy.Module]:
    if isinstance(like, Rung):
        gateway.model(like.model or "")
        return like, _program(like.strategy or "Predict", signature)
    strategy, model, *bound = ("Predict", like) if isinstance(like, str) else like
    if not isinstance(model, str):
        raise BadInput(f"rung {like!r}: expected the alias of a model on the gateway, got {model!r}")
    program = _program(strategy, signature)
    label = strategy if isinstance(strategy, str) else type(program).__name__
    ceiling = Money.of(bound[0]) if bound else None
    return Rung(f"{label}/{gateway.model(model).name}", label, model, ceiling), program


def _program(strategy: Any, signature: Any) -> dspy.Module:
    if isinstance(strategy, dspy.Module):
        return strategy
    if isinstance(strategy, str):
        known = {"Predict": dspy.Predict, "ChainOfThought": dspy.ChainOfThought}
        if strategy not in known:
            raise BadInput(f"unknown strategy {strategy!r}; write 'Predict', 'ChainOfThought', a class or a module")
        strategy = known[strategy]
    program = strategy(signature)
    if not isinstance(program, dspy.Module):
        raise BadInput(f"strategy {strategy!r} did not make a dspy.Module but {type(program).__name__}")
    return program


def _with_confidence(signature: Any) -> Any:
    if "confidence" in signature.output_fields:
        return signature
    field = dspy.OutputField(desc="probability from 0 to 1 that the other outputs are right")
    return signature.append("confidence", field, type_=Confidence)


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
