"""The desk: where calls that need a person ask, wait, and learn what he said."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from escalade.clock import now as wall_clock
from escalade.errors import ApprovalDenied, ApprovalRequired, BadInput, NoPolicy, PermissionDenied, UnknownName
from escalade.registry.approvals.memory import MemoryRequests
from escalade.registry.approvals.requests import Asked, Request, Requests, State, new_request
from escalade.registry.elsewhere import elsewhere, is_remote
from escalade.registry.privacy.names import alias
from escalade.registry.privacy.redactor import redact
from escalade.scopes import Access, CallAccess, Decided, Principal

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Spent:
    """The approval of a call that was made: good for the answer that it was spent for, and for nothing else."""

    request_id: str

    def use(self) -> None:
        """It was used."""

    def give_back(self) -> None:
        """It stays with the call that used it."""


@dataclass(frozen=True, slots=True)
class Approved:
    """An approval of one call, not spent yet."""

    desk: Approvals
    asked: Asked
    request_id: str

    def use(self) -> None:
        """Spend it. Raises ApprovalRequired when it is gone: spent by another call, or expired."""
        self.desk.spend(self.asked, self.request_id)

    def give_back(self) -> None:
        """The call did not take place after all."""
        self.desk.store.give_back(self.request_id, self.asked.call_id)


class Approvals:
    """Requests for approval, and the people who decide.

        desk = Approvals(SqliteRequests("approvals.db"), access=policy)
        with escalade.scope(principal=ana, access=policy, approvals=desk):
            ...                                     # raises ApprovalRequired, or waits where `wait=True`
        desk.approve(request_id, by=boss, reason="agreed with the customer")

    `expires`: seconds from the request until neither it nor its approval is worth anything. `wait`: calls wait for the
    decision, at most until their deadline; otherwise they end with ApprovalRequired and can be made again once it is
    there (with the same arguments, in a scope of the same `run_id`). `self_approval`: people may approve what they ask
    for themselves. `on_request`: told of each new request, in the thread that asks (one of ours for coroutines, where
    the store is a file); what it raises is logged. `poll`: seconds between two looks.

    An approver needs the permission `<tool>:approve` (conditions on arguments hold for it as well) and must be of the
    asker's tenant.
    """

    def __init__(
        self,
        store: Requests | None = None,
        *,
        access: Access | None = None,
        expires: float = 3600.0,
        wait: bool = False,
        self_approval: bool = False,
        on_request: Callable[[Request], object] | None = None,
        poll: float = 0.2,
        clock: Callable[[], float] = wall_clock,
    ) -> None:
        if not expires > 0 or not poll > 0:
            raise BadInput(f"expires and poll: expected seconds > 0, got {expires!r} and {poll!r}")
        self.store: Requests = MemoryRequests() if store is None else store
        self._access, self._expires, self._self_approval = access, expires, self_approval
        self._on_request, self._poll, self._clock = on_request, poll, clock
        self.waits = wait
        self.remote = is_remote(self.store)

    def ticket(self, asked: Asked) -> Approved:
        """The approval of exactly this call.

        Raises ApprovalRequired while there is none (the request is open then), ApprovalDenied, InvalidArguments.
        """
        now = self._clock()
        fresh = new_request(asked, now, now + self._expires)
        kept = self.store.open(fresh)
        if kept.id == fresh.id and self._on_request is not None:
            try:
                self._on_request(kept)
            except Exception:
                logger.exception("the request %s is open, but telling of it failed", kept.id)
        if kept.state == "approved":
            return Approved(self, asked, kept.id)
        if kept.state == "denied":
            why = f": {redact(kept.reason)}" if kept.reason else ""
            raise ApprovalDenied(f"this call of {kept.label} was denied by {alias(kept.decided_by)!r}{why}", kept.id)
        raise ApprovalRequired(
            f"{kept.label} needs a person's approval of exactly this call; request {kept.id} waits for a decision",
            kept.id,
        )

    def given(self, asked: Asked) -> bool:
        """Did somebody approve exactly this call, whether it was made since then or not? Opens no request."""
        return bool(self.store.given(asked.key, self._clock()))

    def spent(self, asked: Asked) -> Spent | None:
        """The approval that exactly this call used, the newest of several."""
        used = (one for one in self.store.given(asked.key, self._clock()) if one.state == "used")
        found = next(used, None)
        return None if found is None else Spent(found.id)

    def spend(self, asked: Asked, request_id: str) -> None:
        """Use an approval up. Raises ApprovalRequired when it is gone, with a new request open."""
        if not self.store.use(request_id, asked.call_id, self._clock()):
            again = self.ticket(asked)  # as a rule raises: there is a new request now
            raise ApprovalRequired(f"approval {request_id} of {asked.tool} was used or has expired", again.request_id)

    def approve(self, request_id: str, by: Principal, reason: str = "") -> Request:
        """Approve a request. Raises PermissionDenied, UnknownName, BadInput when it is decided or has expired."""
        return self._decide(request_id, "approved", by, reason)

    def deny(self, request_id: str, by: Principal, reason: str = "") -> Request:
        """Deny a request. Raises as `approve`."""
        return self._decide(request_id, "denied", by, reason)

    def get(self, request_id: str) -> Request:
        """A request as it stands. Raises UnknownName."""
        found = self.store.get(request_id) if isinstance(request_id, str) else None
        if found is None:
            raise UnknownName("approval request", str(request_id))
        return found.at(self._clock())

    def requests(self, state: State | None = None) -> list[Request]:
        """All requests as they stand, oldest first; `state`: only those."""
        now = self._clock()
        return [one for one in (kept.at(now) for kept in self.store.list()) if state in {None, one.state}]

    def wait(self, request_id: str, seconds: float) -> bool:
        """Wait for a decision, at most so many seconds; False when the request expired without one."""
        until = time.monotonic() + seconds
        while self.get(request_id).state == "pending" and time.monotonic() < until:
            time.sleep(min(self._poll, max(0.0, until - time.monotonic())))
        return self.get(request_id).state != "expired"

    async def await_(self, request_id: str, seconds: float) -> bool:
        """`wait`, without blocking the event loop."""
        until = time.monotonic() + seconds
        while (await self._aget(request_id)).state == "pending" and time.monotonic() < until:  # noqa: ASYNC110 - other processes
            await asyncio.sleep(min(self._poll, max(0.0, until - time.monotonic())))
        return (await self._aget(request_id)).state != "expired"

    async def _aget(self, request_id: str) -> Request:
        return await elsewhere(partial(self.get, request_id)) if self.remote else self.get(request_id)

    def _decide(self, request_id: str, state: Literal["approved", "denied"], by: Principal, reason: str) -> Request:
        request = self.get(request_id)
        self._check(request, by)
        now = self._clock()
        if not self.store.decide(request_id, state, by.user, reason, now):
            now_is = self.get(request_id)
            who = f" by {alias(now_is.decided_by)!r}" if now_is.decided_by else ""
            raise BadInput(f"request {request_id} can't be {state}: it is {now_is.state}{who}")
        return self.get(request_id)

    def _check(self, request: Request, by: Principal) -> None:
        """May this person decide this request? Raises PermissionDenied, NoPolicy."""
        if self._access is None:
            raise NoPolicy("deciding needs a policy that says who may: Approvals(store, access=policy)")
        if not isinstance(by, Principal):
            raise BadInput(f"by: expected the Principal who decides, got {by!r}")
        self._access.check_roles(by.roles)
        name = alias(by.user)
        if by.tenant != request.tenant:
            tenant, other = alias(by.tenant), alias(request.tenant)
            raise PermissionDenied(f"{name!r} of tenant {tenant!r} may not decide for tenant {other!r}")
        if not self._self_approval and _same(by.user) in map(_same, request.users):
            raise PermissionDenied(f"{name!r} asks for it and may not decide it; somebody else must")
        decided = may_approve(self._access, by, request)
        if not decided.allowed:
            raise PermissionDenied(f"{name!r} may not decide on {request.label}: {alias(decided.rule)}")


def may_approve(access: Access, by: Principal, request: Request) -> Decided:
    """Does the policy grant `<tool>:approve`, with these arguments?"""
    decided = access.decide(by, f"{request.tool}:approve")
    if decided.allowed and decided.closer:
        closer: Any = access
        look: CallAccess = closer
        decided = look.decide_call(by, f"{request.tool}:approve", "", json.loads(request.arguments))
    return decided


def _same(user: str) -> str:
    """As names are told apart: "Ana" is no second pair of eyes for "ana", nor is she with a letter that nobody sees."""
    plain = unicodedata.normalize("NFKC", user).casefold()
    return "".join(letter for letter in plain if unicodedata.category(letter) not in {"Cf", "Cc"}).strip()
