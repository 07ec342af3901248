import csv
import io
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from table_rows import DAY, as_read, make_candles, make_trades, rows_with_extremes

from lakehouse.home import Home, HomeError
from lakehouse.settings import load_settings
from lakehouse.stores import sql
from lakehouse.stores.hot import HotStore, TopOfBook
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, GAPS, PRICE, QUARANTINE, TABLES, TRADES


def ask(home: Home, statement: str) -> list[tuple[Any, ...]]:
    with sql.connect(home) as connection:
        return list(sql.run_query(connection, statement).rows)


def printed(home: Home, statement: str, style: sql.Format) -> str:
    stream = io.StringIO()
    sql.query(home, statement, style, stream)
    return stream.getvalue()


def test_a_home_without_data_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="lakehouse up"):
        sql.connect(Home(tmp_path / "none", "market"))
    assert not (tmp_path / "none").exists()


def test_every_table_has_a_view_with_its_columns_and_types_empty_or_not(home: Home) -> None:
    def described() -> dict[str, list[tuple[str, str]]]:
        with sql.connect(home) as connection:
            return {
                name: [(c, str(t)) for c, t, *_ in connection.sql(f"DESCRIBE {name}").fetchall()]
                for name in TABLES
            }

    empty = described()
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:
        for table in TABLES.values():
            rows = rows_with_extremes(table.schema)
            if table.store == "iceberg":
                iceberg.append(table, rows)
            else:
                paimon.upsert(table, rows)
    assert described() == empty
    for name, table in TABLES.items():
        assert [column for column, _ in empty[name]] == table.schema.names
        expected = as_read(table, rows_with_extremes(table.schema))
        found = ask(home, f"SELECT * FROM {name}")
        assert sorted(map(repr, found)) == sorted(repr(tuple(row.values())) for row in expected.to_pylist())
    assert dict(empty["trades"])["price"] == "DECIMAL(38,8)"
    assert TRADES.schema.field("price").type == PRICE


def test_views_see_the_snapshot_and_not_the_folder(home: Home) -> None:
    with IcebergStore.open(home) as store:
        for n in range(4):
            store.append(TRADES, make_trades([n]))
        store.append(TRADES, make_trades([0], "ETH-USD"))
        store.replace(TRADES, "BTC-USD", DAY, make_trades([1, 3]))
        assert len(list(home.iceberg.rglob("trades/data/**/*.parquet"))) == 6
        read = "SELECT product, list(trade_id ORDER BY trade_id) FROM trades GROUP BY ALL ORDER BY ALL"
        assert ask(home, read) == [("BTC-USD", [1, 3]), ("ETH-USD", [0])]
        store.append(TRADES, make_trades([4]))
        store.compact(TRADES, fan_in=2)
        store.expire(TRADES, keep=1, grace=timedelta(0))
        assert ask(home, read) == [("BTC-USD", [1, 3, 4]), ("ETH-USD", [0])]


def test_candles_are_merged_as_paimon_merges_them(home: Home) -> None:
    with PaimonStore.open(home) as store:
        twice = pa.concat_tables(
            [make_candles([1], count=2, price="2"), make_candles([1], count=2, price="3")]
        )
        store.upsert(CANDLES_1M, twice)
        store.upsert(CANDLES_1M, make_candles([1, 2], "ETH-USD", count=9))
        for count, price in ((7, "7"), (4, "4"), (7, "8"), (6, "6")):
            store.upsert(CANDLES_1M, make_candles([2, count], count=count, price=price))
        for fan_in in (99, 2):
            store.compact(CANDLES_1M, fan_in=fan_in)
            expected = {(row["product"], row["start"]): row for row in store.scan(CANDLES_1M).to_pylist()}
            found = ask(home, "SELECT * FROM candles_1m")
            rows = [dict(zip(CANDLES_1M.schema.names, row, strict=True)) for row in found]
            assert {(row["product"], row["start"]): row for row in rows} == expected
            assert len(rows) == len(expected)
    close = ask(
        home,
        "SELECT close FROM candles_1m WHERE product = 'BTC-USD' AND first_trade_id IN (10, 20) "
        "ORDER BY start",
    )
    assert close == [(Decimal(3),), (Decimal(8),)]


