"""A home that an earlier version made: its tables become this version's, and old rows stay readable."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from table_rows import DAY, make_candles, make_trades, rows_with_extremes

from lakehouse.home import Home
from lakehouse.market.time import now_us
from lakehouse.stores import schemas, sql
from lakehouse.stores.iceberg import IcebergStore, IcebergStoreError
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.paimon_files import PaimonStoreError
from lakehouse.stores.schemas import CANDLES_1M, GAPS, TRADES, Table

NEW = pa.field("venue_fee", pa.decimal128(18, 8), metadata={"description": "What the venue took."})


def evolved(table: Table) -> Table:
    """A later version of trades or candles: a column in the middle, a wider one, one with another name."""
    fields = list(table.schema)
    at = next(number for number, field in enumerate(fields) if field.name == "exchange")
    fields[at] = fields[at].with_name("venue")
    fields.insert(at, NEW)
    wide = {"size": pa.decimal128(28, 8), "spine_partition": pa.int64(), "open": pa.decimal128(24, 8)}
    fields = [field.with_type(wide.get(field.name, field.type)) for field in fields]
    return replace(table, schema=pa.schema(fields), renamed=(("exchange", "venue"),))


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Callable[[Table], None]:
    """Return a function that puts a version of a table in the place of the present one."""
    return lambda table: monkeypatch.setitem(schemas.TABLES, table.name, table)


def later_rows(old: pa.Table, table: Table) -> pa.Table:
    """Rows as the later version writes them."""
    columns = {field.name: old[field.name] for field in old.schema if field.name != "exchange"}
    columns |= {"venue": old["exchange"], NEW.name: pa.array([Decimal("0.5")] * old.num_rows, NEW.type)}
    return pa.table({name: columns[name] for name in table.schema.names}).cast(table.schema)


def test_old_rows_are_read_as_the_later_version_has_them(
    home: Home, become: Callable[[Table], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_CANDLES_FILLED", sql._CANDLES_FILLED.replace("exchange,", "venue,"))
    later_trades, later_candles = evolved(TRADES), evolved(CANDLES_1M)
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:
        old_trades = iceberg.append(TRADES, make_trades([1, 2]), offsets={0: 2})
        paimon.upsert(CANDLES_1M, make_candles([1, 2], count=5))
        before = now_us()
    become(later_trades)
    become(later_candles)
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:
        iceberg.append(later_trades, later_rows(make_trades([3]), later_trades))
        paimon.upsert(later_candles, later_rows(make_candles([2, 3], count=6), later_candles))
        trades = iceberg.scan(later_trades).sort_by("trade_id")
        assert trades.schema.equals(pa.schema([f.remove_metadata() for f in later_trades.schema]))
        assert trades["venue"].to_pylist() == ["simulated"] * 3
        assert trades[NEW.name].to_pylist() == [None, None, Decimal("0.50000000")]
        assert iceberg.scan(later_trades, snapshot_id=old_trades, columns=["venue"]).num_rows == 2
        assert [(s.rows, s.min_trade_id, s.max_trade_id) for s in iceberg.partitions(later_trades)] == [
            (3, 1, 3)
        ]
        assert iceberg.offsets(later_trades) == {0: 2}
        candles = paimon.scan(later_candles)
        assert candles[NEW.name].to_pylist() == [None, Decimal("0.50000000"), Decimal("0.50000000")]
        assert candles["venue"].to_pylist() == ["simulated"] * 3
        shown = "SELECT * FROM trades ORDER BY trade_id", "SELECT * FROM candles_1m ORDER BY start"
        for statement, rows in zip(shown, (trades, candles), strict=True):
            assert ask(home, statement) == [tuple(row.values()) for row in rows.to_pylist()]
        assert ask(home, f"SELECT venue, {NEW.name} FROM candles_1m", before) == [("simulated", None)] * 2
        assert ask(home, f"SELECT venue, {NEW.name} FROM trades", before) == [("simulated", None)] * 2
        for store, table in ((iceberg, later_trades), (paimon, later_candles)):
            assert store.compact(table, fan_in=2).merged == 2
        assert iceberg.scan(later_trades).sort_by("trade_id").equals(trades)
        assert paimon.scan(later_candles).equals(candles)
        for statement, rows in zip(shown, (trades, candles), strict=True):
            assert ask(home, statement) == [tuple(row.values()) for row in rows.to_pylist()]
        location = iceberg.current(later_trades).metadata_location
        schema_id = paimon.opened(later_candles).table_schema.id
    with IcebergStore.open(home) as iceberg, PaimonStore.open(home) as paimon:  # nothing is left to do
        assert iceberg.current(later_trades).metadata_location == location
        assert paimon.opened(later_candles).table_schema.id == schema_id > 0


def ask(home: Home, statement: str, as_of_us: int | None = None) -> list[tuple[Any, ...]]:
    with sql.connect(home, as_of_us=as_of_us) as connection:
        return list(sql.run_query(connection, statement).rows)


def changed(table: Table, column: str, **values: Any) -> Table:
    fields = [
        pa.field(f.name, values.get("kind", f.type), values.get("optional", f.nullable), f.metadata)
        if f.name == column
        else f
        for f in table.schema
    ]
    return replace(table, schema=pa.schema(fields))


def without(table: Table, column: str) -> Table:
    return replace(table, schema=pa.schema([f for f in table.schema if f.name != column]))


def swapped(table: Table) -> Table:
    fields = list(table.schema)
    fields[-1], fields[-2] = fields[-2], fields[-1]
    return replace(table, schema=pa.schema(fields))


REFUSED = {
    "narrower": (lambda table: changed(table, "recorded_at", kind=pa.int64()), "recorded_at is"),
    "gone": (lambda table: without(table, "recorded_at"), "it has recorded_at, which"),
    "moved": (swapped, "its columns are in another order"),
    "new and required": (
        lambda table: replace(table, schema=table.schema.append(pa.field("more", pa.string(), False))),
        "it lacks more, which must not be empty",
    ),
    "partitioned otherwise": (
        lambda table: replace(table, partition_by=("product",)),
        "it is partitioned by",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("table", [TRADES, CANDLES_1M], ids=["iceberg", "paimon"])
def test_what_would_leave_old_rows_unreadable_is_refused(
    home: Home, become: Callable[[Table], None], table: Table, what: str
) -> None:
    change, reason = REFUSED[what]
    store, error = (IcebergStore, IcebergStoreError) if table is TRADES else (PaimonStore, PaimonStoreError)
    with store.open(home):
        pass
    become(change(table))
    with pytest.raises(error, match=f"the table {table.name} in .*{reason}.*; use an empty LAKEHOUSE_HOME"):
        store.open(home)


@pytest.mark.parametrize("table", [TRADES, CANDLES_1M], ids=["iceberg", "paimon"])
def test_a_column_may_become_one_that_can_be_empty_but_not_the_other_way_round(
    home: Home, become: Callable[[Table], None], table: Table
) -> None:
    relaxed = changed(table, "recorded_at", optional=True)
    old = make_trades([1]) if table is TRADES else make_candles([1])
    new = make_trades([2]) if table is TRADES else make_candles([2])
    (with_less,) = new.to_pylist()
    less = pa.Table.from_pylist([with_less | {"recorded_at": None}], relaxed.schema)
    store: Any = IcebergStore if table is TRADES else PaimonStore
    for version, rows in ((table, old), (relaxed, less)):
        become(version)
        with store.open(home) as opened:
            opened.append(version, rows) if table is TRADES else opened.upsert(version, rows)
    with store.open(home) as opened:
        found = opened.scan(relaxed).sort_by("recorded_at")
        assert found.to_pylist() == [*old.to_pylist(), *less.to_pylist()]
    shown = f"SELECT * FROM {table.name} ORDER BY recorded_at"
    assert ask(home, shown) == [tuple(row.values()) for row in found.to_pylist()]
    become(table)
    error = IcebergStoreError if table is TRADES else PaimonStoreError
    with pytest.raises(error, match=f"the table {table.name} in .*recorded_at may be empty in it"):
        store.open(home)


def test_a_table_by_day_becomes_one_by_day_and_product(home: Home, become: Callable[[Table], None]) -> None:
    later = replace(GAPS, partition_by=("day", "product"))
    rows = rows_with_extremes(GAPS.schema)
    with IcebergStore.open(home) as store:
        store.append(GAPS, rows.slice(0, 2))
    become(later)
    with IcebergStore.open(home) as store:
        store.append(later, rows.slice(2, 2))
        assert [(s.product, s.rows) for s in store.partitions(later)] == [
            (None, 2),
            ("BTC-USD", 1),
            ("ETH-USD", 1),
        ]
        for product in ("BTC-USD", "ETH-USD"):
            found = store.scan(later, product=product, day=DAY)
            assert found["product"].to_pylist() == [product] * 2
        with pytest.raises(IcebergStoreError, match="merge them first"):
            store.replace(later, "BTC-USD", DAY, rows.slice(0, 0))
        store.append(
            later, rows.slice(0, 0), offsets={0: 1}
        )  # manifests of both partitionings are carried on
        store.compact(later, fan_in=1)
        assert [(s.product, s.rows) for s in store.partitions(later)] == [("BTC-USD", 2), ("ETH-USD", 2)]
        assert sorted(map(repr, store.scan(later).to_pylist())) == sorted(map(repr, rows.to_pylist()))
        store.replace(later, "BTC-USD", DAY, rows.slice(0, 0))
        assert store.scan(later)["product"].to_pylist() == ["ETH-USD"] * 2
        assert ask(home, "SELECT DISTINCT product FROM gaps") == [("ETH-USD",)]
