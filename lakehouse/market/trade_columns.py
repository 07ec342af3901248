"""Many trades as numpy arrays: how they go from the log to the hot store and into candles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TradeColumns:
    """Trades as arrays of one length, in any order.

    `product` is an index into `products`; price and size are scaled by 10⁸, times are µs UTC; `exchange` is
    an `Exchange`; `recorded_us` is when the trade became durable in the log.
    """

    products: Sequence[str]
    product: npt.NDArray[np.integer[Any]]
    trade_id: npt.NDArray[np.int64]
    event_us: npt.NDArray[np.int64]
    price: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    taker_buys: npt.NDArray[np.bool_]
    late: npt.NDArray[np.bool_]
    exchange: npt.NDArray[np.uint8]
    recorded_us: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.trade_id)

    def where(self, wanted: npt.NDArray[Any]) -> "TradeColumns":
        """Return the trades that a boolean mask or an array of positions chooses."""
        return TradeColumns(
            self.products,
            self.product[wanted],
            self.trade_id[wanted],
            self.event_us[wanted],
            self.price[wanted],
            self.size[wanted],
            self.taker_buys[wanted],
            self.late[wanted],
            self.exchange[wanted],
            self.recorded_us[wanted],
        )
