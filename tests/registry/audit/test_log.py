"""The recorder: what it says of a use, who waits for the disk, and what that does to an event loop."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import Registry, Secret, tool
from escalade.errors import BadInput, EscaladeError, PermissionDenied
from escalade.money import Money
from escalade.registry.access import Roles
from escalade.registry.audit import AuditLog, AuditUnavailable, digest
from escalade.registry.audit.reading import rows, tail
from escalade.registry.audit.verify import verify
from escalade.registry.guard import Resource, ause, use
from escalade.scopes import Principal
from tests import _forks
from tests._loop_watch import beat
from tests.registry.audit.material import ended, entry, python

SEARCH = Resource("crm.search", "1.2.0", "tool", "crm.search:call")
DROP = Resource("crm.drop", "1.0.0", "tool", "crm.drop:call")
ACCESS = Roles({"analyst": ["crm.search:call"]})
NEVER = Roles({"analyst": [{"permit": "crm.search:call", "when": {"phone": {"==": "1"}}}]})
ANA = Principal("ana", "acme", frozenset({"analyst"}))


def said(path: Path | str, *events: str) -> list[dict[str, Any]]:
    """What the rows of these events say, with their call."""
    return [{"call": row.call, "event": row.event, **row.fields()} for row in rows(path) if row.event in events]


def held(log: AuditLog) -> tuple[threading.Event, threading.Event]:
    """Each commit sets the first, and waits for the second."""
    store, quick, begun, go = log._writer._store, log._writer._store.append, threading.Event(), threading.Event()

    def append(*args: Any, **options: Any) -> Any:
        begun.set()
        go.wait(30)
        return quick(*args, **options)

    store.append = append
    return begun, go


def slow(log: AuditLog, seconds: float) -> None:
    """Make each commit take longer."""
    store, quick = log._writer._store, log._writer._store.append

    def append(*args: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return quick(*args, **options)

    store.append = append


def test_a_use_in_a_scope(where: str) -> None:
    """`escalade.scope(recorder=AuditLog(path))`: an intent and an outcome of each use, a denial instead of both."""
    with AuditLog(where) as log, escalade.scope(recorder=log, access=ACCESS, principal=ANA, budget="1") as scope:
        use(SEARCH, lambda: "found", ceiling=int(Money.of("0.002")), cost=lambda _: 1_500_000)
        with pytest.raises(PermissionDenied):
            use(DROP, lambda: None, ceiling=0)
        with pytest.raises(ZeroDivisionError):
            use(SEARCH, lambda: 1 / 0, ceiling=0)
    assert verify(where).ok
    intent, outcome, denied, _, failed = said(where, "intent", "outcome", "denied")
    assert intent["call"] == outcome["call"] != denied["call"]
    assert (intent["user"], intent["tenant"], intent["roles"], intent["run"]) == (
        "ana",
        "acme",
        ["analyst"],
        scope.run_id,
    )
    assert (intent["resource"], intent["version"], intent["held"]) == ("crm.search", "1.2.0", 2_000_000)
    assert (outcome["outcome"], outcome["cost"], outcome["decision"]) == ("ok", 1_500_000, "allow")
    assert (denied["decision"], denied["outcome"], "cost" in denied) == ("deny", "PermissionDenied", False)
    assert (failed["outcome"], failed["error"]) == ("failed", "ZeroDivisionError")


async def test_a_use_in_a_coroutine(where: str) -> None:
    """The same from `async` code."""

    async def answer() -> str:
        return "found"

    with AuditLog(where, synchronous="batch") as log:
        async with escalade.scope(recorder=log, access=ACCESS, principal=ANA):
            assert await ause(SEARCH, answer, ceiling=0) == "found"
    assert [row["event"] for row in said(where, "intent", "outcome")] == ["intent", "outcome"]


def test_rows_say_what_is_attested(tmp_path: Path) -> None:
    """Digests, permission, approval and redactions stand in the rows; no float, no message of an error does."""
    path = tmp_path / "audit.sqlite"
    used = entry(
        1,
        permission="crm.search:call",
        schema_digest=digest({"type": "object"}),
        args_digest=digest({"phone": "555"}, b"pepper"),
        policy_digest=digest("policy"),
        approval_id="approval-7",
        redactions={"email": 2},
        principals=(Principal("boss", "acme", frozenset({"b", "a"})), ANA),
        principal=ANA,
    )
    with AuditLog(path) as log:
        log.intent(used)
        used.result_digest = digest(["a", 1.5])
        log.outcome(ended(used))
        log.denied(entry(2, outcome="InvalidArguments", error="'555-canary' is not of type 'integer'"))
    intent, outcome, denied = said(path, "intent", "outcome", "denied")
    assert intent["args"].startswith("hmac-sha256:")
    assert (intent["schema"], intent["policy"]) == (digest({"type": "object"}), digest("policy"))
    assert (intent["permission"], intent["approval"], intent["redactions"]) == (
        "crm.search:call",
        "approval-7",
        {"email": 2},
    )
    assert intent["behalf"] == [["acme", "boss", ["a", "b"]]]
    assert (outcome["result"], outcome["took_us"]) == (digest(["a", 1.5]), 250_000)
    assert denied["error"] == "InvalidArguments"
    assert b"canary" not in path.read_bytes()
    assert not any(isinstance(value, float) for row in (intent, outcome, denied) for value in row.values())


def test_canonical_json(where: str) -> None:
    """Bodies are ASCII, sorted, without spaces, whatever names people have."""
    with AuditLog(where) as log:
        log.intent(entry("é\ud800\n\0", principal=Principal("zoë \ud800\u2028", "ten\nant")))
    assert verify(where).ok
    (row,) = [row for row in rows(where) if row.event == "intent"]
    assert row.body == json.dumps(json.loads(row.body), sort_keys=True, separators=(",", ":")).encode()
    assert row.body.isascii()
    assert row.fields()["user"] == "zoë \ud800\u2028"


def test_digests() -> None:
    """A digest doesn't depend on the order of keys, tells apart what differs, and takes anything."""
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len({digest(v) for v in (1, "1", 1.0, [1], {"1": 1}, None, True, 0.1, "0.1")}) == 9
    assert digest(1, b"one") != digest(1, b"two")
    circle: list[Any] = []
    circle.append(circle)
    assert all(digest(v).startswith("sha256:") for v in (circle, {1: 2, "1": 3}, b"x", {1, 2}, float("nan")))


