"""Does each model answer? One cheap call per model, and what is wrong in plain words.

Each call goes through a gateway of its own model alone, without retries and fallbacks, so that it is this model that is
asked, whatever its breaker thinks of it; under a scope with a small budget, which the calls share. Keys are never
shown: neither by us, nor as part of what a provider said about one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from dspy import lm15
from dspy.lm15 import Config, Message, Request

from escalade.agents._model_spec import KEY_LIKE, ModelSpec
from escalade.agents._route import Retry
from escalade.agents.gateway import PREFIX, AsyncEngine, Gateway
from escalade.agents.models import Model
from escalade.errors import BudgetExceeded, DeadlineExceeded, EscaladeError, PermissionDenied, UnknownPrice
from escalade.money import Money
from escalade.registry.breaker import Breaker
from escalade.registry.opening import scope
from escalade.registry.privacy.outlets import safe_line

QUESTION = "Say OK."
MAX_TOKENS = 16
"""Of one answer: some providers refuse to answer in less."""

AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one model. `state`: a word, "ok" or what is wrong; `said`: a sentence; `seconds`: it took."""

    name: str
    model: str
    state: str
    said: str
    seconds: float = math.nan
    cost: Money = field(default_factory=Money)

    @property
    def ok(self) -> bool:
        return self.state == "ok"


async def check_models(
    specs: Iterable[ModelSpec], models: Iterable[Model], *, budget: Money, patience: float = 20.0
) -> list[Checked]:
    """Ask each of them, eight at once. `budget`: of all calls together; `patience`: seconds for each, at most.

    Needs a scope that is open already, or none; raises nothing for what models do.
    """
    places = asyncio.Semaphore(AT_ONCE)
    async with scope(budget=budget, name="check", optional=True):

        async def one(spec: ModelSpec, model: Model) -> Checked:
            async with places:
                return await _checked(spec, model, patience)

        return list(await asyncio.gather(*(one(spec, model) for spec, model in zip(specs, models, strict=True))))


async def _checked(spec: ModelSpec, model: Model, patience: float) -> Checked:
    alone = replace(model, fallbacks=(), timeout=min(patience, model.timeout), breaker=Breaker())
    engine = AsyncEngine(Gateway([alone], name=f"check of {model.name}", retry=Retry(retries=0)), model.name)
    request = Request(
        model=PREFIX + model.name, messages=(Message.user(QUESTION),), config=Config(max_tokens=MAX_TOKENS)
    )
    began, spent = time.perf_counter(), Money(0)
    state, said = "ok", "answers"
    try:
        async with scope(name=f"check {model.name}", optional=True) as run:
            try:
                await engine.complete(request)
            except Exception as error:  # noqa: BLE001 - whatever is wrong is what is asked for
                state, said = diagnosis(error, spec, alone.timeout)
            spent = run.spent
    except BudgetExceeded:  # once more, as by every scope that could not pay
        pass
    return Checked(spec.name, spec.model, state, said, time.perf_counter() - began, spent)


def diagnosis(error: BaseException, spec: ModelSpec, timeout: float) -> tuple[str, str]:
    """What is wrong, as a word and as a sentence that says what to do."""
    rows = ((state, said) for kinds, state, said in _TABLE if isinstance(error, kinds))
    state, said = next(rows, ("failed", "{what}"))
    key = _key_of(spec, error)
    wait = getattr(error, "retry_after", None)
    again = f"; try again in {wait:g} s" if isinstance(wait, int | float) else ""
    if isinstance(error, lm15.TransportError) and not _unreached(error):
        state, said = "broken", "the connection to {where} broke off"
    where = spec.api_base or f"the provider of {spec.model}"
    facts = {"key": key, "model": spec.model, "where": where, "seconds": f"{timeout:g}", "again": again}
    return state, said.format(**facts, what=_safe(error), status=getattr(error, "status", None) or "?")


_TABLE: tuple[tuple[Any, str, str], ...] = (
    (lm15.NotConfiguredError, "no key", "there is no key: set {key}"),
    (lm15.AuthError, "key refused", "the provider refuses the key: check {key}"),
    (lm15.BillingError, "quota", "the account's quota is used up, or it can't pay"),
    (lm15.RateLimitError, "rate limited", "the provider limits the rate{again}"),
    (
        (lm15.UnsupportedModelError, lm15.UnknownModelError, lm15.AmbiguousModelError),
        "unknown model",
        "the provider doesn't know the model {model!r}: check `model`, and `transport`",
    ),
    (lm15.TimeoutError, "timeout", "no answer within {seconds} s"),
    (lm15.TransportError, "unreachable", "{where} can't be reached: check `api_base`, and the network"),
    (lm15.ServerError, "server error", "the provider failed (status {status})"),
    (UnknownPrice, "unpriced", "its price is unknown, so nothing was sent under a budget: write `price`"),
    (BudgetExceeded, "too dear", "one call may cost more than the budget of this check has left: raise --budget"),
    (PermissionDenied, "not allowed", "{what}"),
    (DeadlineExceeded, "timeout", "no answer within {seconds} s"),
    (EscaladeError, "refused", "{what}"),
)


def _key_of(spec: ModelSpec, error: BaseException) -> str:
    """Where the key is looked for, by name."""
    if spec.api_key is not None:
        scheme, _, name = spec.api_key.partition(":")
        return name if scheme == "env" else spec.api_key
    names = tuple(getattr(error, "env_keys", None) or ())
    return " or ".join(names) or "the provider's variable, or write `api_key: env:NAME`"


def _unreached(error: BaseException | None) -> bool:
    """Was nothing sent?"""
    from escalade.agents._route import _not_sent

    return _not_sent(error)


def _safe(error: BaseException) -> str:
    """What it says in one line, without keys: providers quote parts of them."""
    return KEY_LIKE.sub("<key>", safe_line(error, 160))
