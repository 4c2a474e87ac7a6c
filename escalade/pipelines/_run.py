"""Running a pipeline: what one call knows, and the long way of a node, with events, timeout, budget and trace.

Most nodes need nothing of the long way, and then no line of it runs: with 1,000 no-op nodes a task costs 4 us and each
`dspy.context` 2 us more, so contexts are opened only for nodes with options, under listeners or telemetry, or while an
optimiser records a trace. What every node has is its step, by which calls that are made once are told apart; it is put
into DSPy's settings past `dspy.context`, for 0.3 us.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import math
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import dspy

from escalade import events, scopes, telemetry
from escalade.agents._sink import SINK, receiver_of
from escalade.agents.lanes.priority import KEY as PRIORITY
from escalade.agents.lanes.priority import RANK
from escalade.errors import DeadlineExceeded, NoScope
from escalade.money import Money
from escalade.pipelines import _errors
from escalade.pipelines._node import Prepared
from escalade.pipelines._timers import timed
from escalade.registry.elsewhere import aclosed
from escalade.registry.idempotency import STEP, Step, step_path
from escalade.scopes import Scope
from escalade.telemetry import Spanning, names

_settings = importlib.import_module("dspy.dsp.utils.settings")  # the package hides its module behind an object
_overrides: ContextVar[dict[str, Any]] = _settings.thread_local_overrides


_LEAF = "escalade_leaf"
"""The key of `dspy.context` that says: in a leaf of a durable run. A function may call one pipeline twice, whose nodes
have the same paths then; so its calls of models and tools are kept, and its own result, and no nodes inside of it."""


WAITED = 0.001
"""Seconds of waiting for a place that are worth telling."""


class Frame:
    """What one call of a pipeline knows.

    `place`: call number and path, (0, "") while nobody listens. `traced`: is telemetry on? `trace`: the list that an
    optimiser records into, None while none does. DSPy appends to one shared list from all branches, in the order in
    which they happen to finish; so each branch records into its own, and they are put together in the order of the
    branches. DSPy's global list, which nobody reads in order, is left alone. `step`: that of the node that this
    pipeline is, None for none. `journal`: what a durable run has finished. `failed`: a node has, which cancels the
    others: one that was to begin in the same turn of the event loop must not begin. `base`: what shares of a budget are
    shares of, where nodes start together; None for what is left. `since`: when its nodes began to wait for places,
    `time.perf_counter()` seconds; None where they don't, or nobody wants to know.
    """

    __slots__ = (
        "base", "failed", "journal", "listeners", "of", "place", "root", "run_id", "scope", "since", "step", "trace",
        "traced",
    )  # fmt: skip

    def __init__(self) -> None:
        self.scope = scope = scopes.current()
        if scope is None:
            self.run_id, self.listeners = events.unscoped()
        else:
            scope.check_open()
            self.run_id, self.listeners = scope.run_id, scope.listeners
        self.place, self.root, self.failed = events.NOWHERE, False, False
        self.base: Money | None = None
        self.of: int | None = None
        self.since: float | None = None
        self.traced = telemetry.switch.tracer is not None
        if self.listeners or self.traced:
            self.place = events.here()
            if self.place == events.NOWHERE:
                self.place, self.root = (events.next_call(), ""), True
        # Read past `dspy.settings`, which has no way to tell an override from the global list.
        here = _overrides.get()
        trace, self.step = here.get("trace"), here.get(STEP)
        self.trace: list[Any] | None = None if trace is _settings.main_thread_config.get("trace") else trace
        self.journal = None if scope is None or scope.journal is None or here.get(_LEAF) else scope.journal

    def tell(self, kind: type[events.Event], path: str, /, **values: Any) -> None:
        """Tell the listeners what happened at `path`, relative to this pipeline."""
        if not self.listeners:
            return
        call, here = self.place
        events.send(self.listeners, kind, self.run_id, (call, _errors.join(here, path)), **values)

    def give(self, path: str, result: Any) -> None:
        """Tell what the node at `path` has returned to the listeners that want to know."""
        wanting = tuple(one for one in self.listeners if getattr(one, "results", False) is True)
        if wanting:
            call, here = self.place
            place = call, _errors.join(here, path)
            events.send(wanting, events.NodeResult, self.run_id, place, result=result)

    def direct(self, prepared: Prepared) -> bool:
        """May the node be called as it is, without the long way?"""
        if self.listeners or self.traced or self.trace is not None or not prepared.options.empty:
            return False
        return self.scope is None or not (prepared.threaded or self.journal is not None)

    def branch_trace(self) -> list[Any] | None:
        """A list for one branch to record into, None while nobody records."""
        return None if self.trace is None else []

    def merge(self, traces: list[list[Any] | None]) -> None:
        """Put the branches' traces together, in the order of the branches."""
        if self.trace is not None:
            for trace in traces:
                self.trace.extend(trace or ())
            surplus = len(self.trace) - dspy.settings.max_trace_size
            if surplus > 0:
                del self.trace[:surplus]


