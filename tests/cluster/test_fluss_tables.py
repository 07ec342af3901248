"""The tables in Fluss: made once, checked always; and what goes wrong is one sentence."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fluss
import pyarrow as pa
import pytest
from bridge_world import own_tables, publish_numbered, rows_in_fluss, rows_of_log
from running_cluster import RunningCluster

from lakehouse.home import Home
from lakehouse.stores import fluss_writer
from lakehouse.stores.fluss_connection import (
    FlussStoreError,
    FlussTarget,
    FlussUnavailableError,
    answer,
    connect,
)
from lakehouse.stores.fluss_hot import FlussHotStore
from lakehouse.stores.fluss_tables import COLUMNS, LOGS, TOO_LATE, FlussShapeError, create_tables, path_of
from lakehouse.stores.fluss_writer import FlussWriter, event_loop
from lakehouse.stores.hot_store import open_hot_reader
from streaming.spine.sqlite import SqliteSpine


@pytest.fixture
def target(cluster: RunningCluster, tmp_path: Path) -> Iterator[FlussTarget]:
    with own_tables(cluster, tmp_path) as made:
        yield made


def create(target: FlussTarget) -> None:
    async def created() -> None:
        await create_tables(await connect(target), target)

    asyncio.run(created())


def test_the_tables_are_made_once_and_hold_what_they_should(target: FlussTarget) -> None:
    create(target)
    create(target)

    async def looked_at() -> dict[str, fluss.TableInfo]:
        admin = (await connect(target)).get_admin()
        assert sorted(await admin.list_tables(target.database)) == sorted(COLUMNS)
        return {name: await admin.get_table_info(path_of(target, name)) for name in COLUMNS}

    found = asyncio.run(looked_at())
    types = dict(found["trades"].get_schema().get_columns())
    assert types["price"] == "decimal(18,8) NOT NULL"
    assert types["event_time"] == "timestamp_ltz NOT NULL"
    assert types["too_late"] == "boolean NOT NULL"
    assert dict(found["quotes"].get_schema().get_columns())["imbalance"] == "decimal(9,8)"
    for name in LOGS:
        assert (found[name].num_buckets, found[name].get_bucket_keys()) == (target.buckets, ["product"])
        assert not found[name].has_primary_key()
        assert rows_in_fluss(target, name).num_rows == 0
    assert found["latest"].get_primary_keys() == ["product"]
    assert {info.get_properties()["table.replication.factor"] for info in found.values()} == {"3"}


def test_programs_that_start_at_the_same_moment_all_find_the_tables(target: FlussTarget) -> None:
    async def created(programs: int) -> None:
        connections = [await connect(target) for _ in range(programs)]
        await asyncio.gather(*(create_tables(connection, target) for connection in connections))

    asyncio.run(created(6))


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        ({"buckets": 4}, "has 3 buckets, not 4: set LAKEHOUSE_SPINE_PARTITIONS to that"),
        ({"replicas": 2}, "has 3 replicas, not 2: set LAKEHOUSE_FLUSS_REPLICAS to that"),
    ],
)
def test_another_size_is_refused(target: FlussTarget, difference: dict[str, int], sentence: str) -> None:
    create(target)
    with pytest.raises(FlussShapeError, match=sentence):
        create(replace(target, **difference))  # type: ignore[arg-type]


def test_another_shape_is_refused(target: FlussTarget) -> None:
    async def made_otherwise() -> None:
        admin = (await connect(target)).get_admin()
        await admin.create_database(target.database)
        columns = COLUMNS["quotes"].remove(COLUMNS["quotes"].get_field_index("spread"))
        descriptor = fluss.TableDescriptor(
            fluss.Schema(columns),
            bucket_count=target.buckets,
            bucket_keys=["product"],
            properties={"table.replication.factor": "3"},
        )
        await admin.create_table(path_of(target, "quotes"), descriptor)

    asyncio.run(made_otherwise())
    with pytest.raises(FlussShapeError, match=rf"{target.database}\.quotes .* another shape .*spread"):
        create(target)


def test_more_replicas_than_servers_is_one_sentence(target: FlussTarget) -> None:
    with pytest.raises(FlussStoreError, match=r"set LAKEHOUSE_FLUSS_REPLICAS to their number") as caught:
        create(replace(target, replicas=5))
    assert "\n" not in str(caught.value)


def test_nobody_there_is_one_sentence(cluster: RunningCluster, tmp_path: Path) -> None:
    settings = cluster.settings(tmp_path, fluss_address="127.0.0.1:1", fluss_timeout_seconds=3.0)
    for follow in (False, True):
        with pytest.raises(FlussUnavailableError, match="LAKEHOUSE_FLUSS_ADDRESS") as caught:
            open_hot_reader(settings, Home(tmp_path, "simulated").create(), follow=follow)
        assert "\n" not in str(caught.value)
        assert "127.0.0.1:1" in str(caught.value)


@pytest.mark.parametrize("address", ["nonsense", "host:", ":9123", "host:port"])
def test_no_address_is_one_sentence(target: FlussTarget, address: str) -> None:
    with pytest.raises(FlussStoreError, match="LAKEHOUSE_FLUSS_ADDRESS to host:port"):
        create(replace(target, address=address))


def test_no_answer_is_waited_for_so_long_and_no_longer(target: FlussTarget) -> None:
    async def asked() -> None:
        await answer(asyncio.Event().wait(), replace(target, timeout_seconds=0.2), "waiting")

    with pytest.raises(FlussUnavailableError, match=r"no answer within 0.2 s while waiting"):
        asyncio.run(asked())


def test_a_row_that_does_not_fit_is_refused_and_the_next_writer_works(target: FlussTarget) -> None:
    with event_loop() as runner:
        writer = FlussWriter.open(runner, target)
        with pytest.raises(FlussStoreError):
            writer.write({"trades": COLUMNS["quotes"].empty_table().slice(0, 0), "quotes": _wrong()})
        FlussWriter.open(runner, target).write({})
    with FlussHotStore.open(target) as store:
        assert store.latest().num_rows == 0


def _wrong() -> pa.Table:
    return pa.table({"product": ["BTC-USD"]})


def test_any_number_of_pieces_is_acknowledged(
    target: FlussTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fluss_writer, "ROWS_AT_ONCE", 1)
    with SqliteSpine.open(tmp_path / "spine.db") as spine, event_loop() as runner:
        publish_numbered(spine, 0, 2_000)
        rows = rows_of_log(spine, "trades")
        rows = rows.append_column(TOO_LATE, pa.repeat(pa.scalar(False), rows.num_rows))
        FlussWriter.open(runner, target).write({"trades": rows})
    assert rows_in_fluss(target, "trades").num_rows == 2_000
