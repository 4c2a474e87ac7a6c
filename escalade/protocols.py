"""What the floors owe each other: who asks, and what a scope needs of ledgers, policies, desks and records.

`registry` implements these protocols, `scopes` carries what implements them; neither has to know the other's classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from escalade.errors import BadInput, BudgetExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a user of a tenant, with roles. `roles` are names that an access policy gives a meaning."""

    user: str = "anonymous"
    tenant: str = "default"
    roles: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        given: Any = self.roles
        object.__setattr__(self, "roles", frozenset({given} if isinstance(given, str) else given))
        if not self.user or not self.tenant or "*" in self.user + self.tenant or "/" in self.tenant:
            raise BadInput(
                f"user {self.user!r} of tenant {self.tenant!r}: names aren't empty and have no '*', a tenant's no '/'"
            )


NOBODY = Principal(user="nobody")
"""Stands where no principal is known."""


class Hold(Protocol):
    """Money set aside for one use. `settle` or `release` ends it, exactly once; later calls change nothing."""

    @property
    def amount(self) -> int: ...
    def settle(self, actual: int) -> None: ...
    def release(self) -> None: ...


class Purse(Protocol):
    """The scope's place in a ledger: an account and all the accounts above it."""

    def reserve(self, amount: int, what: str = "") -> Hold:
        """Set `amount` nano-dollars aside on every level or on none. Raises BudgetExceeded."""
        ...

    def child(
        self, name: str, limit: int | None, *, optional: bool = False, principal: Principal | None = None
    ) -> Purse:
        """A narrower purse, also under the budgets of `principal` and his tenant.

        `optional`: a refusal inside doesn't exhaust the accounts above.
        """
        ...

    def exhaust(self, refusal: BudgetExceeded) -> None:
        """Make a refusal stick here, as if a reservation had been refused: something gave up for want of money."""
        ...

    def left(self) -> int | None:
        """Nano-dollars that the tightest level still has, None without any limit."""
        ...

    @property
    def braked(self) -> bool:
        """Some level is past its brake (95 %): finish cheaply, don't escalate."""
        ...

    @property
    def spent(self) -> int:
        """Nano-dollars settled on this account."""
        ...

    @property
    def held(self) -> int:
        """Nano-dollars set aside and not settled yet on this account."""
        ...

    @property
    def limited(self) -> bool:
        """Is there a limit on any level?"""
        ...

    @property
    def exhausted(self) -> BudgetExceeded | None:
        """The first refusal here or below, which stays (DSPy swallows the exception itself)."""
        ...


@dataclass(frozen=True, slots=True)
class Decided:
    """What an access policy said: `allowed`, and the `rule` that decided, for people and the audit.

    `closer`: it depends on the arguments: allowed here means that some call is, and `decide_call` has the last word.
    `approval`: allowed once a person has approved this very call.
    """

    allowed: bool
    rule: str
    closer: bool = field(default=False, repr=False)
    approval: bool = field(default=False, repr=False)


class Access(Protocol):
    """Who may do what. Deny by default. `effect`: what a tool does to the world ("read", "write", "irreversible"), ""
    for anything else.

    A policy may also have a `digest`, which is recorded with each use, and where roles inherit, `roles_of(principal)`:
    his roles with all inherited ones.
    """

    def decide(self, principal: Principal, permission: str, effect: str = "") -> Decided:
        """May the principal do this, with some arguments or other?"""
        ...

    def check_roles(self, roles: frozenset[str]) -> None:
        """Raises UnknownName for a role that does not exist."""
        ...


class CallAccess(Access, Protocol):
    """A policy that looks at arguments. Whoever answers `closer` has these two methods besides."""

    def decide_call(self, principal: Principal, permission: str, effect: str, args: Mapping[str, Any]) -> Decided:
        """May the principal do this with these (validated) arguments?"""
        ...

    def decide_any(
        self, principals: tuple[Principal, ...], permission: str, effect: str, schema: Mapping[str, Any] | None
    ) -> bool:
        """Are there arguments that fit the schema and with which all principals may do this? May say yes in doubt."""
        ...


class Desk(Protocol):
    """Where calls wait for a person's approval: `registry/approvals`."""

    @property
    def waits(self) -> bool:
        """Does a call wait for the decision, or does it end with ApprovalRequired?"""
        ...

    def ticket(self, asked: Any) -> Ticket:
        """The approval of exactly this call. Raises ApprovalRequired (and opens a request), ApprovalDenied."""
        ...

    def given(self, asked: Any) -> bool:
        """Was exactly this call approved, be it that the approval was spent since? Opens no request."""
        ...

    def spent(self, asked: Any) -> Ticket | None:
        """The approval that exactly this call has spent: takes no other one, and is good for that answer alone."""
        ...

    def wait(self, request_id: str, seconds: float) -> bool:
        """Wait for a decision; False when none came before the request expired."""
        ...

    async def await_(self, request_id: str, seconds: float) -> bool:
        """`wait`, without blocking the event loop."""
        ...


