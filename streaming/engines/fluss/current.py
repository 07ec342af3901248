"""The current state of each product, as the table `latest` holds it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.market.time import from_datetime
from lakehouse.stores.hot_store import LATEST

Row = dict[str, Any]

_OF_TRADE: Final = {
    **{name: name for name in ("trade_id", "price", "size", "taker_side")},
    "traded_at": "event_time",
    "trade_recorded_at": "recorded_at",
}
_OF_QUOTE: Final = {
    **{name: name for name in ("bid", "bid_size", "ask", "ask_size", "spread", "mid", "imbalance")},
    "quoted_at": "event_time",
    "quote_recorded_at": "recorded_at",
}
# Columns of `latest`, and from where in the rows of trades and of quotes they come.


class CurrentStates:
    """Rows of `LATEST`, which never go back: rows that come again and late trades don't change them."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def learn(self, stored: pa.Table) -> None:
        """Take over what the table holds where that is newer; rows of `LATEST`."""
        for row in stored.to_pylist():
            if row["trade_id"] is not None:
                self._take_trade(row, {name: name for name in _OF_TRADE})
            if row["bid"] is not None:
                self._take_quote(row, {name: name for name in _OF_QUOTE})

    def take(self, trades: pa.Table | None, quotes: pa.Table | None) -> list[Row]:
        """Take in rows of `trades` and of `quotes`, in the order of the log; return the states that changed.

        The latest trade is the one with the highest trade_id; the latest quote is the last one of the log.
        """
        changed = set()
        if trades is not None:
            trade_ids = np.asarray(trades["trade_id"])
            for at in _of_each_product(trades):
                last = trades.slice(int(at[trade_ids[at].argmax()]), 1).to_pylist()[0]
                if self._take_trade(last, _OF_TRADE):
                    changed.add(last["product"])
        if quotes is not None:
            for at in _of_each_product(quotes):
                last = quotes.slice(int(at[-1]), 1).to_pylist()[0]
                if self._take_quote(last, _OF_QUOTE):
                    changed.add(last["product"])
        return [self._rows[product] for product in sorted(changed)]

    def _take_trade(self, trade: Row, columns: Mapping[str, str]) -> bool:
        row = self._of(trade["product"])
        if row["trade_id"] is not None and trade[columns["trade_id"]] <= row["trade_id"]:
            return False
        row |= {name: trade[source] for name, source in columns.items()} | {"exchange": trade["exchange"]}
        return True

    def _take_quote(self, quote: Row, columns: Mapping[str, str]) -> bool:
        row = self._of(quote["product"])
        # When it was recorded tells the order of the log, within a partition and so within a product.
        known_at = row["quote_recorded_at"]
        if known_at is not None and quote[columns["quote_recorded_at"]] < known_at:
            return False
        row |= {name: quote[source] for name, source in columns.items()}
        row["exchange"] = row["exchange"] or quote["exchange"]
        return True

    def _of(self, product: str) -> Row:
        return self._rows.setdefault(product, dict.fromkeys(LATEST.names) | {"product": product})

    def all(self) -> list[Row]:
        """Return the state of every product."""
        return list(self._rows.values())

    def newest_us(self) -> dict[str, int]:
        """Return the time of each product's latest trade, µs UTC."""
        return {
            product: from_datetime(row["traded_at"])
            for product, row in self._rows.items()
            if row["traded_at"] is not None
        }


def _of_each_product(rows: pa.Table) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the positions of each product's rows, ascending."""
    encoded = rows["product"].combine_chunks().dictionary_encode()
    codes = np.asarray(encoded.indices)
    for code in range(len(encoded.dictionary)):
        yield np.flatnonzero(codes == code)
