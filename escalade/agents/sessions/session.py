"""`Session`: a program that is told what was said before.

    session = Session(qa, store=SqliteSessions("sessions.db"), id="s1")
    with escalade.scope(principal=ann, access=roles, budget="0.05"):
        session.say(question="Who painted Guernica?")
        session.say(question="When?")

The object keeps nothing: each call loads the session of whoever asks, and adds its turn to what is there by then. So
any number of processes may answer in one session, and none of their turns is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import dspy
from pydantic_core import to_jsonable_python

from escalade.agents._courses import adriven, driven
from escalade.agents._shapes import history_field
from escalade.agents._sink import quietly
from escalade.agents.gateway import Gateway, find_gateway
from escalade.agents.models import Bound, measured_bound
from escalade.agents.sessions._window import SumUp, Window, as_text
from escalade.agents.sessions.state import State, Turn
from escalade.agents.sessions.store import Kept, Key, MemorySessions, SessionStore
from escalade.agents.streaming import Stream
from escalade.errors import BadInput, PermissionDenied, StoreUnavailable
from escalade.registry.elsewhere import elsewhere, is_remote
from escalade.registry.privacy import Redactor, Vault, tokens
from escalade.scopes import Entered, Scope, require

_TRIES = 200
"""How often a turn is added anew because somebody else was faster."""


@dataclass(frozen=True, slots=True)
class _Ask:
    """A program to call, in a scope of its own. `optional`: a failure has the result None."""

    program: Any
    inputs: Mapping[str, Any]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    result: Any
    cost: int


_Talk = Generator[_Ask | Callable[[], Any], Any, Any]
"""Yields what to ask, or what to have the store do; is sent what came of it."""


class Session:
    """A conversation with a program whose signature has an input of type `dspy.History`.

    `store`: where it is kept, in memory by default. `id`: of this conversation, among those of the user who asks: the
    innermost principal of the scope. `max_tokens`: what is shown of earlier turns at most; `bound`: how many tokens so
    many bytes can have. `summarise`: alias of a model on `gateway` that sums up what no longer fits; without one it is
    left out. `keep`: turns that are stored. `ttl`: seconds after the last turn until it is forgotten.

    `privacy`: a `Redactor` stores turns without personal data; a `Vault` lets models see tokens and stores those, and
    what you get has what they stand for. Raises BadInput.
    """

    def __init__(
        self,
        program: Any,
        *,
        id: str,  # noqa: A002 - what everybody calls it
        store: SessionStore | None = None,
        max_tokens: int = 2_000,
        bound: Bound = measured_bound,
        summarise: str | None = None,
        gateway: Gateway | None = None,
        keep: int = 100,
        ttl: float | None = None,
        privacy: Redactor | Vault | None = None,
    ) -> None:
        signature: Any = getattr(program, "signature", None)
        signature = signature or getattr(getattr(program, "predict", None), "signature", None)
        self._history = history_field(signature) if signature else ""
        if not self._history:
            raise BadInput(
                "a session needs a program that takes what was said before: add `history: dspy.History` to its "
                "signature's inputs"
            )
        _check(id, max_tokens, keep, ttl, privacy)
        if store is not None and not hasattr(store, "load"):
            raise BadInput(f"store: expected one, like SqliteSessions('sessions.db'), got {store!r}")
        self.program, self.id, self.store = program, id, MemorySessions() if store is None else store
        self.keep, self.ttl, self.privacy = keep, ttl, privacy
        inputs = tuple(name for name in signature.input_fields if name != self._history)
        outputs = tuple(name for name in signature.output_fields if name not in {"reasoning", "confidence"})
        self._window = Window.of(max_tokens, bound, inputs, outputs)
        self._summariser = None if summarise is None else _summariser(gateway, summarise, self._window.summary_bytes)

    def say(self, **inputs: Any) -> Any:
        """What the program answers, knowing the turns before. Raises what it raises, PermissionDenied without a
        principal, StoreUnavailable.
        """
        return driven(self._talk(inputs), lambda job: self._asked(job) if isinstance(job, _Ask) else job())

    async def asay(self, **inputs: Any) -> Any:
        """`say`, without blocking the event loop."""
        return await adriven(
            self._talk(inputs), lambda job: self._aasked(job) if isinstance(job, _Ask) else self._stored(job)
        )

    def stream(self, *, provisional: bool = True, **inputs: Any) -> Stream:
        """Follow `asay`, by `async for` or by `for`; see `streaming.py`. A turn that one leaves early isn't kept."""
        return Stream(_Speaking(self), inputs, provisional=provisional)

    def turns(self) -> tuple[Turn, ...]:
        """What is stored of the session, oldest first. Raises as `say`."""
        return self._read(self.store.load(self._key())).turns

    def history(self) -> dspy.History:
        """What the next question would be shown."""
        return dspy.History(messages=self._window.messages(self._read(self.store.load(self._key()))))

    def forget(self) -> bool:
        """Delete the session. Was there one? A call that is under way doesn't bring it back."""
        return self.store.delete(self._key())

    async def aturns(self) -> tuple[Turn, ...]:
        """`turns`, without blocking the event loop."""
        return self._read(await self._stored(partial(self.store.load, self._key()))).turns

    async def aforget(self) -> bool:
        """`forget`, without blocking the event loop."""
        gone: bool = await self._stored(partial(self.store.delete, self._key()))
        return gone

    # -- one turn

    def _talk(self, inputs: dict[str, Any]) -> _Talk:
        if self._history in inputs:
            raise BadInput(f"{self._history!r} is what the session remembers; leave it out")
        key = self._key()
        kept = yield partial(self.store.load, key)
        state = self._read(kept)
        asked = self.privacy.tokenise_value(inputs) if isinstance(self.privacy, Vault) else inputs
        state, summary_cost = yield from self._summed_up(state)
        history = dspy.History(messages=self._window.messages(state))
        answer = yield _Ask(self.program, {**asked, self._history: history})
        turn = self._turn(asked, answer, state, summary_cost)
        yield from self._kept(key, kept, state, turn)
        if isinstance(self.privacy, Vault):
            for name, value in dict(answer.result.items()).items():
                answer.result[name] = self.privacy.restore(value)
        return answer.result

    def _summed_up(self, state: State) -> Generator[_Ask, _Answer, tuple[State, int]]:
        """(the state with a summary of what no longer fits, what that cost). Without a summary, older turns are left
        out all the same.
        """
        old = self._window.too_old(state) if self._summariser is not None else ()
        if not old:
            return state, 0
        asked = {"earlier": state.summary, "turns": as_text(old, 4 * self._window.most)}
        said = yield _Ask(self._summariser, asked, optional=True)
        if said.result is None:
            return state, said.cost
        return state.summed_up(str(said.result.summary), old[-1].number), said.cost

    def _turn(self, asked: Mapping[str, Any], answer: _Answer, state: State, summary_cost: int) -> Turn:
        result = answer.result
        outputs = {name: result[name] for name in self._window.outputs if name in result}
        said = to_jsonable_python([dict(asked), outputs], fallback=str)
        if isinstance(self.privacy, Redactor):
            said = self.privacy.redact_value(said)
        return Turn(0, said[0], said[1], state.last, answer.cost + summary_cost, summary_cost, time.time())

    def _kept(self, key: Key, before: Kept | None, state: State, turn: Turn) -> Generator[Callable[[], Any], Any, None]:
        """Add the turn to what is there by now, which others may have changed meanwhile."""
        now, version = state, "" if before is None else before.version
        for _ in range(_TRIES):
            data = now.said(turn, self.keep).dump()
            if (yield partial(self.store.save, key, data, version=version, ttl=self.ttl)):
                return
            found = yield partial(self.store.load, key)
            if before is not None and (found is None or State.load(found.data).born != state.born):
                return  # it was deleted meanwhile, and stays so
            version = "" if found is None else found.version
            now = state if found is None else State.load(found.data).summed_up(state.summary, state.covered)
        raise StoreUnavailable(f"session {self.id!r}: others changed it {_TRIES} times while a turn was to be kept")

    def _read(self, kept: Kept | None) -> State:
        return State() if kept is None else State.load(kept.data)

    def _key(self) -> Key:
        scope = require("a session")
        if not scope.principals:
            raise PermissionDenied("a session belongs to a user: open a nested scope with principal=...")
        return Key(scope.principal.tenant, scope.principal.user, self.id)

    # -- who asks

    def _asked(self, ask: _Ask) -> _Answer:
        with _entered(ask) as scope, self._tokens():
            try:
                result = ask.program(**ask.inputs)
            except Exception:
                if not ask.optional:
                    raise
                result = None
            return _Answer(result, scope.purse.spent)

    async def _aasked(self, ask: _Ask) -> _Answer:
        async with _entered(ask) as scope:
            with self._tokens(), dspy.context(**(quietly() if ask.optional else {})):
                try:
                    result = await ask.program.acall(**ask.inputs)
                except Exception:
                    if not ask.optional:
                        raise
                    result = None
                return _Answer(result, scope.purse.spent)

    async def _stored(self, job: Callable[[], Any]) -> Any:
        return await elsewhere(job) if is_remote(self.store) else job()

    def _tokens(self) -> AbstractContextManager[Any]:
        return tokens(self.privacy) if isinstance(self.privacy, Vault) else nullcontext()


