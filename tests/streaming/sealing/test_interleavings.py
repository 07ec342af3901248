"""A backfill beside a live writer, step by step in seeded orders: nothing is lost, nothing doubled."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from listed_rest import ListedRest
from test_day import BTC, DAY, made, of, streamed

from lakehouse.candles.rebuild import rebuild
from lakehouse.home import Home
from lakehouse.market.trade import Trade
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, TRADES
from lakehouse.stores.seals import edges_of_days, seals
from streaming.engines.embedded.rebuild import rebuild_days
from streaming.exchanges.contract import TradePage
from streaming.sealing.day import seal_day

DAYS = [DAY - timedelta(days=1), DAY]
LIVE_DAY = DAY + timedelta(days=1)
EXCHANGES_WORDS = ["trade_id", "event_time", "price", "size", "taker_side"]


class InterruptedRest(ListedRest):
    """An exchange beside which others work: `between` is called before each page."""

    def __init__(self, trades: Sequence[Trade], between: Callable[[], None]) -> None:
        super().__init__(trades)
        self.between = between

    async def trades(
        self, product: str, *, first_id: int | None = None, before_id: int | None = None
    ) -> AsyncIterator[TradePage]:
        async for page in super().trades(product, first_id=first_id, before_id=before_id):
            self.between()
            yield page


def live_writer(
    archive: IcebergStore, candles: PaimonStore, live: list[Trade], late: list[Trade], chances: random.Random
) -> Iterator[None]:
    """Archive the live day's trades and the others' late ones by and by, and write the live day's candles."""
    waiting = [*live, *late]
    chances.shuffle(waiting)
    offset = 0
    while waiting:
        count = min(chances.randint(1, 30), len(waiting))
        batch, waiting = waiting[:count], waiting[count:]
        archive.append(TRADES, streamed(batch, offset), offsets={0: offset + count})
        offset += count
        yield
        candles.upsert(CANDLES_1M, rebuild(archive.scan(TRADES, product=BTC, day=LIVE_DAY)))
        yield


def words(archive: IcebergStore, day: date) -> list[dict[str, object]]:
    rows = archive.scan(TRADES, product=BTC, day=day, columns=EXCHANGES_WORDS).sort_by("trade_id")
    return rows.to_pylist()


def check_interleaving(folder: Path, seed: int) -> None:
    chances = random.Random(seed)
    trades = made()
    # What the stream carries of the past days only the writer has: the exchange's REST interface lost it.
    late = [trade for day in DAYS for trade in chances.sample(of(day, trades), 6)]
    with (
        IcebergStore.open(Home(folder, "simulated").create()) as archive,
        PaimonStore.open(Home(folder, "simulated")) as candles,
    ):
        writer = live_writer(archive, candles, of(LIVE_DAY, trades), late, chances)

        def some_steps() -> None:
            for _ in range(chances.choice([0, 0, 1, 2])):
                next(writer, None)

        rest = InterruptedRest(trades, some_steps)
        rest.forgotten = {trade.trade_id for trade in late}

        def seal(day: date) -> None:
            asyncio.run(seal_day(archive, rest.origin(), BTC, day))

        def rebuild_all(days: Sequence[date]) -> None:
            rebuild_days(archive, candles, BTC, days, archive.snapshot_id(TRADES))

        for _ in range(5):
            for day in chances.sample(DAYS, len(DAYS)):
                seal(day)
                some_steps()
            rebuild_all(chances.sample(DAYS, len(DAYS)))
            some_steps()
        for _ in writer:
            pass
        for day in DAYS:
            seal(day)
        rebuild_all(DAYS)
        sealed = seals(archive)
        for day in (*DAYS, LIVE_DAY):
            rows = words(archive, day)
            assert [row["trade_id"] for row in rows] == [trade.trade_id for trade in of(day, trades)]
        assert archive.offsets(TRADES) == {0: len(late) + len(of(LIVE_DAY, trades))}
        edges = edges_of_days(archive, BTC, DAYS)
        for day in DAYS:
            assert sealed[BTC, day].rows == len(of(day, trades))
            check_candles(candles, day, rebuild(archive.scan(TRADES, product=BTC, day=day), edges[day]))
        check_candles(candles, LIVE_DAY, rebuild(archive.scan(TRADES, product=BTC, day=LIVE_DAY)))
        # Once more changes nothing at all.
        before = (archive.snapshot_id(TRADES), candles.snapshot_id(CANDLES_1M))
        for day in DAYS:
            seal(day)
        rebuild_all(DAYS)
        assert (archive.snapshot_id(TRADES), candles.snapshot_id(CANDLES_1M)) == before


def check_candles(candles: PaimonStore, day: date, expected: pa.Table) -> None:
    stored = candles.scan(CANDLES_1M, product=BTC, day=day).sort_by("start")
    assert stored.equals(expected.cast(stored.schema))


@pytest.mark.parametrize("number", range(4))
def test_a_backfill_beside_a_live_writer(tmp_path: Path, request: pytest.FixtureRequest, number: int) -> None:
    check_interleaving(tmp_path, request.config.getoption("--seed") + number)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_200_interleavings(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for number in range(200):
        check_interleaving(tmp_path / str(number), request.config.getoption("--seed") + number)
