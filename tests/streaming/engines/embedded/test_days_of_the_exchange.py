"""A day of candles is what its trades say, or what the exchange says where there are none, in whatever order
trades and the exchange's candles come in and however often the day is rebuilt."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_rows import make_trades

from lakehouse.candles.of_exchange import of_exchange
from lakehouse.candles.rebuild import rebuild
from lakehouse.home import Home
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, EXCHANGE_CANDLES, TRADES
from lakehouse.stores.seals import edges_of_days
from streaming.engines.embedded.rebuild import rebuild_days

DAYS = [date(2026, 1, 1) + timedelta(days=number) for number in range(3)]
_numbers = count()

Tables = tuple[IcebergStore, PaimonStore]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    home = Home(tmp_path_factory.mktemp("days"), "simulated").create()
    with IcebergStore.open(home) as archive, PaimonStore.open(home) as candles:
        yield archive, candles


def told(product: str, day: date, version: int) -> pa.Table:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    price = Decimal(100 + version)
    rows = [
        {"product": product, "day": day, "start": midnight + timedelta(minutes=minute)}
        | dict.fromkeys(("open", "high", "low", "close", "volume"), price)
        | {"exchange": "simulated", "recorded_at": midnight + timedelta(days=2, minutes=version)}
        for minute in (0, 5, version + 6)
    ]
    return pa.Table.from_pylist(rows, EXCHANGE_CANDLES.schema)


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.sampled_from(["trades", "fetched", "rebuilt"]), st.sampled_from(DAYS)), max_size=8)
)
def test_trades_win_over_the_exchange_and_it_over_nothing(
    tables: Tables, events: list[tuple[str, date]]
) -> None:
    archive, candles = tables
    product = f"X{next(_numbers)}-USD"
    ids = count(1)
    for number, (event, day) in enumerate(events):
        if event == "trades":
            archive.append(TRADES, make_trades([next(ids), next(ids)], product, day))
        elif event == "fetched":
            archive.replace(EXCHANGE_CANDLES, product, day, told(product, day, number))
        else:
            rebuild_days(archive, candles, product, [day], None)
    rebuild_days(archive, candles, product, DAYS, None)
    edges = edges_of_days(archive, product, DAYS)
    for day in DAYS:
        trades = archive.scan(TRADES, product=product, day=day)
        fetched = archive.scan(EXCHANGE_CANDLES, product=product, day=day)
        wanted = rebuild(trades, edges[day]) if trades.num_rows else of_exchange(fetched)
        found = candles.scan(CANDLES_1M, product=product, day=day).sort_by("start")
        assert found.to_pylist() == wanted.to_pylist()
        assert len(set(found["source"].to_pylist())) <= 1
    again = rebuild_days(archive, candles, product, DAYS, None)
    assert not any(done.changed for done in again.values())
