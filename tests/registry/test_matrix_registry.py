"""No way to a tool goes around its registry: each way x each refusal, with an audit log on disk.

The table says what each cell means. A refusal is a row of that name in the log, unless the legend says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import Roles
from escalade.errors import NoPolicy
from escalade.registry.audit import AuditLog
from escalade.registry.audit.verify import verify
from escalade.registry.metrics import usage_metrics
from tests.registry.matrix_world import ANA, BOSS, EVE, KEPT, MARK, ROME, World, ways_of

TABLE = """
way               denied by role     no scope   no policy  expired approval  changed arguments
react             PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
react_async       PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
react_v2          PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
react_v2_async    PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
native            PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
rlm               PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
execute           PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
execute_by_name   PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
func              PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
call              PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
acall             PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
mcp               PermissionDenied   no-server  NoPolicy   ApprovalRequired  ApprovalRequired
search            unseen             nothing    NoPolicy   ApprovalRequired  ApprovalRequired
listing           unseen             nothing    NoPolicy   ApprovalRequired  ApprovalRequired
by_name           PermissionDenied   nothing    NoPolicy   ApprovalRequired  ApprovalRequired
cache             PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
acache            PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
replay            PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
areplay           PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
once              PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
aonce             PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
dry_run           PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
renamed           PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
copied            PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
pickled           PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
pinned            PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
floating          PermissionDenied   NoScope    NoPolicy   ApprovalRequired  ApprovalRequired
"""
"""Legend.

PermissionDenied  the model reads that there is no such tool
unseen            the tool is in no list, and asking for it by name is PermissionDenied (the way `by_name`)
NoScope           there is no record without a scope: the tool's usage counts it, which metrics show
nothing           NoScope, of no tool in particular: nothing is listed, so nothing is counted
no-server         a server without a policy, and without a scope that was configured, doesn't start: BadInput
NoPolicy          the scope doesn't open, nor does the server start, and the log says who tried; who calls all the same
                  has no scope
