"""Whether a replay made the candles that are live.

Every column of `candles_1m` is compared, `revision` and `recorded_at` too: a replayed trade carries whether
it was late and when it was recorded at first. Not compared are the three columns that `candles_1m` doesn't
have: `replay_id` and `trades_snapshot_id` say which replay it was, `replayed_at` when.

No other check is made: what holds of `candles_1m` by its own checks holds of candles that equal them.
"""

from typing import Final

import dagster as dg

from lakehouse.stores.schemas import CANDLES_1M
from lakehouse_assets.market.checks import Check

EQUALS_LIVE: Final = "equals_live_candles"

_COMPARED: Final = tuple(
    field.name for field in CANDLES_1M.schema if field.name not in ("product", "day", "start")
)

_DIFFER: Final = """
    WITH replayed AS (
        SELECT *, count(*) OVER (PARTITION BY product, start) AS copies
        FROM replay_candles_1m SEMI JOIN scope USING (product, day) WHERE replay_id = '{replay_id}'
    ), live AS (SELECT * FROM candles_1m SEMI JOIN scope USING (product, day)), compared AS (
        SELECT coalesce(r.product, l.product) AS product, coalesce(r.day, l.day) AS day,
            coalesce(r.start, l.start) AS start,
            CASE WHEN r.start IS NULL THEN 'the replay lacks it' WHEN l.start IS NULL THEN 'no live candle'
                WHEN copies > 1 THEN 'the replay has it twice' ELSE concat_ws(', ', {named}) END AS differs,
            r.trade_count AS trades_replayed, l.trade_count AS trades_live
        FROM replayed AS r FULL JOIN live AS l ON r.product = l.product AND r.start = l.start
        WHERE r.start IS NULL OR l.start IS NULL OR copies > 1 OR {differs}
    )
    SELECT compared.* FROM compared JOIN scope USING (product, day) WHERE start < until
    ORDER BY product, day, start"""


def equals_live_candles(replay_id: str) -> Check:
    """Return the check of one replay; ids are made by us, of digits, letters, dots and hyphens."""
    named = ", ".join(f"CASE WHEN r.{name} IS DISTINCT FROM l.{name} THEN '{name}' END" for name in _COMPARED)
    differs = " OR ".join(f"r.{name} IS DISTINCT FROM l.{name}" for name in _COMPARED)
    return Check(
        EQUALS_LIVE,
        "A replay of the day's archived trades makes exactly the candles of `candles_1m`, on all columns.",
        _DIFFER.format(replay_id=replay_id, named=named, differs=differs),
        "The live candles are not what the archived trades make, or trades came after the replay had begun. "
        "Materialize `candles_1m` for this partition, which rebuilds and checks them, then this one",
        # Nothing is computed from replayed candles.
        blocking=False,
        # The day goes on: what the archive and the live candles hold of it is never quite the same.
        live_severity=dg.AssetCheckSeverity.WARN,
    )
