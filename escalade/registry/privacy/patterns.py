"""What personal data and secrets look like in text, all but those that are made of digits (`numbers.py`).

A finder goes through a text once and yields spans. No expression here has nested quantifiers, and each either can't
start inside of what it has just read, or reads a bounded number of characters before it gives up: time is linear in the
text, whatever the text is. `benchmarks/redaction.py` measures that on the worst texts we know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from escalade.errors import BadInput
from escalade.registry.privacy.checks import IBAN_LENGTHS, cnpj, generated, iban, ipv6, mixed, random_looking
from escalade.registry.secrets import names_secret


class Span(NamedTuple):
    """A find: `text[start:end]` is of this type."""

    start: int
    end: int
    type: str


Finder = Callable[[str], Iterator[Span]]

_TYPE = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class Pattern:
    """A type of one's own: `name` is its placeholder; `regex` finds candidates; `check` says which of them it is.

    A group called `value` marks the part to replace. `regex` runs on every text: keep it free of nested quantifiers. A
    check that raises counts as a yes. Raises BadInput for a name that is no lower-case word, or what is no expression.
    """

    name: str
    regex: str | re.Pattern[str]
    check: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        if not _TYPE.fullmatch(self.name):
            raise BadInput(f"pattern {self.name!r}: expected a lower-case word of at most 32 characters")
        try:
            compiled = re.compile(self.regex)
        except (re.error, TypeError) as error:
            raise BadInput(f"pattern {self.name!r}: not a regular expression: {error}") from None
        if compiled.match(""):
            raise BadInput(f"pattern {self.name!r} matches nothing at all, which is everywhere")
        object.__setattr__(self, "regex", compiled)

    def find(self, text: str) -> Iterator[Span]:
        """Its finds in the text."""
        group = "value" if "value" in re.compile(self.regex).groupindex else 0
        for match in re.compile(self.regex).finditer(text):
            start, end = match.span(group)
            if start < end and self._is_one(match[group]):
                yield Span(start, end, self.name)

    def _is_one(self, value: str) -> bool:
        try:
            return self.check is None or bool(self.check(value))
        except Exception:  # noqa: BLE001 - a check that can't decide must not let data through
            return True


# ----------------------------------------------------------------------------------------------------------- e-mail

_EMAIL = re.compile(
    r"(?<![\w.+%'-])(?P<local>[\w.+%'-]++)@(?P<domain>(?:[\w-]{1,63}+\.){1,8}(?:xn--[a-z0-9-]{2,20}|[^\W\d_]{2,24}))"
)
_EMAIL_IN_URL = re.compile(
    r"(?<![\w.+%'-])(?P<local>(?:[\w.+'-]|%(?!(?:25){0,2}40)[0-9A-Fa-f]{2})++)%(?:25){0,2}40"
    r"(?P<domain>(?:[\w-]{1,63}+\.){1,8}(?:xn--[a-z0-9-]{2,20}|[^\W\d_]{2,24}))"
)
_NO_DOMAIN = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "js", "ts", "css", "py", "json", "html"})
"""Ends of file names like `icon@2x.png`."""


def emails(text: str) -> Iterator[Span]:
    """Addresses of RFC 5321, also as they stand in URLs (RFC 3986, 2.1), encoded up to three times; without quoted
    local parts and address literals, as nobody writes them.
    """
    for written, at, before in ((_EMAIL, "@", ".+%'-"), (_EMAIL_IN_URL, "%", ".+'-")):
        for match in written.finditer(text) if at in text else ():
            local = match["local"].lstrip(before)
            if local and match["domain"].rpartition(".")[2].lower() not in _NO_DOMAIN:
                yield Span(match.end("local") - len(local), match.end(), "email")


# ------------------------------------------------------------------------------------------------------------- IBAN

_IBAN = re.compile(r"[A-Za-z](?<![A-Za-z0-9].)[A-Za-z][0-9]{2}(?=[ -]?[A-Za-z0-9])")


_REST = {
    length: re.compile(rf"(?:[ -]?[A-Za-z0-9]){{{length - 4}}}(?![A-Za-z0-9])") for length in set(IBAN_LENGTHS.values())
}


def ibans(text: str) -> Iterator[Span]:
    """Account numbers of ISO 13616, in one piece or in groups, all upper or all lower case."""
    for match in _IBAN.finditer(text):
        length = IBAN_LENGTHS.get(match[0][:2].upper())
        rest = _REST[length].match(text, match.end()) if length else None
        if rest is None:
            continue
        bare = text[match.start() : rest.end()].replace(" ", "").replace("-", "")
        if (bare.isupper() or bare.islower()) and iban(bare.upper()):
            yield Span(match.start(), rest.end(), "iban")


# ------------------------------------------------------------------------------------------------------------- IPv6

_IPV6 = re.compile(
    r"[0-9A-Fa-f:](?<![0-9A-Za-z:.].)(?:[0-9A-Fa-f]{0,3}+:)[0-9A-Fa-f:]{2,38}+"
    r"(?:\.[0-9]{1,3}){0,3}(?:%[0-9A-Za-z]{1,16})?(?![0-9A-Za-z:])"
)


def ipv6s(text: str) -> Iterator[Span]:
    """Addresses of RFC 4291, with zones and embedded IPv4 addresses."""
    for match in _IPV6.finditer(text):
        value = match[0]
        if value.count(":") < 2:
            continue
        cut = value[:-1] if value.endswith(":") and not value.endswith("::") else value
        if ipv6(cut):
            yield Span(match.start(), match.start() + len(cut), "ip")


# ----------------------------------------------------------------------------------------- CNPJ with letters in it

_CNPJ = re.compile(r"[0-9A-Z](?<![0-9A-Za-z].)[0-9A-Z]\.[0-9A-Z]{3}\.[0-9A-Z]{3}/[0-9A-Z]{4}-[0-9]{2}(?![0-9A-Za-z])")


def lettered_cnpjs(text: str) -> Iterator[Span]:
    """Company numbers with letters, formatted: in one piece they look like many other codes."""
    for match in _CNPJ.finditer(text):
        if cnpj("".join(c for c in match[0] if c.isalnum())):
            yield Span(match.start(), match.end(), "cnpj")


# --------------------------------------------------------------------------------------------------- keys and tokens

_W = r"[A-Za-z0-9_-]"
_KEYS: dict[str, str] = {
    "sk-": _W + "{16,}+",  # OpenAI, Anthropic, OpenRouter, DeepSeek
    "sk_": "(?:live|test)_[A-Za-z0-9]{10,}+",  # Stripe
    "rk_": "(?:live|test)_[A-Za-z0-9]{10,}+",
    "pk_": "(?:live|test)_[A-Za-z0-9]{10,}+",
    "gh": "[pousr]_[A-Za-z0-9]{20,}+",  # GitHub
    "github_pat_": r"\w{20,}+",
    "gl": "(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat)-" + _W + "{16,}+",  # GitLab
    "hv": r"[sbr]\." + _W + "{20,}+",  # HashiCorp Vault
    "gsk_": "[A-Za-z0-9]{20,}+",  # Groq
    "AKIA": "[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS access key ids
    "ASIA": "[A-Z0-9]{16}(?![A-Za-z0-9])",
    "AIza": _W + "{30,}+",  # Google
    "ya29.": _W + "{20,}+",
    "xox": "[abeoprs]-[A-Za-z0-9-]{10,}+",  # Slack
    "xapp-": "[A-Za-z0-9-]{10,}+",
    "xai-": _W + "{20,}+",
    "hf_": "[A-Za-z0-9]{20,}+",  # Hugging Face
    "npm_": "[A-Za-z0-9]{30,}+",
    "pypi-": _W + "{40,}+",
    "pplx-": "[A-Za-z0-9]{20,}+",  # Perplexity
    "r8_": "[A-Za-z0-9]{20,}+",  # Replicate
    "SG.": _W + r"{16,}+\." + _W + "{16,}+",  # SendGrid
    "dop_v1_": "[a-f0-9]{32,}+",  # DigitalOcean
    "dapi": "[a-f0-9]{32}(?![A-Za-z0-9])",  # Databricks
    "shp": "(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}",  # Shopify
    "whsec_": "[A-Za-z0-9+/=]{20,}+",
    "lsv2_": r"\w{20,}+",  # LangSmith
    "tvly-": _W + "{16,}+",  # Tavily
}


def _not_inside_a_word(prefix: str) -> str:
    """The prefix, at the start of a word. Its first letter comes first, so that the search can skip to it."""
    return rf"{re.escape(prefix[0])}(?<![A-Za-z0-9].){re.escape(prefix[1:])}"


_KEY = re.compile("|".join(f"{_not_inside_a_word(prefix)}{rest}" for prefix, rest in _KEYS.items()))
_JWT = re.compile(rf"eyJ(?<!{_W}eyJ){_W}{{8,}}+\.{_W}{{8,}}+(?:\.{_W}*+)?(?:\.{_W}++){{0,2}}")
_SCHEME = re.compile(
    r"(?:[Bb]earer|BEARER|[Bb]asic|[Aa]pi[Kk]ey|[Tt]oken)(?:[ \t]{1,4}|%20)(?P<value>[A-Za-z0-9._~+/=-]{16,}+)"
)

_HEADER = re.compile(r"""[Aa](?i:uthorization)["']?[ \t]{0,4}[:=][ \t]{0,4}["']?\Z""")


def api_keys(text: str) -> Iterator[Span]:
    """Keys with the prefixes that their issuers document, and what follows an HTTP authentication scheme."""
    for match in _KEY.finditer(text):
        if generated(match[0]):
            yield Span(match.start(), match.end(), "api_key")
    for match in _SCHEME.finditer(text):
        if generated(match["value"]) or _HEADER.search(text[max(0, match.start() - 24) : match.start()]):
            yield Span(match.start("value"), match.end(), "api_key")


def jwts(text: str) -> Iterator[Span]:
    """JSON web tokens, signed (RFC 7519) or encrypted (RFC 7516)."""
    for match in _JWT.finditer(text):
        yield Span(match.start(), match.end(), "jwt")


_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?:\\[nr]|\s)*+[A-Za-z0-9+/=]{16,}+)*+")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK = 32 * 1024


