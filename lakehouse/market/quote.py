"""A quote: the best bid and ask at one moment."""

from typing import Final

import numpy as np

from lakehouse.market.product import MAX_LENGTH

NO_IMBALANCE: Final = -(2**63)
"""Stands in a record for an imbalance that is not known (a ticker knows only the top)."""

QUOTE_RECORD: Final = np.dtype(
    [
        ("product", f"S{MAX_LENGTH}"),
        ("update_id", "<i8"),
        ("bid", "<i8"),
        ("bid_size", "<i8"),
        ("ask", "<i8"),
        ("ask_size", "<i8"),
        ("imbalance", "<i8"),
        ("event_us", "<i8"),
        ("received_us", "<i8"),
        ("source", "u1"),
        ("exchange", "u1"),
        ("version", "<u2"),
        ("padding", "<u4"),
    ]
)
"""A quote in the spine: 88 bytes. Prices and sizes are scaled by 10⁸.

`update_id` is the exchange's own number of this state of the book, 0 where it has none. `imbalance` is
(bid volume - ask volume) / (bid volume + ask volume) over the five best levels of each side, scaled by
10⁸ and rounded toward minus infinity; `NO_IMBALANCE` where unknown. `source` is `Source.BOOK` or
`Source.TICKER`.
"""

QUOTE_RECORD_FORMAT: Final = f"<{MAX_LENGTH}s8q2BHI"
"""`QUOTE_RECORD` for `struct`."""

QUOTE_RECORD_VERSION: Final = 1
