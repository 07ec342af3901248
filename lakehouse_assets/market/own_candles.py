"""The exchange's own candles of product-days, fetched over REST: to be kept, or to be compared with ours."""

from collections.abc import Sequence
from datetime import date

import pyarrow as pa

from lakehouse.market.time import DAY_US, day_start_us, to_datetime
from lakehouse.reconciliation.candles import OWN_CANDLES
from lakehouse.reconciliation.days import OwnCandles
from streaming.sealing.day import Origin


async def own_candles(origin: Origin, product: str, days: Sequence[date]) -> OwnCandles:
    """Return the exchange's own one-minute candles of days.

    Raises:
        RestError: the exchange can't be asked.
    """
    rows = []
    for day in days:
        start_us = day_start_us(day)
        for candle in await origin.rest.candles(product, start_us, start_us + DAY_US):
            values = candle._asdict()
            rows.append({"day": day, "start": to_datetime(values.pop("start_us")), **values})
    return OwnCandles(origin.exchange, pa.Table.from_pylist(rows, OWN_CANDLES))
