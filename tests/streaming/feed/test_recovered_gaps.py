"""A feed killed between two checkpoints: gaps that it found since are neither forgotten nor open for ever."""

import asyncio
import tempfile
from pathlib import Path

from feed_frames import START_US, coinbase, match, new_handler, read_all
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.market.gap import GapStatus
from lakehouse.market.time import SECOND_US
from streaming.exchanges.contract import TradePage
from streaming.feed.handler import FeedHandler
from streaming.feed.pump import Pump
from streaming.feed.sessions import recover
from streaming.feed.trade_gaps import FillGap
from streaming.spine.sqlite import SqliteSpine

FIRST, LAST = 3, 11
MISSING = range(FIRST, LAST + 1)


def publish(handler: FeedHandler, spine: SqliteSpine, *, with_checkpoint: bool = False) -> None:
    async def published() -> None:
        pump = Pump(handler, spine, {})
        await pump.publish(with_checkpoint=with_checkpoint)
        await pump.flushed()

    asyncio.run(published())


def page(ids: set[int]) -> TradePage:
    trades = [coinbase.decode(match(number)) for number in sorted(ids)]
    return TradePage(trades, [], None)  # type: ignore[arg-type]


@given(
    st.sets(st.sampled_from(MISSING)),
    st.sets(st.sampled_from(MISSING)),
    st.sets(st.sampled_from(["found", "fetched", "narrowed", "given up"])),
)
def test_killed_at_any_moment_every_id_ends_as_what_it_is(
    fetched: set[int], had_later: set[int], published: set[str]
) -> None:
    """Some trades of a gap are fetched, the feed is killed, and the next run fetches what else can be had."""
    with tempfile.TemporaryDirectory() as folder, SqliteSpine.open(Path(folder) / "log", 3) as spine:
        first = new_handler(products=["BTC-USD"])
        first.handle([(match(number), START_US) for number in (1, 2)])
        publish(first, spine, with_checkpoint=True)
        first.handle([(match(LAST + 1), START_US)])
        first.tick(START_US + SECOND_US)
        if "found" in published:
            publish(first, spine)
        first.fill(page(fetched), START_US + 2 * SECOND_US)
        if "fetched" in published:
            publish(first, spine)
        first.tick(START_US + 5 * SECOND_US)
        if "narrowed" in published:
            publish(first, spine)
        first.filled(FillGap("BTC-USD", FIRST, LAST), START_US + 6 * SECOND_US)
        if "given up" in published:
            publish(first, spine)

        durable = {int(number) for number in read_all(spine).trades["trade_id"]}
        following = new_handler(products=["BTC-USD"], states=recover(spine).products)
        following.handle([(match(LAST + 1), START_US + 7 * SECOND_US)])
        following.tick(START_US + 8 * SECOND_US)
        following.tick(START_US + 10 * SECOND_US)
        asked = [request for request in following.requests() if isinstance(request, FillGap)]
        open_ids = {number for one in asked for number in range(one.first_trade_id, one.last_trade_id + 1)}
        if "given up" in published:
            assert open_ids == set()
        else:
            assert open_ids == set(MISSING) - durable
        had_later &= open_ids
        following.fill(page(had_later), START_US + 11 * SECOND_US)
        for request in asked:
            following.filled(request, START_US + 12 * SECOND_US)
        following.tick(START_US + 20 * SECOND_US)
        publish(following, spine)

        everything = read_all(spine)
        known = {int(number) for number in everything.trades["trade_id"]}
        latest = {
            number: row.status
            for row in everything.gaps
            for number in range(row.first_trade_id, row.last_trade_id + 1)
        }
        assert known >= durable | had_later
        for number in MISSING:
            if number in known:
                assert latest.get(number, GapStatus.FILLED) is GapStatus.FILLED, number
            else:
                assert latest[number] is GapStatus.UNFILLABLE, number
