import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import pyarrow as pa
import pytest
from reference_candles import COMPARED, reference
from sealed_world import BTC, DAY, KEY, LIVE_KEY, NEXT_DAY

from lakehouse.market.time import DAY_US, day_start_us, from_datetime
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES
from lakehouse_assets import retries
from lakehouse_assets.definitions import build_defs
from lakehouse_assets.operations.stream_topics import RECORDS, topic_key
from lakehouse_assets.resources import Lakehouse
from streaming.engines.flink.errors import FlinkUnavailableError
from streaming.engines.rebuilding import RebuildDays
from streaming.exchanges.contract import RestError
from streaming.exchanges.simulated.server import SimulatedExchange
from streaming.sealing.day import Origin

Materialize = Callable[..., dg.ExecuteInProcessResult]


def metadata(run: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = [
        event for event in run.get_asset_materialization_events() if event.asset_key == dg.AssetKey(asset)
    ]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def checks(run: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {evaluation.check_name: evaluation.passed for evaluation in run.get_asset_check_evaluations()}


def candles(tables: Lakehouse) -> pa.Table:
    with tables.paimon() as store:
        return store.scan(CANDLES_1M, product=BTC, day=DAY)


def test_materializing_a_day_seals_it_and_builds_its_candles(
    exchange: SimulatedExchange, tables: Lakehouse, materialize: Materialize
) -> None:
    run = materialize(KEY)
    start = day_start_us(DAY)
    made = exchange.market.trades(BTC, start, start + DAY_US)
    assert len(made) > 100
    said = metadata(run, "trades")
    assert said["sealed"] is True
    assert said["dagster/partition_row_count"] == said["fetched_rows"] == len(made)
    assert said["first_trade_id"] == made["trade_id"][0]
    assert said["last_trade_id"] == made["trade_id"][-1]
    assert len(said["checksum"]) == 64
    results = checks(run)
    assert len(results) == 9
    assert all(results.values()), results
    with tables.iceberg() as store:
        rows = store.scan(TRADES, product=BTC, day=DAY)
        assert said["snapshot_id"] == str(store.snapshot_id(TRADES))
    assert rows["trade_id"].to_pylist() == made["trade_id"].tolist()
    expected = reference(
        (
            {
                "product": BTC,
                "trade_id": row["trade_id"],
                "event_us": from_datetime(row["event_time"]),
                "price": int(row["price"].scaleb(8)),
                "size": int(row["size"].scaleb(8)),
                "buy": row["taker_side"] == "buy",
                "late": row["late"],
                "recorded_us": from_datetime(row["recorded_at"]),
            }
            for row in rows.to_pylist()
        ),
        [(BTC, said["first_trade_id"] - 1), (BTC, said["last_trade_id"] + 1)],
    )
    stored = candles(tables).to_pylist()
    assert len(stored) == len(expected) == metadata(run, "candles_1m")["dagster/partition_row_count"]
    for row in stored:
        wanted = expected[BTC, from_datetime(row["start"])]
        assert row["is_complete"]
        for name in set(COMPARED) - {"recorded_us"}:
            assert row[name] == wanted[name], name


def test_twice_gives_the_same_bytes_and_commits_nothing(tables: Lakehouse, materialize: Materialize) -> None:
    def state() -> tuple[object, ...]:
        with tables.iceberg() as store, tables.paimon() as paimon:
            files = [file.file_path.removeprefix("file://") for file in store.data_files(TRADES)]
            hashes = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files]
            return (
                store.snapshot_id(TRADES),
                hashes,
                paimon.snapshot_id(CANDLES_1M),
                paimon.scan(CANDLES_1M).to_pylist(),
            )

    first = materialize(KEY)
    before = state()
    again = materialize(KEY)
    assert state() == before
    for asset in ("trades", "candles_1m"):
        assert metadata(again, asset)["changed"] is False
    assert metadata(again, "trades")["checksum"] == metadata(first, "trades")["checksum"]


def test_a_day_that_goes_on_is_only_looked_at_and_says_so(
    tables: Lakehouse, materialize: Materialize
) -> None:
    run = materialize(LIVE_KEY)
    assert metadata(run, "trades")["sealed"] is False
    assert metadata(run, "candles_1m")["sealed"] is False
    assert all(checks(run).values())
    with tables.iceberg() as store:
        assert store.snapshot_id(TRADES) is None
        assert store.scan(TRADES, day=NEXT_DAY).num_rows == 0


def test_damaged_candles_are_replaced_by_those_of_the_trades(
    tables: Lakehouse, materialize: Materialize
) -> None:
    materialize(KEY)
    before = candles(tables)
    with tables.paimon() as store:
        store.replace(CANDLES_1M, BTC, DAY, before.slice(3))
    run = materialize(KEY, "candles_1m")
    assert metadata(run, "candles_1m")["changed"] is True
    assert candles(tables).equals(before)


def test_candles_of_a_day_that_is_not_sealed_are_left_to_the_stream(
    tables: Lakehouse, materialize: Materialize
) -> None:
    materialize(KEY)
    with tables.paimon() as store:
        streamed = store.scan(CANDLES_1M, product=BTC, day=DAY).slice(0, 1)
        day, start = (
            pa.array([NEXT_DAY]),
            pa.array([day_start_us(NEXT_DAY)]).cast(CANDLES_1M.schema.field("start").type),
        )
        streamed = streamed.set_column(1, CANDLES_1M.schema.field("day"), day)
        streamed = streamed.set_column(2, CANDLES_1M.schema.field("start"), start)
        store.upsert(CANDLES_1M, streamed)
        snapshot = store.snapshot_id(CANDLES_1M)
    run = materialize(LIVE_KEY, "candles_1m")
    assert metadata(run, "candles_1m")["dagster/partition_row_count"] == 1
    with tables.paimon() as store:
        assert store.snapshot_id(CANDLES_1M) == snapshot


class OftenAway(Lakehouse):
    """The tables, and an exchange that can't be reached the first times."""

    failures: ClassVar[list[str]] = []

    @asynccontextmanager
    async def origin(self) -> AsyncIterator[Origin | None]:
        if self.failures:
            raise RestError(self.failures.pop())
        async with super().origin() as found:
            yield found


def test_an_exchange_that_is_away_is_asked_again_later(
    tables: Lakehouse, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0)
    OftenAway.failures[:] = ["no answer", "no answer"]
    defs = build_defs(resource_overrides={"lakehouse": OftenAway(**tables.model_dump())})
    run = defs.resolve_job_def("seal_days").execute_in_process(
        partition_key=KEY, instance=instance, asset_selection=[dg.AssetKey("trades")]
    )
    assert OftenAway.failures == []
    assert metadata(run, "trades")["sealed"] is True
    kinds = [event.event_type_value for event in run.all_events]
    assert kinds.count("STEP_UP_FOR_RETRY") == 2


class FlinkOftenAway(Lakehouse):
    """The lakehouse of the settings, whose Flink doesn't answer the first times."""

    failures: ClassVar[list[str]] = []

    def rebuilder(self, store: IcebergStore, candles: PaimonStore) -> RebuildDays:
        if self.failures:
            raise FlinkUnavailableError(self.failures.pop())
        return super().rebuilder(store, candles)


def test_a_flink_that_is_away_is_asked_again_later(
    tables: Lakehouse, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0)
    FlinkOftenAway.failures[:] = ["no answer", "no answer"]
    defs = build_defs(resource_overrides={"lakehouse": FlinkOftenAway(**tables.model_dump())})
    run = defs.resolve_job_def("seal_days").execute_in_process(partition_key=KEY, instance=instance)
    assert FlinkOftenAway.failures == []
    assert metadata(run, "candles_1m")["changed"] is True
    kinds = [event.event_type_value for event in run.all_events]
    assert kinds.count("STEP_UP_FOR_RETRY") == 2


def test_candles_of_another_engine_are_not_written(tables: Lakehouse, materialize: Materialize) -> None:
    tables.home.create().claim("flink")
    run = materialize(KEY, raise_on_error=False)
    assert not run.success
    assert candles(tables).num_rows == 0


def test_the_tables_in_the_ui_say_what_they_are(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    for table in (TRADES, CANDLES_1M):
        node = graph.get(dg.AssetKey(table.name))
        assert node.owners
        assert node.kinds
        assert node.tags
        assert node.group_name == "market"
        assert table.description in (node.description or "")
        assert node.metadata["dagster/table_name"] == f"simulated.{table.name}"
        columns = node.metadata["dagster/column_schema"].columns
        assert [column.name for column in columns] == table.schema.names
        assert all(column.description for column in columns)
    for topic, record in RECORDS.items():
        columns = graph.get(topic_key(topic)).metadata["dagster/column_schema"].columns
        assert [column.name for column in columns] == list(record.names or ())
        assert all(column.description for column in columns)