class _Speaking:
    """The session as a program that can be followed."""

    def __init__(self, session: Session) -> None:
        self._session, program = session, session.program
        self.signature = getattr(program, "signature", None) or program.predict.signature
        self.predictors = program.predictors
        if hasattr(program, "attempt_sync"):  # it climbs
            self.attempt_sync = program.attempt_sync

    async def acall(self, **inputs: Any) -> Any:
        return await self._session.asay(**inputs)


def _entered(ask: _Ask) -> Entered:
    outer: Scope = require("a session")
    return Entered(lambda: outer.narrow(name="session", optional=ask.optional), check=False)


def _summariser(gateway: Gateway | None, model: str, most: int) -> dspy.Predict:
    found = find_gateway("default") if gateway is None else gateway
    program = dspy.Predict(SumUp)
    program.set_lm(found.lm(model, max_tokens=min(found.model(model).max_output, max(64, most // 2))))
    return program


def _check(id_: Any, max_tokens: int, keep: int, ttl: float | None, privacy: Any) -> None:
    for wrong, message in (
        (not isinstance(id_, str) or not id_, f"id: expected a name, got {id_!r}"),
        (max_tokens < 100, f"max_tokens: expected 100 or more, got {max_tokens!r}"),
        (keep < 1, f"keep: expected 1 or more, got {keep!r}"),
        (ttl is not None and not (isinstance(ttl, int | float) and ttl > 0), f"ttl: expected seconds > 0, got {ttl!r}"),
        (
            not isinstance(privacy, Redactor | Vault | None),
            f"privacy: expected a Redactor or a Vault, got {privacy!r}",
        ),
    ):
        if wrong:
            raise BadInput(message)
