"""Spans, and whose children they are.

OpenTelemetry's context is a ContextVar, which is lost in the threads of `dspy.Parallel`, `batch` and `Evaluate`; so the
innermost span of ours also travels in `dspy.context` and, that of the run, in `Scope.span`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from escalade.telemetry._switch import switch
from escalade.telemetry.names import COST, ERROR_TYPE, NODE, RUN_ID

if TYPE_CHECKING:
    from escalade.scopes import Scope

logger = logging.getLogger(__name__)

SPAN = "escalade_span"
"""The key of `dspy.context` that carries the innermost span of a node, a climb or a rung."""


_counting = threading.Lock()


class Spanning:
    """A span under way. Attributes that come later than its beginning are set as it ends, all at once. `path`: of the
    node that it is in, "" outside of any. `began`: `time.perf_counter()` seconds. `failed`: the class of an error that
    nobody raises here, "" for none. `heard`: texts of a stream so far, where previews are wanted. `previews`:
    attributes for those alone who want them.

    `current`: whether it is the current one in this thread or task until it ends. What ends in another place than it
    began in, such as a generator, may not be: its consumer would work under it.
    """

    __slots__ = ("_first", "_late", "_token", "began", "context", "failed", "heard", "name", "path", "previews", "span")

    def __init__(
        self,
        name: str,
        facts: dict[str, Any],
        parent: Any,
        *,
        path: str = "",
        client: bool = False,
        current: bool = True,
    ) -> None:
        from opentelemetry import context, trace

        self.name, self.path, self.failed = name, path, ""
        self._first, self._late, self.heard = facts, dict[str, Any](), list[str]()
        self.previews = dict[str, Any]()
        kind = trace.SpanKind.CLIENT if client else trace.SpanKind.INTERNAL
        tracer = switch.tracer or trace.NoOpTracer()  # switched off since somebody looked
        try:
            self.span = tracer.start_span(name, context=parent, kind=kind, attributes=facts)
        except Exception:
            logger.exception("the span %r could not begin; the run goes on", name)
            self.span = trace.INVALID_SPAN
        self.context = trace.set_span_in_context(self.span, parent)
        self._token: Any = context.attach(self.context) if current else None
        self.began = time.perf_counter()

    @property
    def facts(self) -> dict[str, Any]:
        """All attributes so far."""
        return {**self._first, **self._late}

    def add(self, facts: dict[str, Any]) -> None:
        """More attributes."""
        self._late.update(facts)

    def count(self, name: str, more: float) -> None:
        """Add to a number, from any thread."""
        with _counting:
            self._late[name] = self._late.get(name, 0.0) + more

    def has(self, name: str) -> bool:
        """Was this attribute added?"""
        return name in self._late

    def make_current(self) -> None:
        """From here on it is the current one, in this thread or task, until it ends."""
        from opentelemetry import context

        self._token = context.attach(self.context)

    def end(self, facts: dict[str, Any], error: str) -> None:
        """`error`: the class of what it failed with, "" for nothing."""
        from opentelemetry import context

        self.add(facts)
        if error:
            self.add({ERROR_TYPE: switch.shown(error)})
        try:
            self._end(failed=bool(error))
        except Exception:  # of somebody's processor or exporter: what was used has to be recorded all the same
            logger.exception("the span %r could not end; the run goes on", self.name)
        if self._token is not None and context.get_current() is self.context:  # it may end in another task
            context.detach(self._token)
        for sink in switch.sinks:
            sink(self, error, time.perf_counter() - self.began)

    def _end(self, *, failed: bool) -> None:
        from opentelemetry.trace import Status, StatusCode

        if failed:
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.set_attributes({**self._late, **self.previews} if switch.in_spans else self._late)
        self.span.end()


def parent(scope: Scope | None) -> Any:
    """OpenTelemetry's current context where it has a span, else that of the innermost span of ours."""
    from opentelemetry import context, trace

    now = context.get_current()
    if trace.get_current_span(now).get_span_context().is_valid:
        return now
    inner = innermost(scope)
    return now if inner is None else inner.context


def innermost(scope: Scope | None) -> Spanning | None:
    """The innermost span of ours that is known in this thread: of a node, a climb, a rung, or of the run."""
    inner = here()
    run: Spanning | None = None if scope is None else scope.span
    if inner is None or run is None:
        return inner or run
    return inner if inner.began >= run.began else run


def here() -> Spanning | None:
    """The span of the innermost node, climb, rung or pipeline that this is in."""
    import dspy

    span: Spanning | None = dspy.settings.get(SPAN)
    return span


def path_here() -> str:
    """The path of the node that this is in, "" outside of any."""
    span = here()
    return "" if span is None else span.path


def begin(name: str, facts: dict[str, Any], scope: Scope | None, *, path: str | None = None) -> Spanning:
    """A span of ours, the current one until it ends. `path`: of the node that it is; None: that of where this is."""
    where = path_here() if path is None else path
    if scope is not None:
        facts = {**facts, RUN_ID: scope.shown_id}
    if where:
        facts = {**facts, NODE: where}
    return Spanning(name, facts, parent(scope), path=where)


@contextmanager
def spanned(name: str, facts: dict[str, Any], scope: Scope | None) -> Iterator[Spanning | None]:
    """A span around a piece of work, also in the threads that DSPy starts in it; None while nobody looks."""
    if switch.tracer is None:
        yield None
        return
    import dspy

    spanning = begin(name, facts, scope)
    try:
        with dspy.context(**{SPAN: spanning}):
            yield spanning
    except BaseException as error:
        spanning.end({}, type(error).__name__)
        raise
    spanning.end({}, spanning.failed)


def opened(scope: Scope) -> Scope:
    """The scope with a span of its run, if it begins one: there is none around it, nor a node or a climb."""
    if innermost(scope) is not None:
        return scope
    return scope.with_span(Spanning("escalade.run", {RUN_ID: scope.shown_id}, parent(scope)))


def closed(scope: Scope, error: BaseException | None) -> None:
    """The scope was left; the one that began the run ends its span."""
    if scope.span is None or (scope.parent is not None and scope.parent.span is scope.span):
        return
    scope.span.end({COST: int(scope.spent)}, "" if error is None else type(error).__name__)
