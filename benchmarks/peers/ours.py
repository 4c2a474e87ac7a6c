"""escalade, with a budget, a deadline, cancellation and steps on."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.graphs import Peer, nap
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.registry.opening import scope


async def one() -> int:
    return 1


async def more(x: int) -> dict[str, int]:
    return {"x": x + 1}


async def added(results: dict[str, int]) -> int:
    return sum(results.values())


class Escalade(Peer):
    """Our row."""

    package = "escalade"
    note = "FanOut, Chain; each sample in a scope with a budget and a deadline"

    def around(self) -> Any:
        return scope(budget="1.00", deadline=600)

    async def _sum(self, graph: FanOut, **inputs: Any) -> int:
        made: int = (await graph.acall(**inputs)).join
        return made

    async def fan_out(self, n: int) -> int:
        graph = self.kept(("fan", n), lambda: FanOut({f"b{i}": one for i in range(n)}, join=added))
        return await self._sum(graph)

    async def chain(self, n: int) -> int:
        graph = self.kept(("chain", n), lambda: Chain(*[more] * n))
        made: int = (await graph.acall(x=0)).x
        return made

    async def sleepers(self, n: int, seconds: float) -> int:
        graph = self.kept(("naps", n), lambda: FanOut({f"b{i}": nap for i in range(n)}, join=added))
        return await self._sum(graph, seconds=seconds)

    async def small(self, i: int) -> int:
        def plus(k: int) -> Any:
            async def added_to(i: int) -> int:
                return i + k

            return added_to

        graph = self.kept("small", lambda: FanOut({f"b{k}": plus(k) for k in range(3)}, join=added))
        return await self._sum(graph, i=i)

    async def unbalanced(self) -> int:
        def pair(first: float, second: float) -> Chain:
            async def begin() -> int:
                return await nap(first)

            async def end(begin: int) -> int:
                return begin + await nap(second)

            return Chain(begin, end)

        async def joined(left: Any, right: Any) -> int:
            made: int = left.end + right.end
            return made

        graph = self.kept("pairs", lambda: FanOut(left=pair(0.05, 0.25), right=pair(0.25, 0.05), join=joined))
        return await self._sum(graph)
