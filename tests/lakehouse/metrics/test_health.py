"""Rows of `exchange_health` from real tables."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from table_rows import DAY, make_trades

from lakehouse.home import Home
from lakehouse.metrics.health import health_rows
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import EXCHANGE_HEALTH, GAPS, INTAKE, QUARANTINE, QUOTES, TRADES, Table
from lakehouse.stores.sql import connect

BTC, ETH = "BTC-USD", "ETH-USD"
MIDNIGHT = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", "simulated").create()


@pytest.fixture
def store(home: Home) -> Iterator[IcebergStore]:
    with IcebergStore.open(home) as opened:
        yield opened


def health(home: Home, *product_days: tuple[str, Any]) -> list[dict[str, Any]]:
    with closing(connect(home)) as connection:
        rows = health_rows(connection, product_days)
    assert rows.schema.equals(EXCHANGE_HEALTH.schema)
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def row(table: Table, **values: Any) -> pa.Table:
    """A row of a table, with values that don't matter where none are given."""
    kinds = {"string": "", "int32": 0, "int64": 0, "bool": False, "binary": b""}
    row = {
        field.name: MIDNIGHT if pa.types.is_timestamp(field.type) else kinds.get(str(field.type), 0)
        for field in table.schema
    }
    row |= {"product": BTC, "day": DAY, "exchange": "simulated", **values}
    return pa.Table.from_pylist([row], schema=table.schema)


def trade(number: int, delay: float, **values: Any) -> pa.Table:
    at = MIDNIGHT + timedelta(seconds=10 * number)
    times = {"event_time": at, "received_at": at + timedelta(seconds=delay), "recorded_at": at}
    return make_trades([number], **times | values)


def test_freshness_is_that_of_what_was_streamed(home: Home, store: IcebergStore) -> None:
    delays = [number / 10 for number in range(1, 101)]
    store.append(TRADES, pa.concat_tables([trade(n + 1, delay) for n, delay in enumerate(delays)]))
    store.append(TRADES, trade(500, 9_999, spine_offset=-1, source="backfill"))
    store.append(TRADES, trade(501, 0.5, late=True))
    (found,) = health(home, (BTC, DAY))
    assert (found["trades"], found["streamed"], found["late"]) == (102, 101, 1)
    ordered = sorted([*delays, 0.5])
    assert found["freshness_p50"] == pytest.approx(ordered[50])
    assert found["freshness_p99"] == pytest.approx(ordered[99])
    assert found["freshness_max"] == pytest.approx(10)
    assert found["longest_silence"] == pytest.approx(4_010 - 9.5)
    assert found["sla_met"] is True


@pytest.mark.parametrize(("slow", "met"), [(1, True), (2, False)])
def test_the_sla_is_met_while_one_in_a_hundred_is_slower(
    home: Home, store: IcebergStore, slow: int, met: bool
) -> None:
    delays = [31.0] * slow + [29.0] * (100 - slow)
    store.append(TRADES, pa.concat_tables([trade(n + 1, delay) for n, delay in enumerate(delays)]))
    (found,) = health(home, (BTC, DAY))
    assert found["sla_met"] is met


def test_quotes_break_a_silence(home: Home, store: IcebergStore) -> None:
    store.append(TRADES, pa.concat_tables([trade(1, 0), trade(101, 0)]))
    store.append(QUOTES, row(QUOTES, received_at=MIDNIGHT + timedelta(seconds=410)))
    (found,) = health(home, (BTC, DAY))
    assert found["longest_silence"] == 600


def test_gaps_count_ids_by_what_is_known_of_them_last(home: Home, store: IcebergStore) -> None:
    store.append(TRADES, trade(1, 0))
    for number, (first, last, status) in enumerate(
        [(10, 19, "found"), (12, 14, "filled"), (15, 15, "unfillable"), (30, 31, "found")]
    ):
        times = {"recorded_at": MIDNIGHT + timedelta(seconds=number), "spine_offset": number}
        store.append(GAPS, row(GAPS, first_trade_id=first, last_trade_id=last, status=status, **times))
    (found,) = health(home, (BTC, DAY))
    assert [found[f"gap_ids_{name}"] for name in ("found", "filled", "unfillable")] == [12, 3, 1]


def test_other_products_and_days_are_kept_apart_and_what_is_unknown_has_no_row(
    home: Home, store: IcebergStore
) -> None:
    next_day = DAY + timedelta(days=1)
    store.append(TRADES, trade(1, 1))
    store.append(INTAKE, row(INTAKE, duplicates=3, recorded_at=MIDNIGHT + timedelta(hours=5)))
    store.append(INTAKE, row(INTAKE, duplicates=4, product=ETH))
    for _ in range(2):
        store.append(QUARANTINE, row(QUARANTINE, product=ETH))
    store.append(QUARANTINE, row(QUARANTINE, product=""))
    found = health(home, (ETH, DAY), (BTC, DAY), (BTC, next_day))
    assert [(one["product"], one["day"]) for one in found] == [(BTC, DAY), (ETH, DAY)]
    assert [(one["duplicates"], one["quarantined"]) for one in found] == [(3, 0), (4, 2)]
    assert found[0]["recorded_at"] == MIDNIGHT + timedelta(hours=5)
    assert (found[1]["streamed"], found[1]["sla_met"], found[1]["freshness_p50"]) == (0, None, None)
