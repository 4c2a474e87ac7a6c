"""pydantic-graph: a GraphBuilder with `.map()` and a join that sums."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from pydantic_graph import GraphBuilder
from pydantic_graph.join import reduce_sum

from benchmarks.peers.graphs import Peer, nap


def builder(input_type: type) -> Any:
    return GraphBuilder(state_type=type(None), deps_type=type(None), input_type=input_type, output_type=int)


class PydanticGraph(Peer):
    package = "pydantic_graph"
    note = "GraphBuilder, .map(), join(reduce_sum)"

    def _spread(self, body: Any) -> Any:
        graph = builder(list)

        async def begin(ctx: Any) -> list[Any]:
            items: list[Any] = ctx.inputs
            return items

        first, work = graph.step(begin, node_id="begin"), graph.step(body, node_id="work")
        join = graph.join(reduce_sum, initial=0)
        graph.add(
            graph.edge_from(graph.start_node).to(first),
            graph.edge_from(first).map().to(work),
            graph.edge_from(work).to(join),
            graph.edge_from(join).to(graph.end_node),
        )
        return graph.build()

    async def fan_out(self, n: int) -> int:
        async def one(ctx: Any) -> int:
            return 1

        return int(await self.kept("fan", lambda: self._spread(one)).run(inputs=list(range(n))))

    async def sleepers(self, n: int, seconds: float) -> int:
        async def napped(ctx: Any) -> int:
            return await nap(ctx.inputs)

        return int(await self.kept("naps", lambda: self._spread(napped)).run(inputs=[seconds] * n))

    def _row(self, n: int) -> Any:
        graph = builder(int)

        async def more(ctx: Any) -> int:
            return int(ctx.inputs) + 1

        steps = [graph.step(more, node_id=f"s{k}") for k in range(n)]
        graph.add(graph.edge_from(graph.start_node).to(steps[0]))
        for before, after in pairwise(steps):
            graph.add(graph.edge_from(before).to(after))
        graph.add(graph.edge_from(steps[-1]).to(graph.end_node))
        return graph.build()

    async def chain(self, n: int) -> int:
        return int(await self.kept(("chain", n), lambda: self._row(n)).run(inputs=0))

    def _three(self) -> Any:
        graph = builder(int)

        def plus(k: int) -> Any:
            async def added(ctx: Any) -> int:
                return int(ctx.inputs) + k

            return graph.step(added, node_id=f"w{k}")

        works = [plus(k) for k in range(3)]
        join = graph.join(reduce_sum, initial=0)
        graph.add(
            graph.edge_from(graph.start_node).to(*works),
            graph.edge_from(*works).to(join),
            graph.edge_from(join).to(graph.end_node),
        )
        return graph.build()

    async def small(self, i: int) -> int:
        return int(await self.kept("small", self._three).run(inputs=i))

    def _pairs(self) -> Any:
        graph = builder(int)

        def napping(name: str, seconds: float) -> Any:
            async def napped(ctx: Any) -> int:
                return int(ctx.inputs) + await nap(seconds)

            return graph.step(napped, node_id=name)

        a, b, c, d = napping("a", 0.05), napping("b", 0.25), napping("c", 0.25), napping("d", 0.05)
        join = graph.join(reduce_sum, initial=0)
        graph.add(
            graph.edge_from(graph.start_node).to(a, c),
            graph.edge_from(a).to(b),
            graph.edge_from(c).to(d),
            graph.edge_from(b, d).to(join),
            graph.edge_from(join).to(graph.end_node),
        )
        return graph.build()

    async def unbalanced(self) -> int:
        return int(await self.kept("pairs", self._pairs).run(inputs=0))
