"""The archive: every message once, whatever is delivered twice, wherever it is killed."""

import errno
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from log_messages import (
    START,
    Crash,
    market,
    publish,
    publish_in_batches,
    quote_message,
    trade,
    trade_message,
)

from lakehouse.home import Home
from lakehouse.market.book import BookKind, pack_book
from lakehouse.market.gap import FoundBy, Gap, GapStatus
from lakehouse.market.intake import IntakeCount
from lakehouse.market.quarantine import Reason, Refused
from lakehouse.market.trade import Exchange
from lakehouse.stores.duplicates import duplicates
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_commit import Change
from lakehouse.stores.schemas import BOOK, GAPS, INTAKE, QUARANTINE, QUOTES, TRADES, Table
from streaming.engines.embedded import archive, stage
from streaming.engines.embedded.archive import BESIDE_FLINK, ArchiveStage
from streaming.engines.embedded.decode import MalformedMessageError, trade_rows
from streaming.spine.contract import Partition, Spine
from streaming.spine.sqlite import SqliteSpine


@pytest.fixture
def store(home: Home) -> Iterator[IcebergStore]:
    with IcebergStore.open(home) as opened:
        yield opened


def drain(running: ArchiveStage) -> int:
    taken = 0
    while messages := sum(running.step().messages.values()):
        taken += messages
    return taken


def keys(store: IcebergStore) -> list[tuple[str, int]]:
    rows = store.scan(TRADES, columns=["product", "trade_id"]).to_pylist()
    return sorted((row["product"], row["trade_id"]) for row in rows)


def content(store: IcebergStore) -> list[dict[str, Any]]:
    """What the archive says of each trade, without where in the log that was."""
    rows: list[dict[str, Any]] = store.scan(TRADES).drop_columns(["spine_offset", "recorded_at"]).to_pylist()
    return sorted(rows, key=lambda row: (row["product"], row["trade_id"]))


def test_six_topics_into_six_tables(spine: SqliteSpine, store: IcebergStore) -> None:
    messages = {
        "trades": [trade_message(trade("BTC-USD", 1, START))],
        "quotes": [quote_message("BTC-USD", 100, 101, START, 0), quote_message("BTC-USD", 100, 102, START)],
        "book": [
            pack_book(
                product="BTC-USD",
                kind=BookKind.SNAPSHOT,
                exchange=Exchange.COINBASE,
                event_us=START,
                received_us=START,
                first_update_id=0,
                last_update_id=0,
                bids=[(99, 1), (98, 2)],
                asks=[(101, 3)],
            )
        ],
        "gaps": [
            msgspec.msgpack.encode(
                Gap(Exchange.COINBASE, "BTC-USD", 2, 4, GapStatus.FOUND, FoundBy.HEARTBEAT, START, 0, START)
            )
        ],
        "quarantine": [
            msgspec.msgpack.encode(Refused(Exchange.COINBASE, "", Reason.NOT_JSON, "no", START, b"{"))
        ],
        "intake": [
            msgspec.msgpack.encode(
                IntakeCount(Exchange.COINBASE, "BTC-USD", date(2025, 11, 19), "trade", 1, 1, 0, 0, 0)
            )
        ],
    }
    spine.publish({Partition(topic, 2): payloads for topic, payloads in messages.items()})
    running = ArchiveStage(spine, store)
    assert sum(running.lag().values()) == 7
    result = running.step()
    assert result.messages == {topic: len(payloads) for topic, payloads in messages.items()}
    assert (result.behind, result.duplicates) == (False, 0)
    rows = {
        table.name: store.scan(table).num_rows for table in (TRADES, QUOTES, BOOK, GAPS, QUARANTINE, INTAKE)
    }
    assert rows == {"trades": 1, "quotes": 2, "book": 3, "gaps": 1, "quarantine": 1, "intake": 1}
    assert store.offsets(QUOTES) == {2: 2}
    assert set(running.lag().values()) == {0}
    assert running.newest_us() == {"BTC-USD": START}
    assert running.step().messages == {}
    assert spine.committed("archive", Partition("quotes", 2)) is None  # not before a sync
    running.close()
    assert spine.committed("archive", Partition("quotes", 2)) == 2
    assert spine.committed("archive", Partition("intake", 0)) == 0


