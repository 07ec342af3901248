"""Reading an exchange's own candles out of its REST answer."""

from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, TypeVar

import msgspec

from lakehouse.market.exact import SCALE
from streaming.exchanges.contract import OwnCandle, RestError

Row = TypeVar("Row")

_EIGHT_DECIMALS: Final = Decimal(1).scaleb(-SCALE)


def candles_of(
    content: bytes,
    decode: Callable[[bytes], list[Row]],
    candle_of: Callable[[Row], OwnCandle],
    asked: str,
) -> list[OwnCandle]:
    """Return the candles of an answer, oldest first, their numbers rounded to eight decimals.

    A volume that the exchange summed in floating point may have more of them; prices never do.

    Raises:
        RestError: the answer is no list of candles.
    """
    try:
        candles = [candle_of(row) for row in decode(content)]
        rounded = [
            OwnCandle(start, *(number.quantize(_EIGHT_DECIMALS, ROUND_HALF_EVEN) for number in numbers))
            for start, *numbers in candles
        ]
    except (msgspec.MsgspecError, UnicodeError, ArithmeticError) as error:
        raise RestError(f"the candles of {asked} can't be read: {error}") from error
    return sorted(rounded)