async def conduct(flow: Callable[[Frame], Awaitable[Any]], pipeline: Any, *, spare: float = 0.0) -> Any:
    """One call of a pipeline: its flow under the scope's deadline, with its events; refusals that DSPy swallowed are
    raised. `spare`: seconds that the flow may take after the deadline; inf for one that ends by itself when it comes.

    Raises ScopeClosed, DeadlineExceeded, BudgetExceeded and whatever the flow raises.
    """
    frame = Frame()
    if not frame.root:
        return await _bounded(flow, frame, spare)
    what = pipeline._title()
    with contextlib.ExitStack() as stack:
        scope = frame.scope
        if scope is not None:  # of its own, so that what this call costs can be told from what others in the scope cost
            frame.scope = stack.enter_context(scopes.Entered(lambda: scope.narrow(name="pipeline"), check=False))
        settings: dict[str, Any] = {events.PLACE: frame.place}
        work: Callable[[], Awaitable[Any]] = functools.partial(_bounded, flow, frame, spare)
        spanning = None
        if frame.traced:
            facts = {names.OPERATION: "invoke_workflow", names.WORKFLOW_NAME: what}
            settings[telemetry.SPAN] = spanning = telemetry.begin(f"invoke_workflow {what}", facts, frame.scope)
            work = _profiled(work, spanning, frame, settings)
        stack.enter_context(dspy.context(**settings))
        frame.tell(events.RunStarted, "", pipeline=what)
        kinds = (events.RunFinished, events.RunFailed, events.RunCancelled)
        return await _observed(work, frame, "", frame.scope, kinds, spanning)


def _profiled(
    work: Callable[[], Awaitable[Any]], spanning: Spanning, frame: Frame, settings: dict[str, Any]
) -> Callable[[], Awaitable[Any]]:
    """The same work; what it was spent on is told by its span."""
    from escalade.pipelines.watching import _traced

    profile = _traced.watched(frame, settings)

    async def profiled() -> Any:
        try:
            return await work()
        finally:
            spanning.add(_traced.facts(profile))

    return profiled


async def _bounded(flow: Callable[[Frame], Awaitable[Any]], frame: Frame, spare: float) -> Any:
    scope = frame.scope
    if scope is None:
        return await flow(frame)
    if math.inf in (spare, scope.deadline):
        result = await flow(frame)
    else:
        result = await until_deadline(flow, frame, scope, spare)
    scopes.raise_exhausted(scope)
    return result


async def until_deadline(
    flow: Callable[[Frame], Awaitable[Any]], frame: Frame, scope: Scope, spare: float = 0.0
) -> Any:
    """The flow, cancelled at the scope's deadline, or `spare` seconds later. Raises DeadlineExceeded."""
    try:
        async with asyncio.timeout(scope.time_left() + spare) as guard:
            return await flow(frame)
    except TimeoutError:
        if guard.expired():
            raise DeadlineExceeded(f"the deadline of scope {scope.shown_id} has passed") from None
        raise


