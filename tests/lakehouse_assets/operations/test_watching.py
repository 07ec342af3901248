"""What every sensor that watches survives: a garbage cursor, a tick that comes twice, no tables, and a day
of Dagster being down. Each is shown with the sensor's real cause."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from sealed_world import DAY, KEY, NEXT_DAY
from supervised_world import Workers
from watched_world import World

from lakehouse.stores.iceberg_catalog import open_catalog
from lakehouse.stores.schemas import GAPS, QUARANTINE, TRADES

LONG_AGO = datetime.now(UTC) - timedelta(hours=20)
"""Dagster was down since."""

Done = set[str]


def sealed_gap(world: World, workers: Workers) -> None:
    world.stream(DAY, 5, first_id=1)
    world.stream(NEXT_DAY, 10, first_id=5)
    world.open_gap(2, 4, LONG_AGO)


CAUSES: dict[str, Callable[[World, Workers], object]] = {
    "report_stream_watermarks": lambda world, workers: world.stream(DAY, 5),
    "fill_gaps_that_stay_open": sealed_gap,
    "alert_on_refused_inputs": lambda world, workers: world.refuse(120),
    "alert_on_failed_runs": lambda world, workers: world.fail_a_run(),
    "alert_on_dead_workers": lambda world, workers: workers.kill("hot"),
    "seal_days_that_are_over": lambda world, workers: (
        world.stream(DAY, 5),
        world.stream(NEXT_DAY, 10, first_id=2),
    ),
}

EXPECTED = {
    "report_stream_watermarks": {"event stream/trades"},
    "fill_gaps_that_stay_open": {"alert gap:BTC-USD", f"run {KEY}"},
    "alert_on_refused_inputs": {f"alert refused_inputs:{DAY}"},
    "alert_on_failed_runs": {"alert failed_run"},
    "alert_on_dead_workers": {"alert worker:hot"},
    "seal_days_that_are_over": {f"run {KEY}"},
}

GARBAGE = [
    "",
    "not json",
    "[1, 2]",
    '{"a": 1}',
    "\ud800",
    "\x00",
    '{"asked":{"x":1},"pids":3,"event_id":"x"}',
]

sensors = pytest.mark.parametrize("name", list(CAUSES))


@pytest.fixture
def workers(world: World, request: pytest.FixtureRequest) -> Iterator[Workers]:
    """Supervised processes, where the test's sensor watches them."""
    if request.node.callspec.params.get("name") == "alert_on_dead_workers":
        with Workers.running(world.tables.home.create()) as running:
            yield running
    else:
        yield Workers(world.tables.home)


def done(world: World, *results: dg.SensorResult) -> Done:
    """What came of ticks: alerts and runs by what they are about, and events."""
    alerts = {f"alert {':'.join(alert.key.split(':')[:2])}" for alert in world.alerts()}
    alerts = {one if "failed_run" not in one else "alert failed_run" for one in alerts}
    runs = {f"run {run.partition_key}" for result in results for run in result.run_requests or []}
    events = {
        f"event {event.asset_key.to_user_string()}"
        for result in results
        for event in result.asset_events or []
    }
    return alerts | runs | events


def before_its_cause(world: World, name: str) -> str | None:
    """The cursor of a tick that came before anything happened."""
    return world.tick(name).cursor


@sensors
def test_its_cause_is_found_once(world: World, workers: Workers, name: str) -> None:
    cursor = before_its_cause(world, name)
    CAUSES[name](world, workers)
    first = world.tick(name, cursor)
    assert done(world, first) == EXPECTED[name]
    count = len(world.alerts())
    second = world.tick(name, first.cursor)
    assert not second.run_requests
    assert not second.asset_events
    assert len(world.alerts()) == count


@sensors
def test_a_garbage_cursor_is_survived_and_hides_nothing(world: World, workers: Workers, name: str) -> None:
    if name == "alert_on_dead_workers":
        workers.keep_down("hot")  # which process it was before is lost with the cursor; that it is down isn't
    else:
        CAUSES[name](world, workers)
    for garbage in GARBAGE:
        result = world.tick(name, garbage)
        assert done(world, result) == EXPECTED[name], garbage
    assert not world.tick(name, result.cursor).run_requests


@sensors
def test_a_tick_that_comes_twice_does_its_work_once(world: World, workers: Workers, name: str) -> None:
    cursor = before_its_cause(world, name)
    CAUSES[name](world, workers)
    first = world.tick(name, cursor)
    alerts = world.alerts()
    again = world.tick(name, cursor)  # the first one's cursor was never stored
    assert world.alerts() == alerts
    keys = [[run.run_key for run in result.run_requests or []] for result in (first, again)]
    assert keys[0] == keys[1]  # Dagster starts a key once


@sensors
def test_without_tables_nothing_is_done_and_none_is_made(world: World, name: str) -> None:
    result = world.tick(name)
    assert result.skip_reason is not None
    assert done(world, result) == set()
    assert not world.tables.home.iceberg.exists()


@sensors
def test_a_table_that_is_gone_stops_no_sensor(world: World, workers: Workers, name: str) -> None:
    world.stream(DAY, 5)
    with closing(open_catalog(world.tables.home)) as catalog:
        for table in (GAPS, QUARANTINE, TRADES):
            catalog.drop_table((world.tables.home.namespace, table.name))
    assert done(world, world.tick(name)) == set()


@sensors
def test_after_a_day_of_dagster_being_down_it_catches_up(
    world: World, workers: Workers, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = before_its_cause(world, name)
    CAUSES[name](world, workers)
    a_day_later = int((datetime.now(UTC) + timedelta(days=1)).timestamp() * 1_000_000)
    for module in ("open_gaps", "dead_workers", "stream_topics"):
        monkeypatch.setattr(f"lakehouse_assets.operations.{module}.now_us", lambda: a_day_later)
    assert done(world, world.tick(name, cursor)) == EXPECTED[name]


@sensors
def test_it_runs_by_itself_and_says_what_it_does(world: World, name: str) -> None:
    sensor = world.defs.resolve_sensor_def(name)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert len(sensor.description or "") > 60
