"""Pins: what each imported tool was when somebody accepted it.

    {"version": 1, "sources": {"github": {"search_issues": {"version": "1.0.0", "digest": "…", "definition": {…}}}}}

The file is meant to be committed and reviewed, like a lock file. A tool that is pinned is registered as pinned,
whatever its server says today; a tool that changed is quarantined until `accept` moves the pin.
"""

from __future__ import annotations

import difflib
import json
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from escalade.errors import BadInput
from escalade.registry.nesting import parsed
from escalade.registry.sources.definitions import Definition

_VERSION = 1
_lock = threading.RLock()


@dataclass(frozen=True)
class Pin:
    """One accepted tool: our `version` of it, and its definition."""

    version: str
    definition: Definition


@dataclass(frozen=True)
class Drift:
    """A tool that is no longer what was pinned. `now`: None when the server has it no more."""

    tool: str
    pinned: Definition
    now: Definition | None

    @property
    def parts(self) -> list[str]:
        """Which parts of it changed. Names of parts only: what is in them is the server's, and nothing for a model."""
        if self.now is None:
            return ["it is gone"]
        old, new = self.pinned.to_json(), self.now.to_json()
        return [key.replace("_", " ") for key in old if old[key] != new[key]]

    @property
    def difference(self) -> str:
        """A unified diff of the definitions, for people."""
        return difference(self.pinned, self.now)


def difference(pinned: Definition | None, now: Definition | None) -> str:
    """A unified diff of two definitions as JSON, None for none."""
    old, new = (
        json.dumps(one.to_json(), indent=2, sort_keys=True).splitlines() if one is not None else []
        for one in (pinned, now)
    )
    return "\n".join(difflib.unified_diff(old, new, "pinned", "now", lineterm=""))


class Pins:
    """A file of pins, or a memory of them for `path=None`. Raises BadInput for a file that can't be read.

    A pin whose digest isn't that of its definition is refused: the file was edited by hand.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._sources: dict[str, dict[str, Pin]] = self._read()

    @classmethod
    def of_path(cls, pins: Pins | str | Path | None) -> Pins:
        """Pins from what people pass for them."""
        return pins if isinstance(pins, Pins) else cls(pins)

    def get(self, source: str, tool: str) -> Pin | None:
        """The pin of a tool, by the name that its server gives it."""
        return self._sources.get(source, {}).get(tool)

    def of(self, source: str) -> dict[str, Pin]:
        """All pins of a source."""
        return dict(self._sources.get(source, {}))

    def put(self, source: str, pins: dict[str, Pin]) -> None:
        """Pin these, and write the file. What others wrote to it meanwhile is kept."""
        with _lock:
            self._sources = self._read() if self.path is not None else self._sources
            self._sources.setdefault(source, {}).update(pins)
            self._write()

    def _read(self) -> dict[str, dict[str, Pin]]:
        if self.path is None or not self.path.exists():
            return {}
        try:
            data = parsed(self.path.read_text("utf-8"))
            if data["version"] != _VERSION:
                raise BadInput(f"pins {self.path}: written by another version of escalade ({data['version']!r})")
            return {
                source: {tool: _pin(self.path, tool, one) for tool, one in tools.items()}
                for source, tools in data["sources"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"pins {self.path}: can't be read ({type(error).__name__})") from None

    def _write(self) -> None:
        if self.path is None:
            return
        data: dict[str, Any] = {
            "version": _VERSION,
            "sources": {
                source: {
                    tool: {
                        "version": pin.version,
                        "digest": pin.definition.digest,
                        "definition": pin.definition.to_json(),
                    }
                    for tool, pin in sorted(tools.items())
                }
                for source, tools in sorted(self._sources.items())
            },
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False, encoding="utf-8") as file:
            json.dump(data, file, indent=2)
            file.write("\n")
        os.replace(file.name, self.path)  # noqa: PTH105 - all of it or nothing


def _pin(path: Path, tool: str, one: dict[str, Any]) -> Pin:
    definition = Definition(**one["definition"])
    if definition.digest != one["digest"]:
        raise BadInput(f"pins {path}: {tool!r} was edited by hand; remove it, and import the tool anew")
    return Pin(str(one["version"]), definition)
