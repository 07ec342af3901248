"""The real Binance recording through the feed, held against computations that share no code with it."""

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from heapq import nlargest, nsmallest
from math import floor
from pathlib import Path

import numpy as np
import pytest
from feed_frames import Published, read_all

from lakehouse.home import Home
from lakehouse.market.book import BookKind, BookSide
from lakehouse.market.quote import QUOTE_RECORD
from lakehouse.market.time import DAY_US
from lakehouse.market.trade import Exchange, Source
from lakehouse.settings import load_settings
from streaming.exchanges.recording import RecordingWriter
from streaming.feed import recorded
from streaming.feed.intake import FeedTotals
from streaming.feed.sessions import SESSION
from streaming.spine.sqlite import SqliteSpine
from streaming.workers.feed import run_feed

FRAMES = 41_249


def raw_frames(market_data: Path) -> Iterator[tuple[str, int]]:
    with gzip.open(market_data / "binance-spot-btcusdt" / "btcusdt_20240808.gz", "rt") as lines:
        for line in lines:
            clock, _, frame = line.rstrip("\n").partition(" ")
            yield frame, int(clock) // 1000


@pytest.fixture(scope="module")
def recording(market_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "btcusdt.jsonl.zst"
    with RecordingWriter(path, Exchange.BINANCE) as writer:
        for frame, received_us in raw_frames(market_data):
            writer.write(frame, received_us)
    return path


def run(recording: Path, root: Path, *, stop_after: int | None = None) -> FeedTotals:
    """Feed the recording into a home; stop once that many trades are in the spine."""
    settings = load_settings(feed=f"recording:{recording}", home=root)
    home = Home(root, "market").create()

    async def feed() -> FeedTotals:
        stop = asyncio.Event()
        with SqliteSpine.open(home.spine) as spine:
            task = asyncio.create_task(run_feed(settings, home, spine, stop))
            while stop_after is not None and not task.done() and spine.end(SESSION) < stop_after:
                await asyncio.sleep(0)
            if stop_after is not None:
                stop.set()
            return await task

    return asyncio.run(feed())


def contents(root: Path) -> Published:
    with SqliteSpine.open(Home(root, "market").spine) as spine:
        return read_all(spine)


@pytest.fixture(scope="module")
def whole(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FeedTotals, Published]:
    root = tmp_path_factory.mktemp("whole")
    totals = run(recording, root)
    return totals, contents(root)


def test_every_frame_has_an_end(whole: tuple[FeedTotals, Published]) -> None:
    totals, published = whole
    assert totals.received == FRAMES
    assert totals.received == totals.accepted + totals.duplicates + totals.quarantined
    assert (totals.quarantined, totals.gaps) == (0, 0)
    assert sum(count.received for count in published.counts) == FRAMES


def test_the_trades_are_those_of_the_file(market_data: Path, whole: tuple[FeedTotals, Published]) -> None:
    expected = []
    for frame, received_us in raw_frames(market_data):
        data = json.loads(frame).get("data", {})
        if data.get("e") == "trade":
            price, size = (int(Decimal(data[key]) * 10**8) for key in "pq")
            expected.append((data["t"], price, size, data["T"] * 1000, received_us, int(data["m"])))
    records = whole[1].trades
    columns = ("trade_id", "price", "size", "event_us", "received_us", "taker_side")
    assert len(expected) == 9_757
    assert list(zip(*(records[column].tolist() for column in columns), strict=True)) == expected
    assert set(records["product"]) == {b"BTC-USDT"}
    assert set(records["source"]) == {Source.RECORDING}


def test_the_book_after_every_update_is_that_of_a_naive_replay(
    market_data: Path, whole: tuple[FeedTotals, Published]
) -> None:
    frames = [json.loads(frame) for frame, _ in raw_frames(market_data)]
    snapshot = next(frame for frame in frames if "lastUpdateId" in frame)
    updates = [frame["data"] for frame in frames if frame.get("data", {}).get("e") == "depthUpdate"]
    applied = [update for update in updates if update["u"] > snapshot["lastUpdateId"]]
    midnight = max(update["E"] for update in applied) * 1_000 // DAY_US * DAY_US
    assert applied[0]["E"] * 1_000 < midnight
    books = [one for one in whole[1].books if one[0]["event_us"] != midnight]
    ((of_midnight, whole_book),) = (one for one in whole[1].books if one[0]["event_us"] == midnight)
    assert of_midnight["kind"] == BookKind.SNAPSHOT
    assert [header["last_update_id"] for header, _ in books] == [
        snapshot["lastUpdateId"], *(update["u"] for update in applied)
    ]  # fmt: skip
    assert [header["kind"] for header, _ in books] == [BookKind.SNAPSHOT] + [BookKind.UPDATE] * len(applied)

    quotes = np.frombuffer(b"".join(whole[1].quotes), QUOTE_RECORD)
    of_book = {int(row["update_id"]): row for row in quotes[quotes["source"] == Source.BOOK]}
    naive: dict[str, dict[int, int]] = {"b": {}, "a": {}}
    ours: dict[BookSide, dict[int, int]] = {BookSide.BID: {}, BookSide.ASK: {}}
    last = None
    for (header, rows), frame in zip(books, [snapshot, *applied], strict=True):
        for side, key in (("b", "bids"), ("a", "asks")):
            for price_text, size_text in frame.get(side, frame.get(key)):
                # All of them have eight decimals: without the point they are the scaled integers.
                price, size = int(price_text.replace(".", "")), int(size_text.replace(".", ""))
                naive[side][price] = size
                if size == 0:
                    del naive[side][price]
        for book_side, price, size in rows:
            ours[book_side][price] = size
            if size == 0:
                del ours[book_side][price]
        bids = [(price, naive["b"][price]) for price in nlargest(5, naive["b"])]
        asks = [(price, naive["a"][price]) for price in nsmallest(5, naive["a"])]
        bought, sold = (sum(size for _, size in side) for side in (bids, asks))
        top = (*bids[0], *asks[0], floor(Fraction(bought - sold, bought + sold) * 10**8))
        if header["last_update_id"] == of_midnight["last_update_id"]:
            assert Counter(whole_book) == Counter(
                (side, *level) for side, levels in ours.items() for level in levels.items()
            )
        row = of_book.get(header["last_update_id"])
        if top == last:
            assert row is None
        else:
            assert row is not None
            names = ("bid", "bid_size", "ask", "ask_size", "imbalance")
            assert tuple(int(row[name]) for name in names) == top
        last = top
    assert ours == {BookSide.BID: naive["b"], BookSide.ASK: naive["a"]}


def test_run_again_it_changes_nothing(
    recording: Path, whole: tuple[FeedTotals, Published], tmp_path: Path
) -> None:
    run(recording, tmp_path)
    again = run(recording, tmp_path)
    assert (again.received, again.accepted, again.duplicates) == (FRAMES, 0, FRAMES)
    assert contents(tmp_path).messages == whole[1].messages


def test_interrupted_anywhere_it_ends_with_the_same_spine(
    recording: Path, whole: tuple[FeedTotals, Published], tmp_path: Path
) -> None:
    seen = 0
    for batches in (1, 3, 4, 6):
        stopped = run(recording, tmp_path, stop_after=batches)
        assert stopped.unaccounted == 0
        assert len(contents(tmp_path).trades) >= seen
        seen = len(contents(tmp_path).trades)
        assert seen < 9_757
    last = run(recording, tmp_path)
    assert last.received == FRAMES
    assert last.duplicates > recorded.LINES
    assert contents(tmp_path).messages == whole[1].messages
