"""The stream as Dagster sees it: the topics upstream of the tables, and how far they have come.

The topics are filled by the streaming side, so here they are external assets; a sensor reports a
materialization of each whose watermark has moved. It is an event a topic and tick, not one a product, and
none while nothing moves, because Dagster keeps every event for good.

The partitions of the live tables get no such events: theirs say that a day was sealed or looked at, and a
stream that moves all day would make them look complete.
"""

from datetime import timedelta
from typing import Any, Final

import dagster as dg
import msgspec
import numpy as np

from lakehouse.home import Home
from lakehouse.market.book import BOOK_HEADER, BOOK_LEVEL
from lakehouse.market.quote import QUOTE_RECORD
from lakehouse.market.time import SECOND_US, now_us, to_iso
from lakehouse.market.trade import TRADE_RECORD
from lakehouse.settings import Settings, load_settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import BOOK, QUOTES, TRADES, Table
from lakehouse.stores.watermarks import watermarks
from lakehouse_assets.cursor import decoded, encoded
from lakehouse_assets.market.description import GROUP, OWNERS
from lakehouse_assets.resources import Lakehouse
from streaming.spine import topics
from streaming.workers.metrics import scrape
from streaming.workers.roster import readers

PREFIX: Final = "stream"
TABLES: Final = {topics.TRADES: TRADES, topics.QUOTES: QUOTES, topics.BOOK: BOOK}
"""The table that each topic fills."""

SECONDS_BETWEEN: Final = 300
STALE_AFTER: Final = timedelta(minutes=15)

_MEANING: Final = {
    topics.TRADES: "Every trade that the feed accepted, in the durable log.",
    topics.QUOTES: "Every best bid and ask, in the durable log.",
    topics.BOOK: "Every snapshot and update of the order books, in the durable log.",
}

RECORDS: Final = {
    topics.TRADES: TRADE_RECORD,
    topics.QUOTES: QUOTE_RECORD,
    topics.BOOK: np.dtype([*BOOK_HEADER.descr, *BOOK_LEVEL.descr]),
}
"""How a message lies in each topic; of the book the header and one of the levels that follow it."""

_COLUMN: Final = {"event_us": "event_time", "received_us": "received_at"}
"""The column of the table that a field fills, where it has another name."""

_OWN: Final = {
    "version": "Version of this layout.",
    "padding": "Nothing.",
    "levels": "How many levels follow: each has a price, a size and a side.",
}
"""What fields mean that are not kept in the table."""


class Moved(msgspec.Struct):
    """The newest event time by topic and product that was reported, µs UTC."""

    topics: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)


def topic_key(topic: str) -> dg.AssetKey:
    """Return a topic's asset."""
    return dg.AssetKey([PREFIX, topic])


def topic_assets(home: Home, settings: Settings) -> list[dg.AssetSpec]:
    """Return the topics as external assets."""
    engine = {"sqlite": "sqlite", "iggy": "rust"}[settings.spine_kind]
    return [
        dg.AssetSpec(
            topic_key(topic),
            description=(
                f"{_MEANING[topic]} The streaming workers write and read it without Dagster; "
                f"`report_stream_watermarks` says here how far it has come into `{table.name}`."
            ),
            group_name=GROUP,
            owners=OWNERS,
            kinds={"stream", engine},
            tags={"layer": "stream", "namespace": home.namespace},
            metadata={"dagster/column_schema": _fields(topic), "topic": topic},
            freshness_policy=dg.FreshnessPolicy.time_window(fail_window=STALE_AFTER),
        )
        for topic, table in TABLES.items()
    ]


def _fields(topic: str) -> dg.TableSchema:
    """Return the fields of a topic's messages, with the meaning of the columns that they fill."""
    meaning = {field.name: field.metadata[b"description"].decode() for field in TABLES[topic].schema} | _OWN
    record = RECORDS[topic]
    columns = [
        dg.TableColumn(name, str(record[name]), meaning[_COLUMN.get(name, name)])
        for name in record.names or ()
    ]
    other = (
        "a message of fixed length: prices, sizes and imbalance x 10⁸, times in µs since 1970, little-endian"
    )
    return dg.TableSchema(columns, dg.TableConstraints(other=[other]))


def watermark_sensor() -> dg.SensorDefinition:
    """Return the sensor."""

    @dg.sensor(
        name="report_stream_watermarks",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=SECONDS_BETWEEN,
        description=(
            "Reports how far the stream has come, for each topic that moved since: the newest event of each "
            "product, the log's offsets, how far the tables are behind it, and their rows."
        ),
    )
    def report_stream_watermarks(
        context: dg.SensorEvaluationContext, lakehouse: Lakehouse
    ) -> dg.SensorResult | dg.SkipReason:
        if not lakehouse.is_written:
            return lakehouse.no_data()
        before = decoded(context.cursor, Moved)
        now: dict[str, dict[str, int]] = {}
        events = []
        with lakehouse.iceberg() as store:
            for topic, table in TABLES.items():
                now[topic] = watermarks(store, table)
                if now[topic] != before.topics.get(topic, {}):
                    lag = _lag(lakehouse.home, topic)
                    metadata = _metadata(store, table, now[topic], lag)
                    events.append(dg.AssetMaterialization(topic_key(topic), metadata=metadata))
        return dg.SensorResult(
            asset_events=events,
            skip_reason=f"{len(events)} topics moved",
            cursor=encoded(Moved(now)),
        )

    return report_stream_watermarks


def _metadata(store: IcebergStore, table: Table, newest: dict[str, int], lag: int | None) -> dict[str, Any]:
    rows = {stats.product: 0 for stats in store.partitions(table)}
    for stats in store.partitions(table):
        rows[stats.product] += stats.rows
    moment = now_us()
    records = [
        dg.TableRecord(
            {
                "product": product,
                "newest event": to_iso(us),
                "seconds ago": round((moment - us) / SECOND_US, 1),
                "rows": rows.get(product, 0),
            }
        )
        for product, us in sorted(newest.items())
    ]
    return {
        "products": dg.MetadataValue.table(records),
        "newest_event": dg.MetadataValue.timestamp(max(newest.values()) / SECOND_US),
        "offsets": {str(partition): offset for partition, offset in store.offsets(table).items()},
        "messages_behind": "unknown: no worker answers" if lag is None else lag,
        "dagster/row_count": sum(rows.values()),
        "snapshot_id": str(store.snapshot_id(table)),
    }


def _lag(home: Home, topic: str) -> int | None:
    """Return how many messages of a topic its slowest reader hasn't committed; None where none answers."""
    behind: dict[str, float] = {}
    for worker in readers(load_settings(home=home.root)):
        for labels, messages in (
            (scrape(home, worker) or {}).get("lakehouse_engine_lag_messages", {})
        ).items():
            names = dict(labels)
            if names["topic"] == topic:
                behind[names["stage"]] = behind.get(names["stage"], 0) + messages
    return int(max(behind.values())) if behind else None
