"""The candles of a day of which no trade is archived, as the exchange tells them.

A day's candles are what its archived trades say. Where none is archived at all, they are what
`exchange_candles` says: prices and volume are known then, and nothing of the single trades. One day never has
both.
"""

import pyarrow as pa

from lakehouse.stores.schemas import CANDLES_1M, OF_EXCHANGE


def of_exchange(told: pa.Table) -> pa.Table:
    """Return rows of `EXCHANGE_CANDLES` as rows of `CANDLES_1M`, ordered by start.

    What the exchange doesn't tell is empty. Nobody can say whether it counted every trade, so that none is
    complete, and none is revised.
    """
    told = told.sort_by("start")
    known = {name: told[name] for name in told.column_names}
    known |= {
        "is_complete": pa.repeat(False, told.num_rows),
        "revision": pa.repeat(pa.scalar(0, pa.int64()), told.num_rows),
        "source": pa.repeat(OF_EXCHANGE, told.num_rows),
    }
    columns = [
        known[field.name] if field.name in known else pa.nulls(told.num_rows, field.type)
        for field in CANDLES_1M.schema
    ]
    return pa.table(columns, schema=CANDLES_1M.schema)
