"""The kinds of events: what can happen in a run, as frozen records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = [
    "Answered",
    "BranchesJoined",
    "BudgetCrossed",
    "CacheHit",
    "ClimbStopped",
    "Escalated",
    "Event",
    "FellBack",
    "LimitsUnchecked",
    "NodeCancelled",
    "NodeFailed",
    "NodeFellBack",
    "NodeFinished",
    "NodeHedged",
    "NodeQueued",
    "NodeResult",
    "NodeRetried",
    "NodeReused",
    "NodeSkipped",
    "NodeStarted",
    "Paused",
    "Progress",
    "RolledBack",
    "RunCancelled",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "RungStarted",
    "RungTried",
    "Served",
    "Settled",
    "StoodIn",
    "Token",
    "ToolCalled",
    "ToolDenied",
    "ToolWarned",
]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Event:
    """Something happened.

    `seq`: grows with each event of a run; one counter per process, so that the events of several runs can be merged in
    order. `time`: wall clock, seconds. `run_id`: of the scope. `call`, `path`: see the module's docstring; 0 and ""
    outside of any pipeline. Costs, in all events, are nano-dollars; None where no scope keeps account of them.
    """

    seq: int
    time: float
    run_id: str
    call: int
    path: str

    # Written once and not made by `dataclass` for each of the 40 classes: 8 ms of `import escalade.pipelines`.

    def __repr__(self) -> str:
        told = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self))
        return f"{type(self).__name__}({told})"

    def __eq__(self, other: object) -> bool:
        return self.as_dict() == other.as_dict() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self.seq, self.run_id, self.path))

    def as_dict(self) -> dict[str, Any]:
        """A flat dict, `{"event": "NodeStarted", "seq": ..., ...}`, for a line of JSON; values are not copied."""
        return {"event": type(self).__name__, **{field.name: getattr(self, field.name) for field in fields(self)}}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class RunStarted(Event):
    """A pipeline was called from outside of any pipeline. `pipeline`: its class and nodes, for people."""

    pipeline: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class RunFinished(Event):
    """The pipeline returned `result`, after `seconds`."""

    result: Any
    seconds: float
    cost: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class RunFailed(Event):
    """The pipeline raised. `error`: class and message."""

    error: str
    seconds: float
    cost: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class RunCancelled(Event):
    """The pipeline was cancelled from outside."""

    seconds: float
    cost: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NodeStarted(Event):
    """A node begins to work. `of`: how many items its map has, None for unknown. `tags`: words, with blanks between."""

    of: int | None = None
    tags: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NodeFinished(Event):
    """A node returned, after `seconds`; `cost` is what was settled in it and below."""

    seconds: float
    cost: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NodeFailed(Event):
    """A node raised. `error`: class and message."""

    error: str
    seconds: float
    cost: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NodeCancelled(Event):
    """A node was cancelled: a sibling failed, a deadline passed, or the caller left."""

    seconds: float
    cost: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NodeSkipped(Event):
    """A pipeline does without a node: optional, and it failed (`NodeFailed` comes first) or there was too little money
    or time; or it had not begun when the other branches had decided. `why`.
    """

    why: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class BranchesJoined(Event):
    """Branches were joined by a rule. `verdict`: enough, late, impossible. `missing`: name -> state, 100 at most."""

    verdict: str
    good: int
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NodeRetried(Event):
    """A node failed and is run again, as attempt `attempt` (2 is the first retry), after a `pause` in seconds."""

    attempt: int
    error: str
    pause: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NodeHedged(Event):
    """A node has not answered after `after` seconds, and a second attempt began beside it."""

    after: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NodeFellBack(Event):
    """A node failed with `error`; `fallback`, another node, is run in its place."""

    fallback: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NodeReused(Event):
    """A node was not run: its result was there. `source`: cache, joined (an equal call at the time), journal."""

    source: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NodeQueued(Event):
    """A node got its place after `seconds` of waiting, in a group or behind a limit."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Progress(Event):
    """A node says how far it is: `done` of `total` (None for unknown), with a `message` and a `partial` result."""

    done: float
    total: float | None = None
    message: str = ""
    partial: Any = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class NodeResult(Event):
    """What a node has returned, told before its NodeFinished to those listeners alone whose `results` is true."""

    result: Any


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Token(Event):
    """A piece of text of an output `field`, as a model writes it; told only to streams of tokens.

    `draft`: pieces with the same number belong together; those of a field with a higher number take the place of all
    before. `provisional`: the rung hasn't been judged yet. `rung`: its name, "" outside of climbs.
    """

    text: str
    field: str = ""
    draft: int = 0
    rung: str = ""
    provisional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Paused(Event):
    """A node waits for a person. `question`: what is asked; `ticket`: by which it is answered."""

    ticket: str
    question: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Answered(Event):
    """A person has answered. `by`: who; `action`: approve, reject, edit, choose or answer."""

    ticket: str
    action: str
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class RungStarted(Event):
    """A climb tries a rung; told only to streams of tokens. Of an earlier one, what isn't shown again is no answer."""

    rung: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class RungTried(Event):
    """A climb tried a rung. `confidence`: 0 to 1, nan when unknown. `why`: how it failed, "" when it answered.

    `raw`: the confidence before any calibrator. `signals`: name -> value of each source of confidence. Of `cost`,
    `confidence_cost` was not for the answer. `confidence_error`: why the confidence is unknown, "" where it isn't.
    """

    rung: str
    confidence: float
    cost: int | None = None
    why: str = ""
    raw: float = math.nan
    signals: Mapping[str, float] = field(default_factory=dict)
    confidence_cost: int = 0
    confidence_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Escalated(Event):
    """A climb went on to another rung, and why: `confidence` of the last answer, nan when unknown; `budget_left`, None
    without a limit; `price` that the next rung is expected to cost, None where unknown.
    """

    from_rung: str
    to_rung: str
    why: str = ""
    confidence: float = math.nan
    budget_left: int | None = None
    price: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class ClimbStopped(Event):
    """A climb ended, and why. `rung`: the one that answers, "" if none does; `confidence` of its answer; `cost` of all
    attempts; `budget_left`, None without a limit; `next_rung` that would have been next, "" if none is left, and the
    `price` that it was expected to cost, None where unknown.
    """

    rung: str
    confidence: float
    cost: int | None = None
    why: str = ""
    budget_left: int | None = None
    next_rung: str = ""
    price: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class ToolCalled(Event):
    """A tool was used. `outcome`: ok, failed, cancelled, or the class name of an error."""

    tool: str
    cost: int | None = None
    outcome: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class ToolDenied(Event):
    """A tool was refused; it did not run. `rule`: what decided."""

    tool: str
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class LimitsUnchecked(Event):
    """A resource was used without its rate limits, since their store can't be reached and it is said to stay open."""

    resource: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class ToolWarned(Event):
    """A version of a tool is used that is deprecated or yanked; once per run."""

    tool: str
    warning: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class RolledBack(Event):
    """The rollout of a tool's version ended by itself: who had it gets version `to` again. `why`: how it was worse."""

    tool: str
    to: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class FellBack(Event):
    """`model` answered in place of the one that was `asked`, which failed or was left alone."""

    model: str
    asked: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class StoodIn(Event):
    """For want of money a climb tries another rung than the one that its policy wanted."""

    rung: str
    wanted: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Served(Event):
    """A program that degrades instead of failing gave an answer. `level`: 1 (its own cache) to 5 (an apology), see
    `agents/degrade`. `source`: the same in a word. `why`: what went wrong before, "" for nothing.
    """

    level: int
    source: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class BudgetCrossed(Event):
    """A budget that this run is under crossed a mark: warn, brake, exhausted or overrun; once a process and period.

    `account`: its alias. `used`: settled and held; `limit`, None without one: nano-dollars.
    """

    account: str
    level: str
    used: int
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Settled(Event):
    """A physical use of a resource was settled at `cost`, `seconds` after it began. `kind`: model or tool.
    `permission`, `effect`: what a policy was asked for it. `approved`: by a person, for this very use.
    """

    resource: str
    cost: int
    permission: str = ""
    effect: str = ""
    approved: bool = False
    kind: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class CacheHit(Event):
    """A model was not called, since its answer was there. `kind`: of the question. `level`: where the answer was:
    memory, store, joined (an equal call that ran at the time), similar. `saved`: what the call would have cost, None
    for unknown. `age`: of the answer, seconds.
    """

    model: str
    kind: str
    level: str
    saved: int | None = None
    age: float = 0.0
