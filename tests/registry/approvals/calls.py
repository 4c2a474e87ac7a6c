"""What the tests of approvals share: a tool that needs a person, people, a policy, a desk."""

from __future__ import annotations

from typing import Any

import escalade
from escalade import GovernedTool, Principal, Registry, Roles, tool
from escalade.registry.approvals import Approvals, MemoryRequests, Request

ran: list[tuple[int, str]] = []

POLICY = Roles(
    {
        "clerk": ["pay.charge:call"],
        "boss": ["pay.charge:call", "pay.charge:approve"],
        "junior": [{"permit": "pay.charge:approve", "when": {"amount": {"<=": 100}}}],
    }
)
ANA = Principal("ana", "acme", frozenset({"clerk"}))
BOSS = Principal("bea", "acme", frozenset({"boss"}))
JUNIOR = Principal("jim", "acme", frozenset({"junior"}))


def charge(amount: int, currency: str = "EUR") -> str:
    """Charges a customer."""
    ran.append((amount, currency))
    return f"charged {amount} {currency}"


async def acharge(amount: int, currency: str = "EUR") -> str:
    """Charges a customer."""
    return charge(amount, currency)


def governed(function: Any = charge, **said: Any) -> GovernedTool:
    """The tool in a registry of its own, nothing run yet."""
    ran.clear()
    said = {"approval": "always", **said}
    return Registry([tool(name="pay.charge", **said)(function)], name="approvals").get_tool("pay.charge")


def desk(store: Any = None, **said: Any) -> Approvals:
    """A desk with the policy, which looks often."""
    return Approvals(MemoryRequests() if store is None else store, access=POLICY, poll=0.005, **said)


def scope(at: Approvals | None, run_id: str = "run-1", **said: Any) -> Any:
    """Ana's run."""
    return escalade.scope(**{"principal": ANA, "access": POLICY, "approvals": at, "run_id": run_id, **said})


def only(at: Approvals) -> Request:
    """The one pending request."""
    (request,) = at.requests("pending")
    return request
