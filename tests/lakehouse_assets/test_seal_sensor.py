from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from sealed_world import BTC, DAY, KEY, NEXT_DAY

from lakehouse.market.time import MINUTE_US, SECOND_US, day_start_us, to_datetime
from lakehouse.stores.schemas import TRADES
from lakehouse_assets.cursor import decoded, encoded
from lakehouse_assets.market.seal_requests import FIRST_PAUSE_SECONDS, MOST_RUNS, Asked, to_ask
from lakehouse_assets.market.seal_sensor import Remembered
from lakehouse_assets.partitions import product_day_key
from lakehouse_assets.resources import Lakehouse
from streaming.sealing.due import Due

Materialize = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def tick(
    defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse
) -> Callable[[str | None], dg.SensorResult]:
    """Return a function that evaluates the sensor as the daemon does, given a cursor."""
    sensor = defs.resolve_sensor_def("seal_days_that_are_over")

    def run(cursor: str | None = None) -> dg.SensorResult:
        with dg.build_sensor_context(
            instance=instance, cursor=cursor, resources={"lakehouse": tables}
        ) as context:
            result = sensor(context)
        if isinstance(result, dg.SkipReason):
            return dg.SensorResult(skip_reason=result)
        assert isinstance(result, dg.SensorResult)
        return result

    return run


Tick = Callable[..., dg.SensorResult]


def stream(tables: Lakehouse, day: date, *minutes: int, first_id: int = 1, product: str = BTC) -> None:
    """Archive a trade in each of these minutes of a day, as the stream does."""
    rows = []
    for number, minute in enumerate(minutes):
        at = to_datetime(day_start_us(day) + minute * MINUTE_US)
        row = {"product": product, "day": day, "trade_id": first_id + number, "event_time": at}
        row |= {"price": 1, "size": 1, "taker_side": "buy", "late": False, "source": "feed"}
        row |= {"exchange": "simulated", "received_at": at, "recorded_at": at}
        row |= {"spine_partition": 0, "spine_offset": number}
        rows.append(row)
    with tables.iceberg() as store:
        store.append(TRADES, pa.Table.from_pylist(rows, TRADES.schema))


def keys(result: dg.SensorResult) -> list[str]:
    return [str(request.partition_key) for request in result.run_requests or []]


def test_without_tables_it_skips_and_creates_none(tick: Tick, lakehouse_settings: Path) -> None:
    assert "holds no simulated data" in str(tick().skip_reason)
    assert not lakehouse_settings.exists()


def test_a_day_is_asked_for_once_the_stream_has_passed_its_end_by_the_horizon(
    tick: Tick, tables: Lakehouse
) -> None:
    stream(tables, DAY, 5, 10)
    stream(tables, NEXT_DAY, 9, first_id=3)
    assert keys(tick()) == []
    stream(tables, NEXT_DAY, 10, first_id=4)
    result = tick()
    assert keys(result) == [KEY]
    (request,) = result.run_requests or []
    assert request.tags["lakehouse/cause"] == "the day is over"
    assert request.asset_selection == [dg.AssetKey(name) for name in ("trades", "quotes", "book")]


def test_a_second_tick_asks_for_nothing_more(tick: Tick, tables: Lakehouse) -> None:
    stream(tables, DAY, 5)
    stream(tables, NEXT_DAY, 10, first_id=2)
    first = tick()
    again = tick(first.cursor)
    assert keys(again) == []
    assert "all asked for" in str(again.skip_reason)


def test_the_same_tick_again_has_the_same_run_key(tick: Tick, tables: Lakehouse) -> None:
    stream(tables, DAY, 5)
    stream(tables, NEXT_DAY, 10, first_id=2)
    (one,), (other,) = tick().run_requests or [], tick().run_requests or []
    assert one.run_key == other.run_key