def private_keys(text: str) -> Iterator[Span]:
    """PEM and PGP blocks (RFC 7468); of one that was cut off, as much as is there."""
    done, no_end_before = 0, 0
    for begin in _BEGIN.finditer(text) if "-----BEGIN" in text else ():
        if begin.start() < done:
            continue
        limit = min(len(text), begin.start() + _BLOCK)
        ending = None
        if limit > no_end_before:
            ending = _END.search(text, max(begin.start(), no_end_before), limit)
            no_end_before = limit if ending is None else no_end_before
        done = begin.end() if ending is None else ending.end()
        yield Span(begin.start(), done, "private_key")


_USERINFO = re.compile(r"://(?P<value>[^\s/:@\"'<>]{0,128}+:[^\s/\"'<>]{1,256})@(?=[\w\[])")


def url_credentials(text: str) -> Iterator[Span]:
    """The `user:password` of a URL (RFC 3986, 3.2.1)."""
    for match in _USERINFO.finditer(text) if "://" in text else ():
        yield Span(match.start("value"), match.end("value"), "url_credentials")


# ------------------------------------------------------------------------------------------------------ assignments

_ASSIGNED = re.compile(
    r"(?P<name>[Pp](?i:assword|asswd|assphrase|asscode|wd)|[Ss](?i:ecret|enha)|[Tt](?i:oken)|[Cc](?i:redential)"
    r"|[Aa](?i:pi[_-]?key|ccess[_-]?key|uth[_-]?key|ccountkey)|[Pp](?i:rivate[_-]?key)|[_-](?i:key))"
    r"""["'\]]{0,3}[ \t]{0,4}(?P<sign>:=|=>|==?|:)[ \t]{0,4}"""
    r"""(?:\\?["'](?P<quoted>[^"'\n\\]{1,256}+)|(?P<bare>[^\s"'<>&;,(){}\[\]`|\\]{4,}+))"""
)
_NO_VALUE = re.compile(
    r"(?:none|null|nil|true|false|undefined|required|optional|string|str|bytes|secret|password|redacted|\W{0,256})"
    r"|(?:env|file|given):.*|\$.*|os\..*|<[a-z0-9_:]+>.*|\{.*|\[.*",
    re.IGNORECASE | re.DOTALL,
)


