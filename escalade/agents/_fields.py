"""The text fields of an answer while it is being written: read out of the adapter's format, as far as they are certain.

What is given never has to be taken back: what may turn out to be the beginning of the next field is held back, and
blanks at the end are, since they don't belong to the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import unescape

import dspy

_HEADER = re.compile(r"^[^\S\n]*\[\[ ## (\w+) ## \]\]", re.MULTILINE)
_BEGUN = re.compile(r"\s*(?:\[|\[\[|\[\[ #{0,2}|\[\[ ## ?\w* ?#{0,2}|\[\[ ## \w+ ## \]?)")


class Fields:
    """Of one answer. `names`: the text fields to read; `adapter`: DSPy's, whose format it is written in, None for the
    arguments of a tool call.
    """

    def __init__(self, adapter: Any, names: Sequence[str]) -> None:
        plain = adapter is None or isinstance(adapter, dspy.JSONAdapter)
        self._read = _json if plain else _xml if isinstance(adapter, dspy.XMLAdapter) else _chat
        self._names = names
        self._text = ""
        self.given: dict[str, str] = {}

    def feed(self, text: str) -> Iterator[tuple[str, str]]:
        """More of it came: (field, what is new of it)."""
        self._text += text
        for name, value in self._read(self._text, self._names):
            before = self.given.get(name, "")
            if len(value) > len(before):
                self.given[name] = value
                yield name, value[len(before) :]


def text_fields(signature: Any) -> tuple[str, ...]:
    """Outputs that are text, in order."""
    return tuple(name for name, info in signature.output_fields.items() if info.annotation in {str, dspy.Reasoning})


def _chat(text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    found = list(_HEADER.finditer(text))
    seen: set[str] = set()
    for at, header in enumerate(found):
        name, closed = header[1], at + 1 < len(found)
        value = text[header.end() : found[at + 1].start()] if closed else text[header.end() :]
        if name in seen or name not in names:
            continue
        seen.add(name)
        if not closed:
            head, _, last = value.rpartition("\n")
            value = head if _BEGUN.fullmatch(last) else value
        yield name, value.strip()


def _xml(text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        _, opened, rest = text.partition(f"<{name}>")
        if opened:
            value, closed, _ = rest.partition(f"</{name}>")
            yield name, unescape(value if closed else re.sub(r"[<&][^>;\s]*\Z", "", value)).strip()


def _json(text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    import jiter  # DSPy brings it

    begin = text.find("{")
    if begin < 0:
        return
    try:
        values = jiter.from_json(text[begin:].encode("utf-8", "replace"), partial_mode="trailing-strings")
    except ValueError:  # followed by something else, or no JSON at all
        return
    if isinstance(values, dict):
        yield from ((name, values[name]) for name in names if isinstance(values.get(name), str))
