"""The guard in coroutines: the record of a use is waited for without blocking the loop, and what can't be recorded, or
is given up meanwhile, gives everything back.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import escalade
from escalade.agents.gateway import Gateway
from escalade.agents.world import World
from escalade.errors import Refused
from escalade.registry.approvals import Approvals
from escalade.registry.audit import AuditLog, AuditUnavailable
from escalade.registry.audit.reading import rows
from escalade.registry.audit.verify import verify
from escalade.registry.breaker import Breaker
from escalade.registry.guard import Resource, aadmit, ause
from escalade.registry.journal import Journal
from escalade.registry.limits import Limiter, parse_limits
from escalade.scopes import Entry, Principal
from tests._loop_watch import beat
from tests.registry.helpers import Clock

LIMITS = parse_limits("100/s, 100/min")


class Disk(Journal):
    """A recorder whose rows are on the disk when the test says so. `waiting`: intents, in the order they came in."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = list[asyncio.Future[None]]()

    async def aintent(self, entry: Entry) -> None:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        await future
        self.intent(entry)


def resource(**changed: Any) -> Resource:
    """With every gate, on a clock that stands."""
    clock = Clock()
    gates = {"limits": LIMITS, "limiter": Limiter(clock), "breaker": Breaker(failures=1, now=clock)}
    return Resource("t", "1.0.0", "tool", "t:call", **gates | changed)


def taken(used: Resource) -> int:
    """Uses that count against its rate limits."""
    limiter = used.limiter
    assert isinstance(limiter, Limiter)
    return max((len(window) for window in limiter._uses.values()), default=0)


async def turns(number: int = 3) -> None:
    """Let everybody go on who can."""
    for _ in range(number):
        await asyncio.sleep(0)


def slow(log: AuditLog, seconds: float) -> None:
    """Make each commit take longer."""
    when(log, lambda: time.sleep(seconds))


def when(log: AuditLog, free: Callable[[], object]) -> None:
    """Have each commit wait for this."""
    store, quick = log._writer._store, log._writer._store.append

    def append(*args: Any, **options: Any) -> Any:
        free()
        return quick(*args, **options)

    store.append = append


FATES = ("written", "refused", "cancelled", "cancelled while it runs")


async def live(fates: list[str]) -> None:
    """One use for each fate, all at once; every figure is looked at while they wait, and after the end of each."""
    disk, used, ran = Disk(), resource(), list[int]()
    release = asyncio.Event()

    async def body(number: int) -> None:
        ran.append(number)
        if fates[number] == "cancelled while it runs":
            await release.wait()

    with escalade.scope(budget=escalade.Money(100 * len(fates)), recorder=disk) as scope:
        tasks = [
            asyncio.create_task(ause(used, lambda n=n: body(n), ceiling=60, cost=lambda _: 7))
            for n in range(len(fates))
        ]
        await turns()
        assert (scope.purse.held, scope.spent, taken(used), ran) == (60 * len(fates), 0, len(fates), [])
        for number, fate in enumerate(fates):
            if fate == "cancelled":
                tasks[number].cancel()
            elif fate == "refused":
                disk.waiting[number].set_exception(AuditUnavailable("the use can't be recorded"))
            else:
                disk.waiting[number].set_result(None)
            await turns()
            if fate == "cancelled while it runs":
                tasks[number].cancel()
            await asyncio.gather(tasks[number], return_exceptions=True)
            done = Counter(fates[: number + 1])
            happened = done["written"] + done["cancelled while it runs"]
            left = len(fates) - number - 1
            assert scope.purse.held == 60 * left
            assert scope.spent == 7 * done["written"] + 60 * done["cancelled while it runs"]
            assert taken(used) == happened + left
            assert len(ran) == happened
            assert len(disk.entries()) == happened
            assert len(disk.denials()) == number + 1 - happened
    assert disk.running() == []
    assert (
        Counter(entry.outcome for entry in disk.denials())
        == Counter({"CancelledError": fates.count("cancelled")} | {"AuditUnavailable": fates.count("refused")})
        - Counter()
    )


@given(st.lists(st.sampled_from(FATES), min_size=1, max_size=8))
def test_whatever_happens_while_the_record_is_waited_for(fates: list[str]) -> None:
    """Limits, money and record agree at any moment, in whatever order uses are recorded, refused and given up."""
    asyncio.run(live(fates))


