"""Haystack: an asynchronous Pipeline of components with sockets, and a variadic join.

It reads the annotations of its components itself, so they aren't postponed here.
"""

from collections.abc import Callable
from typing import Any

from haystack import Pipeline, component
from haystack.core.component.types import Variadic

from benchmarks.peers.graphs import Peer, nap


def node(body: Callable[[float], Any]) -> Any:
    @component
    class Node:
        @component.output_types(x=float)
        def run(self, x: float) -> dict[str, float]:
            raise NotImplementedError

        @component.output_types(x=float)
        async def run_async(self, x: float) -> dict[str, float]:
            return {"x": await body(x)}

    return Node()


@component
class Join:
    @component.output_types(total=float)
    def run(self, x: Variadic[float]) -> dict[str, float]:
        return {"total": sum(x)}

    @component.output_types(total=float)
    async def run_async(self, x: Variadic[float]) -> dict[str, float]:
        return {"total": sum(x)}


async def same(x: float) -> float:
    return x


class Haystack(Peer):
    package = "haystack"
    note = "Pipeline.run_async of static components, as many at once as there are"

    def _spread(self, bodies: list[Any]) -> Any:
        graph = Pipeline()
        graph.add_component("begin", node(same))
        graph.add_component("join", Join())
        for k, body in enumerate(bodies):
            graph.add_component(f"w{k}", node(body))
            graph.connect("begin.x", f"w{k}.x")
            graph.connect(f"w{k}.x", "join.x")
        return graph

    async def _sum(self, graph: Any, x: float, n: int) -> int:
        made = await graph.run_async({"begin": {"x": float(x)}}, concurrency_limit=max(4, n))
        return int(made["join"]["total"])

    async def fan_out(self, n: int) -> int:
        async def one(x: float) -> float:
            return 1

        return await self._sum(self.kept(("fan", n), lambda: self._spread([one] * n)), 0, n)

    async def sleepers(self, n: int, seconds: float) -> int:
        return await self._sum(self.kept(("naps", n), lambda: self._spread([nap] * n)), seconds, n)

    async def chain(self, n: int) -> int:
        async def more(x: float) -> float:
            return x + 1

        def build() -> Any:
            graph = Pipeline()
            for k in range(n):
                graph.add_component(f"s{k}", node(more))
                if k:
                    graph.connect(f"s{k - 1}.x", f"s{k}.x")
            return graph

        made = await self.kept(("chain", n), build).run_async({"s0": {"x": 0.0}}, concurrency_limit=4)
        return int(made[f"s{n - 1}"]["x"])

    async def small(self, i: int) -> int:
        def plus(k: int) -> Any:
            async def added(x: float) -> float:
                return x + k

            return added

        return await self._sum(self.kept("small", lambda: self._spread([plus(k) for k in range(3)])), i, 3)

    async def unbalanced(self) -> int:
        def napping(seconds: float) -> Any:
            async def napped(x: float) -> float:
                return x + await nap(seconds)

            return napped

        def build() -> Any:
            pairs = Pipeline()
            pairs.add_component("begin", node(same))
            pairs.add_component("join", Join())
            for name, first, second in (("x", 0.05, 0.25), ("y", 0.25, 0.05)):
                pairs.add_component(name + "1", node(napping(first)))
                pairs.add_component(name + "2", node(napping(second)))
                pairs.connect("begin.x", name + "1.x")
                pairs.connect(name + "1.x", name + "2.x")
                pairs.connect(name + "2.x", "join.x")
            return pairs

        return await self._sum(self.kept("pairs", build), 0, 4)
