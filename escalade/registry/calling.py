"""Calling a tool: the one path from a registered tool to its function, sync and async, under the guard.

An async tool called synchronously runs in an event loop of its own, in this thread, or in another one when this
thread is inside a running loop already (a notebook), which then waits as it would for any sync call. A sync tool called
asynchronously runs in a thread of ours. When a tool's time is up, the wait for it ends: an async tool is cancelled; a
sync one can't be, so its thread is left behind to finish for nobody. Its money is settled either way.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from escalade.errors import DeadlineExceeded, EscaladeError, InvalidArguments, ToolError, ToolTimeout
from escalade.registry import workers
from escalade.registry.access.explain import EFFECTS
from escalade.registry.approvals.waiting import apatient, patient
from escalade.registry.breaker import Breaker
from escalade.registry.canonical import digest
from escalade.registry.dspy_errors import for_model
from escalade.registry.guard import Admission, Resource, admit
from escalade.registry.lifecycle import Status
from escalade.registry.privacy.vault import masked, raw_arguments
from escalade.registry.tools import ToolDefinition
from escalade.registry.usage import Meter
from escalade.scopes import Scope

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry


Beside = Callable[[tuple[Any, ...], dict[str, Any], Any], None]
"""Told of the arguments and the result of each call that worked."""


class Registered:
    """One version of a tool in a registry. All copies of a `GovernedTool` share it: one limiter, one breaker, one
    meter.
    """

    def __init__(self, registry: Registry, definition: ToolDefinition) -> None:
        self.registry, self.definition = registry, definition
        spec = self.spec = definition.spec
        self.meter = Meter(spec.name, spec.version)
        self.resource = Resource(
            name=spec.name,
            version=spec.version,
            kind="tool",
            permission=spec.permission,
            limits=spec.limits,
            limits_per=spec.limits_per,
            breaker=Breaker(),
            observe=self.meter.observe,
            effect=EFFECTS[spec.side_effects],
            approval=spec.wants_approval,
            schema=spec.input_schema,
            schema_digest=digest(spec.input_schema),
        )
        self.status = Status()
        self.beside: Beside | None = None
        self._function = definition._function
        self._ceiling = None if spec.cost is None else int(spec.cost)

    def __deepcopy__(self, memo: dict[int, Any]) -> Registered:
        return self

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Use the tool. Raises the guard's refusals, InvalidArguments, ToolTimeout, and whatever the tool raises."""
        raw = raw_arguments(args, kwargs)
        result = self._call(*raw)
        if self.beside is not None:
            self.beside(*raw, result)
        return masked(result)

    async def acall(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`call`, without blocking the event loop."""
        raw = raw_arguments(args, kwargs)
        result = await self._acall(*raw)
        if self.beside is not None:
            self.beside(*raw, result)
        return masked(result)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        admission, values = patient(lambda: self._admitted(args, kwargs))
        with admission:
            limit = self._time(admission.scope)
            if self.definition.is_async:
                return self._run_loop(values, limit, admission.scope)
            if limit == math.inf:
                return self._finished(self._function(**values))
            job = workers.shared.submit(lambda: self._function(**values))
            return self._finished(self._waited(job, limit, admission.scope))

    async def _acall(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        admission, values = await apatient(lambda: self._admitted(args, kwargs))
        with admission:
            return await self._awaited(values, self._time(admission.scope), admission.scope)

    def _admitted(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Admission, dict[str, Any]]:
        accepted: list[dict[str, Any]] = []

        def check() -> dict[str, Any]:
            self.status.check(self.spec.label, refuse=self.registry.sunset == "refuse")
            try:
                accepted.append(self.definition.inputs.accept(args, kwargs))
            except InvalidArguments as error:
                self.meter.invalid(error.arguments)
                raise
            return accepted[0]

        try:
            admission = admit(self.resource, ceiling=self._ceiling, check=check)
        except EscaladeError as refusal:
            raise for_model(refusal) from None
        return admission, accepted[0]

    def _time(self, scope: Scope) -> float:
        """Seconds that this call may take."""
        timeout = self.spec.timeout
        return scope.time_left() if timeout is None else min(timeout, scope.time_left())

    async def _awaited(self, values: dict[str, Any], limit: float, scope: Scope) -> Any:
        try:
            async with asyncio.timeout(None if limit == math.inf else limit) as timer:
                if self.definition.is_async:
                    return await self._function(**values)
                return self._finished(await self._in_thread(values))
        except TimeoutError:
            if timer.expired():
                raise self._late(scope) from None
            raise

    async def _in_thread(self, values: dict[str, Any]) -> Any:
        job = workers.shared.submit(lambda: self._function(**values))
        try:
            return await asyncio.wrap_future(job)
        finally:
            if not job.done():
                workers.shared.leave(job)

    def _run_loop(self, values: dict[str, Any], limit: float, scope: Scope) -> Any:
        def run() -> Any:
            return asyncio.run(self._awaited(values, limit, scope))

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            running = False
        else:
            running = True
        return workers.shared.submit(run).result() if running else run()

    def _waited(self, job: workers.Job, limit: float, scope: Scope) -> Any:
        try:
            return job.result(limit)
        except TimeoutError:
            if job.done():  # the tool's own TimeoutError
                raise
            raise self._late(scope) from None
        finally:
            if not job.done():
                workers.shared.leave(job)

    def _late(self, scope: Scope) -> EscaladeError:
        if scope.time_left() <= 0:
            return for_model(
                DeadlineExceeded(f"the deadline of scope {scope.run_id} passed while {self.spec.label} ran")
            )
        return for_model(ToolTimeout(f"{self.spec.label} did not answer within {self.spec.timeout:g} s"))

    def _finished(self, result: Any) -> Any:
        if not inspect.isawaitable(result) or isinstance(result, Future):
            return result
        if inspect.iscoroutine(result):
            result.close()
        raise ToolError(f"{self.spec.label} is a sync function that returned an awaitable; declare it `async def`")
