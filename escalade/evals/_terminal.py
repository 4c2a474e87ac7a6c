"""The console of the commands: one that leaves it to them what a reader means who stops reading."""

from __future__ import annotations

from rich.console import Console


class Terminal(Console):
    """A `rich` console that raises BrokenPipeError; rich's own would end the process with 1, wherever it stands."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
