"""Loop: one node again and again, until it is good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import dspy

from escalade.errors import BadInput, EscaladeError
from escalade.pipelines import _node, _run
from escalade.pipelines._calls import RESULT, call, prediction, said
from escalade.pipelines._errors import failed
from escalade.pipelines._node import Prepared
from escalade.pipelines._told import told
from escalade.pipelines.checking import checks
from escalade.pipelines.checking._fields import parts_of
from escalade.pipelines.checking._traffic import Traffic
from escalade.pipelines.pipeline import Pipeline

BODY = "body"
UNTIL = "until"


class Looped(dspy.Prediction):
    """The last round's result; it also knows how it came about."""

    _rounds: int = 0
    _ended: str = ""

    @property
    def rounds(self) -> int:
        """How many times the node was run."""
        return self._rounds

    @property
    def ended(self) -> str:
        """Why it stopped: "until", the predicate was true; "most", there were no more rounds."""
        return self._ended


class Loop(Pipeline):
    """Runs a node until a predicate is true, at most `most` times.

    In each round the node takes, by name, what it wants of the inputs and of what the rounds before returned, the later
    hiding the earlier. A bare value takes the place of the one field that the node requires; where it requires none, it
    becomes the field `result`. After each round `until`, a function or module, takes what it wants of the same fields,
    and of this round's; of a Prediction with several fields the last counts.

    Returns the last round's result, as a Prediction, which knows its number of `rounds` and why it `ended`.
    `carry`: what a field is called in the next round, as `{"better": "draft"}`, since no signature takes and gives it.
    `most`: rounds at the most. `until`: None for always `most` rounds. `on_most`: "return" the last result when
    there are no more rounds, or "raise" a NodeError. `timeout`: seconds per round. Raises BadInput.

    >>> async def halve(x: float) -> float:
    ...     return x / 2
    >>> async def small(x: float) -> bool:
    ...     return x < 1
    >>> result = Loop(halve, until=small, most=10)(x=6.0)
    >>> result.x, result.rounds, result.ended
    (0.75, 3, 'until')
    """

    kind: ClassVar[str] = "loop"

    def __init__(
        self,
        body: Any,
        *,
        most: int | None = None,
        until: Any = None,
        carry: Mapping[str, str] | None = None,
        on_most: str = "return",
        timeout: float | None = None,
    ) -> None:
        super().__init__()
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise BadInput(f"a Loop needs a bound: most=, 1 or more rounds, got {most!r}")
        if on_most not in ("return", "raise"):
            raise BadInput(f"on_most: expected 'return' or 'raise', got {on_most!r}")
        if until is None and on_most == "raise":
            raise BadInput("on_most='raise' without until=: such a loop would always fail")
        found = _node.named(_node.unwrap(body), BODY, timeout)
        self.body, self._options[BODY] = found.target, found.options
        self.until: Any = None
        if until is not None:
            found = _node.named(_node.unwrap(until), UNTIL)
            self.until, self._options[UNTIL] = found.target, found.options
        if not all(isinstance(name, str) for pair in (carry or {}).items() for name in pair):
            raise BadInput(f"carry: expected names, as in {{'better': 'draft'}}, got {carry!r}")
        self.most, self.on_most, self.carry = most, on_most, dict(carry or {})
        self._plan()

    def _targets(self) -> Mapping[str, Any]:
        targets = {BODY: self.body}
        return targets if self.until is None else {**targets, UNTIL: self.until}

    def _part(self, name: str) -> str:
        return name

    def _facts(self) -> dict[str, Any]:
        return {"most": self.most, "on_most": self.on_most, "carry": dict(self.carry)}

    def _traffic(self, plan: Mapping[str, Prepared]) -> Traffic:
        return checks.of_loop(plan[BODY], plan.get(UNTIL), most=self.most, carry=self.carry)

    async def _flow(self, inputs: dict[str, Any], frame: _run.Frame) -> Any:
        plan = self._ready(inputs)
        body, until = plan[BODY], plan.get(UNTIL)
        visible = dict(inputs)
        for number in range(1, self.most + 1):
            result = await call(body, visible, frame, f"[{number}]", number)
            fields = _named(body, result, number)
            visible.update({**parts_of(result), **fields})
            if self.carry:
                self._carry(visible, fields, number)
            if until is not None and said(await call(until, visible, frame, f"{UNTIL}[{number}]")):
                return told(Looped, prediction(result, fields), _rounds=number, _ended=UNTIL)
        if self.on_most == "raise":
            late = f"{UNTIL}[{self.most}]"
            raise failed(late, EscaladeError(f"not true after {self.most} rounds, the most that there may be"))
        return told(Looped, prediction(result, fields), _rounds=self.most, _ended="most")

    def _carry(self, visible: dict[str, Any], fields: Mapping[str, Any], number: int) -> None:
        for name, later in self.carry.items():
            if name not in fields:
                lacks = f"it gave no {name!r}, which is to be carried over as {later!r}; it gave: {', '.join(fields)}"
                raise failed(f"[{number}]", BadInput(lacks))
            visible[later] = fields[name]


def _named(body: Prepared, result: Any, number: int) -> Mapping[str, Any]:
    """The fields of a round's result."""
    wanted = body.wants.required
    if len(wanted) > 1 and _node.fields_of(result) is None:
        unclear = f"it returned {result!r:.80}; which of its fields {', '.join(wanted)} is that? Return a dict"
        raise failed(f"[{number}]", BadInput(unclear))
    return _node.named_fields(wanted[0] if wanted else RESULT, result)
