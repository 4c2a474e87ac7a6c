"""A seeded corpus: sentences with one piece of personal data each, in the formats that people write, and sentences with
what only looks like it. Check digits are found by trying, with definitions other than those of the code under test.
"""

from __future__ import annotations

import base64
import json
import random
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

ALNUM = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Item:
    """`value` in `text` is of type `kind`; a hard negative has neither."""

    text: str
    kind: str = ""
    value: str = ""


class Maker:
    """Makes values of each type from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def some(self, alphabet: str, low: int, high: int | None = None) -> str:
        size = self.random.randint(low, high or low)
        return "".join(self.random.choices(alphabet, k=size))

    def digits(self, n: int) -> str:
        return self.some(string.digits, n)

    def one(self, *choices: str) -> str:
        return self.random.choice(choices)

    # ------------------------------------------------------------------------------------------------- personal data

    def email(self) -> str:
        first, last = self.one("ana", "bob", "jose.maria", "li", "o'brien"), self.some(string.ascii_lowercase, 3, 9)
        local = self.one(
            f"{first}.{last}", f"{first}_{last}", f"{last}+{first}", f"{last}{self.digits(3)}", f"{first}-x"
        )
        host = self.one("example", "mail", "uni-koeln", "x1", "sub.domain", "a.b.c")
        address = f"{local}@{host}.{self.one('com', 'org', 'co.uk', 'com.br', 'museum', 'io', 'de')}"
        if self.random.random() < 0.1:
            return quote(address)  # as it stands in URLs
        return address.upper() if self.random.random() < 0.1 else address

    def phone(self) -> str:
        nanp = (self.one("212", "415", "617", "303"), self.one("555", "667", "234"), self.digits(4))
        br = (self.one("11", "21", "47", "85"), f"9{self.random.randint(2000, 9999)}", self.digits(4))
        return self.one(
            "+1{}{}{}".format(*nanp),
            "+1 ({}) {}-{}".format(*nanp),
            "({}) {}-{}".format(*nanp),
            "{}-{}-{}".format(*nanp),
            "{}.{}.{}".format(*nanp),
            "1-{}-{}-{}".format(*nanp),
            "+55 {} {}-{}".format(*br),
            "+55{}{}{}".format(*br),
            "({}) {}-{}".format(*br),
            "{} {}-{}".format(*br),
            f"+44 20 7{self.digits(3)} {self.digits(4)}",
            f"020 7{self.digits(3)} {self.digits(4)}",
            f"07{self.random.randint(400, 999)} {self.digits(6)}",
            f"+49 {self.one('30', '89', '221')} {self.random.randint(1000000, 99999999)}",
            f"0{self.one('30', '89', '221')}/{self.random.randint(1000000, 9999999)}",
            "+33 6 {} {} {} {}".format(*(self.digits(2) for _ in range(4))),
            "0{} {} {} {} {}".format(self.one("1", "4", "6"), *(self.digits(2) for _ in range(4))),
            f"+351 91{self.digits(1)} {self.digits(3)} {self.digits(3)}",
            f"+91 9{self.digits(4)} {self.digits(5)}",
            f"0044 20 7{self.digits(3)} {self.digits(4)}",
        )

    def card(self) -> str:
        prefix, size = self.random.choice(
            [
                *(("4", 16), ("4", 13), ("51", 16), ("55", 16), ("2221", 16), ("2720", 16), ("34", 15), ("37", 15)),
                *(("6011", 16), ("65", 16), ("300", 14), ("36", 14), ("3530", 16), ("62", 16), ("4", 19), ("5067", 16)),
            ]
        )
        body = prefix + self.digits(size - len(prefix) - 1)
        number = next(body + c for c in string.digits if _luhn_by_hand(body + c))
        return self.one(number, _grouped(number, self.one(" ", "-"), size))

    def iban(self) -> str:
        country, shape = self.random.choice(list(IBANS.items()))
        body = "".join(self.some({"n": string.digits, "a": string.ascii_uppercase}[c], 1) for c in shape)
        check = next(f"{n:02}" for n in range(2, 99) if _mod97_by_hand(country, f"{n:02}", body))
        text = f"{country}{check}{body}"
        spaced = " ".join(text[i : i + 4] for i in range(0, len(text), 4))
        return self.one(text, spaced, spaced.replace(" ", "-"), text.lower())

    def ssn(self) -> str:
        area = self.random.choice([n for n in range(1, 900) if n != 666])
        parts = (f"{area:03}", f"{self.random.randint(1, 99):02}", f"{self.random.randint(1, 9999):04}")
        return self.one("-", " ").join(parts)

    def cpf(self) -> str:
        body = self.digits(9)
        text = next(body + f"{n:02}" for n in range(100) if _cpf_by_hand(body + f"{n:02}"))
        return self.one(f"{text[:3]}.{text[3:6]}.{text[6:9]}-{text[9:]}", text, f"{text[:9]}-{text[9:]}")

    def cnpj(self) -> str:
        letters = self.random.random() < 0.25
        body = self.some(string.ascii_uppercase + string.digits if letters else string.digits, 12)
        text = next(body + f"{n:02}" for n in range(100) if _cnpj_by_hand(body + f"{n:02}"))
        formatted = f"{text[:2]}.{text[2:5]}.{text[5:8]}/{text[8:12]}-{text[12:]}"
        return formatted if letters else self.one(formatted, text)

    def ip(self) -> str:
        octets = [self.random.choice([10, 172, 192, 8, 203, 99]), *(self.random.randint(0, 254) for _ in range(3))]
        groups = [f"{self.random.randint(1, 65535):x}" for _ in range(8)]
        return self.one(
            ".".join(map(str, octets)),
            ":".join(groups),
            ":".join(groups).upper(),
            f"2001:db8::{groups[0]}",
            f"fe80::{groups[0]}:{groups[1]}:{groups[2]}",
            f"2001:db8:{groups[0]}::",
            "::ffff:" + ".".join(map(str, octets)),
        )

    # ------------------------------------------------------------------------------------------------------- secrets

    def api_key(self) -> str:
        tail = self.some(ALNUM, 44) + "7aB"
        return self.one(
            f"sk-{tail}",
            f"sk-proj-{tail[:20]}_{tail[20:]}",
            f"sk-ant-api03-{tail}-AA",
            f"ghp_{tail[-36:]}",
            f"github_pat_11{tail[:20]}_{tail}",
            f"glpat-{tail[-20:]}",
            f"AKIA{self.some(string.ascii_uppercase + '234567', 15)}2",
            f"xoxb-{self.digits(11)}-{self.digits(12)}-{tail[:24]}",
            f"AIza{tail[-35:]}",
            f"hf_{tail[-34:]}",
            f"sk_{self.one('live', 'test')}_{tail[-24:]}",
            f"gsk_{tail}",
            f"SG.{tail[:22]}.{tail[-43:]}",
            f"npm_{tail[-36:]}",
            f"hvs.CAESI{tail}",
            f"sk-{self.some(string.ascii_letters, 40)}",
        )

    def jwt(self) -> str:
        parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": self.digits(10), "name": self.some(ALNUM, 8), "iat": 151623}]
        encoded = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts]
        return ".".join([*encoded, self.some(ALNUM + "-_", 43)])

    def private_key(self) -> str:
        kind = self.one("RSA ", "EC ", "", "OPENSSH ", "ENCRYPTED ")
        lines = "\n".join(self.some(ALNUM + "+/", 64) for _ in range(self.random.randint(1, 12)))
        return f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"

    def url_credentials(self) -> str:
        return f"{self.some(string.ascii_lowercase, 3, 8)}:{self.some(ALNUM + '!$%', 6, 16)}"

    def secret(self) -> str:
        return self.some(ALNUM, 10, 24) + self.digits(2) + "x"


IBANS = {
    "DE": "n" * 18, "GB": "aaaa" + "n" * 14, "FR": "n" * 23, "ES": "n" * 20, "NL": "aaaa" + "n" * 10, "NO": "n" * 11,
    "BR": "n" * 23 + "a" + "n", "CH": "n" * 17, "IT": "a" + "n" * 22, "PL": "n" * 24, "MT": "aaaa" + "n" * 23,
    "SA": "n" * 20, "PT": "n" * 21, "BE": "n" * 12, "AE": "n" * 19, "SE": "n" * 20,
}  # fmt: skip

SENTENCES: dict[str, list[str]] = {
    "": [
        "{}", "Contact: {}.", "We got {} yesterday, thanks.", '{{"value": "{}", "n": 3}}', "a,b,{},d", "({})",
        "<p>{}</p>", "user said '{}' and left", "log line 12 [info] {} done", "\t{}\n", "O valor é {}, obrigado.",
        "see {}; then go on", "value={}", "-> {}",
    ],
    "phone": [
        "{}", "Call {} now.", "phone: {}", "ring me at {}, please", "Tel. {}", '{{"phone": "{}"}}', "({})", "fone {}",
        "<td>{}</td>", "my number is {}!", "{} (mobile)",
    ],
    "url_credentials": ["https://{}@host.example/x", "postgres://{}@db:5432/app", "see redis://{}@[::1]:6379 here"],
    "secret": [
        "password={}", 'password: "{}"', "DB_PASSWORD={}", '{{"api_key": "{}"}}', "client_secret: '{}'", "pwd={};x=1",
        "https://x.example/?token={}&n=1", "export AUTH_TOKEN={}", "apiKey={}", "senha: {}", '"accessToken":"{}"',
    ],
    "api_key": ["{}", "key {} leaked", "Authorization: Bearer {}", '{{"k": "{}"}}', "export KEY={}", "curl -H 'X: {}'"],
}  # fmt: skip


def positives(seed: int, each: int) -> list[Item]:
    """`each` items of every type."""
    maker, items = Maker(seed), []
    kinds = ("email", "phone", "card", "iban", "ssn", "cpf", "cnpj", "ip", "api_key", "jwt", "private_key")
    for kind in (*kinds, "url_credentials", "secret"):
        make: Callable[[], str] = getattr(maker, kind)
        for _ in range(each):
            value = make()
            sentence = maker.random.choice(SENTENCES.get(kind, SENTENCES[""]))
            items.append(Item(sentence.format(value), kind, value))
    return items


def negatives(seed: int, count: int) -> list[Item]:
    """What is none of it."""
    maker = Maker(seed)
    pick, n = maker.random, maker.random.randint
    makers: list[Callable[[], str]] = [
        lambda: f"order {n(10**7, 10**10)} was shipped",
        lambda: f"Order No. {maker.digits(4)}-{maker.digits(6)}",
        lambda: f"invoice INV-{n(2019, 2026)}-{maker.digits(6)}",
        lambda: f"{n(1990, 2030)}-{n(1, 12):02}-{n(1, 28):02}T{_time(pick)}Z",
        lambda: f"on {n(1, 28):02}.{n(1, 12):02}.{n(1990, 2030)} at {_time(pick)}",
        lambda: f"{n(1, 12):02}/{n(1, 28):02}/{n(1990, 2030)} {_time(pick)}",
        lambda: f"version {n(0, 20)}.{n(0, 20)}.{n(0, 99)}",
        lambda: f"v{n(0, 20)}.{n(0, 20)}.{n(0, 99)}.{n(0, 99)}",
        lambda: f"pip install thing=={n(0, 20)}.{n(0, 20)}.{n(0, 9)}.{n(0, 9)}",
        lambda: f"firmware {n(0, 20)}.{n(0, 20)}.{n(0, 99)}.{n(0, 99)}",
        lambda: f"commit {maker.some('0123456789abcdef', 40)}",
        lambda: f"sha256:{maker.some('0123456789abcdef', 64)}",
        lambda: f"md5 {maker.some('0123456789abcdef', 32)} ok",
        lambda: f"id {uuid.UUID(int=pick.getrandbits(128), version=4)}",
        lambda: f"${n(1, 999)},{maker.digits(3)}.{maker.digits(2)} or {n(1, 99)}.{maker.digits(2)} EUR",
        lambda: f"R$ {n(1, 99)}.{maker.digits(3)},{maker.digits(2)}",
        lambda: f"ISBN 978-{n(0, 9)}-{maker.digits(3)}-{maker.digits(5)}-{n(0, 9)}",
        lambda: f"ISBN 978{maker.digits(10)}",
        lambda: f"ISBN-10 {n(0, 9)}-{maker.digits(3)}-{maker.digits(5)}-{maker.one('X', '7')}",
        lambda: f"ticket {maker.digits(3)}-{maker.digits(4)}",
        lambda: f"SKU {maker.digits(3)}-{maker.digits(3)}-{maker.digits(4)}",
        lambda: f"ref: {maker.digits(4)}-{maker.digits(4)}-{maker.digits(4)}",
        lambda: f"GET /v1/items/{n(1, 10**9)}?page={n(1, 99)} 200 {n(1, 9999)} bytes",
        lambda: f"ts={n(1_600_000_000, 1_900_000_000)} ms={n(1_600_000_000_000, 1_900_000_000_000)}",
        lambda: f"{pick.random():.12f} +/- {pick.random():.6e}",
        lambda: f"x = [{', '.join(str(n(0, 99999)) for _ in range(8))}]",
        lambda: f"{n(1, 99)} {n(1, 99)} {n(1, 99)} {n(1, 99)} {n(1, 99)}",
        lambda: f"tool crm.search@{n(0, 9)}.{n(0, 9)}.{n(0, 9)} by @{maker.one('ana', 'bob')}",
        lambda: f"std::{maker.one('vector', 'map')}<int> a::b x[{n(1, 9)}::{n(2, 9)}] at {_time(pick)}",
        lambda: f"mac {':'.join(maker.some('0123456789abcdef', 2) for _ in range(6))}",
        lambda: f"max_tokens={n(1, 9999)}, tokens: {n(1, 9999)}, total_tokens={n(1, 99999)}",
        lambda: maker.one(
            "the password must be changed", "password: required", "secret: none", "token = None", "api_key=env:NAME",
            "a bearer of good news", "sk-learn is no key", "task-force-of-the-year-in-town", "key: value", "pwd",
            "Bearer AuthenticationHandlerOptions", "a basic authentication-required answer", "hvs.example",
            "sk-learn-compatible-things", "GET /%40types%2Fnode", "left-pad%401.3.0", "Token internationalization",
            "password=${PASSWORD}", "token: end of sentence", "https://host.example:8080/a:b/c", "icon@2x.png",
        ),
        lambda: f"SSN 000-{maker.digits(2)}-{maker.digits(4)} is invalid",
        lambda: f"test card {_not_luhn(maker, '4')}",
        lambda: f"{_not_luhn(maker, '51')[:16]} declined",
        lambda: f"DE{maker.digits(2)} {maker.digits(4)} {maker.digits(4)} {maker.digits(3)}",
        lambda: f"pi is 3.14159 26535 89793 and e 2.71828 {maker.digits(5)}",
        lambda: f"lat {pick.uniform(-90, 90):.6f}, lon {pick.uniform(-180, 180):.6f}",
        lambda: f"{n(2, 9)}x{n(100, 999)} px, {n(1, 100)} %, {n(1, 12)}:{n(10, 59)} pm",
        lambda: f"Chapter {n(1, 9)}.{n(1, 9)}.{n(1, 9)}.{n(1, 9)}",
        lambda: f"zip {maker.digits(5)}-{maker.digits(4)}, CEP {maker.digits(5)}-{maker.digits(3)}",
    ]  # fmt: skip
    return [Item(makers[turn % len(makers)]()) for turn in range(count)]


def _time(pick: random.Random) -> str:
    return f"{pick.randint(0, 23):02}:{pick.randint(0, 59):02}:{pick.randint(0, 59):02}"


def _not_luhn(maker: Maker, prefix: str) -> str:
    while _luhn_by_hand(number := prefix + maker.digits(16 - len(prefix))):
        pass
    return number


def _grouped(number: str, gap: str, size: int) -> str:
    shape = {15: (4, 6, 5), 14: (4, 6, 4), 13: (4, 4, 4, 1), 19: (4, 4, 4, 4, 3)}.get(size, (4, 4, 4, 4))
    pieces, at = [], 0
    for width in shape:
        pieces.append(number[at : at + width])
        at += width
    return gap.join(pieces)


def _luhn_by_hand(number: str) -> bool:
    total = 0
    for position, char in enumerate(reversed(number)):
        n = int(char) * (2 if position % 2 else 1)
        total += n - 9 if n > 9 else n
    return total % 10 == 0


def _mod97_by_hand(country: str, check: str, body: str) -> bool:
    rest = 0
    for char in body + country + check:
        for digit in str(ord(char) - 55) if char.isalpha() else char:
            rest = (rest * 10 + int(digit)) % 97
    return rest == 1


def _cpf_by_hand(text: str) -> bool:
    first = sum(int(d) * w for d, w in zip(text, range(10, 1, -1), strict=False)) * 10 % 11 % 10
    second = sum(int(d) * w for d, w in zip(text, range(11, 1, -1), strict=False)) * 10 % 11 % 10
    return text[9:] == f"{first}{second}" and len(set(text)) > 1


def _cnpj_by_hand(text: str) -> bool:
    values = [ord(c) - ord("0") for c in text]
    first = sum(v * w for v, w in zip(values, (5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2), strict=False)) * 10 % 11 % 10
    second = sum(v * w for v, w in zip(values, (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2), strict=False)) * 10 % 11 % 10
    return text[12:] == f"{first}{second}"
