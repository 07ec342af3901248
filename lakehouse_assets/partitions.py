"""The partitions that assets share: product × day for market data. Keys read `2026-11-20|BTC-USD`."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Final

import dagster as dg

from lakehouse.home import last_run
from lakehouse.settings import USD_PRODUCTS, USDT_PRODUCTS, Settings

MOST_PARTITIONS: Final = 24_000
"""Dagster's pages and daemon slow down above about 25,000 partitions of an asset."""

CAUSE: Final = "lakehouse/cause"
"""Run tag that says why a run exists. One that a person launched has none: it has Dagster's own tags of a
backfill, with its title, or none at all."""

ACCELERATED_DAYS: Final = 60
"""How far ahead of today an accelerated simulation's days have partitions."""

MOST_TRADES: Final = 2_000_000
"""Trades of a batch of product-days: what is read, checked and committed together."""

MOST_DAYS: Final = 250
"""Product-days of a batch."""

_EARLIEST_YEAR: Final = 2015


def with_last_run(settings: Settings) -> Settings:
    """Return the settings of what a person is working with: of the last run, where no feed is set."""
    if "feed" in settings.model_fields_set:
        return settings
    run = last_run(settings.home.absolute())
    if run is None:
        return settings
    return settings.model_copy(update={"feed": run.feed, "products": settings.products or run.products})


def products(settings: Settings) -> tuple[str, ...]:
    """Return the products that partitions are for: those set, those of the last run, or the usual ones.

    A recording's products are known once it was run; until then all usual ones are offered.
    """
    if settings.recording is None:
        return settings.chosen_products
    run = last_run(settings.home.absolute())
    remembered = run.products if run is not None and run.feed == settings.feed else ()
    return settings.products or remembered or USD_PRODUCTS + USDT_PRODUCTS


def first_day(count: int, today: date) -> date:
    """Return the day that partitions of `count` products start at.

    The earliest New Year from which all days until the end of this year fit `MOST_PARTITIONS`. It moves
    only at New Year, and only when history would grow too long.
    """
    end = date(today.year + 1, 1, 1)
    years = range(_EARLIEST_YEAR, today.year)
    fitting = (date(year, 1, 1) for year in years if (end - date(year, 1, 1)).days * count <= MOST_PARTITIONS)
    return next(fitting, date(today.year, 1, 1))


def product_days(settings: Settings) -> dg.MultiPartitionsDefinition:
    """Return product × day, until today (UTC): today's partition is live, the others can be sealed.

    An accelerated simulation's clock runs ahead of ours, so that its days begin before they do here.
    """
    names = products(settings)
    ahead = ACCELERATED_DAYS if settings.feed_kind == "simulated" and settings.simulated_speed > 1 else 0
    start = first_day(len(names), datetime.now(UTC).date())
    return dg.MultiPartitionsDefinition(
        {
            "product": dg.StaticPartitionsDefinition(list(names)),
            "day": dg.DailyPartitionsDefinition(start_date=start.isoformat(), end_offset=1 + ahead),
        }
    )


def product_day_key(product: str, day: date) -> dg.MultiPartitionKey:
    """Return the partition key of a product's day."""
    return dg.MultiPartitionKey({"product": product, "day": day.isoformat()})


def parsed(key: str) -> tuple[str, date]:
    """Return the product and day of a partition key; dimensions come in the order of their names."""
    day, _, product = key.partition("|")
    return product, date.fromisoformat(day)


def batches(
    keys: Iterable[str], sizes: Mapping[tuple[str, date], int], most: int, most_keys: int
) -> Iterator[list[str]]:
    """Yield partition keys of one product at a time, days ascending, in lists of bounded size.

    Args:
        keys: of product-days.
        sizes: how large a product-day is, such as its number of trades; what is not named has no size.
        most: the largest sum of sizes; a product-day that exceeds it comes alone.
        most_keys: the longest list.
    """
    batch: list[str] = []
    total = 0
    for (product, day), key in sorted((parsed(key), key) for key in keys):
        size = sizes.get((product, day), 0)
        if batch and (total + size > most or len(batch) == most_keys or parsed(batch[0])[0] != product):
            yield batch
            batch, total = [], 0
        batch.append(key)
        total += size
    if batch:
        yield batch