def test_a_snapshot(tmp_path: Path) -> None:
    """An intent's row says what was known then: entries go on to change."""
    path = tmp_path / "audit.sqlite"
    with AuditLog(path, synchronous="batch") as log:
        used = entry(1)
        log.intent(used)
        used.resource = "something.else"
        log.outcome(ended(used))
    assert [row["resource"] for row in said(path, "intent", "outcome")] == ["crm.search", "something.else"]


@pytest.mark.parametrize(
    ("synchronous", "kinds", "waits"),
    [
        (None, {"side_effects": "write"}, True),
        (None, {"side_effects": "irreversible"}, True),
        (None, {"side_effects": ""}, True),
        (None, {"side_effects": "no such class"}, True),
        (None, {"side_effects": "read"}, False),
        (None, {"side_effects": "", "kind": "model"}, False),
        ("full", {"side_effects": "read"}, True),
        ("batch", {"side_effects": "write"}, False),
        ({"read": "full"}, {"side_effects": "read"}, True),
        ({"model": "full"}, {"side_effects": "", "kind": "model"}, True),
        ({"read": "full"}, {"side_effects": "write"}, True),
    ],
)
def test_who_waits(tmp_path: Path, synchronous: Any, kinds: dict[str, str], waits: bool) -> None:
    """Writes wait for the disk, reads and models don't, unless said otherwise; what is unknown counts as a write."""
    options = {} if synchronous is None else {"synchronous": synchronous}
    with AuditLog(tmp_path / "audit.sqlite", **options) as log:
        log.flush()
        (_, disk), written = held(log), threading.Event()
        writing = threading.Thread(target=lambda: (log.intent(entry(1, **kinds)), written.set()))
        writing.start()
        assert written.wait(0.1 if waits else 30) != waits
        disk.set()
        writing.join(30)
        if waits:
            assert tail(log.path, 1)[0].call == "call-1"  # it is there


@pytest.mark.parametrize("wrong", ["fast", {"read": "never"}, {"reads": "full"}])
def test_bad_waits(tmp_path: Path, wrong: Any) -> None:
    """Classes and modes that there are not are bad input."""
    with pytest.raises(BadInput, match="synchronous"):
        AuditLog(tmp_path / "audit.sqlite", synchronous=wrong)


