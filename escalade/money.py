"""Money: integer nano-dollars inside, decimal dollars at the border. Never a float."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation
from typing import Any

from escalade.errors import BadInput

NANO = 1_000_000_000

_EXACT = Context(prec=200, traps=[])
"""Money is exact, whatever precision and traps an application has set for its own decimals."""


class Money(int):
    """An amount in nano-dollars that reads as dollars.

    >>> Money.of("0.05")
    Money.of('0.05')
    >>> int(Money.of("0.05"))
    50000000
    >>> str(Money.of("0.05") + Money.of("1"))
    '$1.05'
    """

    __slots__ = ()

    @classmethod
    def of(cls, dollars: object) -> Money:
        """Money from `Decimal` or `"0.05"` dollars (`"$0.05"` too); a `Money` is returned as it is.

        A float is refused, since 0.1 dollars isn't representable in one, and so is a bare int, which could mean
        dollars or nano-dollars. Fractions of a nano-dollar round up. Raises BadInput.
        """
        if isinstance(dollars, Money):
            return dollars
        if isinstance(dollars, str):
            try:
                dollars = Decimal(dollars.strip().removeprefix("$").replace("_", ""))
            except InvalidOperation:
                raise BadInput(f'not an amount of dollars: {dollars!r}; write it like "0.05"') from None
        if not isinstance(dollars, Decimal) or not dollars.is_finite():
            raise BadInput(f'not an amount of dollars: {dollars!r}; write it as a string or a Decimal, like "0.05"')
        return cls(
            int(_EXACT.multiply(dollars, Decimal(NANO)).to_integral_value(rounding=ROUND_CEILING, context=_EXACT))
        )

    @property
    def dollars(self) -> Decimal:
        """The amount in dollars, exact."""
        return _EXACT.divide(Decimal(int(self)), Decimal(NANO))

    def __add__(self, other: int) -> Money:
        return Money(int(self) + int(other))

    __radd__ = __add__

    def __sub__(self, other: int) -> Money:
        return Money(int(self) - int(other))

    def __rsub__(self, other: int) -> Money:
        return Money(int(other) - int(self))

    def __neg__(self) -> Money:
        return Money(-int(self))

    def __str__(self) -> str:
        sign = "-" if self < 0 else ""
        return f"{sign}${format(_EXACT.normalize(_EXACT.abs(self.dollars)), 'f')}"

    def __repr__(self) -> str:
        return f"Money.of('{format(_EXACT.normalize(self.dollars), 'f')}')"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec) if not spec or spec[-1] not in "fd" else format(self.dollars, spec)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.of,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda m: format(Money(m).dollars, "f")),
            json_schema_input_schema=core_schema.str_schema(),
        )


def money_or_none(dollars: object) -> Money | None:
    """`Money.of`, with None for "no limit"."""
    return None if dollars is None else Money.of(dollars)
