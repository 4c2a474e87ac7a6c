"""The redactor: what it replaces, what it leaves, and what holds for any text and any value."""

from __future__ import annotations

import datetime as dt
import enum
import random
import re
import time
import uuid
from collections import Counter, namedtuple
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.redaction import ADVERSARIAL, filled
from escalade.errors import BadInput, UnknownName
from escalade.registry import privacy, secrets
from escalade.registry.privacy import Pattern, Redactor
from escalade.registry.secrets import Secret
from tests.registry.privacy.corpus import negatives, positives

PIECES = [
    "ana@example.com", "4111 1111 1111 1111", "4111111111111111", "123-45-6789", "529.982.247-25", "192.168.1.7",
    "+1 212 555 0123", "(11) 98765-4321", "DE89 3704 0044 0532 0130 00", "sk-abcdefghij1234567890", "password=", ":",
    "https://", "user:pa55word@", "<email>", "<", ">", " ", "\n", "7", "42", "-", ".", "x", "order ", "phone: ", '"',
    "2001:db8::7", "token: ", "eyJhbGciOi.eyJzdWIiOi.abc", "v", "@", "/", "+", "(", ")", "é", "\ud800", "٤١",
    "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "abcdefghijklmnop1", "Bearer ", "api_key: '", "'",
]  # fmt: skip
mixtures = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=14).map("".join)
values = st.recursive(
    mixtures | st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(mixtures, inner, max_size=4),
    max_leaves=12,
)


@given(mixtures)
@example("4111 1111 1111 1111ana@example.com")
@example("bob@key.id 212-555-0123")
@settings(max_examples=200)
def test_redacting_twice_changes_nothing(text: str) -> None:
    """What was redacted has nothing left to find."""
    once = privacy.redact(text)
    twice = privacy.redact(once.text)
    assert twice.text == once.text
    assert not twice.counts


@pytest.mark.slow
def test_one_look_is_enough_where_it_is_taken_to_be() -> None:
    """A second look is left out where a find stands on its own; on 8,000 random mixtures it would find nothing."""
    rng, redactor = random.Random(5), Redactor(regions=())
    for _ in range(8_000):
        text = "".join(rng.choices(PIECES, k=rng.randint(2, 10)))
        assert not redactor.find(redactor.redact(text).text), repr(text)


@given(mixtures)
def test_growth_is_bounded(text: str) -> None:
    """A placeholder is never much longer than what it stands for: the text at most doubles."""
    assert len(privacy.redact(text).text) <= 2 * len(text) + 32


@given(mixtures, st.sampled_from([i for i in positives(3, 20) if i.kind != "phone"]), mixtures)
def test_no_found_value_survives(before: str, item, after: str) -> None:
    """Whatever stands around it, a value between spaces is gone."""
    clean = privacy.redact(f"{before} \n{item.text}\n {after}").text
    assert item.value not in clean or item.value in before or item.value in after


@given(values)
@settings(max_examples=150)
def test_any_value_keeps_its_shape(value) -> None:
    """Nested values are never refused; lists keep their length, dicts their number of entries; twice is as once."""
    clean = privacy.redact_value(value)
    assert type(clean) is type(value) or isinstance(clean, str)
    if isinstance(value, list | dict):
        assert len(clean) == len(value)
    again = privacy.redact_value(clean)
    assert repr(again) == repr(clean) or isinstance(value, dict | list)


def test_counts_and_text() -> None:
    """The counts say how many of each type there were; the result prints as its text."""
    clean = privacy.redact("ana@example.com, bob@example.com: 4111 1111 1111 1111")
    assert str(clean) == "<email>, <email>: <card>"
    assert clean.counts == {"email": 2, "card": 1}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/find?mail=ada%40example.com&n=1", "/find?mail=<email>&n=1"),
        ("ada%2Bnews%40example.com", "<email>"),
        ("ada%2540example.com", "<email>"),
        ("%22ada%40example.com%22", "<email>%22"),
        ("https://u:pw1@host.example/?m=ada%40example.com", "https://<url_credentials>@host.example/?m=<email>"),
        ("ada%40example.com of https://u:pw1@host.example", "<email> of https://<url_credentials>@host.example"),
        ("https://ada%40example.com:pw@host.example/", "https://<url_credentials>@host.example/"),
        ("left-pad%401.3.0 and %40types%2Fnode.js", "left-pad%401.3.0 and %40types%2Fnode.js"),
        ("..%40example.com", "..%40example.com"),
    ],
)
def test_addresses_in_urls(text: str, clean: str) -> None:
    """Encoded once or more, beside credentials too. A scope of npm is no address."""
    assert privacy.redact(text).text == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("hvs.CAESIJabcdefghijklmnopqrstuvwxyz0123456789", "<api_key>"),
        ("hvb.AAAAAQJxyzabcdefghijklm12", "<api_key>"),
        ("sk-abcdefghijklmnopqrstuvwx", "<api_key>"),
        ("sk-QwErTyUiOpAsDfGh", "<api_key>"),
        ("Bearer xKqPzLmWvTbNcRdYsG", "Bearer <api_key>"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer <api_key>"),
        ("{'authorization': 'Basic abcdefghijklmnop'}", "{'authorization': 'Basic <api_key>'}"),
        ("sk-learn-compatible-estimators", None),
        ("sk-internationalization", None),
        ("Bearer AuthenticationHandlerOptions", None),
        ("Bearer authentication-required-here", None),
    ],
)
def test_keys_without_digits(text: str, clean: str | None) -> None:
    """Letters alone are a key where no word and no name in code looks like them, or after the header's name."""
    assert privacy.redact(text).text == (text if clean is None else clean)


