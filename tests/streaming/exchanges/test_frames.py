"""What the exchanges' frames become, and the reason for which each hostile one is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.market.quarantine import Reason, RefusedError
from lakehouse.market.time import parse_iso
from lakehouse.market.trade import Exchange, Side, Trade
from streaming.exchanges.binance import Binance
from streaming.exchanges.coinbase import Coinbase
from streaming.exchanges.contract import (
    BookSnapshot,
    BookUpdate,
    Control,
    ExchangeError,
    Heartbeat,
    Ticker,
)

TIME = "2026-11-20T10:00:00.123456Z"
AT = parse_iso(TIME)
MATCH = {
    "type": "match",
    "trade_id": 74,
    "maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8",
    "taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1",
    "side": "sell",
    "size": "0.01000000",
    "price": "61837.63",
    "product_id": "BTC-USD",
    "sequence": 50093239189,
    "time": TIME,
}
TICKER = {
    "type": "ticker",
    "sequence": 37475248783,
    "product_id": "ETH-USD",
    "price": "1285.22",
    "open_24h": "1310.79",
    "volume_24h": "245532.79269678",
    "low_24h": "1280.52",
    "high_24h": "1313.8",
    "volume_30d": "9788783.60117027",
    "best_bid": "1285.04",
    "best_bid_size": "0.46688654",
    "best_ask": "1285.27",
    "best_ask_size": "1.56637040",
    "side": "buy",
    "time": TIME,
    "trade_id": 370843401,
    "last_size": "11.4396987",
}
UPDATE = {
    "type": "l2update",
    "product_id": "BTC-USD",
    "changes": [["buy", "22356.270000", "0.00000000"], ["sell", "22357.10", "1.5"]],
    "time": TIME,
}
SNAPSHOT = {
    "type": "snapshot",
    "product_id": "BTC-USD",
    "bids": [["10101.10", "0.45054140"]],
    "asks": [["10102.55", "0.57753524"]],
}
HEARTBEAT = {"type": "heartbeat", "sequence": 90, "last_trade_id": 20, "product_id": "BTC-USD", "time": TIME}

TRADE = {
    "e": "trade", "E": 1723161255343, "s": "BTCUSDT", "t": 3735683259, "p": "61837.63000000",
    "q": "0.02000000", "T": 1723161255342, "m": True, "M": True,
}  # fmt: skip
BOOK_TICKER = {"u": 5, "s": "BTCUSDT", "b": "61837.63", "B": "3.78826", "a": "61837.64", "A": "1.54698"}
DEPTH = {
    "e": "depthUpdate", "E": 1723161255208, "s": "BTCUSDT", "U": 157, "u": 160,
    "b": [["0.0024", "10"]], "a": [["0.0026", "0.00000000"]],
}  # fmt: skip

coinbase = Coinbase(Exchange.COINBASE, "ws://127.0.0.1", "http://127.0.0.1")
binance = Binance("ws://127.0.0.1", "http://127.0.0.1", ["BTC-USDT"])


def text(message: object) -> str:
    return json.dumps(message, separators=(",", ":"))


def combined(data: object, stream: str) -> dict[str, object]:
    return {"stream": stream, "data": data}


def test_a_match_is_the_takers_trade() -> None:
    expected = Trade("BTC-USD", 74, 6183763000000, 1000000, Side.BUY, AT)
    assert coinbase.decode(text(MATCH)) == expected
    assert coinbase.decode(text(MATCH | {"type": "last_match"})) == expected
    assert coinbase.decode(text(MATCH | {"side": "buy"})) == Trade(
        "BTC-USD", 74, 6183763000000, 1000000, Side.SELL, AT
    )


def test_the_other_messages_of_coinbase() -> None:
    assert coinbase.decode(text(TICKER)) == Ticker(
        "ETH-USD", 37475248783, 128504000000, 46688654, 128527000000, 156637040, AT
    )
    assert coinbase.decode(text(UPDATE)) == BookUpdate(
        "BTC-USD", 0, 0, [(2235627000000, 0)], [(2235710000000, 150000000)], AT
    )
    assert coinbase.decode(text(SNAPSHOT)) == BookSnapshot(
        "BTC-USD", 0, [(1010110000000, 45054140)], [(1010255000000, 57753524)], 0
    )
    assert coinbase.decode(text(HEARTBEAT)) == Heartbeat("BTC-USD", 20, AT)
    assert coinbase.decode(text({"type": "subscriptions", "channels": []})) == Control("subscriptions")
    assert coinbase.decode(text({"type": "of tomorrow", "x": [1]})) == Control("of tomorrow")
    error = coinbase.decode(text({"type": "error", "message": "Failed", "reason": "no such channel"}))
    assert error == ExchangeError("Failed: no such channel")


def test_the_messages_of_binance() -> None:
    trade = Trade("BTC-USDT", 3735683259, 6183763000000, 2000000, Side.SELL, 1723161255342000)
    assert binance.decode(text(combined(TRADE, "btcusdt@trade"))) == trade
    assert binance.decode(text(TRADE)) == trade
    older = combined({**TRADE, "b": 88, "a": 50, "m": False}, "btcusdt@trade")
    assert binance.decode(text(older)) == Trade(
        "BTC-USDT", 3735683259, 6183763000000, 2000000, Side.BUY, 1723161255342000
    )
    ticker = Ticker("BTC-USDT", 5, 6183763000000, 378826000, 6183764000000, 154698000, 0)
    assert binance.decode(text(combined(BOOK_TICKER, "btcusdt@bookTicker"))) == ticker
    assert binance.decode(text(BOOK_TICKER)) == ticker
    assert binance.decode(text(combined(DEPTH, "btcusdt@depth@100ms"))) == BookUpdate(
        "BTC-USDT", 157, 160, [(240000, 1000000000)], [(260000, 0)], 1723161255208000
    )
    snapshot = {"lastUpdateId": 160, "bids": [["0.0024", "10"]], "asks": [["0.0026", "100"]]}
    levels = ([(240000, 1000000000)], [(260000, 10000000000)], 0)
    assert binance.decode(text(snapshot)) == BookSnapshot("", 160, *levels)
    recorded = combined(snapshot, "btcusdt@depth")
    assert binance.decode(text(recorded)) == BookSnapshot("BTC-USDT", 160, *levels)
    assert binance.decode(text({"result": None, "id": 1})) == Control("result")
    assert binance.decode(text({"code": 2, "msg": "no"})) == ExchangeError("no")


@pytest.mark.parametrize(
    ("symbol", "product"),
    [
        ("BTCUSDT", "BTC-USDT"),
        ("ETHBTC", "ETH-BTC"),
        ("1000SATSFDUSD", "1000SATS-FDUSD"),
        ("BNBEUR", "BNB-EUR"),
    ],
)
def test_symbols_are_cut_before_their_quote_currency(symbol: str, product: str) -> None:
    trade = binance.decode(text(TRADE | {"s": symbol}))
    assert isinstance(trade, Trade)
    assert trade.product == product


HOSTILE_NAMES = [
    "../../etc/passwd", "BTC-USD'; DROP TABLE trades", "BTC-USD\x00", "x" * 10_000, "", "btc-usd",
    "BTC-USD\n", "BTC/USD", "ВТС-USD", "BTC-USDTOOLONG", "..", '"', "\ud800",
]  # fmt: skip
BAD_NUMBERS = [
    "-1",
    "0",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "1e-9",
    "99999999999",
    "",
    "1_0",
    "0x1",
    "1 ",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: repr(name[:12]))
def test_hostile_names_are_no_products(name: str) -> None:
    for message in (MATCH, TICKER, UPDATE, SNAPSHOT, HEARTBEAT):
        assert refusal(coinbase, text(message | {"product_id": name})).reason is Reason.UNKNOWN_PRODUCT
    for data, stream in ((TRADE, "trade"), (BOOK_TICKER, "bookTicker"), (DEPTH, "depth@100ms")):
        refused = refusal(binance, text(combined({**data, "s": name}, f"btcusdt@{stream}")))
        assert refused.reason is Reason.UNKNOWN_PRODUCT
        assert refused.product == ""


@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_bad_numbers(number: str) -> None:
    for key in ("price", "size"):
        assert refusal(coinbase, text(MATCH | {key: number})).reason is Reason.BAD_NUMBER
    for key in ("best_bid", "best_ask"):
        assert refusal(coinbase, text(TICKER | {key: number})).reason is Reason.BAD_NUMBER
    for key in ("p", "q"):
        frame = text(combined({**TRADE, key: number}, "btcusdt@trade"))
        assert refusal(binance, frame).reason is Reason.BAD_NUMBER
    for message in (UPDATE | {"changes": [["buy", number, "1"]]}, SNAPSHOT | {"bids": [[number, "1"]]}):
        assert refusal(coinbase, text(message)).reason is Reason.BAD_NUMBER
    assert (
        refusal(binance, text(combined({**DEPTH, "b": [[number, "1"]]}, "x@depth"))).reason
        is Reason.BAD_NUMBER
    )


def changed(message: dict[str, Any], **fields: object) -> str:
    return text({key: value for key, value in (message | fields).items() if value is not ...})


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (changed(MATCH, price=...), Reason.WRONG_SHAPE),
        (changed(MATCH, product_id=...), Reason.WRONG_SHAPE),
        (changed(MATCH, price=61837.63), Reason.WRONG_SHAPE),
        (changed(MATCH, side="both"), Reason.WRONG_SHAPE),
        (changed(MATCH, side=None), Reason.WRONG_SHAPE),
        (changed(MATCH, type=...), Reason.WRONG_SHAPE),
        (changed(MATCH, type=["match"]), Reason.WRONG_SHAPE),
        (changed(UPDATE, changes=[["buy", "1"]]), Reason.WRONG_SHAPE),
        (changed(UPDATE, changes=[["hold", "1", "1"]]), Reason.WRONG_SHAPE),
        (changed(UPDATE, changes={}), Reason.WRONG_SHAPE),
        (changed(SNAPSHOT, bids=[["1"]]), Reason.WRONG_SHAPE),
        (changed(SNAPSHOT, bids=[["2", "1"]], asks=[["2", "1"]]), Reason.CROSSED_BOOK),
        (changed(TICKER, best_bid="1285.28"), Reason.CROSSED_BOOK),
        (changed(MATCH, trade_id=...), Reason.WRONG_SHAPE),
        (changed(MATCH, trade_id="74"), Reason.BAD_ID),
        (changed(MATCH, trade_id=0), Reason.BAD_ID),
        (changed(MATCH, trade_id=-1), Reason.BAD_ID),
        (changed(MATCH, trade_id=2**63), Reason.BAD_ID),
        (changed(MATCH, trade_id=True), Reason.BAD_ID),
        (changed(MATCH, trade_id=1.5), Reason.BAD_ID),
        (changed(HEARTBEAT, last_trade_id=2**64), Reason.BAD_ID),
        (changed(MATCH, time="yesterday"), Reason.BAD_TIME),
        (changed(MATCH, time="2026-11-20T10:00:00.123456"), Reason.BAD_TIME),
        (changed(MATCH, time=1723161255342), Reason.BAD_TIME),
        (text(MATCH).replace('"61837.63"', "1e400"), Reason.BAD_NUMBER),
        (text(MATCH).replace('"61837.63"', "NaN"), Reason.BAD_NUMBER),
        (text(MATCH).replace("74", "9" * 5000), Reason.BAD_NUMBER),
        (text(MATCH)[:-1] + ',"price":"61837.64"}', Reason.WRONG_SHAPE),
        (text(MATCH)[:-1] + ',"price" : "61837.64"}', Reason.WRONG_SHAPE),
        (text(MATCH)[:-1] + ',"trade_id":75}', Reason.WRONG_SHAPE),
        (text(MATCH).replace('"sequence":50093239189', '"price":"1"'), Reason.WRONG_SHAPE),
        (text(HEARTBEAT)[:-1] + ',"last_trade_id":75}', Reason.WRONG_SHAPE),
        ("[" * 100_000, Reason.WRONG_SHAPE),
        ('{"type":"match","trade_id":' + '{"a":' * 50_000, Reason.WRONG_SHAPE),
        ("[]", Reason.WRONG_SHAPE),
        ("null", Reason.WRONG_SHAPE),
        ("{}", Reason.WRONG_SHAPE),
        ("", Reason.NOT_JSON),
        ("{", Reason.NOT_JSON),
        (text(MATCH) + text(MATCH), Reason.NOT_JSON),
        (text(MATCH)[:100], Reason.NOT_JSON),
        ("\x00" * 100, Reason.NOT_JSON),
        ("x" * 10_000_000, Reason.NOT_JSON),
        ("1" * 33 * 2**20, Reason.TOO_LARGE),
        (text(MATCH).encode(), Reason.NOT_TEXT),
        (b"\xff\xfe", Reason.NOT_TEXT),
    ],
    ids=lambda value: str(value)[:50].replace("\x00", "0"),
)  # fmt: skip
def test_each_hostile_frame_has_its_reason(frame: str | bytes, reason: Reason) -> None:
    assert refusal(coinbase, frame).reason is reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({**TRADE, "t": -5}, Reason.BAD_ID),
        ({**TRADE, "T": -1}, Reason.BAD_TIME),
        ({**TRADE, "T": 2**63}, Reason.BAD_TIME),
        ({**TRADE, "T": "1723161255342"}, Reason.BAD_TIME),
        ({**TRADE, "m": 1}, Reason.WRONG_SHAPE),
        ({**TRADE, "p": 1.5}, Reason.WRONG_SHAPE),
        ({**DEPTH, "U": 161}, Reason.BAD_ID),
        ({**DEPTH, "b": "x"}, Reason.WRONG_SHAPE),
        ({**BOOK_TICKER, "b": "61837.65"}, Reason.CROSSED_BOOK),
        ({**BOOK_TICKER, "u": 0}, Reason.BAD_ID),
        ([], Reason.WRONG_SHAPE),
        ({"lastUpdateId": 1, "bids": [["2", "1"]], "asks": [["1", "1"]]}, Reason.CROSSED_BOOK),
    ],
    ids=str,
)
def test_binance_frames_are_refused_for_the_same_reasons(data: object, reason: Reason) -> None:
    stream = "bookTicker" if isinstance(data, dict) and "A" in data else "trade"
    assert refusal(binance, text(combined(data, f"btcusdt@{stream}"))).reason is reason


def test_a_key_given_twice_is_refused_wherever_it_stands() -> None:
    for key, value in TRADE.items():
        twice = text(TRADE)[:-1] + f",{json.dumps(key)}:{json.dumps(value)}}}"
        assert refusal(binance, f'{{"stream":"btcusdt@trade","data":{twice}}}').reason is Reason.WRONG_SHAPE
    for key, value in MATCH.items():
        twice = text(MATCH)[:-1] + f",{json.dumps(key)}:{json.dumps(value)}}}"
        assert refusal(coinbase, twice).reason is Reason.WRONG_SHAPE


@given(st.permutations(list(MATCH)), st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " : ")]))
def test_the_order_of_keys_and_spaces_mean_nothing(keys: list[str], separators: tuple[str, str]) -> None:
    frame = json.dumps({key: MATCH[key] for key in keys}, separators=separators)
    assert coinbase.decode(frame) == coinbase.decode(text(MATCH))


@given(
    st.sampled_from([MATCH, TICKER, UPDATE, HEARTBEAT]),
    st.data(),
)
def test_the_quick_and_the_careful_way_agree(message: dict[str, Any], data: st.DataObject) -> None:
    """An unknown key sends a frame the careful way; what it says must not depend on the way."""
    key = data.draw(st.sampled_from(sorted(message)))
    values = st.one_of(
        st.sampled_from([*BAD_NUMBERS, "1.5", "00.10", TIME, "2026-11-20T10:00:00Z", "buy", "sell", "X-USD"]),
        st.integers(-(2**70), 2**70), st.none(), st.booleans(), st.text(max_size=5),
    )  # fmt: skip
    changed_message = message | {key: data.draw(values)}
    if changed_message["type"] != message["type"]:
        return
    assert outcome(changed_message) == outcome(changed_message | {"of tomorrow": 1})


def outcome(message: dict[str, Any]) -> object:
    try:
        return coinbase.decode(text(message))
    except RefusedError as error:
        return error.reason, error.product, error.kind


def refusal(exchange: Coinbase | Binance, frame: str | bytes) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        exchange.decode(frame)
    assert len(caught.value.detail) < 300
    return caught.value
