"""Watching runs: a live tree of their nodes, with time, dollars, counts and what is left.

    with escalade.live():
        pipeline(question="...")

    Chain(pages, verdict)                                    12.4 s  $0.0312
    ├─ ⠹ pages     ━━━━━━━━╌╌╌╌╌╌ 1,234/5,000  99/s, 38 s to go  $0.0311  8 running, 2 failed
    │  └─ ⠹ read   1,242                                     $0.0311
    └─ · verdict
    12.4 s  $0.0312, $0.0688 left of the budget  47 s left  1,250 calls

At most ten times a second, whatever happens in between; a thousand branches or a million items take a few lines. Where
the output is no terminal there are plain lines instead: one per node that ends, one a second per map or wide fan-out.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from escalade import events, scopes
from escalade.errors import BadInput
from escalade.events import Event
from escalade.pipelines.shape import shape_of
from escalade.pipelines.watching import _live_view
from escalade.pipelines.watching._rows import Row, Rows
from escalade.pipelines.watching.listening import Listening

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from escalade.pipelines.pipeline import Pipeline

PER_SECOND = 10


class Live(Listening):
    """A listener that shows what runs, made by `live`. Works by `with`, or handed to a scope as a listener: then it
    begins with the first run, and ends with the last.
    """

    def __init__(self, *pipelines: Pipeline, console: Console | None = None, lines: int | None = None) -> None:
        super().__init__()
        for pipeline in pipelines:
            if not hasattr(pipeline, "_plan"):
                raise BadInput(f"live: expected pipelines, such as a Chain, got {pipeline!r:.80}")
        if lines is not None and lines < 4:
            raise BadInput(f"live: lines: expected 4 or more, got {lines!r}")
        self._rows = Rows({pipeline._title(): shape_of(pipeline) for pipeline in pipelines})
        self._console, self._lines = console, lines
        self._lock, self._starting = threading.Lock(), threading.Lock()
        self._scope: scopes.Scope | None = None
        self._began, self._took = 0.0, 0.0
        self._screen: _Screen | None = None

    def __call__(self, event: Event) -> None:
        if self._again(event):
            return
        kind = type(event)
        with self._lock:
            row = self._rows.hear(event)
            if kind is events.RunStarted:
                self._scope = scopes.current()
        if self._screen is None:
            self._start()
        screen = self._screen
        if screen is not None:
            screen.told(event, row)
        ended = kind is events.RunFinished or kind is events.RunFailed or kind is events.RunCancelled
        if ended and not self._contexts and not any(row.running for row in self._rows.roots.values()):
            self._stop()

    def __enter__(self) -> Self:
        super().__enter__()
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if not self._contexts:
            self._stop()

    def __rich__(self) -> RenderableType:
        """How it looks now."""
        from rich.console import Group

        height = self._lines or max(6, (self._console.height if self._console is not None else 40) - 3)
        with self._lock:
            nodes = _live_view.tree(self._rows, height - 1)
            spent, uses = sum(row.money() for row in self._rows.roots.values()), self._rows.uses
            scope, took = self._scope, self._took or (time.monotonic() - self._began if self._began else 0.0)
        # Outside of the lock: a ledger may be telling us something while it is locked.
        return Group(nodes, _live_view.totals(scope, took, spent, uses))

    def _start(self) -> None:
        from rich.console import Console

        with self._starting:
            if self._screen is not None:
                return
            if self._console is None:
                self._console = Console()
            self._began, self._took = time.monotonic(), 0.0
            terminal = self._console.is_terminal and not self._console.is_dumb_terminal
            watched = terminal or self._console.is_jupyter
            screen: _Screen = _Tree(self, self._console) if watched else _Lines(self._console)
            screen.start()
            self._screen = screen

    def _stop(self) -> None:
        with self._starting:
            screen, self._screen = self._screen, None
            if screen is not None:
                self._took = time.monotonic() - self._began
                screen.stop()


def live(*pipelines: Pipeline, console: Console | None = None, lines: int | None = None) -> Live:
    """Show what runs in a `with` or `async with` block, or in a scope that has it as a listener.

    `pipelines`: those whose nodes are shown before they begin. `console`: a rich Console; standard output by default.
    `lines`: at the most, as many as the terminal has by default. Raises BadInput.

    >>> import escalade, io, rich.console
    >>> from escalade.pipelines.chain import Chain
    >>> with live(console=rich.console.Console(file=io.StringIO())):
    ...     _ = Chain(a=lambda: 1)()
    """
    return Live(*pipelines, console=console, lines=lines)


class _Screen:
    """Where it is shown."""

    def start(self) -> None: ...

    def told(self, event: Event, row: Row | None) -> None: ...

    def stop(self) -> None: ...


class _Tree(_Screen):
    """On a terminal or in a notebook, by rich, which draws it in a thread of its own."""

    def __init__(self, live: Live, console: Console) -> None:
        from rich.live import Live as RichLive

        self._live = RichLive(
            get_renderable=live.__rich__,
            console=console,
            refresh_per_second=PER_SECOND,
            vertical_overflow="crop",
        )

    def start(self) -> None:
        self._live.start(refresh=True)

    def stop(self) -> None:
        self._live.stop()


class _Lines(_Screen):
    """Plain lines, written by a thread. Whoever reads them may go away: the run goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._waiting: list[str] = []
        self._last: dict[Any, float] = {}
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="escalade-live", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def told(self, event: Event, row: Row | None) -> None:
        now = time.monotonic()
        if row is None:
            return
        line = _live_view.line(event, row)
        if not line:
            return
        about = _live_view.told_with(row)
        if about is not row or _live_view.often(event, row):
            if now - self._last.get(about, -1.0) < 1.0:
                return
            self._last[about] = now
        if about is not row and not row.failed:
            line = _live_view.summary(about)
        self._waiting.append(f"{now - self._began:7.1f} s  {line}")

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _write(self) -> None:
        over = False
        while not over:
            over = self._over.wait(1 / PER_SECOND)
            lines, self._waiting = self._waiting, []
            if not lines:
                continue
            try:
                self._console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
            except OSError:
                return
