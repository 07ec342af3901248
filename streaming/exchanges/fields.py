"""Reading an untrusted JSON object: each accessor returns a checked value or refuses the frame.

This is the careful way. The exchanges decode the usual frames with a typed decoder first, and come here
when a frame is anything but usual: then it is decoded a second time, every doubt is settled, and the
refusal says exactly what is wrong.
"""

import json
from collections.abc import Sequence
from typing import Final, NoReturn

from lakehouse.market.exact import InexactNumberError, scaled
from lakehouse.market.product import is_product
from lakehouse.market.quarantine import Reason, RefusedError
from lakehouse.market.time import InvalidTimeError, parse_iso

MAX_FRAME: Final = 32 * 2**20
"""Longest frame that is looked at, in characters; the largest book snapshots have a few million."""

MAX_ID: Final = 2**63 - 1

JsonObject = dict[str, object]


def json_object(frame: str | bytes) -> JsonObject:
    """Return the JSON object a frame holds; bytes are a frame that was not sent as text.

    Raises:
        RefusedError: not text, too large, not JSON, no object, or a key given twice in any object.
    """
    if isinstance(frame, bytes):
        raise RefusedError(Reason.NOT_TEXT, "a binary frame, or one that is not UTF-8")
    if len(frame) > MAX_FRAME:
        raise RefusedError(Reason.TOO_LARGE, f"{len(frame)} characters, more than {MAX_FRAME}")
    try:
        value = json.loads(frame, object_pairs_hook=_unique, parse_constant=_not_finite, parse_int=_integer)
    except RecursionError:
        raise RefusedError(Reason.WRONG_SHAPE, "nested too deeply") from None
    except ValueError as error:
        if isinstance(error, RefusedError):
            raise
        raise RefusedError(Reason.NOT_JSON, str(error)[:120]) from None
    if not isinstance(value, dict):
        raise RefusedError(Reason.WRONG_SHAPE, f"a JSON {type(value).__name__}, not an object")
    return value


def _unique(pairs: list[tuple[str, object]]) -> JsonObject:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RefusedError(Reason.WRONG_SHAPE, f"the key {twice[:40]!r} is given twice")
    return fields


def _not_finite(text: str) -> NoReturn:
    raise RefusedError(Reason.BAD_NUMBER, f"{text} is not a finite number")


def _integer(text: str) -> int:
    if len(text) > 40:
        raise RefusedError(Reason.BAD_NUMBER, f"an integer of {len(text)} digits")
    return int(text)


class Fields:
    """The fields of one object, with what is known of it for the refusal's sake."""

    def __init__(self, fields: JsonObject, kind: str) -> None:
        self._fields = fields
        self._kind = kind
        self._product = ""

    def refuse(self, reason: Reason, detail: str) -> NoReturn:
        """Refuse the frame."""
        raise RefusedError(reason, detail, self._product, self._kind)

    def belongs_to(self, product: str) -> None:
        """Say which product a later refusal concerns."""
        self._product = product

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def required(self, key: str) -> object:
        """Return a field of any type."""
        if key not in self._fields:
            self.refuse(Reason.WRONG_SHAPE, f"{key!r} is missing")
        return self._fields[key]

    def text(self, key: str) -> str:
        """Return a string."""
        value = self.required(key)
        if not isinstance(value, str):
            self.refuse(Reason.WRONG_SHAPE, f"{key!r} is a {type(value).__name__}, not a string")
        return value

    def product(self, key: str) -> str:
        """Return a name that has a product's form."""
        name = self.text(key)
        if not is_product(name):
            self.refuse(Reason.UNKNOWN_PRODUCT, f"{name[:40]!r} is no product's name")
        self._product = name
        return name

    def identifier(self, key: str) -> int:
        """Return an integer from 1 to 2⁶³ - 1."""
        value = self.required(key)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(Reason.BAD_ID, f"{key!r} is a {type(value).__name__}, not an integer")
        if not 0 < value <= MAX_ID:
            self.refuse(Reason.BAD_ID, f"{key!r} is {value}, not from 1 to {MAX_ID}")
        return value

    def flag(self, key: str) -> bool:
        """Return a boolean."""
        value = self.required(key)
        if not isinstance(value, bool):
            self.refuse(Reason.WRONG_SHAPE, f"{key!r} is a {type(value).__name__}, not a boolean")
        return value

    def positive(self, key: str) -> int:
        """Return a decimal string's value above 0, scaled by 10⁸."""
        value = self._decimal(key, self.required(key))
        if value <= 0:
            self.refuse(Reason.BAD_NUMBER, f"{key!r} is not above 0")
        return value

    def not_negative(self, key: str) -> int:
        """Return a decimal string's value of at least 0, scaled by 10⁸."""
        value = self._decimal(key, self.required(key))
        if value < 0:
            self.refuse(Reason.BAD_NUMBER, f"{key!r} is below 0")
        return value

    def iso_time(self, key: str) -> int:
        """Return an ISO 8601 time in µs UTC."""
        value = self.required(key)
        if not isinstance(value, str):
            self.refuse(Reason.BAD_TIME, f"{key!r} is a {type(value).__name__}, not a string")
        try:
            return parse_iso(value)
        except InvalidTimeError as error:
            self.refuse(Reason.BAD_TIME, f"{key!r}: {error}")

    def milliseconds(self, key: str) -> int:
        """Return a time given in integer milliseconds since 1970, in µs UTC."""
        value = self.required(key)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(Reason.BAD_TIME, f"{key!r} is a {type(value).__name__}, not milliseconds")
        if not 0 <= value <= MAX_ID // 1000:
            self.refuse(Reason.BAD_TIME, f"{key!r} is {value}, no time")
        return value * 1000

    def rows(self, key: str) -> Sequence[object]:
        """Return a list."""
        value = self.required(key)
        if not isinstance(value, list):
            self.refuse(Reason.WRONG_SHAPE, f"{key!r} is a {type(value).__name__}, not a list")
        return value

    def levels(self, key: str) -> list[tuple[int, int]]:
        """Return a list of [price, size], both decimal strings; further items of a level are ignored."""
        return [self.level(key, row) for row in self.rows(key)]

    def level(self, key: str, row: object) -> tuple[int, int]:
        """Return one [price, size]: the price above 0, the size at least 0."""
        if not isinstance(row, list) or len(row) < 2:
            self.refuse(Reason.WRONG_SHAPE, f"a level of {key!r} is not [price, size]")
        price, size = self._decimal(key, row[0]), self._decimal(key, row[1])
        if price <= 0 or size < 0:
            self.refuse(Reason.BAD_NUMBER, f"a level of {key!r} has the price {row[0]}, the size {row[1]}")
        return price, size

    def _decimal(self, key: str, value: object) -> int:
        if isinstance(value, float) and value in (float("inf"), float("-inf")):
            self.refuse(Reason.BAD_NUMBER, f"{key!r} is not finite")
        if not isinstance(value, str):
            self.refuse(Reason.WRONG_SHAPE, f"{key!r} is a {type(value).__name__}, not a decimal string")
        try:
            return scaled(value)
        except InexactNumberError as error:
            self.refuse(Reason.BAD_NUMBER, f"{key!r}: {error}")


def refuse_if_crossed(fields: Fields, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> None:
    """Refuse a snapshot whose best bid is not below its best ask."""
    bid = max((price for price, size in bids if size), default=0)
    ask = min((price for price, size in asks if size), default=MAX_ID)
    if bid >= ask:
        fields.refuse(Reason.CROSSED_BOOK, "the best bid is not below the best ask")
