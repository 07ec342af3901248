"""The candles table: equal to a slow computation, whatever the batches, kills and pauses."""

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from log_messages import START, Crash, market, publish, publish_in_batches, trade
from reference_candles import from_rows, reference

from lakehouse.candles.open_minutes import StateError
from lakehouse.home import Home
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.lock import held
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES, Table
from streaming.engines.embedded import candles, stage
from streaming.engines.embedded.archive import ArchiveStage
from streaming.engines.embedded.candles import STATE, CandlesStage, live
from streaming.engines.embedded.decode import MalformedMessageError
from streaming.spine.contract import OffsetAheadError, Partition
from streaming.spine.sqlite import SqliteSpine


@pytest.fixture
def store(home: Home) -> Iterator[PaimonStore]:
    with PaimonStore.open(home) as opened:
        yield opened


def opened(spine: SqliteSpine, store: PaimonStore) -> CandlesStage:
    return CandlesStage(spine, store, live(10))


def drain(running: CandlesStage) -> None:
    while running.step().messages:
        pass


def table(store: PaimonStore) -> dict[tuple[str, int], dict[str, Any]]:
    return from_rows(store.scan(CANDLES_1M).to_pylist())


def test_candles_equal_the_slow_computation(spine: SqliteSpine, store: PaimonStore) -> None:
    trades = publish_in_batches(spine, market(1, 4_000), 300)
    running = opened(spine, store)
    result = running.step()
    assert result.messages == {"trades": len(trades)}
    assert result.duplicates == len(trades) - len({(t["product"], t["trade_id"]) for t in trades}) > 0
    found = table(store)
    assert found == reference(trades)
    assert any(candle["revision"] for candle in found.values())
    assert {row["day"] for row in store.scan(CANDLES_1M).to_pylist()} == {
        date(2025, 11, 19),
        date(2025, 11, 20),
    }
    assert set(running.lag().values()) == {0}
    assert running.newest_us() == {
        product: max(t["event_us"] for t in trades if t["product"] == product)
        for product in ("BTC-USD", "ETH-USD", "SOL-USD")
    }
    assert running.step().messages == {}


def test_restarts_and_small_batches_change_nothing(
    spine: SqliteSpine, store: PaimonStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candles, "MESSAGES_PER_PARTITION", 37)
    monkeypatch.setattr(candles, "READS_PER_COMMIT", 3)
    trades = publish_in_batches(spine, market(2, 2_500), 300)
    while opened(spine, store).step().messages:  # a restart after each commit
        pass
    assert table(store) == reference(trades)


def test_a_candle_becomes_complete_when_its_neighbour_comes(spine: SqliteSpine, store: PaimonStore) -> None:
    minute = 60_000_000
    running = opened(spine, store)
    publish(spine, [trade("BTC-USD", 5, START), trade("BTC-USD", 6, START + minute)])
    running.step()
    assert not table(store)["BTC-USD", START + minute]["is_complete"]
    publish(spine, [trade("BTC-USD", 7, START + 2 * minute)])
    running.step()
    complete = {start: candle["is_complete"] for (_, start), candle in table(store).items()}
    assert complete == {START: False, START + minute: True, START + 2 * minute: False}


class CountingStore(PaimonStore):
    """Remembers how many rows it was given."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rows: list[int] = []

    def upsert(self, table: Table, rows: pa.Table, *, properties: Mapping[str, str] | None = None) -> int:
        self.rows.append(rows.num_rows)
        return super().upsert(table, rows, properties=properties)


def test_only_what_changed_is_written(spine: SqliteSpine, home: Home) -> None:
    with CountingStore.open(home) as store:
        running = opened(spine, store)
        publish(spine, [trade("BTC-USD", i, START + i * 60_000_000) for i in range(1, 6)])
        running.step()
        publish(spine, [trade("BTC-USD", 6, START + 301_000_000)])
        running.step()
        publish(spine, [trade("BTC-USD", 6, START + 301_000_000)])
        running.step()
        assert store.rows == [5, 1, 0]


def test_trades_past_the_horizon_are_counted_and_left_alone(spine: SqliteSpine, store: PaimonStore) -> None:
    running = opened(spine, store)
    publish(spine, [trade("BTC-USD", 1, START), trade("BTC-USD", 3, START + 660_000_000)])
    running.step()
    publish(spine, [trade("BTC-USD", 2, START + 1, late=True)])
    result = running.step()
    assert (result.too_late, result.duplicates) == (1, 0)
    assert table(store)["BTC-USD", START]["trade_count"] == 1


class DyingStore(PaimonStore):
    """Dies at an upsert: before it, or just after."""

    die: str | None = None

    def upsert(self, table: Table, rows: pa.Table, *, properties: Mapping[str, str] | None = None) -> int:
        if self.die == "before":
            raise Crash
        snapshot = super().upsert(table, rows, properties=properties)
        if self.die == "after":
            raise Crash
        return snapshot

    def maintain(self, table: Table) -> None:
        if self.die == "in maintenance":
            raise Crash
        super().maintain(table)


class DyingSpine(SqliteSpine):
    """Dies as a group's offsets are to be committed."""

    def commit(self, group: str, offsets: Any) -> None:
        raise Crash


