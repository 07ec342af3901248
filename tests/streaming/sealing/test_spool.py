import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from listed_rest import ListedRest
from test_day import BTC, DAY, ids, made, of

from lakehouse.home import Home
from lakehouse.market.trade import Exchange, Trade
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.schemas import TRADES
from lakehouse.stores.seals import seals
from streaming.exchanges.contract import RestError, TradePage
from streaming.sealing.day import SealedDay, seal_day
from streaming.sealing.fetch import KEPT_PAGES
from streaming.sealing.rows import as_array
from streaming.sealing.spool import Spool

PAGES = 3 * KEPT_PAGES + 5
PAGE = 2


class BreakingRest(ListedRest):
    """An exchange that goes away, or a process that dies, after so many pages."""

    def __init__(self, trades: Sequence[Trade], error: type[BaseException] = RestError) -> None:
        super().__init__(trades, page=PAGE)
        self.error = error
        self.pages_left = 10**9
        self.given: list[int] = []

    async def trades(
        self, product: str, *, first_id: int | None = None, before_id: int | None = None
    ) -> AsyncIterator[TradePage]:
        async for page in super().trades(product, first_id=first_id, before_id=before_id):
            if self.pages_left == 0:
                raise self.error("gone")
            self.pages_left -= 1
            self.given += [trade.trade_id for trade in page.trades]
            yield page


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.of(Home(tmp_path, "simulated"), Exchange.SIMULATED, BTC, DAY)


def seal(store: IcebergStore, rest: BreakingRest, spool: Spool) -> SealedDay:
    return asyncio.run(seal_day(store, rest.origin(), BTC, DAY, spool=spool))


@pytest.mark.parametrize("error", [RestError, KeyboardInterrupt])
def test_a_seal_that_broke_off_goes_on_where_it_was(
    store: IcebergStore, spool: Spool, error: type[BaseException]
) -> None:
    today = of(DAY, made(per_day=PAGES * PAGE))
    rest = BreakingRest(made(per_day=PAGES * PAGE), error)
    for _ in range(2):
        rest.pages_left = KEPT_PAGES + 3
        with pytest.raises(error):
            seal(store, rest, spool)
        assert store.snapshot_id(TRADES) is None
        assert seals(store) == {}
    rest.pages_left = 10**9
    result = seal(store, rest, spool)
    assert ids(store) == [trade.trade_id for trade in today]
    assert result.fetched == len(today)
    assert set(store.scan(TRADES)["late"].to_pylist()) == {False}
    # What was asked for twice is less than what is kept together, for each time it broke off.
    twice = len(rest.given) - len(set(rest.given))
    assert twice <= (0 if error is RestError else 2 * KEPT_PAGES * PAGE)
    assert not spool.folder.exists()


def test_what_came_over_the_stream_meanwhile_is_not_doubled(store: IcebergStore, spool: Spool) -> None:
    trades = made(per_day=PAGES * PAGE)
    today = of(DAY, trades)
    rest = BreakingRest(trades)
    rest.pages_left = KEPT_PAGES + 3
    with pytest.raises(RestError):
        seal(store, rest, spool)
    rest.pages_left = 10**9
    kept = spool.trades()
    asyncio.run(seal_day(store, rest.origin(), BTC, DAY))  # another seal, that knows no spool
    seal(store, rest, spool)
    assert len(kept) == (KEPT_PAGES + 3) * PAGE
    assert ids(store) == [trade.trade_id for trade in today]


def test_a_damaged_file_is_fetched_again(store: IcebergStore, spool: Spool) -> None:
    trades = made(per_day=PAGES * PAGE)
    rest = BreakingRest(trades)
    rest.pages_left = 2 * KEPT_PAGES
    with pytest.raises(RestError):
        seal(store, rest, spool)
    first, second = sorted(spool.folder.iterdir())
    first.write_bytes(first.read_bytes()[:-10])
    second.with_name("a.npy.partial").write_bytes(b"half a file")
    rest.pages_left = 10**9
    seal(store, rest, spool)
    assert ids(store) == [trade.trade_id for trade in of(DAY, trades)]


def test_days_and_exchanges_have_spools_of_their_own(tmp_path: Path) -> None:
    home = Home(tmp_path, "market")
    trades = as_array(of(DAY, made()))
    spool = Spool.of(home, Exchange.COINBASE, BTC, DAY)
    spool.keep(trades[20:])
    spool.keep(trades[:30])
    assert np.array_equal(spool.trades(), trades)
    for other in (
        Spool.of(home, Exchange.BINANCE, BTC, DAY),
        Spool.of(home, Exchange.COINBASE, BTC, DAY + timedelta(days=1)),
    ):
        other.clear()
        assert len(other.trades()) == 0
    assert np.array_equal(spool.trades(), trades)
