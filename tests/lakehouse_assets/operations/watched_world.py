"""A home with ways to bring about what the sensors watch for."""

from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import msgspec
import pyarrow as pa
from sealed_world import BTC, DAY

from lakehouse.market.time import MINUTE_US, day_start_us, to_datetime
from lakehouse.stores.schemas import GAPS, QUARANTINE, TRADES
from lakehouse_assets.operations.alerts import Alert
from lakehouse_assets.resources import Lakehouse


class World:
    """A home, its sensors, and ways to bring about what they watch for."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance, tables: Lakehouse) -> None:
        self.defs = defs
        self.instance = instance
        self.tables = tables

    def tick(self, name: str, cursor: str | None = None) -> dg.SensorResult:
        """Evaluate a sensor as the daemon does."""
        sensor = self.defs.resolve_sensor_def(name)
        resources = dict(self.defs.resources or {})
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=cursor,
            resources={key: resources[key] for key in sensor.required_resource_keys},
        ) as context:
            result = sensor(context)
        if isinstance(result, dg.SkipReason):
            return dg.SensorResult(skip_reason=result, cursor=cursor)
        assert isinstance(result, dg.SensorResult)
        return result

    def alerts(self) -> list[Alert]:
        """Every alert that was raised, by key."""
        kept = [msgspec.json.decode(path.read_bytes()) for path in self.tables.home.alerts.glob("*.json")]
        return sorted((msgspec.convert(one["alert"], Alert) for one in kept), key=lambda alert: alert.key)

    def stream(self, day: date, *minutes: int, first_id: int = 1, product: str = BTC) -> None:
        """Archive a trade in each of these minutes, as the stream does."""
        rows = []
        for number, minute in enumerate(minutes):
            at = to_datetime(day_start_us(day) + minute * MINUTE_US)
            row: dict[str, Any] = {"product": product, "day": day, "trade_id": first_id + number}
            row |= {"event_time": at, "price": 1, "size": 1, "taker_side": "buy", "late": False}
            row |= {"source": "feed", "exchange": "simulated", "received_at": at, "recorded_at": at}
            rows.append(row | {"spine_partition": 0, "spine_offset": number})
        with self.tables.iceberg() as store:
            store.append(TRADES, pa.Table.from_pylist(rows, TRADES.schema))

    def open_gap(self, first_id: int, last_id: int, noticed: datetime, status: str = "found") -> None:
        """Record ids as missing."""
        row = {"product": BTC, "day": DAY, "first_trade_id": first_id, "last_trade_id": last_id}
        row |= {"status": status, "found_by": "trade_id", "after": None, "before": None, "detail": ""}
        row |= {"exchange": "simulated", "noticed_at": noticed, "recorded_at": noticed}
        row |= {"spine_partition": 0, "spine_offset": first_id}
        with self.tables.iceberg() as store:
            store.append(GAPS, pa.Table.from_pylist([row], GAPS.schema))

    def refuse(self, count: int, day: date = DAY) -> None:
        """Put inputs into quarantine."""
        at = datetime(day.year, day.month, day.day, tzinfo=UTC)
        row = {"day": day, "product": BTC, "reason": "not_json", "detail": "", "frame": b"garbage"}
        row |= {"exchange": "simulated", "received_at": at, "recorded_at": at}
        rows = [row | {"spine_partition": 0, "spine_offset": number} for number in range(count)]
        with self.tables.iceberg() as store:
            store.append(QUARANTINE, pa.Table.from_pylist(rows, QUARANTINE.schema))

    def fail_a_run(self, tags: dict[str, str] | None = None) -> str:
        """Have a run fail in this Dagster instance, and return its id."""

        @dg.op
        def breaks() -> None:
            raise ValueError("the disk is full")

        @dg.job(name="a_job", executor_def=dg.in_process_executor)
        def a_job() -> None:
            breaks()

        return a_job.execute_in_process(instance=self.instance, raise_on_error=False, tags=tags or {}).run_id
