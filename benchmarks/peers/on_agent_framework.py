"""Microsoft Agent Framework: a workflow of executors with edges that fan out and in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Never

from agent_framework import Executor, WorkflowBuilder, WorkflowContext, handler

from benchmarks.peers.graphs import Peer, nap

Body = Callable[[float], Awaitable[float]]


class Node(Executor):  # type: ignore[misc]  # untyped
    def __init__(self, name: str, body: Body) -> None:
        super().__init__(id=name)
        self._body = body

    @handler
    async def go(self, x: float, ctx: WorkflowContext[float]) -> None:
        await ctx.send_message(float(await self._body(x)))


class Last(Executor):  # type: ignore[misc]
    @handler
    async def go(self, x: float, ctx: WorkflowContext[Never, float]) -> None:
        await ctx.yield_output(x)


class Join(Executor):  # type: ignore[misc]
    @handler
    async def go(self, xs: list[float], ctx: WorkflowContext[Never, float]) -> None:
        await ctx.yield_output(sum(xs))


async def same(x: float) -> float:
    return x


class AgentFramework(Peer):
    package = "agent_framework"
    note = "WorkflowBuilder with fan-out and fan-in edges; rebuilt per concurrent run, which it refuses to share"

    def _spread(self, bodies: list[Body]) -> Any:
        begin, join = Node("begin", same), Join(id="join")
        works = [Node(f"w{k}", body) for k, body in enumerate(bodies)]
        return (
            WorkflowBuilder(start_executor=begin).add_fan_out_edges(begin, works).add_fan_in_edges(works, join).build()
        )

    async def _sum(self, graph: Any, x: float) -> int:
        return int((await graph.run(float(x))).get_outputs()[0])

    async def fan_out(self, n: int) -> int:
        async def one(x: float) -> float:
            return 1

        return await self._sum(self.kept(("fan", n), lambda: self._spread([one] * n)), 0)

    async def sleepers(self, n: int, seconds: float) -> int:
        return await self._sum(self.kept(("naps", n), lambda: self._spread([nap] * n)), seconds)

    async def chain(self, n: int) -> int:
        async def more(x: float) -> float:
            return x + 1

        def build() -> Any:
            row = [*[Node(f"s{k}", more) for k in range(n)], Last(id="last")]
            return WorkflowBuilder(start_executor=row[0], max_iterations=n + 10).add_chain(row).build()

        return await self._sum(self.kept(("chain", n), build), 0)

    async def small(self, i: int) -> int:
        def plus(k: int) -> Body:
            async def added(x: float) -> float:
                return x + k

            return added

        return await self._sum(self._spread([plus(k) for k in range(3)]), i)

    async def unbalanced(self) -> int:
        def napping(seconds: float) -> Body:
            async def napped(x: float) -> float:
                return x + await nap(seconds)

            return napped

        def build() -> Any:
            begin, join = Node("begin", same), Join(id="join")
            x1, x2 = Node("x1", napping(0.05)), Node("x2", napping(0.25))
            y1, y2 = Node("y1", napping(0.25)), Node("y2", napping(0.05))
            builder = WorkflowBuilder(start_executor=begin).add_fan_out_edges(begin, [x1, y1])
            return builder.add_edge(x1, x2).add_edge(y1, y2).add_fan_in_edges([x2, y2], join).build()

        return await self._sum(self.kept("pairs", build), 0)
