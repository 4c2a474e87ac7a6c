"""Redaction: milliseconds per KB of ordinary text, of text full of personal data, and of texts made to slow it down.

The ratio of an adversarial text is what twice its size takes, over twice the time: 1 is linear, 2 quadratic.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from escalade.registry.privacy.redactor import Redactor

LIMIT, LINEAR, SIZE = 0.5, 1.5, 100 * 1024

PROSE = (
    "Language models route questions to a cheaper model first; when the confidence is low they climb to a dearer one. "
    "The ledger keeps the sum of settled and held below every limit at any moment, and 42 tests hold it. "
)
LOG = (
    '2026-03-01T12:30:05Z INFO [worker-7] call crm.search@1.2.0 {"query": "open orders", "limit": 10, "tokens": 312} '
    "took 12.4 ms, cost $0.0021, user ana.souza@example.com from 203.0.113.9, request 7f3a9c21-77aa-4b02-9d9e-1fd2b6\n"
)
DENSE = (
    "Call (212) 555-0123 or +55 11 98765-4321; card 4111 1111 1111 1111, IBAN DE89 3704 0044 0532 0130 00, CPF "
    "529.982.247-25, mail to ana@example.com, sk-proj-abcdefghijklmnop1234567890, host 192.168.10.4, SSN 123-45-6789. "
)
ORDINARY = {"prose": PROSE, "log lines": LOG}
ADVERSARIAL = {
    "43 finds per KB": DENSE,
    "a local part without end": "a.",
    "at signs": "a@",
    "addresses cut off": "a@b.c.d.e.f.g.h.i-",
    "escapes of URLs": "%4",
    "encoded local parts": "a%41",
    "encoded at signs": "a%40",
    "digits": "4",
    "cards that are none": "4111 1111 1111 1112 ",
    "digits with separators": "1 2-3.",
    "opening brackets": "(+",
    "phone numbers that are none": "1234 567890, ",
    "country codes": "DE89 ",
    "colons": "1:",
    "keys cut off": "-eyJ",
    "key prefixes": "sk-",
    "private keys without end": "-----BEGIN PRIVATE KEY-----",
    "URLs without credentials": "://a:",
    "passwords without value": "password=",
    "quotes": "secret: '",
    "dotted numbers": "1.1.1.",
    "escapes in a key": "-----BEGIN PRIVATE KEY-----" + "\\n" * 50,
}


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """The best of the repeats, for each text."""
    redactor = Redactor()
    figures = [_ordinary(name, filled(text, SIZE), redactor, repeats) for name, text in ORDINARY.items()]
    return [*figures, *(_adversarial(name, text, redactor, repeats) for name, text in ADVERSARIAL.items())]


def filled(text: str, size: int) -> str:
    """The text again and again, `size` characters of it."""
    return (text * (size // len(text) + 1))[:size]


def best(measured: Callable[[], object], repeats: int) -> float:
    """Seconds of this thread's own work."""
    times = []
    for _ in range(repeats):
        began = time.thread_time()
        measured()
        times.append(time.thread_time() - began)
    return min(times)


def _ordinary(name: str, text: str, redactor: Redactor, repeats: int) -> dict[str, Any]:
    value = best(lambda: redactor.redact(text), repeats) * 1e3 / (len(text) / 1024)
    return _figure(name, value, f"<= {LIMIT:g} ms/KB", value <= LIMIT) | {"note": "100 KB"}


def _adversarial(name: str, text: str, redactor: Redactor, repeats: int) -> dict[str, Any]:
    one, two = filled(text, SIZE), filled(text, 2 * SIZE)
    once, twice = (best(lambda text=text: redactor.redact(text), repeats) for text in (one, two))
    value, ratio = once * 1e3 / (SIZE / 1024), twice / once / 2
    return _figure(name, value, "linear", ratio < LINEAR) | {"ratio": ratio, "note": "200 KB to twice 100 KB"}


def _figure(name: str, value: float, limit: str, ok: bool) -> dict[str, Any]:  # noqa: FBT001 - a field
    name = f"redact: {name}"
    return {"name": name, "value": value, "unit": "ms/KB", "limit": limit, "ok": ok, "ratio": None, "note": ""}
