"""Calling a tool: the one path from a registered tool to its function, sync and async, under the guard.

An async tool called synchronously runs in an event loop of its own, in this thread, or in another one when this
thread is inside a running loop already (a notebook), which then waits as it would for any sync call. A sync tool called
asynchronously runs in a thread of ours. When a tool's time is up, the wait for it ends: an async tool is cancelled; a
sync one can't be, so its thread is left behind to finish for nobody. Its money is settled either way.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from escalade.errors import DeadlineExceeded, EscaladeError, Overloaded, ToolError, ToolTimeout
from escalade.registry import workers
from escalade.registry.access.explain import EFFECTS
from escalade.registry.approvals.waiting import apatient, patient
from escalade.registry.breaker import Breaker
from escalade.registry.call import Call, Manner
from escalade.registry.canonical import digest
from escalade.registry.dspy_errors import for_model
from escalade.registry.elsewhere import is_remote
from escalade.registry.entrance import Entrance
from escalade.registry.guard import Admission, Resource, aadmit, admit
from escalade.registry.idempotency import Flight, InFlight
from escalade.registry.joining import alanded, landed
from escalade.registry.lifecycle import Status
from escalade.registry.limits import Limiter
from escalade.registry.lock import hold
from escalade.registry.privacy.vault import masked, raw_arguments
from escalade.registry.retry import Retries
from escalade.registry.tools import ToolDefinition
from escalade.registry.usage import Meter
from escalade.scopes import Scope, current

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry


Beside = Callable[[tuple[Any, ...], dict[str, Any], Any], None]
"""Told of the arguments and the result of each call that worked."""


Turn = Callable[[str], "Registered | None"]
"""The version that takes the place of another one here and now, for who asked for a range ("" for no range)."""


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
            limiter=Limiter() if registry.limiter is None else registry.limiter,
            when_store_is_down=spec.when_store_is_down,
            breaker=Breaker(),
            observe=self.meter.observe,
            effect=EFFECTS[spec.side_effects],
            approval=spec.wants_approval,
            once=spec.once,
            schema=spec.input_schema,
            schema_digest=digest(spec.input_schema),
            remote=(spec.once and registry.claims is not None)
            or (spec.cache is not None and is_remote(registry.cache)),
        )
        self.status = Status()
        self.beside: Beside | None = None
        self.turn: Turn | None = None
        self._function = definition._function
        self._manner = Manner(definition, registry.cache, registry.claims, self.meter.cache_failed)
        self._entrance = Entrance(self.resource, wait=spec.wait, places=spec.max_concurrent, patience=spec.timeout)
        self._retries = Retries(spec.retries, random.Random())

    def __deepcopy__(self, memo: dict[int, Any]) -> Registered:
        return self

    def now(self, floats: str | None) -> Registered:
        """What a call uses: this version, or what a rollout puts in its place. `floats`: the range that the tool was
        asked for, None for a tool that is fixed to its version.
        """
        found = None if floats is None or self.turn is None else self.turn(floats)
        return self if found is None else found.now(floats)

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
        for attempt in itertools.count(1):
            try:
                return self._attempt(args, kwargs)
            except Exception as error:
                pause = self._retries.pause(error, attempt, _time_left())
                if pause is None:
                    raise
                time.sleep(pause)
        return None  # pragma: no cover - the loop has no end

    async def _acall(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for attempt in itertools.count(1):
            try:
                return await self._aattempt(args, kwargs)
            except Exception as error:
                pause = self._retries.pause(error, attempt, _time_left())
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        return None  # pragma: no cover - the loop has no end

    def _attempt(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._entrance.place() as full:
            joined: Flight | None = None
            while True:
                try:
                    admitted = partial(self._admitted, args, kwargs, full, joined)
                    admission, call = patient(partial(self._entrance.admitted, admitted))
                    break
                except InFlight as busy:
                    joined = busy.flight
                landed(joined, _time_left(), self.spec.label)
            with admission, call.running(admission):
                if call.source:
                    return call.answer()
                return call.done(self._run(call.values, self._time(admission.scope), admission.scope))

    async def _aattempt(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        async with self._entrance.aplace() as full:
            joined: Flight | None = None
            while True:
                try:
                    aadmitted = partial(self._aadmitted, args, kwargs, full, joined)
                    admission, call = await apatient(partial(self._entrance.aadmitted, aadmitted))
                    break
                except InFlight as busy:
                    joined = busy.flight
                await alanded(joined, _time_left(), self.spec.label)
            async with admission, call.arunning(admission):
                if call.source:
                    return call.answer()
                return call.done(await self._awaited(call.values, self._time(admission.scope), admission.scope))

    def _admitted(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], full: Overloaded | None, joined: Flight | None
    ) -> tuple[Admission, Call]:
        call = Call(self._manner, joined=joined)
        check = partial(self._accepted, call, args, kwargs, full)
        try:
            return admit(self.resource, ceiling=call.most, check=check, shortcut=call.shortcut), call
        except EscaladeError as refusal:
            raise for_model(call.refused(refusal)) from None
        except BaseException as error:
            call.refused(error)
            raise

    async def _aadmitted(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], full: Overloaded | None, joined: Flight | None
    ) -> tuple[Admission, Call]:
        call = Call(self._manner, asyncio.get_running_loop(), joined)
        check = partial(self._accepted, call, args, kwargs, full)
        try:
            return await aadmit(self.resource, ceiling=call.most, check=check, shortcut=call.shortcut), call
        except EscaladeError as refusal:
            raise for_model(call.refused(refusal)) from None
        except BaseException as error:
            call.refused(error)
            raise

    def _accepted(
        self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], full: Overloaded | None
    ) -> dict[str, Any]:
        """The guard's look at what is asked for: the version may be used, the arguments fit, there is a place."""
        self.status.check(self.spec.label, refuse=self.registry.sunset == "refuse")
        hold(current(), self.spec)
        call.values = self.definition.inputs.accept(args, kwargs)
        if full is not None:
            raise full
        return call.values

    def _run(self, values: dict[str, Any], limit: float, scope: Scope) -> Any:
        if self.definition.is_async:
            return self._run_loop(values, limit, scope)
        if limit == math.inf:
            return self._finished(self._function(**values))
        job = workers.shared.submit(lambda: self._function(**values))
        return self._finished(self._waited(job, limit, scope))

    def _time(self, scope: Scope) -> float:
        """Seconds that this call may take."""
        timeout = self.spec.timeout
        return scope.time_left() if timeout is None else min(timeout, scope.time_left())

    async def _awaited(self, values: dict[str, Any], limit: float, scope: Scope) -> Any:
        try:
            async with asyncio.timeout(None if limit == math.inf else limit) as timer:
                if self.definition.is_async:
                    return self._finished(await self._function(**values))
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
                self._entrance.left(job)

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
                self._entrance.left(job)

    def _late(self, scope: Scope) -> EscaladeError:
        if scope.time_left() <= 0:
            return for_model(
                DeadlineExceeded(f"the deadline of scope {scope.shown_id} passed while {self.spec.label} ran")
            )
        return for_model(ToolTimeout(f"{self.spec.label} did not answer within {self.spec.timeout:g} s"))

    def _finished(self, result: Any) -> Any:
        """The result, unless it is work that is still to be done: that would be done outside of the guard."""
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise ToolError(f"{self.spec.label} returned a generator, which has done nothing yet; return a list")
        if not inspect.isawaitable(result) or isinstance(result, Future):
            return result
        if inspect.iscoroutine(result):
            result.close()
        raise ToolError(f"{self.spec.label} returned an awaitable; declare it `async def` and await it there")


def _time_left() -> float:
    scope = current()
    return math.inf if scope is None else scope.time_left()
