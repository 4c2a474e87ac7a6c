"""What two questions must have in common before anybody asks how near their vectors are.

Vectors say that "flights to Rome in May" and "flights to Rome in June" are nearly the same; their answers aren't. So
numbers, names, negations, opposites and signs must be equal, in the same order; for vectors that only see letters, all
words that carry meaning must be. What may differ is politeness, articles, contractions, case and punctuation. English
and Portuguese; other languages pass by their words alone.
"""

from __future__ import annotations

import re

LONGEST = 300
"""Characters of a question; what is longer, has several lines or code in it, is no variant of another."""

Gist = tuple[tuple[str, ...], ...]
"""Numbers, negations, what matters otherwise, words (or names only), whether it begins like a yes-or-no question."""

_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*|[%€$£¥+#*/=<>^&@°-]")
_SENTENCE = re.compile(r"(?:^|[.!?:]\s+)[\"'(¿¡\u201c]*")
_CONTRACTED = (
    (re.compile(r"\b(can)'?t\b|\bcannot\b"), "can not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(what|who|where|when|how|which|that|it|there)'s\b"), r"\1 is"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'(d|ll|m|ve)\b"), ""),
    (re.compile(r"\b(?:how (?:do|can|could|should|would) (?:i|you|we|one)|how to|what is the way to)\b"), "how"),
    (re.compile(r"\bcomo (?:eu |se )?(?:posso|faço para|fazer para|devo)\b"), "como"),
)
_POLITE = re.compile(
    r"\b(?:please|kindly|thanks|thank you|hello|hi|hey|tell me|i (?:want|need|would like|like) to know|do you know|"
    r"i(?: am|m)? wonder(?:ing)?|(?:can|could|would|will) you(?: please)?(?: (?:tell|say to|show) me)?|let me know|"
    r"por favor|obrigad[oa]|olá|oi|me (?:diga|fala|fale)|"
    r"(?:você )?(?:pode|poderia)(?: por favor)? me (?:dizer|falar)|"
    r"(?:eu )?(?:quero|queria|gostaria de) saber)\b"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILLERS = _words(
    "a an the what which is are be of s o os as um uma uns umas qual quais que é são do da de dos das e and"
)
_NEGATIONS = _words(
    "not no never none neither nor without except unless nobody nothing hardly non "
    "não nem nunca sem exceto jamais nenhum nenhuma ninguém nada"
)
_MATTERS = _words(
    "who when where why how whose was were did will before after over under above below more less most least first "
    "last next previous min max minimum maximum highest lowest largest smallest increase decrease buy sell up down in "
    "out on off to from into with by between since until left right north south east west import export today tomorrow "
    "yesterday all any only some every or if than open close start stop enable disable always still "
    "quem quando onde por porque como foi era foram será antes depois sobre sob mais menos maior menor primeiro último "
    "próximo comprar vender para com entre desde até hoje amanhã ontem todos só ou se aumentar diminuir abrir fechar"
)
_CLOSED = _FILLERS | _MATTERS | _NEGATIONS
_YES_OR_NO = _words("is are was were am do does did can could will would should has have had may é são foi pode há tem")
_NUMBERS = {
    name: str(number)
    for names in (
        "zero one two three four five six seven eight nine ten eleven twelve",
        "zero um dois três quatro cinco seis sete oito nove dez onze doze",
    )
    for number, name in enumerate(names.split(" "))
    if name not in {"um", "one"}
}


def gist(question: str, *, words: bool) -> Gist | None:
    """What must be equal; None for what is no variant of anything. `words`: also all words that carry meaning."""
    if not question.strip() or len(question) > LONGEST or "\n" in question.strip() or "`" in question:
        return None
    tokens = [_NUMBERS.get(token, token) for token in _TOKEN.findall(plain(question))]
    numbers = tuple(_number(token) for token in tokens if not token[0].isalpha())
    negations = ("not",) * sum(token in _NEGATIONS for token in tokens)
    matters = tuple(t for t in tokens if t in _MATTERS) + ("what",) * (tokens.count("what") - 1)
    rest = tuple(t for t in tokens if t[0].isalpha() and t not in _CLOSED) if words else _names(question)
    return numbers, negations, matters, rest, tuple(token for token in tokens[:1] if token in _YES_OR_NO)


def plain(question: str) -> str:
    """In lower case, without politeness and contractions."""
    told = question.lower().replace("\u2019", "'")
    for pattern, put in _CONTRACTED:
        told = pattern.sub(put, told)
    return " ".join(_POLITE.sub(" ", told).split())


def _number(token: str) -> str:
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", token)


def _names(question: str) -> tuple[str, ...]:
    """Words in capitals that don't begin a sentence, in their order."""
    begins = {match.end() for match in _SENTENCE.finditer(question)}
    found = re.finditer(r"[^\W\d_]+", question)
    return tuple(m[0].lower() for m in found if m[0][0].isupper() and m.start() not in begins and m[0] != "I")
