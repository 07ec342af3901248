"""Books and quotes: the exchanges' own rules for keeping a book, and what is made of it."""

import json
from typing import Any

import numpy as np
from feed_frames import START_US, Published, l2update, new_handler, snapshot, take, ticker

from lakehouse.market.book import BookKind
from lakehouse.market.quote import NO_IMBALANCE, QUOTE_RECORD
from lakehouse.market.time import DAY_US
from lakehouse.market.trade import Source
from streaming.exchanges.binance import Binance
from streaming.feed.handler import FeedHandler, ResyncBook

binance = Binance("ws://127.0.0.1", "http://127.0.0.1", ["BTC-USDT", "ETH-USDT"])


def binance_handler() -> FeedHandler:
    return FeedHandler(
        binance, products=None, partitions=3, source=Source.FEED, states={}, lateness_minutes=10
    )


def diff(
    first: int,
    last: int,
    bid: str = "100",
    size: str = "1",
    symbol: str = "BTCUSDT",
    event_us: int = START_US,
) -> str:
    data = {"e": "depthUpdate", "E": event_us // 1000, "s": symbol, "U": first, "u": last, "b": [[bid, size]]}
    return json.dumps({"stream": f"{symbol.lower()}@depth@100ms", "data": data | {"a": [["200", "1"]]}})


def rest_snapshot(last: int) -> str:
    return json.dumps({"lastUpdateId": last, "bids": [["99", "1"]], "asks": [["201", "1"]]})


def book_ticker(update: int, bid: str, symbol: str = "BTCUSDT") -> str:
    data = {"u": update, "s": symbol, "b": bid, "B": "1", "a": "200", "A": "1"}
    return json.dumps({"stream": f"{symbol.lower()}@bookTicker", "data": data})


def feed(handler: FeedHandler, *frames: str) -> Published:
    handler.handle([(frame, START_US) for frame in frames])
    return take(handler)


def quotes(published: Published) -> Any:
    return np.frombuffer(b"".join(published.quotes), QUOTE_RECORD)


def update_ids(published: Published) -> list[tuple[BookKind, int]]:
    return [(header["kind"], header["last_update_id"]) for header, _ in published.books]


def test_a_book_starts_with_the_snapshot_that_fits_the_updates_before_it() -> None:
    handler = binance_handler()
    assert update_ids(feed(handler, diff(1, 5), diff(6, 9), diff(10, 12))) == []
    assert handler.requests() == [ResyncBook("BTC-USDT")]
    published = feed(handler, rest_snapshot(7))
    assert update_ids(published) == [(BookKind.SNAPSHOT, 7), (BookKind.UPDATE, 9), (BookKind.UPDATE, 12)]
    assert handler.book("BTC-USDT").is_synchronised
    assert handler.book("BTC-USDT").book.bids() == [(100 * 10**8, 10**8), (99 * 10**8, 10**8)]
    assert handler.totals().accepted == 4


def test_a_snapshot_older_than_the_updates_is_asked_for_again() -> None:
    handler = binance_handler()
    feed(handler, diff(10, 12))
    handler.requests()
    assert update_ids(feed(handler, rest_snapshot(8))) == []
    assert handler.requests() == [ResyncBook("BTC-USDT")]
    assert update_ids(feed(handler, rest_snapshot(9))) == [(BookKind.SNAPSHOT, 9), (BookKind.UPDATE, 12)]


def test_a_break_starts_only_this_products_book_anew() -> None:
    handler = binance_handler()
    feed(handler, diff(1, 5), rest_snapshot(5), diff(1, 5, symbol="ETHUSDT"), rest_snapshot(5))
    handler.requests()
    assert handler.book("ETH-USDT").is_synchronised
    published = feed(handler, diff(8, 9), diff(6, 7, symbol="ETHUSDT"))
    assert handler.requests() == [ResyncBook("BTC-USDT")]
    assert not handler.book("BTC-USDT").is_synchronised
    assert handler.book("ETH-USDT").is_synchronised
    assert update_ids(published) == [(BookKind.UPDATE, 7)]
    assert update_ids(feed(handler, rest_snapshot(8))) == [(BookKind.SNAPSHOT, 8), (BookKind.UPDATE, 9)]


def test_a_known_update_is_a_duplicate() -> None:
    handler = binance_handler()
    feed(handler, diff(1, 5), rest_snapshot(5), diff(6, 7))
    assert update_ids(feed(handler, diff(6, 7), rest_snapshot(6))) == []
    assert handler.totals().duplicates == 2


def test_updates_that_never_got_a_snapshot_are_in_the_log_at_the_end() -> None:
    handler = binance_handler()
    assert update_ids(feed(handler, diff(1, 5), diff(6, 7))) == []
    handler.finish(START_US)
    assert update_ids(take(handler)) == [(BookKind.UPDATE, 5), (BookKind.UPDATE, 7)]


def test_a_nameless_snapshot_that_fits_two_products_is_refused() -> None:
    handler = binance_handler()
    published = feed(handler, diff(1, 5), diff(1, 5, symbol="ETHUSDT"), rest_snapshot(5))
    assert "fits the updates of 2" in published.refused[0].detail
    assert update_ids(feed(handler, diff(50, 60, symbol="ETHUSDT"))) == []
    assert handler.totals().unaccounted == 0


def test_a_nameless_snapshot_goes_to_the_product_among_whose_updates_it_lies() -> None:
    handler = binance_handler()
    feed(handler, diff(1, 5), diff(6, 9), diff(1001, 1005, symbol="ETHUSDT"), rest_snapshot(1003))
    assert handler.book("ETH-USDT").is_synchronised
    assert not handler.book("BTC-USDT").is_synchronised
    feed(handler, rest_snapshot(6))
    assert handler.book("BTC-USDT").is_synchronised


def test_a_ticker_counts_only_where_it_is_newer_than_the_book() -> None:
    handler = binance_handler()
    (row,) = quotes(feed(handler, book_ticker(3, "100")))
    assert (row["source"], row["imbalance"], row["update_id"]) == (Source.TICKER, NO_IMBALANCE, 3)
    assert row["event_us"] == START_US
    rows = quotes(feed(handler, diff(1, 5), rest_snapshot(5), book_ticker(4, "99"), book_ticker(5, "98")))
    assert rows["source"].tolist() == [Source.BOOK]
    (row,) = quotes(feed(handler, book_ticker(8, "98")))
    assert (row["source"], row["bid"]) == (Source.TICKER, 98 * 10**8)
    assert handler.totals().duplicates == 0
    feed(handler, book_ticker(8, "98"))
    assert handler.totals().duplicates == 1


def test_quotes_of_a_synchronised_book_come_from_it() -> None:
    handler = new_handler()
    published = feed(
        handler,
        snapshot({"100": "1", "99": "1"}, {"101": "2"}),
        ticker(1, "50", "60"),
        l2update(("buy", "98", "0")),  # not there: nothing changes
        l2update(("buy", "99", "2")),  # only the imbalance changes
        l2update(("buy", "100", "0"), ("sell", "101", "0"), ("sell", "102", "3")),
    )
    rows = quotes(published)
    assert rows["source"].tolist() == [Source.BOOK] * 3
    assert rows["bid"].tolist() == [100 * 10**8, 100 * 10**8, 99 * 10**8]
    assert rows["ask"].tolist() == [101 * 10**8, 101 * 10**8, 102 * 10**8]
    assert rows["imbalance"].tolist() == [0, 20_000_000, -20_000_000]
    assert [header["kind"] for header, _ in published.books] == [BookKind.SNAPSHOT] + [BookKind.UPDATE] * 3
    assert handler.totals().accepted == 5


def test_a_crossed_book_gives_no_quote_and_is_asked_for_again() -> None:
    handler = new_handler()
    published = feed(handler, snapshot({"100": "1"}, {"101": "2"}), l2update(("buy", "102", "1")))
    assert len(quotes(published)) == 1
    assert handler.requests() == [ResyncBook("BTC-USD")]
    (row,) = quotes(feed(handler, ticker(9, "102", "103")))
    assert row["source"] == Source.TICKER
    (row,) = quotes(feed(handler, snapshot({"102": "1"}, {"103": "2"})))
    assert row["source"] == Source.BOOK


def test_after_a_lost_connection_an_unnumbered_book_waits_for_its_snapshot() -> None:
    handler = new_handler()
    feed(handler, snapshot({"100": "1"}, {"101": "2"}))
    handler.disconnected()
    published = feed(handler, l2update(("buy", "100.5", "1")))
    assert len(published.books) == 1
    assert len(quotes(published)) == 0


NEXT_DAY_US = (START_US // DAY_US + 1) * DAY_US


def test_a_day_begins_with_the_whole_book() -> None:
    handler = new_handler()
    feed(handler, snapshot({"100": "1", "99": "2"}, {"101": "1"}), l2update(("buy", "100", "3")))
    late = NEXT_DAY_US + 7
    frames = [l2update(("buy", "98", "4"), event_us=late), l2update(("sell", "101", "2"), event_us=late)]
    handler.handle([(frame, late + 5) for frame in frames])
    published = take(handler)
    (whole, levels), *updates = published.books
    assert (whole["kind"], whole["event_us"], whole["received_us"]) == (
        BookKind.SNAPSHOT,
        NEXT_DAY_US,
        late + 5,
    )
    assert [(side.name, price // 10**8, size // 10**8) for side, price, size in levels] == [
        ("BID", 100, 3),
        ("BID", 99, 2),
        ("ASK", 101, 1),
    ]
    assert [header["kind"] for header, _ in updates] == [BookKind.UPDATE] * 2
    assert handler.totals().received == 4  # what we add ourselves is no input


def test_a_numbered_book_begins_its_day_with_the_update_that_it_had_reached() -> None:
    handler = binance_handler()
    feed(handler, diff(1, 5), rest_snapshot(5))
    handler.handle([(diff(6, 9, event_us=NEXT_DAY_US), NEXT_DAY_US + 5)])
    assert update_ids(take(handler)) == [(BookKind.SNAPSHOT, 5), (BookKind.UPDATE, 9)]


def test_a_day_that_begins_while_the_book_is_not_known_begins_with_the_exchanges_snapshot() -> None:
    handler = binance_handler()
    feed(handler, diff(1, 5), rest_snapshot(5))
    handler.handle([(diff(8, 9, event_us=NEXT_DAY_US), NEXT_DAY_US + 5)])
    assert update_ids(take(handler)) == []
    handler.handle([(rest_snapshot(8), NEXT_DAY_US + 6)])
    assert update_ids(take(handler)) == [(BookKind.SNAPSHOT, 8), (BookKind.UPDATE, 9)]
