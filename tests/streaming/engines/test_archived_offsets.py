"""What the archive holds of the log: asked of real tables that were filled in any order."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_messages import START, publish, quote_message, trade

from lakehouse.home import Home
from lakehouse.market.book import BookKind, pack_book
from lakehouse.market.trade import Exchange
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.iceberg_files import read_files
from lakehouse.stores.schemas import BOOK, QUOTES, TRADES, Table
from streaming.engines import archived_offsets
from streaming.engines.archived_offsets import ArchivedOffsets
from streaming.engines.embedded.decode import ROWS
from streaming.sealing.day import seal_day
from streaming.spine.contract import Batch, OffsetAheadError, Partition, Spine
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import BRIDGE

DAY = datetime.fromtimestamp(START / 1e6, UTC).date()
PRODUCT = "BTC-USD"


@pytest.fixture
def spine(home: Home) -> Iterator[SqliteSpine]:
    with SqliteSpine.open(home.spine, 1) as opened:
        yield opened


@pytest.fixture
def store(home: Home) -> Iterator[IcebergStore]:
    with IcebergStore.open(home) as opened:
        yield opened


def at(topic: str) -> Partition:
    return Partition(topic, 0)


def rows_of(spine: Spine, topic: str, offsets: Iterable[int]) -> pa.Table:
    """The rows of some messages, as the bridge and Flink hand them on."""
    table, to_rows = ROWS[topic]
    made = [to_rows(spine.read(at(topic), offset, 1), at(topic)) for offset in offsets]
    return pa.concat_tables([*made, table.schema.empty_table()])


def archive(store: IcebergStore, spine: Spine, topic: str, offsets: Iterable[int]) -> None:
    store.append(ROWS[topic][0], rows_of(spine, topic, offsets))


def publish_trades(spine: Spine, ids: Sequence[int], product: str = PRODUCT) -> None:
    for number in ids:
        publish(spine, [trade(product, number, START + number)])


def book(levels: int) -> bytes:
    return pack_book(
        product=PRODUCT,
        kind=BookKind.UPDATE,
        exchange=Exchange.COINBASE,
        event_us=START,
        received_us=START,
        first_update_id=0,
        last_update_id=0,
        bids=[(100 - level, 1) for level in range(levels)],
        asks=[],
    )


def test_an_empty_archive_holds_nothing(spine: SqliteSpine, store: IcebergStore) -> None:
    publish_trades(spine, range(5))
    archived = ArchivedOffsets(store, spine)
    archived.refresh()
    assert archived.frontier(at("trades")) == 0
    assert archived.holes(at("trades"), 5) == [(0, 4)]
    assert (archived.frontier(at("quotes")), archived.holes(at("quotes"), 0)) == (0, [])


def test_holes_close_as_the_archive_fills_and_each_file_is_read_once(
    spine: SqliteSpine, store: IcebergStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_trades(spine, range(12))
    archived = ArchivedOffsets(store, spine)
    read: list[str] = []

    def counting(
        table: Table, ids: Mapping[str, int], paths: Sequence[str], columns: Sequence[str], product: None
    ) -> pa.Table:
        if "spine_offset" in columns:
            read.extend(paths)
        return read_files(table, ids, paths, columns, product)

    monkeypatch.setattr(archived_offsets, "read_files", counting)
    archive(store, spine, "trades", [0, 1, 4])
    archived.refresh()
    assert (archived.frontier(at("trades")), archived.holes(at("trades"), 6)) == (2, [(2, 3), (5, 5)])
    archive(store, spine, "trades", [3, 8])
    archived.refresh()
    assert (archived.frontier(at("trades")), archived.holes(at("trades"), 12)) == (
        2,
        [(2, 2), (5, 7), (9, 11)],
    )
    archive(store, spine, "trades", [2, 5, 6, 7, 9, 10, 11])
    archived.refresh()
    archived.refresh()
    assert (archived.frontier(at("trades")), archived.holes(at("trades"), 12)) == (12, [])
    in_tables = {file.file_path for file in store.data_files(TRADES)}
    assert {path: read.count(path) for path in in_tables} == dict.fromkeys(in_tables, 1)


def test_nothing_is_read_again_after_compaction_and_sealing(
    spine: SqliteSpine, store: IcebergStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_trades(spine, range(10))
    archived = ArchivedOffsets(store, spine)
    for offset in range(0, 8, 2):
        archive(store, spine, "trades", [offset, offset + 1])
    archived.refresh()
    monkeypatch.setattr(archived_offsets, "read_files", None)
    assert store.compact(TRADES, fan_in=2).merged == 4
    archived.refresh()
    asyncio.run(seal_day(store, None, PRODUCT, DAY))
    archived.refresh()
    assert archived.holes(at("trades"), 8) == []
    monkeypatch.undo()
    archive(store, spine, "trades", [9])
    archived.refresh()
    assert archived.frontier(at("trades")) == 8
    assert archived.holes(at("trades"), 10) == [(8, 8)]


def test_a_new_one_finds_the_same_after_compaction_and_sealing(
    spine: SqliteSpine, store: IcebergStore
) -> None:
    publish_trades(spine, range(10))
    for offsets in ([0, 1], [2, 3], [6], [8]):
        archive(store, spine, "trades", offsets)
    spine.commit(BRIDGE, {at("trades"): 2})
    store.compact(TRADES, fan_in=2)
    asyncio.run(seal_day(store, None, PRODUCT, DAY))
    archived = ArchivedOffsets(store, spine)
    archived.refresh()
    assert archived.frontier(at("trades")) == 4
    assert archived.holes(at("trades"), 10) == [(4, 5), (7, 7), (9, 9)]


def test_what_was_committed_is_held_and_not_looked_at(
    spine: SqliteSpine, store: IcebergStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_trades(spine, range(6))
    archive(store, spine, "trades", [1, 2])
    spine.commit(BRIDGE, {at("trades"): 4})
    monkeypatch.setattr(archived_offsets, "read_files", None)
    archived = ArchivedOffsets(store, spine)
    archived.refresh()
    assert archived.frontier(at("trades")) == 4
    assert archived.holes(at("trades"), 6) == [(4, 5)]


def test_a_trade_is_held_by_its_id_whichever_message_brought_it(
    spine: SqliteSpine, store: IcebergStore
) -> None:
    publish_trades(spine, [1, 2, 3, 2, 1, 4, 3])
    archived = ArchivedOffsets(store, spine)
    archive(store, spine, "trades", [0, 1])
    archived.refresh()
    assert archived.frontier(at("trades")) == 2
    archive(store, spine, "trades", [5, 6])  # of trade 3 the repeated message came through
    archived.refresh()
    assert archived.frontier(at("trades")) == 7
    assert archived.holes(at("trades"), 7) == []


def test_the_same_id_of_another_product_holds_nothing(spine: SqliteSpine, store: IcebergStore) -> None:
    publish_trades(spine, [7], "ETH-USD")
    publish_trades(spine, [7])
    archive(store, spine, "trades", [0])
    archived = ArchivedOffsets(store, spine)
    archived.refresh()
    assert archived.frontier(at("trades")) == 1
    assert archived.holes(at("trades"), 2) == [(1, 1)]


def test_a_backfilled_trade_is_held_though_it_has_no_offset(spine: SqliteSpine, store: IcebergStore) -> None:
    publish_trades(spine, [1, 2, 3])
    archive(store, spine, "trades", [0, 2])
    archived = ArchivedOffsets(store, spine)
    archived.refresh()
    assert archived.frontier(at("trades")) == 1
    backfilled = rows_of(spine, "trades", [1])
    for name in ("spine_partition", "spine_offset"):
        position = backfilled.schema.get_field_index(name)
        field = backfilled.schema.field(name)
        backfilled = backfilled.set_column(position, field, pa.array([-1], field.type))
    store.append(TRADES, backfilled)
    archived.refresh()
    assert (archived.frontier(at("trades")), archived.holes(at("trades"), 3)) == (3, [])


def test_a_quote_is_held_by_nothing_but_its_row(spine: SqliteSpine, store: IcebergStore) -> None:
    spine.publish({at("quotes"): [quote_message(PRODUCT, 100, 101, START + n) for n in range(3)]})
    archive(store, spine, "quotes", [0, 2])
    archived = ArchivedOffsets(store, spine)
    archived.refresh()
    assert (archived.frontier(at("quotes")), archived.holes(at("quotes"), 3)) == (1, [(1, 1)])
    assert store.scan(QUOTES).num_rows == 2


def test_a_book_message_is_held_with_all_its_levels_or_with_none_to_hold(
    spine: SqliteSpine, store: IcebergStore
) -> None:
    spine.publish({at("book"): [book(3), book(0), book(2), book(4), book(0)]})
    whole = rows_of(spine, "book", range(5))
    level_of = list(zip(whole["spine_offset"].to_pylist(), whole["level"].to_pylist(), strict=True))

    def bring(*wanted: tuple[int, int]) -> None:
        store.append(BOOK, whole.filter(pa.array([one in wanted for one in level_of])))

    archived = ArchivedOffsets(store, spine)
    bring((0, 0), (0, 1), (3, 3), (3, 2))
    archived.refresh()
    assert archived.frontier(at("book")) == 0
    assert archived.holes(at("book"), 5) == [(0, 0), (2, 3)]
    bring((0, 2), (0, 1), (2, 0), (2, 1))
    archived.refresh()
    assert archived.frontier(at("book")) == 3
    assert archived.holes(at("book"), 5) == [(3, 3)]
    bring((3, 0), (3, 1))
    archived.refresh()
    assert (archived.frontier(at("book")), archived.holes(at("book"), 5)) == (5, [])


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    trades=st.lists(
        st.tuples(st.sampled_from([PRODUCT, "ETH-USD"]), st.integers(1, 15)), min_size=1, max_size=40
    ),
    data=st.data(),
)
def test_it_agrees_with_a_look_at_every_row(trades: list[tuple[str, int]], data: st.DataObject) -> None:
    everything = list(range(len(trades)))
    with TemporaryDirectory() as folder:
        home = Home(Path(folder), "simulated").create()
        with SqliteSpine.open(home.spine, 1) as spine, IcebergStore.open(home) as store:
            for product, number in trades:
                publish(spine, [trade(product, number, START + number)])
            committed = data.draw(st.integers(0, len(trades)), "committed")
            spine.commit(BRIDGE, {at("trades"): committed})
            archived = ArchivedOffsets(store, spine)
            there: set[int] = set()
            for _ in range(data.draw(st.integers(1, 4), "commits")):
                some = data.draw(st.sets(st.sampled_from(everything)), "archived")
                archive(store, spine, "trades", sorted(some - there))
                there |= some
                if data.draw(st.booleans(), "compacted"):
                    store.compact(TRADES, fan_in=2)
                if data.draw(st.booleans(), "restarted"):
                    archived = ArchivedOffsets(store, spine)
                archived.refresh()
                known = {trades[offset] for offset in there}
                lacking = [o for o in everything if o >= committed and trades[o] not in known]
                found = archived.holes(at("trades"), len(trades))
                assert [o for first, last in found for o in range(first, last + 1)] == lacking
                assert archived.frontier(at("trades")) == (lacking[0] if lacking else len(trades))


def test_the_holes_of_a_stretch_share_a_look_at_the_log(
    spine: SqliteSpine, store: IcebergStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_trades(spine, [number // 2 for number in range(120)])  # each trade twice
    archive(store, spine, "trades", range(0, 120, 2))
    archived = ArchivedOffsets(store, spine)
    archived.refresh()
    looks: list[int] = []
    real = SqliteSpine.read

    def counting(self: SqliteSpine, partition: Partition, offset: int, limit: int) -> Batch:
        looks.append(offset)
        return real(self, partition, offset, limit)

    monkeypatch.setattr(SqliteSpine, "read", counting)
    assert archived.holes(at("trades"), 120) == []
    assert len(looks) == 1
    assert archived.frontier(at("trades")) == 120
    assert len(looks) == 1


def test_a_long_range_is_looked_into_as_far_as_needed(
    spine: SqliteSpine, store: IcebergStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archived_offsets, "LOOK_AT", 4)
    publish_trades(spine, [*range(20), *range(20), 50])
    archive(store, spine, "trades", range(20))
    archived = ArchivedOffsets(store, spine)
    archived.refresh()
    assert archived.frontier(at("trades")) == 40
    assert archived.holes(at("trades"), 41) == [(40, 40)]


@pytest.mark.parametrize("topic", ["trades", "book"])
def test_a_log_that_ends_before_what_came_from_it_is_told(
    spine: SqliteSpine, store: IcebergStore, tmp_path: Path, topic: str
) -> None:
    publish_trades(spine, range(5))
    spine.publish({at("book"): [book(2)] * 5})
    archive(store, spine, topic, range(5))
    with SqliteSpine.open(tmp_path / "another.db", 1) as another:
        publish_trades(another, range(4))
        another.publish({at("book"): [book(2)] * 4})
        archived = ArchivedOffsets(store, another)
        with pytest.raises(OffsetAheadError, match=f"{topic}/0 ends at offset 4, but 5 was reached before"):
            archived.refresh()


def test_what_is_reached_is_what_the_last_of_the_products_came_to(
    spine: SqliteSpine, store: IcebergStore
) -> None:
    for number in range(1, 11):
        publish_trades(spine, [number], "BTC-USD")
        publish_trades(spine, [number], "ETH-USD")
    archived = ArchivedOffsets(store, spine)
    assert archived.reached(at("trades")) == 0
    archive(store, spine, "trades", range(0, 20, 2))
    archive(store, spine, "trades", (1, 3, 7))
    archived.refresh()
    assert archived.reached(at("trades")) == 7
    assert archived.holes(at("trades"), 10) == [(5, 5), (9, 9)]
    assert archived.reached(at("quotes")) == 0
