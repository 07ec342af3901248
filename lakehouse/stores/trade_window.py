"""The recent trades of each product in memory: exact numbers in arrays, each trade once."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.market.columns import decimals, microseconds, scaled_integers, times
from lakehouse.market.product import checked_product
from lakehouse.market.trade import Side
from lakehouse.market.trade_ids import TradeIds
from lakehouse.stores.hot_store import RECENT
from lakehouse.stores.schemas import PRICE

_TRADE: Final = np.dtype(
    [("trade_id", "i8"), ("event_us", "i8"), ("price", "i8"), ("size", "i8"), ("side", "u1")]
)
_SIDES: Final = pa.array([side.name.lower() for side in Side])

_Trades = npt.NDArray[np.void]


@dataclass
class _OfProduct:
    trades: _Trades = field(default_factory=lambda: np.empty(1024, dtype=_TRADE))
    count: int = 0
    known: TradeIds = field(default_factory=TradeIds)
    newest_us: int = 0
    last_id: int = 0
    last_us: int = 0

    def take(self, trades: _Trades, window_us: int) -> None:
        last = trades[trades["trade_id"].argmax()]
        if not self.count or int(last["trade_id"]) > self.last_id:
            self.last_id, self.last_us = int(last["trade_id"]), int(last["event_us"])
        self.newest_us = max(self.newest_us, int(trades["event_us"].max()))
        trades = trades[trades["event_us"] >= self.newest_us - window_us]
        trades = trades[self.known.add_new(np.ascontiguousarray(trades["trade_id"]))]
        if self.count + len(trades) > len(self.trades):
            self._make_room(len(trades), window_us)
        self.trades[self.count : self.count + len(trades)] = trades
        self.count += len(trades)

    def _make_room(self, wanted: int, window_us: int) -> None:
        held = self.trades[: self.count]
        kept = held[held["event_us"] >= self.newest_us - window_us]
        self.count = len(kept)
        # Half of it free afterwards, so that moving what is kept costs little for each trade that comes.
        self.trades = np.empty(2 * (len(kept) + wanted), dtype=_TRADE)
        self.trades[: self.count] = kept
        if self.count:
            self.known.forget_below(int(kept["trade_id"].min()))


class TradeWindow:
    """The trades of the last while, by the trades' own time; a trade that comes again changes nothing."""

    def __init__(self, window_us: int) -> None:
        self._window_us = window_us
        self._products: dict[str, _OfProduct] = {}

    def take(self, rows: pa.Table) -> None:
        """Take in trades in any order: columns `product` and those of `RECENT`."""
        if not rows.num_rows:
            return
        encoded = rows["product"].combine_chunks().dictionary_encode()
        codes = np.asarray(encoded.indices)
        trades = np.empty(rows.num_rows, dtype=_TRADE)
        trades["trade_id"] = np.asarray(rows["trade_id"])
        trades["event_us"] = microseconds(rows["event_time"])
        trades["price"] = scaled_integers(rows["price"])
        trades["size"] = scaled_integers(rows["size"])
        trades["side"] = np.asarray(pc.index_in(rows["taker_side"], _SIDES))
        for code, product in enumerate(encoded.dictionary.to_pylist()):
            self._products.setdefault(product, _OfProduct()).take(trades[codes == code], self._window_us)

    def newest_us(self) -> dict[str, int]:
        """Return the time of each product's newest trade, µs UTC."""
        return {product: found.newest_us for product, found in self._products.items()}

    def recent(self, product: str, *, since_us: int | None = None) -> pa.Table:
        """See `HotReader.recent`."""
        found = self._products.get(checked_product(product))
        if found is None:
            return RECENT.empty_table()
        oldest_us = max(found.last_us - self._window_us, since_us or 0)
        trades = found.trades[: found.count]
        trades = np.sort(trades[trades["event_us"] >= oldest_us], order="trade_id")
        trade_id, event_us, price, size = (
            np.ascontiguousarray(trades[name]) for name in ("trade_id", "event_us", "price", "size")
        )
        return pa.table(
            [
                pa.array(trade_id),
                times(event_us),
                decimals(price, PRICE),
                decimals(size, PRICE),
                _SIDES.take(pa.array(np.ascontiguousarray(trades["side"]))),
            ],
            schema=RECENT,
        )
