from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from table_rows import DAY, make_trades, rows_with_extremes

from lakehouse.home import Home
from lakehouse.market.product import InvalidProductError
from lakehouse.stores.iceberg import (
    ForeignCommitError,
    IcebergStore,
    IcebergStoreError,
    SnapshotGoneError,
)
from lakehouse.stores.iceberg_commit import FilesReplacedError
from lakehouse.stores.rows import RowsMismatchError
from lakehouse.stores.schemas import GAPS, QUOTES, TABLES, TRADES, Table

ICEBERG = [table for table in TABLES.values() if table.store == "iceberg"]


def metadata_files(home: Home) -> set[Path]:
    """Files of table metadata, which commits delete, not expiry."""
    return set(home.iceberg.rglob("*.metadata.json"))


def ids(rows: pa.Table) -> list[int]:
    return sorted(rows["trade_id"].to_pylist())


@pytest.mark.parametrize("table", ICEBERG, ids=lambda table: table.name)
def test_every_column_comes_back_as_it_was(home: Home, table: Table) -> None:
    rows = rows_with_extremes(table.schema)
    with IcebergStore.open(home) as store:
        store.append(table, rows.select(list(reversed(table.schema.names))))
    with IcebergStore.open(home) as store:
        found = store.scan(table)
        by_product = store.scan(table, product="ETH-USD", day=DAY, columns=["recorded_at", "product"])
        encoded = store.scan(table, encoded=True)
    assert pa.types.is_dictionary(encoded.schema.field("product").type)
    assert encoded.cast(found.schema).equals(found)
    order = [(name, "ascending") for name in table.schema.names if name not in ("frame",)]
    assert found.schema.remove_metadata() == pa.schema([f.remove_metadata() for f in table.schema])
    assert found.sort_by(order).to_pylist() == rows.sort_by(order).to_pylist()
    assert by_product.column_names == ["recorded_at", "product"]
    assert by_product["product"].to_pylist() == ["ETH-USD", "ETH-USD"]


def test_opening_again_writes_nothing(home: Home) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
    before = {path for path in Path(home.iceberg).rglob("*") if path.is_file()}
    with IcebergStore.open(home) as store:
        assert store.scan(TRADES)["trade_id"].to_pylist() == [1]
    assert {path for path in Path(home.iceberg).rglob("*") if path.is_file()} == before


def test_files_are_sorted_and_their_bounds_known_without_opening_them(home: Home) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, pa.concat_tables([make_trades([7, 3, 5]), make_trades([9, 8], "ETH-USD")]))
        store.append(TRADES, make_trades([1, 2]))
        first, second = store.partitions(TRADES)
        assert store.scan(TRADES, product="ETH-USD")["trade_id"].to_pylist() == [8, 9]
        for file in Path(home.iceberg).rglob("*.parquet"):
            file.unlink()
        assert store.partitions(TRADES) == [first, second]
    assert (first.day, first.product, first.rows, first.files) == (DAY, "BTC-USD", 5, 2)
    assert (first.min_trade_id, first.max_trade_id) == (1, 7)
    assert (second.min_trade_id, second.max_trade_id, second.files) == (8, 9, 1)


def test_a_reader_in_another_object_sees_each_commit(home: Home) -> None:
    with IcebergStore.open(home) as writer, IcebergStore.open(home) as reader:
        assert reader.snapshot_id(TRADES) is None
        first = writer.append(TRADES, make_trades([1]))
        assert reader.snapshot_id(TRADES) == first
        second = writer.append(TRADES, make_trades([2]))
        assert ids(reader.scan(TRADES)) == [1, 2]
        assert first is not None
        assert ids(reader.scan(TRADES, snapshot_id=first)) == [1]
        assert second != first