class Ticket(Protocol):
    """An approval of one call. Of all who hold it, one may use it."""

    @property
    def request_id(self) -> str: ...
    def use(self) -> None:
        """Spend it. Raises ApprovalRequired when somebody else was faster, or it has expired."""
        ...

    def give_back(self) -> None:
        """Nothing ran after all."""
        ...


class Recorder(Protocol):
    """Where each use is recorded: an intent before it, an outcome after it, a denial instead of both."""

    def intent(self, entry: Entry) -> None: ...
    def outcome(self, entry: Entry) -> None: ...
    def denied(self, entry: Entry) -> None: ...


class DigestingRecorder(Recorder, Protocol):
    """A recorder that wants digests of a tool's arguments and result in its entries, and says what a digest is."""

    def digest(self, value: Any) -> str: ...


class AsyncRecorder(Recorder, Protocol):
    """A recorder whose `intent` may take a while: coroutines await this one instead, where there is one."""

    async def aintent(self, entry: Entry) -> None: ...


@dataclass(slots=True)
class Entry:
    """One physical use of a resource, as recorded.

    `held` and `cost`: nano-dollars. `started`: wall clock, seconds. `seconds`: duration. `outcome`: "" while it runs,
    then ok, failed, cancelled, or the class name of the refusal. `priced`: False when neither a price nor a bill was
    known: its `cost` of 0 means unknown. What follows is for the audit, "" where nobody filled it in: `side_effects`
    of a tool (read, write, irreversible); the permission that was asked for; digests that stand for schema, arguments,
    result and policy (never the things themselves); `approval_id`; `redactions`: how often which kind was redacted;
    `principals`: all who had to be allowed. `unchecked`: "limits" when their store was down and the resource stays
    open then. `source`: where the answer came from when nothing ran: cache, once, replay, dry-run. `invalid`: the
    arguments for which it was refused, by their names in the schema; "(unknown)" for one that it doesn't have.
    """

    call_id: str
    run_id: str
    principal: Principal
    resource: str
    version: str
    kind: str
    rule: str = ""
    held: int = 0
    cost: int = 0
    started: float = 0.0
    seconds: float = 0.0
    outcome: str = ""
    error: str = ""
    priced: bool = True
    side_effects: str = ""
    permission: str = ""
    schema_digest: str = ""
    args_digest: str = ""
    result_digest: str = ""
    policy_digest: str = ""
    approval_id: str = ""
    redactions: dict[str, int] = field(default_factory=dict)
    principals: tuple[Principal, ...] = ()
    unchecked: str = ""
    source: str = ""
    invalid: tuple[str, ...] = ()


class RunJournal(Protocol):
    """What a durable run has finished, by step, so that after a crash nothing that was finished is done or paid again.

    A step is known by its path (see `registry/idempotency.py`) and its inputs, never by the order in which steps happen
    to run.
    """

    async def step(
        self,
        path: list[str | int],
        work: Callable[[], Awaitable[Any]],
        fields: Mapping[str, Any] | None = None,
        reused: Callable[[], object] | None = None,
    ) -> Any:
        """The result of the node at `path` for these `fields`: the one that is kept (then `reused` is called), or that
        of `work`, which is kept then. Without fields, the path alone tells nodes apart.
        """
        ...

    def find(self, key: str) -> bytes | None:
        """What a finished call of a model or a tool gave, None for one that isn't finished. Each is given once per
        execution, in the order in which they were finished: a step may make the same call several times.

        Raises OutcomeUnknown for one that was begun, must not be made twice, and of which no end is known.
        """
        ...

    def begin(self, key: str, kind: str, resource: str) -> None:
        """A call that must not be made twice is about to be made. Blocks until that is on the disk."""
        ...

    def drop(self, key: str) -> None:
        """What was begun has failed, and may be made again."""
        ...

    def note(self, key: str, kind: str, resource: str, value: bytes | None, cost: int) -> None:
        """A call is finished and paid: `cost` nano-dollars. `value`: None for one that can't be kept; it is unknown
        then. Returns at once; what is noted later is never on the disk without it. Raises StoreUnavailable.
        """
        ...

    def saved(self) -> None:
        """Blocks until what was noted is on the disk. Raises StoreUnavailable."""
        ...

    async def asaved(self) -> None:
        """`saved`, without blocking the event loop."""
        ...
