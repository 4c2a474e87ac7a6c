"""Race: several ways to the same answer, of which the first good one counts."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar

import dspy

from escalade.errors import BadInput
from escalade.pipelines import _node, _run
from escalade.pipelines._calls import RESULT
from escalade.pipelines._gather import Gathering
from escalade.pipelines._node import Prepared
from escalade.pipelines.checking import checks
from escalade.pipelines.checking._traffic import Traffic
from escalade.pipelines.fan_out import branches_of, fields_of
from escalade.pipelines.joined import Joined, joined
from escalade.pipelines.joins import Rule
from escalade.pipelines.pipeline import Pipeline


class Race(Pipeline):
    """Runs its branches at once, each on the inputs that it takes by name; the first that ends well is the result.

    The result is the winner's Prediction as it is, or its bare value as the field `result`; `result.winner` is its
    name, `result.statuses` how all have ended. The others are cancelled, and cost what was really spent. When all have
    failed, JoinFailed tells of each.

    `branches`: a dict, or keywords, first come first served. `stagger`: seconds before the next one begins, if no
    earlier one has answered by then; one that fails lets the next begin at once. `timeout`: seconds for each branch
    that has none of its own. Raises BadInput.

    >>> import asyncio
    >>> async def slow(x: int) -> str:
    ...     await asyncio.sleep(9)
    ...     return "slow"
    >>> async def quick(x: int) -> str:
    ...     return "quick"
    >>> result = Race(slow=slow, quick=quick)(x=1)
    >>> result.result, result.winner, result.statuses["slow"].state
    ('quick', 'quick', 'cancelled')
    """

    kind: ClassVar[str] = "race"

    def __init__(
        self,
        branches: Mapping[str, Any] | None = None,
        /,
        *unnamed: Any,
        stagger: float | None = None,
        timeout: float | None = None,
        **named: Any,
    ) -> None:
        super().__init__()
        if stagger is not None and not (isinstance(stagger, (int, float)) and stagger > 0):
            raise BadInput(
                f"stagger: expected more than 0 seconds, got {stagger!r}; a branch of this name goes in a dict"
            )
        self.stagger = stagger
        self.branches: dict[str, Any] = {}
        for found in branches_of(type(self), (branches, *unnamed) if unnamed else branches, named, timeout):
            self.branches[str(found.name)], self._options[str(found.name)] = found.target, found.options
        self._plan()

    def _targets(self) -> Mapping[str, Any]:
        branches: dict[str, Any] = self.branches
        return branches

    def _part(self, name: str) -> str:
        return "branch"

    def _facts(self) -> dict[str, Any]:
        return {} if self.stagger is None else {"stagger": self.stagger}

    def _traffic(self, plan: Mapping[str, Prepared]) -> Traffic:
        return checks.of_race(plan)

    async def _flow(self, inputs: dict[str, Any], frame: _run.Frame) -> Joined:
        plan = self._ready(inputs)
        starts = [(branch, fields_of(branch, inputs)) for branch in plan.values()]
        gathering = Gathering(frame, Rule(first=1), _start, path=str, names=list(plan), stagger=self.stagger)
        await gathering.gather(starts)
        ((winner, result),) = gathering.results.items()
        if not isinstance(result, dspy.Prediction):
            result = dspy.Prediction(**_node.named_fields(RESULT, result))
        return joined(result, gathering.statuses, winner)


def _start(_: str, item: Any, frame: _run.Frame, trace: list[Any] | None) -> Coroutine[Any, Any, Any]:
    branch: Prepared
    branch, fields = item
    return _run.node(branch, fields, frame, trace)
