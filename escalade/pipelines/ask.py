"""Ask: a node that waits for a person.

    publish = Chain(draft=writer, check=Ask("Publish this?", show=["draft"], options=["yes", "later"], edit="draft"))

In a durable run the question is kept as a ticket. When nothing else is left to do, the run waits: it holds no thread,
no task and no connection, and goes on when somebody answers, in whichever process, after a restart too:

    for question in runs.questions():
        runs.answer(question.ticket, "yes", by=Principal("ana", roles={"editor"}))

In a plain call, somebody must be there to be asked: `with asking(callback):`; else it is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import UnionType
from typing import Any

import dspy

from escalade import events, scopes
from escalade.errors import ApprovalRequired, BadInput, PermissionDenied
from escalade.pipelines._node import Wants, is_async
from escalade.registry.opening import OWNER
from escalade.registry.privacy.names import alias
from escalade.registry.workers import Workers
from escalade.scopes import NOBODY, Principal

__all__ = ["Answer", "Ask", "Question", "asking"]

_ASKED = "escalade_ask"
"""The key of `dspy.context` that carries whom to ask in plain calls."""

_NOTHING: Any = object()

_askers = Workers(limit=1_000)
"""Daemons: a person who doesn't answer in time holds up no tool, and not the end of the process."""

_KINDS: dict[type | UnionType, str] = {
    bool: "True or False",
    int | float: "a number",
    list | tuple: "a list",
    dict: "a mapping",
}
"""What plain data is, the first that fits; a bool is a number, too."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked. `shown`: fields by name. `options`: to choose from; none: to approve or reject, or with
    `text` to answer in words. `edit`: name of the field that may be changed, "" for none. `role`: that one needs to
    answer, "" for none. `ticket`, `run_id`, `path`, `tenant`: of a durable run, "" otherwise. `expires`: seconds since
    the epoch, None for never.
    """

    question: str
    shown: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    text: bool = False
    edit: str = ""
    role: str = ""
    ticket: str = ""
    run_id: str = ""
    path: str = ""
    tenant: str = ""
    expires: float | None = None

    def checked(self, decision: Any, edited: Any = None) -> Answer:
        """The answer, if it is one to this question. Raises BadInput."""
        if edited is not None:
            self._check_edited(edited)
        if self.options:
            if decision not in self.options:
                raise BadInput(
                    f"{self.question!r}: expected one of {', '.join(map(repr, self.options))}, got {decision!r}"
                )
            return Answer(decision, "choose" if edited is None else "edit", edited)
        if self.text:
            if not isinstance(decision, str) or not decision:
                raise BadInput(f"{self.question!r}: expected an answer in words, got {decision!r}")
            return Answer(decision, "answer", edited)
        said = {"approve": True, "reject": False, "yes": True, "no": False}.get(decision, decision)
        if not isinstance(said, bool):
            raise BadInput(f"{self.question!r}: expected True (approve) or False (reject), got {decision!r}")
        action = "reject" if not said else "approve" if edited is None else "edit"
        return Answer(said, action, edited)

    def _check_edited(self, edited: Any) -> None:
        """Is it of the kind that the field is? What is text may stand for what isn't plain data."""
        if not self.edit:
            raise BadInput(f"{self.question!r}: nothing of it can be edited")
        was = self.shown.get(self.edit)
        expected = next((kind for kind in _KINDS if isinstance(was, kind)), None)
        if expected is not None and next((kind for kind in _KINDS if isinstance(edited, kind)), None) is not expected:
            raise BadInput(f"{self.question!r}: {self.edit!r} is {_KINDS[expected]}, {was!r}; got {edited!r}")

    def check_who(self, by: Principal) -> None:
        """May this person answer? Raises PermissionDenied."""
        name = alias(by.user)
        if self.tenant and by.tenant != self.tenant:
            raise PermissionDenied(f"{name!r} of tenant {alias(by.tenant)!r} may not answer for {alias(self.tenant)!r}")
        if self.role and self.role not in by.roles:
            raise PermissionDenied(f"{name!r} may not answer {self.question!r}: that takes the role {self.role!r}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person said. `decision`: True or False, an option, or words. `action`: approve, reject, edit, choose or
    answer. `edited`: what the field that could be changed is now, None when it was left. `by`: who.
    """

    decision: Any
    action: str
    edited: Any = None
    by: str = ""

    def as_json(self) -> str:
        """As it is kept."""
        return json.dumps({"decision": self.decision, "action": self.action, "edited": self.edited})


Asker = Callable[[Question], Any]
"""Asked in a plain call: returns a decision, an `Answer`, or an awaitable of one."""


@contextlib.contextmanager
def asking(asker: Asker) -> Iterator[None]:
    """Whom an `Ask` asks in plain calls within this block. Who that is, and whether he has the role, is up to `asker`.
    One that blocks is called in a thread; when the question's `timeout` is up, its answer counts no more.

    >>> import asyncio
    >>> with asking(lambda question: "yes"):
    ...     Ask("Publish?", options=["yes", "no"])().decision
    'yes'
    """
    with dspy.context(**{_ASKED: asker}):
        yield


class Ask(dspy.Module):
    """Waits for a person's answer: `Prediction(decision=..., action=..., by=...)`, and the field `edit` as it is now.

    `question`: what is asked. `show`: fields that the person sees. `options`: to choose from; without any, approve or
    reject (`decision` is True or False), or, with `text=True`, answer in words. `edit`: a field that may be changed.
    `role`: that is needed to answer; anybody of the run's tenant may, without one. `timeout`: seconds until it is
    answered by `otherwise`, or fails with TimeoutError where there is none. Raises BadInput.
    """

    def __init__(
        self,
        question: str,
        *,
        show: Sequence[str] = (),
        options: Sequence[str] = (),
        text: bool = False,
        edit: str = "",
        role: str = "",
        timeout: float | None = None,
        otherwise: Any = None,
    ) -> None:
        super().__init__()
        _check(question, show, options, edit, timeout, text=text)
        self.show, self.timeout, self.otherwise = tuple(show), timeout, otherwise
        self.question = Question(question, {}, tuple(options), text, edit, role)
        if otherwise is not None:
            if timeout is None:
                raise BadInput(
                    f"Ask({question!r}): otherwise={otherwise!r} says what holds after timeout=, which is missing"
                )
            self.question.checked(otherwise)

    def _wants(self) -> Wants:
        return Wants(tuple(dict.fromkeys((*self.show, *((self.question.edit,) if self.question.edit else ())))))

    def forward(self, **fields: Any) -> Any:
        """Ask, for a sync caller."""
        from escalade.pipelines._bridge import run_sync

        return run_sync(lambda: self.aforward(**fields))

    async def aforward(self, **fields: Any) -> Any:
        """Ask, and wait for the answer."""
        scope = scopes.current()
        shown = {name: fields[name] for name in self._wants().required if name in fields}
        journal: Any = None if scope is None else scope.journal
        if journal is not None and hasattr(journal, "ask"):
            answer = await self._kept(scope, journal, shown)
        else:
            answer = await self._now(scope, shown)
        edit = self.question.edit
        changed = {edit: fields.get(edit) if answer.edited is None else answer.edited} if edit else {}
        return dspy.Prediction(decision=answer.decision, action=answer.action, by=answer.by, **changed)

    async def _kept(self, scope: Any, journal: Any, shown: dict[str, Any]) -> Answer:
        asked = self.question
        plain = {name: _plain(value) for name, value in shown.items()}
        told = {"question": asked.question, "shown": plain, "options": asked.options, "text": asked.text}
        told |= {
            "edit": asked.edit,
            "role": asked.role,
            "tenant": "" if scope.principal in {OWNER, NOBODY} else scope.principal.tenant,
        }

        def opened(ticket: str) -> None:
            events.emit(scope, events.Paused, ticket=ticket, question=asked.question)

        found: tuple[str, str, str] | None = await journal.ask(json.dumps(told), self.timeout, opened)
        if found is None:
            return self._late()
        ticket, answer, by = found
        said = json.loads(answer)
        events.emit(scope, events.Answered, ticket=ticket, action=said["action"], by=alias(by))
        return Answer(said["decision"], said["action"], said["edited"], by)

    async def _now(self, scope: Any, shown: dict[str, Any]) -> Answer:
        asker: Asker | None = dspy.settings.get(_ASKED)
        asked = self.question
        if asker is None:
            raise ApprovalRequired(
                f"{asked.question!r} waits for a person, and nobody can be asked in a plain call: start a durable run, "
                f"or say whom to ask, `with escalade.asking(callback):`"
            )
        whole = Question(asked.question, shown, asked.options, asked.text, asked.edit, asked.role)
        events.emit(scope, events.Paused, ticket="", question=asked.question)
        said = await self._within(self._said(asker, whole))
        if said is _NOTHING:
            answer = self._late()
        elif isinstance(said, Answer):
            checked = whole.checked(said.decision, said.edited)
            answer = Answer(checked.decision, checked.action, checked.edited, said.by)
        else:
            answer = whole.checked(said)
        events.emit(scope, events.Answered, ticket="", action=answer.action, by=alias(answer.by))
        return answer

    async def _said(self, asker: Asker, question: Question) -> Any:
        """What the asker says. One that is no coroutine function waits for a person in a thread."""
        if not is_async(asker):
            job = _askers.submit(partial(asker, question))
            try:
                said = await asyncio.wrap_future(job)
            finally:
                _askers.leave(job)
        else:
            said = asker(question)
        return await said if inspect.isawaitable(said) else said

    async def _within(self, asked: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self.timeout) as timer:
                return await asked
        except TimeoutError:
            if timer.expired():
                return _NOTHING
            raise

    def _late(self) -> Answer:
        """Nobody has answered in time."""
        if self.otherwise is None:
            within = "in time" if self.timeout is None else f"within {self.timeout:g} s"
            raise TimeoutError(f"nobody has answered {self.question.question!r} {within}")
        return self.question.checked(self.otherwise)


def _plain(value: Any) -> Any:
    """As a person is shown it: JSON."""
    if isinstance(value, dspy.Example):
        value = dict(value.items())
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value


def _check(
    question: str, show: Sequence[str], options: Sequence[str], edit: str, timeout: float | None, *, text: bool
) -> None:
    if not isinstance(question, str) or not question:
        raise BadInput(f"Ask: expected a question, got {question!r}")
    if isinstance(show, str) or isinstance(options, str):
        raise BadInput(f"Ask({question!r}): show and options are lists of texts")
    if options and text:
        raise BadInput(f"Ask({question!r}): options to choose from, or text=True, not both")
    if len(set(options)) != len(options) or not all(isinstance(one, str) and one for one in options):
        raise BadInput(f"Ask({question!r}): options are different texts, got {list(options)!r}")
    if any(not name.isidentifier() for name in (*show, *((edit,) if edit else ()))):
        raise BadInput(f"Ask({question!r}): show and edit are names of fields, got {list(show)!r} and {edit!r}")
    if timeout is not None and not timeout > 0:
        raise BadInput(f"Ask({question!r}): timeout: expected more than 0 seconds, got {timeout!r}")
