"""The minutes that may still change: candles built from the log as it comes.

What is held is a pure function of the trades in the order of the log, never of how they were cut into
batches. A minute closes with the first trade of its product that is later than the minute's end by the
lateness or more. A trade counts when it is new and its minute is open; what comes after that is left to the
archive and to the seal of its day, and so is a neighbouring id that would have made the minute complete.
"""

import base64
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from lakehouse.candles.minute import CANDLE, Candles, aggregated, completeness, merged
from lakehouse.market.time import MINUTE_US
from lakehouse.market.trade_columns import TradeColumns
from lakehouse.market.trade_ids import TradeIds

_STATE_VERSION: Final = 1
_REMEMBERED_IDS: Final = 1_000_000
"""Ids this far below the oldest open minute are forgotten, and their gaps with them."""


class StateError(ValueError):
    """A saved state can't be read; the text says what to do."""


class Added(NamedTuple):
    """What became of a batch's trades; the rest of them counted."""

    duplicates: int
    too_late: int


class _Arrival(NamedTuple):
    """One product's trades of a batch, in the order of the log."""

    product: str
    at: npt.NDArray[np.intp]
    """Their positions in the batch."""
    trade_id: npt.NDArray[np.int64]
    new: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]
    """New and in time."""
    newest_us: npt.NDArray[np.int64]
    """The product's newest time before the batch and after each trade: one more than there are trades."""


class _Product(msgspec.Struct, array_like=True):
    watermark_us: int
    known: list[tuple[int, int]]


class _State(msgspec.Struct, array_like=True):
    version: int
    offsets: dict[int, int]
    products: dict[str, _Product]
    candles: bytes


