"""The world of the matrix: one tool whose answers are marked, everything that keeps answers, and all ways to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from mcp import Client

import escalade
from escalade import Principal, Registry, Roles, tool
from escalade.errors import EscaladeError
from escalade.registry.approvals import Approvals
from escalade.registry.audit import AuditLog
from escalade.registry.audit.reading import rows
from escalade.registry.cache import MemoryCache
from escalade.registry.serving.server import ToolServer
from tests.registry import ways
from tests.registry.helpers import Clock

MARK = "SESAME"
"""Is in each answer of the tool."""

ROME = {"city": "Rome"}
POLICY = Roles(
    {
        "clerk": [{"permit": "trip.*:call", "needs": "approval"}],
        "boss": ["trip.*:call", "trip.*:approve"],
        "guest": ["model.*:call"],
    }
)
ROOT, BOSS = (Principal(user, "acme", frozenset({"boss"})) for user in ("root", "bea"))
ANA = Principal("ana", "acme", frozenset({"clerk"}))
EVE = Principal("eve", "acme", frozenset({"guest"}))

KEPT = {"cache": "cache", "replay": "replay", "once": "once", "dry_run": "dry-run"}
"""Ways by which an answer comes that is there already, and its source as recorded."""


class AnyKey(MemoryCache):
    """Finds its newest value whatever is asked for: who gets to it has been let through by others."""

    def __init__(self) -> None:
        super().__init__()
        self.newest: bytes | None = None

    def get(self, key: str) -> bytes | None:
        return self.newest

    def set(self, key: str, value: bytes, seconds: float, tag: str = "") -> None:
        self.newest = value


class World:
    """For one way and one kind of tool. `ran`: cities that the tool's function ran for, since `begin`."""

    def __init__(self, log: AuditLog, folder: Path, way: str, kind: str) -> None:
        self.log, self.way, self.clock, self._after = log, way, Clock(1000.0), 0
        self.ran: list[str] = []
        self.desk = Approvals(access=POLICY, clock=self.clock)
        self.tape = folder / "calls.jsonl"
        function = self._abook if kind == "async tool" else self._book
        how: dict[str, Any] = {
            "cache": {"cache": 60, "side_effects": "read"}, "once": {"once": True}, "dry_run": {"dry": f"dry {MARK}"},
        }.get(self.plain, {})  # fmt: skip
        self.registry = Registry([tool(name="trip.book", **how)(function)], name=f"matrix {way}", cache=AnyKey())
        self.tool = self.registry.get_tool("trip.book", "1.0.0" if way == "pinned" else None)
        self.version = "1.0.0"
        if way in {"floating", "pinned"}:
            newer = tool(name="trip.book", version="1.1.0")(function)
            self.registry.register(newer, share=1.0)
            self.version = "1.1.0" if way == "floating" else "1.0.0"
        ways.prompts.clear()
        self.begin()

    def _book(self, city: str) -> str:
        """Books a flight."""
        self.ran.append(city)
        return f"booked {city}: {MARK}"

    async def _abook(self, city: str) -> str:
        """Books a flight."""
        return self._book(city)

    @property
    def plain(self) -> str:
        """The way, sync or async."""
        return self.way.removeprefix("a") if self.way.removeprefix("a") in KEPT else self.way

    @property
    def by_tool(self) -> bool:
        """Does the way begin with the tool itself, rather than with a registry or a server?"""
        return self.way not in {"mcp", "search", "listing", "by_name"}

    # ---------------------------------------------------------------------------------------------------- happenings

    def run(self) -> AbstractContextManager[Any]:
        """The run in which everything happens, in the name of somebody who may do all. A server opens its own."""
        if self.way == "mcp":
            return nullcontext()
        return escalade.scope(principal=ROOT, access=POLICY, recorder=self.log, approvals=self.desk)

    def keep(self) -> None:
        """Make calls that are allowed, whose answers are kept where this way finds them."""
        mode: dict[str, Any] = {"mode": "record", "cassette": self.tape} if self.plain == "replay" else {}
        for user in ("ana", "bea", "eve") if self.plain in KEPT else ():
            with escalade.scope(principal=Principal(user, "acme", BOSS.roles), **mode):
                for city in ("Paris", "Rome"):
                    self.tool(city=city)
        self.begin()

    def approve(self, args: dict[str, Any]) -> str:
        """Ana asks for a call by this very way, and a person approves it; the id of the approval."""
        self.attempt(ANA, args)
        (request,) = self.desk.requests("pending")
        self.begin()
        return self.desk.approve(request.id, BOSS).id

    def attempt(self, who: Principal, args: dict[str, Any] = ROME) -> str:
        """A call in somebody's name; what he is shown."""
        if self.way == "mcp":
            return self.served(who, args, access=POLICY, recorder=self.log, approvals=self.desk)
        mode: dict[str, Any] = {
            "replay": {"mode": "replay", "cassette": self.tape}, "dry_run": {"mode": "dry-run"},
        }.get(self.plain, {})  # fmt: skip
        with escalade.scope(principal=who, **mode):
            return self.reach(args)

    def reach(self, args: dict[str, Any]) -> str:
        """A call in the scope that is open, if one is."""
        try:
            return ways_of()[self.way](self, args)
        except (EscaladeError, RuntimeError) as error:  # ToolCall.execute wraps whatever comes
            assert isinstance(error, EscaladeError) or isinstance(error.__cause__, EscaladeError)
            return str(error)

    def unruled(self) -> None:
        """Begin without a policy."""
        if self.way == "mcp":
            self.served(ANA, ROME, access=Roles({}), recorder=self.log)
        with escalade.scope(principal=ANA, recorder=self.log):
            """It doesn't come to that."""

    def served(self, who: Principal, args: dict[str, Any], **options: Any) -> str:
        """The registry over MCP, as the official client finds it."""
        server = ToolServer(self.registry, principal=who, **options)

        async def go() -> str:
            async with Client(server.sdk_server()) as client:
                listed = [one.name for one in (await client.list_tools()).tools]
                assert listed == ([] if who is EVE else ["trip_book"])
                (block,) = (await client.call_tool("trip_book", args)).content
                return str(block.text)

        return asyncio.run(go())

    # ------------------------------------------------------------------------------------------------ what is recorded

    def begin(self) -> None:
        """Forget what has happened so far."""
        self.log.flush()
        self._after = self.log.health().rows
        self.ran.clear()

    def recorded(self, event: str) -> list[dict[str, Any]]:
        self.log.flush()
        return [row.fields() for row in rows(self.log.path, after=self._after) if row.event == event]

    def denied(self) -> list[str]:
        """Refusals, as the log has them; each is of the tool, or of the scope that didn't open."""
        said = self.recorded("denied")
        assert {one["resource"] for one in said} <= {"trip.book", "run", "mcp"}
        return [one["outcome"] for one in said]

    def uses(self) -> list[tuple[str, str, str]]:
        """Version, source and approval of each answer, as the log has them."""
        said = self.recorded("intent")
        return [(one["version"], one.get("source", ""), one.get("approval", "")) for one in said]

    def refusals(self, outcome: str) -> int:
        """What the registry has counted."""
        return sum(one.refusals.get(outcome, 0) for one in self.registry.usage())

    def told(self) -> str:
        """All that models were sent."""
        return "".join(ways.prompts)


