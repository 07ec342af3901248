"""Flink's batch jobs: days rebuilt as Python rebuilds them, a table compacted beside the streaming job."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlparse

import pyarrow as pa
import pytest
from flink_world import FlinkWorld, flink_world, sorted_candles
from log_messages import market
from running_cluster import RunningCluster
from table_rows import make_trades

from lakehouse.candles.of_exchange import of_exchange
from lakehouse.candles.rebuild import rebuild
from lakehouse.candles.rollup import WIDTH_US, rolled_up
from lakehouse.market.product import InvalidProductError
from lakehouse.stores import schemas, sql
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1D, CANDLES_1H, CANDLES_1M, EXCHANGE_CANDLES, TRADES, Table
from lakehouse.stores.seals import edges_of_days, known_edges
from lakehouse.stores.versions import held_tag
from streaming.engines.flink.batch import EdgesError, compact, rebuild_days, remove_orphans, tag
from streaming.engines.flink.errors import JobFailedError, StatementError
from streaming.engines.flink.job_manager import JobProgress
from streaming.engines.rebuilding import rebuilder

pytestmark = pytest.mark.timeout(900)

DAY = date(2026, 1, 2)
EVE = DAY - timedelta(days=1)
MORROW = DAY + timedelta(days=1)


@pytest.fixture(scope="module")
def world(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkWorld]:
    with flink_world(cluster, tmp_path_factory.mktemp("batch")) as made:
        yield made


def spread(ids: list[int], product: str, day: date, apart_us: int) -> pa.Table:
    """Trades of a day, each `apart_us` after the one with the id before it."""
    rows = make_trades(ids, product, day)
    at = rows.schema.get_field_index("event_time")
    midnight = (day - date(1970, 1, 1)).days * 86_400_000_000
    times = pa.array([midnight + (number - ids[0]) * apart_us for number in ids], pa.int64())
    return rows.set_column(at, rows.schema.field(at), times.cast(rows.schema.field(at).type))


def rebuilt(world: FlinkWorld, product: str, day: date, edges: list[int]) -> tuple[pa.Table, pa.Table]:
    """Rebuild a day in Flink; return what is in the table then, and what Python makes of the same rows."""
    snapshot_id = world.iceberg.snapshot_id(TRADES)
    assert snapshot_id is not None
    rebuild_days(world.flink, product, {day: edges}, snapshot_id=snapshot_id)
    found = world.paimon.scan(CANDLES_1M, product=product, day=day)
    rows = world.iceberg.scan(TRADES, product=product, day=day)
    return sorted_candles(found), sorted_candles(rebuild(rows, edges))


def test_a_day_is_rebuilt_as_python_rebuilds_it_with_its_edges(world: FlinkWorld) -> None:
    product = "BTC-USD"
    ids = [number for number in range(1_000, 1_400) if number not in (1_050, 1_233)]
    world.iceberg.append(TRADES, spread([*range(900, 1_000)], product, EVE, 700_000_000))
    world.iceberg.append(TRADES, spread(ids, product, DAY, 7_000_000))
    assert known_edges(world.iceberg, product, DAY) == [999]
    found, wanted = rebuilt(world, product, DAY, [999])
    assert found.equals(wanted)
    complete = found["is_complete"].to_pylist()
    assert (complete[0], complete[-1]) == (True, False)
    assert complete.count(False) >= 3

    world.iceberg.append(TRADES, spread([*range(1_400, 1_450)], product, MORROW, 700_000_000))
    edges = known_edges(world.iceberg, product, DAY)
    assert edges == [999, 1_400]
    found, wanted = rebuilt(world, product, DAY, edges)
    assert found.equals(wanted)
    assert found["is_complete"].to_pylist()[-1]
    found, wanted = rebuilt(world, product, DAY, [])
    assert found.equals(wanted)
    assert not found["is_complete"].to_pylist()[0]


def test_ids_that_cross_a_minute_are_known_all_the_same(world: FlinkWorld) -> None:
    product = "ETH-USD"
    world.iceberg.append(TRADES, spread([1, 2, 3, 4, 5, 6], product, DAY, 20_000_000))
    out_of_step = spread([7, 9, 11], product, DAY, 20_000_000)
    world.iceberg.append(TRADES, out_of_step)
    world.iceberg.append(TRADES, spread([8, 10, 12], product, DAY, 100_000_000))
    found, wanted = rebuilt(world, product, DAY, [])
    assert found.equals(wanted)
    assert True in found["is_complete"].to_pylist()


def test_days_of_a_product_are_rebuilt_by_one_job_and_in_one_commit(world: FlinkWorld) -> None:
    product = "SOL-USD"
    edge = 10_000
    days = [DAY + timedelta(days=number) for number in range(40)]
    traded = [day for day in days if day.day % 7 != 3]
    trades = [spread([*range(1, 20)], product, EVE, 17_000_000)]
    held_over: list[int] = []
    for number, day in enumerate(traded):
        # Days that join on, days with a hole between them, holes within; the next day fills some.
        first = edge if number % 3 else edge + 5
        hole = first + 7 + number % 20
        ids = [trade_id for trade_id in range(first, first + 30) if trade_id != hole]
        trades.append(spread(held_over + ids, product, day, 17_000_000))
        held_over = [hole] if number % 4 == 1 else []
        edge = first + 30
    world.iceberg.append(TRADES, pa.concat_tables(trades))
    rebuild_all = rebuilder(world.settings, world.home, world.iceberg, world.paimon)
    assert rebuild_all(product, [EVE], None)[EVE].changed
    before = world.paimon.snapshot_id(CANDLES_1M)
    assert before is not None
    done = rebuild_all(product, days, None)
    assert [day for day in days if done[day].changed] == traded
    (job_id,) = {done[day].job_id for day in traded}
    assert job_id is not None
    assert world.paimon.snapshot_id(CANDLES_1M) == before + 1
    assert_rebuilt(world, product, [EVE, *days])

    emptied = [traded[5], traded[12], traded[-1]]
    for day in emptied:
        world.iceberg.replace(TRADES, product, day, TRADES.schema.empty_table())
    done = rebuild_all(product, days[3:], None)
    assert [day for day in emptied if done[day].changed] == emptied
    assert not any(done[day].changed for day in traded[-10:-2])
    assert {done[day].job_id for day in emptied}.isdisjoint({done[traded[6]].job_id, job_id})
    assert_rebuilt(world, product, [EVE, *days])
    assert world.iceberg.tags(TRADES) == {}


def assert_rebuilt(world: FlinkWorld, product: str, days: list[date]) -> None:
    """Compare days of candles with what Python makes of each day's trades and its known edges."""
    edges = edges_of_days(world.iceberg, product, days)
    wanted = [rebuild(world.iceberg.scan(TRADES, product=product, day=day), edges[day]) for day in days]
    found = world.paimon.scan(CANDLES_1M, product=product)
    assert sorted_candles(found).equals(sorted_candles(pa.concat_tables(wanted)))


