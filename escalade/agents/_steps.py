"""What an agent has done: its steps, the calls of each, and the answer that knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dspy

from escalade.money import Money

FINISHED, MAX_STEPS, LOOP, BUDGET, NO_CALL, UNREADABLE = (
    "finished", "max_steps", "loop", "budget", "no_call", "unreadable",
)  # fmt: skip
"""Why an agent stopped using tools. After all of them it answers with what it has."""


@dataclass(frozen=True, slots=True)
class Used:
    """One call of a tool, as it went.

    `tool`: "crm.search@1.2.0", or the name that the model made up. `observation`: what the model reads of it. `error`:
    code of the line that it reads instead of a result ("rate_limited"), "" if it worked. `cost`: nano-dollars.
    `seconds`: duration.
    """

    tool: str
    args: Mapping[str, Any]
    observation: str
    error: str = ""
    cost: int = 0
    seconds: float = 0.0
    name: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the model: what it thought, the tools that it used. `cost`: of the model alone, nano-dollars."""

    thought: str
    calls: tuple[Used, ...]
    cost: int = 0


class AgentAnswer(dspy.Prediction):
    """The agent's answer; it also knows how it came about."""

    _steps: tuple[Step, ...] = ()
    _ended: str = FINISHED
    _cost: int = 0

    @property
    def steps(self) -> tuple[Step, ...]:
        """The trajectory, in order."""
        return self._steps

    @property
    def ended(self) -> str:
        """Why it stopped using tools: "finished", "max_steps", "loop", "budget", "no_call" or "unreadable"."""
        return self._ended

    @property
    def cost(self) -> Money:
        """What models and tools cost together."""
        return Money(self._cost)

    @property
    def refusals(self) -> tuple[Used, ...]:
        """Calls that gave no result: refused, failed, or not made."""
        return tuple(used for step in self._steps for used in step.calls if used.error)

    @property
    def trajectory(self) -> dict[str, Any]:
        """The steps as `dspy.ReAct` has them: thought_0, tool_name_0, tool_args_0, observation_0, …"""
        return flat(self._steps)

    def explain(self) -> str:
        """A line per call: the tool, what it cost, how it ended; and why the agent stopped."""
        lines = [
            f"{at + 1}. {used.tool}: {used.error or 'ok'}, {Money(used.cost)}"
            for at, step in enumerate(self._steps)
            for used in step.calls
        ]
        return "\n".join([*lines, f"{self._ended}: {Money(self._cost)} in all"])


def flat(steps: tuple[Step, ...] | list[Step]) -> dict[str, Any]:
    """One entry of four for each call."""
    trajectory: dict[str, Any] = {}
    calls = [(step.thought, used) for step in steps for used in step.calls]
    for at, (thought, used) in enumerate(calls):
        trajectory |= {
            f"thought_{at}": thought,
            f"tool_name_{at}": used.name,
            f"tool_args_{at}": dict(used.args),
            f"observation_{at}": used.observation,
        }
    return trajectory
