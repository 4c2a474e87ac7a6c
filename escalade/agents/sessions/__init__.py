"""Conversations that go on: a session remembers its turns, for one user of one tenant.

session     Session: say something, with what was said before
state       Turn, State: what is remembered, as JSON
store       SessionStore, MemorySessions: where it is kept
sqlite      SqliteSessions: in a file, for several processes of one host

Everything else in `agents` keeps no state between calls; a session is for who needs some.
"""

from escalade.agents.sessions.session import Session
from escalade.agents.sessions.sqlite import SqliteSessions
from escalade.agents.sessions.state import Turn
from escalade.agents.sessions.store import Kept, Key, MemorySessions, SessionStore

__all__ = ["Kept", "Key", "MemorySessions", "Session", "SessionStore", "SqliteSessions", "Turn"]
