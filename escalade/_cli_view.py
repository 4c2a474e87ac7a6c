"""What all commands show things with: tables and texts for people, JSON for programs; and JSON that people hand in."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from escalade.errors import BadInput


def new_table(*columns: str) -> Any:
    """A table of this look, empty."""
    from rich.table import Table

    return Table(*columns, box=None, header_style="bold", pad_edge=False)


def safe(text: str) -> str:
    """Brackets as brackets, and nothing that could steer a terminal."""
    from rich.markup import escape

    plain = (letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return escape("".join(plain))


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Who reads may stop (`| head`): the rest isn't written, and the command goes on to its exit code."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        silence()


def silence() -> None:
    """Python flushes its output once more when it exits, and would complain then."""
    with contextlib.suppress(OSError, ValueError):  # what isn't a file has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(line: str) -> None:
    """A line for people on the error output, whether anybody reads it or not."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def print_(what: Any) -> None:
    """A text with markup, or a table."""
    from escalade.evals._terminal import Terminal

    Terminal(width=None if sys.stdout.isatty() else 140, highlight=False).print(what, soft_wrap=isinstance(what, str))


def print_json(what: Any) -> None:
    """Indented."""
    from json import dumps

    sys.stdout.write(dumps(what, indent=2) + "\n")


def json_object(text: str, option: str, example: str) -> dict[str, Any]:
    """The JSON object that an option was given as. Raises BadInput."""
    from escalade.registry.nesting import TooDeep, parsed

    try:
        found = parsed(text)
    except TooDeep as error:
        raise BadInput(f"{option}: {error}") from None
    except ValueError as error:
        raise BadInput(f"{option}: is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{option}: expected a JSON object like {example}, got {text}")
    return found
