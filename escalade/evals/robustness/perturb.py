"""Questions written otherwise: typing mistakes as people make them, drawn by seed, and paraphrases that you have.

Digits are left alone: another number is another question.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

from escalade.errors import BadInput

__all__ = ["KINDS", "Paraphrases", "typos", "variants"]

Paraphrases = Mapping[str, Sequence[str]] | Callable[[str], str | Sequence[str]]
"""By the key of a question, or a function of its text."""

_WORD = re.compile(r"[^\W\d_]{2,}")


def typos(text: str, share: float = 0.1, *, seed: int = 0) -> str:
    """The text with one mistake in so many of its words; at least in one of them, where there is a word and a share.

    `share`: 0..1. The same text and seed give the same mistakes. Raises BadInput.
    """
    if not 0 <= share <= 1:
        raise BadInput(f"a share of words with a mistake lies between 0 and 1, not {share!r}")
    rng = random.Random(blake2b(f"typos\0{seed}\0{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest())
    words = list(_WORD.finditer(text))
    count = min(len(words), max(1, round(share * len(words)))) if share else 0
    parts, end = [], 0
    for word in sorted(rng.sample(words, count), key=lambda found: found.start()):
        wrong = rng.choice(list(KINDS.values()))
        parts += [text[end : word.start()], wrong(word.group(), rng)]
        end = word.end()
    return "".join([*parts, text[end:]])


def variants(key: str, text: str, paraphrases: Paraphrases) -> tuple[str, ...]:
    """The paraphrases of one question; none for a key that isn't in the mapping. Raises BadInput."""
    found = paraphrases(text) if callable(paraphrases) else paraphrases.get(key, ())
    whole = (found,) if isinstance(found, str) else tuple(found)
    wrong = next((one for one in whole if not isinstance(one, str)), None)
    if wrong is not None:
        raise BadInput(f"paraphrases of {key}: expected texts, got {wrong!r}")
    return whole


def _swapped(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _dropped(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word))
    return word[:at] + word[at + 1 :]


def _doubled(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word))
    return word[: at + 1] + word[at:]


def _cased(word: str, rng: random.Random) -> str:
    return word.upper() if rng.random() < 0.5 else word.swapcase()


def _spaced(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word))
    return f"{word[:at]} {word[at:]}" if rng.random() < 0.5 else f"{word} "


KINDS: Mapping[str, Callable[[str, random.Random], str]] = {
    "swap": _swapped,
    "drop": _dropped,
    "double": _doubled,
    "case": _cased,
    "space": _spaced,
}
"""What can go wrong with a word: letters change places, one is lost or doubled, case, white space."""
