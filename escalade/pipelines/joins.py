"""Joins: when a fan-out, a map or a race has enough, and how each of its branches ended.

A `Rule` is what the user said (`quorum=2`, `partial=True`, ...); a `Tally` counts one call by it: told of each branch
that ends, it says go on, enough, or impossible. Neither starts or cancels anything: `_gather.py` does.
"""

from __future__ import annotations

import asyncio
import copy
import enum
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import dspy

from escalade.errors import BadInput, DeadlineExceeded, NodeTimeout
from escalade.pipelines import _errors, _node

State = Literal["ok", "failed", "timeout", "cancelled", "skipped"]


@dataclass(frozen=True, slots=True)
class BranchStatus:
    """How a branch ended.

    `state`: ok; failed; timeout (its own, or the time of the whole was up); cancelled (the others were enough, or too
    few could come); skipped (it never began, or is optional and failed). `seconds` that it ran, None where nobody
    measured. `cost`: nano-dollars that were settled in it by then, None outside of any scope. `error`: what it raised.
    `why`: what there is to say besides.

    >>> str(BranchStatus("failed", 0.25, error=ValueError("no")))
    'failed after 0.25 s: ValueError: no'
    """

    state: State
    seconds: float | None = None
    cost: int | None = None
    error: BaseException | None = None
    why: str = ""

    @property
    def ok(self) -> bool:
        """Did it give a result?"""
        return self.state == "ok"

    def __str__(self) -> str:
        why = self.why or ("" if self.error is None else _errors.text(self.error))
        took = "" if self.seconds is None else f" after {self.seconds:.3g} s"
        return f"{self.state}{took}{f': {why}' if why else ''}"


