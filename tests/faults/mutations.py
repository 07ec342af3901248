"""Seeded damage to frames, and what a frame says by a second opinion."""

import json
import random
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

Frame = str | bytes

_NUMBERS = re.compile(rb"-?\d+(?:\.\d+)?")
_PAIRS = re.compile(rb'"(\w+)":("[^"]*"|-?\d+(?:\.\d+)?|true|false|null)')
_VALUES = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"1e-400", b"0", b"-0", b"-1", b"null", b"{}"),
    *(b"[]", b"true", b"9223372036854775807", b"9223372036854775808", b"9" * 400, b"0.000000001", b"1e2"),
    *(b"99999999999.99999999", b"10000000000", b"..", b"../../etc/passwd", b"BTC-USD\\u0000", b"\\ud800"),
    *(b"1970-01-01T00:00:00Z", b"2200-01-01T00:00:00Z", b"2026-02-30T00:00:00Z", b"", b"'; DROP TABLE x"),
)


class Mutator:
    """Damages frames; the same seed and frames give the same damage."""

    def __init__(self, seed: int, frames: Sequence[Frame]) -> None:
        self._random = random.Random(seed)
        self._frames = [frame.encode() if isinstance(frame, str) else frame for frame in frames]
        self._ways: list[Callable[[bytes], bytes]] = [
            self._bits,
            self._cut,
            self._splice,
            self._key_twice,
            self._values_swapped,
            self._other_value,
            self._other_digit,
            self._nested,
            self._noise,
        ]

    def next(self) -> Frame:
        """Return a damaged frame as a socket would hand it over: bytes where it is no text."""
        chance = self._random
        damaged = chance.choice(self._frames)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            damaged = chance.choice(self._ways)(damaged)
        if chance.random() < 0.02:
            return damaged  # a binary frame
        try:
            return damaged.decode()
        except UnicodeDecodeError:
            return damaged

    def _place(self, frame: bytes) -> int:
        return self._random.randrange(len(frame) + 1)

    def _bits(self, frame: bytes) -> bytes:
        changed = bytearray(frame)
        for _ in range(self._random.randint(1, 4)):
            if changed:
                changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _cut(self, frame: bytes) -> bytes:
        start, end = sorted((self._place(frame), self._place(frame)))
        return self._random.choice((frame[:start], frame[end:], frame[:start] + frame[end:]))

    def _splice(self, frame: bytes) -> bytes:
        other = self._random.choice(self._frames)
        return frame[: self._place(frame)] + other[self._place(other) :]

    def _key_twice(self, frame: bytes) -> bytes:
        pairs = list(_PAIRS.finditer(frame))
        if not pairs:
            return frame
        pair, other = self._random.choice(pairs), self._random.choice(pairs)
        value = self._random.choice((pair[2], other[2], self._value()))
        at = self._random.choice(pairs).start()
        return frame[:at] + b'"' + pair[1] + b'":' + value + b"," + frame[at:]

    def _values_swapped(self, frame: bytes) -> bytes:
        pairs = list(_PAIRS.finditer(frame))
        if len(pairs) < 2:
            return frame
        first, second = sorted(self._random.sample(pairs, 2), key=re.Match.start)
        return b"".join(
            (
                frame[: first.start(2)],
                second[2],
                frame[first.end(2) : second.start(2)],
                first[2],
                frame[second.end(2) :],
            )
        )

    def _other_value(self, frame: bytes) -> bytes:
        places = list(_NUMBERS.finditer(frame)) + list(_PAIRS.finditer(frame))
        if not places:
            return frame
        place = self._random.choice(places)
        group = 2 if place.re is _PAIRS else 0
        return frame[: place.start(group)] + self._value() + frame[place.end(group) :]

    def _other_digit(self, frame: bytes) -> bytes:
        digits = [place for place, byte in enumerate(frame) if 48 <= byte <= 57]
        if not digits:
            return frame
        place = self._random.choice(digits)
        return frame[:place] + b"%d" % self._random.randrange(10) + frame[place + 1 :]

    def _value(self) -> bytes:
        value = self._random.choice(_VALUES)
        return value if self._random.random() < 0.5 else b'"' + value + b'"'

    def _nested(self, frame: bytes) -> bytes:
        depth = self._random.choice((2, 10, 1_000, 20_000))
        opening, closing = self._random.choice(((b"[", b"]"), (b'{"a":', b"}")))
        pairs = list(_PAIRS.finditer(frame))
        if not pairs:
            return opening * depth + frame
        place = self._random.choice(pairs)
        value = opening * depth + place[2] + closing * self._random.choice((0, depth))
        return frame[: place.start(2)] + value + frame[place.end(2) :]

    def _noise(self, frame: bytes) -> bytes:
        at = self._place(frame)
        return frame[:at] + self._random.randbytes(self._random.randint(1, 12)) + frame[at:]


class SaidTrade(NamedTuple):
    """A trade as a frame says it: exact, in plain Python."""

    product: str
    trade_id: int
    price: Decimal
    size: Decimal
    taker_side: str
    event_us: int


def said_trade(frame: Frame) -> SaidTrade | None:
    """Return the well-formed trade that a Coinbase or Binance frame says, None where it says none.

    A second opinion: the standard library's JSON, decimals and dates, with no code of the feed.
    """
    if isinstance(frame, bytes):
        return None
    try:
        message = json.loads(
            frame, object_pairs_hook=_no_key_twice, parse_constant=_refuse, parse_int=_integer
        )
        return _of_binance(message) if "product_id" not in message else _of_coinbase(message)
    except (ValueError, TypeError, KeyError, AttributeError, InvalidOperation, RecursionError):
        return None


def _of_coinbase(message: dict[str, object]) -> SaidTrade | None:
    if message["type"] not in ("match", "last_match"):
        return None
    side = {"sell": "buy", "buy": "sell"}[str(message["side"])]
    time = datetime.fromisoformat(_text(message["time"]))
    if time.tzinfo is None:
        return None
    return _plausible(
        _text(message["product_id"]), message["trade_id"], message["price"], message["size"], side, _us(time)
    )


def _of_binance(message: dict[str, object]) -> SaidTrade | None:
    data = message.get("data", message)
    if not isinstance(data, dict) or data["e"] != "trade" or type(data["m"]) is not bool:
        return None
    if not isinstance(data["T"], int) or isinstance(data["T"], bool):
        return None
    symbol = re.fullmatch(r"([A-Z0-9]{2,10})(USDT)", _text(data["s"]))
    if symbol is None:
        return None
    side = "sell" if data["m"] else "buy"
    return _plausible(f"{symbol[1]}-USDT", data["t"], data["p"], data["q"], side, data["T"] * 1000)


def _plausible(
    product: str, trade_id: object, price: object, size: object, side: str, event_us: int
) -> SaidTrade | None:
    if re.fullmatch(r"[A-Z0-9]{2,10}-[A-Z]{3,5}", product) is None:
        return None
    if not isinstance(trade_id, int) or isinstance(trade_id, bool) or not 0 < trade_id < 2**63:
        return None
    amounts = []
    for value in (price, size):
        amount = Decimal(_text(value))
        if not amount.is_finite() or amount <= 0 or amount * 10**8 % 1 or amount >= 10**10:
            return None
        amounts.append(amount)
    return SaidTrade(product, trade_id, amounts[0], amounts[1], side, event_us)


def _us(time: datetime) -> int:
    passed = time - datetime(1970, 1, 1, tzinfo=UTC)
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 400:
        raise ValueError("no sensible integer")
    return int(digits)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise ValueError("a key stands there twice")
    return read