def test_offsets_and_counters_move_with_the_rows_and_outlive_every_commit(home: Home) -> None:
    with IcebergStore.open(home) as store:
        assert store.offsets(TRADES) == {}
        store.append(TRADES, make_trades([1]), offsets={0: 5, 1: 7}, counters={"duplicates.BTC-USD": 2})
        store.append(TRADES, make_trades([2]), offsets={1: 9}, counters={"duplicates.BTC-USD": 3})
        store.append(TRADES, TRADES.schema.empty_table(), offsets={2: 1})
        store.replace(TRADES, "BTC-USD", DAY, make_trades([1, 2]), properties={"lakehouse.seal.x": "sum"})
        for n in range(3, 9):
            store.append(TRADES, make_trades([n]))
        store.compact(TRADES, fan_in=2)
        store.expire(TRADES, keep=1, grace=timedelta(0))
        store.append(TRADES, make_trades([9]))
    with IcebergStore.open(home) as store:
        assert store.offsets(TRADES) == {0: 5, 1: 9, 2: 1}
        assert store.counters(TRADES) == {"duplicates.BTC-USD": 5}
        assert store.properties(TRADES)["lakehouse.seal.x"] == "sum"
        assert ids(store.scan(TRADES)) == list(range(1, 10))
        assert store.offsets(QUOTES) == {}


def test_nothing_to_write_makes_no_snapshot(home: Home) -> None:
    with IcebergStore.open(home) as store:
        assert store.append(TRADES, TRADES.schema.empty_table()) is None
        snapshot = store.append(TRADES, make_trades([1]))
        assert store.append(TRADES, TRADES.schema.empty_table()) == snapshot


def another_program(home: Home) -> SqlCatalog:
    return SqlCatalog("simulated", uri=f"sqlite:///{home.iceberg}/catalog.db")


def test_what_is_kept_of_a_table_is_what_another_program_reads(home: Home) -> None:
    with IcebergStore.open(home) as store:
        for n in range(4):
            store.append(TRADES, make_trades([2 * n]))
            store.tag(TRADES, f"tag-{n}")
            read = another_program(home).load_table("simulated.trades")
            kept = store.current(TRADES)
            assert kept.metadata.model_dump() == read.metadata.model_dump()
            assert kept.metadata_location == read.metadata_location
            before = kept.metadata.model_dump()
            read.append(make_trades([2 * n + 1]))
            assert ids(store.scan(TRADES)) == list(range(2 * n + 2))
            assert kept.metadata.model_dump() == before
        assert set(store.current(TRADES).metadata.refs) == {"main", *(f"tag-{n}" for n in range(4))}


def test_offsets_outlive_commits_of_another_program(home: Home) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]), offsets={0: 5}, counters={"x": 1})
        for n in range(2, 5):
            another_program(home).load_table("simulated.trades").append(make_trades([n]))
        assert store.offsets(TRADES) == {0: 5}
        store.expire(TRADES, keep=1)
        assert store.offsets(TRADES) == {0: 5}
        store.append(TRADES, make_trades([5]), offsets={1: 7})
        store.expire(TRADES, keep=1)
        assert store.offsets(TRADES) == {0: 5, 1: 7}
        assert store.properties(TRADES)["lakehouse.commit"] == "2"
        assert len(store.current(TRADES).metadata.snapshots) == 1
        assert ids(store.scan(TRADES)) == [1, 2, 3, 4, 5]
        assert store.counters(TRADES) == {"x": 1}


def test_offsets_dropped_by_another_program_are_noticed(home: Home) -> None:
    with IcebergStore.open(home) as store:
        ours = store.append(TRADES, make_trades([1]), offsets={0: 5})
        assert ours is not None
        table = another_program(home).load_table("simulated.trades")
        table.append(make_trades([2]))
        table.maintenance.expire_snapshots().by_id(ours).commit()
        for reading in (store.offsets, store.properties):
            with pytest.raises(ForeignCommitError, match="another program"):
                reading(TRADES)
        with pytest.raises(ForeignCommitError):
            store.append(TRADES, make_trades([3]))
        assert ids(store.scan(TRADES)) == [1, 2]


def test_what_flink_says_of_its_checkpoints_outlives_our_commits(home: Home) -> None:
    said = {"flink.job-id": "4a", "flink.operator-id": "7", "flink.max-committed-checkpoint-id": "12"}
    with IcebergStore.open(home) as store:
        store.append(QUOTES, rows_with_extremes(QUOTES.schema))
        table = another_program(home).load_table("simulated.quotes")
        table.append(rows_with_extremes(QUOTES.schema), snapshot_properties=said)
        store.append(QUOTES, rows_with_extremes(QUOTES.schema))
        store.compact(QUOTES, fan_in=2)
        store.expire(QUOTES, keep=1)
        (snapshot,) = store.current(QUOTES).metadata.snapshots
    assert snapshot.summary is not None
    assert {key: snapshot.summary[key] for key in said} == said


