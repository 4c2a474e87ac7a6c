"""Burr: an action that maps states, and applications of actions in a row."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from burr.core import ApplicationBuilder, GraphBuilder, State, action
from burr.core.parallelism import MapStates, RunnableGraph

from benchmarks.peers.graphs import Peer, nap


def mapped(work: Any, starts: Callable[[State], list[dict[str, Any]]], reads: list[str]) -> Any:
    """A graph of one action, which runs `work` on a state for each of `starts` and sums what they give."""

    class Mapped(MapStates):  # type: ignore[misc]  # untyped
        def action(self, state: State, inputs: dict[str, Any]) -> Any:
            return work

        async def states(self, state: State, context: Any, inputs: dict[str, Any]) -> AsyncGenerator[State, None]:
            for start in starts(state):
                yield state.update(**start)

        async def reduce(self, state: State, states: AsyncGenerator[State, None]) -> State:
            return state.update(total=sum([made["value"] async for made in states]))

        def is_async(self) -> bool:
            return True

        @property
        def writes(self) -> list[str]:
            return ["total"]

        @property
        def reads(self) -> list[str]:
            return reads

    return GraphBuilder().with_actions(spread=Mapped()).build()


async def run(graph: Any, first: str, last: str, **state: Any) -> Any:
    app = await ApplicationBuilder().with_graph(graph).with_entrypoint(first).with_state(**state).abuild()
    return (await app.arun(halt_after=[last]))[2]


class Burr(Peer):
    package = "burr"
    note = "MapStates, async; a new Application per run"

    async def fan_out(self, n: int) -> int:
        @action(reads=["given"], writes=["value"])
        async def one(state: State) -> State:
            return state.update(value=1)

        graph = self.kept(("fan", n), lambda: mapped(one, lambda state: [{}] * n, ["given"]))
        return int((await run(graph, "spread", "spread", given=0))["total"])

    async def sleepers(self, n: int, seconds: float) -> int:
        @action(reads=["given"], writes=["value"])
        async def napped(state: State) -> State:
            return state.update(value=await nap(state["given"]))

        graph = self.kept(("naps", n), lambda: mapped(napped, lambda state: [{}] * n, ["given"]))
        return int((await run(graph, "spread", "spread", given=seconds))["total"])

    async def chain(self, n: int) -> int:
        @action(reads=["x"], writes=["x"])
        async def more(state: State) -> State:
            return state.update(x=state["x"] + 1)

        def build() -> Any:
            steps = GraphBuilder().with_actions(**{f"s{k}": more for k in range(n)})
            return steps.with_transitions(*[(f"s{k}", f"s{k + 1}") for k in range(n - 1)]).build()

        return int((await run(self.kept(("chain", n), build), "s0", f"s{n - 1}", x=0))["x"])

    async def small(self, i: int) -> int:
        @action(reads=["given", "k"], writes=["value"])
        async def plus(state: State) -> State:
            return state.update(value=state["given"] + state["k"])

        starts = [{"k": k} for k in range(3)]
        graph = self.kept("small", lambda: mapped(plus, lambda state: starts, ["given"]))
        return int((await run(graph, "spread", "spread", given=i))["total"])

    async def unbalanced(self) -> int:
        @action(reads=["naps"], writes=["value"])
        async def first(state: State) -> State:
            return state.update(value=await nap(state["naps"][0]))

        @action(reads=["naps", "value"], writes=["value"])
        async def second(state: State) -> State:
            return state.update(value=state["value"] + await nap(state["naps"][1]))

        def build() -> Any:
            row = GraphBuilder().with_actions(a=first, b=second).with_transitions(("a", "b")).build()
            starts = [{"naps": (0.05, 0.25)}, {"naps": (0.25, 0.05)}]
            return mapped(RunnableGraph(row, "a", ["b"]), lambda state: starts, ["given"])

        return int((await run(self.kept("pairs", build), "spread", "spread", given=0))["total"])