def test_minutes_without_trades_carry_the_close_on_but_gaps_stay_empty(home: Home) -> None:
    with PaimonStore.open(home) as store:
        store.upsert(CANDLES_1M, make_candles([0], price="10", count=30))  # ids 0 to 29
        store.upsert(CANDLES_1M, make_candles([3], price="30"))  # ids 30 to 34, so nothing lies between
        store.upsert(CANDLES_1M, make_candles([6], price="40"))  # ids from 60 on: 25 trades are missing
        store.upsert(CANDLES_1M, make_candles([1], "ETH-USD"))
    found = ask(
        home,
        "SELECT epoch(start)::BIGINT // 60 % 60, open, high, low, close, volume, trade_count, is_filled, "
        "day, exchange FROM candles_1m_filled WHERE product = 'BTC-USD' ORDER BY start",
    )
    ten, thirty, forty = Decimal(10), Decimal(30), Decimal(40)
    assert found == [
        (0, ten, ten, ten, ten, ten, 30, False, DAY, "simulated"),
        (1, ten, ten, ten, ten, 0, 0, True, DAY, "simulated"),
        (2, ten, ten, ten, ten, 0, 0, True, DAY, "simulated"),
        (3, thirty, thirty, thirty, thirty, thirty, 5, False, DAY, "simulated"),
        (6, forty, forty, forty, forty, forty, 5, False, DAY, "simulated"),
    ]


def test_open_gaps_are_what_was_found_and_not_filled(home: Home) -> None:
    model = rows_with_extremes(GAPS.schema, 1).to_pylist()[0] | {"detail": "", "found_by": "trade_id"}

    def gap(first: int, last: int, status: str, offset: int, product: str = "BTC-USD") -> dict[str, Any]:
        at = model["recorded_at"] + timedelta(seconds=offset)
        numbers = {"first_trade_id": first, "last_trade_id": last, "spine_offset": offset}
        return (
            model | numbers | {"product": product, "status": status, "recorded_at": at, "spine_partition": 0}
        )

    rows = [
        gap(10, 19, "found", 1),
        gap(10, 12, "filled", 2),
        gap(17, 19, "unfillable", 3),
        gap(30, 30, "found", 4),
        gap(30, 30, "filled", 5),
        gap(10, 19, "found", 1, "ETH-USD"),
        gap(10, 19, "unfillable", 2, "ETH-USD"),
        gap(10, 19, "filled", 3, "ETH-USD"),
    ]
    with IcebergStore.open(home) as store:
        store.append(GAPS, pa.Table.from_pylist(rows, schema=GAPS.schema))
    found = ask(home, "SELECT product, first_trade_id, last_trade_id, status FROM gaps_open ORDER BY 2")
    assert found == [("BTC-USD", 13, 16, "found"), ("BTC-USD", 17, 19, "unfillable")]


