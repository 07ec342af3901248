"""An older recording after a newer one: past the horizon, its candles come from the archive."""

from datetime import date

from log_messages import START, market, publish_in_batches
from reference_candles import from_rows, reference

from lakehouse.home import Home
from lakehouse.settings import load_settings
from lakehouse.stores.iceberg import IcebergStore
from lakehouse.stores.paimon import PaimonStore
from lakehouse.stores.schemas import CANDLES_1M
from streaming.engines.embedded.archive import ArchiveStage
from streaming.engines.embedded.candles import CandlesStage, live
from streaming.engines.overdue import rebuild_overdue
from streaming.engines.rebuilding import rebuilder
from streaming.spine.sqlite import SqliteSpine


def test_what_came_too_late_is_made_from_the_archive(spine: SqliteSpine, home: Home) -> None:
    day_us = 86_400_000_000
    newer = [trade | {"event_us": trade["event_us"] + 3 * day_us} for trade in market(1, 800)]
    newer = [trade | {"trade_id": trade["trade_id"] + 10**7} for trade in newer]
    older = market(1, 800)
    recorded = publish_in_batches(spine, newer + older, 200)
    with IcebergStore.open(home) as archive, PaimonStore.open(home) as candles:
        ArchiveStage(spine, archive).step()
        result = CandlesStage(spine, candles, live(10)).step()
        assert result.too_late == len({(t["product"], t["trade_id"]) for t in older})
        assert all(start > START + 2 * day_us for _, start in from_rows(candles.scan(CANDLES_1M).to_pylist()))
        rebuild_days = rebuilder(load_settings(home=home.root), home, archive, candles)
        rebuilt = rebuild_overdue(archive, candles, rebuild_days)
        assert {day for _, day in rebuilt} == {date(2025, 11, 19), date(2025, 11, 20)}
        assert len(rebuilt) == 6
        assert from_rows(candles.scan(CANDLES_1M).to_pylist()) == reference(recorded)
        assert rebuild_overdue(archive, candles, rebuild_days) == []
        # The stage goes on from its own state, which the rebuild carried along.
        assert CandlesStage(spine, candles, live(10)).step().messages == {}
