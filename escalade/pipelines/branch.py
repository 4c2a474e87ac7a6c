"""Branch: one of several nodes, chosen by the inputs."""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import dspy

from escalade.errors import BadInput
from escalade.pipelines import _node, _run
from escalade.pipelines._calls import RESULT, call, meanings, plain, prediction, said
from escalade.pipelines._errors import failed
from escalade.pipelines._told import told
from escalade.pipelines.checking import checks
from escalade.pipelines.checking._traffic import Traffic
from escalade.pipelines.pipeline import Pipeline

CHOOSE = "choose"
"""The name of the chooser, in paths."""

OTHERWISE = "otherwise"
"""The name of the node that takes what no case takes."""

IS = "is_"
"""What the name of a case's predicate begins with."""


class Branched(dspy.Prediction):
    """The result of the node that was taken; it also knows which one that was."""

    _taken: str = ""

    @property
    def taken(self) -> str:
        """The name of the case that was taken, or "otherwise"."""
        return self._taken


class Branch(Pipeline):
    """Runs the one of its cases that the chooser names; the others cost nothing.

    `chooser`: a function or module that takes inputs by name and says which: the name or the key of a case, a bool, a
    member of an Enum (by itself, its value or its name); of a Prediction with several fields, the last counts. Or the
    name of an input that says it. Or a mapping of cases to predicates, functions or modules, of which the first true
    one decides. `cases`: a dict, whose keys are what the chooser says, or keywords; for a chooser that says True or
    False, they are called `true` and `false`. `otherwise`: what runs when no case is meant. Every case gets the inputs
    that it takes by name.

    Returns the taken node's result, as a Prediction (a bare value becomes its field `result`), which knows what was
    `taken`. `timeout`: seconds for each case that has none of its own.

    Raises BadInput, and when called a NodeError that is a BadInput for a choice that no case takes.

    >>> async def kind(text: str) -> str:
    ...     return "long" if len(text) > 20 else "short"
    >>> async def first_word(text: str) -> dict:
    ...     return {"gist": text.split()[0]}
    >>> async def whole(text: str) -> dict:
    ...     return {"gist": text}
    >>> result = Branch(kind, long=first_word, short=whole)(text="to be or not")
    >>> result.gist, result.taken
    ('to be or not', 'short')
    """

    kind: ClassVar[str] = "branch"

    def __init__(
        self,
        chooser: Any,
        cases: Mapping[Any, Any] | None = None,
        /,
        *,
        otherwise: Any = None,
        timeout: float | None = None,
        **named: Any,
    ) -> None:
        super().__init__()
        self.field: str | None = None
        self.chooser: Any = None
        self.predicates: dict[str, Any] = {}
        self.cases: dict[str, Any] = {}
        self.otherwise: Any = None
        self._keys: dict[Any, str] = {}
        for key, case in [*_given(cases), *named.items()]:
            self._add(key, case, timeout)
        if not self.cases:
            raise BadInput("a Branch needs at least one case: Branch(chooser, short=..., long=...)")
        if otherwise is not None:
            found = _node.named(_node.unwrap(otherwise), OTHERWISE, timeout)
            self.otherwise, self._options[OTHERWISE] = found.target, found.options
        if isinstance(chooser, Mapping):
            self._predicate(chooser)
        else:
            self._choose_by(chooser)
        self._plan()

    def _add(self, key: Any, case: Any, timeout: float | None) -> None:
        name = _name_of(key)
        if name in self.cases:
            raise BadInput(f"two cases are named {name!r}")
        if name in (CHOOSE, OTHERWISE):
            raise BadInput(f"no case can be named {name!r}" + ("; hand it over as otherwise=" * (name == OTHERWISE)))
        found = _node.named(_node.unwrap(case), name, timeout)
        self._keys[plain(key)] = name
        self.cases[name], self._options[name] = found.target, found.options

    def _choose_by(self, chooser: Any) -> None:
        if isinstance(chooser, str):
            if not chooser.isidentifier():
                raise BadInput(f"chooser {chooser!r}: expected the name of a field, a function or a module")
            self.field = chooser
        else:
            found = _node.named(_node.unwrap(chooser), CHOOSE)
            self.chooser, self._options[CHOOSE] = found.target, found.options

    def _predicate(self, predicates: Mapping[Any, Any]) -> None:
        for key, predicate in predicates.items():
            case = self._keys.get(plain(key))
            if case is None:
                raise BadInput(f"a predicate for {key!r}, which is no case (cases: {', '.join(self.cases)})")
            name = IS + case
            if name in self.cases:
                raise BadInput(f"no case can be named {name!r}: it is the name of the predicate of {case!r}")
            found = _node.named(_node.unwrap(predicate), name)
            self.predicates[name], self._options[name] = found.target, found.options
        without = [case for case in self.cases if IS + case not in self.predicates]
        if without:
            raise BadInput(f"case {without[0]!r} has no predicate; what runs when none is true is otherwise=")

    def _targets(self) -> Mapping[str, Any]:
        targets = {**self.predicates, **self.cases}
        if self.chooser is not None:
            targets = {CHOOSE: self.chooser, **targets}
        if self.otherwise is not None:
            targets[OTHERWISE] = self.otherwise
        return targets

    def _part(self, name: str) -> str:
        if name in self.cases or name == OTHERWISE:
            return "case"
        return "predicate" if name in self.predicates else "chooser"

    def _facts(self) -> dict[str, Any]:
        return {"field": self.field, "keys": dict(self._keys), "otherwise": self.otherwise is not None}

    def _traffic(self, plan: Mapping[str, _node.Prepared]) -> Traffic:
        return checks.of_branch(plan, self._keys, field=self.field, chooser=CHOOSE, otherwise=OTHERWISE)

    async def _flow(self, inputs: dict[str, Any], frame: _run.Frame) -> Any:
        plan = self._ready(inputs)
        if self.predicates:
            name = await self._first_true(plan, inputs, frame)
        else:
            name = self._meant(await self._choice(plan, inputs, frame))
        result = await call(plan[name], inputs, frame)
        return told(Branched, prediction(result, _node.named_fields(RESULT, result)), _taken=name)

    async def _first_true(self, plan: Mapping[str, _node.Prepared], inputs: dict[str, Any], frame: _run.Frame) -> str:
        """The case of the first predicate that is true."""
        for name in self.predicates:
            if said(await call(plan[name], inputs, frame)):
                return name.removeprefix(IS)
        if self.otherwise is None:
            raise BadInput(f"none of {', '.join(self.predicates)} is true; otherwise= takes what is left")
        return OTHERWISE

    async def _choice(self, plan: Mapping[str, _node.Prepared], inputs: dict[str, Any], frame: _run.Frame) -> Any:
        if self.field is None:
            return said(await call(plan[CHOOSE], inputs, frame))
        return inputs[self.field]

    def _meant(self, choice: Any) -> str:
        """The node that a choice means. Raises a NodeError that is a BadInput."""
        for key in meanings(choice):
            if key in self._keys:
                return self._keys[key]
        if self.otherwise is not None:
            return OTHERWISE
        close = difflib.get_close_matches(str(choice), list(self.cases), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        by = "it chose" if self.field is None else f"the field {self.field!r} is"
        cases = ", ".join(self.cases)
        raise failed(
            CHOOSE, BadInput(f"{by} {choice!r:.80}, which no case takes{hint} (cases: {cases}; or otherwise=)")
        )


def _given(cases: Any) -> list[tuple[Any, Any]]:
    if cases is None:
        return []
    if not isinstance(cases, Mapping):
        raise BadInput(f"cases have names: Branch(chooser, short=..., long=...) or a dict of them, got {cases!r}")
    return list(cases.items())


def _name_of(key: Any) -> str:
    """The name of a case: of a text that is no name, or of a number, one that is made from it."""
    if isinstance(key, enum.Enum):
        key = key.value if isinstance(key.value, str) else key.name
    text = str(key).lower() if isinstance(key, bool) else str(key)
    if text.isidentifier():
        return text
    made = re.sub(r"\W+", "_", text).strip("_")
    return made if made.isidentifier() else f"case_{made}".rstrip("_")
