"""How long an answer stays good depends on what was asked: a fact, code, or something of this very hour.

The kind is what the caller says (`with cache.kind("code"):`), else what a classifier says of the question. The one that
is built in looks for words and patterns, English and Portuguese, in some 20 us, and rather takes the shorter time. What
it doesn't know it takes for a fact: docs/models.md has how often.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from escalade.agents.cache._live import is_live
from escalade.agents.routing._phrases import words_of
from escalade.errors import BadInput, UnknownName

FACTS, CODE, REALTIME, VECTORS = "facts", "code", "realtime", "vectors"

SECONDS: Mapping[str, float] = {FACTS: 86_400.0, CODE: 3_600.0, REALTIME: 300.0, VECTORS: 30 * 86_400.0}
"""Seconds for which an answer of a kind may be used again; vectors of texts (`embedding.py`) don't grow old."""

SAID = "escalade_cache_kind"
"""The key of `dspy.context` that carries the kind: it reaches the threads of `dspy.Parallel`."""

_OFF = ""

Classifier = Callable[[str], str]
"""The text of a question -> its kind."""

_CODE = re.compile(
    r"\b(code|python|javascript|typescript|java|rust|golang|sql|regex|bash|html|css|api|json|yaml|compiler?|debug|bug"
    r"|script|function|unittest|stacktrace|traceback|refactor|codigo|programa|funcao|depurar)\b"
)
_CODE_SHAPE = re.compile(
    r"```|\b(def|class|import|return) \w+|\w\(\w*\)\s*[;{:]|=>|</\w+>|#include|\bselect\b.+\bfrom\b"
)


def kind_of(question: str) -> str:
    """Of a question: realtime, code or facts."""
    words = " ".join(words_of(question))
    if is_live(words):
        return REALTIME
    return CODE if _CODE.search(words) or _CODE_SHAPE.search(question.lower()) else FACTS


class Kinds:
    """Kinds and their times. `ttl`: seconds by kind, beside or instead of `SECONDS`; 0 keeps nothing; a number is for
    all kinds. Raises BadInput.
    """

    def __init__(self, ttl: Mapping[str, float] | float | None = None, classify: Classifier = kind_of) -> None:
        given = dict.fromkeys(SECONDS, ttl) if isinstance(ttl, int | float) else dict(ttl or {})
        self.seconds: dict[str, float] = {**SECONDS, **given}
        for name, seconds in self.seconds.items():
            fine = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < math.inf
            if not (fine and re.fullmatch(r"\w[\w.-]*", name)):
                raise BadInput(f"ttl of {name!r}: expected a name and seconds, 0 or more, got {seconds!r}")
        self._classify = classify

    def of(self, question: str) -> str:
        """The kind that was said here, else the classifier's. Raises UnknownName for one without a time."""
        import dspy

        said: str | None = dspy.settings.get(SAID)
        return self.check(self._classify(question) if said is None else said)

    def check(self, name: str) -> str:
        """The name. Raises UnknownName."""
        if name not in self.seconds:
            raise UnknownName("kind of question", name, list(self.seconds))
        return name

    @contextmanager
    def said(self, name: str) -> Iterator[None]:
        """Questions in this block are of this kind."""
        import dspy

        with dspy.context(**{SAID: self.check(name)}):
            yield


@contextmanager
def uncached() -> Iterator[None]:
    """No call in this block looks for answers that are there, or keeps its own: whoever measures what calls cost."""
    import dspy

    with dspy.context(**{SAID: _OFF}):
        yield


def is_off() -> bool:
    """Is this in a block that is `uncached`?"""
    import dspy

    return bool(dspy.settings.get(SAID) == _OFF)


_TRAILER = re.compile(r"\n+Respond with .*\Z", re.DOTALL)
_MARKER = re.compile(r"\[\[ ## (\w+) ## \]\]\n?")


def question_of(call: Any) -> str:
    """What is asked: the last message of the user, without what DSPy's adapters write around the inputs."""
    messages = call.request.messages if call.request is not None else call.legacy.get("messages") or ()
    for message in reversed(messages):
        if _part(message, "role") == "user":
            content = _part(message, "content") if call.request is None else message.parts
            return _MARKER.sub("", _TRAILER.sub("", _text(content))).strip()
    return ""


def around(content: str) -> list[str]:
    """What an adapter writes around the inputs: the names of fields, then the trailer (last, "" for none)."""
    trailer = _TRAILER.search(content)
    return [*_MARKER.findall(_TRAILER.sub("", content)), trailer[0] if trailer else ""]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(text) for part in content or () if isinstance(text := _part(part, "text"), str))


def _part(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
