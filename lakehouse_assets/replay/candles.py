"""The asset `replay_candles_1m`: a product's day of candles, made once more from its archived trades."""

import time
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, Final

import dagster as dg
from pydantic import Field

from lakehouse.home import Home
from lakehouse.market.time import to_iso
from lakehouse.settings import load_settings
from lakehouse.stores.iceberg import IcebergStore, IcebergStoreError
from lakehouse.stores.lock import AlreadyRunningError
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, REPLAY_CANDLES_1M, TRADES
from lakehouse_assets.market.candles import CANDLE_LINEAGE
from lakehouse_assets.market.checks import check_specs, evaluate, scopes
from lakehouse_assets.market.description import DAILY, OWNERS, table_metadata
from lakehouse_assets.partition_results import PartitionEvent, PartitionResult, reported
from lakehouse_assets.partitions import parsed
from lakehouse_assets.replay.checks import equals_live_candles
from lakehouse_assets.resources import Lakehouse, LakehouseDuckDB
from lakehouse_assets.retries import another_attempt
from streaming.engines.flink.errors import FlinkUnavailableError
from streaming.replay.progress import Progress, Replayed
from streaming.replay.replaying import run
from streaming.replay.settings import ReplayError, chosen, parsed_speed
from streaming.spine.contract import SpineUnavailableError

GROUP: Final = "replay"
SAY_EVERY_SECONDS: Final = 5.0


class ReplayConfig(dg.Config):
    """How to replay."""

    speed: str = Field("max", description="How many times the exchange's speed, such as 60; max: at once.")
    snapshot_id: str = Field("", description="The snapshot of trades to read. Empty: the current one.")


def replay_candles_asset(partitions: dg.PartitionsDefinition[str], home: Home) -> dg.AssetsDefinition:
    """Return the asset, partitioned by product and day."""

    @dg.asset(
        name=REPLAY_CANDLES_1M.name,
        deps=[TRADES.name, CANDLES_1M.name],
        partitions_def=partitions,
        description=(
            f"{REPLAY_CANDLES_1M.description} Materializing a day replays its archived trades from one "
            "snapshot, which stays pinned, through the log and the engine that makes the live candles, and "
            "checks that the outcome is the same. A replay that was interrupted goes on."
        ),
        group_name=GROUP,
        owners=OWNERS,
        kinds={"paimon", "parquet"},
        tags={"layer": "replay", "namespace": home.namespace},
        metadata=table_metadata(REPLAY_CANDLES_1M, home),
        check_specs=check_specs([equals_live_candles("")], REPLAY_CANDLES_1M.name, partitions),
        freshness_policy=DAILY,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="replay_candles_1m_writer",
        code_version="1",
    )
    def replay_candles_1m(
        context: dg.AssetExecutionContext,
        config: ReplayConfig,
        lakehouse: Lakehouse,
        duckdb: LakehouseDuckDB,
    ) -> Iterator[PartitionEvent]:
        results: dict[str, PartitionResult] = {}
        failures: dict[str, Exception] = {}
        with lakehouse.iceberg() as archive, lakehouse.paimon() as candles:
            for key in context.partition_keys:
                product, day = parsed(key)
                try:
                    done = _replayed(context, config, lakehouse, archive, candles, product, day)
                except (ReplayError, AlreadyRunningError, IcebergStoreError) as error:
                    failures[key] = error
                    continue
                except (FlinkUnavailableError, SpineUnavailableError) as error:
                    raise another_attempt(context, error, "The replay goes on from where it is") from error
                scope = scopes(archive, [(product, day)], lakehouse.lateness_minutes)
                with duckdb.get_connection() as connection:
                    check = equals_live_candles(done.replay.id if done else "")
                    checked = evaluate([check], connection, scope)
                metadata = _metadata(candles, done, product, day)
                results[key] = PartitionResult(metadata, checked[product, day])
        yield from reported(context, results, failures)

    return replay_candles_1m


def _replayed(
    context: dg.AssetExecutionContext,
    config: ReplayConfig,
    lakehouse: Lakehouse,
    archive: IcebergStore,
    candles: PaimonStore,
    product: str,
    day: date,
) -> Replayed | None:
    """Replay a product's day; None where the archive has nothing of it."""
    speed = parsed_speed(config.speed)
    if config.snapshot_id and not config.snapshot_id.isdecimal():
        raise ReplayError(
            f"{config.snapshot_id[:30]!r} is no snapshot: its number is in `trades_snapshot_id`"
        )
    snapshot_id = int(config.snapshot_id) if config.snapshot_id else None
    there = archive.partitions(TRADES, snapshot_id=snapshot_id)
    if not any((stats.product, stats.day) == (product, day) for stats in there):
        context.log.warning(f"nothing is archived of {product} on {day}: there is nothing to replay")
        return None
    replay = chosen(archive, candles, day, (product,), speed, snapshot_id)
    context.log.info(
        f"replaying {product} on {day} as {replay.id}, snapshot {replay.snapshot_id}. To pause it: "
        f"lakehouse replay --pause {replay.id}; to go on: lakehouse replay --resume {replay.id}"
    )
    settings = load_settings(home=lakehouse.home.root)
    return run(settings, lakehouse.home.create(), archive, candles, replay, _told(context))


def _told(context: dg.AssetExecutionContext) -> Callable[[Progress], None]:
    """Return what says in the run's log how far a replay is, every few seconds and at its end."""
    due = time.monotonic() + SAY_EVERY_SECONDS

    def say(progress: Progress) -> None:
        nonlocal due
        if time.monotonic() < due and progress.trades < progress.total:
            return
        due = time.monotonic() + SAY_EVERY_SECONDS
        at = f", at {to_iso(progress.event_us)}" if progress.event_us else ""
        paused = ", paused" if progress.paused else ""
        context.log.info(f"{progress.trades:,} of {progress.total:,} trades replayed{at}{paused}")

    return say


def _metadata(candles: PaimonStore, done: Replayed | None, product: str, day: date) -> dict[str, Any]:
    there = candles.scan(REPLAY_CANDLES_1M, product=product, day=day, columns=["replay_id"])
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": there.num_rows,
        "dagster/row_count": candles.row_count(REPLAY_CANDLES_1M),
        "dagster/column_lineage": CANDLE_LINEAGE,
        "snapshot_id": str(candles.snapshot_id(REPLAY_CANDLES_1M)),
        "trades": done.trades if done else 0,
    }
    if done is not None:
        metadata |= {
            "replay_id": done.replay.id,
            "candles": there["replay_id"].to_pylist().count(done.replay.id),
            "speed": done.replay.pace,
            "trades_snapshot_id": str(done.replay.snapshot_id),
            "trades_of_this_run": done.published,
            "seconds": round(done.seconds, 3),
            "trades_per_second": round(done.published / done.seconds),
        }
        if done.job_ids:
            metadata["flink_job_id"] = ", ".join(done.job_ids)
    return metadata
