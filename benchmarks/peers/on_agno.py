"""Agno: a Workflow of a Parallel and a join, whose steps hand on text."""

from __future__ import annotations

import logging
from typing import Any

from agno.workflow import Parallel, Step, StepOutput, Steps, Workflow

from benchmarks.peers.graphs import Peer, nap

logging.disable(logging.CRITICAL)


def step(name: str, body: Any) -> Any:
    async def run(given: Any) -> Any:
        return StepOutput(content=str(await body(given)))

    return Step(name=name, executor=run)


async def added(given: Any) -> int:
    """The sum of the last steps of all branches."""
    found = given.previous_step_outputs["branches"].steps
    return sum(int((one.steps[-1] if one.steps else one).content) for one in found)


class Agno(Peer):
    package = "agno"
    note = "Workflow of a Parallel and a join, no database; a new Workflow object per concurrent run"

    async def _run(self, steps: list[Any], given: object, key: Any = None) -> int:
        def build() -> Any:
            return Workflow(name="w", steps=steps, telemetry=False)

        flow = build() if key is None else self.kept(key, build)
        return int((await flow.arun(input=str(given))).content)

    def _spread(self, bodies: list[Any]) -> list[Any]:
        branches = [step(f"w{k}", body) for k, body in enumerate(bodies)]
        return [Parallel(*branches, name="branches"), step("join", added)]

    async def fan_out(self, n: int) -> int:
        async def one(given: Any) -> int:
            return 1

        return await self._run(self.kept(("fan", n), lambda: self._spread([one] * n)), 0, ("flow", n))

    async def sleepers(self, n: int, seconds: float) -> int:
        async def napped(given: Any) -> int:
            return await nap(float(given.input))

        return await self._run(self.kept(("naps", n), lambda: self._spread([napped] * n)), seconds, ("napping", n))

    async def chain(self, n: int) -> int:
        async def more(given: Any) -> int:
            return int(given.previous_step_content or 0) + 1

        return await self._run(self.kept(("chain", n), lambda: [step(f"s{k}", more) for k in range(n)]), 0, ("row", n))

    async def small(self, i: int) -> int:
        def plus(k: int) -> Any:
            async def more(given: Any) -> int:
                return int(given.input) + k

            return more

        return await self._run(self.kept("small", lambda: self._spread([plus(k) for k in range(3)])), i)

    async def unbalanced(self) -> int:
        def napping(name: str, seconds: float) -> Any:
            async def napped(given: Any) -> int:
                await nap(seconds)
                return 2

            return step(name, napped)

        def pair(name: str, first: float, second: float) -> Any:
            return Steps(name=name, steps=[napping(name + "1", first), napping(name + "2", second)])

        branches = Parallel(pair("x", 0.05, 0.25), pair("y", 0.25, 0.05), name="branches")
        return await self._run([branches, step("join", added)], 0, "pairs")