def assignments(text: str) -> Iterator[Span]:
    """What is assigned to a name like `password` or `api_key`: anything quoted or after `=`; after a colon, which is
    also how sentences go on, only what isn't a plain word. A name that ends in `key` needs a random-looking value.
    """
    for match in _ASSIGNED.finditer(text):
        group = "quoted" if match["quoted"] is not None else "bare"
        value, name = match[group], match["name"].lower()
        if _NO_VALUE.fullmatch(value) or (match["sign"] == ":" and _in_token(text, *match.span())):
            continue
        if name in {"_key", "-key"}:
            sure = random_looking(value)
        elif group == "quoted" or "=" in match["sign"]:
            sure = len(value) >= 4
        else:
            sure = mixed(value) or (name.startswith("p") and not value.strip(".!?").isalpha())
        if sure:
            yield Span(*match.span(group), "secret")


def _in_token(text: str, start: int, end: int) -> bool:
    """Is it a part of a reversible token, such as `<secret:1:k7f2qab>`?"""
    opening = text.rfind("<", max(0, start - 32), start)
    return opening >= 0 and TOKEN.match(text, opening, end + 1) is not None


TOKEN = re.compile(r"<[a-z][a-z0-9_]{0,31}:(?:[0-9]{1,9}(?::[a-z2-7]{7})?|[a-z2-7]{13})>")
"""The tokens of a `Vault`. Digits and letters are too few, or of too few kinds, to hide anything in."""


def holds_secret(name: str, value: object) -> bool:
    """Is `value`, found under this name, a secret as a whole?"""
    return isinstance(value, str) and len(value) >= 4 and names_secret(name) and not _NO_VALUE.fullmatch(value)