def test_replace_changes_one_partition_in_one_snapshot(home: Home) -> None:
    other_day = DAY + timedelta(days=1)
    with IcebergStore.open(home) as store:
        for n in (1, 3):
            store.append(TRADES, make_trades([n, n + 1]))
        store.append(TRADES, make_trades([1], "ETH-USD"))
        before = store.append(TRADES, make_trades([9], day=other_day))
        after = store.replace(TRADES, "BTC-USD", DAY, make_trades([4, 2, 10]))
        table = store.current(TRADES)
        assert table.snapshot_by_id(after).parent_snapshot_id == before  # type: ignore[union-attr]
        assert store.scan(TRADES, product="BTC-USD", day=DAY)["trade_id"].to_pylist() == [2, 4, 10]
        assert store.partitions(TRADES)[0].files == 1
        assert ids(store.scan(TRADES, product="ETH-USD")) == [1]
        assert ids(store.scan(TRADES, day=other_day)) == [9]
        store.replace(TRADES, "BTC-USD", DAY, TRADES.schema.empty_table())
        assert [(s.day, s.product) for s in store.partitions(TRADES)] == [
            (DAY, "ETH-USD"),
            (other_day, "BTC-USD"),
        ]


def test_replace_takes_the_place_of_what_was_read_and_of_nothing_else(home: Home) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
        read = store.data_files(TRADES, product="BTC-USD", day=DAY)
        store.append(TRADES, make_trades([2]))
        store.replace(TRADES, "BTC-USD", DAY, make_trades([3, 4]), counters={"x": 2}, files=read)
        assert ids(store.scan(TRADES)) == [2, 3, 4]
        with pytest.raises(FilesReplacedError):
            store.replace(TRADES, "BTC-USD", DAY, make_trades([5]), files=read)
        assert ids(store.scan(TRADES)) == [2, 3, 4]
        assert store.counters(TRADES) == {"x": 2}


def test_rows_that_do_not_fit_are_refused_and_change_nothing(home: Home) -> None:
    good = make_trades([1])
    empty = pa.array([None], pa.string())
    wrong = [
        good.drop_columns(["late"]),
        good.append_column("more", pa.array([1])),
        good.set_column(6, pa.field("taker_side", pa.string()), empty),
        good.set_column(2, "trade_id", pa.array(["x"])),
        good.set_column(4, "price", pa.array([1.23456789012])),
    ]
    with IcebergStore.open(home) as store:
        for rows in wrong:
            with pytest.raises(RowsMismatchError):
                store.append(TRADES, rows)
        with pytest.raises(RowsMismatchError):
            store.replace(TRADES, "ETH-USD", DAY, good)
        with pytest.raises(RowsMismatchError):
            store.replace(TRADES, "BTC-USD", date(2020, 1, 1), good)
        with pytest.raises(IcebergStoreError, match="partitions by day and product"):
            store.replace(GAPS, "BTC-USD", DAY, GAPS.schema.empty_table())
        with pytest.raises(IcebergStoreError, match="lakehouse"):
            store.replace(TRADES, "BTC-USD", DAY, good, properties={"lakehouse.offset.0": "1"})
        assert store.snapshot_id(TRADES) is None


@pytest.mark.parametrize("name", ["../../x", "BTC-USD' OR 1=1", "BTC-USD\0", "A" * 10_000, ""])
def test_a_hostile_product_reaches_no_path_and_no_filter(home: Home, name: str) -> None:
    with IcebergStore.open(home) as store:
        with pytest.raises(InvalidProductError):
            store.append(TRADES, make_trades([1], name))
        with pytest.raises(InvalidProductError):
            store.scan(TRADES, product=name)
        with pytest.raises(InvalidProductError):
            store.replace(TRADES, name, DAY, make_trades([1]))
    assert not list(home.root.rglob("*.parquet"))


def test_compaction_keeps_the_rows_and_leaves_few_files(home: Home) -> None:
    with IcebergStore.open(home) as store:
        for n in range(20):
            store.append(TRADES, pa.concat_tables([make_trades([n]), make_trades([n], "ETH-USD")]))
        store.append(QUOTES, rows_with_extremes(QUOTES.schema))
        result = store.compact(TRADES, fan_in=10)
        assert (result.merged, result.written) == (40, 2)
        assert [s.files for s in store.partitions(TRADES)] == [1, 1]
        assert store.scan(TRADES, product="BTC-USD")["trade_id"].to_pylist() == list(range(20))
        assert store.compact(TRADES, fan_in=10).merged == 0
        snapshot = store.current(TRADES).current_snapshot()
        assert snapshot is not None
        assert snapshot.summary is not None
        assert snapshot.summary["total-records"] == "40"
        assert snapshot.summary["total-data-files"] == "2"