def told(product: str, day: date, minutes: list[int]) -> pa.Table:
    """Candles of an exchange, each minute another."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    rows = [
        {"product": product, "day": day, "start": midnight + timedelta(minutes=minute)}
        | {"open": Decimal(minute + 2), "high": Decimal(minute + 4), "low": Decimal(minute + 1)}
        | {"close": Decimal(minute + 3), "volume": Decimal(minute) + Decimal("0.00000001")}
        | {"exchange": "simulated", "recorded_at": midnight + timedelta(days=9, minutes=minute)}
        for minute in minutes
    ]
    return pa.Table.from_pylist(rows, EXCHANGE_CANDLES.schema)


def test_days_without_trades_are_what_the_exchange_tells_until_their_trades_are_there(
    world: FlinkWorld,
) -> None:
    product = "DOT-USD"
    days = {EVE: [0, 1, 59, 60, 1439], DAY: [7, 300], MORROW: [5]}
    for day, minutes in days.items():
        world.iceberg.replace(EXCHANGE_CANDLES, product, day, told(product, day, minutes))
    world.iceberg.append(TRADES, spread([1, 2, 3], product, DAY, 20_000_000))
    rebuild_all = rebuilder(world.settings, world.home, world.iceberg, world.paimon)
    done = rebuild_all(product, list(days), None)
    assert all(done[day].changed for day in days)
    assert done[EVE].job_id == done[MORROW].job_id != done[DAY].job_id
    of_trades = rebuild(world.iceberg.scan(TRADES, product=product, day=DAY))
    wanted = {day: of_exchange(told(product, day, minutes)) for day, minutes in days.items()}
    wanted[DAY] = of_trades
    assert_candles(world, CANDLES_1M, product, wanted)
    assert not any(was.changed for was in rebuild_all(product, list(days), None).values())

    for table in (CANDLES_1H, CANDLES_1D):
        roll_up = rebuilder(world.settings, world.home, world.iceberg, world.paimon, table)
        assert all(was.changed for was in roll_up(product, list(days), None).values())
        width_us = WIDTH_US[table.name]
        assert_candles(
            world, table, product, {day: rolled_up(rows, width_us) for day, rows in wanted.items()}
        )

    world.iceberg.append(TRADES, spread([*range(10, 40)], product, EVE, 20_000_000))
    assert rebuild_all(product, [EVE], None)[EVE].changed
    wanted[EVE] = rebuild(world.iceberg.scan(TRADES, product=product, day=EVE))
    assert_candles(world, CANDLES_1M, product, wanted)


def assert_candles(world: FlinkWorld, table: Table, product: str, wanted: dict[date, pa.Table]) -> None:
    found = sorted_candles(world.paimon.scan(table, product=product))
    assert found.to_pylist() == sorted_candles(pa.concat_tables(wanted.values())).to_pylist()


def test_a_job_that_fails_leaves_all_its_days_as_before(world: FlinkWorld) -> None:
    product = "ADA-USD"
    rebuild_all = rebuilder(world.settings, world.home, world.iceberg, world.paimon)
    for day in (DAY, MORROW):
        world.iceberg.append(TRADES, spread([*range(day.day, day.day + 5)], product, day, 20_000_000))
    rebuild_all(product, [DAY, MORROW], None)
    before = world.candle_rows()
    world.iceberg.append(TRADES, spread([50, 51], product, DAY, 20_000_000))
    world.iceberg.append(TRADES, spread([60, 61], product, MORROW, 20_000_000))
    data = world.iceberg.data_files(TRADES, product=product)[-1]
    file = Path(urlparse(data.file_path).path)
    held = file.read_bytes()
    file.unlink()
    with pytest.raises(JobFailedError):
        rebuild_all(product, [DAY, MORROW], None)
    assert world.candle_rows().equals(before)
    file.write_bytes(held)
    assert all(done.changed for done in rebuild_all(product, [DAY, MORROW], None).values())
    assert_rebuilt(world, product, [DAY, MORROW])


def test_progress_is_told_and_wrong_arguments_are_one_sentence(world: FlinkWorld) -> None:
    world.iceberg.append(TRADES, spread([1, 2], "LINK-USD", DAY, 20_000_000))
    snapshot_id = world.iceberg.snapshot_id(TRADES)
    assert snapshot_id is not None
    told: list[JobProgress] = []
    rebuild_days(world.flink, "LINK-USD", {DAY: []}, snapshot_id=snapshot_id, on_progress=told.append)
    assert told[-1].state == "FINISHED"
    assert told[-1].ended_tasks == told[-1].tasks > 0
    with pytest.raises(InvalidProductError):
        rebuild_days(world.flink, "x' OR 1=1", {DAY: []}, snapshot_id=snapshot_id)
    with pytest.raises(EdgesError, match="3 ids"):
        rebuild_days(world.flink, "LINK-USD", {DAY: [1, 2, 3]}, snapshot_id=snapshot_id)
    with pytest.raises(StatementError, match="snapshot") as gone:
        rebuild_days(world.flink, "LINK-USD", {DAY: []}, snapshot_id=12345)
    assert "\n" not in str(gone.value)


def test_hours_and_days_are_rolled_up_as_python_rolls_them_up(world: FlinkWorld) -> None:
    product = "DOGE-USD"
    # A gap in the third hour, and ids of later hours that lie among those of earlier ones.
    world.iceberg.append(
        TRADES, spread([number for number in range(1, 2_000) if number != 700], product, DAY, 11_000_000)
    )
    world.iceberg.append(TRADES, spread([2_000, 2_001, 2_002, 2_003], product, DAY, 5_400_000_000))
    world.iceberg.append(TRADES, spread([*range(2_004, 2_400)], product, MORROW, 40_000_000))
    days = [EVE, DAY, MORROW]
    rebuilder(world.settings, world.home, world.iceberg, world.paimon)(product, days, None)
    for table in (CANDLES_1H, CANDLES_1D):
        roll_up = rebuilder(world.settings, world.home, world.iceberg, world.paimon, table)
        done = roll_up(product, days, None)
        assert [done[day].changed for day in days] == [False, True, True]
        (job_id,) = {done[day].job_id for day in (DAY, MORROW)}
        assert job_id is not None
        assert_rolled_up(world, table, product, days)
    assert set(world.paimon.scan(CANDLES_1H, product=product)["is_complete"].to_pylist()) == {True, False}

    world.iceberg.replace(TRADES, product, DAY, TRADES.schema.empty_table())
    rebuilder(world.settings, world.home, world.iceberg, world.paimon)(product, [DAY], None)
    done = rebuilder(world.settings, world.home, world.iceberg, world.paimon, CANDLES_1H)(product, days, None)
    assert [done[day].changed for day in days] == [False, True, False]
    assert_rolled_up(world, CANDLES_1H, product, days)


def assert_rolled_up(world: FlinkWorld, table: Table, product: str, days: list[date]) -> None:
    """Compare days of longer candles with what Python makes of each day's minutes."""
    wanted = [
        rolled_up(world.paimon.scan(CANDLES_1M, product=product, day=day), WIDTH_US[table.name])
        for day in days
    ]
    found = world.paimon.scan(table, product=product)
    assert sorted_candles(found).equals(sorted_candles(pa.concat_tables(wanted)))