async def test_the_loop_goes_on(where: str) -> None:
    """While commits take 0.6 s, an event loop that records uses, and waits by `aintent`, goes on."""
    with AuditLog(where, patience=30) as log:
        log.flush()
        slow(log, 0.6)
        gaps: list[float] = []
        beating = asyncio.create_task(beat(gaps))

        async def one(number: int) -> None:
            read, write = entry(f"r{number}", "read"), entry(f"w{number}")
            log.intent(read)
            log.outcome(ended(read))
            await log.aintent(write)
            log.outcome(ended(write))
            log.denied(entry(f"d{number}", outcome="PermissionDenied"))

        began = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(100)))
        took = time.perf_counter() - began
        beating.cancel()
        await asyncio.to_thread(log.close)
    print(f"longest gap of the loop {max(gaps) * 1e3:.1f} ms, while {took:.2f} s were waited")
    assert took > 0.6
    assert max(gaps) < 0.4
    found = verify(where)
    assert (found.ok, found.unfinished_count) == (True, 0)


async def test_tickets(where: str) -> None:
    """`submit` hands over without waiting; the ticket is waited for by a thread or by a task."""
    with AuditLog(where) as log:
        one, two, three = log.submit(entry(1)), log.submit(entry(2)), log.submit(entry(3, "read"))
        assert one is not None
        assert two is not None
        assert three is None
        await one.wait_async(5)
        await asyncio.to_thread(two.wait, 5)
        await two.wait_async(5)  # it stays done
    assert len(said(where, "intent")) == 3


@pytest.mark.blocking(3000)
async def test_a_wait_that_is_cancelled(tmp_path: Path) -> None:
    """A task that is cancelled while it waits leaves no intent behind, if the writer has not begun with it."""
    with AuditLog(tmp_path / "audit.sqlite") as log:
        log.flush()
        begun, go = held(log)
        first = asyncio.create_task(log.aintent(entry("first")))
        assert await asyncio.to_thread(begun.wait, 30)
        second = asyncio.create_task(log.aintent(entry("second")))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.wait([second])
        go.set()
        await asyncio.wait([first, second])
    assert second.cancelled()
    assert [row["call"] for row in said(log.path, "intent")] == ["call-first"]


def test_impatience(tmp_path: Path) -> None:
    """A use whose intent takes longer than `patience` is refused."""
    log = AuditLog(tmp_path / "audit.sqlite", patience=0.05)
    log.flush(5)
    slow(log, 0.2)
    with pytest.raises(AuditUnavailable, match="longer than"):
        log.intent(entry(1))
    time.sleep(0.3)
    log._patience = 5
    log.close()
    assert verify(log.path).ok


@pytest.mark.slow
def test_many_threads(where: str) -> None:
    """64 threads, each waiting for the disk: every row is there, each thread's in its order, far fewer commits."""

    def work(thread: int) -> None:
        for number in range(25):
            used = entry(f"{thread}-{number}")
            log.intent(used)
            log.outcome(ended(used))

    with AuditLog(where, checkpoint_rows=500) as log:
        commits = 0
        store, quick = log._writer._store, log._writer._store.append

        def append(*args: Any, **options: Any) -> Any:
            nonlocal commits
            commits += 1
            return quick(*args, **options)

        store.append = append
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(work, range(64)))
    found = verify(where)
    assert (found.ok, found.unfinished_count, found.rows) == (True, 0, 2 * 64 * 25 + 3)
    calls = [row["call"] for row in said(where, "intent", "outcome")]
    for thread in range(64):
        mine = [call for call in calls if call.startswith(f"call-{thread}-")]
        assert mine == [f"call-{thread}-{number}" for number in range(25) for _ in range(2)]
    print(f"{found.rows} rows in {commits} commits")
    assert commits < found.rows / 4


@pytest.mark.slow
def test_back_pressure(tmp_path: Path) -> None:
    """A full queue holds callers back, and refuses them in the end; nothing that was accepted is lost."""
    with AuditLog(tmp_path / "audit.sqlite", capacity=50, patience=0.3) as log:
        log.flush(5)
        slow(log, 1.0)
        accepted = 0
        with pytest.raises(AuditUnavailable, match="takes no more"):
            for number in range(10_000):
                log.intent(entry(number, "read"))
                accepted += 1
        assert log.health().queued <= 50
        log._patience = 30
    assert len(said(log.path, "intent")) == accepted >= 50