def test_pyiceberg_reads_what_we_commit(home: Home) -> None:
    with IcebergStore.open(home) as store:
        for n in range(40):  # enough for manifests to be merged
            store.append(TRADES, make_trades([n]))
        store.compact(TRADES, fan_in=8)
        store.replace(TRADES, "ETH-USD", DAY, make_trades([5], "ETH-USD"))
        store.append(TRADES, make_trades([40]))
        found = another_program(home).load_table("simulated.trades").scan().to_arrow()
    assert sorted(found.cast(TRADES.schema).to_pylist(), key=str) == sorted(
        pa.concat_tables([make_trades(range(41)), make_trades([5], "ETH-USD")]).to_pylist(), key=str
    )


def test_expiry_deletes_files_but_not_those_of_a_tag(home: Home) -> None:
    with IcebergStore.open(home) as store:
        tagged = store.append(TRADES, make_trades([1, 2, 3]))
        store.tag(TRADES, "sealed")
        gone = store.append(TRADES, make_trades([4]))
        for n in range(12):
            store.replace(TRADES, "BTC-USD", DAY, make_trades([n]))
        crashed = home.iceberg / "warehouse" / "trades" / "data" / "left-by-a-crash.parquet"
        crashed.write_bytes(b"half")
        store.sweep(TRADES, grace=timedelta(0))
        before = set(home.iceberg.rglob("*.*")) - metadata_files(home)
        assert crashed.exists()  # it may wait for its commit
        result = store.expire(TRADES, keep=2, grace=timedelta(0), ladder=())
        assert result.snapshots == 11
        assert result.deleted_files == len(before - set(home.iceberg.rglob("*.*")))
        assert crashed.exists()
        found = store.sweep(TRADES, grace=timedelta(0), pending=timedelta(0))
        assert (found.deleted, crashed.exists()) == (1, False)
        assert len(list(home.iceberg.rglob("trades/data/**/*.parquet"))) == 3
        assert ids(store.scan(TRADES, snapshot_id=tagged)) == [1, 2, 3]
        assert ids(store.scan(TRADES)) == [11]
        with pytest.raises(SnapshotGoneError):
            store.scan(TRADES, snapshot_id=gone)
        again = store.expire(TRADES, keep=2, grace=timedelta(0), ladder=())
        assert (again.snapshots, again.deleted_files) == (0, 0)
        store.untag(TRADES, "sealed")
        assert store.expire(TRADES, keep=1, grace=timedelta(0), ladder=()).snapshots == 2
    with IcebergStore.open(home) as store:
        assert ids(store.scan(TRADES)) == [11]
        assert len(list(home.iceberg.rglob("trades/data/**/*.parquet"))) == 1


def test_a_file_is_deleted_only_after_its_grace(home: Home) -> None:
    with IcebergStore.open(home) as store:
        store.append(TRADES, make_trades([1]))
        store.replace(TRADES, "BTC-USD", DAY, make_trades([2]))
        store.expire(TRADES, keep=1, grace=timedelta(hours=1))
        result = store.expire(TRADES, keep=1, grace=timedelta(hours=1))
        assert result.deleted_files == 0
        assert result.waiting > 0
        assert len(list(home.iceberg.rglob("trades/data/**/*.parquet"))) == 2


def test_maintenance_bounds_what_many_commits_leave(home: Home) -> None:
    with IcebergStore.open(home) as store:
        for n in range(100):
            store.append(TRADES, make_trades([n]), offsets={0: n})
            store.maintain(TRADES)
        table = store.current(TRADES)
        assert len(table.metadata.snapshots) <= 32 + len(store.tags(TRADES))
        assert store.partitions(TRADES)[0].files <= 40
        snapshot = table.current_snapshot()
        assert snapshot is not None
        assert len(snapshot.manifests(table.io)) <= 34
        assert ids(store.scan(TRADES)) == list(range(100))
        assert store.offsets(TRADES) == {0: 99}