def test_tags_keep_the_past_and_orphans_go_by_flinks_procedures(world: FlinkWorld) -> None:
    product = "AVAX-USD"
    folder = Path(world.paimon.opened(CANDLES_1M).table_path)
    for last in (3, 6):
        world.iceberg.append(TRADES, spread([*range(last - 2, last + 1)], product, DAY, 20_000_000))
        found, wanted = rebuilt(world, product, DAY, [])
        assert found.equals(wanted)
    then, now = world.paimon.versions(CANDLES_1M)[-2:]
    assert then.until_ms is not None
    name = held_tag(then.until_ms)
    tag(world.flink, CANDLES_1M, {name: then.snapshot_id}, [])
    compact(world.flink, CANDLES_1M, idle=timedelta(hours=1), keep_snapshots=1, older_than=timedelta(0))
    assert list(world.paimon.history(CANDLES_1M).live) == [now.snapshot_id]
    assert world.paimon.tags(CANDLES_1M) == {name: then.snapshot_id}
    count = f"SELECT sum(trade_count) FROM candles_1m WHERE product = '{product}'"
    for moment_ms, trades in ((then.until_ms, 3), (now.since_ms, 6)):
        with sql.connect(world.home, world.settings, as_of_us=moment_ms * 1000) as connection:
            assert connection.execute(count).fetchone() == (trades,)
    data = next(folder.rglob("data-*.parquet"))
    young, old = (data.with_name(f"data-{age}-0.parquet") for age in ("young", "old"))
    for path in (young, old):
        path.write_bytes(b"half")
    long_ago = time.time() - timedelta(days=4).total_seconds()
    os.utime(old, (long_ago, long_ago))
    assert remove_orphans(world.flink, CANDLES_1M) == 1
    assert (young.exists(), old.exists(), data.exists()) == (True, False, True)
    young.unlink()
    tag(world.flink, CANDLES_1M, {}, [name])
    assert world.paimon.tags(CANDLES_1M) == {}