async def test_back_pressure_on_a_task(where: str) -> None:
    """A task that meets a full queue waits without holding up the loop."""
    with AuditLog(where, capacity=20) as log:
        log.flush()
        slow(log, 0.4)
        gaps: list[float] = []
        beating = asyncio.create_task(beat(gaps))
        await asyncio.gather(*(log.aintent(entry(number, "read")) for number in range(15)))
        for number in range(100):
            await log.aintent(entry(f"later-{number}", "read"))
        beating.cancel()
        await asyncio.to_thread(log.close)
    assert max(gaps) < 0.35
    assert len(said(where, "intent")) == 115


def test_health(where: str, tmp_path: Path) -> None:
    """A log that works says so; `flush` leaves nothing in the queue."""
    with AuditLog(where, anchors=[tmp_path / "anchor"]) as log:
        for number in range(100):
            log.intent(entry(number, "read"))
        log.flush()
        health = log.health()
        assert health.ok
        assert (health.rows, health.queued, health.kept, health.lost, health.down) == (102, 0, 0, 0, "")


def test_private(tmp_path: Path) -> None:
    """The file is for its owner's eyes only."""
    with AuditLog(tmp_path / "audit.sqlite") as log:
        assert stat.S_IMODE(Path(log.path).stat().st_mode) == 0o600


def test_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A closed log refuses uses; an outcome that comes too late is said aloud. Closing twice is closing once."""
    log = AuditLog(tmp_path / "audit.sqlite")
    log.close()
    log.close()
    with pytest.raises(AuditUnavailable, match="closed"):
        log.intent(entry(1))
    log.outcome(ended(entry(2)))
    assert "after the log was closed" in caplog.text
    assert log.health().lost == 1
    assert "AuditLog(" in repr(log)


def test_closing_takes_its_time(tmp_path: Path) -> None:
    """The last checkpoint is there, however long whoever closes the log is kept from asking for it."""
    log = AuditLog(tmp_path / "audit.sqlite", anchors=[tmp_path / "anchor"])
    log.intent(entry(1))
    writer, real = log._writer, log._writer.queue

    class Slow:
        """A thread that loses the processor before it asks for a checkpoint."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def put(self, row: Any) -> None:
            if row.event == "checkpoint":
                writer._thread.join(0.2)
            real.put(row)

    writer.queue = Slow()  # type: ignore[assignment]
    log.close()
    assert verify(tmp_path / "audit.sqlite", [tmp_path / "anchor"]).unanchored == 0


def test_a_forgotten_log(tmp_path: Path) -> None:
    """A program that ends without closing its log loses nothing: at exit it is closed."""
    code = """
import sys
from escalade.registry.audit import AuditLog
from tests.registry.audit.material import entry
log = AuditLog(sys.argv[1])
for number in range(1000):
    log.intent(entry(number, "read"))
"""
    running = python(code, str(tmp_path / "audit.sqlite"))
    assert (*running.communicate(), running.returncode) == ("", "", 0)
    assert len(said(tmp_path / "audit.sqlite", "intent")) == 1000
    assert tail(tmp_path / "audit.sqlite", 1)[0].event == "closed"


