"""Finds phrases in short texts: lower case, without accents, word by word. Twenty microseconds for twenty words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_HEAD = 3
"""Letters by which open phrases are looked up: they have as many at least."""

_WORD = re.compile(r"[\w+#]+")
_PLAIN = {
    code: "".join(c for c in unicodedata.normalize("NFKD", chr(code)) if not unicodedata.combining(c))
    for code in range(0xC0, 0x250)
} | {ord(c): "" for c in "'`\u2019\u00b4"}
"""Accented letters as plain ones; apostrophes as nothing, so that "can't" is one word."""


def words_of(text: str) -> list[str]:
    """The words of a text.

    >>> words_of("Não consigo, can't!")
    ['nao', 'consigo', 'cant']
    """
    return _WORD.findall(text.lower().translate(_PLAIN))


class Phrases(Generic[T]):
    """Phrases, each with something that it means. One that ends in `*` is found with any ending of its last word."""

    def __init__(self, phrases: Iterable[tuple[str, T]]) -> None:
        self._first: dict[str, list[tuple[list[str], bool, T]]] = {}
        self._open: dict[str, list[tuple[str, T]]] = {}
        for phrase, meaning in phrases:
            words, open_ = words_of(phrase), phrase.rstrip().endswith("*")
            if open_ and len(words) == 1 and len(words[0]) >= _HEAD:
                self._open.setdefault(words[0][:_HEAD], []).append((words[0], meaning))
            elif words:
                self._first.setdefault(words[0], []).append((words[1:], open_, meaning))

    def found(self, words: list[str]) -> Iterator[tuple[str, T]]:
        """Each phrase that is there, as it stands in the text, with its meaning; a word may be part of several."""
        firsts, opens = self._first, self._open
        for at, word in enumerate(words):
            for rest, open_, meaning in firsts.get(word, ()):
                end = at + 1 + len(rest)
                if not rest:
                    yield word, meaning
                elif _same(rest, words[at + 1 : end], open_):
                    yield " ".join(words[at:end]), meaning
            for prefix, meaning in opens.get(word[:_HEAD], ()):
                if word.startswith(prefix):
                    yield word, meaning


def _same(wanted: list[str], words: list[str], open_: bool) -> bool:  # noqa: FBT001 - one caller
    if not open_:
        return wanted == words
    return len(wanted) == len(words) and wanted[:-1] == words[:-1] and words[-1].startswith(wanted[-1])