@pytest.mark.full
def test_compaction_beside_the_streaming_job_changes_no_row(world: FlinkWorld) -> None:
    world.job().ensure()
    trades = market(11, 1_200)
    for start in range(0, len(trades), 150):
        world.push(trades[start : start + 150])
        count = len(world.seen)
        world.wait(lambda count=count: world.streamed_trades() >= count, "trades are missing")
    # Iceberg and Paimon commit one after the other: both have to be through before the job is cancelled.
    world.wait(lambda: world.streamed_candles() == world.wanted(), "candles differ")
    with world.flink.job_manager() as manager:
        for job in world.live():
            manager.cancel(job.id, timeout_seconds=60)
    before = world.candle_rows()
    files = sum(stats.files for stats in world.paimon.partitions(CANDLES_1M))
    result = compact(
        world.flink, CANDLES_1M, idle=timedelta(seconds=1), keep_snapshots=2, older_than=timedelta(0)
    )
    assert result.job_id is not None
    partitions = world.paimon.partitions(CANDLES_1M)
    assert {stats.files for stats in partitions} == {1}
    assert sum(stats.files for stats in partitions) < files
    assert world.candle_rows().equals(before)
    assert result.snapshots > 0
    world.job().ensure()
    world.push([*trades[-50:], *market(12, 200)])
    compact(world.flink, CANDLES_1M, idle=timedelta(hours=1))
    world.wait(lambda: world.streamed_candles() == world.wanted(), "candles differ")
    compact(world.flink, CANDLES_1M, idle=timedelta(hours=1))
    assert world.streamed_candles() == world.wanted()