@pytest.mark.parametrize("moment", ["before", "after", "in maintenance", "at the log"])
def test_killed_at_a_commit_nothing_is_lost_or_doubled(
    spine: SqliteSpine, home: Home, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trades = market(3, 900)
    recorded = publish(spine, trades[:300])
    store = DyingStore.open(home)
    opened(spine, store).step()
    recorded += publish(spine, trades[300:600])
    store.die = moment
    if moment == "at the log":
        monkeypatch.setattr(stage, "FREE_EVERY_SECONDS", 0)
    with DyingSpine.open(home.spine) as dying, pytest.raises(Crash):
        opened(dying, store).step()
    recorded += publish(spine, trades[600:])
    with PaimonStore.open(home) as healthy:
        drain(opened(spine, healthy))
        assert table(healthy) == reference(recorded)


class FullDisk(PaimonStore):
    """Can't commit for a while, or commits and says it couldn't."""

    full = False
    done_anyway = False

    def upsert(self, table: Table, rows: pa.Table, *, properties: Mapping[str, str] | None = None) -> int:
        if self.full and not self.done_anyway:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        snapshot = super().upsert(table, rows, properties=properties)
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return snapshot


@pytest.mark.parametrize("done_anyway", [False, True])
def test_after_a_failed_commit_the_same_stage_goes_on(
    spine: SqliteSpine, home: Home, done_anyway: bool
) -> None:
    trades = market(4, 600)
    with FullDisk.open(home) as store:
        running = opened(spine, store)
        recorded = publish(spine, trades[:300])
        running.step()
        recorded += publish(spine, trades[300:500])
        store.full, store.done_anyway = True, done_anyway
        with pytest.raises(OSError, match="No space left"):
            running.step()
        running.close()
        assert spine.committed("candles", Partition("trades", 0)) is None  # nothing the table may not hold
        store.full = False
        recorded += publish(spine, trades[500:])
        drain(running)
        assert table(store) == reference(recorded)


def test_what_a_seal_rebuilt_with_more_trades_stays(spine: SqliteSpine, store: PaimonStore) -> None:
    running = opened(spine, store)
    publish(spine, [trade("BTC-USD", 1, START), trade("BTC-USD", 4, START + 1)])
    running.step()
    rows = store.scan(CANDLES_1M)
    more = rows.set_column(
        rows.schema.get_field_index("trade_count"), "trade_count", pa.array([4], pa.int64())
    )
    store.replace(CANDLES_1M, "BTC-USD", date(2025, 11, 19), more.cast(CANDLES_1M.schema))
    publish(spine, [trade("BTC-USD", 2, START + 2)])
    opened(spine, store).step()  # knows three of the four
    assert table(store)["BTC-USD", START]["trade_count"] == 4
    recorded = publish(spine, [trade("BTC-USD", 3, START + 3)])
    drain(running)
    found = table(store)["BTC-USD", START]
    assert (found["trade_count"], found["recorded_us"]) == (4, recorded[0]["recorded_us"])


def test_a_paused_archive_holds_up_no_candles(spine: SqliteSpine, home: Home, store: PaimonStore) -> None:
    """The archive waits for another writer of its table; the candles go on; then it catches up."""
    trades = market(5, 600)
    with IcebergStore.open(home) as archive_store:
        archive, running = ArchiveStage(spine, archive_store), opened(spine, store)
        recorded = publish(spine, trades[:200])
        archive.step()
        running.step()
        with held(home.locks, "iceberg-trades"):
            recorded += publish(spine, trades[200:400])
            waiting = threading.Thread(target=archive.step)
            waiting.start()
            running.step()
            recorded += publish(spine, trades[400:])
            running.step()
            assert table(store) == reference(recorded)
            assert waiting.is_alive()
            assert sum(archive.lag().values()) == sum(spine.end(p) for p in archive.lag()) - 200
        waiting.join(30)
        assert not waiting.is_alive()
        archive.step()
        found = archive_store.scan(TRADES, columns=["product", "trade_id"]).to_pylist()
        unique = {(made["product"], made["trade_id"]) for made in trades}
        assert sorted((row["product"], row["trade_id"]) for row in found) == sorted(unique)


def test_a_malformed_message_is_pointed_at_each_time(spine: SqliteSpine, store: PaimonStore) -> None:
    publish(spine, [trade("BTC-USD", 1, START)])
    spine.publish({Partition("trades", 1): [b"rubbish"]})
    running = opened(spine, store)
    for _ in range(2):
        with pytest.raises(MalformedMessageError) as raised:
            running.step()
        assert (raised.value.partition, raised.value.offset) == (Partition("trades", 1), 0)


def test_another_log_is_refused(spine: SqliteSpine, store: PaimonStore, tmp_path: Any) -> None:
    publish(spine, market(6, 100))
    opened(spine, store).step()
    with SqliteSpine.open(tmp_path / "other.db") as other, pytest.raises(OffsetAheadError):
        opened(other, store).step()


def test_a_damaged_state_is_refused(spine: SqliteSpine, store: PaimonStore) -> None:
    store.upsert(CANDLES_1M, CANDLES_1M.schema.empty_table(), properties={STATE: "rubbish"})
    with pytest.raises(StateError, match="roll the table back"):
        opened(spine, store)


def test_a_candle_computed_by_hand(spine: SqliteSpine, store: PaimonStore) -> None:
    (recorded,) = publish(spine, [trade("BTC-USD", 1, START + 59_999_999, price=2 * 10**8, size=3 * 10**8)])
    opened(spine, store).step()
    (row,) = store.scan(CANDLES_1M).to_pylist()
    assert row["start"] == datetime(2025, 11, 19, 23, 59, tzinfo=UTC)
    assert (row["open"], row["volume"], row["quote_volume"]) == (2, 3, 6)
    assert (row["taker_buy_volume"], row["taker_sell_volume"], row["exchange"]) == (3, 0, "coinbase")
    assert row["recorded_at"].timestamp() == pytest.approx(recorded["recorded_us"] / 1e6, abs=1e-6)
