import asyncio
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sealed_world import BTC, DAY, KEY, NEXT_DAY

from lakehouse.candles.rebuild import rebuild
from lakehouse.home import Home
from lakehouse.stores import sql
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import CANDLES_1M, GAPS, INTAKE, TRADES, Table
from lakehouse.stores.seals import known_edges, seals
from lakehouse_assets.market.checks import CANDLE_CHECKS, TRADE_CHECKS, evaluate, scopes
from lakehouse_assets.resources import Lakehouse
from streaming.sealing.day import seal_day

Materialize = Callable[..., dg.ExecuteInProcessResult]
CHECKS = (*TRADE_CHECKS, *CANDLE_CHECKS)


@pytest.fixture
def sealed(tables: Lakehouse) -> Lakehouse:
    """A home with one sealed day and its candles; all its checks pass."""

    async def seal(store: IcebergStore) -> None:
        async with tables.origin() as origin:
            await seal_day(store, origin, BTC, DAY)

    with tables.iceberg() as store, tables.paimon() as candles:
        asyncio.run(seal(store))
        rows = rebuild(store.scan(TRADES, product=BTC, day=DAY), known_edges(store, BTC, DAY))
        candles.replace(CANDLES_1M, BTC, DAY, rows)
    assert failed(tables) == set()
    return tables


def results(tables: Lakehouse) -> dict[str, dg.AssetCheckResult]:
    with tables.iceberg() as store:
        scope = scopes(store, [(BTC, DAY), (BTC, NEXT_DAY)], tables.lateness_minutes)
    with closing(sql.connect(tables.home)) as connection:
        found = evaluate(CHECKS, connection, scope)
    return {str(result.check_name): result for result in found[BTC, DAY]}


def failed(tables: Lakehouse) -> set[str]:
    return {name for name, result in results(tables).items() if not result.passed}


def trade_rows(tables: Lakehouse) -> pa.Table:
    with tables.iceberg() as store:
        return store.scan(TRADES, product=BTC, day=DAY)


def set_trades(tables: Lakehouse, rows: pa.Table) -> None:
    with tables.iceberg() as store:
        store.replace(TRADES, BTC, DAY, rows)


def set_candle(tables: Lakehouse, **columns: object) -> None:
    """Change columns of the day's third candle."""
    with tables.paimon() as store:
        rows = store.scan(CANDLES_1M, product=BTC, day=DAY)
        changed = rows.to_pylist()
        changed[2] |= columns
        store.replace(CANDLES_1M, BTC, DAY, pa.Table.from_pylist(changed, rows.schema))


def rewrite_file(home: Home, table: Table, change: Callable[[pa.Table], pa.Table]) -> None:
    """Put other rows into the one data file of a table, behind its back."""
    folder = home.iceberg if table.store == "iceberg" else home.paimon
    (path,) = [path for path in folder.rglob("*.parquet") if table.name in str(path)]
    pq.write_table(change(pq.ParquetFile(path).read()), path)


def emptied(rows: pa.Table, name: str) -> pa.Table:
    values = [None, *rows[name].to_pylist()[1:]]
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, pa.field(name, rows[name].type), pa.array(values, rows[name].type))


def count_inputs(tables: Lakehouse, **numbers: int) -> None:
    row: dict[str, Any] = {"product": BTC, "day": DAY, "kind": "trade", "exchange": "simulated"}
    row |= {"received": 0, "accepted": 0, "duplicates": 0, "quarantined": 0, "late": 0} | numbers
    row |= {"recorded_at": datetime(2025, 6, 10, tzinfo=UTC), "spine_partition": 0, "spine_offset": 0}
    with tables.iceberg() as store:
        store.append(INTAKE, pa.Table.from_pylist([row], INTAKE.schema))


def test_a_missing_id_fails_until_it_is_listed_as_a_gap(sealed: Lakehouse) -> None:
    rows = trade_rows(sealed)
    set_trades(sealed, pa.concat_tables([rows.slice(0, 10), rows.slice(12)]))
    result = results(sealed)["ids_contiguous_or_in_gaps"]
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.ERROR
    assert "Materialize this partition again" in (result.description or "")
    first, last = rows["trade_id"][10].as_py(), rows["trade_id"][11].as_py()
    (record,) = result.metadata["first_findings"].records  # type: ignore[union-attr]
    assert record.data == {"first_missing": str(first), "last_missing": str(last)}
    at = datetime(2025, 6, 11, 2, tzinfo=UTC)
    for listed_from, fails in ((last, True), (first, False)):
        gap = {"product": BTC, "day": DAY, "first_trade_id": listed_from, "last_trade_id": last}
        gap |= {"status": "unfillable", "found_by": "seal", "after": None, "before": None, "detail": ""}
        gap |= {"exchange": "simulated", "noticed_at": at, "recorded_at": at}
        gap |= {"spine_partition": -1, "spine_offset": -1}
        with sealed.iceberg() as store:
            store.append(GAPS, pa.Table.from_pylist([gap], GAPS.schema))
        assert ("ids_contiguous_or_in_gaps" in failed(sealed)) is fails


@pytest.mark.parametrize("end", [0, -1])
def test_a_missing_first_or_last_trade_of_the_day_is_a_missing_id(sealed: Lakehouse, end: int) -> None:
    rows = trade_rows(sealed)
    set_trades(sealed, rows.slice(1) if end == 0 else rows.slice(0, rows.num_rows - 1))
    assert "ids_contiguous_or_in_gaps" in failed(sealed)