class TestValues:
    def test_nested(self) -> None:
        """Texts, bytes, whole numbers and keys, at any depth; what is no text stays what it is."""
        now, some = dt.datetime(2026, 3, 1, tzinfo=dt.UTC), uuid.uuid4()
        value = {"to": ["ana@example.com", {"ana@example.com": 4111111111111111}], "n": (3, 2.5, None, True, now, some)}
        assert privacy.redact_value(value) == {
            "to": ["<email>", {"<email>": "<card>"}],
            "n": (3, 2.5, None, True, now, some),
        }
        assert privacy.redact_value(b"mail ana@example.com \xff") == b"mail <email> \xff"
        assert privacy.redact_value({"ana@example.com", "x"}) == {"<email>", "x"}

    def test_under_a_secret_name(self) -> None:
        """What stands under a name like `password` is replaced as a whole; counts of tokens and references are not."""
        value = {"password": "correct horse", "api_key": "abcd", "max_tokens": 12, "key": "k", "token": "env:NAME"}
        assert privacy.redact_value(value) == {**value, "password": "<secret>", "api_key": "<secret>"}

    def test_two_keys_of_one_placeholder(self) -> None:
        """Both entries stay."""
        clean = privacy.redact_value({"a@example.com": 1, "b@example.com": 2, "c@example.com": 3})
        assert sorted(clean.values()) == [1, 2, 3]
        assert not any("@" in key for key in clean)

    def test_types_are_kept(self) -> None:
        """Named tuples, frozen sets, byte arrays, and members of enums without finds."""
        point = namedtuple("point", "x y")
        color = enum.StrEnum("color", "red")
        assert privacy.redact_value(point("a@example.com", 1)) == point("<email>", 1)
        assert privacy.redact_value(frozenset({"a@example.com"})) == frozenset({"<email>"})
        assert privacy.redact_value(bytearray(b"a@example.com")) == bytearray(b"<email>")
        assert privacy.redact_value([color.red])[0] is color.red
        assert privacy.redact_value(Decimal("1.5")) == Decimal("1.5")

    def test_weird_input(self) -> None:
        """Lone surrogates, huge numbers, cycles, and objects that can't even be printed."""

        class Broken:
            def __repr__(self) -> str:
                raise RuntimeError("ana@example.com")

        class Customer:
            def __repr__(self) -> str:
                return "Customer(ana@example.com)"

        cycle: list[object] = []
        cycle.append(cycle)
        assert privacy.redact_value("\ud800 ana@example.com") == "\ud800 <email>"
        assert privacy.redact_value(10**5000) == 10**5000
        assert "too deeply" in repr(privacy.redact_value(cycle))
        assert privacy.redact_value(Broken()) == "<Broken>"
        assert privacy.redact_value(Customer()) == "Customer(<email>)"

    def test_counts(self) -> None:
        """Finds in nested values are counted, for the audit."""
        counts: Counter[str] = Counter()
        privacy.default().redact_value({"a": ["x@example.com"], "password": "hunter22", "n": 4111111111111111}, counts)
        assert counts == {"email": 1, "secret": 1, "card": 1}


