"""The classifier that is always there: word lists, English and Portuguese, no download, no call, some 30 us per text.

Complexity is the highest of three levels: by the number of words, by the number of different technical terms, by code.
Intent is the one whose phrases weigh most; technical terms and code count for the technical one. An intent that
`yields` (greetings do) stands back as soon as another has more than a weak phrase in the text.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from escalade.agents.routing._phrases import Phrases, words_of
from escalade.agents.routing.table import COMPLEXITIES, WEIGHTS, RoutingTable
from escalade.money import Money

TERM_WEIGHT, CODE_WEIGHT = 4, 8


@dataclass(frozen=True, slots=True)
class Classified:
    """What a classifier says of a text. `path`: why, a line each. `cost`: of asking it."""

    complexity: str
    intent: str
    path: tuple[str, ...] = ()
    cost: Money = field(default_factory=Money)


class LocalClassifier:
    """By the word lists of a table. Thread-safe."""

    def __init__(self, table: RoutingTable) -> None:
        self._table = table
        self._terms = Phrases((term, term) for term in table.technical_terms)
        self._intents = Phrases(
            (phrase, (intent, weight))
            for intent, lists in table.intents.items()
            for strength, weight in WEIGHTS.items()
            for phrase in getattr(lists, strength)
        )
        self._code = re.compile("|".join(f"(?:{pattern})" for pattern in table.code)) if table.code else None
        self._yielding = {intent for intent, lists in table.intents.items() if lists.yields}
        self._order: dict[str, int] = {intent: i for i, intent in enumerate(table.intents)}

    def classify(self, text: str) -> Classified:
        """Never fails."""
        words = words_of(text)
        terms = dict.fromkeys(term for term, _ in self._terms.found(words))
        code = self._code.search(text) if self._code is not None else None
        shown = " ".join(code[0].split())[:40] if code is not None else ""
        complexity, why = self._complexity(len(words), tuple(terms), shown)
        intent, because = self._intent(words, tuple(terms), shown)
        return Classified(complexity, intent, (f"complexity {complexity}: {why}", f"intent {intent}: {because}"))

    def _complexity(self, words: int, terms: tuple[str, ...], code: str) -> tuple[str, str]:
        measures = self._table.complexity
        levels = (
            (measures.words.level(words), f"{words} words"),
            (measures.technical.level(len(terms)), f"{len(terms)} technical terms ({', '.join(terms)})"),
            (COMPLEXITIES.index(measures.code) if code else 0, f"code ({code})"),
        )
        level = max(one for one, _ in levels)
        said = [why for one, why in levels if one == level] if level else [levels[0][1]]
        return COMPLEXITIES[level], ", ".join(said)

    def _intent(self, words: list[str], terms: tuple[str, ...], code: str) -> tuple[str, str]:
        scores: Counter[str] = Counter()
        evidence: dict[str, list[str]] = {}
        for phrase, (intent, weight) in self._intents.found(words):
            scores[intent] += weight
            evidence.setdefault(intent, []).append(phrase)
        if terms or code:
            scores["technical"] += TERM_WEIGHT * len(terms) + (CODE_WEIGHT if code else 0)
            evidence.setdefault("technical", []).extend((*terms, *((code,) if code else ())))
        others = {intent: score for intent, score in scores.items() if intent not in self._yielding}
        if max(others.values(), default=0) >= WEIGHTS["usual"]:
            scores = Counter(others)
        if not scores:
            return "other", "no word of any intent"
        best = min(scores, key=lambda intent: (-scores[intent], self._order.get(intent, len(self._order))))
        return best, ", ".join(dict.fromkeys(evidence[best]))
