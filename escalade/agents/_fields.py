"""The text fields of an answer while it is being written: read out of the adapter's format, as far as they are certain.

What is given never has to be taken back: what may turn out to be the beginning of the next field is held back, and
blanks at the end are, since they don't belong to the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from xml.sax.saxutils import unescape

import dspy

_HEADER = re.compile(r"\s*\[\[ ## (\w+) ## \]\]")
_BEGUN = re.compile(r"\s*(?:\[|\[\[|\[\[ #{0,2}|\[\[ ## ?\w* ?#{0,2}|\[\[ ## \w+ ## \]?)")

_MARK = 64
"""Characters that a tag or an entity has at most."""


class Fields:
    """Of one answer. `names`: the text fields to read; `adapter`: DSPy's, whose format it is written in, None for the
    arguments of a tool call.
    """

    def __init__(self, adapter: Any, names: Sequence[str]) -> None:
        plain = adapter is None or isinstance(adapter, dspy.JSONAdapter)
        xml = isinstance(adapter, dspy.XMLAdapter)
        self._more = _Whole(_json if plain else _xml, names).feed if plain or xml else _Chat(names).feed
        self.given: dict[str, str] = {}

    def feed(self, text: str) -> Iterator[tuple[str, str]]:
        """More of it came: (field, what is new of it)."""
        for name, more in self._more(text):
            self.given[name] = self.given.get(name, "") + more
            yield name, more


class _Whole:
    """Formats that are read anew with each piece, from the beginning."""

    def __init__(self, read: Callable[[str, Sequence[str]], Iterator[tuple[str, str]]], names: Sequence[str]) -> None:
        self._read, self._names, self._text = read, names, ""
        self._given: dict[str, int] = {}

    def feed(self, text: str) -> Iterator[tuple[str, str]]:
        self._text += text
        for name, value in self._read(self._text, self._names):
            before = self._given.get(name, 0)
            if len(value) > before:
                self._given[name] = len(value)
                yield name, value[before:]


class _Chat:
    """The Chat format, a line at a time: a header opens a field, all other lines belong to the open one."""

    def __init__(self, names: Sequence[str]) -> None:
        self._left = set(names)
        self._name = ""
        self._line, self._taken = "", 0
        self._blank, self._begun = "", False

    def feed(self, text: str) -> Iterator[tuple[str, str]]:
        self._line += text
        *lines, self._line = self._line.split("\n")
        for line in lines:
            yield from self._ended(line)
        line = self._line
        if line.strip() and (self._taken or not (_BEGUN.fullmatch(line) or _HEADER.match(line))):
            yield from self._take(line[self._taken :])
            self._taken = len(line)

    def _ended(self, line: str) -> Iterator[tuple[str, str]]:
        header = None if self._taken else _HEADER.match(line)
        if header is None:
            more = line[self._taken :]
        else:
            self._name = header[1] if header[1] in self._left else ""
            self._left.discard(header[1])
            self._blank, self._begun = "", False
            more = line[header.end() :].strip()
        self._taken = 0
        yield from self._take(more + "\n")

    def _take(self, more: str) -> Iterator[tuple[str, str]]:
        """Of the open field. Blanks wait for what comes after them."""
        if not self._name:
            return
        text = self._blank + more
        text = text if self._begun else text.lstrip()
        kept = text.rstrip()
        self._blank, self._begun = text[len(kept) :], self._begun or bool(kept)
        if kept:
            yield self._name, kept


def text_fields(signature: Any) -> tuple[str, ...]:
    """Outputs that are text, in order."""
    return tuple(name for name, info in signature.output_fields.items() if info.annotation in {str, dspy.Reasoning})


def _xml(text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        begin = text.find(f"<{name}>")
        if begin < 0:
            continue
        begin += len(name) + 2
        end = text.find(f"</{name}>", begin)
        value = text[begin:] if end < 0 else text[begin:end]
        if end < 0:  # the beginning of a tag or of an entity may be at its end
            at = _last(value)
            value = value[:at] if at >= 0 and not {">", ";"} & set(value[at:]) else value
        yield name, unescape(value).strip()


def _last(value: str) -> int:
    """Where the last tag or entity begins, if that is near the end; -1 if not."""
    from_ = max(0, len(value) - _MARK)
    return max(value.rfind("<", from_), value.rfind("&", from_))


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