ApprovalRequired  the tool is listed and described, which takes no approval; its call does
"""

SHOWN = {
    "PermissionDenied": "nknown tool:? '?trip_book",
    "unseen": "nothing found",
    "nothing": "needs a scope",
    "no-server": "a server needs access=",
    "NoScope": "no_scope: using tool 'trip.book@",
    "ApprovalRequired": "approval_required: trip.book@",
}
HEAD, *LINES = (line.split() for line in TABLE.strip().splitlines())
COLUMNS = ["denied by role", "no scope", "no policy", "expired approval", "changed arguments"]
CELLS = [(line[0], column, word) for line in LINES for column, word in zip(COLUMNS, line[1:], strict=True)]
pytestmark = pytest.mark.filterwarnings("ignore:.*ReActV2.*experimental:Warning")
of_both_kinds = pytest.mark.parametrize("kind", ["sync tool", "async tool"])


def test_the_table_is_complete() -> None:
    """Every way that there is has a line, and every refusal a column."""
    assert " ".join(HEAD) == f"way {' '.join(COLUMNS)}"
    assert [line[0] for line in LINES] == list(ways_of())


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditLog]:
    """The record of everything here; it has to verify in the end."""
    with AuditLog(tmp_path_factory.mktemp("matrix") / "audit.sqlite") as opened:
        yield opened
    found = verify(opened.path)
    assert found.ok, found
    assert found.unfinished_count == 0


@pytest.fixture
def made(log: AuditLog, tmp_path: Path) -> Callable[[str, str], World]:
    """Makes a world for a way and a kind of tool."""
    return partial(World, log, tmp_path)


@of_both_kinds
@pytest.mark.parametrize(("way", "column", "word"), CELLS)
def test_a_refused_tool_never_runs(
    way: str, column: str, word: str, kind: str, made: Callable[[str, str], World]
) -> None:
    """The tool's function doesn't run, nothing of an answer is shown that is there already, neither is anything said
    that who asks may not know, and the refusal is recorded.
    """
    world = made(way, kind)
    shown = REFUSED[column](world)
    assert world.ran == [], "nothing ran"
    assert MARK not in shown + world.told(), "neither who called nor a model saw an answer"
    assert "Traceback" not in shown
    assert re.search(SHOWN.get(word, ""), shown)
    if word in {"PermissionDenied", "unseen"}:
        assert not [said for said in ("trip.book", "1.0.0", "guest", "grants") if said in shown]
    expected = {"unseen": [], "nothing": [], "no-server": [], "NoScope": []}.get(word, [word])
    assert world.denied() == expected
    assert world.uses() == []
    assert world.refusals("NoScope") == (word == "NoScope" or (word == "NoPolicy" and world.by_tool))


# ------------------------------------------------------------------------------------------------------- the refusals


def by_role(world: World) -> str:
    with world.run():
        world.keep()
        return world.attempt(EVE)


def no_scope(world: World) -> str:
    with world.run():
        world.keep()
    world.begin()
    return world.reach(ROME)


def no_policy(world: World) -> str:
    with world.run():
        world.keep()
    world.begin()
    with pytest.raises(NoPolicy):
        world.unruled()
    return world.reach(ROME)


def expired(world: World) -> str:
    with world.run():
        world.keep()
        world.approve(ROME)
        world.clock.forward(3600)
        return world.attempt(ANA)


def changed(world: World) -> str:
    with world.run():
        world.keep()
        world.approve({"city": "Paris"})
        return world.attempt(ANA)


REFUSED: dict[str, Callable[[World], str]] = dict(
    zip(COLUMNS, [by_role, no_scope, no_policy, expired, changed], strict=True)
)


# ------------------------------------------------------------------------------------------------------ what is allowed


@of_both_kinds
@pytest.mark.parametrize("way", ways_of())
def test_an_approved_call_is_answered_once(way: str, kind: str, made: Callable[[str, str], World]) -> None:
    """The same ways, approved: one answer for one approval, which the log names, from where it was expected (so that
    the test above means something). The next call needs another approval; only the same `once` call has its answer
    again.
    """
    world = made(way, kind)
    with world.run():
        world.keep()
        approval = world.approve(ROME)
        assert MARK in world.attempt(ANA)
        source = KEPT.get(world.plain, "")
        assert world.ran == ([] if source else ["Rome"])
        assert world.uses() == [(world.version, source, approval)]
        again = world.attempt(ANA)
        assert (MARK in again) == (source == "once")
        assert world.denied() == ([] if source == "once" else ["ApprovalRequired"])
        assert world.ran == ([] if source else ["Rome"])


@of_both_kinds
@pytest.mark.parametrize("way", ways_of())
def test_who_needs_no_approval(way: str, kind: str, made: Callable[[str, str], World]) -> None:
    """The same ways for somebody who may: he is answered and no person is asked."""
    world = made(way, kind)
    with world.run():
        world.keep()
        assert MARK in world.attempt(BOSS)
        assert world.uses() == [(world.version, KEPT.get(world.plain, ""), "")]
        assert world.desk.requests() == []


# ----------------------------------------------------------------------------------------------------- without a scope


@pytest.mark.parametrize(
    "access", [None, Roles({}), Roles({"clerk": [{"deny": "*"}]})], ids=["none", "empty", "denies"]
)
@pytest.mark.parametrize("opened", [lambda **said: escalade.scope(**said).__enter__(), escalade.configure])
def test_who_opens_a_scope_without_a_policy(opened: Any, access: Any, made: Callable[[str, str], World]) -> None:
    """It doesn't open, and the log says who tried, in which run."""
    world = made("call", "sync tool")
    with pytest.raises(NoPolicy):
        opened(principal=ANA, access=access, recorder=world.log)
    (said,) = world.recorded("denied")
    assert (said["user"], said["tenant"], said["kind"], said["outcome"]) == ("ana", "acme", "scope", "NoPolicy")
    assert said["run"]


def test_calls_without_a_scope_are_counted(made: Callable[[str, str], World]) -> None:
    """There is no record that they could be in: usage and metrics have them, by version."""
    world = made("call", "sync tool")
    for _ in range(3):
        world.reach(ROME)
    assert world.registry.usage()[0].refusals == {"NoScope": 3}
    assert 'reason="NoScope"} 3' in usage_metrics(world.registry)