def test_a_trade_of_the_day_that_lies_in_the_next_one_is_not_missing(sealed: Lakehouse) -> None:
    rows = trade_rows(sealed)
    moved = rows.slice(rows.num_rows - 1)
    moved = moved.set_column(1, TRADES.schema.field("day"), pa.array([NEXT_DAY]))
    set_trades(sealed, rows.slice(0, rows.num_rows - 1))
    with sealed.iceberg() as store:
        store.append(TRADES, moved)
    assert "ids_contiguous_or_in_gaps" not in failed(sealed)


def test_a_trade_archived_twice_fails(sealed: Lakehouse) -> None:
    with sealed.iceberg() as store:
        store.append(TRADES, trade_rows(sealed).slice(5, 1))
    assert "no_duplicate_trades" in failed(sealed)


def test_an_empty_value_in_a_damaged_file_of_trades_fails(sealed: Lakehouse) -> None:
    rewrite_file(sealed.home, TRADES, lambda rows: emptied(rows, "taker_side"))
    result = results(sealed)["no_empty_trade_values"]
    assert not result.passed
    (record,) = result.metadata["first_findings"].records  # type: ignore[union-attr]
    assert record.data == {"column_name": "taker_side", "empty": "1"}


def test_an_accepted_trade_that_is_not_archived_fails_but_blocks_nothing(sealed: Lakehouse) -> None:
    count_inputs(sealed, received=1, accepted=1)
    assert failed(sealed) == {"trade_counts_conserved"}
    assert not next(check for check in CHECKS if check.name == "trade_counts_conserved").blocking


def test_an_input_that_ended_nowhere_fails(sealed: Lakehouse) -> None:
    count_inputs(sealed, received=3, duplicates=1, quarantined=1)
    assert failed(sealed) == {"trade_counts_conserved"}


def test_counts_that_add_up_pass(sealed: Lakehouse) -> None:
    with sealed.iceberg() as store:
        rows = trade_rows(sealed).to_pylist()
        rows[3] |= {"source": "feed"}
        store.replace(TRADES, BTC, DAY, pa.Table.from_pylist(rows, TRADES.schema))
        # One came through the log and is there; one came and was there already.
        store.append(TRADES, TRADES.schema.empty_table(), counters={f"duplicates.{DAY}.{BTC}": 1})
    count_inputs(sealed, received=4, accepted=2, duplicates=1, quarantined=1)
    assert failed(sealed) == set()


@pytest.mark.parametrize(
    "change",
    [
        {"close": Decimal("1.5")},
        {"is_complete": False},
        {"revision": 7},
        {"trade_count": 99},
        {"quote_volume": Decimal("0.0000000000000001")},
    ],
)
def test_a_candle_that_is_not_its_trades_fails(sealed: Lakehouse, change: dict[str, object]) -> None:
    set_candle(sealed, **change)
    assert "candles_equal_trades" in failed(sealed)


def test_a_minute_with_trades_and_without_a_candle_fails(sealed: Lakehouse) -> None:
    with sealed.paimon() as store:
        rows = store.scan(CANDLES_1M, product=BTC, day=DAY)
        store.replace(CANDLES_1M, BTC, DAY, rows.slice(1))
    result = results(sealed)["candles_equal_trades"]
    (record,) = result.metadata["first_findings"].records  # type: ignore[union-attr]
    assert record.data["problem"] == "the candle is missing"
    assert "volumes_equal_trades" in failed(sealed)


def test_a_high_below_the_open_fails(sealed: Lakehouse) -> None:
    set_candle(sealed, high=Decimal("0.00000001"))
    assert "prices_in_order" in failed(sealed)


def test_volume_that_the_sides_do_not_add_up_to_fails(sealed: Lakehouse) -> None:
    set_candle(sealed, taker_buy_volume=Decimal("1000000.00000001"))
    assert "volumes_equal_trades" in failed(sealed)


def test_a_candle_twice_in_a_damaged_file_fails(sealed: Lakehouse) -> None:
    rewrite_file(sealed.home, CANDLES_1M, lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))
    assert "no_duplicate_candles" in failed(sealed)


def test_an_empty_value_in_a_damaged_file_of_candles_fails(sealed: Lakehouse) -> None:
    rewrite_file(sealed.home, CANDLES_1M, lambda rows: emptied(rows, "exchange"))
    assert "no_empty_candle_values" in failed(sealed)


def test_each_check_says_what_to_do_and_none_is_only_shown_to_pass() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS) == 9
    assert all(len(check.remedy) > 30 and check.description.endswith(".") for check in CHECKS)


def test_a_blocking_failure_keeps_the_candles_from_being_rebuilt(
    sealed: Lakehouse, materialize: Materialize
) -> None:
    with sealed.iceberg() as store:
        store.append(TRADES, trade_rows(sealed).slice(5, 1))
    run = materialize(KEY, raise_on_error=False)
    assert not run.success
    keys = [event.asset_key for event in run.get_asset_materialization_events()]
    assert keys == [dg.AssetKey("trades")]
    with sealed.iceberg() as store:
        # The seal does not hide the damage: both copies stay for a person to look at.
        assert seals(store)[BTC, DAY].rows == store.scan(TRADES, product=BTC, day=DAY).num_rows


def test_the_file_that_tests_damage_is_the_one_that_is_read(sealed: Lakehouse, tmp_path: Path) -> None:
    rewrite_file(sealed.home, TRADES, lambda rows: rows.slice(0, 0))
    assert "candles_equal_trades" in failed(sealed)
