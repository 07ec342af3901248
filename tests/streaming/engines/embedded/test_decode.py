"""Messages of the log become the rows that were meant, and what isn't a message is pointed at."""

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_messages import START, quote_message, trade, trade_message

from lakehouse.market.book import BOOK_HEADER, BookKind, pack_book
from lakehouse.market.gap import FoundBy, Gap, GapStatus
from lakehouse.market.intake import IntakeCount
from lakehouse.market.quarantine import Reason, Refused
from lakehouse.market.trade import Exchange
from streaming.engines.embedded.decode import ROWS, MalformedMessageError, UnknownVersionError, trade_columns
from streaming.spine.contract import Batch, Partition

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def decoded(topic: str, payloads: list[bytes], first_offset: int = 40) -> list[dict[str, Any]]:
    table, to_rows = ROWS[topic]
    batch = Batch(first_offset, [START + 10**6 + i for i in range(len(payloads))], payloads)
    rows = to_rows(batch, Partition(topic, 2))
    assert rows.schema.equals(table.schema)
    rows.validate(full=True)
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def in_the_log(position: int) -> dict[str, Any]:
    return {
        "recorded_at": time(START + 10**6 + position),
        "spine_partition": 2,
        "spine_offset": 40 + position,
    }


trades = st.builds(
    trade,
    st.sampled_from(["BTC-USD", "ETH-USDT", "1INCH-EUR"]),
    st.integers(1, 2**63 - 1),
    st.integers(1_230_940_800_000_000, 4_000_000_000_000_000),
    price=st.integers(1, 10**18 - 1),
    size=st.integers(1, 10**18 - 1),
    buy=st.booleans(),
    late=st.booleans(),
)


@given(st.lists(trades, min_size=1, max_size=20))
def test_trades(made: list[dict[str, Any]]) -> None:
    assert decoded("trades", [trade_message(one) for one in made]) == [
        {
            "product": one["product"],
            "day": time(one["event_us"]).date(),
            "trade_id": one["trade_id"],
            "event_time": time(one["event_us"]),
            "price": Decimal(one["price"]).scaleb(-8),
            "size": Decimal(one["size"]).scaleb(-8),
            "taker_side": "buy" if one["buy"] else "sell",
            "late": one["late"],
            "source": "feed",
            "exchange": "coinbase",
            "received_at": time(one["event_us"] + 20_000),
            **in_the_log(i),
        }
        for i, one in enumerate(made)
    ]


@given(st.integers(1, 10**18 - 1), st.integers(1, 10**18 - 1), st.none() | st.integers(-(10**8), 10**8))
def test_quotes(bid: int, ask: int, imbalance: int | None) -> None:
    (row,) = decoded("quotes", [quote_message("BTC-USD", bid, ask, START, imbalance)])
    assert row == {
        "product": "BTC-USD",
        "day": date(2025, 11, 19),
        "event_time": time(START),
        "update_id": 17,
        "bid": Decimal(bid).scaleb(-8),
        "bid_size": Decimal("0.00000005"),
        "ask": Decimal(ask).scaleb(-8),
        "ask_size": Decimal("0.00000006"),
        "spread": Decimal(ask - bid).scaleb(-8),
        "mid": (Decimal(bid) + Decimal(ask)) / 2 * Decimal("1e-8"),
        "imbalance": None if imbalance is None else Decimal(imbalance).scaleb(-8),
        "source": "ticker" if imbalance is None else "book",
        "exchange": "coinbase",
        "received_at": time(START + 1),
        **in_the_log(0),
    }


def book_message(bids: list[tuple[int, int]], asks: list[tuple[int, int]], **fields: Any) -> bytes:
    known: dict[str, Any] = {"product": "BTC-USD", "kind": BookKind.UPDATE, "exchange": Exchange.BINANCE}
    known |= {"event_us": START, "received_us": START + 1, "first_update_id": 3, "last_update_id": 4}
    return pack_book(**(known | fields), bids=bids, asks=asks)


def test_book_messages_become_a_row_for_each_level() -> None:
    rows = decoded(
        "book",
        [
            book_message([(100, 5), (99, 6)], [(101, 7)], kind=BookKind.SNAPSHOT),
            book_message([], []),
            book_message([], [(101, 0)], product="ETH-USD", event_us=START + 60_000_000),
        ],
    )
    levels = [(row["kind"], row["side"], row["level"], int(row["price"] * 10**8)) for row in rows]
    assert levels == [
        ("snapshot", "bid", 0, 100),
        ("snapshot", "bid", 1, 99),
        ("snapshot", "ask", 2, 101),
        ("update", "ask", 0, 101),
    ]
    assert [row["spine_offset"] for row in rows] == [40, 40, 40, 42]
    assert [row["product"] for row in rows] == ["BTC-USD"] * 3 + ["ETH-USD"]
    assert [row["day"] for row in rows] == [date(2025, 11, 19)] * 3 + [date(2025, 11, 20)]
    assert rows[3]["size"] == 0
    assert (rows[0]["first_update_id"], rows[0]["last_update_id"]) == (3, 4)


def test_gaps() -> None:
    found = Gap(Exchange.BINANCE, "BTC-USD", 5, 9, GapStatus.FOUND, FoundBy.TRADE_ID, START, 0, START + 7)
    unknown = Gap(
        Exchange.BINANCE, "BTC-USD", 5, 9, GapStatus.FILLED, FoundBy.SEAL, 0, 0, START + 60_000_000, "why"
    )
    first, second = decoded("gaps", [msgspec.msgpack.encode(gap) for gap in (found, unknown)])
    assert first == {
        "product": "BTC-USD",
        "day": date(2025, 11, 19),
        "first_trade_id": 5,
        "last_trade_id": 9,
        "status": "found",
        "found_by": "trade_id",
        "after": time(START),
        "before": None,
        "detail": "",
        "exchange": "binance",
        "noticed_at": time(START + 7),
        **in_the_log(0),
    }
    assert (second["day"], second["after"], second["detail"]) == (date(2025, 11, 20), None, "why")