@pytest.mark.full
def test_a_job_goes_on_writing_a_table_that_evolves_under_it(
    world: FlinkWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.job().ensure()
    trades = market(21, 600)
    world.push(trades[:300])
    world.wait(lambda: world.streamed_trades() >= len(world.seen), "trades are missing")
    for table in (TRADES, CANDLES_1M):
        later = replace(table, schema=table.schema.append(pa.field("more", pa.string())))
        monkeypatch.setitem(schemas.TABLES, table.name, later)
    with IcebergStore.open(world.home) as iceberg, PaimonStore.open(world.home) as paimon:
        assert "more" in iceberg.field_ids(TRADES)
        world.push(trades[300:])
        world.wait(lambda: world.streamed_trades() >= len(world.seen), "trades are missing")
        world.wait(lambda: world.streamed_candles() == world.wanted(), "candles differ")
        found = iceberg.scan(schemas.TABLES["trades"], columns=["trade_id", "more"])
        assert found["more"].null_count == found.num_rows >= len(world.seen)
        candles = paimon.scan(schemas.TABLES["candles_1m"], columns=["start", "more"])
        assert candles["more"].null_count == candles.num_rows > 0
    with sql.connect(world.home, world.settings) as connection:
        assert connection.execute("SELECT count(more) FROM trades").fetchone() == (0,)
        assert connection.execute("SELECT count(more) FROM candles_1m").fetchone() == (0,)
