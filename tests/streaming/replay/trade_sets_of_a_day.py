"""Sets of trades in event order, and the candles that the replay's way and a rebuild make of them."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st
from log_messages import trade_message
from replay_world import DAY_START

from lakehouse.candles.minute import to_table
from lakehouse.candles.open_minutes import OpenMinutes
from lakehouse.candles.rebuild import rebuild
from lakehouse.market.time import DAY_US
from streaming.engines.embedded.decode import trade_columns, trade_rows
from streaming.spine.contract import Batch, Partition

PRODUCT = "BTC-USD"
_PARTITION = Partition("trades", 0)


@st.composite
def event_order(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Trades of a product and day in the order of their times, which says nothing of their ids'."""
    ids = draw(st.lists(st.integers(1, 30), min_size=1, max_size=30, unique=True))
    times = st.sampled_from([0, 1, 59_999_999, 60_000_000, 3_600_000_000, 86_399_999_999])
    made = [
        {
            "product": PRODUCT,
            "trade_id": trade_id,
            "event_us": DAY_START + draw(times),
            "price": draw(st.integers(1, 10**12)),
            "size": draw(st.integers(1, 10**10)),
            "buy": draw(st.booleans()),
            "late": draw(st.booleans()),
        }
        for trade_id in ids
    ]
    return sorted(made, key=lambda t: (t["event_us"], t["trade_id"]))


def batches(trades: list[dict[str, Any]], cuts: Iterable[int]) -> Iterator[Batch]:
    """Cut trades into batches that end at `cuts`."""
    ends = sorted({*(cut for cut in cuts if cut < len(trades)), len(trades)})
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        messages = [trade_message(made) for made in trades[start:end]]
        yield Batch(start, range(start, end), messages)


def candles_of(parts: Iterable[Batch], edges: set[int]) -> tuple[list[Any], list[Any]]:
    """The candles of batches as a replay makes them, and those of a rebuild."""
    parts = list(parts)
    minutes = OpenMinutes(DAY_US)
    minutes.know(PRODUCT, edges)
    written: dict[Any, Any] = {}
    for batch in parts:
        minutes.add(trade_columns(batch, _PARTITION))
        for row in to_table(*minutes.changed()).to_pylist():
            written[row["start"]] = row
        saved = minutes.saved({0: batch.next_offset})
        minutes, _ = OpenMinutes.restored(saved, DAY_US)
        minutes.know(PRODUCT, edges)
    rows = pa.concat_tables([trade_rows(batch, _PARTITION) for batch in parts])
    return [written[start] for start in sorted(written)], rebuild(rows, edges).to_pylist()