# ----------------------------------------------------------------------------------------------------------------- ways


def search(world: World, args: dict[str, Any]) -> str:
    found = world.registry.search("books a flight")
    return str(world.registry.tool_for(found[0].spec.name)(**args)) if found else "nothing found"


def listing(world: World, args: dict[str, Any]) -> str:
    found = world.registry.tools_for()
    return str(found[0](**args)) if found else "nothing found"


def by_name(world: World, args: dict[str, Any]) -> str:
    return str(ways.settled(world.registry.tool_for("trip_book").func(**args)))


def mcp(world: World, args: dict[str, Any]) -> str:
    return world.served(ANA, args)


def called(world: World, args: dict[str, Any]) -> str:
    return ways.call(world.tool, args)


def acalled(world: World, args: dict[str, Any]) -> str:
    return ways.acall(world.tool, args)


def ways_of() -> dict[str, Callable[[World, dict[str, Any]], str]]:
    """All ways, by name."""
    tools = [*ways.AGENTS, ways.rlm, ways.execute, ways.execute_by_name, ways.func, ways.call, ways.acall]
    aliases = [ways.renamed, ways.copied, ways.pickled]
    kept = {"cache": called, "acache": acalled, "replay": called, "areplay": acalled, "once": called, "aonce": acalled}
    return {
        **{one.__name__: _with_tool(one) for one in tools},
        "mcp": mcp, "search": search, "listing": listing, "by_name": by_name, **kept, "dry_run": called,
        **{one.__name__: _with_tool(one) for one in aliases},
        "pinned": called, "floating": called,
    }  # fmt: skip


def _with_tool(way: ways.Way) -> Callable[[World, dict[str, Any]], str]:
    return lambda world, args: way(world.tool, args)