def state_of(error: BaseException) -> State:
    """The state of a branch that raised `error`."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return "timeout" if isinstance(error, (NodeTimeout, DeadlineExceeded)) else "failed"


class Verdict(enum.Enum):
    """What a tally says."""

    GO_ON = "go on"
    ENOUGH = "enough"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Rule:
    """When it is enough. Without any option: when all have ended well.

    `quorum`, `first`: so many have; `first` takes exactly those. `until`: it holds for the results so far. `partial`:
    when time is up (`within` seconds, or the deadline of the scope), or all have ended, with `least` good ones or more.
    `keep`: when all have ended, however.
    """

    quorum: int | None = None
    first: int | None = None
    until: Callable[[Mapping[Any, Any]], Any] | None = None
    partial: bool = False
    within: float | None = None
    least: int = 1
    keep: bool = False

    @property
    def strict(self) -> bool:
        """Is one failure the failure of all?"""
        return self.needs is None and self.until is None and not self.partial and not self.keep

    @property
    def needs(self) -> int | None:
        """How many good results end it early, None for no number."""
        return self.quorum or self.first

    def fewest(self, total: int) -> int:
        """With how many good results it can still end well."""
        return min(self.least, total) if self.partial else self.needs or 0

    def facts(self) -> dict[str, Any]:
        """What was said, for people and estimates."""
        names = ("quorum", "first", "until", "partial", "within", "keep")
        said = {name: value for name in names if (value := getattr(self, name))}
        return {**said, "least": self.least} if self.partial else said

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.facts().items() if name != "until")


ALL = Rule()


def rule(
    *,
    quorum: int | None = None,
    first: int | None = None,
    until: Callable[[Mapping[Any, Any]], Any] | None = None,
    partial: bool = False,
    within: float | None = None,
    least: int | None = None,
    errors: str = "raise",
    total: int | None = None,
) -> Rule:
    """A checked rule. `errors`: "raise", or "keep" them as statuses. `total`: number of branches, where it is known.

    Raises BadInput.
    """
    _check_count("quorum", quorum, 1, total)
    _check_count("first", first, 1, total)
    _check_count("least", least, 0, total)
    if errors not in ("raise", "keep"):
        raise BadInput(f"errors: expected 'raise' or 'keep', got {errors!r}")
    given = [name for name, value in (("quorum", quorum), ("first", first), ("until", until)) if value is not None]
    if len(given) > 1:
        raise BadInput(f"{' and '.join(given)}: one of them says when it is enough; leave out the other")
    if until is not None and (not callable(until) or inspect.iscoroutinefunction(until)):
        raise BadInput(f"until: expected a function of the results so far, not async, got {until!r}")
    if not isinstance(partial, bool):
        raise BadInput(f"partial: expected True or False, got {partial!r}; a branch of this name goes in a dict")
    if not partial and (within is not None or least is not None):
        name = "least" if within is None else "within"
        raise BadInput(f"{name}= is for partial=True; a time limit that raises is timeout= of a node")
    if within is not None and not (isinstance(within, (int, float)) and within > 0):
        raise BadInput(f"within: expected more than 0 seconds, got {within!r}")
    return Rule(quorum, first, until, partial, within, 1 if least is None else least, errors == "keep")


def _check_count(name: str, value: object, smallest: int, total: int | None) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadInput(f"{name}: expected a number of branches, got {value!r}; a branch of this name goes in a dict")
    if value < smallest or (total is not None and value > total):
        most = "" if total is None else f" to {total}, the number of branches"
        raise BadInput(f"{name}: expected {smallest}{most or ' or more'}, got {value}")


class Tally:
    """The count of one call. `total`: how many there will be, None while nobody knows."""

    __slots__ = ("good", "over", "rule", "total")

    def __init__(self, by: Rule, total: int | None = None) -> None:
        self.rule, self.total = by, total
        self.good = self.over = 0

    def ended(self, state: State, results: dict[Any, Any]) -> Verdict:
        """One has. `results`: the good ones so far, by name. Raises what `until` raises."""
        self.over += 1
        by = self.rule
        if state == "ok":
            self.good += 1
            if self.good == by.needs or (by.until is not None and by.until(MappingProxyType(results))):
                return Verdict.ENOUGH
        elif by.strict and state != "skipped":
            return Verdict.IMPOSSIBLE
        return self.look()

    def look(self) -> Verdict:
        """What can be said by the numbers alone."""
        if self.total is None:
            return Verdict.GO_ON
        left = self.total - self.over
        if self.good + left < self.rule.fewest(self.total):
            return Verdict.IMPOSSIBLE
        if left:
            return Verdict.GO_ON
        return Verdict.ENOUGH if self.rule.until is None or self.rule.partial else Verdict.IMPOSSIBLE

    def late(self, known: int) -> Verdict:
        """Time is up. `known`: how many there are, as far as anybody knows."""
        return Verdict.ENOUGH if self.good >= self.rule.fewest(known) else Verdict.IMPOSSIBLE


REDUCE = "reduce"
"""The path of a fold."""

REDUCED = "reduced"
"""The field of what a fold has made, where that has no fields of its own."""


class Fold:
    """`reduce=`: results folded into one value as they arrive. `initial`: each call begins with a copy of its own."""

    def __init__(self, function: Callable[[Any, Any, Any], Any], initial: Any) -> None:
        self._function, self.value = function, copy.deepcopy(initial)
        self._turn = asyncio.Lock() if inspect.iscoroutinefunction(function) else None

    def add(self, name: Any, result: Any) -> Any:
        """Fold in one result; a coroutine where the function is async, of which one at a time runs. Raises a NodeError
        named `reduce`.
        """
        if self._turn is not None:
            return self._added(self._turn, name, result)
        try:
            self.value = self._function(self.value, name, result)
        except Exception as error:  # noqa: BLE001  # whatever a user's function raises
            failure = _errors.failed(REDUCE, error)
        else:
            return None
        raise failure

    def prediction(self) -> dspy.Prediction:
        """What has become of it."""
        return dspy.Prediction(**_node.named_fields(REDUCED, self.value))

    async def _added(self, turn: asyncio.Lock, name: Any, result: Any) -> None:
        try:
            async with turn:
                self.value = await self._function(self.value, name, result)
        except Exception as error:  # noqa: BLE001  # whatever a user's function raises
            failure = _errors.failed(REDUCE, error)
        else:
            return
        raise failure


def check_fold(reduce: object, initial: object) -> None:
    """Raises BadInput for what can't fold."""
    if reduce is None and initial is not None:
        raise BadInput("initial= is what reduce= begins with; there is no reduce=")
    if reduce is not None and (not callable(reduce) or isinstance(reduce, type)):
        raise BadInput(f"reduce: expected a function (accumulated, name, result), got {reduce!r}")