def test_quarantine_keeps_the_raw_bytes() -> None:
    frame = bytes(range(256))
    refused = Refused(Exchange.SIMULATED, "", Reason.NOT_TEXT, "no text", START, frame)
    (row,) = decoded("quarantine", [msgspec.msgpack.encode(refused)])
    assert (row["frame"], row["reason"], row["product"], row["exchange"]) == (
        frame,
        "not_text",
        "",
        "simulated",
    )
    assert row["day"] == date(2025, 11, 19)


def test_intake() -> None:
    count = IntakeCount(Exchange.COINBASE, "BTC-USD", date(2026, 1, 2), "trade", 9, 5, 3, 1, 2)
    (row,) = decoded("intake", [msgspec.msgpack.encode(count)])
    assert [row[name] for name in ("received", "accepted", "duplicates", "quarantined", "late")] == [
        9,
        5,
        3,
        1,
        2,
    ]
    assert (row["day"], row["kind"]) == (date(2026, 1, 2), "trade")


def broken(change: Callable[[bytearray], None], made: bytes) -> bytes:
    message = bytearray(made)
    change(message)
    return bytes(message)


def setting(position: int, kind: str, value: Any) -> Callable[[bytearray], None]:
    return lambda message: struct.pack_into(kind, message, position, value)


GOOD = {
    "trades": trade_message(trade("BTC-USD", 1, START)),
    "quotes": quote_message("BTC-USD", 1, 2, START),
    "book": book_message([(1, 1)], [(2, 2)]),
    "gaps": msgspec.msgpack.encode(
        Gap(Exchange.BINANCE, "BTC-USD", 5, 9, GapStatus.FOUND, FoundBy.TRADE_ID, START, 0, START)
    ),
    "quarantine": msgspec.msgpack.encode(Refused(Exchange.SIMULATED, "", Reason.NOT_TEXT, "", START, b"")),
    "intake": msgspec.msgpack.encode(
        IntakeCount(Exchange.COINBASE, "BTC-USD", date(2026, 1, 2), "trade", 9, 5, 3, 1, 2)
    ),
}
LEVELS_AT = BOOK_HEADER.fields["levels"][1] if BOOK_HEADER.fields else 0
SIDE_AT = BOOK_HEADER.itemsize + 24 + 16


@pytest.mark.parametrize(
    ("topic", "message", "reason"),
    [
        ("trades", GOOD["trades"][:-1], "63 bytes"),
        ("trades", broken(setting(0, "16s", b"../../etc"), GOOD["trades"]), "product"),
        ("trades", broken(setting(0, "16s", b"\xff\xfe"), GOOD["trades"]), "product"),
        ("trades", broken(setting(56, "B", 2), GOOD["trades"]), "taker side 2"),
        ("trades", broken(setting(57, "B", 77), GOOD["trades"]), "source 77"),
        ("trades", broken(setting(58, "B", 0), GOOD["trades"]), "exchange 0"),
        ("quotes", GOOD["quotes"] + b"\0", "89 bytes"),
        ("quotes", broken(setting(81, "B", 9), GOOD["quotes"]), "exchange 9"),
        ("book", b"short", "only 5 bytes"),
        ("book", GOOD["book"][:-24], "for 2 levels"),
        ("book", broken(setting(LEVELS_AT, "<I", 2**32 - 1), GOOD["book"]), "for 4294967295 levels"),
        ("book", broken(setting(SIDE_AT, "<q", -1), GOOD["book"]), "side of a level -1"),
        ("book", broken(setting(SIDE_AT, "<q", 5), GOOD["book"]), "side of a level 5"),
        *((topic, b"\xc1", "no ") for topic in ("gaps", "quarantine", "intake")),
        ("gaps", msgspec.msgpack.encode({"product": 5}), "no Gap"),
    ],
)
def test_what_is_no_message_is_pointed_at(topic: str, message: bytes, reason: str) -> None:
    with pytest.raises(MalformedMessageError, match=reason) as raised:
        decoded(topic, [GOOD[topic], GOOD[topic], message, GOOD[topic]])
    assert raised.value.partition == Partition(topic, 2)
    assert raised.value.offset == 42


@pytest.mark.parametrize(("topic", "position"), [("trades", 60), ("quotes", 82), ("book", 50)])
def test_another_version_is_an_error_of_its_own(topic: str, position: int) -> None:
    newer = broken(setting(position, "<H", 2), GOOD[topic])
    with pytest.raises(UnknownVersionError, match="version 2, not 1") as raised:
        decoded(topic, [GOOD[topic], newer])
    assert raised.value.offset == 41


def test_columns_for_candles_have_what_the_messages_say() -> None:
    made = [trade("ETH-USD", 5, START, buy=False), trade("BTC-USD", 6, START + 1, late=True)]
    batch = Batch(0, [START + 5, START + 6], [trade_message(one) for one in made])
    columns = trade_columns(batch, Partition("trades", 0))
    assert [columns.products[code] for code in columns.product] == ["ETH-USD", "BTC-USD"]
    assert columns.trade_id.tolist() == [5, 6]
    assert columns.taker_buys.tolist() == [False, True]
    assert columns.late.tolist() == [False, True]
    assert columns.recorded_us.tolist() == [START + 5, START + 6]
    wrong = broken(setting(56, "B", 9), GOOD["trades"])
    with pytest.raises(MalformedMessageError, match="taker side 9"):
        trade_columns(Batch(0, [START], [wrong]), Partition("trades", 0))