@pytest.mark.parametrize("ending", ["cancelled", "refused"])
async def test_a_probe_that_was_never_recorded(ending: str) -> None:
    """The breaker's one probe is free again, and the next use may be it."""
    disk, clock = Disk(), Clock()
    breaker = Breaker(failures=1, now=clock)
    used = resource(breaker=breaker)
    with escalade.scope(recorder=disk):
        breaker.failure(breaker.allow())  # type: ignore[arg-type]  # it is closed
        clock.forward(30)
        task = asyncio.create_task(ause(used, lambda: asyncio.sleep(0), ceiling=0))
        await turns()
        assert isinstance(breaker.allow(), float)
        task.cancel() if ending == "cancelled" else disk.waiting[0].set_exception(AuditUnavailable("gone"))
        await asyncio.gather(task, return_exceptions=True)
        assert breaker.state == "half-open"
        again = asyncio.create_task(ause(used, lambda: asyncio.sleep(0), ceiling=0))
        await turns()
        disk.waiting[1].set_result(None)
        await again
    assert breaker.state == "closed"


@pytest.mark.parametrize("ending", ["cancelled", "refused"])
async def test_an_approval_that_was_not_used(ending: str) -> None:
    """The approval of a call that was never recorded may be used by the same call later."""
    boss = Principal("boss", "acme", frozenset({"boss"}))
    access = escalade.Roles({"user": ["pay:call"], "boss": ["pay:approve"]})
    desk, disk, ran = Approvals(access=access), Disk(), list[int]()

    async def pay(amount: int) -> int:
        ran.append(amount)
        return amount

    tool = escalade.Registry([escalade.tool(name="pay", approval="always")(pay)], name="approved-async").get_tool("pay")
    ana = Principal("ana", "acme", frozenset({"user"}))
    with escalade.scope(principal=ana, access=access, approvals=desk, recorder=disk):
        with pytest.raises(escalade.ApprovalRequired) as asked:
            await tool.acall(amount=5)
        desk.approve(asked.value.request_id, by=boss)
        task = asyncio.create_task(tool.acall(amount=5))
        await turns(10)
        task.cancel() if ending == "cancelled" else disk.waiting[0].set_exception(AuditUnavailable("gone"))
        await asyncio.gather(task, return_exceptions=True)
        assert ran == []
        again = asyncio.create_task(tool.acall(amount=5))
        await turns(10)
        disk.waiting[1].set_result(None)
        assert await again == 5
    assert ran == [5]


async def test_a_recorder_that_can_not_be_awaited() -> None:
    """A journal has no `aintent`: a coroutine is admitted at once, without giving the loop away."""
    journal = Journal()
    with escalade.scope(recorder=journal):
        waiting = aadmit(resource(), ceiling=0)
        with pytest.raises(StopIteration) as done:
            waiting.send(None)  # what is awaited for nothing ends at the first step
        with done.value.value as use:
            assert journal.running() == [use.entry]
    assert [entry.outcome for entry in journal.entries()] == ["ok"]


async def write(text: str) -> str:
    """Writes."""
    await asyncio.sleep(0)
    return text


def files(name: str) -> escalade.Registry:
    """A tool that writes, with limits and a price."""
    made = escalade.tool(name="disk.write", side_effects="write", limits="1000/s", cost="0.001")(write)
    return escalade.Registry([made], name=name)


@pytest.mark.blocking(3000)
async def test_the_loop_goes_on_while_200_calls_are_recorded(tmp_path: Path) -> None:
    """200 calls at once that write, each waiting for its intent on the disk, whose commits take 0.3 s: the loop never
    waits for one of them. All are on the record, each with its end.
    """
    path, gaps = tmp_path / "audit.sqlite", list[float]()
    tool = files("recorded-async").get_tool("disk.write")
    with AuditLog(path, patience=30) as log:
        async with escalade.scope(recorder=log, budget="1") as scope:
            assert await tool.acall(text="first") == "first"  # whatever is made once is made
            slow(log, 0.3)
            beating = asyncio.create_task(beat(gaps))
            began = time.perf_counter()
            answers = await asyncio.gather(*(tool.acall(text=str(n)) for n in range(200)))
            took = time.perf_counter() - began
            beating.cancel()
            assert (scope.spent, scope.purse.held) == (escalade.Money.of("0.201"), 0)
        await asyncio.to_thread(log.close)
    print(f"longest gap of the loop {max(gaps) * 1e3:.0f} ms, while {took * 1e3:.0f} ms were waited")
    assert answers == [str(n) for n in range(200)]
    assert took > 0.3
    assert max(gaps) < 0.25
    found = verify(path)
    assert (found.ok, found.unfinished_count) == (True, 0)
    assert Counter(row.event for row in rows(path))["outcome"] == 201


