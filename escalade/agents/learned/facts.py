"""Facts about a question in numbers: how much is asked, how many figures are in it, and what its last sentence wants.

Plain Python, a few dozen microseconds a question. What counts is written in the words of English; a question in another
language has its lengths, figures and signs.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

_GROUPS = {
    "number": "one two three four five six seven eight nine ten eleven twelve thirteen fifteen sixteen twenty thirty "
    "forty fifty sixty hundred thousand million dozen",
    "part": "half third thirds quarter quarters fourth fourths fifth fifths twice thrice double doubled triple tripled",
    "time": "second seconds minute minutes hour hours day days daily week weeks weekly month months monthly year years "
    "yearly weekend morning afternoon evening night monday tuesday wednesday thursday friday saturday sunday",
    "compare": "more less fewer than times longer shorter older younger taller bigger smaller greater faster slower",
    "rate": "each every per apiece",
    "total": "total altogether combined together sum all both",
    "rest": "left remaining remain remainder rest remained leftover difference",
    "turn": "if when unless except only but however instead after before until then first last another",
    "not": "not no never none neither without",
    "share": "average mean percent percentage ratio rate interest discount tax tip profit",
    "money": "dollar dollars cent cents cost costs price pay pays paid spend spends spent earn earns earned sell sells "
    "sold buy buys bought money",
    "who": "he she it they his her their him them",
}
_GROUP = {word: name for name, words in _GROUPS.items() for word in words.split()}
_ASKED = ("money", "total", "rest", "time", "compare")
_TOKEN = re.compile(r"[a-z']+|\d[\d,]*\.?\d*|[$%/,.!?]")
_LAST = re.compile(r".*[.!?]\s+(?=\S)", re.DOTALL)

FACTS = (
    *("chars", "words", "sentences", "distinct", "word length", "numbers", "different numbers", "largest number"),
    *("mean number", "decimals", "cents", "quantities", "percent", "dollars", "slashes", "commas", "capitals"),
    *_GROUPS,
    *("asked words", "asked numbers", *(f"asked {name}" for name in _ASKED), "how many", "how much", "what", "if"),
    *("asked dollars", "asked dollars of a decimal", "asked dollars of a percentage", "asked dollars each"),
)
"""Names of the facts, in order."""


def facts_of(features: Mapping[str, Any]) -> list[float]:
    """The facts about a question from the features of its view; all but its length are 0 where its text is unknown."""
    text = features.get("text")
    if not isinstance(text, str):
        return [math.log1p(float(features.get("prompt_chars", 0))), *[0.0] * (len(FACTS) - 1)]
    low = text.lower()
    tokens = _TOKEN.findall(low)
    asked = low[found.end() :] if (found := _LAST.match(low.rstrip())) else low
    count, numbers, words = _counted(tokens)
    groups = [float(math.log1p(count[name])) for name in _GROUPS]
    lengths = [
        math.log1p(len(text)),
        math.log1p(len(words)),
        math.log1p(count["."] + count["!"] + count["?"]),
        len(set(words)) / max(1, len(words)),
        sum(map(len, words)) / max(1, len(words)),
    ]
    wanted = _asked(asked, low, count)
    return [*lengths, *_figures(numbers, count), float(_capitals(text)), *groups, *wanted]


def _counted(tokens: list[str]) -> tuple[Counter[str], list[float], list[str]]:
    """(occurrences of groups and signs, numbers, words)."""
    count: Counter[str] = Counter()
    numbers, words, before = [], [], ""
    for token in tokens:
        first = token[0]
        if first.isdigit():
            numbers.append(float(token.replace(",", "")))
            if "." in token[:-1]:
                count["decimal"] += 1
                count["cents"] += before == "$"
        elif first.isalpha() or first == "'":
            words.append(token)
            if token in _GROUP:
                count[_GROUP[token]] += 1
        else:
            count[token] += 1
        before = token
    return count, numbers, words


def _figures(numbers: list[float], count: Counter[str]) -> list[float]:
    sizes = [math.log1p(min(n, 1e15)) for n in numbers]
    return [
        math.log1p(len(numbers)),
        math.log1p(len(set(numbers))),
        max(sizes, default=0.0),
        sum(sizes) / max(1, len(sizes)),
        math.log1p(count["decimal"]),
        math.log1p(count["cents"]),
        math.log1p(len(numbers) + count["number"] + count["part"]),
        *(math.log1p(count[sign]) for sign in "%$/,"),
    ]


def _capitals(text: str) -> float:
    return math.log1p(sum(map(str.isupper, text)))


def _asked(asked: str, low: str, whole: Counter[str]) -> list[float]:
    """What the last sentence wants."""
    count, numbers, words = _counted(_TOKEN.findall(asked))
    much = "how much" in asked
    money = bool(count["money"] or count["$"] or (much and whole["$"]))
    return [
        math.log1p(len(words)),
        math.log1p(len(numbers)),
        *(float(count[name] > 0) for name in _ASKED),
        float("how many" in asked),
        float(much),
        float("what" in low),
        float(asked.startswith("if")),
        float(money),
        float(money and whole["decimal"] > 0),
        float(money and whole["%"] > 0),
        money * math.log1p(whole["rate"]),
    ]


_WORD = re.compile(r"[a-z']+|\d|[$%]")


def words_of(features: Mapping[str, Any], size: int) -> dict[int, int]:
    """Bucket (0..size-1, by CRC-32) -> occurrences of its words; all numbers are one word. Labels are words, too."""
    found: Counter[str] = Counter()
    text = features.get("text")
    if isinstance(text, str):
        found.update("0" if word.isdigit() else word for word in _WORD.findall(text.lower()))
    found.update(f"{name}={v}" for name, v in features.items() if name != "text" and isinstance(v, str | bool))
    buckets: Counter[int] = Counter()
    for word, times in found.items():
        buckets[zlib.crc32(word.encode("utf-8", "surrogatepass")) % size] += times
    return buckets
