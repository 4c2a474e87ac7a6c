"""OpenTelemetry spans, for who asks for them: `escalade.telemetry.enable()`. Off, they cost one comparison per call.

    telemetry.enable()                          # the global tracer provider
    with escalade.scope(budget="1.00"):         # a span "escalade.run"
        agent(question="...")                   # a span "execute_tool crm.search" for each governed tool call

Spans follow the GenAI semantic conventions (names and attributes of `execute_tool`; all of them are in development, so
the constants are written out here). What a tool cost has no agreed name yet and stands in our own namespace, in
nano-dollars. No span carries arguments, results, messages or the names of people: what failed is told by class.

The parent travels in `Scope.span`: OpenTelemetry's own context is lost in the threads of `dspy.Parallel`, `batch` and
`Evaluate`, and each call would be a trace of its own there.

Source: https://github.com/open-telemetry/semantic-conventions-genai
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from escalade.scopes import Entry, Scope

OPERATION = "gen_ai.operation.name"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
ERROR_TYPE = "error.type"
TOOL_VERSION = "escalade.tool.version"
COST = "escalade.cost.nanos"
PRICED = "escalade.cost.known"
OUTCOME = "escalade.outcome"
SOURCE = "escalade.source"
UNCHECKED = "escalade.unchecked"
RUN_ID = "escalade.run.id"
CALL_ID = "escalade.call.id"

shown: Callable[[str], str] = str
"""How ids that applications choose are written; the registry puts an alias where it finds personal data in one."""

tracer: Any = None
"""None while tracing is off: whoever may emit looks here first."""


def enable(tracer_provider: Any = None) -> None:
    """Emit spans from now on, to this provider or to the global one. Scopes that are open already stay without."""
    from opentelemetry import trace

    global tracer  # noqa: PLW0603 - one per process, as the provider is
    tracer = trace.get_tracer("escalade", tracer_provider=tracer_provider)


def disable() -> None:
    """Emit no spans any more."""
    global tracer  # noqa: PLW0603 - as above
    tracer = None


class Spanning:
    """A span under way, current in this thread or task until it ends."""

    __slots__ = ("_token", "context", "span")

    def __init__(self, name: str, parent: Any, attributes: dict[str, Any]) -> None:
        from opentelemetry import context, trace

        self.span = tracer.start_span(name, context=parent, attributes=attributes)
        self.context = trace.set_span_in_context(self.span, parent)
        self._token = context.attach(self.context)

    def end(self, attributes: dict[str, Any], error: str) -> None:
        """`error`: the class of what it failed with, "" for nothing."""
        from opentelemetry import context
        from opentelemetry.trace import Status, StatusCode

        self.span.set_attributes(attributes)
        if error:
            self.span.set_attribute(ERROR_TYPE, shown(error))
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()
        if context.get_current() is self.context:  # a scope may be left in another task than it was entered in
            context.detach(self._token)


def opened(scope: Scope) -> Scope:
    """The scope with a span of its run, if it begins one."""
    if scope.span is not None:
        return scope
    return scope.with_span(Spanning("escalade.run", None, {RUN_ID: scope.shown_id}))


def closed(scope: Scope, error: BaseException | None) -> None:
    """The scope was left; the one that began the run ends its span."""
    if scope.span is None or (scope.parent is not None and scope.parent.span is scope.span):
        return
    scope.span.end({COST: int(scope.spent)}, "" if error is None else type(error).__name__)


def started(scope: Scope, entry: Entry) -> Spanning:
    """A tool is about to run."""
    return Spanning(f"execute_tool {entry.resource}", _parent(scope), _named(entry))


def ended(spanning: Spanning, entry: Entry) -> None:
    """It has run."""
    attributes: dict[str, Any] = {OUTCOME: entry.outcome, COST: entry.cost, PRICED: entry.priced}
    if entry.source:
        attributes[SOURCE] = entry.source
    if entry.unchecked:
        attributes[UNCHECKED] = entry.unchecked
    spanning.end(attributes, entry.error)


def refused(scope: Scope, entry: Entry) -> None:
    """The guard said no: a span without duration, so that traces show what was asked for."""
    Spanning(f"execute_tool {entry.resource}", _parent(scope), _named(entry)).end({OUTCOME: "refused"}, entry.outcome)


def _named(entry: Entry) -> dict[str, Any]:
    return {
        OPERATION: "execute_tool",
        TOOL_NAME: entry.resource,
        TOOL_TYPE: "function",
        TOOL_VERSION: entry.version,
        RUN_ID: shown(entry.run_id),
        CALL_ID: entry.call_id,
    }


def _parent(scope: Scope) -> Any:
    """OpenTelemetry's current context where it has a span, that of the run where it was lost."""
    from opentelemetry import context, trace

    current = context.get_current()
    if scope.span is None or trace.get_current_span(current).get_span_context().is_valid:
        return current
    return scope.span.context
