"""The current states equal what the hot store in SQLite shows, and never go back."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_messages import PRODUCTS, START, market, publish, quote_message

from lakehouse.stores.hot import HotStore
from lakehouse.stores.hot_store import LATEST
from streaming.engines.embedded.hot import HotStage
from streaming.engines.fluss.bridge import rows_of
from streaming.engines.fluss.current import CurrentStates
from streaming.spine.contract import Partition, partition_number
from streaming.spine.sqlite import SqliteSpine
from streaming.spine.topics import QUOTES, TRADES


def filled(folder: Path, seed: int) -> SqliteSpine:
    spine = SqliteSpine.open(folder / "spine.db")
    trades = market(seed, 120)
    for at in range(0, len(trades), 30):
        publish(spine, trades[at : at + 30])
        for number, product in enumerate(PRODUCTS[: 1 + at // 30]):
            partition = Partition(QUOTES, partition_number(product, spine.partitions))
            imbalance = None if at % 60 else 5 * number
            message = quote_message(product, 100 + at, 104 + at + number, START - at * number, imbalance)
            spine.publish({partition: [message]})
    return spine


def tables(spine: SqliteSpine, topic: str, first: int, last: int) -> pa.Table | None:
    parts = []
    for number in range(spine.partitions):
        batch = spine.read(Partition(topic, number), first, last - first)
        if batch.payloads:
            parts.append(rows_of(batch, Partition(topic, number)))
    return pa.concat_tables(parts) if parts else None


def shown(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=LATEST).sort_by("product")


@given(st.integers(0, 100), st.lists(st.integers(0, 60), max_size=4))
def test_rows_that_come_again_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int, restarts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    with filled(folder, seed) as spine, HotStore.open(folder / "hot.db") as store:
        HotStage(spine, store).step()
        states = CurrentStates()
        for position in (*restarts, 0):
            ends = {
                topic: max(spine.end(Partition(topic, n)) for n in range(3)) for topic in (TRADES, QUOTES)
            }
            states.take(tables(spine, TRADES, 0, ends[TRADES]), tables(spine, QUOTES, 0, ends[QUOTES]))
            states.take(tables(spine, TRADES, 0, position), None)
        assert shown(states.all()).equals(store.latest())
        assert states.newest_us().keys() == store.newest_us().keys()


def test_only_what_changed_is_told(tmp_path: Path) -> None:
    with filled(tmp_path, 3) as spine:
        states = CurrentStates()
        trades, quotes = tables(spine, TRADES, 0, 500), tables(spine, QUOTES, 0, 500)
        assert {row["product"] for row in states.take(trades, quotes)} == set(PRODUCTS)
        assert states.take(trades, None) == []


def test_a_new_process_learns_from_the_table(tmp_path: Path) -> None:
    with filled(tmp_path, 4) as spine:
        states, again = CurrentStates(), CurrentStates()
        states.take(tables(spine, TRADES, 0, 500), tables(spine, QUOTES, 0, 500))
        again.learn(shown(states.all()))
        assert again.take(tables(spine, TRADES, 0, 10), None) == []
        assert shown(again.all()).equals(shown(states.all()))
        stale = CurrentStates()
        stale.take(tables(spine, TRADES, 0, 5), None)
        states.learn(shown(stale.all()))
        assert shown(states.all()).equals(shown(again.all()))
