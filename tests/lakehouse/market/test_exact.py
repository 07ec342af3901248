from decimal import Decimal, InvalidOperation

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.market.exact import LIMIT, InexactNumberError, scaled, unscaled


@given(st.integers(-(LIMIT - 1), LIMIT - 1))
def test_every_value_survives_being_written_and_read(value: int) -> None:
    assert scaled(str(unscaled(value))) == value
    assert scaled(f"{unscaled(value):f}") == value


@given(st.decimals(allow_nan=True, allow_infinity=True) | st.text(max_size=40), st.booleans())
def test_a_text_is_read_exactly_or_not_at_all(text: object, exponent: bool) -> None:
    written = f"{text:E}" if exponent and isinstance(text, Decimal) and text.is_finite() else str(text)
    try:
        value = scaled(written)
    except InexactNumberError:
        return
    assert unscaled(value) == Decimal(written)
    assert abs(value) < LIMIT


@given(st.decimals(min_value=Decimal("-9999999999"), max_value=Decimal("9999999999"), places=8))
def test_what_decimal_18_8_holds_is_read(value: Decimal) -> None:
    assert unscaled(scaled(str(value))) == value


@pytest.mark.parametrize("text", ["0", "0.0", "00012.5", "1e-8", "1E+9", "+3", "-0.00000001", ".5", "5."])
def test_unusual_spellings_mean_what_decimal_says(text: str) -> None:
    assert unscaled(scaled(text)) == Decimal(text)


NO_NUMBERS = (
    *("", " 1", "1 ", "1_000", "NaN", "sNaN", "Infinity", "-inf", "1e400", "1e-400", "0.000000001", "1,5"),
    *("10000000000", "0x10", "1" * 5000, "٣", "²", "1.٣", "--1", "1.2.3", "."),
)


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_exact_decimal_is_refused(text: str) -> None:
    with pytest.raises(InexactNumberError):
        scaled(text)


def test_the_refusal_agrees_with_decimal_on_what_a_number_is() -> None:
    for text in ["1.", ".1", "1e", "e1", "1e+", "++1", "1.e2"]:
        try:
            expected = Decimal(text)
        except InvalidOperation:
            with pytest.raises(InexactNumberError):
                scaled(text)
        else:
            assert unscaled(scaled(text)) == expected
