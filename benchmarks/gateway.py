"""What governing costs: one `Predict.acall` through the gateway against the same call on a bare engine.

Both run the same simulated transport, in the same loop, interleaved; the gateway adds the guard (roles, breaker,
reservation, record) and the fallback route.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import dspy

from escalade.agents.gateway import Gateway
from escalade.agents.transports.simulated import Simulated
from escalade.agents.world import World
from escalade.registry.opening import scope

CALLS, LIMIT = 100, 1.15
PAIRS = 5
"""Interleaved pairs per repeat: many short ones, since a call is mostly thread hops, whose price drifts."""


class _Bare:
    def __init__(self, carry: Simulated) -> None:
        self._carry = carry
        self.supports_function_calling = self.supports_response_schema = True
        self.supports_reasoning = False
        self.supported_params = carry.supported_params

    def complete(self, request: Any) -> Any:
        return self._carry.complete(request)


class _AsyncBare(_Bare):
    async def complete(self, request: Any) -> Any:
        return await self._carry.acomplete(request)


async def _one_after_the_other(lm: Any, predict: Any) -> float:
    with dspy.context(lm=lm):
        began = time.perf_counter()
        for _ in range(CALLS):
            await predict.acall(question="How much is 17 + 25?")
        return (time.perf_counter() - began) / CALLS


async def _at_once(lm: Any, predict: Any) -> float:
    with dspy.context(lm=lm):
        began = time.perf_counter()
        await asyncio.gather(*(predict.acall(question="How much is 17 + 25?") for _ in range(CALLS)))
        return (time.perf_counter() - began) / CALLS


async def _pair(way: Any, bare: Any, governed: Any, predict: Any, *, bare_first: bool) -> tuple[float, float]:
    base = await way(bare, predict) if bare_first else 0.0
    with scope(budget="1000"):
        ours = await way(governed, predict)
    return base if bare_first else await way(bare, predict), ours


async def _measure(repeats: int) -> list[dict[str, Any]]:
    world = World()
    carry = Simulated(world)
    bare = dspy.LM("sim/small", engine=_Bare(carry), async_engine=_AsyncBare(carry), num_retries=0, cache=False)
    governed = Gateway(world.as_models(), name="benchmark").lm("small")
    predict = dspy.Predict("question -> answer")
    figures = []
    # The second is there to be known: at once, DSPy's thread hops overlap, so that the same 20-45 us weigh more.
    ways = (("one after the other", _one_after_the_other, LIMIT), (f"{CALLS} at once", _at_once, None))
    for name, way, limit in ways:
        rounds = range(PAIRS * repeats + PAIRS)
        pairs = [await _pair(way, bare, governed, predict, bare_first=at % 2 == 0) for at in rounds]
        pairs = pairs[PAIRS:]  # the first ones warm up
        ratio = statistics.median(ours for _, ours in pairs) / statistics.median(base for base, _ in pairs)
        figures.append(
            {
                "name": f"gateway: Predict.acall, {name}",
                "value": statistics.median(ours for _, ours in pairs) * 1e6,
                "unit": "us",
                "limit": f"<= {limit:.2f}x the bare engine" if limit else "reported",
                "ok": limit is None or ratio <= limit,
                "ratio": ratio,
                "note": f"bare {statistics.median(base for base, _ in pairs) * 1e6:.0f} us",
            }
        )
    return figures


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Microseconds per governed call, and the ratio to the bare engine, medians of interleaved repeats."""
    return asyncio.run(_measure(repeats))
