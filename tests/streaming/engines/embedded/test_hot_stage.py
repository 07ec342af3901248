"""The hot stage: what the log says last is what the store shows, across restarts and power cuts."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from log_messages import START, Crash, market, publish, publish_in_batches, quote_message, trade

from lakehouse.home import Home
from lakehouse.stores.hot import HotStore
from streaming.engines.embedded import hot
from streaming.engines.embedded.decode import MalformedMessageError
from streaming.engines.embedded.hot import HotStage
from streaming.spine.contract import Partition
from streaming.spine.sqlite import SqliteSpine


@pytest.fixture
def store(home: Home) -> Iterator[HotStore]:
    with HotStore.open(home.hot_store) as opened:
        yield opened


def test_trades_and_quotes_arrive(spine: SqliteSpine, store: HotStore) -> None:
    running = HotStage(spine, store)
    assert running.step().messages == {}
    publish(spine, [trade("BTC-USD", 7, START, price=123), trade("ETH-USD", 1, START)])
    quotes = [quote_message("BTC-USD", 100, 110, START), quote_message("BTC-USD", 100, 104, START, 5)]
    spine.publish({Partition("quotes", 1): quotes})
    assert running.step().messages == {"trades": 2, "quotes": 2}
    btc, eth = store.latest().to_pylist()
    assert (btc["price"], btc["bid"], btc["mid"]) == tuple(
        map(Decimal, ("0.00000123", "0.000001", "0.00000102"))
    )
    assert btc["imbalance"] == Decimal("0.00000005")
    assert eth["bid"] is None
    assert set(running.lag().values()) == {0}
    assert running.newest_us() == {"BTC-USD": START, "ETH-USD": START}


@pytest.mark.parametrize("limit", [1, 50, 20_000])
def test_every_cut_and_restart_gives_the_same_store(
    spine: SqliteSpine, store: HotStore, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "MESSAGES_PER_PARTITION", limit)
    trades = market(1, 500)
    publish_in_batches(spine, trades, 100)
    highest: dict[str, int] = {}
    while HotStage(spine, store).step().messages:
        for row in store.latest().to_pylist():
            assert row["trade_id"] >= highest.get(row["product"], 0)
            highest[row["product"]] = row["trade_id"]
    for product in ("BTC-USD", "ETH-USD", "SOL-USD"):
        ids = {made["trade_id"] for made in trades if made["product"] == product}
        assert highest[product] == max(ids)
        assert store.recent(product)["trade_id"].to_pylist() == sorted(ids)


def test_killed_before_the_commit_it_starts_again(spine: SqliteSpine, home: Home) -> None:
    class DyingStore(HotStore):
        def _prune(self, product: str, oldest_us: int) -> None:
            raise Crash

    publish(spine, [trade("BTC-USD", 1, START)])
    with DyingStore.open(home.hot_store) as dying, pytest.raises(Crash):
        HotStage(spine, dying).step()
    with HotStore.open(home.hot_store) as store:
        assert store.latest().num_rows == 0
        assert HotStage(spine, store).step().messages["trades"] == 1
        assert store.latest()["trade_id"].to_pylist() == [1]


def test_what_the_log_dropped_is_passed_over(spine: SqliteSpine, store: HotStore) -> None:
    publish_in_batches(spine, [trade("BTC-USD", i, START + i) for i in range(1, 11)], 1)
    partition = next(p for p in HotStage(spine, store).lag() if spine.end(p) == 10)
    spine.commit("only", {partition: 8})
    assert spine.retain({"trades": ("only",)}, 0, 0) == 8
    running = HotStage(spine, store)
    running.step()
    store.apply([], [], {("trades", partition.number): 3})  # a power cut takes the newest offsets back
    thrown_back = HotStage(spine, store)
    assert thrown_back.step().messages["trades"] == 2
    assert store.recent("BTC-USD")["trade_id"].to_pylist() == [9, 10]


def test_the_log_learns_what_is_read(spine: SqliteSpine, store: HotStore) -> None:
    publish(spine, [trade("BTC-USD", 1, START)])
    running = HotStage(spine, store)
    running.step()
    running.close()
    offsets = [
        spine.committed("hot", Partition(topic, i)) for topic in ("trades", "quotes") for i in range(3)
    ]
    assert sorted(offset for offset in offsets if offset is not None) == [0, 0, 0, 0, 0, 1]


def test_a_malformed_quote_is_pointed_at(spine: SqliteSpine, store: HotStore) -> None:
    spine.publish({Partition("quotes", 2): [quote_message("BTC-USD", 1, 2, START), b""]})
    with pytest.raises(MalformedMessageError) as raised:
        HotStage(spine, store).step()
    assert (raised.value.partition, raised.value.offset) == (Partition("quotes", 2), 1)
    assert store.latest().num_rows == 0


def test_two_namespaces_share_nothing(tmp_path: Path) -> None:
    for namespace in ("market", "simulated"):
        home = Home(tmp_path, namespace).create()  # type: ignore[arg-type]
        with SqliteSpine.open(home.spine) as spine, HotStore.open(home.hot_store) as store:
            if namespace == "market":
                publish(spine, [trade("BTC-USD", 1, START)])
            HotStage(spine, store).step()
            assert store.latest().num_rows == (1 if namespace == "market" else 0)
