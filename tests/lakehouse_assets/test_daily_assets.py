"""The assets made from a sealed day, from hours of candles to the health of the stream; quotes and book."""

import base64
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from sealed_world import BTC, DAY, KEY, LIVE_KEY, PRODUCTS
from table_rows import make_candles, make_quotes, make_trades

from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import (
    BOOK,
    CANDLES_1D,
    CANDLES_1H,
    CANDLES_1M,
    EXCHANGE_HEALTH,
    LIQUIDITY,
    METRICS_DAILY,
    QUOTES,
    TABLES,
    TRADES,
    Table,
)
from lakehouse.stores.seals import SealRecord, encode_seal, seal_property
from lakehouse_assets.partitions import parsed, product_day_key
from lakehouse_assets.resources import Lakehouse

MADE = ("candles_1h", "candles_1d", "metrics_daily", "liquidity", "exchange_health")
ALL = ("trades", "quotes", "book", "candles_1m", *MADE)

Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def run(defs: dg.Definitions, instance: dg.DagsterInstance) -> Run:
    """Return a function that materializes assets for a range of days of a product, or for one day."""

    def materialize(first: str, *assets: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        job = defs.resolve_implicit_global_asset_job_def()
        how: dict[str, Any] = {"instance": instance, "raise_on_error": False}
        how["asset_selection"] = [dg.AssetKey(name) for name in assets or ALL]
        if last is None:
            return job.execute_in_process(partition_key=first, **how)
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return job.execute_in_process(tags=tags, **how)

    return materialize


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, dict[str, Any]]:
    return {
        str(event.materialization.partition): {k: v.value for k, v in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    }


def checks(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, set[str | None]]:
    """Return the partitions in which each check of an asset failed."""
    failed: dict[str, set[str | None]] = {}
    for check in result.get_asset_check_evaluations():
        if check.asset_key == dg.AssetKey(asset):
            failed.setdefault(check.check_name, set())
            if not check.passed:
                failed[check.check_name].add(check.partition)
    return failed


def scan(tables: Lakehouse, table: Table, **how: Any) -> list[dict[str, Any]]:
    if table.store == "iceberg":
        with tables.iceberg() as store:
            rows = store.scan(table, **how)
    else:
        with tables.paimon() as candles:
            rows = candles.scan(table, **how)
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def snapshots(tables: Lakehouse) -> dict[str, int | None]:
    with tables.iceberg() as store, tables.paimon() as candles:
        return {
            name: (store if table.store == "iceberg" else candles).snapshot_id(table)
            for name, table in TABLES.items()
        }


def sealed_days(tables: Lakehouse, first: date, closes: list[float], product: str = BTC) -> list[str]:
    """Seal days of one trade each, with their candles; returns their keys."""
    days = [first + timedelta(days=number) for number in range(len(closes))]
    minutes: list[dict[str, Any]] = []
    trades, properties = [], {}
    for trade_id, (day, close) in enumerate(zip(days, closes, strict=True), start=2):
        price = Decimal(str(close))
        values = {"first_trade_id": trade_id, "last_trade_id": trade_id, "volume": Decimal(2)}
        values |= {"quote_volume": 2 * price, "taker_buy_volume": Decimal(2)}
        (minute,) = make_candles([600], product, count=1, price=str(price), day=day).to_pylist()
        minutes.append(minute | values)
        trades.append(make_trades([trade_id], product, day, price=price, size=Decimal(2)))
        record = SealRecord(1, 1, trade_id, trade_id, "0", True, 0)
        properties[seal_property(product, day)] = encode_seal(record)
    with tables.iceberg() as store, tables.paimon() as candles:
        rows = pa.Table.from_pylist(minutes, schema=CANDLES_1M.schema)
        candles.replace_days(CANDLES_1M, product, days, rows)
        if len(days) > 1:
            store.append(TRADES, pa.concat_tables(trades[:-1]))
        store.replace(TRADES, product, days[-1], trades[-1], properties=properties)
    return [product_day_key(product, day) for day in days]


def quotes_of(store: IcebergStore, offsets: list[int], **values: Any) -> None:
    store.append(QUOTES, make_quotes(offsets, BTC, DAY, **values))


def levels_of(store: IcebergStore, **values: Any) -> None:
    midnight = datetime.fromisoformat(f"{DAY}T00:00:00+00:00")
    row = {
        **{"product": BTC, "day": DAY, "event_time": midnight, "kind": "update", "first_update_id": 1},
        **{"last_update_id": 1, "level": 0, "side": "bid", "price": Decimal(1), "size": Decimal(1)},
        **{"exchange": "simulated", "received_at": midnight, "recorded_at": midnight},
        **{"spine_partition": 0, "spine_offset": 1},
    }
    store.append(BOOK, pa.Table.from_pylist([row | values], schema=BOOK.schema))


def test_everything_is_made_from_a_sealed_day_and_twice_commits_nothing(tables: Lakehouse, run: Run) -> None:
    with tables.iceberg() as store:
        quotes_of(store, [0, 30, 3_600])
        # The log's order is that of offsets, not of commits.
        levels_of(store, spine_offset=2, price=Decimal(200), size=Decimal(3))
        levels_of(store, spine_offset=1, kind="snapshot", price=Decimal(199))
        levels_of(store, spine_offset=1, kind="snapshot", level=1, side="ask", price=Decimal(201))
    first = run(KEY)
    assert first.success
    for asset in ALL:
        said = metadata(first, asset)[KEY]
        assert said["snapshot_id"] not in ("", "None")
        assert said["dagster/partition_row_count"] > 0
        assert said["dagster/row_count"] == said["dagster/partition_row_count"]
        if asset in ("quotes", "book", *MADE):
            failed = {name for name, partitions in checks(first, asset).items() if partitions}
            assert failed == ({"the_day_is_covered"} if asset == "liquidity" else set()), asset
    hours, (day,) = scan(tables, CANDLES_1H, product=BTC), scan(tables, CANDLES_1D, product=BTC)
    minutes = scan(tables, CANDLES_1M, product=BTC)
    assert sum(hour["volume"] for hour in hours) == day["volume"] == sum(one["volume"] for one in minutes)
    assert all(hour["is_complete"] for hour in hours)
    assert day["is_complete"]
    (metrics,) = scan(tables, METRICS_DAILY, product=BTC)
    assert metrics["close"] == day["close"] == minutes[-1]["close"]
    assert metrics["realised_volatility"] > 0
    assert metrics["simple_return"] is None
    (liquidity,) = scan(tables, LIQUIDITY, product=BTC)
    assert liquidity["spread_bps"] == pytest.approx(200)
    assert (liquidity["quotes"], liquidity["covered"]) == (3, pytest.approx(150 / 86_400))
    assert (liquidity["book_minutes"], liquidity["ask_depth_100bps"]) == (1, pytest.approx(201))
    assert liquidity["bid_depth_100bps"] == pytest.approx(199 + 3 * 200)
    assert liquidity["bid_depth_10bps"] == 0  # the best bid is half a percent away
    (health,) = scan(tables, EXCHANGE_HEALTH, product=BTC)
    assert (health["trades"], health["streamed"], health["sla_met"]) == (day["trade_count"], 0, None)
    before = snapshots(tables)
    again = run(KEY)
    assert again.success
    assert snapshots(tables) == before
    assert all(metadata(again, asset)[KEY]["changed"] is False for asset in MADE)


def test_a_day_that_goes_on_has_no_hours_and_no_metrics(tables: Lakehouse, run: Run) -> None:
    with tables.paimon() as candles:
        candles.upsert(CANDLES_1M, make_candles([1], day=parsed(LIVE_KEY)[1]))
    result = run(LIVE_KEY)
    assert result.success
    for asset in ("candles_1h", "candles_1d", "metrics_daily"):
        said = metadata(result, asset)[LIVE_KEY]
        assert (said["sealed"], said["dagster/partition_row_count"]) == (False, 0)
        assert not any(checks(result, asset).values())
    for table in (CANDLES_1H, CANDLES_1D, METRICS_DAILY):
        assert scan(tables, table) == []


def test_many_days_are_one_run_and_a_changed_day_is_computed_into_those_after_it(
    tables: Lakehouse, run: Run
) -> None:
    keys = sealed_days(tables, DAY - timedelta(days=93), [100 + (number * 37 % 11) for number in range(93)])
    result = run(keys[0], "candles_1d", "metrics_daily", last=keys[-1])
    assert result.success
    for asset in ("candles_1d", "metrics_daily"):
        said = metadata(result, asset)
        assert set(said) == set(keys)
        assert {one["dagster/partition_row_count"] for one in said.values()} == {1}
        assert not any(checks(result, asset).values())
    before = {row["day"]: row for row in scan(tables, METRICS_DAILY)}
    assert [parsed(key)[1] for key in keys] == sorted(before)
    assert [parsed(key)[1] for key in keys[90:]] == [
        day for day in sorted(before) if before[day]["sharpe_90d"] is not None
    ]
    # The page shows a plot, of the last day of the run only.
    (picture,) = [one["plot"] for one in metadata(result, "metrics_daily").values() if "plot" in one]
    encoded = re.fullmatch(r"!\[plot\]\(data:image/png;base64,(.+)\)", picture)
    assert encoded is not None
    assert base64.b64decode(encoded[1]).startswith(b"\x89PNG")
    assert len(picture) < 40_000

    sealed_days(tables, parsed(keys[0])[1], [250])
    result = run(keys[0], "candles_1d", "metrics_daily")
    assert metadata(result, "metrics_daily")[keys[0]]["later_days_computed"] == 90
    after = {row["day"]: row for row in scan(tables, METRICS_DAILY)}
    changed = sorted(day for day in after if after[day] != before[day])
    assert (changed[0], changed[-1]) == (parsed(keys[0])[1], parsed(keys[90])[1])
    # What computing all of them anew would say.
    snapshot = snapshots(tables)["metrics_daily"]
    assert run(keys[0], "metrics_daily", last=keys[-1]).success
    assert snapshots(tables)["metrics_daily"] == snapshot


@pytest.mark.parametrize(
    ("asset", "check", "damage"),
    [
        ("candles_1h", "candles_equal_minutes", "a candle is missing"),
        ("candles_1d", "candles_equal_minutes", "a price is wrong"),
        ("candles_1d", "prices_in_order", "a price is wrong"),
        ("metrics_daily", "metrics_equal_candles", "a figure is wrong"),
        ("metrics_daily", "metrics_equal_candles", "a figure is made up"),
        ("liquidity", "figures_in_range", "a share is above one"),
        ("exchange_health", "counts_add_up", "trades were lost"),
    ],
)
def test_damaged_rows_are_found_and_repaired(
    tables: Lakehouse, run: Run, defs: dg.Definitions, asset: str, check: str, damage: str
) -> None:
    keys = sealed_days(tables, DAY - timedelta(days=1), [100, 101])
    with tables.iceberg() as store:
        quotes_of(store, [0, 30])
    run(keys[0], *ALL[3:], last=keys[-1])
    table = TABLES[asset]
    (good,) = scan(tables, table, product=BTC, day=DAY)
    damaged = {
        "a candle is missing": [],
        "a price is wrong": [good | {"high": good.get("low", 1) - 1}],
        "a figure is wrong": [good | {"simple_return": 0.02}],
        "a figure is made up": [good | {"volatility_30d": 0.5}],
        "a share is above one": [good | {"covered": 1.5}],
        "trades were lost": [good | {"trades": 7}],
    }[damage]
    rows = pa.Table.from_pylist(damaged, schema=table.schema)
    if table.store == "iceberg":
        with tables.iceberg() as store:
            store.replace_days(table, BTC, [DAY], rows)
    else:
        with tables.paimon() as candles:
            candles.replace(table, BTC, DAY, rows)
    found = evaluated(defs, tables, asset, keys[1])
    assert not found[check].passed
    assert "Materialize" in (found[check].description or "")
    assert evaluated(defs, tables, asset, keys[0])[check].passed
    run(keys[1], asset)
    assert scan(tables, table, product=BTC, day=DAY) == [good]


def evaluated(
    defs: dg.Definitions, tables: Lakehouse, asset: str, key: str
) -> dict[str, dg.AssetCheckResult]:
    """Ask an asset's checks of a partition without materializing it: that would repair it."""
    from lakehouse_assets.market import health, liquidity, metrics, rollups
    from lakehouse_assets.market.checks import evaluate, scopes

    asked = {
        "candles_1h": rollups._checks(CANDLES_1H),
        "candles_1d": rollups._checks(CANDLES_1D),
        "metrics_daily": metrics.METRICS_CHECKS,
        "liquidity": liquidity.LIQUIDITY_CHECKS,
        "exchange_health": health.HEALTH_CHECKS,
    }[asset]
    duckdb: Any = (defs.resources or {})["duckdb"]
    with tables.iceberg() as store:
        scope = scopes(store, [parsed(key)], 10)
    with duckdb.get_connection() as connection:
        (results,) = evaluate(asked, connection, scope).values()
    return {str(result.check_name): result for result in results}


@pytest.mark.parametrize(
    ("check", "values"),
    [
        ("bids_below_asks", {"bid": Decimal(102), "spread": Decimal(-1), "mid": Decimal("101.5")}),
        ("prices_and_sizes_possible", {"ask_size": Decimal(-1)}),
        ("spread_and_mid_exact", {"spread": Decimal("2.00000001")}),
        ("spread_and_mid_exact", {"mid": Decimal("100.000000001")}),
        ("no_duplicate_quotes", {"spine_offset": 5}),
    ],
)
def test_a_wrong_quote_is_found(tables: Lakehouse, run: Run, check: str, values: dict[str, Any]) -> None:
    with tables.iceberg() as store:
        quotes_of(store, [5, 6])
        quotes_of(store, [7], **values)
    result = run(KEY, "quotes")
    assert result.success is (check == "bids_below_asks")  # the others are blocking
    assert {name for name, failed in checks(result, "quotes").items() if failed} == {check}
    assert metadata(result, "quotes")[KEY]["dagster/partition_row_count"] == 3


@pytest.mark.parametrize(
    ("check", "values"),
    [
        ("prices_and_sizes_possible", {"size": Decimal(-1)}),
        ("known_kinds_and_sides", {"side": "middle"}),
        ("known_kinds_and_sides", {"first_update_id": 9}),
        ("no_duplicate_levels", {"spine_offset": 1}),
    ],
)
def test_a_wrong_level_is_found(tables: Lakehouse, run: Run, check: str, values: dict[str, Any]) -> None:
    with tables.iceberg() as store:
        levels_of(store)
        levels_of(store, **{"spine_offset": 2, **values})
    result = run(KEY, "book")
    assert {name for name, failed in checks(result, "book").items() if failed} == {check}


def test_the_tables_in_the_ui_say_what_they_are(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    for name in ("quotes", "book", "reconciliation", "replay_candles_1m", *MADE):
        node = graph.get(dg.AssetKey(name))
        assert node.owners
        assert node.kinds
        assert node.tags["namespace"] == "simulated"
        assert TABLES[name].description in (node.description or "")
        assert node.freshness_policy is not None
        assert node.backfill_policy == dg.BackfillPolicy.single_run()
        columns = node.metadata["dagster/column_schema"].columns
        assert [column.name for column in columns] == TABLES[name].schema.names


def test_columns_say_where_they_come_from(tables: Lakehouse, run: Run) -> None:
    keys = sealed_days(tables, DAY, [100])
    result = run(keys[0], "candles_1m", *MADE)
    for asset in ("candles_1m", *MADE):
        lineage = metadata(result, asset)[keys[0]]["dagster/column_lineage"].deps_by_column
        assert set(lineage) <= set(TABLES[asset].schema.names)
        for sources in lineage.values():
            assert sources
            for source in sources:
                assert source.column_name in TABLES[source.asset_key.to_user_string()].schema.names
        assert set(TABLES[asset].schema.names) <= set(lineage)


def test_products_are_kept_apart(tables: Lakehouse, run: Run) -> None:
    for product in PRODUCTS:
        (key,) = sealed_days(tables, DAY, [100 if product == BTC else 7], product)
        run(key, *MADE)
    rows = scan(tables, METRICS_DAILY, day=DAY)
    assert {row["product"]: row["close"] for row in rows} == {BTC: 100, "ETH-USD": 7}
