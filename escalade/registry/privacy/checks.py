"""Check digits and other rules by which a run of characters is what it looks like, or is not.

All functions take the bare value (no separators) and give a bool; none raises. Sources stand at each.
"""

from __future__ import annotations

import ipaddress
import itertools
import math
import re
from collections import Counter

IBAN_LENGTHS: dict[str, int] = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}  # fmt: skip
"""Country -> characters of an IBAN (the IBAN registry of ISO 13616)."""

_ISSUERS: tuple[tuple[int, int, int, tuple[int, ...]], ...] = (
    (1, 4, 4, (13, 16, 19)),  # Visa
    (2, 51, 55, (16,)),  # Mastercard
    (4, 2221, 2720, (16,)),  # Mastercard
    (4, 2200, 2204, (16, 17, 18, 19)),  # Mir
    (2, 34, 34, (15,)),  # American Express
    (2, 37, 37, (15,)),
    (3, 300, 305, (14, 16)),  # Diners Club
    (2, 36, 36, (14, 16, 19)),
    (2, 38, 39, (14, 16, 19)),
    (4, 3528, 3589, (16, 17, 18, 19)),  # JCB
    (4, 6011, 6011, (16, 19)),  # Discover
    (3, 644, 659, (16, 19)),  # Discover, RuPay, Elo
    (2, 62, 62, (16, 17, 18, 19)),  # UnionPay
    (2, 60, 60, (13, 16, 19)),  # RuPay, Hipercard
    (2, 50, 50, (13, 14, 15, 16, 17, 18, 19)),  # Maestro, Elo, Verve
    (2, 56, 58, (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    (2, 63, 63, (13, 14, 15, 16, 17, 18, 19)),
    (2, 67, 67, (13, 14, 15, 16, 17, 18, 19)),
    (2, 81, 82, (16,)),  # RuPay
)
"""(digits looked at, from, to, lengths): issuers' ranges of ISO/IEC 7812, as the networks publish them."""

_LENGTHS: dict[str, set[int]] = {}
"""First four digits -> lengths."""
for _n, _low, _high, _sizes in _ISSUERS:
    for _prefix in range(_low * 10 ** (4 - _n), (_high + 1) * 10 ** (4 - _n)):
        _LENGTHS.setdefault(str(_prefix), set()).update(_sizes)

_NEVER_ISSUED = frozenset({"078051120", "219099999"})
"""Numbers that were printed in advertisements; the Social Security Administration lists them as invalid."""


def luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1, annex B.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    doubled = digits[-2::-2].translate(_DOUBLED)
    return (sum(map(int, digits[-1::-2])) + sum(map(int, doubled))) % 10 == 0


_DOUBLED = str.maketrans("0123456789", "0246813579")
"""Twice a digit, and the sum of the digits of that."""


def issued(start: str) -> bool:
    """Do a card's first four digits belong to an issuer?"""
    return start in _LENGTHS


def card(digits: str) -> bool:
    """A payment card: 13-19 digits, of an issuer's range and length, not one digit repeated, Luhn right."""
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 2:
        return False
    return len(digits) in _LENGTHS.get(digits[:4], ()) and luhn(digits)


def iban(text: str) -> bool:
    """ISO 13616: a country's length, and ISO 7064 mod 97-10 over the rotated text. Upper case.

    >>> iban("GB82WEST12345698765432"), iban("GB82WEST12345698765433")
    (True, False)
    """
    if len(text) != IBAN_LENGTHS.get(text[:2]) or not (text.isascii() and text.isalnum() and text[2:4].isdigit()):
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def ssn(digits: str) -> bool:
    """A US social security number that can have been issued: area not 000, 666 or 900-999, group not 00, serial not
    0000 (Social Security Administration, POMS RM 10201.035).
    """
    if len(digits) != 9 or digits in _NEVER_ISSUED:
        return False
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in {"000", "666"} and area[0] != "9" and group != "00" and serial != "0000"


def cpf(digits: str) -> bool:
    """A Brazilian taxpayer number: 11 digits, the last two by mod 11 (Receita Federal).

    >>> cpf("52998224725"), cpf("52998224726"), cpf("11111111111")
    (True, False, False)
    """
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    return all(_mod11(digits[:n], range(n + 1, 1, -1)) == int(digits[n]) for n in (9, 10))


_CNPJ_WEIGHTS = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)


def cnpj(text: str) -> bool:
    """A Brazilian company number: 12 digits or, since July 2026, capitals, and two check digits by mod 11 over their
    ASCII codes less 48 (Receita Federal, IN RFB 2.229/2024).

    >>> cnpj("11222333000181"), cnpj("12ABC34501DE35"), cnpj("11222333000182")
    (True, True, False)
    """
    if len(text) != 14 or not text[12:].isdigit() or len(set(text)) == 1:
        return False
    return all(_mod11(text[:n], _CNPJ_WEIGHTS[-n:]) == int(text[n]) for n in (12, 13))


def _mod11(text: str, weights: range | tuple[int, ...]) -> int:
    rest = sum((ord(c) - 48) * w for c, w in zip(text, weights, strict=True)) % 11
    return 0 if rest < 2 else 11 - rest


def ipv4(text: str) -> bool:
    """A dotted address that is somebody's: not this host (0.0.0.0/8, 127.0.0.0/8) and no netmask."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return not (address.is_loopback or text.startswith(("0.", "255.255.")))


def ipv6(text: str) -> bool:
    """An address of RFC 4291 that is somebody's, and longer than what slices and scopes in code look like."""
    bare = text.partition("%")[0]
    try:
        address = ipaddress.IPv6Address(bare)
    except ValueError:
        return False
    groups = sum(1 for group in bare.split(":") if group)
    written = len(bare) >= 6 and (groups >= 3 or any(c.isdigit() for c in bare))
    return written and not (address.is_loopback or address.is_unspecified)


def mixed(text: str) -> bool:
    """Has letters and digits, as generated keys do and words don't."""
    return any(c.isdigit() for c in text) and any(c.isalpha() for c in text)


def generated(text: str) -> bool:
    """A generated key: letters and digits; or letters alone, of one case and longer than any word, or changing case
    more often than names in code do. Of 16 random letters 6 % have no digit, and 1 of 17 of these is not seen.
    """
    if mixed(text):
        return True
    run = max(_NO_LETTER.split(text), key=len)
    changes = sum(one.isupper() != other.isupper() for one, other in itertools.pairwise(run))
    return len(run) >= (16 if changes > 0.3 * len(run) else 24 if run.islower() or run.isupper() else math.inf)


_NO_LETTER = re.compile("[^A-Za-z]+")


def random_looking(text: str) -> bool:
    """At least 16 characters, letters and digits, at 3 bits of entropy per character or more (Shannon)."""
    if len(text) < 16 or not mixed(text):
        return False
    sample = text[:128]
    return -sum(n / len(sample) * math.log2(n / len(sample)) for n in Counter(sample).values()) >= 3.0
