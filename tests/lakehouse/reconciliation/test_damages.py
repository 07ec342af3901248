"""The law of reconciliation: whatever is damaged is found, and nothing else."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_candles import COMPARED, from_rows, reference

from lakehouse.candles.rebuild import rebuild
from lakehouse.market.trade import Exchange
from lakehouse.market.trade_ids import TradeIds
from lakehouse.reconciliation.archive import seal_breaks
from lakehouse.reconciliation.breaks import Break, Kind
from lakehouse.reconciliation.candles import ARCHIVE_CANDLES, OWN_CANDLES, candles_exchange
from lakehouse.stores.schemas import CANDLES_1M, EXCHANGE_CANDLES, TRADES
from lakehouse.stores.seals import SealRecord, rows_checksum

DAY = date(2026, 1, 2)
BTC = "BTC-USD"
MIDNIGHT = datetime(2026, 1, 2, tzinfo=UTC)
FIRST_ID = 101


def trade(number: int) -> dict[str, Any]:
    at = MIDNIGHT + timedelta(seconds=number * 17, microseconds=number)
    row: dict[str, Any] = {"product": BTC, "day": DAY, "trade_id": FIRST_ID + number, "event_time": at}
    row |= {"price": Decimal(60_000 + number * 7 % 11) / 100, "size": Decimal(number % 5 + 1) / 10**8}
    row |= {"taker_side": ("buy", "sell")[number % 2], "late": number % 9 == 0, "source": "feed"}
    row |= {"exchange": "simulated", "received_at": at, "recorded_at": at}
    return row | {"spine_partition": 0, "spine_offset": number}


ROWS = [trade(number) for number in range(60)]
"""Sixty trades in 17 minutes, three or four in each."""

EDGES = [FIRST_ID - 1, FIRST_ID + len(ROWS)]
CANDLES = rebuild(pa.Table.from_pylist(ROWS, TRADES.schema), EDGES).to_pylist()


def connected(trades: list[dict[str, Any]], candles: list[dict[str, Any]]) -> duckdb.DuckDBPyConnection:
    """Connect to tables as `lakehouse sql` shows them."""
    without = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    connection = duckdb.connect(":memory:", config=without)
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("archived", pa.Table.from_pylist(trades, TRADES.schema))
    connection.register("stored", pa.Table.from_pylist(candles, CANDLES_1M.schema))
    wide = "CAST({0} AS DECIMAL(38, 8)) AS {0}"
    prices = ", ".join(wide.format(name) for name in ("open", "high", "low", "close"))
    sizes = ", ".join(wide.format(name) for name in ("price", "size"))
    connection.execute(f"CREATE VIEW trades AS SELECT * REPLACE ({sizes}) FROM archived")
    connection.execute(f"CREATE VIEW candles_1m AS SELECT * REPLACE ({prices}) FROM stored")
    connection.register("exchange_candles", EXCHANGE_CANDLES.schema.empty_table())
    return connection


def archive_breaks(trades: list[dict[str, Any]], candles: list[dict[str, Any]]) -> list[Break]:
    edges = {"edge_days": [DAY] * len(EDGES), "edge_ids": EDGES}
    with connected(trades, candles) as connection:
        return ARCHIVE_CANDLES.between(connection, BTC, [DAY], **edges)


def key_of(candle: Mapping[str, Any]) -> str:
    return str(candle["start"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


DRIFTS = {
    "open": Decimal("0.00000001"),
    "low": Decimal("-0.01"),
    "volume": Decimal("5"),
    "quote_volume": Decimal("-0.0000000000000001"),
    "taker_sell_volume": Decimal("0.00000003"),
    "trade_count": 1,
    "last_trade_id": -1,
    "revision": 2,
}

damages = st.dictionaries(
    st.integers(0, len(CANDLES) - 1), st.sampled_from(["missing", "twice", *DRIFTS]), max_size=len(CANDLES)
)


@settings(max_examples=40)
@given(damages=damages, order=st.randoms(use_true_random=False))
def test_any_set_of_damaged_candles_is_found_exactly(damages: dict[int, str], order: Any) -> None:
    expected, stored = set(), []
    for number, candle in enumerate(CANDLES):
        damage, key = damages.get(number), key_of(candle)
        if damage == "missing":
            expected.add((Kind.MISSING, "candles_1m", key, "", Decimal(-1)))
            continue
        stored.append(candle)
        if damage == "twice":
            expected.add((Kind.DUPLICATE, "candles_1m", key, "", Decimal(1)))
            stored.append(candle | {"close": candle["close"] + 1})
        elif damage is not None:
            stored[-1] = candle | {damage: candle[damage] + DRIFTS[damage]}
            expected.add((Kind.VALUE_DRIFT, "candles_1m", key, damage, Decimal(DRIFTS[damage])))
    order.shuffle(stored)
    found = archive_breaks(ROWS, stored)
    assert {(one.kind, one.table_name, one.row_key, one.column_name, one.amount) for one in found} == expected
    assert len(found) == len(expected)


lost_and_doubled = st.tuples(
    st.sets(st.integers(0, len(ROWS) - 1), max_size=25), st.sets(st.integers(0, len(ROWS) - 1), max_size=10)
)


def reference_of(trades: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """The candles of trades by the code of the tests."""
    rows = [
        {
            "product": row["product"],
            "trade_id": row["trade_id"],
            "price": int(row["price"] * 10**8),
            "size": int(row["size"] * 10**8),
            "buy": row["taker_side"] == "buy",
            "late": row["late"],
            "event_us": (row["event_time"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1),
            "recorded_us": (row["recorded_at"] - datetime(1970, 1, 1, tzinfo=UTC))
            // timedelta(microseconds=1),
        }
        for row in trades
    ]
    return reference(rows, [(BTC, edge) for edge in EDGES])


@settings(max_examples=40)
@given(damage=lost_and_doubled)
def test_any_set_of_damaged_trades_is_found_exactly(damage: tuple[set[int], set[int]]) -> None:
    lost, doubled = damage
    doubled -= lost
    kept = [row for number, row in enumerate(ROWS) if number not in lost]
    archived = kept + [ROWS[number] for number in sorted(doubled)]

    found = seal_breaks(DAY, RECORD, BTC, pa.Table.from_pylist(archived, TRADES.schema), TradeIds())
    ids = {
        trade_id
        for one in found
        if one.kind is Kind.MISSING
        for trade_id in range(int(one.row_key.split("-")[0]), int(one.row_key.split("-")[-1]) + 1)
    }
    assert ids == {FIRST_ID + number for number in lost}
    twice = {int(one.row_key) for one in found if one.kind is Kind.DUPLICATE}
    assert twice == {FIRST_ID + number for number in doubled}
    assert all(one.kind is not Kind.VALUE_DRIFT for one in found)

    # The candles are as they were: what they disagree about with the trades that are left.
    then, now = from_rows(CANDLES), reference_of(kept)
    expected = set()
    for candle in CANDLES:
        at = BTC, (candle["start"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        if at not in now:
            expected.add((Kind.MISSING, "trades", key_of(candle), ""))
            continue
        for name in COMPARED:
            if now[at][name] != then[at][name]:
                column = "recorded_at" if name == "recorded_us" else name
                expected.add((Kind.VALUE_DRIFT, "candles_1m", key_of(candle), column))
    breaks = archive_breaks(archived, CANDLES)
    assert {(one.kind, one.table_name, one.row_key, one.column_name) for one in breaks} == expected


RECORD = SealRecord(
    rows=len(ROWS),
    streamed=len(ROWS),
    first_id=FIRST_ID,
    last_id=FIRST_ID + len(ROWS) - 1,
    checksum=rows_checksum(BTC, DAY, pa.Table.from_pylist(ROWS, TRADES.schema)),
    asked=True,
    sealed_us=0,
)


def test_a_trade_with_another_price_is_a_drift_of_the_sealed_checksum() -> None:
    changed = [*ROWS[:-1], ROWS[-1] | {"price": ROWS[-1]["price"] + 1}]
    (one,) = seal_breaks(DAY, RECORD, BTC, pa.Table.from_pylist(changed, TRADES.schema), TradeIds())
    assert (one.kind, one.column_name, one.expected, one.amount) == (
        *(Kind.VALUE_DRIFT, "checksum", RECORD.checksum),
        Decimal(0),
    )


def test_a_missing_id_that_gaps_lists_is_no_break() -> None:
    left = pa.Table.from_pylist(ROWS[:10] + ROWS[13:], TRADES.schema)
    record = SealRecord(*(57, 57, RECORD.first_id, RECORD.last_id, rows_checksum(BTC, DAY, left), True, 0))
    assert seal_breaks(DAY, record, BTC, left, TradeIds([(FIRST_ID + 10, FIRST_ID + 12)])) == []
    (one,) = seal_breaks(DAY, record, BTC, left, TradeIds([(FIRST_ID + 11, FIRST_ID + 11)]))[:1]
    assert (one.kind, one.row_key, one.amount) == (Kind.MISSING, str(FIRST_ID + 10), Decimal(-1))


def test_days_are_compared_together_and_told_apart() -> None:
    later = timedelta(days=1)
    shifted = [{**c, "day": c["day"] + later, "start": c["start"] + later} for c in CANDLES]
    with connected(ROWS, CANDLES + shifted) as connection:
        days = [DAY, DAY + later]
        edges = {"edge_days": [DAY] * len(EDGES), "edge_ids": EDGES}
        found = ARCHIVE_CANDLES.between(connection, BTC, days, **edges)
        assert {(one.day, one.kind, one.table_name) for one in found} == {
            (DAY + later, Kind.MISSING, "trades")
        }
        assert len(found) == len(CANDLES)
        assert ARCHIVE_CANDLES.between(connection, BTC, [DAY], **edges) == []
        assert ARCHIVE_CANDLES.between(connection, "ETH-USD", days, **edges) == []


def exchange_breaks(exchange: Exchange, change: dict[str, Any]) -> list[Break]:
    own = [{name: candle[name] for name in OWN_CANDLES.names} for candle in CANDLES]
    own[3] |= change
    with connected(ROWS, CANDLES) as connection:
        connection.register("own_candles", pa.Table.from_pylist(own, OWN_CANDLES))
        return candles_exchange(exchange).between(connection, BTC, [DAY])


@pytest.mark.parametrize("exchange", list(Exchange))
def test_candles_like_the_exchanges_own_have_no_break(exchange: Exchange) -> None:
    assert exchange_breaks(exchange, {}) == []


@pytest.mark.parametrize(
    ("exchange", "factor", "drifts"),
    [
        (Exchange.SIMULATED, "1.00005", True),
        (Exchange.BINANCE, "1.00005", True),
        (Exchange.COINBASE, "1.00005", False),
        (Exchange.COINBASE, "1.00020", True),
    ],
)
def test_only_what_is_not_exact_by_construction_has_a_tolerance(
    exchange: Exchange, factor: str, drifts: bool
) -> None:
    ours = CANDLES[3]["volume"] * 10**4
    theirs = ours * Decimal(factor)
    own = [{name: candle[name] for name in OWN_CANDLES.names} for candle in CANDLES]
    own[3]["volume"] = theirs
    stored = [candle | {"volume": ours} if number == 3 else candle for number, candle in enumerate(CANDLES)]
    with connected(ROWS, stored) as connection:
        connection.register("own_candles", pa.Table.from_pylist(own, OWN_CANDLES))
        found = candles_exchange(exchange).between(connection, BTC, [DAY])
    assert [(one.kind, one.column_name, one.amount) for one in found] == (
        [(Kind.VALUE_DRIFT, "volume", ours - theirs)] if drifts else []
    )


@pytest.mark.parametrize("exchange", list(Exchange))
def test_a_price_has_no_tolerance_on_any_exchange(exchange: Exchange) -> None:
    close = CANDLES[3]["close"] + Decimal("0.00000001")
    (one,) = exchange_breaks(exchange, {"close": close})
    assert (one.kind, one.table_name, one.column_name) == (Kind.VALUE_DRIFT, "candles_1m", "close")
    assert one.amount == Decimal("-0.00000001")


def test_a_value_that_no_amount_can_hold_is_a_break_without_one() -> None:
    huge = CANDLES[0] | {"volume": Decimal("9" * 30)}
    (one,) = archive_breaks(ROWS, [huge, *CANDLES[1:]])
    assert (one.kind, one.column_name, one.amount) == (Kind.VALUE_DRIFT, "volume", None)
    assert one.found == "9" * 30 + ".00000000"
