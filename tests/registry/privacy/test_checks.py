"""Check digits and the other rules, on numbers that their issuers publish."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.registry.privacy import checks

PUBLISHED = {
    checks.card: [
        "4111111111111111",
        "5555555555554444",
        "378282246310005",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
        "2223003122003222",
        "4222222222222",
        "6205500000000000004",
    ],
    checks.iban: [
        "DE89370400440532013000",
        "GB82WEST12345698765432",
        "FR1420041010050500013M02606",
        "NO9386011117947",
        "BR1800360305000010009795493C1",
        "MT84MALT011000012345MTLCAST001S",
    ],
    checks.cpf: ["52998224725", "11144477735"],
    checks.cnpj: ["11222333000181", "00000000000191", "12ABC34501DE35"],
    checks.ssn: ["123456789", "001010001"],
    checks.ipv4: ["8.8.8.8", "192.168.0.1"],
    checks.ipv6: ["2001:db8::1", "fe80::1:2", "::ffff:10.1.2.3", "fe80::1:2%eth0"],
}
NOT = {
    checks.card: ["4111111111111112", "9999999999999995", "0000000000000000", "411111111111", "1234567812345670"],
    checks.iban: ["DE88370400440532013000", "XX89370400440532013000", "DE8937040044053201300", "DE89", ""],
    checks.cpf: ["52998224724", "11111111111", "5299822472", ""],
    checks.cnpj: ["11222333000182", "12ABC34501DE36", "00000000000000", "12ABC34501DEXX"],
    checks.ssn: ["000123456", "666123456", "900123456", "123006789", "123450000", "078051120"],
    checks.ipv4: ["127.0.0.1", "0.0.0.0", "255.255.255.0", "1.2.3.256", "1.2.3", "01.2.3.4"],  # noqa: S104 - no socket
    checks.ipv6: ["::1", "::", "1::2", "12:34:56", "a::b", "gg::1:2:3"],
}


@pytest.mark.parametrize(("check", "value"), [(c, v) for c, values in PUBLISHED.items() for v in values])
def test_published_numbers(check, value) -> None:
    """Numbers out of the issuers' own documents are right."""
    assert check(value)


@pytest.mark.parametrize(("check", "value"), [(c, v) for c, values in NOT.items() for v in values])
def test_wrong_numbers(check, value) -> None:
    """A wrong digit, length, range or country is noticed."""
    assert not check(value)


@pytest.mark.parametrize("check", [checks.luhn, checks.cpf, checks.cnpj], ids=lambda check: check.__name__)
def test_one_wrong_digit_is_noticed(check) -> None:
    """Whichever digit is changed, and into whatever."""
    value = {"luhn": "4111111111111111", "cpf": "52998224725", "cnpj": "11222333000181"}[check.__name__]
    for place, digit in enumerate(value):
        for other in set(string.digits) - {digit}:
            assert not check(f"{value[:place]}{other}{value[place + 1 :]}")


@given(st.text(max_size=40))
def test_anything_has_an_answer(text: str) -> None:
    """No check raises, whatever it is given of its own alphabet, and none takes an empty text for something."""
    digits = "".join(c for c in text if c.isascii() and c.isdigit())
    for check in (checks.card, checks.cpf, checks.ssn):
        assert check(digits) in {True, False}
    for check in (checks.iban, checks.ipv4, checks.ipv6, checks.mixed, checks.random_looking):
        assert check(text) in {True, False}
