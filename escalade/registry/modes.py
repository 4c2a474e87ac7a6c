"""Modes: what tools do in a scope. Models are not concerned: they have transports that replay and simulate.

    live             they run
    record           they run, and what they answer is written to a cassette
    live-read-only   those without side effects run, the others are refused
    dry-run          none runs; each says what it was declared to say dry, or is refused
    replay           none runs; each says what the cassette has for this very call, or is refused: never a guess

In every mode the roles decide first, and each call is recorded. A nested scope is never more live than the outer one,
and none than that of `escalade.configure(mode=...)`.
"""

from __future__ import annotations

import builtins
import json
import os
import threading
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from escalade import errors
from escalade.errors import BadInput, NotRecorded, ToolFailed
from escalade.registry.canonical import digest
from escalade.registry.idempotency import step_path
from escalade.registry.privacy.outlets import safe_line
from escalade.registry.privacy.redactor import redact_value
from escalade.scopes import Scope

Recorded = dict[tuple[str, str], list[tuple[str, dict[str, Any]]]]
"""By tool@version and digest of the arguments: step, and result or error."""

Mode = Literal["live", "record", "live-read-only", "dry-run", "replay"]

_WITHIN: dict[str, tuple[str, ...]] = {
    "live": get_args(Mode),
    "record": ("record", "live-read-only", "dry-run", "replay"),
    "live-read-only": ("live-read-only", "dry-run", "replay"),
    "dry-run": ("dry-run", "replay"),
    "replay": ("replay",),
}


def check_mode(mode: str, cassette: Any, outer: str = "live") -> None:
    """Raises BadInput for a mode that is none, is more live than the outer one, or lacks its cassette."""
    if mode not in _WITHIN:
        raise BadInput(f"unknown mode {mode!r}; there is: {', '.join(_WITHIN)}")
    if mode not in _WITHIN[outer]:
        raise BadInput(f"a scope in mode {mode!r} can't be opened within one in mode {outer!r}: modes only narrow")
    if mode in {"record", "replay"} and cassette is None:
        raise BadInput(f"mode {mode!r} needs a cassette: escalade.scope(mode={mode!r}, cassette='calls.jsonl')")
    if mode not in {"record", "replay"} and cassette is not None:
        raise BadInput(f"a cassette is for the modes 'record' and 'replay', not for {mode!r}")


class Cassette:
    """Calls and what they answered: a file of JSON lines, for its owner's eyes only.

    Results are kept as they were, or a replay would not be one: whatever is personal or secret in them is in the file.
    Look through it before you pass it on. Arguments and messages of failures are kept redacted: replays know arguments
    by their digest.

    Keyed by tool@version and arguments. A call that was recorded with one answer always gets that one. With several, a
    replay gets those of its own step (a node of a pipeline, an item of a `Map`, or what `step(...)` says), in their
    order, and nothing after the last. The order is that in which the calls ended: of equal calls that run at once in
    one step, each replay gives the first answer to whoever asks first. An answer out of a cache is recorded like any
    other; so are failures and timeouts, but not what was refused or cancelled, which the tool had no part in.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._file: Any = None

    def record(self, label: str, args: str, given: Any, answer: dict[str, Any]) -> None:
        """Write one call. `args`: digest of the arguments; `given`: the arguments, for people, redacted."""
        call = {"tool": label, "args": args, "step": _step(), "given": redact_value(given), **answer}
        line = json.dumps(call, separators=(",", ":"))
        with self._lock:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(self._file, f"{line}\n".encode())

    def load(self) -> Recorded:
        """All calls. Raises BadInput, which names file and line."""
        calls: Recorded = defaultdict(list)
        try:
            lines = self.path.read_text("utf-8").splitlines()
        except OSError as error:
            raise BadInput(f"can't read the cassette {self.path.name!r}: {error.strerror}") from None
        for number, line in enumerate(lines, 1):
            try:
                call = json.loads(line)
                key = call["tool"], call["args"]
                assert "result" in call or "error" in call  # noqa: S101 - as a missing key
            except (ValueError, TypeError, KeyError, AssertionError):
                raise BadInput(f"cassette {self.path.name!r}, line {number}: not a recorded call") from None
            answer = {name: call[name] for name in ("result", "error") if name in call}
            calls[key].append((call.get("step", ""), answer))
        return calls

    def close(self) -> None:
        """Close the file; the next record opens it again."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def __del__(self) -> None:
        self.close()


class Player:
    """A cassette as one run replays it. `calls`: what is on it, once it was read."""

    def __init__(self, cassette: Cassette, calls: Recorded | None = None) -> None:
        self._cassette, self._name = cassette, cassette.path.name
        self._calls = cassette.load() if calls is None else calls
        self._lock = threading.Lock()
        self._next: defaultdict[tuple[str, str, str], int] = defaultdict(int)

    def rewound(self) -> Player:
        """From the beginning, for another run."""
        return Player(self._cassette, self._calls)

    def answer(self, label: str, args: str) -> dict[str, Any]:
        """What was recorded for this very call. Raises NotRecorded."""
        recorded = self._calls.get((label, args))
        if not recorded:
            raise NotRecorded(f"cassette {self._name!r} has no call of {label} with these arguments")
        if all(answer == recorded[0][1] for _, answer in recorded):
            return recorded[0][1]
        step = _step()
        mine = [answer for where, answer in recorded if where == step]
        with self._lock:
            at = self._next[label, args, step]
            self._next[label, args, step] += 1
        if at >= len(mine):
            raise NotRecorded(
                f"cassette {self._name!r} has {len(recorded)} answers of {label} with these arguments, {len(mine)} of "
                f"them in this step, and this is its call {at + 1}"
            )
        return mine[at]


def _step() -> str:
    """The step, as a digest: names of steps may be of people."""
    path = step_path()
    return digest(path) if path else ""


def moded(scope: Scope, mode: Mode | None, path: str | os.PathLike[str] | None) -> Scope:
    """The scope in that mode; None for the mode that it has. Raises BadInput."""
    if mode is None and path is None:
        return scope
    wanted = "live" if mode is None else mode
    check_mode(wanted, path, scope.mode)
    cassette = None if path is None else Cassette(path)
    return replace(scope, mode=wanted, cassette=Player(cassette) if wanted == "replay" and cassette else cassette)


def rewound(scope: Scope) -> Scope:
    """The scope at the beginning of its cassette."""
    return replace(scope, cassette=scope.cassette.rewound()) if isinstance(scope.cassette, Player) else scope


def failure(error: Exception) -> dict[str, Any]:
    """How a failure is recorded: class and first line, redacted as models see it."""
    return {"error": [safe_line(type(error).__name__), safe_line(str(error).partition("\n")[0])]}


def again(failed: list[str]) -> Exception:
    """The recorded failure, to be raised: of the class that it had, where that is Python's or ours."""
    name, text = failed
    kind: Any = getattr(errors, name, None) or getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, errors.Refused):
        return ToolFailed(f"{name}: {text}")
    made: Any = type(name, (kind,), {"__module__": kind.__module__, "__str__": lambda _: text, "_plain": kind})
    try:
        error: Exception = made.__new__(made)
    except TypeError:  # a class that wants more than a text
        return ToolFailed(f"{name}: {text}")
    error.args = (text,)
    return error
