"""A home whose candles an earlier version wrote, when every candle was made of trades and said so nowhere."""

from dataclasses import replace

import pyarrow as pa
import pytest
from table_rows import make_candles

from lakehouse.home import Home
from lakehouse.stores import schemas, sql
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, NOT_TOLD, Table


def earlier(table: Table) -> Table:
    """The table of candles before there were any of the exchange."""
    fields = [
        field.with_nullable(False) if field.name in NOT_TOLD else field
        for field in table.schema
        if field.name != "source"
    ]
    return replace(table, schema=pa.schema(fields), of_earlier_rows=())


def shown(home: Home, statement: str) -> list[tuple[object, ...]]:
    with sql.connect(home) as connection:
        return list(sql.run_query(connection, statement).rows)


def test_candles_of_an_earlier_version_are_read_as_those_of_trades(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = earlier(CANDLES_1M)
    rows = make_candles([1, 2])
    with monkeypatch.context() as before:
        before.setitem(schemas.TABLES, CANDLES_1M.name, old)
        with PaimonStore.open(home) as store:
            store.upsert(old, rows.select(old.schema.names).cast(old.schema))
    told = make_candles([3]).to_pylist()[0]
    told |= dict.fromkeys(NOT_TOLD) | {"source": "exchange", "is_complete": False}
    with PaimonStore.open(home) as store:
        assert store.scan(CANDLES_1M).equals(
            rows.replace_schema_metadata(None).cast(store.scan(CANDLES_1M).schema)
        )
        assert store.scan(CANDLES_1M, columns=["start", "source"])["source"].to_pylist() == ["trades"] * 2
        store.upsert(CANDLES_1M, pa.Table.from_pylist([told], CANDLES_1M.schema))
        both = store.scan(CANDLES_1M).to_pylist()
        assert both == [*rows.to_pylist(), told]
        assert [row["source"] for row in both] == ["trades", "trades", "exchange"]
    statement = "SELECT * FROM candles_1m ORDER BY start"
    assert shown(home, statement) == [tuple(row.values()) for row in both]
    assert shown(home, "SELECT count(*) FROM candles_1m WHERE source = 'trades'") == [(2,)]
    with PaimonStore.open(home) as store:
        store.compact(CANDLES_1M, fan_in=2)
        assert store.scan(CANDLES_1M).to_pylist() == both
    assert shown(home, statement) == [tuple(row.values()) for row in both]


@pytest.mark.parametrize("first", ["trades", "exchange"])
def test_a_candle_of_trades_wins_over_the_exchanges_whichever_came_first(home: Home, first: str) -> None:
    """So that what the stream makes of late trades is never hidden by a candle that counts none."""
    of_trades = make_candles([3], price="101.5").to_pylist()[0]
    told = make_candles([3]).to_pylist()[0] | dict.fromkeys(NOT_TOLD) | {"source": "exchange"}
    with PaimonStore.open(home) as store:
        for row in (of_trades, told) if first == "trades" else (told, of_trades):
            store.upsert(CANDLES_1M, pa.Table.from_pylist([row], CANDLES_1M.schema))
        assert store.scan(CANDLES_1M).to_pylist() == [of_trades]
        assert shown(home, "SELECT * FROM candles_1m") == [tuple(of_trades.values())]
        store.compact(CANDLES_1M, fan_in=2)
        assert store.scan(CANDLES_1M).to_pylist() == [of_trades]
