"""Calls that need a person's consent.

requests    what is asked for, what it is bound to, and what became of it
desk        `Approvals`: opens requests, lets calls wait, records who decided
memory, sqlite, postgres
            where requests are kept
gate        what the guard asks: does this call need a person, and has he agreed?
waiting     a call that waits for the decision
"""

from escalade.registry.approvals.desk import Approvals
from escalade.registry.approvals.memory import MemoryRequests
from escalade.registry.approvals.postgres import PostgresRequests
from escalade.registry.approvals.requests import Request
from escalade.registry.approvals.sqlite import SqliteRequests

__all__ = ["Approvals", "MemoryRequests", "PostgresRequests", "Request", "SqliteRequests"]