def test_beside_flink_it_archives_what_is_left_and_keeps_every_table_small(
    spine: SqliteSpine, store: IcebergStore
) -> None:
    refused = msgspec.msgpack.encode(Refused(Exchange.COINBASE, "", Reason.NOT_JSON, "no", START, b"{"))
    spine.publish({Partition("quarantine", 0): [refused]})
    publish(spine, [trade("BTC-USD", 1, START)])
    running = ArchiveStage(spine, store, BESIDE_FLINK)
    assert {partition.topic for partition in running.lag()} == set(BESIDE_FLINK)
    assert running.step().messages == {"quarantine": 1}
    assert store.scan(QUARANTINE).num_rows == 1
    assert store.snapshot_id(TRADES) is None
    rows = trade_rows(spine.read(Partition("trades", 2), 0, 1), Partition("trades", 2))
    for _ in range(40):  # in Flink's place
        store.append(TRADES, rows)
    running.step()
    assert len(store.current(TRADES).metadata.snapshots) == 16
    assert sum(stats.files for stats in store.partitions(TRADES)) == 1
    running.close()
    assert spine.committed("archive", Partition("quarantine", 0)) == 1
    assert spine.committed("archive", Partition("trades", 2)) is None


def test_repeated_trades_are_archived_once_and_counted(spine: SqliteSpine, store: IcebergStore) -> None:
    trades = market(1, 3_000)
    publish_in_batches(spine, trades, 500)
    running = ArchiveStage(spine, store)
    drain(running)
    publish_in_batches(spine, trades[::3], 400)
    drain(running)
    again = ArchiveStage(spine, store)
    publish_in_batches(spine, trades[::7], 400)
    drain(again)
    unique = {(made["product"], made["trade_id"]) for made in trades}
    assert keys(store) == sorted(unique)
    delivered = trades + trades[::3] + trades[::7]
    seen: set[tuple[str, int]] = set()
    repeated: Counter[tuple[str, date]] = Counter()
    for made in delivered:
        key = made["product"], made["trade_id"]
        if key in seen:
            repeated[made["product"], datetime.fromtimestamp(made["event_us"] / 1e6, UTC).date()] += 1
        seen.add(key)
    assert duplicates(store) == dict(repeated)
    assert {day for _, day in repeated} == {date(2025, 11, 19), date(2025, 11, 20)}


def test_a_trade_repeated_with_the_time_of_another_day_is_known(
    spine: SqliteSpine, store: IcebergStore
) -> None:
    publish(spine, [trade("BTC-USD", trade_id, START) for trade_id in range(10, 20)])
    drain(ArchiveStage(spine, store))
    publish(spine, [trade("BTC-USD", 15, START + 3_600_000_000), trade("BTC-USD", 20, START + 3_600_000_000)])
    running = ArchiveStage(spine, store)
    assert running.step().duplicates == 1
    assert keys(store) == [("BTC-USD", trade_id) for trade_id in range(10, 21)]
    assert duplicates(store) == {("BTC-USD", date(2025, 11, 20)): 1}


def test_what_another_writer_added_is_known(spine: SqliteSpine, store: IcebergStore, home: Home) -> None:
    running = ArchiveStage(spine, store)
    publish(spine, [trade("BTC-USD", trade_id, START) for trade_id in (1, 2, 5)])
    drain(running)
    with IcebergStore.open(home) as sealing:
        rows = sealing.scan(TRADES, product="BTC-USD", day=date(2025, 11, 19))
        fetched = rows.slice(0, 1).set_column(2, "trade_id", pa.array([3], pa.int64()))
        sealing.replace(
            TRADES, "BTC-USD", date(2025, 11, 19), pa.concat_tables([rows, fetched.cast(rows.schema)])
        )
    publish(spine, [trade("BTC-USD", trade_id, START) for trade_id in (3, 4)])
    assert running.step().duplicates == 1
    assert keys(store) == [("BTC-USD", trade_id) for trade_id in range(1, 6)]