async def plain(prepared: Prepared, fields: dict[str, Any], step: Step, frame: Frame) -> Any:
    """One node, the short way."""
    if frame.failed:
        raise asyncio.CancelledError
    before = _overrides.set({**_overrides.get(), STEP: step})
    try:
        return await prepared.call(fields)
    except Exception:
        frame.failed = True
        raise
    finally:
        _overrides.reset(before)


async def supervise(
    prepared: Prepared,
    fields: dict[str, Any],
    frame: Frame,
    path: str,
    trace: list[Any] | None,
    item: int | None = None,
) -> Any:
    """One node, the long way. `path`: its segment; `item`: its number in a map. `trace`: where an optimiser's records
    of it go.
    """
    if frame.failed:
        raise asyncio.CancelledError
    options = prepared.options
    with contextlib.ExitStack() as stack:
        scope = _narrowed(prepared, frame, path)
        if scope is not None:
            # Closed when the node ends, so that a thread that outlives its timeout can't spend any more.
            stack.enter_context(scopes.Entered(lambda: scope, check=options.narrows or options.optional))
        settings = _inside(prepared, frame, path, item)
        if trace is not None:
            settings["trace"] = trace
        work: Callable[[], Awaitable[Any]] = functools.partial(_timed, prepared, fields, frame)
        layers = None
        if options.layered or options.reusable:
            from escalade.pipelines.options._layers import Layers

            recorded = frame.trace if trace is None else trace
            layers = Layers(prepared, fields, frame, path, scope, recorded, work, _stand_in)
            work = layers.answer
        if scope is not None and prepared.threaded:
            work = functools.partial(_closing, work, scope)
        course: Callable[[], Awaitable[Any]] = functools.partial(_told, work, prepared, frame, path, scope)
        if layers is not None and options.reusable:
            course = functools.partial(layers.reused, course)
        before = _overrides.set(settings)
        try:
            if frame.journal is not None:
                reused = functools.partial(frame.tell, events.NodeReused, path, source="journal")
                return await frame.journal.step(step_path(), course, fields, reused)
            return await course()
        except Exception:
            frame.failed = True
            raise
        finally:
            _overrides.reset(before)


def _inside(prepared: Prepared, frame: Frame, path: str, item: int | None) -> dict[str, Any]:
    """DSPy's settings inside of the node, with its step and its place."""
    settings = {**_overrides.get(), STEP: (frame.step, path if item is None else item)}
    if frame.journal is not None:
        settings[_LEAF] = not hasattr(prepared.target, "_flow")
    if frame.listeners or frame.traced:
        call, here = frame.place
        settings[events.PLACE] = (call, _errors.join(here, path))
        if SINK in settings:
            settings["send_stream"] = receiver_of(prepared.target, settings[SINK])
    priority = prepared.options.priority
    if priority is not None:
        settings[RANK], settings[PRIORITY] = priority, "batch" if priority < 0 else "interactive"
    return settings


async def _told(
    work: Callable[[], Awaitable[Any]], prepared: Prepared, frame: Frame, path: str, scope: Scope | None
) -> Any:
    """The node's work, with its events and its span, where somebody wants them."""
    if not frame.listeners and not frame.traced:
        return await work()
    tags, kinds = (
        " ".join(sorted(prepared.options.tags)),
        (events.NodeFinished, events.NodeFailed, events.NodeCancelled),
    )
    waited = 0.0 if frame.since is None else time.perf_counter() - frame.since
    inside, spanning, before = _overrides.get(), None, None
    if frame.traced:
        facts: dict[str, Any] = {names.TAGS: tags} if tags else {}
        if waited >= WAITED:
            facts[names.QUEUE] = waited
        where = inside[events.PLACE][1]
        spanning = telemetry.begin(f"escalade.node {prepared.name}", facts, scope or frame.scope, path=where)
        before = _overrides.set({**inside, telemetry.SPAN: spanning})
    try:
        if waited >= WAITED:
            frame.tell(events.NodeQueued, path, seconds=waited)
        frame.tell(events.NodeStarted, path, of=frame.of, tags=tags)
        return await _observed(work, frame, path, scope, kinds, spanning)
    finally:
        if before is not None:
            _overrides.reset(before)


