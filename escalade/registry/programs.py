"""Compiled programs and the tools that their instructions describe.

DSPy writes the descriptions of tools into a program's instructions, and an optimiser may rewrite those. A program that
is loaded a month later may find other tools behind the same words. `save_program` stores digests of the tools beside
the program's state, and `load_program` compares them with the tools that the program has now.

    save_program(agent, "agent.json")
    load_program(agent, "agent.json")                  # LockDrift: argument 'limit' changed, …
    load_program(agent, "agent.json", drift="warn")

What counts is what a model was told: names, descriptions, arguments. Another price, limit or version number does not.
`agent.load("agent.json")` still works, and compares nothing.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from escalade.errors import BadInput, LockDrift, one_of
from escalade.registry.lock import Locked

if TYPE_CHECKING:
    from os import PathLike

    import dspy

logger = logging.getLogger(__name__)

_KEY = "escalade_tools"
"""In the metadata of a JSON state."""

_BESIDE = "escalade-tools.json"
"""Name, or end of the name, of the file beside what isn't JSON."""


def tools_of(program: dspy.Module) -> list[Locked]:
    """The governed tools anywhere in a program, by name."""
    from escalade.registry.governed import GovernedTool

    specs = {tool.spec.label: tool.spec for _, tool in program.named_sub_modules(type_=GovernedTool)}
    return [Locked.of(specs[label]) for label in sorted(specs)]


def save_program(program: dspy.Module, path: str | PathLike[str], **options: Any) -> None:
    """`program.save(path, **options)`, and the digests of its tools: in the metadata of a `.json` state, beside a
    `.pkl` state or a directory. Raises what DSPy raises.
    """
    program.save(path, **options)
    tools = [asdict(one) for one in tools_of(program)]
    file = Path(path)
    if file.suffix == ".json":
        state = json.loads(file.read_text("utf-8"))
        state["metadata"][_KEY] = tools
        file.write_text(json.dumps(state, indent=2) + "\n", "utf-8")
    else:
        _beside(file).write_text(json.dumps(tools, indent=2) + "\n", "utf-8")


def load_program(
    program: dspy.Module, path: str | PathLike[str], *, drift: Literal["refuse", "warn"] = "refuse", **options: Any
) -> list[str]:
    """`program.load(path, **options)`, after a look at its tools. Returns what differs, [] for nothing.

    Raises LockDrift when something differs and `drift` is "refuse", also for a file without digests; BadInput.
    """
    one_of("drift", drift, ("refuse", "warn"))
    saved = saved_tools(path)
    differences = ["it says nothing of its tools: save it with save_program"] if saved is None else []
    if saved is not None:
        differences = compare(saved, tools_of(program))
    if differences:
        message = f"{path}: the program was made for other tools: {'; '.join(differences)}"
        if drift == "refuse":
            raise LockDrift(f'{message}; compile it anew, or load it with drift="warn"', tuple(differences))
        logger.warning("%s", message)
    program.load(path, **options)
    return differences


def saved_tools(path: str | PathLike[str]) -> list[Locked] | None:
    """What `save_program` stored, None if it didn't. Raises BadInput for a file that can't be read."""
    file = Path(path)
    try:
        if file.suffix == ".json":
            written = json.loads(file.read_text("utf-8")).get("metadata", {}).get(_KEY)
        else:
            written = json.loads(_beside(file).read_text("utf-8")) if _beside(file).exists() else None
        return None if written is None else [Locked(**{**one, "ranges": tuple(one["ranges"])}) for one in written]
    except OSError as error:
        raise BadInput(f"{path}: can't be read ({error.strerror or error})") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{path}: is no saved program ({type(error).__name__}: {error})") from None


def compare(saved: list[Locked], now: list[Locked]) -> list[str]:
    """What models were told of tools then and wouldn't be told now, a line each."""
    there = {one.name: one for one in now}
    differences = []
    for one in saved:
        if one.name not in there:
            differences.append(f"{one.label} is gone")
            continue
        found = one.differences(there[one.name], only=_told)
        differences += [f"{there[one.name].label}: {line}" for line in found]
    new = sorted(set(there) - {one.name for one in saved})
    return differences + [f"{there[name].label} is new" for name in new]


def _told(fact: str) -> bool:
    """Does a model get to know it?"""
    return fact == "description" or fact.startswith("argument ")


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.{_BESIDE}") if file.suffix else file / _BESIDE
