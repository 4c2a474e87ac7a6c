"""Progress: a node says how far it is, and what it has so far."""

from __future__ import annotations

from typing import Any

from escalade import events, scopes
from escalade.errors import BadInput


def progress(done: float, total: float | None = None, *, message: str = "", partial: Any = None) -> None:
    """Tell whoever listens to this run that `done` of `total` is done, by a `Progress` event with the node's path.

    May be called from anywhere in a node: a coroutine, a thread, a function that it calls. While nobody listens, or
    outside of any run, it does nothing, in about 1 us. `total`: None for unknown. `message`: for people. `partial`:
    what there is so far, such as the summaries of the first chapters. Raises BadInput for what are no numbers.

    >>> import escalade
    >>> def read(pages: list[str]) -> int:
    ...     for number, page in enumerate(pages, 1):
    ...         escalade.progress(number, len(pages), message=page)
    ...     return len(pages)
    >>> with escalade.scope(listen=lambda e: print(e.done, e.message) if hasattr(e, "done") else None):
    ...     read(["one", "two"])
    1 one
    2 two
    2
    """
    scope = scopes.current()
    run_id, listeners = events.unscoped() if scope is None else (scope.run_id, scope.listeners)
    if not listeners:
        return
    for number in (done, total):
        if not isinstance(number, int | float) and number is not None:
            raise BadInput(f"progress: expected numbers as done and total, got {number!r}")
    events.send(
        listeners, events.Progress, run_id, events.here(), done=done, total=total, message=message, partial=partial
    )
