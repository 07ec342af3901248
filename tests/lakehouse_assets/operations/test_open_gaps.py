from datetime import UTC, datetime, timedelta

import pytest
from sealed_world import BTC, DAY, KEY, NEXT_DAY
from watched_world import World

from lakehouse.market.time import day_start_us
from lakehouse.stores.seals import SealRecord
from lakehouse_assets.operations.open_gaps import MOST_ATTEMPTS, OpenGap, days_to_seal
from lakehouse_assets.operations.refused_inputs import LOOK_BACK

SENSOR = "fill_gaps_that_stay_open"
OVER = day_start_us(NEXT_DAY + timedelta(days=1))


def gap(first: int, last: int, status: str = "found") -> OpenGap:
    return OpenGap(BTC, DAY, first, last, status, datetime.now(UTC))


def ago(**how: float) -> datetime:
    return datetime.now(UTC) - timedelta(**how)


def test_a_young_gap_is_left_to_the_feed(world: World) -> None:
    world.stream(NEXT_DAY, 10, first_id=5)
    world.open_gap(2, 4, ago(minutes=20))
    result = world.tick(SENSOR)
    assert (result.run_requests, world.alerts()) == ([], [])


def test_a_gap_of_a_day_that_goes_on_is_told_of_and_not_sealed(world: World) -> None:
    world.stream(DAY, 5, first_id=5)
    world.open_gap(2, 4, ago(hours=2))
    result = world.tick(SENSOR)
    assert result.run_requests == []
    (alert,) = world.alerts()
    assert "3 trades of BTC-USD (2-4)" in alert.text


def test_trades_that_the_exchange_does_not_have_are_told_of_once_and_not_asked_for(world: World) -> None:
    world.stream(NEXT_DAY, 10, first_id=5)
    world.open_gap(2, 4, ago(hours=2), "unfillable")
    result = world.tick(SENSOR)
    assert result.run_requests == []
    assert [alert.key for alert in world.alerts()] == ["gap:BTC-USD:2-4:unfillable"]


def test_ids_that_are_still_open_are_asked_for_again_but_not_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.stream(DAY, 5)
    world.stream(NEXT_DAY, 10, first_id=5)
    world.open_gap(2, 4, ago(hours=2))
    cursor, keys = None, []
    start = int(datetime.now(UTC).timestamp() * 1_000_000)
    for hour in (0, 1, 3, 6, 12, 24, 48, 72):
        moment = start + hour * 3_600_000_000
        monkeypatch.setattr("lakehouse_assets.operations.open_gaps.now_us", lambda moment=moment: moment)
        result = world.tick(SENSOR, cursor)
        cursor = result.cursor
        keys += [run.run_key for run in result.run_requests or []]
    assert len(keys) == len(set(keys)) == MOST_ATTEMPTS


def test_another_gap_of_the_day_is_another_cause(world: World) -> None:
    world.stream(DAY, 5)
    world.stream(NEXT_DAY, 10, first_id=20)
    world.open_gap(2, 4, ago(hours=2))
    first = world.tick(SENSOR)
    world.open_gap(8, 8, ago(hours=2))
    second = world.tick(SENSOR, first.cursor)
    assert [run.partition_key for run in second.run_requests or []] == [KEY]
    (one,), (other,) = first.run_requests or [], second.run_requests or []
    assert one.run_key != other.run_key
    assert other.tags["lakehouse/cause"].startswith("trades are still missing: ")


def test_a_gap_belongs_to_the_sealed_day_whose_ids_it_touches() -> None:
    sealed = {(BTC, NEXT_DAY): SealRecord(9, 9, 11, 20, "", True, 0)}
    assert [item.day for item in days_to_seal([gap(12, 13)], sealed, OVER + 10**10, 10)] == [NEXT_DAY]
    assert [item.day for item in days_to_seal([gap(2, 3)], sealed, OVER + 10**10, 10)] == [DAY]
    assert days_to_seal([gap(2, 3)], sealed, day_start_us(NEXT_DAY), 10) == []
    assert days_to_seal([gap(2, 3, "unfillable")], sealed, OVER, 10) == []


def test_each_growth_of_the_quarantine_by_the_bound_is_told_of_with_its_reasons(world: World) -> None:
    name = "alert_on_refused_inputs"
    world.refuse(99)
    first = world.tick(name)
    assert world.alerts() == []
    world.refuse(1)
    second = world.tick(name, first.cursor)
    (alert,) = world.alerts()
    assert "100 inputs" in alert.text
    assert "100 not_json" in alert.text
    world.refuse(50)
    third = world.tick(name, second.cursor)
    assert len(world.alerts()) == 1
    world.refuse(60)
    world.tick(name, third.cursor)
    assert len(world.alerts()) == 2


def test_days_long_past_are_not_told_of_again(world: World) -> None:
    world.refuse(200, DAY - LOOK_BACK - timedelta(days=1))
    world.refuse(1)
    world.tick("alert_on_refused_inputs", "garbage")
    assert world.alerts() == []


def test_a_run_that_dagster_tries_again_is_not_told_of(world: World) -> None:
    world.fail_a_run(tags={"dagster/will_retry": "true"})
    world.tick("alert_on_failed_runs")
    assert world.alerts() == []
