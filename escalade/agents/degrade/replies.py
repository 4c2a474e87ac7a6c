"""Answers that somebody wrote, for when no model answers: a file that its owner edits while programs run.

    replies:
      - name: hours
        pattern: "opening hours|when (are|do) you open"      # a regular expression; case doesn't matter
        reply: "We are open from 9 to 18 h, Monday to Saturday."
      - name: refund
        words: [refund, money back]                           # or any of these words
        reply: {answer: "Refunds take five working days.", source: "handbook"}

The first that matches answers. A reply that is text is the first output; a mapping says each. Patterns look at the
first 2,000 characters of the inputs that are text, in linear time (`registry/expressions.py`): one that its author
wrote badly must not stop everybody.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from escalade.errors import BadInput
from escalade.registry.access.files import read_file
from escalade.registry.expressions import finder
from escalade.registry.places import Place, Problem, key_of, lines_of

logger = logging.getLogger(__name__)

LOOKED_AT = 2_000
"""Characters of the inputs that patterns look at."""

_FIELDS = ("name", "pattern", "words", "reply")


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer to which questions: those in which `pattern` is found, or any of `words`. Raises BadInput."""

    reply: str | Mapping[str, Any]
    pattern: str = ""
    words: tuple[str, ...] = ()
    name: str = ""
    is_for: Callable[[str], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        words = (self.words,) if isinstance(self.words, str) else tuple(self.words)
        if bool(self.pattern) == bool(words) or not all(isinstance(word, str) and word.strip() for word in words):
            raise BadInput(f"reply {self.name!r}: expected either a pattern or words")
        if not self.reply or not isinstance(self.reply, str | Mapping):
            raise BadInput(f"reply {self.name!r}: expected text or a mapping of outputs, got {self.reply!r}")
        where = f"reply {self.name!r}"
        either = "|".join(rf"\b{{start-half}}{re.escape(word.strip())}\b{{end-half}}" for word in words)
        object.__setattr__(self, "is_for", finder(self.pattern or either, where, any_case=True))
        object.__setattr__(self, "words", words)

    def outputs(self, names: Sequence[str]) -> dict[str, Any]:
        """The outputs, of those that a program has (none known: whatever the reply says)."""
        if isinstance(self.reply, str):
            return {**dict.fromkeys(names), (names[0] if names else "answer"): self.reply}
        return {**dict.fromkeys(names), **self.reply}


class Replies:
    """Replies in order. `Replies.load(path)` reads a file, and again when it was changed."""

    def __init__(self, replies: Iterable[Reply] = ()) -> None:
        self._replies = tuple(replies)
        self._path: Path | None = None
        self._stamp: Any = None

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Replies:
        """Those of a file in YAML, JSON or TOML. Raises BadInput: `FILE:LINE: KEY: what is wrong`.

        A later version of the file that is wrong is told in the log, and the former one holds.
        """
        made = cls()
        made._path = Path(path)
        made._stamp = made._stamped()
        made._replies = _read(made._path)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Replies:
        return self

    def __len__(self) -> int:
        return len(self._replies)

    def find(self, inputs: Mapping[str, Any]) -> Reply | None:
        """The first reply that matches."""
        self._look_again()
        text = "\n".join(value for value in inputs.values() if isinstance(value, str))[:LOOKED_AT]
        return next((reply for reply in self._replies if reply.is_for(text)), None)

    def check(self, outputs: Sequence[str]) -> None:
        """Raises BadInput for a reply with an output that the program doesn't have."""
        for reply in self._replies:
            for name in reply.reply if isinstance(reply.reply, Mapping) else ():
                if name not in outputs:
                    raise BadInput(
                        f"reply {reply.name!r}: the program has no output {name!r} (it has {', '.join(outputs)})"
                    )

    def _look_again(self) -> None:
        if self._path is None or (stamp := self._stamped()) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._replies = _read(self._path)
        except BadInput as error:
            logger.error("the replies stay as they were: %s", error)  # noqa: TRY400 - the line says it all

    def _stamped(self) -> Any:
        try:
            found = (self._path or Path()).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _read(file: Path) -> tuple[Reply, ...]:
    text, written = read_file(file)
    lines = lines_of(file, text)

    def wrong(place: Place, what: object) -> BadInput:
        return BadInput(str(Problem(str(file), lines(place), key_of(place), str(what))))

    if not isinstance(written, Mapping) or not isinstance(written.get("replies"), list):
        raise wrong((), "expected a mapping with the key 'replies', and a list of replies in it")
    for key in written:
        if key not in {"$schema", "version", "replies"}:
            raise wrong((str(key),), "unknown key (known: version, replies)")
    found = []
    for i, said in enumerate(written["replies"]):
        if not isinstance(said, Mapping) or not said.keys() <= set(_FIELDS):
            raise wrong(("replies", i), f"expected a mapping of {', '.join(_FIELDS)}, got {said!r}")
        try:
            found.append(Reply(**{"reply": "", "name": f"number {i + 1}", **said}))
        except BadInput as error:
            raise wrong(("replies", i), error) from None
    return tuple(found)