class TestChoices:
    def test_types(self) -> None:
        """Only the types asked for; an unknown one is named, with those that there are."""
        text = "ana@example.com 4111 1111 1111 1111 +12125550123"
        assert Redactor(["card"]).redact(text).text == "ana@example.com <card> +12125550123"
        assert Redactor([]).redact(text).text == text
        with pytest.raises(UnknownName, match="did you mean 'email'"):
            Redactor(["emial"])

    def test_own_patterns(self) -> None:
        """A pattern of one's own has a placeholder, a check, and may replace a part of its match."""
        badge = Pattern("badge", r"\bB(?P<value>[0-9]{6})\b", check=lambda digits: digits[-1] == "7")
        clean = Redactor([], patterns=[badge]).redact("B123457 B123456")
        assert clean.text == "B<badge> B123456"

    def test_a_check_that_raises_is_a_yes(self) -> None:
        """What can't be decided is not let through."""
        odd = Pattern("odd", "[0-9]+", check=lambda digits: 1 / 0)
        assert Redactor([], patterns=[odd]).redact("n 12").text == "n <odd>"

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Pattern("Not a word", "x"),
            lambda: Pattern("broken", "("),
            lambda: Pattern("everywhere", "x*"),
            lambda: Redactor(patterns=[Pattern("a", "x"), Pattern("a", "y")]),
            lambda: Redactor(patterns=[Pattern("email", "x")]),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, make) -> None:
        """Names that are none or taken, expressions that are none or match everywhere."""
        with pytest.raises(BadInput):
            make()

    def test_overlaps_go_to_the_longer_one(self) -> None:
        """Of overlapping finds one is left, and nothing of the others."""
        assert privacy.redact("4111111111111111@example.com").text == "<email>"
        assert (
            privacy.redact("https://ana:s3cretpw@db.example.com/x").text == "https://<url_credentials>@db.example.com/x"
        )
        word = Pattern("word", "ana@exam")
        assert Redactor(patterns=[word]).redact("(ana@example.com)").text == "(<email>)"

    def test_other_scripts(self) -> None:
        """Digits of other scripts, typographic dashes and spaces are digits, dashes and spaces."""
        arabic = "".join(chr(0x660 + int(c)) if c != " " else c for c in "4111 1111 1111 1111")
        text = f"{arabic}, 529.982.247\u201125 and 4111\u00a01111\u00a01111\u00a01111"
        assert privacy.redact(text).text == "<card>, <cpf> and <card>"

    def test_default(self) -> None:
        """An application may replace the redactor of logs and errors."""
        before = privacy.default()
        try:
            privacy.set_default(Redactor(["card"]))
            assert privacy.redact("ana@example.com").text == "ana@example.com"
        finally:
            privacy.set_default(before)


class TestKnownSecrets:
    def test_values_that_were_revealed(self, monkeypatch) -> None:
        """However plain it looks, a secret that was revealed is replaced, also quoted for URLs, JSON, or as base64."""
        monkeypatch.setenv("PLAIN_THING", 'correct horse/"battery"')
        value = Secret("env:PLAIN_THING").reveal()
        guises = [
            value,
            "correct%20horse%2F%22battery%22",
            r"correct horse/\"battery\"",
            "Y29ycmVjdCBob3JzZS8iYmF0dGVyeSI=",
        ]
        for guise in guises:
            clean = privacy.redact(f"x {guise} y")
            assert "horse" not in clean.text
            assert clean.counts == {"secret": 1}
        assert Redactor(known=False).redact(value).text == value

    def test_short_values_stay(self) -> None:
        """A value of a few letters is not looked for: it would leave no text legible."""
        Secret.of("abc").reveal()
        assert privacy.redact("abcabc").text == "abcabc"

    def test_of_the_environment(self, monkeypatch) -> None:
        """Keys that a library below us reads for itself are known, too; other variables aren't."""
        monkeypatch.setenv("CANARY_PROVIDER_API_KEY", "quite-plain-words-7")
        monkeypatch.setenv("CANARY_REGION", "somewhere-else-7777")
        secrets.remember_environment()
        assert privacy.redact("quite-plain-words-7 in somewhere-else-7777").text == "<secret> in somewhere-else-7777"


class TestTime:
    @pytest.mark.parametrize("name", ADVERSARIAL)
    def test_linear(self, name: str) -> None:
        """Twice the text takes twice the time, give or take what the machine does besides."""
        redactor, piece = Redactor(), ADVERSARIAL[name]
        one, two = filled(piece, 100 * 1024), filled(piece, 200 * 1024)
        ratios = []
        for _ in range(3):
            ratios.append(_seconds(redactor, two) / _seconds(redactor, one))
            if ratios[-1] < 3:
                break
        assert min(ratios) < 3, ratios

    @pytest.mark.slow
    def test_worst(self) -> None:
        """No text of 100 KB takes more than a second."""
        redactor = Redactor()
        redactor.redact("020 7946 0958")  # the library loads what it knows of a country when it is asked
        assert max(_seconds(redactor, filled(piece, 100 * 1024)) for piece in ADVERSARIAL.values()) < 1

    def test_the_library_is_asked_a_bounded_number_of_times(self) -> None:
        """A table of 5,000 numbers that could be phone numbers takes no longer than other tables."""
        text = " ,".join(f"{n % 89 + 10} {n * 7919 % 8999 + 1000} {n * 31 % 899 + 100}" for n in range(5000))
        assert _seconds(Redactor(), text) < 1


def _seconds(redactor: Redactor, text: str) -> float:
    """Of this thread's own work: the machine may be busy."""
    began = time.thread_time()
    redactor.redact(text)
    return time.thread_time() - began


def test_long_texts_as_short_ones() -> None:
    """What is found in a line is found among 4,000 others, too."""
    items = [item for item in positives(11, 30) if item.kind not in {"private_key", "phone"}]
    noise = [item.text for item in negatives(11, 4000)]
    text = "\n;\n".join(piece for pair in zip([i.text for i in items], noise, strict=False) for piece in pair)
    clean = privacy.redact(text).text
    left = [item for item in items if re.search(rf"(?<!\w){re.escape(item.value)}(?!\w)", clean)]
    assert not left
