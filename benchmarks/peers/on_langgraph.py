"""LangGraph: a StateGraph whose fan-outs are `Send`s that a reducer collects."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from benchmarks.peers.graphs import Peer, nap


class State(TypedDict, total=False):
    n: int
    i: int
    x: int
    seconds: float
    values: Annotated[list[int], operator.add]
    total: int


async def join(state: State) -> State:
    return {"total": sum(state["values"])}


class LangGraph(Peer):
    package = "langgraph"
    note = "StateGraph, Send, a reducer and a join; no checkpointer"

    def _spread(self, node: Callable[[State], Any]) -> Any:
        def sends(state: State) -> list[Send]:
            return [Send("work", {"seconds": state.get("seconds", 0.0)}) for _ in range(state["n"])]

        async def begin(state: State) -> State:
            return {}

        graph = StateGraph(State)
        graph.add_node("begin", begin)
        graph.add_node("work", node)
        graph.add_node("join", join)
        graph.add_edge(START, "begin")
        graph.add_conditional_edges("begin", sends, ["work"])
        graph.add_edge("work", "join")
        graph.add_edge("join", END)
        return graph.compile()

    async def fan_out(self, n: int) -> int:
        async def work(state: State) -> State:
            return {"values": [1]}

        made = await self.kept("fan", lambda: self._spread(work)).ainvoke({"n": n, "values": []})
        return int(made["total"])

    async def sleepers(self, n: int, seconds: float) -> int:
        async def work(state: State) -> State:
            return {"values": [await nap(state["seconds"])]}

        graph = self.kept("naps", lambda: self._spread(work))
        return int((await graph.ainvoke({"n": n, "seconds": seconds, "values": []}))["total"])

    def _row(self, n: int) -> Any:
        async def step(state: State) -> State:
            return {"x": state["x"] + 1}

        graph = StateGraph(State)
        for k in range(n):
            graph.add_node(f"s{k}", step)
            graph.add_edge(f"s{k - 1}" if k else START, f"s{k}")
        graph.add_edge(f"s{n - 1}", END)
        return graph.compile()

    async def chain(self, n: int) -> int:
        graph = self.kept(("chain", n), lambda: self._row(n))
        return int((await graph.ainvoke({"x": 0}, {"recursion_limit": n + 10}))["x"])

    def _rows(self, rows: list[list[Callable[[State], Any]]]) -> Any:
        graph, ends = StateGraph(State), []
        for r, row in enumerate(rows):
            before = START
            for k, node in enumerate(row):
                graph.add_node(f"w{r}_{k}", node)
                graph.add_edge(before, f"w{r}_{k}")
                before = f"w{r}_{k}"
            ends.append(before)
        graph.add_node("join", join)
        graph.add_edge(ends, "join")
        graph.add_edge("join", END)
        return graph.compile()

    async def small(self, i: int) -> int:
        def plus(k: int) -> Callable[[State], Any]:
            async def added(state: State) -> State:
                return {"values": [state["i"] + k]}

            return added

        graph = self.kept("small", lambda: self._rows([[plus(k)] for k in range(3)]))
        return int((await graph.ainvoke({"i": i, "values": []}))["total"])

    async def unbalanced(self) -> int:
        def napping(seconds: float) -> Callable[[State], Any]:
            async def napped(state: State) -> State:
                return {"values": [await nap(seconds)]}

            return napped

        rows = [[napping(0.05), napping(0.25)], [napping(0.25), napping(0.05)]]
        return int((await self.kept("pairs", lambda: self._rows(rows)).ainvoke({"values": []}))["total"])
