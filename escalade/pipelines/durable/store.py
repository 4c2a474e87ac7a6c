"""What a store of durable runs keeps, and what it promises: every method is one transaction, all of it or nothing.

    runs      one row each: what was asked, how far it is, what came of it
    steps     results of nodes, by path and inputs
    calls     answers of models and tools, by step and request
    events    of runs that were told to keep them
    tickets   questions to people, and their answers
    shapes    how a pipeline was arranged when a run of it began

An execution of a run is an *attempt*. Each attempt has a number, and what an earlier one still writes is refused
(`Superseded`): a worker that was taken for dead and isn't can't mix its work into that of its successor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from escalade.errors import EscaladeError

Status = Literal["queued", "running", "waiting", "done", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = get_args(Status)
ENDED: tuple[Status, ...] = ("done", "failed", "cancelled")


class Superseded(EscaladeError):
    """Another attempt at this run has begun: this one must end, and nothing that it does counts."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. Times: seconds since the epoch, 0 for not yet. `budget`, `spent`: nano-dollars. `deadline`: when it
    must have ended, None for never. `priority`: larger first. `inputs`, `result`: values as `values.Codec` writes them;
    `principal`, `error`: JSON. `turn`: how often it was handed to an engine; `attempts`: how often one began.
    `stopping`: somebody has cancelled it, and its execution hasn't ended yet. `keep_events`: are its events kept?
    """

    run_id: str
    pipeline: str
    shape: str
    inputs: bytes
    digest: str
    principal: str | None = None
    tenant: str = ""
    budget: int | None = None
    deadline: float | None = None
    priority: int = 0
    status: Status = "queued"
    stopping: bool = False
    turn: int = 1
    attempts: int = 0
    owner: str = ""
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    spent: int = 0
    result: bytes | None = None
    error: str | None = None
    forked_from: str | None = None
    keep_events: bool = False


@dataclass(frozen=True, slots=True)
class StepRow:
    """The result of a node. `key`: path and inputs; `path`: JSON of the path; `n`: in which order things finished."""

    key: str
    n: int
    path: str
    value: bytes


@dataclass(frozen=True, slots=True)
class CallRow:
    """A call of a model or a tool. `state`: done; begun, of a call that must not be made twice and hasn't ended; or
    odd, of one that has ended with what can't be kept. `key`: step and request; `path`: JSON of the step. `cost`:
    nano-dollars. `at`: seconds since the epoch.
    """

    key: str
    n: int
    path: str
    kind: str
    resource: str
    value: bytes
    cost: int = 0
    at: float = 0.0
    state: str = "done"


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event of a run, as JSON, numbered within the run."""

    n: int
    told: bytes


@dataclass(frozen=True, slots=True)
class TicketRow:
    """A question to a person. `asked`: JSON of the question, what is shown, the options, who may answer. `answer`:
    JSON, None while there is none. `expires`: when it is answered by itself, None for never. `parked`: does its run
    wait for nothing else?
    """

    ticket: str
    run_id: str
    path: str
    asked: str
    created: float = 0.0
    expires: float | None = None
    answer: str | None = None
    by: str = ""
    answered: float = 0.0
    parked: bool = False


Entry = StepRow | CallRow | EventRow


@dataclass(frozen=True, slots=True)
class Written:
    """Something that an attempt has finished."""

    run_id: str
    attempt: int
    row: Entry


@dataclass(frozen=True, slots=True)
class Kept:
    """What a run has finished so far, in the order in which it was finished."""

    steps: tuple[StepRow, ...] = ()
    calls: tuple[CallRow, ...] = ()


class Store(Protocol):
    """Every method raises StoreUnavailable when the store can't be reached or written. Methods block."""

    remote: bool
    """Does it wait for a disk or a server? Then coroutines ask it in a thread."""

    def create(self, run: RunRow, kept: Kept = ..., shape: str = "") -> RunRow:
        """Keep a new run, with what it has finished already; the one of that id, if there is one. `shape`: the text
        of its shape.
        """
        ...

    def get(self, run_id: str) -> RunRow | None: ...

    def select(
        self,
        *,
        status: Sequence[str] = (),
        pipeline: str | None = None,
        tenant: str | None = None,
        since: float = 0.0,
        before: float | None = None,
        limit: int | None = None,
    ) -> list[RunRow]:
        """Runs, the latest first. `status`: one of these; `since`, `before`: created at or after, ended before."""
        ...

    def ready(self, limit: int) -> list[RunRow]:
        """Queued runs: the larger priority first, then the older."""
        ...

    def shape(self, digest: str) -> str | None:
        """The text of a shape."""
        ...

    def begin(self, run_id: str, owner: str, now: float) -> RunRow | None:
        """A new attempt begins: queued or running (by who died) -> running. None for a run that isn't to be run."""
        ...

    def finish(self, run: RunRow) -> bool:
        """The attempt has ended: its status, result, error, spent, ended. False when another attempt has begun."""
        ...

    def correct(self, run_id: str, spent: int) -> None:
        """A run that has ended cost this: what was held when it ended has been booked."""
        ...

    def park(self, run_id: str, attempt: int, tickets: Sequence[str], spent: int, now: float) -> bool:
        """It waits from now on, unless one of these questions was answered, or expired, or somebody cancelled."""
        ...

    def queue(
        self, run_id: str, was: Sequence[str], *, attempt: int | None = None, shape: str | None = None
    ) -> RunRow | None:
        """One of these -> queued, with the next turn; None when it was none of these. `attempt`: only if that is its
        last attempt. `shape`: under this shape from now on.
        """
        ...

    def stop(self, run_id: str, now: float) -> RunRow | None:
        """Cancel it: at once where it doesn't run, otherwise told by `stopped`. None for an unknown run."""
        ...

    def stopped(self) -> list[str]:
        """Running runs that somebody has cancelled."""
        ...

    def due(self, now: float) -> list[str]:
        """Waiting runs with a question that was answered or has expired."""
        ...

    def kept(self, run_id: str) -> Kept: ...

    def write(self, written: Sequence[Written]) -> set[tuple[str, int]]:
        """Keep all of it, but what belongs to an attempt that isn't the last: these (run, attempt) are returned."""
        ...

    def events(self, run_id: str, after: int = 0) -> list[EventRow]: ...

    def ask(self, ticket: TicketRow) -> TicketRow:
        """Keep a question; the one of that name, if there is one."""
        ...

    def ticket(self, ticket: str) -> TicketRow | None: ...

    def tickets(self, run_id: str | None = None, *, waiting: bool = True) -> list[TicketRow]:
        """Questions, the oldest first. `waiting`: without an answer."""
        ...

    def answer(self, ticket: str, answer: str, by: str, now: float) -> bool:
        """Keep the answer; False when there is one already."""
        ...

    def delete(self, run_ids: Sequence[str]) -> None:
        """Forget runs, with all that belongs to them."""
        ...

    def close(self) -> None: ...
