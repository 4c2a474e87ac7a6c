"""What governing costs: calls through the gateway against the same calls on a bare engine; agents at once; memory.

Bare and governed calls run interleaved, in one loop, on an engine that answers at once. What is compared is processor
time of all threads: DSPy hops through threads, which would wait for their turn on a machine that does other work, too.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.lanes.lane import Lane
from escalade.agents.models import Model
from escalade.agents.policies import Threshold
from escalade.agents.world import World
from escalade.registry.access import Roles
from escalade.registry.journal import Journal
from escalade.registry.ledger import Budget, Ledger
from escalade.registry.opening import scope
from escalade.registry.prices import Price
from escalade.scopes import Principal

ALONE, AT_ONCE, ATTEMPT_US, RATE = 1.0, 0.8, 100.0, 1000.0
CALLS, CROWD, ATTEMPTS, MANY = 100, 1000, 1000, 100_000
GROWTH_KB = 1024.0
"""Of the process's memory, over `MANY` requests: 10 bytes each."""

QUESTION = "How much is 17 + 25?"
ANSWER = "[[ ## answer ## ]]\nok\n\n[[ ## completed ## ]]"


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Medians of interleaved repeats."""
    return asyncio.run(_measured(repeats))


async def _measured(repeats: int) -> list[dict[str, Any]]:
    return [
        await _compared("Predict.acall, one after the other", _one_after_the_other, ALONE, repeats),
        await _compared(f"Predict.acall, {CROWD:,} at once", _at_once, AT_ONCE, repeats),
        await _attempt(repeats),
        await _agents(repeats),
        await _memory(),
    ]


class Instant:
    """A transport that answers at once."""

    name = "instant"
    supports_function_calling = supports_response_schema = True
    supports_reasoning = False
    supported_params = frozenset({"temperature", "max_tokens"})

    def complete(self, request: Request) -> Response:
        message = Message.assistant([TextPart(ANSWER)])
        usage = Usage(input_tokens=10, output_tokens=5, total_tokens=15)
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)

    async def acomplete(self, request: Request) -> Response:
        return self.complete(request)


class _Bare:
    def __init__(self, carry: Any) -> None:
        self._carry = carry
        self.supports_function_calling = self.supports_response_schema = True
        self.supports_reasoning = False
        self.supported_params = carry.supported_params

    def complete(self, request: Any) -> Any:
        return self._carry.complete(request)


class _AsyncBare(_Bare):
    async def complete(self, request: Any) -> Any:
        return await self._carry.acomplete(request)


@contextmanager
def _everything_on() -> Iterator[Any]:
    """Roles, budgets of user, tenant and all, a record; see `_models` for limits, breaker and lane."""
    budgets = [Budget(name, "1000000", period="day") for name in ("user:acme/ana", "tenant:acme", "everything")]
    rules = [*(f"area{n}.*:call" for n in range(50)), "model.*:call"]
    with scope(
        budget="100000",
        principal=Principal("ana", "acme", frozenset({"caller"})),
        access=Roles({"caller": rules}),
        ledger=Ledger(budgets),
        recorder=Journal(keep=1000),
    ) as run:
        yield run


def _governed(**options: Any) -> Gateway:
    """One model that answers at once, with limits and a lane."""
    lane = Lane("benchmark", rpm=10**9, tpm=10**12, at_once=10**6, start=10**6)
    limits = {"tool": "1000000000/s", "user": "100000000/min"}
    model = Model("small", "x/small", Instant(), price=Price.of("1", "2"), limits=limits, lane=lane, **options)
    return Gateway([model], name="benchmark")


async def _one_after_the_other(predict: Any) -> int:
    for _ in range(CALLS):
        await predict.acall(question=QUESTION)
    return CALLS


async def _at_once(predict: Any) -> int:
    await asyncio.gather(*(predict.acall(question=QUESTION) for _ in range(CROWD)))
    return CROWD


async def _compared(name: str, way: Callable[[Any], Awaitable[int]], limit: float, repeats: int) -> dict[str, Any]:
    """A governed Predict against one on a stock LM with the same transport."""
    carry, predict = Instant(), dspy.Predict("question -> answer")
    bare = dspy.LM("x/small", engine=_Bare(carry), async_engine=_AsyncBare(carry), num_retries=0, cache=False)
    governed = Gateway([Model("small", "x/small", carry, price=Price.of("1", "2"))], name="benchmark").lm("small")

    async def once(lm: dspy.LM) -> tuple[float, float]:
        for history in (dspy.clients.base_lm.GLOBAL_HISTORY, lm.history, predict.history):
            history.clear()
        gc.collect()
        with dspy.context(lm=lm):
            return await _seconds(lambda: way(predict))

    pairs = []
    for _ in range(2 * repeats + 1):
        base = await once(bare)
        with scope(budget="1000"):
            pairs.append((base, await once(governed)))
    base, base_wall, ours, ours_wall = (
        statistics.median(pair[which][clock] for pair in pairs[1:]) for which, clock in ((0, 0), (0, 1), (1, 0), (1, 1))
    )
    return _figure(
        f"gateway: {name}", ours * 1e6, "us", f"<= {limit:g}x a stock LM", ok=ours <= limit * base, ratio=ours / base
    ) | {"note": f"stock {base * 1e6:.0f} us; on the clock {ours_wall * 1e6:.0f} and {base_wall * 1e6:.0f}"}


async def _attempt(repeats: int) -> dict[str, Any]:
    """What one attempt costs beyond its transport, with everything on."""
    gateway = _governed()
    request = Request(model="escalade/small", messages=(Message.user(QUESTION * 20),))
    engine, carry = gateway.lm("small")._async_engine_spec, gateway.model("small").transport

    async def attempts(complete: Callable[[Request], Awaitable[Response]]) -> int:
        for _ in range(ATTEMPTS):
            await complete(request)
        return ATTEMPTS

    beyond = []
    with _everything_on():
        for _ in range(2 * repeats + 1):
            bare, _ = await _seconds(lambda: attempts(carry.acomplete))
            ours, _ = await _seconds(lambda: attempts(engine.complete))
            beyond.append(ours - bare)
    value = statistics.median(beyond[1:]) * 1e6
    return _figure(
        "gateway: one attempt, everything on", value, "us", f"<= {ATTEMPT_US:g} us", ok=value <= ATTEMPT_US
    ) | {"note": "beyond the transport: roles, 2 limits, lane, breaker, 4 budgets, journal"}


async def _agents(repeats: int) -> dict[str, Any]:
    """Escalating agents in a simulated world, all at once, with everything on."""
    world = World()
    lane = Lane("world", rpm=10**9, tpm=10**12, at_once=CROWD, start=CROWD)
    models = world.as_models(limits={"tool": "1000000000/s", "user": "100000000/min"}, lane=lane)
    gateway = Gateway(models, name="benchmark of agents")
    small, *_, big = gateway.models
    agent = Escalate("question -> answer", rungs=[small, big], policy=Threshold(0.8), gateway=gateway)
    rates, asked = [], 0

    async def crowd() -> int:
        before = sum(world.calls.values())
        await asyncio.gather(*(agent.acall(question=f"What is {n} + {n % 7}?") for n in range(CROWD)))
        return sum(world.calls.values()) - before

    with _everything_on(), dspy.context(disable_history=True):
        for _ in range(repeats + 1):
            seconds, _ = await _seconds(crowd)
            rates.append(1 / seconds)
            asked = sum(world.calls.values())
    value = statistics.median(rates[1:])
    each = asked / (CROWD * (repeats + 1))
    return _figure(
        f"gateway: {CROWD:,} escalating agents at once, on one core",
        value, "requests/s", f">= {RATE:,.0f}/s", ok=value >= RATE,
    ) | {"note": f"everything on; {each:.2f} requests per question, {value / each:,.0f} questions/s"}  # fmt: skip


async def _memory() -> dict[str, Any]:
    """Growth of the process over many requests, after as many as fill what is bounded. Windows of a second: those of a
    minute keep the times of all that started in it.
    """
    lane = Lane("benchmark", limits="1000000/s", at_once=10**6, start=10**6)
    model = Model("small", "x/small", Instant(), price=Price.of("1", "2"), limits="1000000/s", lane=lane)
    lm = Gateway([model], name="benchmark of memory").lm("small")
    with _everything_on(), dspy.context(disable_history=True):
        await _requests(lm, MANY // 10)
        before = _resident()
        await _requests(lm, MANY)
        grown = _resident() - before
    return _figure(
        f"gateway: memory after {MANY:,} requests", grown, "KiB", f"<= {GROWTH_KB:,.0f} KiB more", ok=grown <= GROWTH_KB
    ) | {"note": f"of {before:,.0f} KiB"}


async def _requests(lm: dspy.LM, many: int) -> None:
    for _ in range(many // CROWD):
        await asyncio.gather(*(lm.acall(QUESTION) for _ in range(CROWD)))
    gc.collect()


def _resident() -> float:
    """KiB of the process in memory; 0 where the system doesn't tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - no file
            return next(float(line.split()[1]) for line in status if line.startswith("VmRSS"))
    except OSError:
        return 0.0


async def _seconds(do: Callable[[], Awaitable[int]]) -> tuple[float, float]:
    """Seconds per call: of processors, and on the clock."""
    began, spent = time.perf_counter(), time.process_time()
    calls = await do()
    return (time.process_time() - spent) / calls, (time.perf_counter() - began) / calls


def _figure(name: str, value: float, unit: str, limit: str, *, ok: bool, ratio: float | None = None) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "limit": limit, "ok": ok, "ratio": ratio, "note": ""}