def test_decimals_and_times_are_exact_in_csv_and_json(home: Home) -> None:
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:
        iceberg.append(TRADES, rows_with_extremes(TRADES.schema))
        iceberg.append(QUARANTINE, rows_with_extremes(QUARANTINE.schema, 1))
        paimon.upsert(CANDLES_1M, rows_with_extremes(CANDLES_1M.schema))
    statement = "SELECT price, trade_id, event_time, late, day FROM trades ORDER BY trade_id, price"
    expected = rows_with_extremes(TRADES.schema).sort_by([("trade_id", "ascending"), ("price", "ascending")])
    table = list(csv.DictReader(io.StringIO(printed(home, statement, "csv"))))
    objects = json.loads(printed(home, statement, "json"))
    for text, value, row in zip(table, objects, expected.to_pylist(), strict=True):
        assert text["price"] == value["price"] == f"{row['price']:f}"
        assert int(text["trade_id"]) == value["trade_id"] == row["trade_id"]
        assert text["event_time"] == value["event_time"] == f"{row['event_time']:%Y-%m-%dT%H:%M:%S.%f}Z"
        assert (text["late"] == "true") is value["late"] is row["late"]
        assert text["day"] == value["day"] == "2026-01-02"
    total = f"{sum(rows_with_extremes(TRADES.schema)['size'].to_pylist()):f}"
    assert printed(home, "SELECT sum(size) AS s FROM trades", "csv") == f"s\n{total}\n"
    assert json.loads(printed(home, "SELECT sum(size) AS s FROM trades", "json")) == [{"s": total}]
    assert total in printed(home, "SELECT sum(size) AS s, repeat('x', 300) FROM trades", "table")
    widest = json.loads(printed(home, "SELECT min(quote_volume) AS q FROM candles_1m", "json"))[0]["q"]
    assert widest.lstrip("-").replace(".", "").strip("89") == ""
    assert len(widest.lstrip("-")) == 39
    raw = json.loads(printed(home, "SELECT frame FROM quarantine", "json"))[0]["frame"]
    assert raw.startswith("\\x00\\x01")
    assert "ABC" in raw
    assert json.loads(printed(home, "SELECT 1 AS a, 2 AS a WHERE false", "json")) == []
    assert printed(home, "SELECT 1 AS a, 2 AS a, NULL AS b", "csv") == "a,a_2,b\n1,2,\n"


def test_fluss_is_asked_by_the_query_that_names_latest_and_by_no_other(home: Home) -> None:
    settings = load_settings(hot_store="fluss", fluss_address="127.0.0.1:1", fluss_timeout_seconds=2.0)
    with sql.connect(home, settings) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() is not None
        assert ("latest",) in connection.execute("SHOW TABLES").fetchall()
        with pytest.raises(
            duckdb.Error, match=r"Fluss at 127\.0\.0\.1:1 .*LAKEHOUSE_FLUSS_ADDRESS"
        ) as refused:
            connection.execute("SELECT * FROM latest")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{file}'",
        "COPY (SELECT 1 AS trade_id) TO '{data}' (USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY (SELECT 1 AS trade_id) TO '{data}' (USE_TMP_FILE false)",
        "CREATE TABLE x AS SELECT 1",
        "DROP VIEW trades",
        "DELETE FROM trades",
        "INSERT INTO trades SELECT * FROM trades",
        "ATTACH '{file}' AS x",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "LOAD sqlite",
        "EXPORT DATABASE '{file}'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_parquet('{other}')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_sql_can_neither_write_nor_read_other_files(home: Home, tmp_path: Path, statement: str) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
        other = store.data_files(TRADES)[0].file_path
        store.replace(TRADES, "BTC-USD", DAY, make_trades([2]))
        data = store.data_files(TRADES)[0].file_path
    before = {path: path.read_bytes() for path in home.root.rglob("*.parquet")}
    with pytest.raises(duckdb.Error):
        ask(home, statement.format(file=tmp_path / "made", data=data, other=other))
    assert {path: path.read_bytes() for path in home.root.rglob("*.parquet")} == before
    assert not (tmp_path / "made").exists()
    assert ask(home, "SELECT trade_id FROM trades") == [(2,)]


def test_prices_can_be_multiplied(home: Home) -> None:
    with IcebergStore.open(home) as store:
        store.append(
            TRADES, make_trades([1], price=Decimal("61837.63000001"), size=Decimal("98765.43210001"))
        )
    assert ask(home, "SELECT sum(price * size) FROM trades") == [
        (Decimal("61837.63000001") * Decimal("98765.43210001"),)
    ]
    with HotStore.open(home.hot_store) as hot:
        hot.apply([], [TopOfBook("BTC-USD", 1, 6183763000001, 9876543210001, 6183764000000, 1, 0, 1, 1)], {})
    assert ask(home, "SELECT bid * bid_size FROM latest") == [
        (Decimal("61837.63000001") * Decimal("98765.43210001"),)
    ]


def test_the_hot_store_is_a_view_too(home: Home) -> None:
    assert ask(home, "SELECT * FROM latest") == []
    HotStore.open(home.hot_store).close()
    assert ask(home, "SELECT product, price FROM latest") == []
