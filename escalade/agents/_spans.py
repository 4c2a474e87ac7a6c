"""What spans tell of attempts on models and of climbs, beyond what the guard knows."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from escalade import telemetry
from escalade.agents.climb import Attempt, Climb, Decision, Policy, Rung, Try, View
from escalade.telemetry import Spanning, names, switch

if TYPE_CHECKING:
    from dspy.lm15 import Request, Response, Usage

    from escalade.agents.models import Model
    from escalade.registry.guard import Admission
    from escalade.scopes import Scope

# ------------------------------------------------------------------------------------------ one attempt on a model


def asked(spanning: Spanning, sent: Request, attempt: int, *, stream: bool) -> None:
    """The request goes out. `attempt`: counts from 1 over retries and fallbacks of one call."""
    config, chat = sent.config, spanning.facts[names.OPERATION] == "chat"
    facts = {
        names.ATTEMPT: attempt,
        names.MAX_TOKENS: config.max_tokens if chat else None,
        names.TEMPERATURE: config.temperature,
        names.STREAM: stream or None,
    }
    if switch.previews:
        spanning.previews |= _previewed("input", _texts(sent))
    spanning.add(_known(facts))
    if not stream:
        spanning.make_current()


def answered(spanning: Spanning, answer: Response) -> None:
    """The whole answer is there."""
    facts = {
        names.RESPONSE_MODEL: answer.model,
        names.RESPONSE_ID: answer.id,
        names.FINISH_REASONS: (answer.finish_reason,),
        **_counted(answer.usage),
    }
    if switch.previews:
        spanning.previews |= _previewed("output", answer.text or "")
    spanning.add(_known(facts))


def embedded(use: Admission, model: Model, usage: Usage | None) -> None:
    """All vectors are there."""
    model.counted(usage)
    if use.span is not None:
        use.span.add(_known(_counted(usage)))


def hit(use: Admission, level: str) -> None:
    """The answer was in a cache; `level`: which."""
    if use.span is not None:
        use.span.add({names.CACHE_LEVEL: level})


def saw(spanning: Spanning, event: Any) -> None:
    """A piece of a stream came in."""
    if event.type == "delta":
        if not spanning.has(names.FIRST_CHUNK):
            spanning.add({names.FIRST_CHUNK: time.perf_counter() - spanning.began})
        if switch.previews:
            spanning.heard.append(getattr(event.delta, "text", None) or "")
    elif event.type == "start":
        spanning.add(_known({names.RESPONSE_MODEL: event.model, names.RESPONSE_ID: event.id}))
    elif event.type == "end":
        spanning.add(_known({names.FINISH_REASONS: (event.finish_reason,), **_counted(event.usage)}))
        if switch.previews:
            spanning.previews |= _previewed("output", "".join(spanning.heard))


def _counted(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    return {
        names.INPUT_TOKENS: usage.input_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.CACHED_TOKENS: usage.cache_read_tokens,
        names.REASONING_TOKENS: usage.reasoning_tokens,
    }


def _known(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def _previewed(what: str, text: str) -> dict[str, Any]:
    return {f"escalade.{what}.{name}": value for name, value in switch.preview(text).items()}


def _texts(sent: Request) -> str:
    parts = [sent.system] if isinstance(sent.system, str) else list(sent.system or ())
    parts += [part for message in sent.messages for part in message.parts]
    return "\n".join(part if isinstance(part, str) else getattr(part, "text", None) or "" for part in parts)


# ---------------------------------------------------------------------------------------------------------- climbs


class Silent:
    """Nobody looks: everything as it was."""

    def policy(self, policy: Policy) -> Policy:
        return policy

    def attempt(self, attempt: Callable[[int], Attempt]) -> Callable[[int], Attempt]:
        return attempt

    def aattempt(self, attempt: Callable[[int], Awaitable[Attempt]]) -> Callable[[int], Awaitable[Attempt]]:
        return attempt

    def done(self, climb: Climb) -> None: ...


class Telling(Silent):
    """A climb with a span, and one for each rung in it."""

    def __init__(self, spanning: Spanning, scope: Scope, rungs: Sequence[Rung]) -> None:
        self._spanning, self._scope, self._rungs = spanning, scope, rungs
        self._why = ""

    def policy(self, policy: Policy) -> Policy:
        """The policy; why it takes a rung is noted."""
        return _Noted(policy, self)

    def decided(self, view: View, decision: Decision) -> None:
        self._why, meters = decision.why, switch.meters
        if isinstance(decision, Try) and view.attempts and view.fits(decision.rung) and meters is not None:
            before, after = (view.rungs[k].name for k in (view.attempts[-1].rung, decision.rung))
            meters.escalated(before, after)

    def attempt(self, attempt: Callable[[int], Attempt]) -> Callable[[int], Attempt]:
        def told(rung: int) -> Attempt:
            with self._rung(rung) as tried:
                return tried(attempt(rung))

        return told

    def aattempt(self, attempt: Callable[[int], Awaitable[Attempt]]) -> Callable[[int], Awaitable[Attempt]]:
        async def told(rung: int) -> Attempt:
            with self._rung(rung) as tried:
                return tried(await attempt(rung))

        return told

    def done(self, climb: Climb) -> None:
        """How it ended."""
        chosen = climb.chosen
        self._spanning.add(
            _known(
                {
                    names.RUNG: self._rungs[chosen.rung].name if chosen is not None and chosen.ok else None,
                    names.RUNGS: tuple(self._rungs[rung].name for rung in climb.path),
                    names.CONFIDENCE: None if chosen is None else _number(chosen.confidence),
                    names.COST: climb.cost,
                    names.WHY: switch.safe(climb.steps[-1].decision.why),
                }
            )
        )

    @contextmanager
    def _rung(self, k: int) -> Iterator[Callable[[Attempt], Attempt]]:
        rung = self._rungs[k]
        facts = _known({names.RUNG: rung.name, names.MODEL: rung.model, names.WHY: switch.safe(self._why)})
        with telemetry.spanned(f"escalade.rung {rung.name}", facts, self._scope) as spanning:

            def tried(attempt: Attempt) -> Attempt:
                if spanning is not None:
                    spanning.add(_tried(attempt))
                    spanning.failed = "" if attempt.error is None else type(attempt.error).__name__
                return attempt

            yield tried


class _Noted:
    def __init__(self, policy: Policy, telling: Telling) -> None:
        self._policy, self._telling = policy, telling

    @property
    def name(self) -> str:
        return self._policy.name

    def decide(self, view: View) -> Decision:
        decision = self._policy.decide(view)
        self._telling.decided(view, decision)
        return decision


_SILENT = nullcontext(Silent())
_NOTHING = nullcontext()


def working(name: str, scope: Scope) -> AbstractContextManager[None]:
    """Around one call of an agent that is no climb, in a scope of its own. `name`: of the agent."""
    return _NOTHING if switch.tracer is None else _working(name, scope)


@contextmanager
def _working(name: str, scope: Scope) -> Iterator[None]:
    facts = {names.OPERATION: "invoke_agent", names.AGENT_NAME: name}
    with telemetry.spanned(f"invoke_agent {name}", facts, scope) as spanning:
        try:
            yield
        finally:
            if spanning is not None:
                spanning.add({names.COST: int(scope.spent)})


def climbing(name: str, scope: Scope, rungs: Sequence[Rung]) -> AbstractContextManager[Silent]:
    """Around a climb. `name`: of the agent."""
    return _SILENT if switch.tracer is None else _climbing(name, scope, rungs)


@contextmanager
def _climbing(name: str, scope: Scope, rungs: Sequence[Rung]) -> Iterator[Silent]:
    facts = {names.OPERATION: "invoke_agent", names.AGENT_NAME: name}
    with telemetry.spanned(f"invoke_agent {name}", facts, scope) as spanning:
        yield Silent() if spanning is None else Telling(spanning, scope, rungs)


def _tried(attempt: Attempt) -> dict[str, Any]:
    return _known(
        {
            names.STATUS: attempt.status,
            names.CONFIDENCE: _number(attempt.confidence),
            names.COST: attempt.cost,
            names.CONFIDENCE_COST: attempt.confidence_cost or None,
        }
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