FORKS = """
import sys, threading
from escalade.registry.audit import AuditLog, AuditUnavailable
from tests._forks import in_child
from tests.registry.audit.material import entry

def child():
    try:
        log.intent(entry(1))
    except AuditUnavailable as error:
        assert "before the fork" in str(error)
    else:
        raise AssertionError("recorded nowhere")
    with AuditLog(sys.argv[2]) as own:
        own.intent(entry(1))

def work():
    while not over.is_set():
        log.intent(entry("other"))

log, over = AuditLog(sys.argv[1]), threading.Event()
thread = threading.Thread(target=work)
thread.start()
in_child(child)
over.set()
thread.join()
log.intent(entry(2))
log.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork(tmp_path: Path) -> None:
    """A child that inherits a log is refused: its writer stayed with the parent. It may open one of its own."""
    path, of_child = tmp_path / "audit.sqlite", tmp_path / "child.sqlite"
    _forks.run(FORKS, path, of_child)
    assert verify(path).ok
    calls = [row.call for row in rows(path) if row.event == "intent"]
    assert calls[-1] == "call-2"
    assert "call-1" not in calls
    assert [row.call for row in rows(of_child) if row.event == "intent"] == ["call-1"]


def test_reopened(where: str) -> None:
    """One chain goes on, whatever how often the log is opened."""
    for number in range(5):
        with AuditLog(where) as log:
            log.intent(entry(number))
    found = verify(where)
    assert (found.ok, found.unfinished_count) == (True, 5)
    events = [row.event for row in rows(where)]
    assert events == ["genesis", *(["opened", "intent", "closed"] * 5)]


@pytest.mark.parametrize(
    "options", [{"checkpoint_rows": 0}, {"checkpoint_seconds": -1}, {"capacity": 0}, {"patience": 0}, {"key": "s3cret"}]
)
def test_bad_options(tmp_path: Path, options: dict[str, Any]) -> None:
    """Bad options are refused before a file is made."""
    with pytest.raises(BadInput):
        AuditLog(tmp_path / "audit.sqlite", **options)
    assert not (tmp_path / "audit.sqlite").exists()


def test_no_audit_log(tmp_path: Path) -> None:
    """A path to something else is bad input, and that is left as it was."""
    (tmp_path / "notes").write_text("hello")
    for path in (tmp_path / "notes", tmp_path / "no" / "folder", tmp_path):
        with pytest.raises(BadInput):
            AuditLog(path)
    assert (tmp_path / "notes").read_text() == "hello"


def test_outcomes_from_finalizers(tmp_path: Path) -> None:
    """An outcome that the garbage collector records, in whatever thread, never waits for its own writer."""
    with AuditLog(tmp_path / "audit.sqlite", synchronous="full") as log:
        done = threading.Event()

        class Lost:
            def __del__(self) -> None:
                log.outcome(ended(entry("lost")))
                done.set()

        store, quick = log._writer._store, log._writer._store.append

        def append(*args: Any, **options: Any) -> Any:
            Lost()  # collected here, in the writer's thread
            store.append = quick
            return quick(*args, **options)

        store.append = append
        log.intent(entry(1))
        assert done.is_set()
    assert [row["call"] for row in said(log.path, "outcome")] == ["call-lost"]


def test_budget_of_a_refused_use(tmp_path: Path) -> None:
    """What the log refuses has cost nothing, and holds nothing."""
    log = AuditLog(tmp_path / "audit.sqlite")
    log.close()
    with escalade.scope(recorder=log, budget="1") as scope:
        with pytest.raises(AuditUnavailable):
            use(SEARCH, lambda: pytest.fail("it ran"), ceiling=int(Money.of("1")))
        assert (scope.spent, scope.purse.held, scope.left) == (0, 0, Money.of("1"))


class _Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_arguments_and_results_stand_as_digests(tmp_path: Path) -> None:
    """Intent, outcome and denial have the digest of the arguments, the outcome that of the result; with a pepper nobody
    can tell by trying. The values themselves are nowhere in the file.
    """

    @tool(name="crm.search", version="1.0.0", side_effects="read", cost="0")
    def search(phone: str) -> list[str]:
        """Search."""
        return [f"found {phone}"]

    registry, path = Registry([search]), tmp_path / "audit.sqlite"
    with AuditLog(path, pepper=Secret.of("a pepper of sixteen")) as log:
        with escalade.scope(recorder=log):
            registry.get_tool("crm.search")(phone="555-0199")
        with escalade.scope(recorder=log, access=NEVER, principal=ANA), pytest.raises(EscaladeError):
            registry.get_tool("crm.search")(phone="555-0199")
    intent, outcome, denied = said(path, "intent", "outcome", "denied")
    expected = digest({"phone": "555-0199"}, b"a pepper of sixteen")
    assert intent["args"] == outcome["args"] == denied["args"] == expected
    assert outcome["result"] == digest(["found 555-0199"], b"a pepper of sixteen")
    assert expected != digest({"phone": "555-0199"})
    assert b"555-0199" not in path.read_bytes()


def test_a_digest_never_stops_a_call() -> None:
    """What can't be written or shown has a digest all the same, and an iterator is not used up by it."""
    lazy = iter([1, 2])
    assert digest(lazy).startswith("sha256:")
    assert list(lazy) == [1, 2]
    assert digest({"a": _Broken()}) == digest({"a": _Broken()})
