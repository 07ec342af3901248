"""A home whose archive holds a day, and what a replay of it has to come to."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
from log_messages import PRODUCTS, START, market, trade, trade_message

from lakehouse.home import Home
from lakehouse.market.time import MINUTE_US, day_start_us
from lakehouse.settings import Settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M, REPLAY_CANDLES_1M, TRADES
from streaming.engines.embedded.decode import trade_rows
from streaming.engines.embedded.rebuild import rebuild_days
from streaming.replay.progress import Progress, Replayed
from streaming.replay.replaying import run
from streaming.replay.settings import Replay, chosen
from streaming.spine.contract import Batch, Partition

DAY = date(2025, 11, 20)
DAY_START = day_start_us(DAY)
OF_REPLAYS = ("replay_id", "trades_snapshot_id", "replayed_at")


def traded(seed: int = 1, count: int = 3_000, minutes: float = 30) -> list[dict[str, Any]]:
    """Trades of DAY from midnight on, each once, some late, some ids missing."""
    made = {(t["product"], t["trade_id"]): t for t in market(seed, count, minutes=minutes)}
    return [t | {"event_us": t["event_us"] + MINUTE_US} for t in made.values() if t["event_us"] >= START]


def rows_of(trades: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows of the trades table, recorded one microsecond after the other."""
    messages = [trade_message(made) for made in trades]
    recorded = range(DAY_START, DAY_START + len(messages))
    return trade_rows(Batch(0, recorded, messages), Partition("trades", 0))


@dataclass
class ReplayWorld:
    settings: Settings
    home: Home
    archive: IcebergStore
    candles: PaimonStore

    def seal(self, trades: Sequence[dict[str, Any]]) -> None:
        """Make trades the archive's day, and their candles those of the day."""
        for product in PRODUCTS:
            rows = rows_of(t for t in trades if t["product"] == product)
            self.archive.replace(TRADES, product, DAY, rows)
            rebuild_days(self.archive, self.candles, product, [DAY], None)

    def chosen(
        self,
        speed: float | None = None,
        products: tuple[str, ...] = PRODUCTS,
        snapshot_id: int | None = None,
    ) -> Replay:
        return chosen(self.archive, self.candles, DAY, products, speed, snapshot_id)

    def run(
        self,
        replay: Replay,
        on_progress: Callable[[Progress], None] = lambda _progress: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Replayed:
        return run(self.settings, self.home, self.archive, self.candles, replay, on_progress, is_stopped)

    def replayed(self, replay_id: str) -> pa.Table:
        """A replay's candles as rows of `candles_1m`."""
        rows = self.candles.scan(REPLAY_CANDLES_1M, day=DAY)
        own = rows.filter(pa.compute.equal(rows["replay_id"], replay_id))
        return in_order(own.drop_columns(list(OF_REPLAYS)))

    def live(self) -> pa.Table:
        return in_order(self.candles.scan(CANDLES_1M, day=DAY))


def in_order(rows: pa.Table) -> pa.Table:
    return rows.sort_by([("product", "ascending"), ("start", "ascending")]).combine_chunks()


def bursty() -> list[dict[str, Any]]:
    """Two minutes of one product: bursts of hundreds of trades at one moment between quiet ones."""
    times = [0, *([10_000_000] * 400), 11_000_000, 40_000_000, *([41_000_000] * 800), 90_000_000, 120_000_000]
    return [trade("BTC-USD", i + 1, DAY_START + us) for i, us in enumerate(times)]
