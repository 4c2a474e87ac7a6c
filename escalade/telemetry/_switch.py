"""Who looks, in this process: nobody by default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from escalade.telemetry._meters import Meters
    from escalade.telemetry._spans import Spanning


def _nothing(_: str) -> dict[str, Any]:
    return {}


class Switch:
    """What is told to whom.

    `tracer`: None while nobody looks, which is what everybody who may tell something asks first; one that records
    nothing where only metrics or log lines are wanted. `meters`: None for no metrics. `sinks`: are handed each span as
    it ends, with the class of the error ("" for none) and its seconds; for log lines. Previews of what went in and out
    of models go to those alone who asked for them: `in_spans` and `previewers`. The registry says how texts are made
    safe: `shown` for ids that applications choose, `safe` for sentences, `preview` for prompts and answers.
    """

    __slots__ = ("_spans", "in_spans", "meters", "preview", "previewers", "safe", "shown", "sinks", "tracer")

    def __init__(self) -> None:
        self._spans: Any = None
        self.tracer: Any = None
        self.meters: Meters | None = None
        self.sinks: tuple[Callable[[Spanning, str, float], None], ...] = ()
        self.in_spans = False
        self.previewers: tuple[object, ...] = ()
        self.shown: Callable[[str], str] = str
        self.safe: Callable[[str], str] = lambda _: ""
        self.preview: Callable[[str], dict[str, Any]] = _nothing

    @property
    def previews(self) -> bool:
        """Whether anybody wants them."""
        return self.in_spans or bool(self.previewers)

    def trace(self, tracer: Any) -> None:
        """Emit spans by this tracer, None for none."""
        self._spans = tracer
        self.settle()

    def settle(self) -> None:
        """Find out whether somebody looks, after `meters` or `sinks` were changed."""
        if self._spans is not None or (self.meters is None and not self.sinks):
            self.tracer = self._spans
        else:
            from opentelemetry import trace

            self.tracer = trace.NoOpTracer()


switch = Switch()