@pytest.mark.blocking(3000)
async def test_calls_that_are_cancelled_at_the_disk(tmp_path: Path) -> None:
    """Half of the calls are given up while they wait for a real log: nothing of them ran or was spent, and no call is
    left unfinished on the record, whether its intent was being written already or not.
    """
    path = tmp_path / "audit.sqlite"
    tool = files("cancelled-async").get_tool("disk.write")
    with AuditLog(path, patience=30) as log:
        async with escalade.scope(recorder=log, budget="1") as scope:
            free = threading.Event()
            when(log, free.wait)
            tasks = list[asyncio.Task[Any]]()
            for number in range(60):
                tasks.append(asyncio.create_task(tool.acall(text=str(number))))
                await asyncio.sleep(0.002)
            for task in tasks[::2]:
                task.cancel()
            free.set()
            await asyncio.wait(tasks)
            kept = [task for task in tasks if not task.cancelled()]
            assert (scope.spent, scope.purse.held) == (len(kept) * escalade.Money.of("0.001"), 0)
        await asyncio.to_thread(log.close)
    assert len(kept) == 30
    usage = tool._registered.meter.usage()
    assert (usage.calls, usage.denied) == (len(kept), 60 - len(kept))
    found = verify(path)
    assert (found.ok, found.unfinished_count) == (True, 0)
    assert Counter(row.event for row in rows(path))["outcome"] == len(kept)


async def test_an_outage(tmp_path: Path) -> None:
    """The log's disk is full: async calls are refused, nothing runs, nothing stays debited; with space they go on."""
    path, ran = tmp_path / "audit.sqlite", list[int]()

    async def write(number: int) -> None:
        ran.append(number)

    made = escalade.tool(name="disk.write", side_effects="write", limits="1000/s", cost="0.001")(write)
    tool = escalade.Registry([made], name="outage-async").get_tool("disk.write")
    with AuditLog(path) as log:
        async with escalade.scope(recorder=log, budget="1") as scope:
            await tool.acall(number=0)
            database = log._writer._store._book._database
            used = database.execute("PRAGMA page_count").fetchone()[0]
            database.execute(f"PRAGMA max_page_count={used}")
            answers: list[Any] = []
            while not any(isinstance(answer, Refused) for answer in answers[-50:]):
                calls = (tool.acall(number=len(answers) + n) for n in range(50))
                answers += await asyncio.gather(*calls, return_exceptions=True)
            refused = [answer for answer in answers if isinstance(answer, AuditUnavailable)]
            assert len(refused) + len(ran) == len(answers) + 1
            assert (scope.spent, scope.purse.held) == (len(ran) * escalade.Money.of("0.001"), 0)
            assert taken(tool._registered.resource) == len(ran)
            database.execute(f"PRAGMA max_page_count={2**30}")
            while not log.health().ok:  # noqa: ASYNC110 - a thread looks for the space
                await asyncio.sleep(0.01)
            await tool.acall(number=-1)
            assert ran[-1] == -1
        await asyncio.to_thread(log.close)
    found = verify(path)
    assert (found.ok, found.unfinished_count) == (True, 0)
    denied = [row.fields()["outcome"] for row in rows(path) if row.event == "denied"]
    assert denied == ["AuditUnavailable"] * len(refused)


async def test_a_model_whose_attempts_wait_for_the_disk(tmp_path: Path) -> None:
    """The gateway's async engine awaits the record, too, where the log is told to have attempts on the disk first."""
    path, gaps = tmp_path / "audit.sqlite", list[float]()
    lm = Gateway(World().as_models(), name="recorded-async").lm("small")
    predict = dspy.Predict("question -> answer")
    with AuditLog(path, synchronous={"model": "full"}, patience=30) as log, dspy.context(lm=lm):
        async with escalade.scope(recorder=log):
            await predict.acall(question="How much is 17 + 25?")
            slow(log, 0.4)
            beating = asyncio.create_task(beat(gaps))
            await asyncio.gather(*(predict.acall(question="How much is 17 + 25?") for _ in range(10)))
            beating.cancel()
        await asyncio.to_thread(log.close)
    assert max(gaps) < 0.35
    found = verify(path)
    assert (found.ok, found.unfinished_count) == (True, 0)
