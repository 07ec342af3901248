"""Both readers of Fluss show what the hot store in SQLite shows that was fed with the same log."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bridge_world import (
    TABLETS,
    FlussSide,
    bridge,
    fluss_side,
    own_tables,
    publish_market,
    publish_numbered,
    push_all,
    push_patiently,
)
from log_messages import PRODUCTS, START
from running_cluster import RunningCluster

from lakehouse.home import Home
from lakehouse.market.product import InvalidProductError
from lakehouse.stores.fluss_connection import FlussTarget, FlussUnavailableError
from lakehouse.stores.fluss_hot import FlussHotStore
from lakehouse.stores.fluss_model import FlussHotModel
from lakehouse.stores.hot import HotStore
from lakehouse.stores.hot_store import HotReader
from streaming.engines.embedded.hot import HotStage
from streaming.spine.sqlite import SqliteSpine


@pytest.fixture
def target(cluster: RunningCluster, tmp_path: Path) -> Iterator[FlussTarget]:
    with own_tables(cluster, tmp_path) as made:
        yield made


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, "simulated").create()


@pytest.fixture
def spine(home: Home) -> Iterator[SqliteSpine]:
    with SqliteSpine.open(home.spine) as opened:
        yield opened


@pytest.fixture
def side(target: FlussTarget) -> Iterator[FlussSide]:
    with fluss_side(target) as made:
        yield made


def wait_until(reached: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.05)


def same(reader: HotReader, store: HotReader) -> bool:
    shown = [reader.latest(), *(reader.recent(product) for product in PRODUCTS)]
    wanted = [store.latest(), *(store.recent(product) for product in PRODUCTS)]
    return all(one.equals(other) for one, other in zip(shown, wanted, strict=True))


def test_both_readers_show_what_the_sqlite_store_shows(
    target: FlussTarget, home: Home, spine: SqliteSpine, side: FlussSide
) -> None:
    publish_market(spine, 1)
    stage = bridge(spine, target, side)
    push_all(stage)
    with (
        HotStore.open(home.hot_store, window_minutes=4) as store,
        FlussHotStore.open(target, window_minutes=4) as once,
        FlussHotModel.open(target, window_minutes=4) as model,
    ):
        hot = HotStage(spine, store)
        hot.step()
        assert store.latest().num_rows == len(PRODUCTS)
        wait_until(lambda: same(once, store) and same(model, store), 10)
        publish_market(spine, 2)  # other trades under many of the same ids, newer quotes
        hot.step()
        push_all(stage)
        wait_until(lambda: same(once, store) and same(model, store), 10)
        assert model.newest_us() == store.newest_us()
        since_us = START + 5 * 60_000_000
        for product in PRODUCTS:
            wanted = store.recent(product, since_us=since_us)
            assert 0 < wanted.num_rows < store.recent(product).num_rows
            assert once.recent(product, since_us=since_us).equals(wanted)
            assert model.recent(product, since_us=since_us).equals(wanted)


def test_an_empty_store_and_unknown_products(target: FlussTarget) -> None:
    with FlussHotStore.open(target) as once, FlussHotModel.open(target) as model:
        for reader in (once, model):
            assert reader.latest().num_rows == 0
            assert reader.recent("BTC-USD").num_rows == 0
            assert reader.newest_us() == {}
            with pytest.raises(InvalidProductError):
                reader.recent("BTC-USD' OR '1")


def test_rows_that_are_pushed_again_show_nothing_twice(
    target: FlussTarget, home: Home, spine: SqliteSpine, side: FlussSide
) -> None:
    publish_market(spine, 3)
    push_all(bridge(spine, target, side))
    with HotStore.open(home.hot_store) as store, FlussHotModel.open(target) as model:
        HotStage(spine, store).step()
        newest = model.newest_us()
        again = bridge(spine, target, side)  # nothing was archived: it begins at the beginning
        push_all(again)
        publish_numbered(spine, 0, 1)
        assert again.step().messages == {"trades": 1}
        HotStage(spine, store).step()
        with FlussHotStore.open(target) as once:
            wait_until(lambda: same(once, store) and same(model, store), 10)
        assert model.newest_us() == newest


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_model_follows_again_after_a_tablet_server_died(
    cluster: RunningCluster, target: FlussTarget, spine: SqliteSpine, side: FlussSide
) -> None:
    publish_numbered(spine, 0, 3_000)
    target = replace(target, timeout_seconds=5.0)
    stage = bridge(spine, target, side)
    push_patiently(stage, 60)
    with FlussHotModel.open(target) as model:
        for number, tablet in enumerate(TABLETS):
            cluster.kill(tablet)
            publish_numbered(spine, 3_000 + number * 300, 300)
            cluster.start(tablet)
            push_patiently(stage, 60)
            wanted = 1_000 + (number + 1) * 100
            wait_until(lambda wanted=wanted: _shows(model, wanted), 90)  # type: ignore[misc]


def _shows(model: FlussHotModel, trades: int) -> bool:
    """Tell whether all trades are there; while it can't follow for too long, it must say so instead."""
    try:
        counts = {model.recent(product).num_rows for product in PRODUCTS}
        return counts == {trades} and set(model.latest()["trade_id"].to_pylist()) == {trades}
    except FlussUnavailableError:
        return False