async def _stand_in(fallback: Prepared, fields: dict[str, Any]) -> Any:
    """Run a fallback inside of the node that it stands in for."""
    return await node(fallback, fields, Frame())


async def node(prepared: Prepared, fields: dict[str, Any], frame: Frame, trace: list[Any] | None = None) -> Any:
    """One node, the short way where possible. Raises what the node raises, without its path."""
    if frame.direct(prepared):
        return await plain(prepared, fields, (frame.step, prepared.name), frame)
    return await supervise(prepared, fields, frame, prepared.name, trace)


def _narrowed(prepared: Prepared, frame: Frame, path: str) -> Scope | None:
    """A scope for the node alone: it has a budget or a principal, runs in a thread, or somebody asks for its cost."""
    options, scope = prepared.options, frame.scope
    if scope is None:
        if options.narrows:
            raise NoScope(f"node {path!r} with a budget or a principal")
        return None
    told = frame.listeners or frame.traced
    if not (options.narrows or options.own_scope or prepared.threaded or told):
        return None
    budget = None if options.fallback is not None else options.granted(scope, frame.base)
    # A thread can't be cancelled: give what it uses the node's timeout as deadline. With layers, each attempt has one.
    deadline = options.timeout if prepared.threaded and not options.layered else None
    return scope.narrow(
        name=path, budget=budget, deadline=deadline, principal=options.principal, optional=options.optional
    )


async def _closing(work: Callable[[], Awaitable[Any]], scope: Scope) -> Any:
    """The node's work, and the end of its scope, before anybody asks what it has cost."""
    try:
        return await work()
    finally:
        await aclosed(scope)


async def _timed(prepared: Prepared, fields: dict[str, Any], frame: Frame) -> Any:
    timeout = prepared.options.timeout
    if timeout is None:
        return await prepared.call(fields)
    try:
        async with asyncio.timeout(timeout) as guard:
            with timed(guard.when() or math.inf, functools.partial(_expire, guard)):
                return await prepared.call(fields)
    except TimeoutError:
        if guard.expired():
            raise _errors.timed_out("", timeout) from None
        raise
    except DeadlineExceeded:
        # The thread met the node's own timeout, as the deadline of its scope, before the timer fired.
        if prepared.threaded and frame.scope is not None and frame.scope.time_left() > 0:
            raise _errors.timed_out("", timeout) from None
        raise


def _expire(guard: asyncio.Timeout) -> None:
    with contextlib.suppress(RuntimeError):  # it does so just now
        guard.reschedule(asyncio.get_running_loop().time())


async def _observed(
    work: Callable[[], Awaitable[Any]],
    frame: Frame,
    path: str,
    scope: Scope | None,
    kinds: tuple[type[events.Event], type[events.Event], type[events.Event]],
    spanning: Spanning | None = None,
) -> Any:
    """Tell how it ended and what it cost. `scope`: whose purse has seen nothing but this work."""
    started = time.perf_counter()
    finished, failed, cancelled = kinds

    def ended(error: BaseException | None = None) -> dict[str, Any]:
        cost = None if scope is None else scope.purse.spent
        if spanning is not None:
            told = {} if cost is None else {names.COST: cost}
            spanning.end(told, "" if error is None else type(error).__name__)
        return {"seconds": time.perf_counter() - started, "cost": cost}

    try:
        result = await work()
    except asyncio.CancelledError as error:
        frame.tell(cancelled, path, **ended(error))
        raise
    except BaseException as error:
        frame.tell(failed, path, error=_errors.text(error), **ended(error))
        raise
    if finished is events.RunFinished:
        frame.tell(finished, path, result=result, **ended())
    else:
        frame.give(path, result)
        frame.tell(finished, path, **ended())
    return result
