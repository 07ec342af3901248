from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.home import Home, LastRun
from lakehouse.settings import USD_PRODUCTS, USDT_PRODUCTS, load_settings
from lakehouse_assets.partitions import (
    ACCELERATED_DAYS,
    MOST_PARTITIONS,
    first_day,
    parsed,
    product_day_key,
    product_days,
    products,
    with_last_run,
)


@given(st.integers(1, 60), st.dates(date(2025, 1, 1), date(2060, 1, 1)))
def test_partitions_stay_few_enough_and_always_hold_this_year(count: int, today: date) -> None:
    start = first_day(count, today)
    assert (start.month, start.day) == (1, 1)
    assert start <= today
    assert (date(today.year + 1, 1, 1) - start).days * count <= MOST_PARTITIONS
    assert first_day(count, date(today.year, 12, 31)) == start


def test_keys_name_the_day_first() -> None:
    key = product_day_key("BTC-USD", date(2025, 6, 10))
    assert str(key) == "2025-06-10|BTC-USD"
    assert parsed(key) == ("BTC-USD", date(2025, 6, 10))


def test_today_has_a_partition_and_tomorrow_has_none() -> None:
    settings = load_settings(products="BTC-USD", feed="simulated")
    today = datetime.now(UTC).date()
    partitions = product_days(settings)
    assert partitions.has_partition_key(product_day_key("BTC-USD", today))
    tomorrow = date.fromordinal(today.toordinal() + 1)
    assert not partitions.has_partition_key(product_day_key("BTC-USD", tomorrow))
    fast = product_days(load_settings(products="BTC-USD", feed="simulated", simulated_speed=1000))
    assert fast.has_partition_key(product_day_key("BTC-USD", tomorrow))
    last = date.fromordinal(today.toordinal() + ACCELERATED_DAYS)
    assert fast.has_partition_key(product_day_key("BTC-USD", last))


@pytest.mark.parametrize(("feed", "expected"), [("coinbase", USD_PRODUCTS), ("binance", USDT_PRODUCTS)])
def test_a_live_feed_has_the_products_of_the_settings(feed: str, expected: tuple[str, ...]) -> None:
    assert products(load_settings(feed=feed)) == expected


def test_a_recordings_products_are_those_of_its_run(tmp_path: Path) -> None:
    feed = "recording:day.jsonl.zst"
    settings = load_settings(home=tmp_path, feed=feed)
    assert products(settings) == USD_PRODUCTS + USDT_PRODUCTS
    Home(tmp_path, "market").create().remember(LastRun(feed, "market", ("BTC-USDT",)))
    assert products(settings) == ("BTC-USDT",)
    assert products(load_settings(home=tmp_path, feed="recording:other.zst")) == USD_PRODUCTS + USDT_PRODUCTS


def test_without_a_feed_set_it_is_the_last_run_that_counts(tmp_path: Path) -> None:
    Home(tmp_path, "market").create().remember(LastRun("coinbase", "market", ("BTC-USD", "ETH-USD")))
    settings = with_last_run(load_settings(home=tmp_path))
    assert settings.feed == "coinbase"
    assert products(settings) == ("BTC-USD", "ETH-USD")
    assert with_last_run(load_settings(home=tmp_path, feed="binance")).feed == "binance"
