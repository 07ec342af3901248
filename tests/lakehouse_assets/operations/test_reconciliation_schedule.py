from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from sealed_world import BTC, DAY, KEY, NEXT_DAY
from watched_world import World

from lakehouse.market.time import DAY_US
from lakehouse.stores.schemas import EXCHANGE_CANDLES, RECONCILIATION, TRADES
from lakehouse.stores.seals import SealRecord, encode_seal, seal_property
from lakehouse_assets.operations.reconciliation_schedule import NEWEST_DAYS, spans_to_reconcile
from lakehouse_assets.partitions import product_day_key

Materialize = Callable[..., dg.ExecuteInProcessResult]
NOW_US = 1_000 * DAY_US
TONIGHT = datetime(2025, 6, 12, 3, 30, tzinfo=UTC)


def record(sealed_us: int = 0) -> SealRecord:
    return SealRecord(0, 0, 1, 0, "", True, sealed_us)


def days(count: int, start: date = DAY) -> list[date]:
    return [start + timedelta(days=number) for number in range(count)]


def test_the_newest_days_are_compared_every_night_and_old_ones_only_once() -> None:
    sealed = {(BTC, day): record() for day in days(30)}
    first = spans_to_reconcile(sealed, (), NOW_US)
    assert first == [(BTC, days(30)[0], days(30)[-1])]
    assert spans_to_reconcile(sealed, sealed.keys(), NOW_US) == [(BTC, days(30)[-NEWEST_DAYS], days(30)[-1])]


def test_a_day_that_was_sealed_again_lately_is_compared_again() -> None:
    sealed = {(BTC, day): record() for day in days(30)} | {(BTC, DAY): record(NOW_US - 7 * DAY_US)}
    spans = spans_to_reconcile(sealed, sealed.keys(), NOW_US)
    assert spans == [(BTC, DAY, DAY), (BTC, days(30)[-NEWEST_DAYS], days(30)[-1])]


def test_spans_are_of_one_product_and_have_no_holes() -> None:
    sealed = {(BTC, day): record() for day in (*days(2), *days(2, DAY + timedelta(days=5)))}
    sealed |= {("ETH-USD", DAY): record()}
    assert spans_to_reconcile(sealed, (), NOW_US) == [
        (BTC, DAY, NEXT_DAY),
        (BTC, DAY + timedelta(days=5), DAY + timedelta(days=6)),
        ("ETH-USD", DAY, DAY),
    ]


def test_a_day_of_fetched_candles_is_compared_like_a_sealed_one() -> None:
    settled = {(BTC, day): record() for day in days(2)} | {(BTC, DAY - timedelta(days=1)): None}
    assert spans_to_reconcile(settled, (), NOW_US) == [(BTC, DAY - timedelta(days=1), NEXT_DAY)]
    older = {(BTC, day): None for day in days(30)}
    assert spans_to_reconcile(older, older.keys(), NOW_US) == [(BTC, days(30)[-NEWEST_DAYS], days(30)[-1])]


def requests(world: World, instance: dg.DagsterInstance | None = None) -> list[dg.RunRequest]:
    schedule = world.defs.resolve_schedule_def("reconcile_settled_days")
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=TONIGHT,
        resources={"lakehouse": world.tables},
    ) as context:
        data = schedule.evaluate_tick(context)
    return list(data.run_requests or [])


def test_without_tables_the_night_passes(world: World, lakehouse_settings: Path) -> None:
    assert requests(world) == []
    assert not lakehouse_settings.exists()


def test_a_night_asks_for_one_run_a_span_that_dagster_can_start(world: World, tmp_path: Path) -> None:
    sealed = {seal_property(BTC, day): encode_seal(record()) for day in days(3)}
    with world.tables.iceberg() as store:
        store.replace(TRADES, BTC, DAY, TRADES.schema.empty_table(), properties=sealed)
    # A schedule opens its instance anew, so that one in memory won't do.
    instance = dg.DagsterInstance.local_temp(str(tmp_path))
    (request,) = requests(world, instance)
    assert request.tags["lakehouse/cause"] == "nightly reconciliation"
    assert (request.tags["dagster/asset_partition_range_start"], request.run_key) == (
        product_day_key(BTC, DAY),
        f"2025-06-12:{BTC}:{DAY}:{days(3)[-1]}",
    )
    assert [one.run_key for one in requests(world, instance)] == [request.run_key]
    run = world.defs.resolve_job_def("reconcile_days").execute_in_process(
        instance=world.instance, tags=request.tags, raise_on_error=False
    )
    partitions = world.instance.get_materialized_partitions(dg.AssetKey(RECONCILIATION.name))
    assert partitions == {product_day_key(BTC, day) for day in days(3)}, run


def test_a_night_asks_for_days_of_fetched_candles_too(world: World, tmp_path: Path) -> None:
    candle = {"product": BTC, "day": DAY, "start": datetime(2025, 6, 10, tzinfo=UTC), "exchange": "simulated"}
    candle |= dict.fromkeys(("open", "high", "low", "close", "volume"), Decimal(1))
    rows = pa.Table.from_pylist([candle | {"recorded_at": TONIGHT}], EXCHANGE_CANDLES.schema)
    with world.tables.iceberg() as store:
        store.replace(EXCHANGE_CANDLES, BTC, DAY, rows)
    (request,) = requests(world, dg.DagsterInstance.local_temp(str(tmp_path)))
    assert request.tags["dagster/asset_partition_range_start"] == KEY
    assert request.tags["dagster/asset_partition_range_end"] == KEY


def test_it_runs_by_itself(world: World) -> None:
    schedule = world.defs.resolve_schedule_def("reconcile_settled_days")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


@pytest.mark.parametrize("topic", ["trades", "quotes", "book"])
def test_each_topic_is_upstream_of_its_table(world: World, topic: str) -> None:
    graph = world.defs.resolve_asset_graph()
    node = graph.get(dg.AssetKey(["stream", topic]))
    assert node.is_external
    assert dg.AssetKey(topic) in node.child_keys
    assert node.kinds >= {"stream"}
    assert len(node.description or "") > 60


def test_a_topic_that_moves_has_nothing_rebuilt(world: World, materialize: Materialize) -> None:
    first = dg.evaluate_automation_conditions(world.defs, world.instance)
    materialize(KEY)
    settled = dg.evaluate_automation_conditions(world.defs, world.instance, cursor=first.cursor)
    (event,) = world.tick("report_stream_watermarks").asset_events or []
    assert isinstance(event, dg.AssetMaterialization)
    world.instance.report_runless_asset_event(event)
    moved = dg.evaluate_automation_conditions(world.defs, world.instance, cursor=settled.cursor)
    assert moved.get_requested_partitions(dg.AssetKey("candles_1m")) == set()


def test_a_topics_event_says_how_far_it_has_come(world: World) -> None:
    world.stream(DAY, 5, 6)
    world.stream(NEXT_DAY, 1, first_id=3, product="ETH-USD")
    (event,) = world.tick("report_stream_watermarks").asset_events or []
    metadata = {name: value.value for name, value in event.metadata.items()}
    assert metadata["dagster/row_count"] == 3
    assert metadata["messages_behind"] == "unknown: no worker answers"
    records = event.metadata["products"].records  # type: ignore[union-attr]
    assert [(one.data["product"], one.data["rows"]) for one in records] == [(BTC, 2), ("ETH-USD", 1)]
    assert records[0].data["newest event"].startswith(f"{DAY}T00:06")