class OpenMinutes:
    """Open candles of any number of products.

    Use: `add` batches, write the rows of `changed` together with the text of `saved`, then `settle`.

    Args:
        lateness_us: how far behind its product's newest trade a minute may have ended and still be open.
    """

    def __init__(self, lateness_us: int) -> None:
        self._lateness_us = lateness_us
        self._candles = np.zeros(0, dtype=CANDLE)
        self._known: dict[str, TradeIds] = {}
        self._watermark_us: dict[str, int] = {}
        self._written: dict[tuple[bytes, int], tuple[int, bool]] = {}
        self._closed_incomplete: set[tuple[bytes, int]] = set()

    @property
    def watermark_us(self) -> Mapping[str, int]:
        """The time of each product's newest trade, µs UTC."""
        return self._watermark_us

    def know(self, product: str, trade_ids: Iterable[int]) -> None:
        """Take it that these ids are trades of other days: beside them a minute may be complete."""
        for trade_id in trade_ids:
            self._known.setdefault(product, TradeIds()).add(trade_id)

    def add(self, trades: TradeColumns) -> Added:
        """Take in trades of some products in the order of the log.

        Raises:
            SumTooLargeError: a price or size is negative, or price × size is above 10²⁸.
        """
        arrivals = [self._arrived(trades, product, at) for product, at in _by_product(trades)]
        new = sum(int(arrival.new.sum()) for arrival in arrivals)
        counted = sum(int(arrival.counted.sum()) for arrival in arrivals)
        if counted < len(trades):
            counts = np.zeros(len(trades), dtype=np.bool_)
            for arrival in arrivals:
                counts[arrival.at] = arrival.counted
            trades = trades.where(counts)
        self._candles = merged(self._candles, aggregated(trades))
        for arrival in arrivals:
            self._close(arrival)
        return Added(duplicates=sum(len(arrival.at) for arrival in arrivals) - new, too_late=new - counted)

    def _arrived(self, trades: TradeColumns, product: str, at: npt.NDArray[np.intp]) -> _Arrival:
        trade_id, event_us = trades.trade_id[at], trades.event_us[at]
        new = self._known.setdefault(product, TradeIds()).add_new(trade_id)
        before_us = self._watermark_us.get(product, 0)
        newest_us = np.maximum.accumulate(np.append(before_us, event_us))
        self._watermark_us[product] = int(newest_us[-1])
        end_us = event_us - event_us % MINUTE_US + MINUTE_US
        in_time = end_us > newest_us[:-1] - self._lateness_us
        return _Arrival(product, at, trade_id, new, new & in_time, newest_us)

    def _close(self, arrival: _Arrival) -> None:
        """Find the minutes that closed without being complete; what came later doesn't make them so.

        Whether it came in the same batch must not matter.
        """
        of_product = self._candles[self._candles["product"] == arrival.product.encode()]
        limits_us = of_product["start_us"] + MINUTE_US + self._lateness_us
        closes = (limits_us > arrival.newest_us[0]) & (limits_us <= arrival.newest_us[-1])
        if not closes.any():
            return
        closing = of_product[closes]
        # The trade at `last` closed the minute; it still counts as known then.
        last = np.searchsorted(arrival.newest_us, limits_us[closes]) - 1
        ids = np.where(arrival.new, arrival.trade_id, np.iinfo(np.int64).max)
        lowest_after = np.append(np.minimum.accumulate(ids[::-1])[::-1][1:], np.iinfo(np.int64).max)
        complete = completeness(closing, self._known)
        for candle, position, whole in zip(closing, last.tolist(), complete.tolist(), strict=True):
            lowest, highest = int(candle["first_trade_id"]) - 1, int(candle["last_trade_id"]) + 1
            after = ids[position + 1 :]
            if not whole or (
                lowest_after[position] <= highest and ((after >= lowest) & (after <= highest)).any()
            ):
                self._closed_incomplete.add((bytes(candle["product"]), int(candle["start_us"])))

    def changed(self) -> tuple[Candles, npt.NDArray[np.bool_]]:
        """Return the candles that are not as they were last written, and whether each is complete."""
        complete = self._complete()
        differs = np.fromiter(
            (self._written.get(key) != signature for key, signature in self._signatures(complete)),
            dtype=np.bool_,
            count=len(complete),
        )
        return self._candles[differs], complete[differs]

    def _complete(self) -> npt.NDArray[np.bool_]:
        complete = completeness(self._candles, self._known)
        for product, start_us in self._closed_incomplete:
            complete[(self._candles["product"] == product) & (self._candles["start_us"] == start_us)] = False
        return complete

    def _signatures(
        self, complete: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[tuple[bytes, int], tuple[int, bool]]]:
        """Yield each candle's key and what shows a change: trades are only ever added."""
        columns = (
            self._candles["product"],
            self._candles["start_us"],
            self._candles["trade_count"],
            complete,
        )
        for product, start_us, trades, whole in zip(*(column.tolist() for column in columns), strict=True):
            yield (product, start_us), (trades, whole)

    def settle(self) -> None:
        """Take note that what `changed` returned is written; let go of the minutes that can't change."""
        self._candles = self._candles[self._still_open()]
        self._closed_incomplete.clear()
        self._written = dict(self._signatures(completeness(self._candles, self._known)))
        for product, ids in self._known.items():
            of_product = self._candles[self._candles["product"] == product.encode()]
            if len(of_product):
                ids.forget_below(int(of_product["first_trade_id"].min()) - _REMEMBERED_IDS)

    def _still_open(self) -> npt.NDArray[np.bool_]:
        closed_us = {
            product.encode(): newest_us - self._lateness_us
            for product, newest_us in self._watermark_us.items()
        }
        names, product = np.unique(self._candles["product"], return_inverse=True)
        limits = np.array([closed_us[name] for name in names.tolist()], dtype=np.int64)
        still_open: npt.NDArray[np.bool_] = self._candles["start_us"] + MINUTE_US > limits[product]
        return still_open

    def saved(self, offsets: Mapping[int, int]) -> str:
        """Return what `restored` needs, as it will be after `settle`, as text.

        Args:
            offsets: the next offset of each partition of the log.
        """
        state = _State(
            _STATE_VERSION,
            dict(offsets),
            {
                product: _Product(newest_us, list(self._known[product]))
                for product, newest_us in self._watermark_us.items()
            },
            self._candles[self._still_open()].tobytes(),
        )
        return base64.b64encode(zlib.compress(msgspec.msgpack.encode(state), 1)).decode("ascii")

    @classmethod
    def restored(cls, saved: str, lateness_us: int) -> tuple["OpenMinutes", dict[int, int]]:
        """Return the open minutes and the offsets of a saved state.

        Raises:
            StateError: the text was written by another version, or is damaged.
        """
        try:
            state = msgspec.msgpack.decode(zlib.decompress(base64.b64decode(saved)), type=_State)
            candles = np.frombuffer(state.candles, dtype=CANDLE)
        except (ValueError, zlib.error, msgspec.MsgspecError) as error:
            raise StateError(
                f"the open minutes saved with the candles can't be read ({error}): roll the table back by a "
                "snapshot"
            ) from error
        if state.version != _STATE_VERSION:
            raise StateError(
                f"the open minutes saved with the candles have version {state.version}, not "
                f"{_STATE_VERSION}: run the version that wrote them"
            )
        minutes = cls(lateness_us)
        minutes._candles = candles
        for name, product in state.products.items():
            minutes._watermark_us[name] = product.watermark_us
            minutes._known[name] = TradeIds(product.known)
        minutes._written = dict(minutes._signatures(completeness(candles, minutes._known)))
        return minutes, state.offsets


def _by_product(trades: TradeColumns) -> Iterator[tuple[str, npt.NDArray[np.intp]]]:
    """Yield each product that has trades with their positions, in the order given."""
    if len(trades.products) == 1:
        if len(trades):
            yield trades.products[0], np.arange(len(trades))
        return
    order = np.argsort(trades.product.astype(np.uint16), kind="stable")  # 16 bits are sorted by radix
    ends = np.cumsum(np.bincount(trades.product, minlength=len(trades.products)))
    starts = np.append(0, ends[:-1])
    for product, start, end in zip(trades.products, starts.tolist(), ends.tolist(), strict=True):
        if end > start:
            yield product, order[start:end]