def test_every_cut_of_the_log_gives_the_same_archive(
    spine: SqliteSpine, store: IcebergStore, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_in_batches(spine, market(2, 2_000), 300)
    whole = ArchiveStage(spine, store)
    drain(whole)
    monkeypatch.setattr(archive, "MESSAGES_PER_PARTITION", 97)
    with IcebergStore.open(Home(tmp_path / "other", "simulated").create()) as other:
        while True:  # a new stage for each step: a restart after each commit
            result = ArchiveStage(spine, other).step()
            if not result.messages:
                break
            assert result.behind or result.messages["trades"] < 3 * 97
        assert content(other) == content(store)
        assert duplicates(other) == duplicates(store)


def test_large_messages_are_taken_a_few_at_a_time(
    spine: SqliteSpine, store: IcebergStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "BYTES_PER_PARTITION", 1_000)
    frames = [b"x" * size for size in (400, 400, 400, 5_000, 1, 2)]
    refused = [Refused(Exchange.COINBASE, "", Reason.TOO_LARGE, "", START, frame) for frame in frames]
    spine.publish({Partition("quarantine", 0): [msgspec.msgpack.encode(one) for one in refused]})
    running = ArchiveStage(spine, store)
    steps = []
    while (result := running.step()).messages:
        steps.append((result.messages["quarantine"], result.behind))
    assert steps == [(2, True), (1, True), (1, True), (2, False)]
    rows = store.scan(QUARANTINE).sort_by("spine_offset")
    assert rows["frame"].to_pylist() == frames


class DyingStore(IcebergStore):
    """Dies at a commit of a table: before it, or just after."""

    die: tuple[str, str] | None = None

    def commit(self, table: Table, change: Change) -> int:
        if self.die == (table.name, "before"):
            raise Crash
        snapshot = super().commit(table, change)
        if self.die == (table.name, "after"):
            raise Crash
        return snapshot

    def maintain(self, table: Table) -> None:
        if self.die == (table.name, "in maintenance"):
            raise Crash
        super().maintain(table)


class DyingSpine(SqliteSpine):
    """Dies as a group's offsets are to be committed."""

    def commit(self, group: str, offsets: Any) -> None:
        raise Crash


@pytest.mark.parametrize("moment", ["before", "after", "in maintenance"])
@pytest.mark.parametrize("table", ["trades", "quotes"])
def test_killed_at_a_commit_nothing_is_lost_or_doubled(
    spine: SqliteSpine, home: Home, table: str, moment: str
) -> None:
    trades = market(3, 300)
    quotes = [quote_message("BTC-USD", i + 1, i + 2, START + i) for i in range(30)]

    def deliver(part: int) -> None:
        publish(spine, trades[part::3])
        spine.publish({Partition("quotes", 1): quotes[part * 10 : part * 10 + 10]})

    store = DyingStore.open(home)
    running = ArchiveStage(spine, store)
    deliver(0)
    running.step()
    deliver(1)
    store.die = table, moment
    with pytest.raises(Crash):
        running.step()
    deliver(2)
    with IcebergStore.open(home) as healthy:
        drain(ArchiveStage(spine, healthy))
        assert keys(healthy) == sorted({(made["product"], made["trade_id"]) for made in trades})
        assert sorted(healthy.scan(QUOTES)["spine_offset"].to_pylist()) == list(range(30))
        assert sum(duplicates(healthy).values()) == len(trades) - len(keys(healthy))


def test_killed_at_the_spine_commit_nothing_is_lost_or_doubled(
    spine: SqliteSpine, home: Home, store: IcebergStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "FREE_EVERY_SECONDS", 0)
    trades = market(4, 200)
    publish(spine, trades)
    with DyingSpine.open(home.spine) as dying, pytest.raises(Crash):
        ArchiveStage(dying, store).step()
    running = ArchiveStage(spine, store)
    assert running.step().messages == {}
    assert keys(store) == sorted({(made["product"], made["trade_id"]) for made in trades})


def test_the_log_may_drop_what_is_archived_only_after_a_sync(
    spine: SqliteSpine, store: IcebergStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = []

    class WatchedSpine:
        def __init__(self, inner: Spine) -> None:
            self.inner = inner

        def commit(self, group: str, offsets: Any) -> None:
            happened.append("commit")
            self.inner.commit(group, offsets)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    sync = os.sync
    monkeypatch.setattr(os, "sync", lambda: (happened.append("sync"), sync()))
    monkeypatch.setattr(stage, "FREE_EVERY_SECONDS", 0)
    publish(spine, [trade("BTC-USD", 1, START)])
    ArchiveStage(WatchedSpine(spine), store).step()  # type: ignore[arg-type]
    assert happened == ["sync", "commit"]


class FullDisk(IcebergStore):
    """Can't commit some tables for a while."""

    full: frozenset[str] = frozenset()
    done_anyway = False

    def commit(self, table: Table, change: Change) -> int:
        if table.name in self.full:
            if self.done_anyway:
                super().commit(table, change)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().commit(table, change)


@pytest.mark.parametrize("done_anyway", [False, True])
@pytest.mark.parametrize("failing", ["trades", "quotes"])
def test_a_table_that_fails_holds_up_no_other(
    spine: SqliteSpine, home: Home, failing: str, done_anyway: bool
) -> None:
    with FullDisk.open(home) as store:
        running = ArchiveStage(spine, store)
        store.full, store.done_anyway = frozenset({failing}), done_anyway
        publish(spine, [trade("BTC-USD", 1, START), trade("BTC-USD", 2, START)])
        spine.publish({Partition("quotes", 0): [quote_message("BTC-USD", 1, 2, START)]})
        with pytest.raises(OSError, match="No space left"):
            running.step()
        other, rows = (QUOTES, 1) if failing == "trades" else (TRADES, 2)
        assert store.scan(other).num_rows == rows
        store.full = frozenset()
        publish(spine, [trade("BTC-USD", 2, START), trade("BTC-USD", 3, START)])
        running.step()
        assert keys(store) == [("BTC-USD", 1), ("BTC-USD", 2), ("BTC-USD", 3)]
        assert store.scan(QUOTES).num_rows == 1
        assert sum(duplicates(store).values()) == 1


def test_several_failures_are_all_told(spine: SqliteSpine, home: Home) -> None:
    with FullDisk.open(home) as store:
        store.full = frozenset({"trades", "quotes"})
        publish(spine, [trade("BTC-USD", 1, START)])
        spine.publish({Partition("quotes", 0): [quote_message("BTC-USD", 1, 2, START)]})
        with pytest.raises(ExceptionGroup) as raised:
            ArchiveStage(spine, store).step()
        assert [type(error) for error in raised.value.exceptions] == [OSError, OSError]


def test_a_malformed_message_is_an_error_and_holds_up_no_other_table(
    spine: SqliteSpine, store: IcebergStore
) -> None:
    publish(spine, [trade("BTC-USD", 1, START)])
    spine.publish({Partition("quotes", 1): [quote_message("BTC-USD", 1, 2, START), b"rubbish"]})
    running = ArchiveStage(spine, store)
    for _ in range(2):
        with pytest.raises(MalformedMessageError) as raised:
            running.step()
        assert (raised.value.partition, raised.value.offset) == (Partition("quotes", 1), 1)
    assert keys(store) == [("BTC-USD", 1)]
    assert running.lag()[Partition("quotes", 1)] == 2


def test_the_tables_stay_small_while_they_are_written(spine: SqliteSpine, store: IcebergStore) -> None:
    running = ArchiveStage(spine, store)
    for i in range(40):
        publish(spine, [trade("BTC-USD", i + 1, START + i)])
        running.step()
    assert len(keys(store)) == 40
    assert len(store.data_files(TRADES)) < 30
    assert len(store.current(TRADES).metadata.snapshots) < 30
    publish(spine, [trade("BTC-USD", 20, START)])
    assert running.step().duplicates == 1