@pytest.mark.parametrize(
    "garbage", ["", "not json", "[1, 2]", '{"a": 1}', "\ud800", "\x00", '{"asked":{"a":{"cause":1}}}']
)
def test_a_garbage_cursor_is_survived(tick: Tick, tables: Lakehouse, garbage: str) -> None:
    stream(tables, DAY, 5)
    stream(tables, NEXT_DAY, 10, first_id=2)
    result = tick(garbage)
    assert keys(result) == [KEY]
    assert set(decoded(result.cursor, Remembered).asked) == {KEY}


def test_a_sealed_day_is_left_alone_until_a_late_trade_comes(
    tick: Tick, tables: Lakehouse, materialize: Materialize
) -> None:
    materialize(KEY, "trades")
    with tables.iceberg() as store:
        last = store.scan(TRADES, product=BTC, day=DAY)["trade_id"].to_numpy().max()
    stream(tables, NEXT_DAY, 10, first_id=int(last) + 1)
    assert keys(tick()) == []
    stream(tables, DAY, 5, first_id=10**9)
    first = tick()
    assert keys(first) == [KEY]
    materialize(KEY, "trades")
    assert keys(tick(first.cursor)) == []
    stream(tables, DAY, 6, first_id=10**9 + 1)
    second = tick(first.cursor)
    assert keys(second) == [KEY]
    run_keys = {request.run_key for result in (first, second) for request in result.run_requests or []}
    assert len(run_keys) == 2
    (request,) = second.run_requests or []
    assert request.tags["lakehouse/cause"].startswith("trades came after the day was sealed")


def test_after_days_of_being_down_it_catches_up_with_what_the_tables_say(
    tick: Tick, tables: Lakehouse
) -> None:
    stream(tables, DAY, 5)
    # The stream was down the next day and came back the day after; the sensor was down all the time.
    stream(tables, DAY + timedelta(days=3), 10, first_id=50)
    expected = [product_day_key(BTC, DAY + timedelta(days=ahead)) for ahead in range(3)]
    assert keys(tick()) == expected


def test_days_without_a_partition_are_left_alone(tick: Tick, tables: Lakehouse) -> None:
    stream(tables, DAY, 5, product="XRP-USD")
    stream(tables, NEXT_DAY, 10, product="XRP-USD", first_id=2)
    assert keys(tick()) == []


def due(count: int) -> list[Due]:
    return [
        Due(BTC, DAY + timedelta(days=number), "never-sealed-1", "the day is over") for number in range(count)
    ]


def test_a_tick_is_bounded_and_the_next_ones_go_on() -> None:
    first = to_ask(due(30), {}, 0)
    assert len(first) == MOST_RUNS
    asked = {key: entry for key, _, entry in first}
    second = to_ask(due(30), asked, 0)
    assert [item.day for _, item, _ in first + second] == [item.day for item in due(2 * MOST_RUNS)]


def test_what_failed_is_asked_for_again_after_growing_pauses() -> None:
    asked: dict[str, Asked] = {}
    attempts = []
    for minute in range(0, 24 * 60):
        for key, _, entry in to_ask(due(1), asked, minute * 60 * SECOND_US):
            asked[key] = entry
            attempts.append(minute)
    assert attempts == [0, 15, 45, 105, 225, 465, 945]
    assert FIRST_PAUSE_SECONDS == 15 * 60


def test_another_cause_is_asked_for_at_once() -> None:
    asked = {KEY: Asked("never-sealed-1", 3, 0)}
    ((_, _, entry),) = to_ask([Due(BTC, DAY, "rows-1-to-2", "")], asked, 1)
    assert entry.attempt == 1


def test_the_cursor_forgets_what_is_no_longer_due(tick: Tick, tables: Lakehouse) -> None:
    stream(tables, DAY, 5)
    old = encoded(Remembered({"2024-01-01|BTC-USD": Asked("never-sealed-1", 1, 0)}))
    assert decoded(tick(old).cursor, Remembered).asked == {}
