"""Money: exact, in nano-dollars, from decimal dollars and never from a float."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, localcontext

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic import BaseModel

from escalade.errors import BadInput
from escalade.money import Money, money_or_none

nanos = st.integers(-(10**18), 10**18)


@pytest.mark.parametrize(
    ("dollars", "nano"),
    [
        ("0.05", 50_000_000), ("$1", 10**9), (" 2.5 ", 2_500_000_000), ("1_000", 10**12), (Decimal("0.1"), 10**8),
        ("1e-9", 1), ("0.0000000001", 1), ("-0.0000000011", -1), (Money(7), 7), ("0", 0),
    ],
)  # fmt: skip
def test_from_dollars(dollars: object, nano: int) -> None:
    """Strings and Decimals are dollars; a fraction of a nano-dollar rounds up, in our disfavour."""
    assert int(Money.of(dollars)) == nano


@pytest.mark.parametrize("bad", [0.1, 1, True, None, "", "ten", "NaN", "inf", Decimal("inf"), b"1"])
def test_what_is_no_money(bad: object) -> None:
    """A float can't be exact, a bare int could mean dollars or nano-dollars, and words are no amount: all are
    refused.
    """
    with pytest.raises(BadInput, match="not an amount of dollars"):
        Money.of(bad)


@given(nanos)
def test_what_is_printed_reads_back(nano: int) -> None:
    """`str` and `repr` are exact: the amount read back is the same."""
    money = Money(nano)
    assert Money.of(str(money).replace("$", "")) == money
    assert eval(repr(money)) == money  # noqa: S307 - our own repr
    assert Money.of(money.dollars) == money


@given(nanos, nanos)
def test_arithmetic_stays_money(a: int, b: int) -> None:
    """Sums, differences and negatives of amounts are amounts, exact; with ints as nano-dollars too."""
    for result, expected in (
        (Money(a) + Money(b), a + b), (Money(a) - b, a - b), (a - Money(b), a - b), (-Money(a), -a), (sum([Money(a),
        Money(b)]), a + b),
    ):  # fmt: skip
        assert type(result) is Money
        assert result == expected


def test_how_it_looks() -> None:
    """It reads as dollars, without trailing zeros and without an exponent, and formats as a number on demand."""
    assert [str(Money(n)) for n in (0, 1, -1, 1_500_000_000, 10**18)] == [
        "$0", "$0.000000001", "-$0.000000001", "$1.5", "$1000000000",
    ]  # fmt: skip
    assert repr(Money(50_000_000)) == "Money.of('0.05')"
    assert f"{Money(1_234_000_000):.2f}" == "1.23"
    assert f"{Money(5):>15}" == "   $0.000000005"
    assert f"{Money(5)}" == "$0.000000005"


def test_in_a_model() -> None:
    """A pydantic field of it takes what `Money.of` takes, dumps a decimal string, and reads that back."""

    class Bill(BaseModel):
        total: Money

    bill = Bill(total="0.05")  # type: ignore[arg-type]
    assert bill.total == Money(50_000_000)
    assert bill.model_dump_json() == '{"total":"0.05"}'
    assert Bill.model_validate_json(bill.model_dump_json()) == bill
    assert Bill.model_json_schema()["properties"]["total"]["type"] == "string"
    with pytest.raises(ValueError, match="not an amount of dollars"):
        Bill(total=0.05)  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", [Context(prec=3), Context(prec=3, traps=[Inexact]), Context(prec=50, traps=[])])
def test_an_applications_decimals_are_its_own_affair(setting: Context) -> None:
    """Precision, rounding and traps that an application sets for its own decimals don't touch any amount."""
    with localcontext(setting):
        amount = Money.of("1234.567891234")
        assert int(amount) == 1_234_567_891_234
        assert (str(amount), repr(amount)) == ("$1234.567891234", "Money.of('1234.567891234')")
        assert int(Money.of(amount.dollars)) == int(amount)
        with pytest.raises(BadInput):
            Money.of("much")


def test_no_limit() -> None:
    """None stays None where it means "no limit"."""
    assert money_or_none(None) is None
    assert money_or_none("1") == Money.of("1")
